/** Files on real files and worker threads: what comes back, where it lands, and which error it becomes. */
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { ENTRY_ZERO, crc32, entryOf } from '../../src/base/checksum.ts';
import { HoldfastError } from '../../src/base/errors.ts';
import { BLOCK_BYTES, MiB } from '../../src/base/units.ts';
import { type FileName, type VerifiedRead, io } from '../../src/storage/files.ts';
import { IoPool } from '../../src/storage/io-pool.ts';
import { RingFiles } from '../../src/storage/ring-files.ts';
import { Random } from '../support/random.ts';
import { assertBytes, refused } from '../support/unit-tools.ts';

const B = BLOCK_BYTES;
const dir = mkdtempSync(join(tmpdir(), 'holdfast-files-'));
const pool = new IoPool({ arenaBytes: 8 * MiB, onLost: (error) => assert.unreachable(error.message) });
const opened: number[] = [];
const SEED = 0x12345678;

/** Three files with that content, fresh. */
function make(content: Partial<Record<FileName, Uint8Array>>): { files: RingFiles; path: (file: FileName) => string } {
  const folder = mkdtempSync(join(dir, 'v-'));
  const path = (file: FileName): string => join(folder, file);
  const fdOf = (file: FileName): number => {
    writeFileSync(path(file), content[file] ?? new Uint8Array(0));
    const fd = openSync(path(file), 'r+');
    opened.push(fd);
    return fd;
  };
  const fds = { data: fdOf('data'), journal: fdOf('journal'), meta: fdOf('meta') };
  return { files: new RingFiles(pool, fds, 'v'), path };
}

/** A verified read of blocks whose entries are given. */
function verified(
  files: RingFiles,
  firstBlock: number,
  entries: number[],
): Promise<{ bytes: Uint8Array; crc: number; crcs: number[] }> {
  const slot = pool.arena.take(entries.length)!;
  slot.payload.fill(0xee);
  slot.crcs.set(entries);
  const crcs = slot.crcs.subarray(0, entries.length);
  const read: VerifiedRead = { into: slot.payload.subarray(0, entries.length * B), crcs, firstBlock, seed: SEED };
  return new Promise((resolve, reject) =>
    files.readVerified(read, (error, crc) => {
      const bytes = read.into.slice();
      const own = [...crcs];
      pool.arena.release(slot);
      if (error === null) resolve({ bytes, crc, crcs: own });
      else reject(error);
    }),
  );
}

const blockOf = (bytes: Uint8Array, i: number): Uint8Array => bytes.subarray(i * B, (i + 1) * B);
const entriesOf = (bytes: Uint8Array): number[] =>
  Array.from({ length: bytes.length / B }, (_, i) => entryOf(SEED, i, crc32(blockOf(bytes, i))));

const files = suite('ring files');

files('plain reads and writes land where they are asked to', async () => {
  const before = new Random(1).bytes(4 * B);
  const { files: f, path } = make({ data: before, meta: before });
  const slot = pool.arena.take(2)!;
  for (const file of ['data', 'meta'] as const) {
    const bytes = slot.payload.subarray(0, 5000);
    await io((done) => f.read(file, bytes, 777, done));
    assertBytes(bytes, before.subarray(777, 5777), `read of ${file}`);
    bytes.fill(9);
    await io((done) => f.write(file, bytes, 3, done));
    const expected = before.slice();
    expected.fill(9, 3, 5003);
    await io((done) => f.sync(file, done));
    assertBytes(readFileSync(path(file)), expected, file);
  }
  pool.arena.release(slot);
});

files('a file that is shorter than it should be is an I/O error that says so', async () => {
  const { files: f } = make({ data: new Uint8Array(B + 100) });
  const slot = pool.arena.take(2)!;
  await io((done) => f.read('data', slot.payload.subarray(0, B + 100), 0, done));
  for (const position of [B, 101, 5 * B]) {
    const error = await refused('IO_ERROR', () =>
      io((done) => f.read('data', slot.payload.subarray(0, B), position, done)),
    );
    assert.match(error.message, /shorter than it should be/);
    assert.is(error.details.offsetBytes, position);
    assert.match(String(error.details.operation), /read of data/);
  }
  pool.arena.release(slot);
  await refused('IO_ERROR', () => verified(f, 0, [1, 1]));
});

