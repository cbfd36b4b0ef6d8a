/** The store and the group of one on a simulated disk: model, crash images, n-th fault, damage. */
import * as assert from 'uvu/assert';
import { suite } from 'uvu';
import { HoldfastError } from '../../src/base/errors.ts';
import { BLOCK_BYTES } from '../../src/base/units.ts';
import { Random } from '../support/random.ts';
import { MiB, type Opened, SMALL, formatted, newArena, opened, reborn } from '../support/store-harness.ts';
import { type Image, crashImage } from '../support/simulated-disk.ts';

const copyOf = (image: Image): Image => ({
  data: image.data.slice(),
  journal: image.journal.slice(),
  meta: image.meta.slice(),
});

const rejects = async (run: () => Promise<unknown>): Promise<HoldfastError> => {
  try {
    await run();
  } catch (error) {
    if (error instanceof HoldfastError) return error;
    throw error;
  }
  throw new Error('expected a rejection');
};

/** One random operation on a device and on the array that models it. */
async function step(random: Random, device: Opened['device'], model: Uint8Array): Promise<void> {
  const size = model.length;
  const length = random.chance(0.2) ? 1 + random.below(300_000) : 1 + random.below(3 * BLOCK_BYTES);
  const aligned = random.chance(0.5);
  let offset = random.below(size);
  let count = Math.min(length, size - offset);
  if (aligned) {
    offset -= offset % BLOCK_BYTES;
    count = Math.min(Math.ceil(count / BLOCK_BYTES) * BLOCK_BYTES, size - offset);
  }
  const what = random.below(10);
  if (what < 5) {
    const bytes = random.bytes(count);
    await device.write(offset, bytes);
    model.set(bytes, offset);
  } else if (what < 6) {
    await device.zero(offset, count);
    model.fill(0, offset, offset + count);
  } else if (what < 7) {
    await device.trim(offset, count);
    const first = Math.ceil(offset / BLOCK_BYTES) * BLOCK_BYTES;
    const end = Math.floor((offset + count) / BLOCK_BYTES) * BLOCK_BYTES;
    if (end > first) model.fill(0, first, end);
  } else {
    const bytes = await device.read(offset, count);
    assert.is(Buffer.compare(bytes, model.subarray(offset, offset + count)), 0, `read ${count} at ${offset}`);
  }
}

const model = suite('store: model');

model('random operations match a byte array, across clean reopenings', async () => {
  for (const seed of [1, 2, 3]) {
    const random = new Random(seed);
    let disk = await formatted(SMALL, seed);
    const bytes = new Uint8Array(SMALL.sizeBytes);
    for (let round = 0; round < 3; round++) {
      const o = await opened(disk);
      for (let i = 0; i < 150; i++) {
        await step(random, o.device, bytes);
        if (i % 40 === 39) await o.volume.owedZeros.writeSome();
      }
      while (await o.volume.owedZeros.writeSome());
      await o.close();
      assert.is(disk.arena.slotsInUse, 0, 'no slot is lost');
      // Closed cleanly with nothing owed, `data` is the device.
      const again = await opened(reborn(copyOf(disk.files), seed));
      assert.is(again.recovered, null, 'a clean volume needs no recovery');
      if (again.store.owed.count === 0) assert.is(Buffer.compare(disk.files.data, bytes), 0);
      disk = reborn(disk.files, seed + 10 * round);
    }
  }
});

model('concurrent operations on disjoint ranges, then everything reads back', async () => {
  const disk = await formatted({ sizeBytes: 4 * MiB, journalBytes: 4 * MiB }, 7);
  const o = await opened(disk);
  const expected = new Uint8Array(4 * MiB);
  const lanes = Array.from({ length: 16 }, async (_, lane) => {
    const random = new Random(100 + lane);
    const base = lane * 256 * 1024;
    for (let i = 0; i < 30; i++) {
      const offset = base + random.below(200 * 1024);
      const bytes = random.bytes(1 + random.below(40_000));
      await o.device.write(offset, bytes);
      expected.set(bytes, offset);
      const back = await o.device.read(offset, bytes.length);
      assert.is(Buffer.compare(back, bytes), 0);
    }
  });
  await Promise.all(lanes);
  assert.is(Buffer.compare(await o.device.read(0, 4 * MiB), expected), 0);
  assert.ok(o.store.counters().checkpoints > 0, 'the small journal forced checkpoints');
  await o.close();
});

