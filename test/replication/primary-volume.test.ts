/** The group of one over a store on a simulated disk: what is seen before it is applied, waiting, sessions, refusals. */
import { crc32 } from 'node:zlib';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { Extent } from '../../src/base/device.ts';
import type { HoldfastError } from '../../src/base/errors.ts';
import { BLOCK_BYTES, MAX_IO_BYTES, MAX_ZERO_BYTES, MiB } from '../../src/base/units.ts';
import type { Position } from '../../src/base/position.ts';
import type { Attachment } from '../../src/replication/served-volume.ts';
import { Random } from '../support/random.ts';
import { type Opened, SMALL, formatted, newArena, opened, reborn } from '../support/store-harness.ts';
import { assertBytes, refused, settled, turns } from '../support/unit-tools.ts';

const B = BLOCK_BYTES;

async function fresh(size = SMALL, seed = 1): Promise<Opened> {
  return opened(await formatted(size, seed));
}

/** One write as a connection makes it, answered when it is. */
function write(o: Opened, at: number, bytes: Uint8Array, by: Attachment | null = null, request = 0): Promise<void> {
  const slot = o.disk.arena.take(Math.ceil(((at % B) + bytes.length) / B))!;
  slot.payload.fill(0xdd);
  slot.payload.set(bytes, at % B);
  return settled((done) => o.volume.write(by, request, at, bytes.length, slot, false, done));
}

const filled = (length: number, value: number): Uint8Array => new Uint8Array(length).fill(value);

function attach(o: Opened, session: bigint, generation: number, since: Position | null = null): Promise<Attachment> {
  return new Promise((resolve, reject) =>
    o.volume.attach(
      session,
      generation,
      since,
      () => {},
      (error, attachment) => (error === null ? resolve(attachment!) : reject(error)),
    ),
  );
}

const kinds = (list: Extent[]): Array<[number, number, string]> =>
  list.map((e) => [e.offsetBytes, e.lengthBytes, e.kind]);

const content = suite('solo volume: content');

content('extents show what is appended and not yet applied', async () => {
  const o = await fresh();
  const slot = o.disk.arena.take(2)!;
  slot.payload.fill(1);
  // Looked at in the very moment of the answer: a turn later it may be applied.
  const seen = await new Promise<Extent[]>((resolve) =>
    o.volume.write(null, 0, 4 * B, 2 * B, slot, false, () => {
      assert.ok(o.store.isHole(4), 'acknowledged before it is applied');
      resolve(o.volume.extents(0, 8 * B, 10));
    }),
  );
  assert.equal(kinds(seen), [
    [0, 4 * B, 'hole'],
    [4 * B, 2 * B, 'data'],
    [6 * B, 2 * B, 'hole'],
  ]);
  while (o.store.isHole(4)) await turns(1);
  await settled((done) => o.volume.zero(null, 0, 5 * B, B, done));
  assert.equal(kinds(o.volume.extents(4 * B, 2 * B, 10)), [
    [4 * B, B, 'data'],
    [5 * B, B, 'hole'],
  ]);
  await o.volume.drain();
  assert.equal([o.store.isHole(4), o.store.isHole(5)], [false, true]);
});

content('extents: clipped to odd ranges, limited, never empty', async () => {
  const o = await fresh();
  await write(o, 0, filled(B, 1));
  await write(o, 2 * B, filled(B, 1));
  assert.equal(kinds(o.volume.extents(10, B, 10)), [
    [10, B - 10, 'data'],
    [B, 10, 'hole'],
  ]);
  assert.equal(kinds(o.volume.extents(0, 4 * B, 1)), [[0, B, 'data']]);
  assert.equal(kinds(o.volume.extents(SMALL.sizeBytes - 1, 1, 1)), [[SMALL.sizeBytes - 1, 1, 'hole']]);
  await o.volume.drain();
  const again = await opened(reborn(o.disk.files, 2));
  assert.equal(kinds(again.volume.extents(0, SMALL.sizeBytes, 10)).length, 4);
});

content('trim spares the partial blocks at its edges', async () => {
  const o = await fresh();
  const before = new Random(1).bytes(6 * B);
  await write(o, 0, before);
  for (const [offset, length, first, end] of [
    [10, B, 0, 0],
    [B - 1, B + 1, 1, 2],
    [B + 1, 3 * B, 2, 4],
    [4 * B, B - 1, 0, 0],
  ] as const) {
    await settled((done) => o.volume.trim(null, 0, offset, length, done));
    before.fill(0, first * B, end * B);
    assertBytes(await o.device.read(0, 6 * B), before, `after trim of ${length} at ${offset}`);
  }
  await o.close();
});

