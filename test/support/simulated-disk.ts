/**
 * A disk in memory behind `Files`: what was written but not synced may be lost, torn or reordered by a crash, any
 * operation can be made to fail, bytes can rot. Completions come in later turns, in an order drawn from a seed.
 */
import { BLOCK_BYTES } from '../../src/base/units.ts';
import { HoldfastError } from '../../src/base/errors.ts';
import { ENTRY_ZERO, combineBlock, crc32, entryOf } from '../../src/base/checksum.ts';
import { Arena } from '../../src/storage/arena.ts';
import type { FileName, Files, IoDone, JournalWrite, VerifiedRead } from '../../src/storage/files.ts';
import { Random } from './random.ts';

const SECTOR = 512;
export const FILE_NAMES: readonly FileName[] = ['data', 'journal', 'meta'];

/** What happened to the disk, in order. */
export type DiskEvent =
  { kind: 'write'; file: FileName; position: number; bytes: Uint8Array } | { kind: 'sync'; file: FileName };

export type Image = Record<FileName, Uint8Array>;

export interface Fault {
  /** The n-th operation of that kind from now on fails (1: the next). */
  kind: 'write' | 'sync' | 'any';
  n: number;
  code: 'IO_ERROR' | 'NO_SPACE';
}

const SHARED_ARENA_BYTES = 24 * 1024 * 1024;

export class SimulatedDisk implements Files {
  readonly arena: Arena;
  /** What a read sees: the page cache. */
  readonly files: Image;
  /** Writes and syncs since recording began. */
  events: DiskEvent[] = [];
  recording = false;
  fault: Fault | null = null;
  /** Places that cannot be read. */
  badSectors: Array<{ file: FileName; position: number }> = [];
  /** Operations that were made to fail. */
  faultsFired = 0;
  /** Nothing completes any more, as after a crash. */
  dead = false;
  readonly counts: { write: number; sync: number; read: number } = { write: 0, sync: 0, read: 0 };
  private readonly random: Random;
  private pending: Array<() => void> = [];
  private pumping = false;

  constructor(image: Image, seed: number, arena: Arena = new Arena(SHARED_ARENA_BYTES)) {
    this.files = image;
    this.random = new Random(seed);
    this.arena = arena;
  }

  static blank(sizes: Record<FileName, number>): Image {
    return {
      data: new Uint8Array(sizes.data),
      journal: new Uint8Array(sizes.journal),
      meta: new Uint8Array(sizes.meta),
    };
  }

  get sizes(): Record<FileName, number> {
    return { data: this.files.data.length, journal: this.files.journal.length, meta: this.files.meta.length };
  }

  /** Completions come when this says so, instead of in later turns: a simulation has a clock of its own. */
  schedule: ((run: () => void) => void) | null = null;

  private later(run: () => void): void {
    if (this.schedule !== null) return this.schedule(() => this.dead || run());
    this.pending.push(run);
    if (this.pumping) return;
    this.pumping = true;
    const pump = (): void => {
      // A few per turn, so that completions and new requests interleave.
      for (let i = 0; i < 4 && this.pending.length > 0; i++) {
        const at = this.random.below(this.pending.length);
        const [next] = this.pending.splice(at, 1);
        if (!this.dead) next!();
      }
      if (this.pending.length > 0) setImmediate(pump);
      else this.pumping = false;
    };
    setImmediate(pump);
  }

  /** @returns the error that this operation is to fail with, or null */
  private strike(kind: 'write' | 'sync', operation: string): HoldfastError | null {
    this.counts[kind]++;
    const { fault } = this;
    if (fault === null || (fault.kind !== 'any' && fault.kind !== kind) || --fault.n > 0) return null;
    this.fault = null;
    this.faultsFired++;
    return new HoldfastError(fault.code, { operation, detail: 'injected' });
  }

  /** @param own nobody else has these bytes */
  private put(file: FileName, position: number, from: Uint8Array, own = false): void {
    this.files[file].set(from, position);
    if (this.recording) this.events.push({ kind: 'write', file, position, bytes: own ? from : from.slice() });
  }

