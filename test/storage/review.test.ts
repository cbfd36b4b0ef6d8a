/** Defects that a review of the store found, each as it was shown; they stay as a guard. */
import { mkdirSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { HoldfastError } from '../../src/base/errors.ts';
import { BLOCK_BYTES, MiB } from '../../src/base/units.ts';
import { Arena } from '../../src/storage/arena.ts';
import { IoPool } from '../../src/storage/io-pool.ts';
import { layoutOf, pagePosition } from '../../src/storage/layout.ts';
import { HandOver } from '../../src/node/hand-over.ts';
import type { Attachment } from '../../src/replication/served-volume.ts';
import { createVolume, openVolume } from '../../src/storage/volume-folder.ts';
import { temporaryFolder } from '../support/server-process.ts';
import { SMALL, formatted, newArena, opened, reborn } from '../support/store-harness.ts';
import { Random } from '../support/random.ts';
import { type Image, crashImage } from '../support/simulated-disk.ts';

const test = suite('review');
const copyOf = (image: Image): Image => ({
  data: image.data.slice(),
  journal: image.journal.slice(),
  meta: image.meta.slice(),
});
const codeOf = async (work: Promise<unknown>): Promise<string> =>
  work.then(
    () => 'no error',
    (error: HoldfastError) => error.code,
  );

test('the newest superblock rots and the older one says clean: the journal is replayed all the same', async () => {
  const slotBytes = layoutOf(SMALL.sizeBytes, SMALL.journalBytes).superblockSlotBytes;
  for (const checkpoints of [0, 1, 3]) {
    // Closed cleanly (one superblock), opened again (the other), written to, killed.
    const first = await opened(await formatted());
    await first.close();
    const o = await opened(reborn(first.disk.files, 1));
    await o.device.write(0, new Uint8Array(BLOCK_BYTES).fill(7));
    for (let i = 0; i < checkpoints; i++) {
      await o.store.checkpoint();
      await o.device.write(BLOCK_BYTES * (i + 1), new Uint8Array(BLOCK_BYTES).fill(8));
    }
    o.disk.dead = true;
    for (const slot of [0, 1]) {
      const image = copyOf(o.disk.files);
      image.meta[slot * slotBytes + 100]! ^= 1;
      const after = await opened(reborn(image, 2));
      const block = await after.device.read(0, BLOCK_BYTES).catch((error: HoldfastError) => error.code);
      // Never the old content under a store that calls itself good.
      const right = typeof block !== 'string' && block[0] === 7;
      assert.ok(
        right || after.store.health === 'damaged',
        `slot ${slot}, ${checkpoints} checkpoints: ${String(block)}`,
      );
      await after.close();
    }
  }
});

test('closing while checkpoints follow one another leaves a clean volume', async () => {
  for (let round = 0; round < 5; round++) {
    const o = await opened(await formatted(SMALL, round));
    const writes = Array.from({ length: 60 }, (_, i) =>
      o.device.write((i % 8) * 200_000, new Uint8Array(190_000).fill(i)),
    );
    await Promise.all(writes);
    void o.store.checkpoint();
    await o.close();
    const again = await opened(reborn(o.disk.files, round));
    assert.is(again.store.health, 'good', again.store.healthReason);
    assert.is(again.damagedPages, 0);
    assert.is(again.recovered, null);
    await again.close();
  }
});

test('more unaligned writes than there are slots: all get on', async () => {
  const o = await opened(await formatted());
  const total = 4000;
  const writes = Array.from({ length: total }, (_, i) => o.device.write((i * 513) % (1024 * 1024), Uint8Array.of(i)));
  await Promise.all(writes);
  await o.close();
  assert.is(o.disk.arena.slotsInUse, 0);
});

test('a waiter that wants no slot any more passes its turn on', () => {
  const arena = new Arena(24 * MiB);
  const taken = [];
  for (let slot = arena.take(65); slot !== null; slot = arena.take(65)) taken.push(slot);
  let served = false;
  arena.whenFree(65, () => {});
  arena.whenFree(65, () => (served = arena.take(65) !== null));
  arena.release(taken[0]!);
  assert.ok(served);
});

test('zeros that are written are settled by a checkpoint of their own', async () => {
  const o = await opened(await formatted());
  await o.device.write(0, new Uint8Array(MiB).fill(1));
  await o.device.trim(0, MiB);
  assert.is(o.store.owed.count, 256);
  while (await o.volume.owedZeros.writeSome());
  for (let i = 0; i < 500 && o.store.owed.count > 0; i++) await new Promise((resolve) => setImmediate(resolve));
  assert.is(o.store.owed.count, 0);
  assert.ok(o.disk.files.data.subarray(0, MiB).every((byte) => byte === 0));
  await o.close();
});

test('zeros wait for a lull, and then come; while records come, a run now and then', async () => {
  const o = await opened(await formatted({ sizeBytes: 8 * MiB, journalBytes: 8 * MiB }));
  const { owedZeros } = o.volume;
  const looks = async (count: number, busy: boolean): Promise<void> => {
    for (let i = 0; i < count; i++) {
      if (busy) await o.device.write(7 * MiB, new Uint8Array(4096).fill(i + 1));
      owedZeros.tick();
      await owedZeros.running;
    }
  };
  await o.device.write(0, new Uint8Array(4 * MiB).fill(1));
  await o.device.trim(0, 4 * MiB);
  const left = (): number => o.disk.files.data.subarray(0, 4 * MiB).filter((byte) => byte !== 0).length / MiB;
  await looks(49, true);
  assert.is(left(), 4);
  await looks(51, true);
  assert.is(left(), 2, 'one run in 50 looks');
  await looks(9, false);
  assert.is(left(), 2);
  await looks(6, false);
  assert.is(left(), 0);
  for (let i = 0; i < 500 && o.store.owed.count > 0; i++) await new Promise((resolve) => setImmediate(resolve));
  assert.is(o.store.owed.count, 0, 'a checkpoint settles them');
  await o.close();
});

test('a refused second creation leaves the first one alone', async () => {
  const pool = new IoPool({
    arenaBytes: 24 * MiB,
    onLost: (error) => {
      throw error;
    },
  });
  const dir = join(temporaryFolder(), 'vol');
  const options = { sizeBytes: 64 * MiB, journalBytes: 4 * MiB };
  const first = createVolume(dir, pool, options);
  const second: string[] = [];
  for (let i = 0; i < 5; i++) {
    await new Promise((resolve) => setTimeout(resolve, 3));
    second.push(await codeOf(createVolume(dir, pool, options)));
  }
  await first;
  assert.ok(
    second.every((code) => code === 'LOCKED' || code === 'EXISTS'),
    second.join(' '),
  );
  const volume = await openVolume(dir, pool);
  await volume.close();
  const foreign = join(temporaryFolder(), 'foreign');
  mkdirSync(join(foreign, 'precious'), { recursive: true });
  assert.is(await codeOf(createVolume(foreign, pool, options)), 'EXISTS');
  assert.ok(readdirSync(foreign).includes('precious'));
  await pool.close();
});

test('--durability none is a matter of one opening', async () => {
  const pool = new IoPool({
    arenaBytes: 24 * MiB,
    onLost: (error) => {
      throw error;
    },
  });
  const dir = join(temporaryFolder(), 'vol');
  await createVolume(dir, pool, { sizeBytes: 8 * MiB, journalBytes: 4 * MiB });
  const measured = await openVolume(dir, pool, { durable: false });
  assert.is(measured.store.durable, false);
  await measured.close();
  const later = await openVolume(dir, pool);
  assert.is(later.store.durable, true);
  await later.close();
  await pool.close();
});

test('a later on-disk format in either superblock is refused', async () => {
  const disk = await formatted();
  const o = await opened(disk);
  await o.close();
  const { superblockSlotBytes } = layoutOf(SMALL.sizeBytes, SMALL.journalBytes);
  const { crc32 } = await import('node:zlib');
  for (const slot of [0, 1]) {
    const image = copyOf(disk.files);
    const page = image.meta.subarray(slot * superblockSlotBytes, slot * superblockSlotBytes + 4096);
    const view = new DataView(page.buffer, page.byteOffset, 4096);
    view.setUint32(8, 2, true);
    view.setUint32(4, crc32(page.subarray(8)), true);
    assert.is(await codeOf(opened(reborn(image, 1))), 'WRONG_VERSION', `slot ${slot}`);
  }
});

test('killed between writing a superblock and its sync, restarted, then the power fails', async () => {
  const random = new Random(1);
  const arena = newArena();
  const disk = await formatted();
  const start = copyOf(disk.files);
  disk.recording = true;
  const o = await opened(disk);
  await o.device.write(0, new Uint8Array(BLOCK_BYTES).fill(7));
  const acked = disk.events.length;
  await o.store.checkpoint();
  await o.close();
  for (let killedAt = acked; killedAt <= disk.events.length; killedAt++) {
    // A kill leaves the page cache: all that was written is seen, only what was synced is on the disk.
    const cache = copyOf(start);
    for (const event of disk.events.slice(0, killedAt)) {
      if (event.kind === 'write') cache[event.file].set(event.bytes, event.position);
    }
    const again = reborn(cache, killedAt, arena);
    again.recording = true;
    const second = await opened(again);
    const both = [...disk.events.slice(0, killedAt), ...again.events];
    await second.close();
    for (let cut = killedAt; cut <= both.length; cut++) {
      const after = await opened(reborn(crashImage(start, both, cut, random), cut, arena));
      assert.is(after.store.health, 'good', `${killedAt} ${cut}: ${after.store.healthReason}`);
      assert.is((await after.device.read(0, 1))[0], 7, `${killedAt} ${cut}`);
      await after.close();
    }
  }
});

test('thousands of waiters that give their slot back at once do not pile up on the stack', () => {
  const arena = newArena();
  const taken = [];
  for (let slot = arena.take(1); slot !== null; slot = arena.take(1)) taken.push(slot);
  let served = 0;
  for (let i = 0; i < 50_000; i++) {
    arena.whenFree(1, () => {
      arena.release(arena.take(1)!);
      served++;
    });
  }
  arena.release(taken[0]!);
  assert.is(served, 50_000);
});

test('accepting the loss of a later page of sessions lasts', async () => {
  const disk = await formatted();
  const o = await opened(disk);
  for (let n = 1; n <= 60; n++) {
    const attachment = await new Promise<Attachment>((resolve) =>
      o.volume.attach(
        BigInt(n),
        1,
        null,
        () => {},
        (_error, made) => resolve(made!),
      ),
    );
    await new Promise((done) => o.volume.trim(attachment, 1, 0, BLOCK_BYTES, done));
  }
  await o.close();
  const layout = layoutOf(SMALL.sizeBytes, SMALL.journalBytes);
  for (const slot of [0, 1]) disk.files.meta[pagePosition(layout, 2, slot) + 50]! ^= 1;
  const damaged = await opened(reborn(disk.files, 1));
  assert.is(damaged.store.health, 'damaged');
  await damaged.store.acceptLoss();
  await damaged.close();
  const accepted = await opened(reborn(damaged.disk.files, 2));
  assert.is(accepted.store.health, 'good', accepted.store.healthReason);
  await accepted.close();
});

test('a bad sector of the journal: harmless where nothing lay, damage where a batch may have lain', async () => {
  const o = await opened(await formatted());
  for (let i = 0; i < 4; i++) await o.device.write(i * BLOCK_BYTES, new Uint8Array(BLOCK_BYTES).fill(i + 1));
  const used = o.store.counters().journalBytes;
  o.disk.dead = true;
  for (const [position, health] of [
    [used + 40 * 4096, 'good'],
    [used, 'damaged'],
    [used - 4096, 'damaged'],
    [0, 'damaged'],
  ] as const) {
    const disk = reborn(copyOf(o.disk.files), 1);
    disk.badSectors = [{ file: 'journal', position }];
    const after = await opened(disk);
    assert.is(after.store.health, health, `bad sector at ${position} of ${used}`);
    await after.close();
  }
});

test('a flush waits for the writes that wait for memory, and for no later ones', () => {
  const order = new HandOver();
  const log: string[] = [];
  order.after(() => log.push('nothing waits'));
  order.wait(1);
  order.wait(2);
  order.after(() => log.push('flush'));
  order.wait(3);
  order.done(2);
  assert.equal(log, ['nothing waits']);
  order.done(1);
  assert.equal(log, ['nothing waits', 'flush']);
});

test('a flood of zeros is bounded in the lock, and ends', async () => {
  const o = await opened(await formatted({ sizeBytes: 64 * MiB, journalBytes: 4 * MiB }));
  await Promise.all(Array.from({ length: 200 }, () => o.device.zero(0, 32 * MiB)));
  await o.close();
});

test.run();