content('zero at any alignment, over written, zeroed and never-written blocks', async () => {
  const o = await fresh();
  const random = new Random(2);
  const model = new Uint8Array(MiB);
  for (let i = 0; i < 60; i++) {
    const at = random.below(MiB - 40_000);
    const length = 1 + random.below(40_000);
    if (random.chance(0.5)) {
      await settled((done) => o.volume.zero(null, 0, at, length, done));
      model.fill(0, at, at + length);
    } else {
      const bytes = random.bytes(length);
      await write(o, at, bytes);
      model.set(bytes, at);
    }
    assertBytes(await o.device.read(0, MiB), model, `step ${i}`);
  }
  await o.close();
});

content('the CRC of an answer is that of whole blocks, and -1 of a part', async () => {
  const o = await fresh();
  const bytes = new Random(3).bytes(3 * B);
  await write(o, B, bytes);
  const slot = o.disk.arena.take(65)!;
  const read = (at: number, length: number): Promise<number> =>
    new Promise((resolve, reject) =>
      o.volume.read(at, length, slot, (error, crc) => (error === null ? resolve(crc) : reject(error))),
    );
  assert.is(await read(B, 3 * B), crc32(bytes));
  assert.is(await read(0, 4 * B), crc32(Buffer.concat([new Uint8Array(B), bytes])));
  assert.is(await read(100 * B, 64 * B), crc32(new Uint8Array(64 * B)));
  assert.is(await read(B, B - 1), -1);
  assert.is(await read(B + 1, B), -1);
  o.disk.arena.release(slot);
  await o.close();
  assert.is(o.disk.arena.slotsInUse, 0);
});

content('many unaligned writers of one block: each finds the others’ bytes', async () => {
  for (const seed of [1, 2, 3]) {
    const o = await fresh(SMALL, seed);
    const order = new Random(seed);
    const parts = Array.from({ length: 40 }, (_, i) => ({ at: i * 200 + 5, length: 200, value: i + 1 }));
    parts.sort(() => order.next() - 0.5);
    await Promise.all(parts.map((p) => write(o, p.at, filled(p.length, p.value))));
    const now = await o.device.read(0, 3 * B);
    for (const p of parts)
      assertBytes(now.subarray(p.at, p.at + p.length), filled(p.length, p.value), `part ${p.value}`);
    assertBytes(now.subarray(0, 5), new Uint8Array(5), 'what nobody wrote');
    await o.close();
  }
});
content.run();

const waiting = suite('solo volume: waiting');

waiting('many large writes through a small journal: all land, in order, nothing is lost', async () => {
  const o = await fresh({ sizeBytes: 8 * MiB, journalBytes: 4 * MiB }, 4);
  const random = new Random(4);
  const model = new Uint8Array(8 * MiB);
  const answered: number[] = [];
  const all: Array<Promise<void>> = [];
  for (let i = 0; i < 40; i++) {
    const at = random.below(31) * MAX_IO_BYTES + (i % 3 === 0 ? 0 : 4 * B);
    const bytes = random.bytes(MAX_IO_BYTES);
    model.set(bytes, at);
    while (o.disk.arena.freeShare(64) < 0.1) await turns(1);
    all.push(write(o, at, bytes).then(() => void answered.push(i)));
  }
  await Promise.all(all);
  assert.equal(answered, [...Array(40).keys()], 'aligned writes are answered in log order');
  assert.ok(o.store.counters().checkpoints > 0);
  assertBytes(await o.device.read(0, 8 * MiB), model, 'content');
  await o.close();
  assert.is(o.disk.arena.slotsInUse, 0);
});

waiting('flush is answered after the appended writes before it', async () => {
  const o = await fresh();
  const order: string[] = [];
  const a = write(o, 0, filled(B, 1)).then(() => order.push('write'));
  const f = settled((done) => o.volume.flush(done)).then(() => order.push('flush'));
  await Promise.all([a, f]);
  assert.equal(order, ['write', 'flush']);
  await settled((done) => o.volume.flush(done));
  await o.close();
});