  read(file: FileName, into: Uint8Array, positionBytes: number, done: IoDone): void {
    this.later(() => {
      this.counts.read++;
      const end = positionBytes + into.length;
      if (this.badSectors.some((bad) => bad.file === file && bad.position >= positionBytes && bad.position < end)) {
        return done(new HoldfastError('IO_ERROR', { operation: `read of ${file}`, detail: 'a bad sector' }));
      }
      into.set(this.files[file].subarray(positionBytes, positionBytes + into.length));
      done(null);
    });
  }

  readVerified(read: VerifiedRead, done: (error: HoldfastError | null, crc: number) => void): void {
    this.later(() => {
      const { into, crcs, firstBlock, seed } = read;
      this.counts.read++;
      into.set(this.files.data.subarray(firstBlock * BLOCK_BYTES, firstBlock * BLOCK_BYTES + into.length));
      let whole = 0;
      for (let i = 0; i < into.length / BLOCK_BYTES; i++) {
        const bytes = into.subarray(i * BLOCK_BYTES, (i + 1) * BLOCK_BYTES);
        if (crcs[i] === ENTRY_ZERO) bytes.fill(0);
        const crc = crc32(bytes);
        if (crcs[i] !== ENTRY_ZERO && entryOf(seed, firstBlock + i, crc) !== crcs[i]) {
          return done(new HoldfastError('CORRUPT_BLOCK', { offsetBytes: (firstBlock + i) * BLOCK_BYTES }), 0);
        }
        crcs[i] = crc;
        whole = i === 0 ? crc : combineBlock(whole, crc);
      }
      done(null, whole);
    });
  }

  write(file: FileName, from: Uint8Array, positionBytes: number, done: IoDone): void {
    this.later(() => {
      const error = this.strike('write', `write of ${file}`);
      if (error === null) this.put(file, positionBytes, from);
      done(error);
    });
  }

  writeJournal(write: JournalWrite, done: IoDone): void {
    this.later(() => {
      const error = this.strike('write', 'write of journal');
      if (error !== null) return done(error);
      let position = write.positionBytes;
      write.parts.forEach((part, i) => {
        if (i === write.splitAt) position = write.secondPositionBytes;
        this.put('journal', position, part);
        position += part.length;
      });
      if (!write.sync) return done(null);
      this.later(() => this.syncNow('journal', done));
    });
  }

  sync(file: FileName, done: IoDone): void {
    this.later(() => this.syncNow(file, done));
  }

  private syncNow(file: FileName, done: IoDone): void {
    const error = this.strike('sync', `fdatasync of ${file}`);
    if (error === null && this.recording) this.events.push({ kind: 'sync', file });
    done(error);
  }

  zero(positionBytes: number, lengthBytes: number, _punch: boolean, done: IoDone): void {
    this.later(() => {
      const error = this.strike('write', 'write zeros');
      if (error === null) this.put('data', positionBytes, new Uint8Array(lengthBytes), true);
      done(error);
    });
  }
}

/**
 * The disk as a crash after the first `prefix` events may leave it: what was synced is there, of the rest any part of
 * any write, in units of sectors.
 */
export function crashImage(start: Image, events: DiskEvent[], prefix: number, random: Random): Image {
  const image: Image = { data: start.data.slice(), journal: start.journal.slice(), meta: start.meta.slice() };
  const syncedUpTo: Record<FileName, number> = { data: -1, journal: -1, meta: -1 };
  for (let i = 0; i < prefix; i++) {
    const event = events[i]!;
    if (event.kind === 'sync') syncedUpTo[event.file] = i;
  }
  // How much of the unsynced survives differs from crash to crash: nothing, everything, or each sector by chance.
  const keep = [0, 1, 0.5, 0.9][random.below(4)]!;
  const torn = random.chance(0.5);
  for (let i = 0; i < prefix; i++) {
    const event = events[i]!;
    if (event.kind !== 'write') continue;
    if (i < syncedUpTo[event.file]) {
      image[event.file].set(event.bytes, event.position);
      continue;
    }
    if (!torn) {
      if (random.chance(keep)) image[event.file].set(event.bytes, event.position);
      continue;
    }
    for (let at = 0; at < event.bytes.length;) {
      const sectorEnd = (Math.floor((event.position + at) / SECTOR) + 1) * SECTOR - event.position;
      const end = Math.min(sectorEnd, event.bytes.length);
      if (random.chance(keep)) image[event.file].set(event.bytes.subarray(at, end), event.position + at);
      at = end;
    }
  }
  return image;
}
