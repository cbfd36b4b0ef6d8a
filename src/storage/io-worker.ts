/**
 * A worker of the I/O ring: one long-lived piscina task that claims entries, makes the system calls on the shared
 * arena and completes them, until it is told to stop.
 *
 * Guarantees: transfers are completed in a loop; a block is handed out only when it matches its checksum (a mismatch is
 * read once more); a failed fdatasync is reported and never repeated.
 */
import { spawnSync } from 'node:child_process';
import { fdatasyncSync, readSync, writeSync, writevSync } from 'node:fs';
import { constants } from 'node:os';
import type { MessagePort } from 'node:worker_threads';
import { ENTRY_ZERO, combineBlock, crc32, entryOf } from '../base/checksum.ts';
import { BLOCK_BYTES, MiB } from '../base/units.ts';
import {
  BUSY,
  CONTROL,
  ENTRY_WORDS,
  ERRNO_CORRUPT,
  ERRNO_SHORT,
  OPS,
  type RingMemory,
  RingViews,
  WORD,
} from './io-ring.ts';

export interface IoWorkerTask {
  ring: RingMemory;
  arena: SharedArrayBuffer;
  /** Where a sleeping main thread is told that something is complete. */
  port: MessagePort;
  /** Of this worker alone, to be read by others: see BUSY. */
  busy: SharedArrayBuffer;
}

const ZEROS = new Uint8Array(MiB);

/** The task. Resolves with the number of operations done when it was stopped. */
export default function ioWorker(task: IoWorkerTask): number {
  const worker = new IoWorker(task);
  return worker.run();
}

class IoWorker {
  private readonly ring: RingViews;
  private readonly arena: Uint8Array;
  private readonly memory: SharedArrayBuffer;
  private readonly port: MessagePort;
  /** A 64-bit word is written by one thread and read as a whole by others. */
  private readonly busy: Float64Array;
  private operations = 0;

  constructor(task: IoWorkerTask) {
    this.ring = new RingViews(task.ring);
    this.memory = task.arena;
    this.arena = new Uint8Array(task.arena);
    this.port = task.port;
    this.busy = new Float64Array(task.busy);
  }

  run(): number {
    for (;;) {
      const id = this.claim();
      const word = id * ENTRY_WORDS;
      if (this.ring.words[word + WORD.OP] === OPS.STOP) {
        this.complete(id, 0, 0);
        return this.operations;
      }
      const beganMs = performance.now();
      this.operations++;
      let errno = 0;
      let value = 0;
      try {
        value = this.perform(id, word);
      } catch (error) {
        errno = errnoOf(error);
        value = error instanceof CorruptBlock ? error.index : 0;
      }
      this.busy[BUSY.OPERATIONS] = this.operations;
      this.busy[BUSY.MS] += performance.now() - beganMs;
      this.complete(id, errno, value);
    }
  }

  private claim(): number {
    const { control, submissions, mask } = this.ring;
    for (;;) {
      const head = Atomics.load(control, CONTROL.HEAD);
      if (head !== Atomics.load(control, CONTROL.TAIL)) {
        const id = submissions[head & mask]!;
        if (Atomics.compareExchange(control, CONTROL.HEAD, head, (head + 1) | 0) === head) return id;
        continue;
      }
      const wake = Atomics.load(control, CONTROL.WAKE);
      Atomics.add(control, CONTROL.SLEEPERS, 1);
      // The main thread publishes the tail before it looks for sleepers, so one of the two sees the other.
      if (Atomics.load(control, CONTROL.HEAD) === Atomics.load(control, CONTROL.TAIL)) {
        Atomics.wait(control, CONTROL.WAKE, wake);
      }
      Atomics.sub(control, CONTROL.SLEEPERS, 1);
    }
  }

  private complete(id: number, errno: number, value: number): void {
    const { control, completions, words, unsigned, mask } = this.ring;
    words[id * ENTRY_WORDS + WORD.ERRNO] = errno;
    unsigned[id * ENTRY_WORDS + WORD.VALUE] = value;
    const at = Atomics.add(control, CONTROL.COMPLETED, 1);
    Atomics.store(completions, at & mask, id + 1);
    if (Atomics.compareExchange(control, CONTROL.MAIN_SLEEPS, 1, 0) === 1) this.port.postMessage(0);
  }

  private perform(id: number, word: number): number {
    const { words, floats } = this.ring;
    const fd = words[word + WORD.FD]!;
    const position = floats[(word + WORD.POSITION) >> 1]!;
    const length = floats[(word + WORD.LENGTH) >> 1]!;
    switch (words[word + WORD.OP]) {
      case OPS.READ:
        this.read(fd, words[word + WORD.BUFFER]!, length, position);
        return 0;
      case OPS.READ_VERIFIED:
        return this.readVerified(word, fd, position, length);
      case OPS.WRITE:
        this.write(id, word, fd, position);
        return words[word + WORD.SYNC] === 1 ? this.sync(fd) : 0;
      case OPS.SYNC:
        return this.sync(fd);
      case OPS.ZERO:
        this.zero(fd, position, length);
        return 0;
      case OPS.PUNCH:
        this.punch(fd, position, length);
        return 0;
      default:
        throw new Error(`unknown ring operation ${words[word + WORD.OP]}`);
    }
  }