waiting('draining refuses what comes later and finishes what was there', async () => {
  const o = await fresh();
  const all = [0, 1, 2].map((i) => write(o, i * B, filled(B, i + 1)));
  const drained = o.volume.drain();
  await refused('SHUTTING_DOWN', () => write(o, 0, filled(B, 9)));
  await drained;
  await Promise.all(all);
  assert.is(o.store.counters().appliedRecords, 3);
  await o.store.close();
  const again = await opened(reborn(o.disk.files, 5));
  assert.is(again.recovered, null);
  assertBytes(await again.device.read(0, B), filled(B, 1), 'block 0');
});
waiting.run();

const sessions = suite('solo volume: sessions');

sessions('a repeated request is answered, not executed: another client’s write stays', async () => {
  const o = await fresh();
  const mine = await attach(o, 1n, 1);
  await write(o, 0, filled(B, 1), mine, 1);
  await write(o, 0, filled(B, 2));
  const again = await attach(o, 1n, 2, { epoch: 0, seq: 0 });
  const before = o.store.lastPosition.seq;
  await write(o, 0, filled(B, 1), again, 1);
  await settled((done) => o.volume.zero(again, 1, 0, B, done));
  assert.is(o.store.lastPosition.seq, before, 'nothing was appended');
  assertBytes(await o.device.read(0, B), filled(B, 2), 'the newer write');
  await o.close();
});

sessions('also after a crash, when the record is only in the journal', async () => {
  const o = await fresh();
  const mine = await attach(o, 1n, 1);
  const since = o.volume.info().position;
  await write(o, 0, filled(B, 1), mine, 1);
  await write(o, 0, filled(B, 2));
  o.disk.dead = true;
  const after = await opened(reborn({ ...o.disk.files, data: new Uint8Array(SMALL.sizeBytes) }, 2));
  const again = await attach(after, 1n, 1, since);
  await write(after, 0, filled(B, 1), again, 1);
  assertBytes(await after.device.read(0, B), filled(B, 2), 'the newer write');
  await write(after, 0, filled(B, 3), again, 2);
  assertBytes(await after.device.read(0, B), filled(B, 3), 'a new request');
  await after.close();
});

sessions('an attach waits for journaled requests of the older generation, then finds them done', async () => {
  for (let seed = 1; seed <= 10; seed++) {
    const o = await fresh(SMALL, seed);
    const older = await attach(o, 1n, 1);
    const under = write(o, 0, filled(B, 1), older, 1);
    assert.is(o.store.lastPosition.seq, 1, 'it has its place in the log');
    const newer = await attach(o, 1n, 2);
    assert.ok(o.store.settledPosition.seq >= 1, 'settled before the attach is answered');
    await write(o, 0, filled(B, 9), null);
    await write(o, 0, filled(B, 1), newer, 1);
    assertBytes(await o.device.read(0, B), filled(B, 9), `seed ${seed}`);
    await under;
    await o.close();
  }
});

sessions('requests without a place in the log are dropped by a takeover and never execute later', async () => {
  for (let seed = 1; seed <= 10; seed++) {
    const o = await fresh(SMALL, seed);
    const older = await attach(o, 1n, 1);
    // An unaligned write reads its edges first, so it is not in the log yet.
    const ghost = write(o, 10, filled(100, 1), older, 1).then(
      () => null,
      (error: HoldfastError) => error,
    );
    assert.is(o.store.lastPosition.seq, 0);
    const newer = await attach(o, 1n, 2);
    await write(o, 10, filled(100, 2), newer, 1);
    assert.is((await ghost)!.code, 'STALE_GENERATION');
    await refused('STALE_GENERATION', () => write(o, 0, filled(B, 3), older, 2));
    await turns(20);
    assertBytes(await o.device.read(10, 100), filled(100, 2), `seed ${seed}`);
    assert.is(o.store.lastPosition.seq, 1, 'exactly one record');
    await o.close();
    assert.is(o.disk.arena.slotsInUse, 0);
  }
});

