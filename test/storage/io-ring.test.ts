/** The ring in shared memory: by hand with the worker's side played here, and with real worker threads. */
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { constants, tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { HoldfastError } from '../../src/base/errors.ts';
import { BLOCK_BYTES, MiB } from '../../src/base/units.ts';
import { IoPool } from '../../src/storage/io-pool.ts';
import {
  CONTROL,
  ENTRY_WORDS,
  ERRNO_SHORT,
  type Fill,
  IoRing,
  OPS,
  RingViews,
  WORD,
} from '../../src/storage/io-ring.ts';
import { Random } from '../support/random.ts';
import { assertBytes } from '../support/unit-tools.ts';

const dir = mkdtempSync(join(tmpdir(), 'holdfast-ring-'));

/** The worker's side, one entry at a time: what io-worker.ts does with the control words. */
class Hand {
  private readonly views: RingViews;
  constructor(ring: IoRing) {
    this.views = new RingViews(ring.memory);
  }

  /** @returns the next entry, or -1 when none is announced */
  claim(): number {
    const { control, submissions, mask } = this.views;
    const head = Atomics.load(control, CONTROL.HEAD);
    if (head === Atomics.load(control, CONTROL.TAIL)) return -1;
    Atomics.store(control, CONTROL.HEAD, (head + 1) | 0);
    return submissions[head & mask]!;
  }

  labelOf(id: number): number {
    return this.views.words[id * ENTRY_WORDS + WORD.BUFFER]!;
  }

  /** @returns whether the main thread was asleep and is to be told */
  complete(id: number, errno: number, value: number): boolean {
    const { control, completions, words, unsigned, mask } = this.views;
    words[id * ENTRY_WORDS + WORD.ERRNO] = errno;
    unsigned[id * ENTRY_WORDS + WORD.VALUE] = value;
    const at = Atomics.add(control, CONTROL.COMPLETED, 1);
    Atomics.store(completions, at & mask, id + 1);
    return Atomics.compareExchange(control, CONTROL.MAIN_SLEEPS, 1, 0) === 1;
  }
}

const labelled =
  (label: number): Fill =>
  (views, word) => {
    views.words[word + WORD.OP] = OPS.READ;
    views.words[word + WORD.BUFFER] = label;
  };

const byHand = suite('ring: by hand');

byHand('nothing is seen before it is announced, then in order', () => {
  const ring = new IoRing(4, 1);
  const hand = new Hand(ring);
  const answers: Array<[number, number, number]> = [];
  for (const label of [10, 11, 12]) ring.submit(labelled(label), (errno, value) => answers.push([label, errno, value]));
  assert.is(hand.claim(), -1);
  ring.announce();
  const ids = [hand.claim(), hand.claim(), hand.claim()];
  assert.equal(
    ids.map((id) => hand.labelOf(id)),
    [10, 11, 12],
  );
  assert.is(hand.claim(), -1);
  assert.is(ring.drain(), 0);
  assert.ok(hand.complete(ids[2]!, 5, 0), 'the sleeping main thread is told');
  assert.not.ok(hand.complete(ids[0]!, 0, 0xffffffff), 'once');
  assert.is(ring.drain(), 2);
  assert.equal(answers, [
    [12, 5, 0],
    [10, 0, 0xffffffff],
  ]);
  assert.is(ring.inFlight, 1);
  assert.ok(hand.complete(ids[1]!, 0, 1), 'and told again after it went back to sleep');
  assert.is(ring.drain(), 1);
  assert.is(ring.inFlight, 0);
});

byHand('more submissions than capacity wait in order and follow as places become free', () => {
  const ring = new IoRing(4, 1);
  const hand = new Hand(ring);
  const answered: number[] = [];
  const seen: number[] = [];
  for (let label = 0; label < 30; label++) ring.submit(labelled(label), () => answered.push(label));
  assert.is(ring.inFlight, 30);
  ring.announce();
  while (answered.length < 30) {
    const ids: number[] = [];
    for (let id = hand.claim(); id >= 0; id = hand.claim()) ids.push(id);
    assert.ok(ids.length >= 1 && ids.length <= 4);
    seen.push(...ids.map((id) => hand.labelOf(id)));
    for (const id of ids) hand.complete(id, 0, 0);
    ring.drain();
    ring.announce();
  }
  assert.equal(seen, [...Array(30).keys()]);
  assert.equal(answered, [...Array(30).keys()]);
  assert.is(ring.inFlight, 0);
});

byHand('a callback that submits goes behind those that wait', () => {
  const ring = new IoRing(2, 1);
  const hand = new Hand(ring);
  const seen: number[] = [];
  const nothing = (): void => {};
  ring.submit(labelled(0), () => ring.submit(labelled(9), nothing));
  for (const label of [1, 2, 3]) ring.submit(labelled(label), nothing);
  ring.announce();
  for (let round = 0; round < 5; round++) {
    const id = hand.claim();
    seen.push(hand.labelOf(id));
    hand.complete(id, 0, 0);
    ring.drain();
    ring.announce();
  }
  assert.equal(seen, [0, 1, 2, 3, 9]);
});

byHand('counters that run over 2^31 and 2^32 change nothing', () => {
  for (const start of [0x7ffffffa, -6]) {
    const ring = new IoRing(8, 1);
    const hand = new Hand(ring);
    for (const word of [CONTROL.HEAD, CONTROL.TAIL, CONTROL.COMPLETED]) ring.views.control[word] = start;
    Object.assign(ring, { submitted: start, consumed: start });
    const random = new Random(3);
    let sent = 0;
    const answered: number[] = [];
    const open: number[] = [];
    while (answered.length < 200) {
      for (let n = random.below(6); n > 0 && sent < 200; n--, sent++) {
        const label = sent;
        ring.submit(labelled(label), (errno) => {
          assert.is(errno, label);
          answered.push(label);
        });
      }
      ring.announce();
      for (let id = hand.claim(); id >= 0; id = hand.claim()) open.push(id);
      while (open.length > 0 && random.chance(0.8)) {
        const [id] = open.splice(random.below(open.length), 1);
        hand.complete(id!, hand.labelOf(id!), 0);
      }
      ring.drain();
    }
    assert.is(new Set(answered).size, 200);
  }
});

byHand('a capacity that is no power of two is refused', () => {
  assert.throws(() => new IoRing(3, 1));
});
byHand.run();

const threads = suite('ring: worker threads');

threads('thousands of writes and reads by several workers, many laps of the ring', async () => {
  const lost: HoldfastError[] = [];
  const pool = new IoPool({ arenaBytes: 16 * MiB, onLost: (error) => void lost.push(error) });
  const path = join(dir, 'laps');
  const fd = openSync(path, 'w+');
  const blocks = 64;
  const slots = Array.from({ length: blocks }, () => pool.arena.take(1)!);
  const expected = new Uint8Array(blocks * BLOCK_BYTES);
  /** One operation on block i; several rounds go on side by side, each block in its own order. */
  const operate = (op: number, i: number): Promise<number> =>
    new Promise((resolve) => {
      pool.io.submit((views, word, iovec) => {
        const { byteOffset, length } = slots[i]!.payload;
        views.words[word + WORD.OP] = op;
        views.words[word + WORD.FD] = fd;
        views.floats[(word + WORD.POSITION) >> 1] = i * BLOCK_BYTES;
        views.floats[(word + WORD.LENGTH) >> 1] = length;
        views.words[word + WORD.BUFFER] = byteOffset;
        views.words[word + WORD.IOVECS] = 1;
        views.words[word + WORD.SPLIT] = 1;
        views.words[word + WORD.SYNC] = 0;
        views.iovecs[iovec] = byteOffset;
        views.iovecs[iovec + 1] = length;
      }, resolve);
      pool.announceSoon();
    });
  await Promise.all(
    slots.map(async (slot, i) => {
      const random = new Random(i);
      for (let round = 0; round < 20; round++) {
        const bytes = random.bytes(BLOCK_BYTES);
        slot.payload.set(bytes);
        assert.is(await operate(OPS.WRITE, i), 0);
        slot.payload.fill(0);
        assert.is(await operate(OPS.READ, i), 0);
        assertBytes(slot.payload, bytes, `block ${i} round ${round}`);
        expected.set(bytes, i * BLOCK_BYTES);
      }
    }),
  );
  assert.is(pool.inFlight, 0);
  // More at once than the ring has places, all on one block, which then holds one of them.
  const burst = await Promise.all(Array.from({ length: 3000 }, () => operate(OPS.READ, 5)));
  assert.ok(burst.every((errno) => errno === 0));
  assertBytes(slots[5]!.payload, expected.subarray(5 * BLOCK_BYTES, 6 * BLOCK_BYTES), 'block 5');
  assertBytes(readFileSync(path), expected, 'the file');
  await pool.close();
  closeSync(fd);
  assert.equal(lost, [], 'a worker that was told to stop is not lost');
});

threads('an errno comes through, and the worker goes on', async () => {
  const pool = new IoPool({ arenaBytes: 8 * MiB, onLost: (error) => assert.unreachable(error.message) });
  const fd = openSync(join(dir, 'short'), 'w+');
  const slot = pool.arena.take(1)!;
  const run = (op: number, of: number): Promise<number> =>
    new Promise((resolve) => {
      pool.io.submit((views, word) => {
        views.words[word + WORD.OP] = op;
        views.words[word + WORD.FD] = of;
        views.floats[(word + WORD.POSITION) >> 1] = 0;
        views.floats[(word + WORD.LENGTH) >> 1] = BLOCK_BYTES;
        views.words[word + WORD.BUFFER] = slot.payload.byteOffset;
      }, resolve);
      pool.announceSoon();
    });
  for (let i = 0; i < 3; i++) {
    assert.is(await run(OPS.READ, 9999), constants.errno.EBADF);
    assert.is(await run(OPS.READ, fd), ERRNO_SHORT);
    assert.is(await run(OPS.SYNC, 9999), constants.errno.EBADF);
    assert.is(await run(77, fd), constants.errno.EIO, 'an operation that does not exist');
    assert.is(await run(OPS.SYNC, fd), 0);
  }
  await pool.close();
  closeSync(fd);
});

threads('closing lets finish what was submitted', async () => {
  const pool = new IoPool({ arenaBytes: 8 * MiB, ioThreads: 3, onLost: (error) => assert.unreachable(error.message) });
  const path = join(dir, 'closing');
  const fd = openSync(path, 'w+');
  const answers: number[] = [];
  for (let i = 0; i < 500; i++) {
    pool.io.submit(
      (views, word) => {
        views.words[word + WORD.OP] = OPS.ZERO;
        views.words[word + WORD.FD] = fd;
        views.floats[(word + WORD.POSITION) >> 1] = i * 100;
        views.floats[(word + WORD.LENGTH) >> 1] = 100;
      },
      (errno) => answers.push(errno),
    );
  }
  await pool.close();
  assert.is(answers.length, 500);
  assert.ok(answers.every((errno) => errno === 0));
  assert.is(readFileSync(path).length, 50_000);
  closeSync(fd);
});

threads('a worker that ends by itself is reported, once', async () => {
  const lost: HoldfastError[] = [];
  const pool = new IoPool({ arenaBytes: 8 * MiB, onLost: (error) => void lost.push(error) });
  const stopped = new Promise<void>((resolve) => {
    // Not through `close`: as if the worker had ended of its own accord.
    pool.sync.submit(
      (views, word) => void (views.words[word + WORD.OP] = OPS.STOP),
      () => resolve(),
    );
    pool.announceSoon();
  });
  await stopped;
  while (lost.length === 0) await new Promise((resolve) => setImmediate(resolve));
  assert.is(lost[0]!.code, 'WORKER_LOST');
  await pool.close();
  assert.is(lost.length, 1);
});

threads.after(() => rmSync(dir, { recursive: true, force: true }));
threads.run();