model('overlapping unaligned writes end as some serial order, block edges included', async () => {
  const disk = await formatted(SMALL, 9);
  const o = await opened(disk);
  for (let round = 0; round < 20; round++) {
    // Writers of neighbouring odd ranges share edge blocks: each must find the other's bytes there.
    const parts = Array.from({ length: 24 }, (_, i) => ({
      offset: i * 1000 + 13,
      bytes: new Uint8Array(1000).fill(i + 1 + round),
    }));
    await Promise.all(parts.map((p) => o.device.write(p.offset, p.bytes)));
    for (const p of parts) assert.is(Buffer.compare(await o.device.read(p.offset, 1000), p.bytes), 0);
  }
  await o.close();
});
model('unaligned writers of the same blocks while the journal is full: all get on', async () => {
  const disk = await formatted({ sizeBytes: 4 * MiB, journalBytes: 4 * MiB }, 11);
  const o = await opened(disk);
  // Whoever held the edges of a block while it waited for room would hold up the records that make room.
  const writers = Array.from({ length: 64 }, async (_, writer) => {
    const random = new Random(writer);
    for (let i = 0; i < 20; i++) {
      await o.device.write(random.below(9) * BLOCK_BYTES + 1 + random.below(500), new Uint8Array(200_000).fill(writer));
    }
  });
  await Promise.all(writers);
  assert.ok(o.store.counters().checkpoints > 10);
  await o.close();
  assert.is(disk.arena.slotsInUse, 0);
});
model.run();

const crash = suite('store: crash images');

/**
 * Records a short workload, then opens what a crash at each point may leave and checks: everything acknowledged
 * before is there, everything else is old or new as a whole.
 */
async function crashRun(seed: number, operations: number, images: number | 'every prefix'): Promise<void> {
  const random = new Random(seed);
  const disk = await formatted(SMALL, seed);
  const start = copyOf(disk.files);
  disk.recording = true;
  const o = await opened(disk);
  interface Write {
    offset: number;
    bytes: Uint8Array;
    from: number;
    ackedAt: number;
  }
  // One lane per 128 KiB, sequential within a lane, so the order of overlapping writes is known.
  const lanes: Write[][] = Array.from({ length: 8 }, () => []);
  await Promise.all(
    lanes.map(async (lane, index) => {
      const own = new Random(seed * 100 + index);
      for (let i = 0; i < operations; i++) {
        const offset = index * 128 * 1024 + own.below(90 * 1024);
        const zero = own.chance(0.2);
        const bytes = zero ? new Uint8Array(1 + own.below(20_000)) : own.bytes(1 + own.below(30_000));
        const write: Write = { offset, bytes, from: disk.events.length, ackedAt: Infinity };
        lane.push(write);
        await (zero ? o.device.zero(offset, bytes.length) : o.device.write(offset, bytes));
        write.ackedAt = disk.events.length;
        if (own.chance(0.1)) await o.store.checkpoint();
        if (own.chance(0.1)) await o.volume.owedZeros.writeSome();
      }
    }),
  );
  await o.close();
  const arena = newArena();
  const count = images === 'every prefix' ? disk.events.length + 1 : images;
  for (let n = 0; n < count; n++) {
    const prefix = images === 'every prefix' ? n : Math.floor((n / count) * disk.events.length) + random.below(3);
    const image = crashImage(start, disk.events, Math.min(prefix, disk.events.length), random);
    const after = await opened(reborn(image, seed + n, arena));
    assert.is(after.store.health, 'good', `seed ${seed} prefix ${prefix}: ${after.store.healthReason}`);
    for (const [index, lane] of lanes.entries()) {
      const base = index * 128 * 1024;
      const now = await after.device.read(base, 128 * 1024);
      // Candidates: all acknowledged writes, and one more that was under way.
      const acked = lane.filter((w) => w.ackedAt <= prefix).length;
      const candidate = new Uint8Array(128 * 1024);
      for (const w of lane.slice(0, acked)) candidate.set(w.bytes, w.offset - base);
      let same = Buffer.compare(now, candidate) === 0;
      const next = lane[acked];
      if (!same && next !== undefined && next.from <= prefix) {
        candidate.set(next.bytes, next.offset - base);
        same = Buffer.compare(now, candidate) === 0;
      }
      assert.ok(same, `seed ${seed} prefix ${prefix} of ${disk.events.length}: lane ${index} is neither old nor new`);
    }
    // Opening twice changes nothing.
    const content = await after.device.read(0, SMALL.sizeBytes);
    await after.volume.drain();
    await after.store.close();
    const twice = await opened(reborn(after.disk.files, seed, arena));
    assert.is(Buffer.compare(await twice.device.read(0, SMALL.sizeBytes), content), 0);
    await twice.close();
  }
}

for (const seed of [1, 2, 3, 4]) crash(`every acknowledged write survives, seed ${seed}`, () => crashRun(seed, 12, 40));
crash('every prefix of a short workload', () => crashRun(5, 2, 'every prefix'));
crash.run();

const faults = suite('store: n-th fault');