sessions('requests that wait for room are dropped by a detach', async () => {
  const o = await fresh({ sizeBytes: 8 * MiB, journalBytes: 4 * MiB }, 3);
  const mine = await attach(o, 1n, 1);
  const outcomes = Array.from({ length: 20 }, (_, i) =>
    write(o, i * MAX_IO_BYTES, filled(MAX_IO_BYTES, i + 1), mine, i + 1).then(
      () => 'done',
      (error: HoldfastError) => error.code,
    ),
  );
  const inLog = o.store.lastPosition.seq;
  assert.ok(inLog >= 1 && inLog < 20, `${inLog} of 20 found room at once`);
  o.volume.detach(mine);
  const codes = await Promise.all(outcomes);
  assert.equal(
    codes,
    codes.map((_, i) => (i < inLog ? 'done' : 'STALE_GENERATION')),
  );
  await o.volume.drain();
  assert.is(o.store.lastPosition.seq, inLog);
  await o.store.close();
  assert.is(o.disk.arena.slotsInUse, 0);
});

sessions('requests of one session above each other, in any order, each once', async () => {
  const o = await fresh();
  const mine = await attach(o, 1n, 1);
  for (const request of [5, 1, 1024, 3]) await write(o, request * 100, filled(10, request & 255), mine, request);
  await o.volume.drain();
  for (const request of [1, 3, 5, 1024]) assert.is(o.store.sessions.lookUp(1n, request), 'done');
  assert.is(o.store.sessions.lookUp(1n, 4), 'new');
  assert.is(o.store.lastPosition.seq, 4);
});
sessions.run();

const refusals = suite('solo volume: refusals');

refusals('bad ranges are refused without effect, and the slot comes back', async () => {
  const o = await fresh();
  const end = SMALL.sizeBytes;
  for (const [at, length, code] of [
    [end - 1, 2, 'OUT_OF_RANGE'],
    [end, 1, 'OUT_OF_RANGE'],
    [2 ** 50, 1, 'OUT_OF_RANGE'],
    [0, 0, 'INVALID_ARGUMENT'],
    [-1, 1, 'INVALID_ARGUMENT'],
    [0.5, 1, 'INVALID_ARGUMENT'],
    [2 ** 53, 1, 'INVALID_ARGUMENT'],
    [0, NaN, 'INVALID_ARGUMENT'],
    [0, MAX_IO_BYTES + 1, 'TOO_LARGE'],
  ] as const) {
    const slot = o.disk.arena.take(1)!;
    await refused(code, () => settled((done) => o.volume.write(null, 0, at, length, slot, false, done)));
    assert.not.ok(slot.inUse, 'the volume gave the slot back');
    const own = o.disk.arena.take(1)!;
    await refused(code, () => settled((done) => o.volume.read(at, length, own, (error) => done(error))));
    assert.ok(own.inUse, 'a reader keeps its slot');
    o.disk.arena.release(own);
  }
  await refused('TOO_LARGE', () => settled((done) => o.volume.zero(null, 0, 1, MAX_IO_BYTES + 1, done)));
  await refused('TOO_LARGE', () => settled((done) => o.volume.zero(null, 0, 0, MAX_ZERO_BYTES + B, done)));
  await refused('TOO_LARGE', () => settled((done) => o.volume.trim(null, 0, 0, MAX_ZERO_BYTES + 1, done)));
  await refused('OUT_OF_RANGE', async () => o.volume.extents(end, 1, 1));
  assert.is(o.store.lastPosition.seq, 0);
  await o.close();
  assert.is(o.disk.arena.slotsInUse, 0);
});

refusals('a failing journal: waiting and appended writes hear of it once, later ones too', async () => {
  const arena = newArena();
  const o = await opened(reborn((await formatted({ sizeBytes: 8 * MiB, journalBytes: 4 * MiB }, 6)).files, 6, arena));
  const codes: string[] = [];
  const all = Array.from({ length: 20 }, (_, i) =>
    write(o, i * MAX_IO_BYTES, filled(MAX_IO_BYTES, 1)).then(
      () => codes.push('done'),
      (error: HoldfastError) => codes.push(error.code),
    ),
  );
  const flush = settled((done) => o.volume.flush(done)).catch((error: HoldfastError) => error.code);
  o.disk.fault = { kind: 'write', n: 1, code: 'IO_ERROR' };
  await Promise.all(all);
  assert.equal(codes, Array(20).fill('POISONED'));
  assert.is(await flush, 'POISONED');
  assert.is(o.failures.length, 1);
  await refused('POISONED', () => o.device.read(0, 1));
  await refused('POISONED', () => settled((done) => o.volume.flush(done)));
  await o.volume.drain();
});
refusals.run();
