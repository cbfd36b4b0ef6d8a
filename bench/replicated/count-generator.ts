/**
 * A given number of operations by a given number of clients, through the client library, each client with one operation
 * in flight: `readers` share out the reads, `writers` the writes. One process runs one such load after another, as lines
 * of JSON on stdin tell it, over connections that stay open: what is timed is neither a start nor a handshake.
 *
 * Guarantees: an error ends the process; a load's time runs from its first request to its last answer; offsets and bytes
 * follow from the seed.
 */
import { createInterface } from 'node:readline';
import { BLOCK_BYTES, KiB } from '../../src/base/units.ts';
import { connect, type Volume } from '../../src/client/index.ts';
import { Histogram, type LatencySummary } from '../load/histogram.ts';
import { offsets, Random, type Pattern } from '../load/workload.ts';

export interface CountLoad {
  readers: number;
  writers: number;
  reads: number;
  writes: number;
  pattern: Pattern;
  spanBytes: number;
  /** Share of operations whose offset is a multiple of the block size. */
  alignedShare: number;
  seed: number;
  /** The distinct blocks of the load before count too. */
  continues?: boolean;
}

export interface CountResult {
  wallMs: number;
  operations: number;
  mibPerSecond: number;
  /** Blocks that were written at least once, those of loads that this one continues included. */
  distinctBlocks: number;
  read: LatencySummary;
  write: LatencySummary;
}

const FILL_BYTES = 256 * KiB;
const THETA = 0.99;

const url = process.argv[2];
if (url === undefined) {
  process.stderr.write('usage: count-generator URL, loads on stdin\n');
  process.exit(2);
}
const devices: Volume[] = [];
const written = new Set<number>();

async function enough(count: number): Promise<void> {
  while (devices.length < count) devices.push(await connect(url!));
}

/** So many in all, the first ones one more where it does not come out even. */
const shareOf = (total: number, clients: number, index: number): number =>
  Math.floor(total / clients) + (index < total % clients ? 1 : 0);

async function run(load: CountLoad): Promise<CountResult> {
  const { readers, writers, reads, writes, pattern, spanBytes, alignedShare, seed } = load;
  await enough(readers + writers);
  const read = new Histogram();
  const write = new Histogram();
  if (load.continues !== true) written.clear();
  const client = async (index: number): Promise<void> => {
    const device = devices[index]!;
    const writes_ = index >= readers;
    const left = writes_ ? shareOf(writes, writers, index - readers) : shareOf(reads, readers, index);
    const random = new Random(seed * 65_537 + index);
    const where = { pattern, spanBytes, ioBytes: BLOCK_BYTES, theta: THETA, index: 0, clients: 1 };
    const aligned = offsets({ ...where, unaligned: false }, random);
    const unaligned = offsets({ ...where, unaligned: true }, random);
    const bytes = new Uint8Array(BLOCK_BYTES);
    random.fill(bytes);
    for (let i = 0; i < left; i++) {
      const offset = random.unit() < alignedShare ? aligned() : unaligned();
      const begunMs = performance.now();
      if (writes_) await device.write(offset, bytes);
      else await device.read(offset, BLOCK_BYTES);
      (writes_ ? write : read).record((performance.now() - begunMs) * 1e6);
      if (!writes_) continue;
      written.add(Math.floor(offset / BLOCK_BYTES));
      written.add(Math.floor((offset + BLOCK_BYTES - 1) / BLOCK_BYTES));
    }
  };
  const begunMs = performance.now();
  await Promise.all(Array.from({ length: readers + writers }, (_, index) => client(index)));
  const wallMs = performance.now() - begunMs;
  const operations = reads + writes;
  return {
    wallMs,
    operations,
    mibPerSecond: (operations * BLOCK_BYTES * 1000) / wallMs / 1024 / 1024,
    distinctBlocks: written.size,
    read: read.summary(),
    write: write.summary(),
  };
}

/** Blocks that were never written are read without I/O: they are written first. */
async function fill(spanBytes: number): Promise<object> {
  await enough(1);
  const bytes = new Uint8Array(FILL_BYTES);
  new Random(1).fill(bytes);
  for (let at = 0; at < spanBytes; at += FILL_BYTES) {
    await devices[0]!.write(at, bytes.subarray(0, Math.min(FILL_BYTES, spanBytes - at)));
  }
  return { filled: spanBytes };
}

for await (const line of createInterface({ input: process.stdin })) {
  const request = JSON.parse(line) as CountLoad | { fill: number };
  const result = 'fill' in request ? await fill(request.fill) : await run(request);
  process.stdout.write(`${JSON.stringify(result)}\n`);
}
await Promise.all(devices.map((device) => device.close()));
