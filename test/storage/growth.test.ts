/**
 * A volume's folder gets room for more blocks: everything that was in it is, the rest is zeros, and a crash at any step
 * leaves it as it was or as it is to be.
 */
import {
  cpSync,
  existsSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { ErrorCode } from '../../src/base/errors.ts';
import { BLOCK_BYTES, GiB, MiB, TiB } from '../../src/base/units.ts';
import { LocalDevice } from '../../src/node/local-device.ts';
import { PrimaryVolume } from '../../src/replication/primary-volume.ts';
import { movedPage } from '../../src/storage/enlarged-meta.ts';
import { type GrowthStep, abandonGrowth, checkGrowth, prepareGrowth, switchGrowth } from '../../src/storage/growth.ts';
import { IoPool } from '../../src/storage/io-pool.ts';
import { layoutOf, pagePosition } from '../../src/storage/layout.ts';
import { soloReplica } from '../../src/storage/superblock.ts';
import { type CreateOptions, createVolume, openVolume } from '../../src/storage/volume-folder.ts';
import { Random } from '../support/random.ts';
import { assertBytes, refused } from '../support/unit-tools.ts';

const root = mkdtempSync(join(tmpdir(), 'holdfast-growth-'));
const pool = new IoPool({ arenaBytes: 24 * MiB, onLost: (error) => assert.unreachable(error.message) });
const JOURNAL = 4 * MiB;
let count = 0;

async function created(options: Partial<CreateOptions> & { sizeBytes: number }): Promise<string> {
  const dir = join(root, `v${++count}`);
  await createVolume(dir, pool, { journalBytes: JOURNAL, ...options });
  return dir;
}

interface Device {
  open: Awaited<ReturnType<typeof openVolume>>;
  volume: PrimaryVolume;
  device: LocalDevice;
}

async function using<T>(dir: string, work: (device: Device) => Promise<T>): Promise<T> {
  const open = await openVolume(dir, pool);
  const volume = new PrimaryVolume(open.store, pool.arena, { readOnly: false, onFailed: () => {} });
  try {
    return await work({ open, volume, device: new LocalDevice(volume, pool.arena) });
  } finally {
    await volume.drain();
    await open.close();
  }
}

async function grow(dir: string, toBytes: number, reached?: (step: GrowthStep) => void): Promise<void> {
  const open = await openVolume(dir, pool);
  try {
    if (!checkGrowth(open.store, toBytes)) return;
    await prepareGrowth(open, pool, { toBytes, reached });
  } finally {
    await open.close();
  }
  await switchGrowth(dir, pool, { toBytes, reached });
}

const entries = (dir: string): string[] => readdirSync(dir).filter((name) => name !== 'lock');
const WHOLE = ['data', 'journal', 'meta'];

const growth = suite('growth of a folder');

growth('each page has a place of its own, in the same order, and in its own table', () => {
  const sizes = [2 * MiB, 128 * MiB, GiB, 64 * GiB];
  for (const [i, small] of sizes.entries()) {
    for (const large of [...sizes.slice(i + 1), TiB]) {
      const [from, to] = [layoutOf(small, JOURNAL), layoutOf(large, JOURNAL)];
      let before = -1;
      for (let page = 0; page < from.trackedPages; page++) {
        const moved = movedPage(page, from, to);
        assert.ok(moved > before && moved < to.trackedPages);
        before = moved;
      }
      assert.is(movedPage(from.bitmapFirstPage - 1, from, to), from.bitmapFirstPage - 1);
      assert.is(
        movedPage(from.bitmapFirstPage + 5 * from.pagesPerBitmap, from, to),
        to.bitmapFirstPage + 5 * to.pagesPerBitmap,
      );
      assert.is(movedPage(from.checksumFirstPage, from, to), to.checksumFirstPage);
    }
  }
});

growth('content, marks and zeros that are owed come along; longer bitmaps, then a longer page map', async () => {
  const dir = await created({ sizeBytes: 100 * MiB, sparse: true });
  const random = new Random(1);
  const written = new Map<number, Uint8Array>();
  const write = async (device: LocalDevice, at: number): Promise<void> => {
    const bytes = random.bytes(70_000);
    await device.write(at, bytes);
    written.set(at, bytes);
  };
  const mark = (volume: PrimaryVolume, name: string): Promise<void> =>
    new Promise((resolve, reject) =>
      volume.mark(null, 0, { action: 'set', name }, (error) => (error === null ? resolve() : reject(error))),
    );
  await using(dir, async ({ device, volume }) => {
    await write(device, 0);
    await write(device, 50 * MiB + 123);
    await mark(volume, 'monday');
    await write(device, 99 * MiB);
    await device.write(10 * MiB, random.bytes(MiB));
    await device.zero(10 * MiB, MiB);
  });
  let was = 100 * MiB;
  // 127 MiB of blocks fit a bitmap's page, 63 GiB of them a page of the map.
  for (const size of [101 * MiB, 300 * MiB, 70 * GiB]) {
    const before = await using(dir, async ({ open: { store } }) => {
      await Promise.resolve();
      return { marks: store.marks.list(), owed: store.owed.count, volumeId: store.volumeId, diskId: store.diskId };
    });
    assert.ok(before.owed > 0);
    await grow(dir, size);
    await using(dir, async ({ device, open: { store, recovered, damagedPages } }) => {
      assert.is(recovered, null, 'closed in good order');
      assert.is(damagedPages, 0);
      const { health, sizeBytes, capacityBytes, volumeId, diskId } = store.superblock;
      assert.equal({ health, sizeBytes, capacityBytes }, { health: 'good', sizeBytes: size, capacityBytes: size });
      assert.equal({ marks: store.marks.list(), owed: store.owed.count, volumeId, diskId }, before);
      for (const [at, bytes] of written) assertBytes(await device.read(at, bytes.length), bytes, `at ${at}`);
      assert.ok((await device.read(10 * MiB, MiB)).every((byte) => byte === 0));
      assert.equal(await device.extents(was, Math.min(size - was, MiB)), [
        { offsetBytes: was, lengthBytes: Math.min(size - was, MiB), kind: 'hole' },
      ]);
      await write(device, size - 70_000);
      await write(device, was);
    });
    was = size;
  }
  await using(dir, async ({ device, open: { store } }) => {
    for (const [at, bytes] of written) assertBytes(await device.read(at, bytes.length), bytes, `at ${at}`);
    assert.is(store.marks.list()[0]!.dirtyBlocks, 18 + 256 + 6 * 18, 'the mark went on');
  });
  assert.equal(entries(dir), WHOLE);
  rmSync(dir, { recursive: true });
});

interface Crash {
  what: string;
  dir: string;
}

growth('a crash at each step: as it was, or as it is to be; the next attempt succeeds', async () => {
  const [small, large] = [2 * MiB, 5 * MiB];
  const dir = await created({ sizeBytes: small });
  const bytes = new Random(2).bytes(small);
  await using(dir, ({ device }) => device.write(0, bytes));
  const crashes: Crash[] = [];
  const random = new Random(3);
  /** The folder as a machine that dies now leaves it; `spoil`: what was not synced is lost in some way. */
  const snapshot = (what: string, spoil?: (copy: string) => void): void => {
    const copy = join(root, `crash${crashes.length}`);
    cpSync(dir, copy, { recursive: true });
    spoil?.(copy);
    crashes.push({ what, dir: copy });
  };
  const torn = (file: string) => (copy: string) => {
    const path = join(copy, file);
    if (!existsSync(path)) return;
    writeFileSync(path, random.bytes(statSync(path).size));
    truncateSync(path, random.below(statSync(path).size));
  };
  let during = 0;
  const open = await openVolume(dir, pool);
  await prepareGrowth(open, pool, {
    toBytes: large,
    progress: () => {
      // Once in the middle of `data`, once in that of `meta`.
      if (++during !== 3 && during !== 13) return;
      snapshot(`writing zeros, ${during}`);
      snapshot(`writing zeros, ${during}, torn`, torn('meta.grown'));
    },
    reached: (step) => snapshot(step),
  });
  assert.ok(during >= 13);
  await open.close();
  snapshot('closed');
  snapshot('closed, and half of it written', torn('meta.grown'));
  await switchGrowth(dir, pool, { toBytes: large, reached: (step) => snapshot(step) });

  const seen = new Set<number>();
  for (const { what, dir: crashed } of crashes) {
    const size = await using(crashed, async ({ device, open: { store } }) => {
      assertBytes(await device.read(0, small), bytes, `${what}: the content`);
      return store.sizeBytes;
    });
    seen.add(size);
    const after = ['renamed', 'grown'].includes(what);
    assert.is(size, after ? large : small, what);
    assert.equal(entries(crashed), WHOLE, `${what}: nothing is left of it`);
    assert.is(statSync(join(crashed, 'data')).size, size, what);
    await grow(crashed, large);
    await using(crashed, async ({ device }) => {
      assertBytes(await device.read(0, small), bytes, `${what}: the content, grown`);
      assert.ok(
        (await device.read(small, large - small)).every((byte) => byte === 0),
        `${what}: the rest is zeros`,
      );
      await device.write(large - small, bytes);
    });
    assertBytes(readFileSync(join(crashed, 'data')).subarray(large - small), bytes, what);
    rmSync(crashed, { recursive: true });
  }
  assert.is(seen.size, 2);
  assert.is(pool.arena.slotsInUse, 0);
});

growth('a crash before the journal was empty: it is replayed into the longer tables', async () => {
  const dir = await created({ sizeBytes: 2 * MiB });
  const bytes = new Random(4).bytes(MiB);
  const open = await openVolume(dir, pool);
  const volume = new PrimaryVolume(open.store, pool.arena, { readOnly: false, onFailed: () => {} });
  await new LocalDevice(volume, pool.arena).write(12_288, bytes);
  await prepareGrowth(open, pool, { toBytes: 200 * MiB });
  const crashed = `${dir}-crashed`;
  cpSync(dir, crashed, { recursive: true });
  await volume.drain();
  await open.close();
  await switchGrowth(crashed, pool, { toBytes: 200 * MiB });
  await using(crashed, async ({ device, open: { recovered } }) => {
    assert.ok(recovered!.records > 0);
    assertBytes(await device.read(12_288, MiB), bytes, 'replayed');
  });
  for (const one of [dir, crashed]) rmSync(one, { recursive: true });
});

growth('given up, or interrupted: nothing is left', async () => {
  const dir = await created({ sizeBytes: 2 * MiB });
  const open = await openVolume(dir, pool);
  const abort = new AbortController();
  const progress = (): void => abort.abort();
  await refused('ABORTED', () => prepareGrowth(open, pool, { toBytes: 9 * MiB, progress, signal: abort.signal }));
  assert.equal(entries(dir), WHOLE);
  assert.is(statSync(join(dir, 'data')).size, 2 * MiB);
  await prepareGrowth(open, pool, { toBytes: 9 * MiB });
  assert.equal(entries(dir).sort(), ['data', 'growing', 'journal', 'meta', 'meta.grown']);
  await abandonGrowth(open);
  assert.equal(entries(dir), WHOLE);
  assert.is(statSync(join(dir, 'data')).size, 2 * MiB);
  const full = await refused('NO_SPACE', () => prepareGrowth(open, pool, { toBytes: 15 * TiB }));
  assert.match(full.message, /free space on that file system/);
  assert.equal(entries(dir), WHOLE);
  await open.close();
  const early = await refused('INVALID_ARGUMENT', () => switchGrowth(dir, pool, { toBytes: 9 * MiB }));
  assert.match(early.message, /not prepared/);
  rmSync(dir, { recursive: true });
});

growth('refused: less, no size of blocks, too much, damaged', async () => {
  const dir = await created({ sizeBytes: 2 * MiB });
  await using(dir, ({ open: { store } }) => {
    const refuses = (
      code: ErrorCode,
      toBytes: number,
      one: Parameters<typeof checkGrowth>[0] = store,
    ): Promise<unknown> => refused(code, () => Promise.resolve().then(() => checkGrowth(one, toBytes)));
    assert.is(checkGrowth(store, 2 * MiB), false, 'it has that');
    assert.is(checkGrowth(store, 2 * MiB + BLOCK_BYTES), true);
    const bad = { name: 'bad', superblock: { ...store.superblock, health: 'damaged' as const } };
    return Promise.all([
      refuses('INVALID_ARGUMENT', MiB),
      refuses('INVALID_ARGUMENT', 3 * MiB + 1),
      refuses('TOO_LARGE', 17 * TiB),
      refuses('DAMAGED', 3 * MiB, bad),
    ]);
  });
  rmSync(dir, { recursive: true });
});

growth('a page of the tables that has rotted is not carried over as if it were sound', async () => {
  const dir = await created({ sizeBytes: 2 * MiB });
  await using(dir, ({ device }) => device.write(0, new Random(6).bytes(MiB)));
  const open = await openVolume(dir, pool);
  await prepareGrowth(open, pool, { toBytes: 4 * MiB });
  await open.close();
  const layout = layoutOf(2 * MiB, JOURNAL);
  const meta = readFileSync(join(dir, 'meta'));
  for (const slot of [0, 1]) meta[pagePosition(layout, layout.checksumFirstPage, slot) + 100]! ^= 1;
  writeFileSync(join(dir, 'meta'), meta);
  await refused('DAMAGED', () => switchGrowth(dir, pool, { toBytes: 4 * MiB }));
  await using(dir, ({ open: { store } }) => {
    assert.is(store.health, 'damaged');
    assert.is(store.sizeBytes, 2 * MiB);
    return Promise.resolve();
  });
  assert.equal(entries(dir), WHOLE);
  rmSync(dir, { recursive: true });
});

growth('a replica has room first, and the size when it is told; both survive', async () => {
  const dir = await created({ sizeBytes: 2 * MiB, replica: { ...soloReplica(), state: 'in-sync' } });
  await grow(dir, 4 * MiB);
  for (const told of [false, true]) {
    await using(dir, async ({ device, open: { store } }) => {
      assert.is(store.sizeBytes, 2 * MiB);
      assert.is(store.capacityBlocks, 1024);
      await refused('OUT_OF_RANGE', () => device.write(2 * MiB, new Uint8Array(4096)));
      assert.is(checkGrowth(store, 3 * MiB), false, 'there is room');
      if (told) await store.update({ sizeBytes: 3 * MiB });
    });
  }
  await using(dir, ({ open: { store } }) => {
    assert.is(store.sizeBytes, 3 * MiB);
    return Promise.resolve();
  });
  rmSync(dir, { recursive: true });
});

growth.after(async () => {
  await pool.close();
  rmSync(root, { recursive: true, force: true });
});
growth.run();
