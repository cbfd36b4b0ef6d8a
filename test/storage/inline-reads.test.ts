/** Short reads on the main thread: when they are made, that they verify, and that a worker takes over when they may not. */
import { closeSync, mkdtempSync, openSync, rmSync, writeFileSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { crc32, entryOf } from '../../src/base/checksum.ts';
import type { HoldfastError } from '../../src/base/errors.ts';
import { BLOCK_BYTES, MiB } from '../../src/base/units.ts';
import { io } from '../../src/storage/files.ts';
import { IoPool } from '../../src/storage/io-pool.ts';
import { RecentBlocks } from '../../src/storage/recent-blocks.ts';
import { RingFiles } from '../../src/storage/ring-files.ts';
import { Random } from '../support/random.ts';

const test = suite('inline reads');
const B = BLOCK_BYTES;
const SEED = 77;
const BLOCKS = 16;
const folder = mkdtempSync(join(tmpdir(), 'holdfast-inline-'));
const path = join(folder, 'data');
const content = new Random(5).bytes(BLOCKS * B);
writeFileSync(path, content);
const fd = openSync(path, 'r+');
const pool = new IoPool({ arenaBytes: 8 * MiB, onLost: (error) => assert.unreachable(error.message) });
const entry = (block: number): number => entryOf(SEED, block, crc32(content.subarray(block * B, (block + 1) * B)));

/** @returns what came, and whether a worker was asked */
async function read(files: RingFiles, first: number, count: number): Promise<{ bytes: Uint8Array; byWorker: boolean }> {
  const slot = pool.arena.take(count)!;
  for (let i = 0; i < count; i++) slot.crcs[i] = entry(first + i);
  const into = slot.payload.subarray(0, count * B);
  try {
    return await new Promise((resolve, reject) => {
      files.readVerified({ into, crcs: slot.crcs.subarray(0, count), firstBlock: first, seed: SEED }, (error, crc) => {
        if (error !== null) return reject(error);
        assert.is(crc, crc32(content.subarray(first * B, (first + count) * B)));
        assert.is(slot.crcs[count - 1], crc32(content.subarray((first + count - 1) * B, (first + count) * B)));
        resolve({ bytes: into.slice(), byWorker });
      });
      const byWorker = pool.io.inFlight > 0;
    });
  } finally {
    pool.arena.release(slot);
  }
}

test('only a lone connection, only short reads, only what was used a moment ago', async () => {
  const files = new RingFiles(pool, { data: fd, journal: fd, meta: fd }, 'v', BLOCKS);
  pool.isLone = () => true;
  assert.is((await read(files, 3, 1)).byWorker, true, 'never used');
  const second = await read(files, 3, 1);
  assert.is(second.byWorker, false);
  assert.equal(second.bytes, content.slice(3 * B, 4 * B));
  assert.is((await read(files, 3, 2)).byWorker, true, 'the block beside it was never used');
  assert.is((await read(files, 3, 2)).byWorker, false);
  pool.isLone = () => false;
  assert.is((await read(files, 3, 1)).byWorker, true, 'not alone');
  pool.isLone = () => true;
  await read(files, 0, 8);
  assert.is((await read(files, 0, 8)).byWorker, true, 'too long');
  const slot = pool.arena.take(1)!;
  slot.payload.set(content.subarray(12 * B, 13 * B));
  await io((done) => files.write('data', slot.payload, 12 * B, done));
  pool.arena.release(slot);
  assert.is((await read(files, 12, 1)).byWorker, false, 'written is used');
});

test('a block that does not verify is read by a worker, and refused by it', async () => {
  const files = new RingFiles(pool, { data: fd, journal: fd, meta: fd }, 'v', BLOCKS);
  pool.isLone = () => true;
  await read(files, 6, 1);
  assert.is((await read(files, 6, 1)).byWorker, false);
  writeSync(fd, Uint8Array.of(content[6 * B]! ^ 1), 0, 1, 6 * B);
  const failure = await read(files, 6, 1).catch((error: HoldfastError) => error.code);
  assert.is(failure, 'CORRUPT_BLOCK');
  writeSync(fd, content, 6 * B, 1, 6 * B);
  assert.is((await read(files, 6, 1)).byWorker, false);
});

test('a few per turn of the loop, the others go to the workers', async () => {
  const files = new RingFiles(pool, { data: fd, journal: fd, meta: fd }, 'v', BLOCKS);
  pool.isLone = () => true;
  await read(files, 1, 1);
  const answers = await Promise.all(Array.from({ length: 200 }, () => read(files, 1, 1)));
  const inline = answers.filter(({ byWorker }) => !byWorker).length;
  assert.ok(inline > 0 && inline <= 64, `${inline}`);
});

test('a block is forgotten after a while, also in a long silence', () => {
  const recent = new RecentBlocks(100, 0);
  recent.touch(10, 5);
  assert.is(recent.has(10, 5, 19_000), true);
  assert.is(recent.has(9, 2, 19_000), false);
  assert.is(recent.has(10, 5, 21_000), true);
  assert.is(recent.has(10, 5, 41_000), false);
  recent.touch(50, 1);
  assert.is(recent.has(50, 1, 1_000_000), false);
});

test.after(async () => {
  await pool.close();
  closeSync(fd);
  rmSync(folder, { recursive: true });
});
test.run();
