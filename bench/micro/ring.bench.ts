/**
 * The ring between the main thread and the I/O workers: what a round trip costs alone, and what it costs when many
 * operations of one turn share a wake-up. The file lies in the page cache, so the disk has no part in it.
 */
import { closeSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { crc32, entryOf } from '../../src/base/checksum.ts';
import { BLOCK_BYTES } from '../../src/base/units.ts';
import type { IoDone } from '../../src/storage/files.ts';
import type { Slot } from '../../src/storage/arena.ts';
import { IoPool } from '../../src/storage/io-pool.ts';
import { RingFiles } from '../../src/storage/ring-files.ts';
import { Random } from '../load/workload.ts';
import { microSuite } from './suite.ts';

const BLOCKS = 4096;
const SEED = 0x1234_5678;
const folder = mkdtempSync(join(tmpdir(), 'holdfast-ring-'));
process.on('exit', () => rmSync(folder, { recursive: true, force: true }));
const fd = openSync(join(folder, 'data'), 'w+');
const bytes = new Uint8Array(BLOCKS * BLOCK_BYTES);
const random = new Random(1);
random.fill(bytes);
for (let done = 0; done < bytes.length;) done += writeSync(fd, bytes, done, bytes.length - done, done);
const entries = Uint32Array.from({ length: BLOCKS }, (_, block) =>
  entryOf(SEED, block, crc32(bytes.subarray(block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES))),
);

const pool = new IoPool({
  onLost: (error) => {
    throw error;
  },
});
const files = new RingFiles(pool, { data: fd, journal: fd, meta: fd }, 'ring bench');
const slots: Slot[] = Array.from({ length: 64 }, () => pool.arena.take(1)!);

let last: Promise<void> = Promise.resolve();

/**
 * `count` operations at once, after those of the last call: benny begins a case several times without waiting, and the
 * slots are the same each time.
 */
function together(count: number, start: (slot: Slot, block: number, done: IoDone) => void): Promise<void> {
  last = last.then(
    () =>
      new Promise((resolve, reject) => {
        let left = count;
        const done: IoDone = (error) => {
          if (error !== null) reject(error);
          else if (--left === 0) resolve();
        };
        for (let i = 0; i < count; i++) start(slots[i]!, random.below(BLOCKS), done);
      }),
  );
  return last;
}

const read = (slot: Slot, block: number, done: IoDone): void =>
  files.read('data', slot.payload, block * BLOCK_BYTES, done);
const verified = (slot: Slot, firstBlock: number, done: IoDone): void => {
  slot.crcs[0] = entries[firstBlock]!;
  files.readVerified({ into: slot.payload, crcs: slot.crcs, firstBlock, seed: SEED }, done);
};
/** Writes what is there already, so that the verified reads go on verifying. */
const write = (slot: Slot, block: number, done: IoDone): void => {
  slot.payload.set(bytes.subarray(block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES));
  files.write('data', slot.payload, block * BLOCK_BYTES, done);
};

const several = (name: string, count: number, start: typeof read): Parameters<typeof microSuite>[1][number] => ({
  name: `${count} x ${name}`,
  run: () => together(count, start),
  things: count,
  bytes: count * BLOCK_BYTES,
});

try {
  await microSuite('ring', [
    ...[1, 8, 64].map((count) => several('read', count, read)),
    ...[1, 64].map((count) => several('verified read', count, verified)),
    ...[1, 64].map((count) => several('write, page cache', count, write)),
  ]);
} finally {
  await pool.close();
  closeSync(fd);
}