  /** @returns microseconds that it took */
  private sync(fd: number): number {
    const beganMs = performance.now();
    fdatasyncSync(fd);
    return Math.round((performance.now() - beganMs) * 1000);
  }

  private read(fd: number, buffer: number, length: number, position: number): void {
    for (let done = 0; done < length;) {
      const count = readSync(fd, this.arena, buffer + done, length - done, position + done);
      if (count === 0) throw new ShortFile();
      done += count;
    }
  }

  private readVerified(word: number, fd: number, position: number, length: number): number {
    const buffer = this.ring.words[word + WORD.BUFFER]!;
    const crcs = new Uint32Array(this.memory, this.ring.words[word + WORD.CRCS]!, length / BLOCK_BYTES);
    const seed = this.ring.unsigned[word + WORD.SEED]!;
    const firstBlock = position / BLOCK_BYTES;
    this.read(fd, buffer, length, position);
    let whole = 0;
    for (let i = 0; i < crcs.length; i++) {
      const at = buffer + i * BLOCK_BYTES;
      const bytes = this.arena.subarray(at, at + BLOCK_BYTES);
      const expected = crcs[i]!;
      if (expected === ENTRY_ZERO) bytes.fill(0);
      let crc = crc32(bytes);
      if (expected !== ENTRY_ZERO && entryOf(seed, firstBlock + i, crc) !== expected) {
        this.read(fd, at, BLOCK_BYTES, position + i * BLOCK_BYTES);
        crc = crc32(bytes);
        if (entryOf(seed, firstBlock + i, crc) !== expected) throw new CorruptBlock(i);
      }
      crcs[i] = crc;
      whole = i === 0 ? crc : combineBlock(whole, crc);
    }
    return whole;
  }

  private write(id: number, word: number, fd: number, position: number): void {
    const { words, floats, iovecs, iovecsPerEntry } = this.ring;
    const count = words[word + WORD.IOVECS]!;
    const split = words[word + WORD.SPLIT]!;
    const base = id * iovecsPerEntry * 2;
    this.writeRun(fd, iovecs, base, 0, split, position);
    if (split < count) this.writeRun(fd, iovecs, base, split, count, floats[(word + WORD.SECOND_POSITION) >> 1]!);
  }

  private writeRun(fd: number, iovecs: Uint32Array, base: number, from: number, to: number, position: number): void {
    if (to - from === 1) return this.writeAll(fd, iovecs[base + 2 * from]!, iovecs[base + 2 * from + 1]!, position);
    const views: Uint8Array[] = [];
    let total = 0;
    for (let i = from; i < to; i++) {
      const offset = iovecs[base + 2 * i]!;
      const length = iovecs[base + 2 * i + 1]!;
      views.push(this.arena.subarray(offset, offset + length));
      total += length;
    }
    let done = writevSync(fd, views, position);
    if (done === total) return;
    // A short write: finish the views one by one.
    let at = position;
    for (const view of views) {
      if (done < view.length) this.writeAll(fd, view.byteOffset + done, view.length - done, at + done);
      done = Math.max(0, done - view.length);
      at += view.length;
    }
  }

  private writeAll(fd: number, offset: number, length: number, position: number): void {
    for (let done = 0; done < length;) done += writeSync(fd, this.arena, offset + done, length - done, position + done);
  }

  private zero(fd: number, position: number, length: number): void {
    for (let done = 0; done < length;) {
      done += writeSync(fd, ZEROS, 0, Math.min(ZEROS.length, length - done), position + done);
    }
  }

  private punch(fd: number, position: number, length: number): void {
    // fallocate(1) works on a descriptor that it inherits as number 3.
    const args = ['-p', '-o', String(position), '-l', String(length), '/proc/self/fd/3'];
    const { status } = spawnSync('fallocate', args, { stdio: ['ignore', 'ignore', 'ignore', fd] });
    if (status !== 0) this.zero(fd, position, length);
  }
}

class CorruptBlock extends Error {
  readonly index: number;
  constructor(index: number) {
    super('corrupt block');
    this.index = index;
  }
}

class ShortFile extends Error {}

function errnoOf(error: unknown): number {
  if (error instanceof CorruptBlock) return ERRNO_CORRUPT;
  if (error instanceof ShortFile) return ERRNO_SHORT;
  const code = (error as NodeJS.ErrnoException).code;
  return (code !== undefined && constants.errno[code as keyof typeof constants.errno]) || constants.errno.EIO;
}
