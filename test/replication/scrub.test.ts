/** The scrub by a clock of its own: every block once a pass, a pass in the time that is stated, nothing in a hurry. */
import * as assert from 'uvu/assert';
import { suite } from 'uvu';
import { HoldfastError } from '../../src/base/errors.ts';
import { BLOCK_BYTES } from '../../src/base/units.ts';
import { Scrub, type ScrubRead } from '../../src/replication/scrub.ts';
import { Arena } from '../../src/storage/arena.ts';
import type { BlockStore } from '../../src/storage/block-store.ts';

const BLOCKS = 10_000;
const PASS_MS = 100_000;
const test = suite('scrub');

/** Data from block 1000 on, holes before. */
const store = {
  blocks: BLOCKS,
  isHole: (block: number) => block < 1000,
  runEnd: (block: number, limit: number) => (block < 1000 ? Math.min(1000, limit) : limit),
  counters: () => ({ corruptBlocks: 0 }),
} as unknown as BlockStore;

function play(readBlocks: ScrubRead, from = 0): { scrub: Scrub; run: (ms: number) => void } {
  let nowMs = 0;
  const scrub = new Scrub(store, new Arena(4 * 1024 * 1024), () => nowMs, PASS_MS, readBlocks, from);
  const run = (ms: number): void => {
    for (const endMs = nowMs + ms; nowMs < endMs; nowMs += 20) scrub.tick();
  };
  return { scrub, run };
}

test('a pass reads every block once, in about the time that is stated', async () => {
  const reads = Array.from({ length: BLOCKS }, () => 0);
  const { scrub, run } = play((first, count, _slot, done) => {
    for (let block = first; block < first + count; block++) reads[block]!++;
    queueMicrotask(() => done(null));
    return true;
  });
  for (let ms = 0; ms < PASS_MS * 0.9; ms += 20) {
    run(20);
    await Promise.resolve();
  }
  assert.is(scrub.progress.passes, 0);
  assert.ok(scrub.progress.doneBytes > 0.85 * BLOCKS * BLOCK_BYTES);
  for (let ms = 0; ms < PASS_MS * 0.12; ms += 20) {
    run(20);
    await Promise.resolve();
  }
  assert.is(scrub.progress.passes, 1);
  assert.ok(reads.every((times, block) => times === (block < 1000 ? 0 : 1)));
});

for (const from of [1, 500, 4242, BLOCKS - 1]) {
  test(`a pass from block ${from} on reads every block once too, that one first`, async () => {
    const order: number[] = [];
    const { scrub, run } = play((first, count, _slot, done) => {
      for (let block = first; block < first + count; block++) order.push(block);
      queueMicrotask(() => done(null));
      return true;
    }, from);
    assert.is(scrub.progress.doneBytes, 0);
    assert.is(scrub.progress.measuredBytesPerSecond, null);
    let before = 0;
    while (scrub.progress.passes === 0) {
      const { doneBytes, totalBytes } = scrub.progress;
      assert.ok(doneBytes >= before && doneBytes <= totalBytes, `${before}, ${doneBytes} of ${totalBytes}`);
      before = doneBytes;
      run(20);
      await Promise.resolve();
    }
    const data = Array.from({ length: BLOCKS - 1000 }, (_, i) => 1000 + i);
    const expected = [...data.filter((block) => block >= from), ...data.filter((block) => block < from)];
    assert.equal(order.slice(0, data.length), expected);
    // The next one begins there again.
    run(1000);
    assert.ok(scrub.progress.doneBytes < BLOCKS * BLOCK_BYTES * 0.05);
  });
}

test('a process that never comes to the end of a pass reads another part each time', async () => {
  const read = new Set<number>();
  for (let process = 0; process < 10; process++) {
    const { scrub, run } = play((first, count, _slot, done) => {
      for (let block = first; block < first + count; block++) read.add(block);
      queueMicrotask(() => done(null));
      return true;
    }, process * 1000);
    for (let ms = 0; ms < PASS_MS * 0.2; ms += 20) {
      run(20);
      await Promise.resolve();
    }
    assert.is(scrub.progress.passes, 0);
  }
  assert.is(read.size, BLOCKS - 1000);
});

test('the measured rate is what it does, not what it is to do', async () => {
  let open = true;
  const { scrub, run } = play((_first, _count, _slot, done) => {
    if (!open) return false;
    queueMicrotask(() => done(null));
    return true;
  }, 1000);
  const measured = (): number => scrub.progress.measuredBytesPerSecond! / scrub.progress.bytesPerSecond;
  for (let ms = 0; ms < PASS_MS * 0.2; ms += 20) {
    run(20);
    await Promise.resolve();
  }
  assert.ok(measured() > 0.9 && measured() < 1.1, `${measured()}`);
  open = false;
  run(PASS_MS * 0.6);
  assert.ok(measured() < 0.3, `${measured()}`);
});

test('what cannot be read is passed over, and nothing behind it is left out', async () => {
  const right = new Set<number>();
  const { run } = play((first, count, _slot, done) => {
    const bad = first <= 5000 && 5000 < first + count;
    for (let block = first; block < (bad ? 5000 : first + count); block++) right.add(block);
    const error = new HoldfastError('CORRUPT_BLOCK', { operation: 'read', offsetBytes: 5000 * BLOCK_BYTES });
    queueMicrotask(() => done(bad ? error : null));
    return true;
  });
  for (let ms = 0; ms < PASS_MS * 1.1; ms += 20) {
    run(20);
    await Promise.resolve();
  }
  assert.is(right.size, BLOCKS - 1000 - 1);
});

test('while nobody lets it read it waits, and does not make up for it at once', async () => {
  let open = false;
  let read = 0;
  const { run } = play((_first, count, _slot, done) => {
    if (!open) return false;
    read += count;
    queueMicrotask(() => done(null));
    return true;
  });
  run(PASS_MS);
  assert.is(read, 0);
  open = true;
  run(20);
  assert.ok(read > 0 && read <= 4 * 64, `${read} blocks`);
  await Promise.resolve();
});

test.run();