faults('each failing write or sync poisons the store; what was acknowledged survives', async () => {
  const arena = newArena();
  for (const kind of ['write', 'sync'] as const) {
    for (let n = 1; ; n++) {
      const disk = await formatted(SMALL, n);
      const o = await opened(disk);
      disk.fault = { kind, n, code: 'IO_ERROR' };
      const acked: Array<{ offset: number; bytes: Uint8Array }> = [];
      let refused: HoldfastError | null = null;
      const random = new Random(n);
      for (let i = 0; i < 12 && refused === null; i++) {
        const bytes = random.bytes(5000);
        try {
          await o.device.write(i * 8192 + 77, bytes);
          acked.push({ offset: i * 8192 + 77, bytes });
          if (i % 4 === 3) await o.store.checkpoint();
        } catch (error) {
          refused = error as HoldfastError;
        }
      }
      await o.close().catch((error: HoldfastError) => (refused ??= error));
      if (disk.faultsFired === 0) {
        assert.ok(n > 5, 'the loop met faults');
        break;
      }
      assert.ok(refused !== null, `${kind} ${n}: somebody heard of it`);
      assert.is(refused.code, 'POISONED');
      assert.is(o.failures.length, 1, 'reported once');
      // The next operation would succeed on the disk; the store stays failed all the same.
      assert.is((await rejects(() => o.device.write(0, new Uint8Array(10)))).code, 'POISONED');
      const after = await opened(reborn(disk.files, n, arena));
      for (const { offset, bytes } of acked) {
        assert.is(Buffer.compare(await after.device.read(offset, bytes.length), bytes), 0, `${kind} ${n}`);
      }
      await after.close();
    }
  }
});

faults('a poisoned store opens for reading only, until its owner accepts the loss', async () => {
  const disk = await formatted(SMALL, 1);
  const o = await opened(disk);
  await o.device.write(0, new Uint8Array(5000).fill(5));
  disk.fault = { kind: 'sync', n: 1, code: 'IO_ERROR' };
  assert.is((await rejects(() => o.device.write(8192, new Uint8Array(5000)))).code, 'POISONED');
  await o.store.markPoisoned('fdatasync of journal failed');
  await o.close();
  const readOnly = await opened(reborn(copyOf(disk.files), 2));
  assert.is(readOnly.store.health, 'poisoned');
  assert.is((await readOnly.device.read(4999, 1))[0], 5);
  assert.is((await rejects(() => readOnly.device.write(0, new Uint8Array(1)))).code, 'READ_ONLY');
  await readOnly.store.acceptLoss();
  await readOnly.close();
  const accepted = await opened(reborn(readOnly.disk.files, 3));
  assert.is(accepted.store.health, 'good');
  await accepted.device.write(0, new Uint8Array(1));
  await accepted.close();
});

faults('a fault at each operation of a recovery leaves it to be done again', async () => {
  const disk = await formatted(SMALL, 5);
  const o = await opened(disk);
  const random = new Random(5);
  const expected = new Uint8Array(SMALL.sizeBytes);
  for (let i = 0; i < 30; i++) {
    const bytes = random.bytes(6000);
    await o.device.write(i * 7001, bytes);
    expected.set(bytes, i * 7001);
  }
  const crashed = copyOf(disk.files);
  // The process dies: nothing was written to `data` that a crash could not take away.
  crashed.data.fill(0);
  disk.dead = true;
  const arena = newArena();
  let image = crashed;
  for (let n = 1; ; n++) {
    const trial = reborn(copyOf(image), n, arena);
    trial.fault = { kind: 'any', n, code: 'IO_ERROR' };
    let failed = false;
    try {
      const after = await opened(trial);
      await after.close();
    } catch {
      failed = true;
    }
    if (!failed && trial.faultsFired === 0) break;
    image = trial.files;
    const slotsLeft = arena.slotsInUse;
    assert.ok(slotsLeft < 40, `slots are given back after a failed opening: ${slotsLeft}`);
  }
  const after = await opened(reborn(image, 99, arena));
  assert.is(Buffer.compare(await after.device.read(0, SMALL.sizeBytes), expected), 0);
  await after.close();
});
faults.run();

const integrity = suite('store: integrity');

async function written(): Promise<{ image: Image; expected: Uint8Array }> {
  const disk = await formatted(SMALL, 3);
  const o = await opened(disk);
  const expected = new Random(3).bytes(1 * MiB);
  await o.device.write(0, expected);
  await o.close();
  return { image: disk.files, expected };
}