files('a verified read: bytes, the CRC of each block and of all of it', async () => {
  const data = new Random(2).bytes(8 * B);
  const { files: f } = make({ data });
  const all = entriesOf(data);
  const { bytes, crc, crcs } = await verified(f, 2, all.slice(2, 7));
  assertBytes(bytes, data.subarray(2 * B, 7 * B), 'blocks 2 to 6');
  assert.is(crc, crc32(bytes));
  assert.equal(
    crcs,
    [2, 3, 4, 5, 6].map((i) => crc32(blockOf(data, i))),
  );
});

files('blocks that were never written are zeros whatever lies there', async () => {
  const data = new Random(3).bytes(4 * B);
  const { files: f } = make({ data });
  const entries = entriesOf(data);
  entries[0] = ENTRY_ZERO;
  entries[2] = ENTRY_ZERO;
  const { bytes, crc } = await verified(f, 0, entries);
  const expected = data.slice();
  expected.fill(0, 0, B);
  expected.fill(0, 2 * B, 3 * B);
  assertBytes(bytes, expected, 'four blocks');
  assert.is(crc, crc32(expected));
});

files('the first corrupt block is named: rotten, or in another block’s place', async () => {
  const data = new Random(4).bytes(8 * B);
  const entries = entriesOf(data);
  for (const bad of [0, 3, 7]) {
    const rotten = data.slice();
    rotten[bad * B + B - 1]! ^= 1;
    const { files: f } = make({ data: rotten });
    const error = await refused('CORRUPT_BLOCK', () => verified(f, 0, entries));
    assert.is(error.details.offsetBytes, bad * B);
    assert.is(error.errno, 'EIO');
    if (bad > 0) await verified(f, 0, entries.slice(0, bad));
    if (bad < 7) await verified(f, bad + 1, entries.slice(bad + 1));
  }
  const swapped = data.slice();
  swapped.set(blockOf(data, 5), 6 * B);
  const { files: f } = make({ data: swapped });
  assert.is((await refused('CORRUPT_BLOCK', () => verified(f, 0, entries))).details.offsetBytes, 6 * B);
});

files('a journal write in one piece, and one split at the ring’s end', async () => {
  const ring = 16 * B;
  const { files: f, path } = make({ journal: new Uint8Array(ring) });
  const slot = pool.arena.take(16)!;
  const source = new Random(5).bytes(10 * B);
  slot.payload.set(source);
  const part = (from: number, to: number): Uint8Array => slot.payload.subarray(from, to);
  const expected = new Uint8Array(ring);
  const write = (parts: Uint8Array[], positionBytes: number, splitAt: number, sync: boolean): Promise<void> =>
    io((done) => f.writeJournal({ parts, positionBytes, splitAt, secondPositionBytes: 0, sync }, done));

  await write([part(0, 64), part(64, 700), part(700, B)], 2 * B, 3, true);
  expected.set(source.subarray(0, B), 2 * B);
  assertBytes(readFileSync(path('journal')), expected, 'one piece');

  // Three parts before the end, two behind it.
  await write(
    [part(0, 100), part(100, 200), part(200, 2 * B), part(2 * B, 2 * B + 1), part(2 * B + 1, 5 * B)],
    ring - 2 * B,
    3,
    true,
  );
  expected.set(source.subarray(0, 2 * B), ring - 2 * B);
  expected.set(source.subarray(2 * B, 5 * B), 0);
  assertBytes(readFileSync(path('journal')), expected, 'five parts');

  // One part on each side, without a sync.
  await write([part(5 * B, 6 * B), part(6 * B, 7 * B)], ring - B, 1, false);
  expected.set(source.subarray(5 * B, 6 * B), ring - B);
  expected.set(source.subarray(6 * B, 7 * B), 0);
  assertBytes(readFileSync(path('journal')), expected, 'two parts');
  pool.arena.release(slot);
});

