/** A volume's folder on a real file system: created whole or not at all, opened by one, refused where it is not right. */
import { spawnSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
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
import { BLOCK_BYTES, GiB, MiB, TiB } from '../../src/base/units.ts';
import { LocalDevice } from '../../src/node/local-device.ts';
import { PrimaryVolume } from '../../src/replication/primary-volume.ts';
import { IoPool } from '../../src/storage/io-pool.ts';
import { layoutOf } from '../../src/storage/layout.ts';
import { type OpenVolume, createVolume, isVolume, openVolume } from '../../src/storage/volume-folder.ts';
import { checkVolumeName } from '../../src/storage/volume-rules.ts';
import { Random } from '../support/random.ts';
import { assertBytes, refused } from '../support/unit-tools.ts';

const root = mkdtempSync(join(tmpdir(), 'holdfast-folder-'));
const pool = new IoPool({ arenaBytes: 24 * MiB, onLost: (error) => assert.unreachable(error.message) });
const SMALL = { sizeBytes: 2 * MiB, journalBytes: 4 * MiB };
let count = 0;
const newDir = (): string => join(root, `v${++count}`);

interface Served {
  open: OpenVolume;
  device: LocalDevice;
  close(): Promise<void>;
}

async function served(dir: string): Promise<Served> {
  const open = await openVolume(dir, pool);
  const volume = new PrimaryVolume(open.store, pool.arena, { readOnly: false, onFailed: () => {} });
  const close = async (): Promise<void> => {
    while (await volume.owedZeros.writeSome());
    await volume.drain();
    await open.close();
  };
  return { open, device: new LocalDevice(volume, pool.arena), close };
}

/** Entries of a folder but for its lock, which stays. */
const entries = (dir: string): string[] => readdirSync(dir).filter((name) => name !== 'lock');

const folders = suite('volume folder');

folders('create, open, write, close, open again', async () => {
  const dir = newDir();
  assert.not.ok(await isVolume(dir));
  const progress: Array<[number, number]> = [];
  await createVolume(dir, pool, { ...SMALL, progress: (done, total) => progress.push([done, total]) });
  assert.ok(await isVolume(dir));
  assert.equal(entries(dir), ['data', 'journal', 'meta']);
  const layout = layoutOf(SMALL.sizeBytes, SMALL.journalBytes);
  const total = layout.sizeBytes + layout.journalBytes + layout.metaBytes;
  assert.equal(progress.at(-1), [total, total]);
  assert.ok(
    progress.every(([done], i) => i === 0 || done > progress[i - 1]![0]),
    'it only goes forward',
  );
  for (const [file, bytes] of [
    ['data', layout.sizeBytes],
    ['journal', layout.journalBytes],
    ['meta', layout.metaBytes],
  ] as const) {
    const { size, blocks } = statSync(join(dir, file));
    assert.is(size, bytes, file);
    assert.ok(blocks * 512 >= bytes, `${file} has real blocks`);
  }

  const first = await served(dir);
  assert.is(first.open.store.name, `v${count}`, 'named as the folder');
  assert.is(first.open.store.epoch, 1);
  const bytes = new Random(1).bytes(300_000);
  await first.device.write(12_345, bytes);
  await first.device.zero(100_000, 50_000);
  bytes.fill(0, 100_000 - 12_345, 150_000 - 12_345);
  await first.close();

  const image = new Uint8Array(SMALL.sizeBytes);
  image.set(bytes, 12_345);
  assertBytes(readFileSync(join(dir, 'data')), image, 'closed with nothing owed, the file is the device');

  const second = await served(dir);
  assert.is(second.open.store.epoch, 2, 'each opening is an epoch');
  assert.is(second.open.recovered, null, 'closed in good order');
  assertBytes(await second.device.read(0, SMALL.sizeBytes), image, 'the device');
  await second.close();
  assert.is(pool.arena.slotsInUse, 0);
});

folders('two volumes never have the same ids', async () => {
  const ids: string[] = [];
  for (let i = 0; i < 2; i++) {
    const dir = newDir();
    await createVolume(dir, pool, SMALL);
    const meta = readFileSync(join(dir, 'meta'));
    ids.push(meta.subarray(24, 40).toString('hex'), meta.subarray(40, 56).toString('hex'));
  }
  assert.is(new Set(ids).size, 4);
});

folders('a second opener is refused with the holder’s pid, also in the same process', async () => {
  const dir = newDir();
  await createVolume(dir, pool, SMALL);
  const held = await openVolume(dir, pool);
  const error = await refused('LOCKED', () => openVolume(dir, pool));
  assert.match(error.message, `process ${process.pid}`);
  await refused('LOCKED', () => createVolume(dir, pool, SMALL));
  await held.close();
  await (await openVolume(dir, pool)).close();
  assert.is(pool.arena.slotsInUse, 0);
});

folders('a creation that is aborted half-way leaves nothing of what it made', async () => {
  for (const madeBefore of [false, true]) {
    const dir = newDir();
    if (madeBefore) mkdirSync(dir);
    const abort = new AbortController();
    let writes = 0;
    const progress = (): void => {
      if (++writes === 12) abort.abort();
    };
    const error: unknown = await createVolume(dir, pool, { ...SMALL, progress, signal: abort.signal }).then(
      () => null,
      (e: unknown) => e,
    );
    assert.ok(error !== null, 'it was refused');
    assert.is(writes, 12, 'it stopped at once');
    assert.is(existsSync(dir), madeBefore);
    if (madeBefore) assert.equal(entries(dir), []);
    assert.is(pool.arena.slotsInUse, 0);
    await createVolume(dir, pool, SMALL);
    assert.ok(await isVolume(dir), 'and can be done again');
  }
});

folders('what a crashed creation left is no volume, and is cleared by the next creation', async () => {
  const dir = newDir();
  await createVolume(dir, pool, SMALL);
  writeFileSync(join(dir, 'creating'), '{}');
  truncateSync(join(dir, 'data'), 5);
  assert.not.ok(await isVolume(dir));
  const error = await refused('NOT_A_VOLUME', () => openVolume(dir, pool));
  assert.match(error.message, /not finished/);
  await createVolume(dir, pool, { ...SMALL, sizeBytes: 3 * MiB });
  assert.not.ok(existsSync(join(dir, 'creating')));
  const v = await served(dir);
  assert.is(v.device.sizeBytes, 3 * MiB);
  await v.close();
});

folders('a folder that holds anything else is refused and left as it is', async () => {
  const dir = newDir();
  mkdirSync(dir);
  writeFileSync(join(dir, 'thesis.txt'), 'years of work');
  const error = await refused('EXISTS', () => createVolume(dir, pool, SMALL));
  assert.match(error.message, /thesis\.txt/);
  assert.equal(entries(dir), ['thesis.txt']);
  assert.is(readFileSync(join(dir, 'thesis.txt'), 'utf8'), 'years of work');
  // A file named as ours, without our mark.
  const other = newDir();
  mkdirSync(other);
  writeFileSync(join(other, 'data'), 'my data');
  await refused('EXISTS', () => createVolume(other, pool, SMALL));
  assert.is(readFileSync(join(other, 'data'), 'utf8'), 'my data');
});

folders('an existing volume is not created over', async () => {
  const dir = newDir();
  await createVolume(dir, pool, SMALL);
  const before = readFileSync(join(dir, 'meta'));
  const error = await refused('EXISTS', () => createVolume(dir, pool, SMALL));
  assert.match(error.message, /there is a volume/);
  assertBytes(readFileSync(join(dir, 'meta')), before, 'meta');
});

folders('no folder, an empty folder, rubbish: not a volume', async () => {
  await refused('NOT_A_VOLUME', () => openVolume(join(root, 'nowhere'), pool));
  assert.not.ok(existsSync(join(root, 'nowhere')));
  const dir = newDir();
  mkdirSync(dir);
  await refused('NOT_A_VOLUME', () => openVolume(dir, pool));
  for (const file of ['data', 'journal', 'meta']) writeFileSync(join(dir, file), new Random(9).bytes(64 * 1024));
  await refused('NOT_A_VOLUME', () => openVolume(dir, pool));
  for (const file of ['data', 'journal', 'meta']) writeFileSync(join(dir, file), '');
  await refused('NOT_A_VOLUME', () => openVolume(dir, pool));
  assert.is(pool.arena.slotsInUse, 0);
});

folders('a file that was cut or extended is refused, and nothing is written', async () => {
  for (const file of ['data', 'journal', 'meta']) {
    for (const change of [-BLOCK_BYTES, -1, 1, BLOCK_BYTES]) {
      const dir = newDir();
      await createVolume(dir, pool, { ...SMALL, sparse: true });
      const { size } = statSync(join(dir, file));
      truncateSync(join(dir, file), size + change);
      const before = readFileSync(join(dir, 'meta'));
      const error = await refused('DAMAGED', () => openVolume(dir, pool));
      assert.match(error.message, `the file ${file} has ${size + change} bytes, not ${size}`);
      assertBytes(readFileSync(join(dir, 'meta')), before, 'meta');
      truncateSync(join(dir, file), size);
      await (await openVolume(dir, pool)).close();
      rmSync(dir, { recursive: true });
    }
  }
  assert.is(pool.arena.slotsInUse, 0);
});

folders('a missing file is an error that names it, and the lock is given back', async () => {
  for (const file of ['data', 'journal']) {
    const dir = newDir();
    await createVolume(dir, pool, { ...SMALL, sparse: true });
    rmSync(join(dir, file));
    for (let attempt = 0; attempt < 2; attempt++) {
      const error = await refused('IO_ERROR', () => openVolume(dir, pool));
      assert.match(error.message, /ENOENT/);
      assert.match(error.message, join(dir, file));
    }
  }
});

folders('more than is free is refused before anything is written', async () => {
  const dir = newDir();
  const error = await refused('NO_SPACE', () => createVolume(dir, pool, { sizeBytes: 16 * TiB }));
  assert.match(error.message, /are free/);
  assert.not.ok(existsSync(dir));
});

folders('names: what is one and what is not', async () => {
  for (const name of ['a', 'vm-1', 'A.b_c-9', '0', 'x'.repeat(128)]) assert.is(checkVolumeName(name), name);
  for (const name of ['', '.', '..', '-a', '.a', 'a/b', 'a b', 'ä', 'a\n', 'x'.repeat(129), 'a\0']) {
    await refused('INVALID_ARGUMENT', () => checkVolumeName(name));
  }
  const dir = join(root, 'bad name');
  await refused('INVALID_ARGUMENT', () => createVolume(dir, pool, SMALL));
  assert.not.ok(existsSync(dir));
});

folders('a tebibyte without blocks behind it: opened, written and read at its end, in little memory', async () => {
  const dir = newDir();
  const before = process.memoryUsage().rss;
  await createVolume(dir, pool, { sizeBytes: TiB, journalBytes: 16 * MiB, sparse: true });
  const v = await served(dir);
  const at = TiB - 8192;
  const bytes = new Random(1).bytes(8192);
  await v.device.write(at, bytes);
  assertBytes(await v.device.read(at, 8192), bytes, 'the last two blocks');
  assertBytes(await v.device.read(TiB / 2, 8192), new Uint8Array(8192), 'the middle');
  await refused('OUT_OF_RANGE', () => v.device.write(TiB - 1, new Uint8Array(2)));
  await v.close();
  const again = await served(dir);
  assertBytes(await again.device.read(at, 8192), bytes, 'after it was closed and opened');
  const grown = process.memoryUsage().rss - before;
  assert.ok(grown < GiB, `${Math.round(grown / MiB)} MiB more`);
  assert.ok(again.open.store.counters().memoryBytes < MiB);
  await again.close();
  const { blocks } = statSync(join(dir, 'data'));
  assert.ok(blocks * 512 < MiB, 'only what was written takes space');
  rmSync(dir, { recursive: true });
});

folders('where there is neither the addon nor flock(1), a volume can be made and opened too', () => {
  const dir = newDir();
  const program = `
    const { IoPool } = await import(process.argv[1] + 'io-pool.js');
    const { createVolume, openVolume } = await import(process.argv[1] + 'volume-folder.js');
    const pool = new IoPool({ arenaBytes: 8 << 20, onLost: () => process.exit(9) });
    await createVolume(process.argv[2], pool, { sizeBytes: 2 << 20, journalBytes: 4 << 20 });
    await (await openVolume(process.argv[2], pool)).close();
    await pool.close();
    console.log('made and opened');`;
  const sources = new URL('../../src/storage/', import.meta.url).href;
  const result = spawnSync(process.execPath, ['--input-type=module', '-e', program, sources, dir], {
    env: { ...process.env, PATH: '/nonexistent', HOLDFAST_NATIVE: 'off' },
    encoding: 'utf8',
  });
  assert.is(result.stdout, 'made and opened\n', result.stderr);
});

folders.after(async () => {
  await pool.close();
  rmSync(root, { recursive: true, force: true });
});
folders.run();
