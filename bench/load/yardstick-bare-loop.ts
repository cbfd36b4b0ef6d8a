/**
 * The yardstick for durable writes: a bare loop in one thread, without network, checksums, recovery or checkpoints.
 * Append a batch of blocks to a journal with one pwritev, one fdatasync, then write the blocks lazily in place.
 *
 * Guarantees: both files are preallocated by writing (an append into a file that was only fallocated takes twice as
 * long); a block counts as written once its batch is durable; the data file is written through the page cache only.
 * Prints one line of JSON. The files are removed at the end.
 */
import { closeSync, fdatasyncSync, fsyncSync, mkdirSync, openSync, rmSync, writeSync, writevSync } from 'node:fs';
import { join } from 'node:path';
import { Command } from 'commander';
import { HoldfastError } from '../../src/base/errors.ts';
import { BLOCK_BYTES, MiB, parseSize } from '../../src/base/units.ts';
import { Histogram } from './histogram.ts';
import { Random } from './workload.ts';

interface BareLoopOptions {
  dir: string;
  dataBytes: number;
  journalBytes: number;
  batch: number;
  seconds: number;
  warmup: number;
  seed: number;
}

/** Bytes of header for each block of a batch: about what a journal record needs. */
const HEADER_BYTES = 64;

/** Creates a file of that size with real, written blocks. @returns its descriptor */
function preallocate(path: string, sizeBytes: number, random: Random): number {
  const fd = openSync(path, 'wx+');
  const chunk = new Uint8Array(1 * MiB);
  random.fill(chunk);
  for (let at = 0; at < sizeBytes; at += chunk.length) writeAll(fd, chunk.subarray(0, sizeBytes - at), at);
  fsyncSync(fd);
  return fd;
}

function writeAll(fd: number, bytes: Uint8Array, positionBytes: number): void {
  for (let done = 0; done < bytes.length;) {
    done += writeSync(fd, bytes, done, bytes.length - done, positionBytes + done);
  }
}

function run(options: BareLoopOptions): object {
  const { dir, dataBytes, journalBytes, batch } = options;
  const random = new Random(options.seed);
  mkdirSync(dir, { recursive: true });
  const journalPath = join(dir, 'bare-loop.journal');
  const dataPath = join(dir, 'bare-loop.data');
  const opened: number[] = [];
  try {
    const journal = preallocate(journalPath, journalBytes, random);
    opened.push(journal);
    const data = preallocate(dataPath, dataBytes, random);
    opened.push(data);

    // Headers first, padded to whole blocks as a journal pads its batches; then the blocks themselves.
    const headers = new Uint8Array(Math.ceil((batch * HEADER_BYTES) / BLOCK_BYTES) * BLOCK_BYTES);
    const headerWords = new Uint32Array(headers.buffer);
    const blocks = Array.from({ length: batch }, () => new Uint8Array(BLOCK_BYTES));
    for (const block of blocks) random.fill(block);
    const parts = [headers, ...blocks];
    const batchBytes = headers.length + batch * BLOCK_BYTES;
    const dataBlocks = Math.floor(dataBytes / BLOCK_BYTES);
    const targets = new Float64Array(batch);

    const latency = new Histogram();
    const perSecond: number[] = [];
    let at = 0;
    let batchNo = 0;
    let written = 0;
    const began = performance.now();
    const measureFrom = began + options.warmup * 1000;
    const end = measureFrom + options.seconds * 1000;
    let measuring = options.warmup === 0;
    let started = began;
    let now = began;
    while (now < end) {
      if (!measuring && now >= measureFrom) {
        measuring = true;
        started = now;
        written = 0;
        latency.reset();
      }
      batchNo++;
      for (let i = 0; i < batch; i++) {
        const block = random.below(dataBlocks);
        targets[i] = block * BLOCK_BYTES;
        const word = (i * HEADER_BYTES) / 4;
        headerWords[word] = batchNo;
        headerWords[word + 1] = i;
        headerWords[word + 2] = block;
      }
      if (at + batchBytes > journalBytes) at = 0;
      const before = performance.now();
      if (writevSync(journal, parts, at) !== batchBytes) {
        throw new HoldfastError('IO_ERROR', { operation: 'bare loop', detail: 'the journal write was cut short' });
      }
      fdatasyncSync(journal);
      const durable = performance.now();
      at += batchBytes;
      for (let i = 0; i < batch; i++) writeAll(data, blocks[i]!, targets[i]!);
      now = performance.now();
      if (measuring) {
        latency.record((durable - before) * 1e6);
        written += batch;
        const second = Math.floor((now - started) / 1000);
        while (perSecond.length <= second) perSecond.push(0);
        perSecond[second]! += batch;
      }
    }
    const seconds = (now - started) / 1000;
    const cpu = process.cpuUsage();
    // The dirty pages would otherwise be written back during whatever is measured next.
    fdatasyncSync(data);
    return {
      kind: 'bare-loop',
      op: 'write',
      blockBytes: BLOCK_BYTES,
      batch,
      dataBytes,
      journalBytes,
      seconds,
      ops: written,
      opsPerSecond: written / seconds,
      batchLatency: latency.summary(),
      perSecond: perSecond.slice(0, Math.floor(seconds)),
      cpuSeconds: (cpu.user + cpu.system) / 1e6,
      errors: 0,
    };
  } finally {
    for (const fd of opened) closeSync(fd);
    rmSync(journalPath, { force: true });
    rmSync(dataPath, { force: true });
  }
}

const options = new Command('yardstick-bare-loop')
  .description(
    'append a batch, fdatasync, write it lazily in place: the bare loop that durable writes are held against',
  )
  .requiredOption('--dir <path>', 'folder for the two files; must not hold them already')
  .option('--data <size>', 'size of the data file', parseSize, 1024 * MiB)
  .option('--journal <size>', 'size of the journal file', parseSize, 128 * MiB)
  .option('--batch <n>', 'blocks of 4 KiB per batch', Number, 64)
  .option('--seconds <n>', 'time to measure', Number, 10)
  .option('--warmup <n>', 'time before measuring, in seconds', Number, 1)
  .option('--seed <n>', 'seed of the offsets', Number, 1)
  .parse()
  .opts<{ dir: string; data: number; journal: number; batch: number; seconds: number; warmup: number; seed: number }>();

const { data: dataBytes, journal: journalBytes, ...rest } = options;
process.stdout.write(`${JSON.stringify(run({ dataBytes, journalBytes, ...rest }))}\n`);
