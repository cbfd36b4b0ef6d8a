/**
 * The same closed loop through the client library: what a program that uses Holdfast gets, with its promises, copies
 * and checksums. Every client is a device of its own with one connection.
 *
 * Guarantees: all errors end the run; a write's bytes do not change while it is under way. Prints one line of JSON.
 */
import { connect } from '../../src/client/index.ts';
import type { BlockDevice } from '../../src/base/device.ts';
import { checkLoadOptions, loadCommand, type LoadOptions, type LoadResult } from './load-options.ts';
import { Tally } from './tally.ts';
import { mixer, offsets, operationsPerPass, Random } from './workload.ts';

/** One operation after the other, until the time is over or `take` gives no more. */
async function loop(
  device: BlockDevice,
  options: LoadOptions,
  next: { offset: () => number; isWrite: () => boolean; take: () => boolean },
  bytes: Uint8Array,
  tally: Tally,
): Promise<void> {
  while (!tally.over && next.take()) {
    const begun = performance.now();
    if (next.isWrite()) await device.write(next.offset(), bytes);
    else await device.read(next.offset(), options.blockBytes);
    tally.advance(performance.now());
    tally.completed(begun);
  }
}

async function run(options: LoadOptions): Promise<LoadResult> {
  const devices = await Promise.all(Array.from({ length: options.clients }, () => connect(options.url)));
  try {
    const spanBytes = options.spanBytes || devices[0]!.sizeBytes;
    const loops: Array<(tally: Tally) => Promise<void>> = [];
    devices.forEach((device, index) => {
      const where = { ...options, spanBytes, ioBytes: options.blockBytes, index };
      const random = new Random(options.seed * 65_537 + index);
      let left = options.fill ? operationsPerPass(where) : Infinity;
      const next = {
        offset: offsets(where, random),
        isWrite: mixer(options.op, options.readPercent, random),
        take: () => left-- > 0,
      };
      const bytes = new Uint8Array(options.blockBytes);
      random.fill(bytes);
      for (let i = 0; i < options.depth; i++) loops.push((tally) => loop(device, options, next, bytes, tally));
    });
    const tally = new Tally(options, performance.now());
    await Promise.all(loops.map((start) => start(tally)));
    return tally.result('client', spanBytes);
  } finally {
    await Promise.all(devices.map((device) => device.close()));
  }
}

const command = loadCommand('client-generator', 'load through the client library').parse();
const result = await run(checkLoadOptions(command.opts<LoadOptions>()));
process.stdout.write(`${JSON.stringify(result)}\n`);