integrity('one flipped byte: EIO for that block alone, until it is overwritten', async () => {
  const { image, expected } = await written();
  image.data[5 * BLOCK_BYTES + 100]! ^= 1;
  const o = await opened(reborn(image, 1));
  const error = await rejects(() => o.device.read(5 * BLOCK_BYTES, BLOCK_BYTES));
  assert.is(error.code, 'CORRUPT_BLOCK');
  assert.is(error.errno, 'EIO');
  assert.is(error.details.offsetBytes, 5 * BLOCK_BYTES);
  for (let block = 0; block < 256; block++) {
    if (block === 5) continue;
    const bytes = await o.device.read(block * BLOCK_BYTES, BLOCK_BYTES);
    assert.is(Buffer.compare(bytes, expected.subarray(block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES)), 0);
  }
  assert.is((await rejects(() => o.device.write(5 * BLOCK_BYTES + 1, new Uint8Array(5)))).code, 'CORRUPT_BLOCK');
  await o.device.write(5 * BLOCK_BYTES, new Uint8Array(BLOCK_BYTES).fill(7));
  assert.is((await o.device.read(5 * BLOCK_BYTES, 1))[0], 7);
  await o.close();
});

integrity('two swapped blocks (a misdirected write) are both found', async () => {
  const { image } = await written();
  const five = image.data.slice(5 * BLOCK_BYTES, 6 * BLOCK_BYTES);
  image.data.copyWithin(5 * BLOCK_BYTES, 9 * BLOCK_BYTES, 10 * BLOCK_BYTES);
  image.data.set(five, 9 * BLOCK_BYTES);
  const o = await opened(reborn(image, 1));
  for (const block of [5, 9]) {
    assert.is((await rejects(() => o.device.read(block * BLOCK_BYTES, 10))).code, 'CORRUPT_BLOCK');
  }
  await o.close();
});

integrity('a rotten page of meta is damage: read-only, its blocks unreadable, the others served', async () => {
  const { image } = await written();
  const pristine = copyOf(image);
  let damagedOnce = false;
  // Flip a byte in every page of meta in turn: never may a block read as something that it was not.
  for (let page = 0; page < image.meta.length / 4096; page++) {
    const flipped = copyOf(pristine);
    flipped.meta[page * 4096 + 40]! ^= 4;
    let o: Opened;
    try {
      o = await opened(reborn(flipped, 1, (integrityArena ??= newArena())));
    } catch (error) {
      assert.ok(error instanceof HoldfastError, String(error));
      continue;
    }
    if (o.damagedPages > 0) {
      damagedOnce = true;
      assert.is(o.store.health, 'damaged');
      assert.is((await rejects(() => o.device.write(0, new Uint8Array(1)))).code, 'READ_ONLY');
    }
    for (let block = 0; block < 256; block += 51) {
      const read = await o.device.read(block * BLOCK_BYTES, BLOCK_BYTES).catch((e: HoldfastError) => e);
      if (read instanceof HoldfastError) assert.is(read.code, 'CORRUPT_BLOCK');
      else assert.is(Buffer.compare(read, pristine.data.subarray(block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES)), 0);
    }
    await o.close();
  }
  assert.ok(damagedOnce, 'some page was in use');
});
let integrityArena: ReturnType<typeof newArena> | undefined;

integrity('a valid batch behind an invalid one is damage, a torn last batch is not', async () => {
  const disk = await formatted(SMALL, 4);
  const o = await opened(disk);
  const ends: number[] = [];
  for (let i = 0; i < 6; i++) {
    await o.device.write(i * BLOCK_BYTES, new Uint8Array(BLOCK_BYTES).fill(i + 1));
    ends.push(o.store.counters().journalBytes);
  }
  disk.dead = true;
  const torn = copyOf(disk.files);
  torn.journal[ends[4]! + 2000]! ^= 1;
  const afterTorn = await opened(reborn(torn, 1));
  assert.is(afterTorn.store.health, 'good');
  assert.is(afterTorn.recovered!.records, 5);
  await afterTorn.close();
  const holed = copyOf(disk.files);
  holed.journal[ends[2]! + 2000]! ^= 1;
  const afterHole = await opened(reborn(holed, 1));
  assert.is(afterHole.store.health, 'damaged');
  assert.match(afterHole.store.healthReason, /batch 4 is not valid, yet batch/);
  assert.is((await afterHole.device.read(2 * BLOCK_BYTES, 1))[0], 3, 'what came before is served');
  // Accepting the loss makes it good again, and a crash after that is told from damage.
  await afterHole.store.acceptLoss();
  await afterHole.volume.drain();
  await afterHole.store.close();
  const accepted = await opened(reborn(afterHole.disk.files, 2));
  assert.is(accepted.store.health, 'good');
  await accepted.device.write(0, new Uint8Array(BLOCK_BYTES).fill(9));
  accepted.disk.dead = true;
  const last = await opened(reborn(copyOf(accepted.disk.files), 3));
  assert.is(last.store.health, 'good', last.store.healthReason);
  assert.is((await last.device.read(0, 1))[0], 9);
  await last.close();
});
integrity.run();