files('a journal write of as many parts as a batch can have', async () => {
  const { files: f, path } = make({ journal: new Uint8Array(64 * B) });
  const slot = pool.arena.take(64)!;
  const source = new Random(6).bytes(64 * B);
  slot.payload.set(source);
  const parts = Array.from({ length: 1003 }, (_, i) => slot.payload.subarray(i * 128, (i + 1) * 128));
  await io((done) =>
    f.writeJournal({ parts, positionBytes: 4 * B, splitAt: 990, secondPositionBytes: 0, sync: true }, done),
  );
  const now = readFileSync(path('journal'));
  assertBytes(now.subarray(4 * B, 4 * B + 990 * 128), source.subarray(0, 990 * 128), 'before the end');
  assertBytes(now.subarray(0, 13 * 128), source.subarray(990 * 128, 1003 * 128), 'behind it');
  pool.arena.release(slot);
});

files('zeros, written or punched, exactly the range and past the end of nothing', async () => {
  for (const punch of [false, true]) {
    const data = new Random(7).bytes(600 * B);
    const { files: f, path } = make({ data });
    await io((done) => f.zero(3 * B, 400 * B, punch, done));
    const expected = data.slice();
    expected.fill(0, 3 * B, 403 * B);
    assertBytes(readFileSync(path('data')), expected, punch ? 'punched' : 'written');
  }
});

files('positions beyond 2^32 and 2^43', async () => {
  const { files: f } = make({});
  const slot = pool.arena.take(1)!;
  for (const position of [2 ** 32 - 1, 2 ** 32, 2 ** 43 + 4096]) {
    slot.payload.fill(position % 251);
    await io((done) => f.write('data', slot.payload, position, done));
    slot.payload.fill(0);
    await io((done) => f.read('data', slot.payload, position, done));
    assertBytes(slot.payload, new Uint8Array(B).fill(position % 251), `at ${position}`);
  }
  pool.arena.release(slot);
});

files('a full disk is NO_SPACE, a bad descriptor an I/O error, and each names its file', async () => {
  const full = openSync('/dev/full', 'r+');
  opened.push(full);
  const f = new RingFiles(pool, { data: full, journal: full, meta: 9999 }, 'v');
  const slot = pool.arena.take(1)!;
  const journal = { parts: [slot.payload], positionBytes: 0, splitAt: 1, secondPositionBytes: 0, sync: true };
  const noSpace = [
    await refused('NO_SPACE', () => io((done) => f.write('data', slot.payload, 8192, done))),
    await refused('NO_SPACE', () => io((done) => f.writeJournal(journal, done))),
    await refused('NO_SPACE', () => io((done) => f.zero(0, B, false, done))),
  ];
  assert.match(noSpace[0]!.message, /write of data at offset 8192 length 4096 on volume v.*ENOSPC/);
  assert.match(noSpace[1]!.message, /of journal/);
  for (const call of [
    () => io((done) => f.sync('meta', done)),
    () => io((done) => f.read('meta', slot.payload, 0, done)),
    () => io((done) => f.write('meta', slot.payload, 0, done)),
  ]) {
    const error = await refused('IO_ERROR', call);
    assert.ok(error instanceof HoldfastError);
    assert.match(error.message, /of meta.*EBADF/);
  }
  pool.arena.release(slot);
});

files('nothing is answered before the call returns, and everything once', async () => {
  const { files: f } = make({ data: new Uint8Array(4 * B) });
  const slot = pool.arena.take(1)!;
  let answers = 0;
  for (let i = 0; i < 200; i++) f.read('data', slot.payload, (i % 4) * B, () => void answers++);
  f.sync('data', () => void answers++);
  assert.is(answers, 0);
  while (answers < 201) await new Promise((resolve) => setImmediate(resolve));
  await io((done) => f.sync('data', done));
  assert.is(answers, 201);
  assert.is(pool.inFlight, 0);
  pool.arena.release(slot);
});

files.after(async () => {
  assert.is(pool.arena.slotsInUse, 0);
  await pool.close();
  for (const fd of opened) closeSync(fd);
  rmSync(dir, { recursive: true, force: true });
});
files.run();
