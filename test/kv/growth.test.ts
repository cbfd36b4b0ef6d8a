/**
 * A key-value volume becomes larger: its segments, a primary that was full, what a backup has of what lies behind the end
 * that it knows of, and a real folder.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { suite } from 'uvu';
import type { HoldfastError } from '../../src/base/errors.ts';
import { MiB } from '../../src/base/units.ts';
import { KvContent } from '../../src/kv/content.ts';
import type { KvVolume, Transaction } from '../../src/kv/operations.ts';
import { SegmentCounts, Segments } from '../../src/kv/segments.ts';
import { HostedKv } from '../../src/node/hosted-kv.ts';
import { PrimaryVolume } from '../../src/replication/primary-volume.ts';
import { checkGrowth, prepareGrowth, switchGrowth } from '../../src/storage/growth.ts';
import { IoPool } from '../../src/storage/io-pool.ts';
import { createVolume, openVolume } from '../../src/storage/volume-folder.ts';
import { KvDisk, openKv } from '../support/kv-disk.ts';
import { until } from '../support/until.ts';

const test = suite('key-value growth');
const VALUE = new Uint8Array(100_000).fill(7);
const NONE: ReadonlySet<number> = new Set();

const put = (key: string): Transaction => ({
  conditions: [],
  steps: [{ type: 'put', key, value: VALUE, expiry: 'none', when: 'always', previous: false }],
});

const execute = (kv: KvVolume, key: string): Promise<HoldfastError | null> =>
  new Promise((resolve) => kv.execute(put(key), null, (error) => resolve(error)));

/** Puts keys until the volume is full. @returns how many there are */
async function fill(kv: KvVolume, settle: () => Promise<void>, from = 0): Promise<number> {
  for (let i = from; ; i++) {
    const answer = execute(kv, `key ${i}`);
    await settle();
    const error = await answer;
    if (error === null) continue;
    assert.is(error.code, 'NO_SPACE');
    return i;
  }
}

function takeAll(segments: Segments): number[] {
  const taken: number[] = [];
  for (let first = segments.take(256); first !== null; first = segments.take(256)) {
    taken.push(first / 256);
    segments.arrived(first);
  }
  return taken;
}

test('what was behind the last whole segment becomes part of one; nothing behind the end is taken or moved', () => {
  const counts = new SegmentCounts(10 * 256 + 7);
  assert.is(counts.count, 10);
  const segments = new Segments(counts, 3 * 256 + 200);
  assert.is(segments.count, 3);
  assert.equal(takeAll(segments), [0, 1, 2]);
  segments.extend(3 * 256 + 255);
  segments.extend(256);
  assert.equal([segments.count, segments.emptyCount], [3, 0]);
  // Of a primary before this one, which knew of more.
  counts.runs[5] = 1;
  counts.runs[8] = 1;
  counts.live.fill(9);
  counts.live[8] = 1;
  assert.is(segments.leastLive(NONE, -1), 0);
  segments.extend(4 * 256);
  assert.equal(takeAll(segments), [3]);
  segments.extend(10 * 256 + 7);
  assert.is(segments.count, 10);
  assert.equal(takeAll(segments), [4, 6, 7, 9], 'what is not empty is not written over');
  assert.is(segments.leastLive(NONE, -1), 8);
});

test('a full volume takes keys again at once, at the primary and behind the end of what a backup knows', async () => {
  const disk = new KvDisk(12 * 256 + 100);
  disk.log.blocks = 6 * 256 + 100;
  await disk.backup.build(disk);
  const kv = await openKv(disk);
  const settle = (): Promise<void> => disk.settle();
  const before = await fill(kv, settle);
  assert.is(await execute(kv, 'one more').then((error) => error?.code), 'NO_SPACE');
  disk.log.blocks = 12 * 256 + 100;
  const after = await fill(kv, settle, before);
  // Three of six segments were kept back, and are of twelve.
  assert.ok(after >= 2.7 * before, `${before}, then ${after}`);
  const anew = new KvContent(disk.blocks);
  await anew.build(disk);
  for (const content of [disk.content, disk.backup, anew]) {
    assert.is(content.index.keys, after);
    assert.equal([...content.index.segments.live], [...disk.content.index.segments.live]);
    assert.equal([...content.index.segments.runs], [...disk.content.index.segments.runs]);
  }
});

test('a successor goes on in what it finds behind the old end', async () => {
  const disk = new KvDisk(12 * 256);
  disk.log.blocks = 6 * 256;
  const first = await openKv(disk);
  const before = await fill(first, () => disk.settle());
  disk.log.blocks = 12 * 256;
  const answer = execute(first, `key ${before}`);
  await disk.settle();
  assert.is(await answer, null);
  disk.lose();
  const after = await fill(await openKv(disk), () => disk.settle(), before + 1);
  assert.ok(after >= 2.7 * before, `${before}, then ${after}`);
  const anew = new KvContent(disk.blocks);
  await anew.build(disk);
  for (let i = 0; i < after; i++) assert.ok(anew.index.find(`key ${i}`) !== null, `key ${i}`);
});

test('a folder: all keys are there, and there is room for more', async () => {
  const root = mkdtempSync(join(tmpdir(), 'holdfast-kv-growth-'));
  const dir = join(root, 'keys');
  const pool = new IoPool({ arenaBytes: 24 * MiB, onLost: (error) => assert.unreachable(error.message) });
  const using = async <T>(work: (kv: KvVolume) => Promise<T>): Promise<T> => {
    const open = await openVolume(dir, pool);
    const volume = new PrimaryVolume(open.store, pool.arena, { readOnly: false, onFailed: () => {} });
    const kv = new HostedKv({
      store: open.store,
      arena: pool.arena,
      available: false,
      nowMs: () => performance.now(),
      wallMs: () => Date.now(),
      soon: (run) => void setImmediate(run),
      follows: () => false,
      serve: () => {},
      unserve: () => {},
      log: () => {},
    });
    kv.setPrimary(volume);
    try {
      await until(() => kv.current !== null, 'the keys to be read');
      return await work(kv.current!);
    } finally {
      kv.close();
      await volume.drain();
      await open.close();
    }
  };
  const nothing = (): Promise<void> => Promise.resolve();
  try {
    await createVolume(dir, pool, { sizeBytes: 5 * MiB + 8192, journalBytes: 4 * MiB, kind: 'kv' });
    const before = await using((kv) => fill(kv, nothing));
    const toBytes = 9 * MiB + 4096;
    const open = await openVolume(dir, pool);
    assert.ok(checkGrowth(open.store, toBytes));
    await prepareGrowth(open, pool, { toBytes });
    await open.close();
    await switchGrowth(dir, pool, { toBytes });
    const after = await using(async (kv) => {
      assert.is(kv.info().sizeBytes, toBytes);
      assert.is(kv.info().keys, before);
      return fill(kv, nothing, before);
    });
    assert.ok(after >= 2.5 * before, `${before}, then ${after}`);
    await using((kv) => Promise.resolve(assert.is(kv.info().keys, after)));
  } finally {
    await pool.close();
    rmSync(root, { recursive: true, force: true });
  }
});

test.run();
