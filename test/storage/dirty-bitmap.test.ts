/** The bitmap of blocks against a set of numbers, and its pages. */
import fc from 'fast-check';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { DirtyBitmap, type Run } from '../../src/storage/dirty-bitmap.ts';
import { BITS_PER_PAGE, PAGE_BODY_BYTES } from '../../src/storage/layout.ts';

const BLOCKS = 3 * BITS_PER_PAGE + 77;
/** Blocks around the edges of words and pages, and anywhere. */
const block = fc.oneof(
  fc.integer({ min: 0, max: BLOCKS - 1 }),
  fc
    .tuple(
      fc.constantFrom(0, 32, 1024, BITS_PER_PAGE, 2 * BITS_PER_PAGE, 3 * BITS_PER_PAGE, BLOCKS),
      fc.integer({ min: -3, max: 70 }),
    )
    .map(([base, delta]) => Math.min(BLOCKS - 1, Math.max(0, base + delta))),
);

/** The first run at or after `from`, looked for one by one. */
function naiveRun(model: Set<number>, from: number, limit: number): Run | null {
  const sorted = [...model].filter((b) => b >= from).sort((a, b) => a - b);
  const first = sorted[0];
  if (first === undefined) return null;
  let count = 1;
  while (count < limit && model.has(first + count)) count++;
  return { first, count };
}

const bitmaps = suite('dirty bitmap');

bitmaps('does what a set does', () => {
  const runOf = fc.record({ at: block, length: fc.integer({ min: 1, max: 90 }), set: fc.boolean() });
  const questions = fc.array(fc.tuple(block, fc.integer({ min: 1, max: 200 })), { maxLength: 10 });
  fc.assert(
    fc.property(fc.array(runOf, { maxLength: 30 }), questions, (changes, asked) => {
      const bitmap = new DirtyBitmap(BLOCKS);
      const model = new Set<number>();
      for (const { at, length, set } of changes) {
        for (let b = at; b < Math.min(at + length, BLOCKS); b++) {
          if (set) {
            assert.is(bitmap.set(b), !model.has(b));
            model.add(b);
          } else {
            assert.is(bitmap.clear(b), model.delete(b));
          }
        }
        assert.is(bitmap.count, model.size);
      }
      for (const [from, limit] of [...asked, [0, 1e9] as const]) {
        assert.is(bitmap.has(from), model.has(from));
        assert.equal(bitmap.nextRun(from, limit), naiveRun(model, from, limit));
      }
    }),
    { numRuns: 150 },
  );
});

bitmaps('what lies behind a block is cleared, and nothing else; runs of a larger one end at the last block', () => {
  fc.assert(
    fc.property(fc.array(block, { maxLength: 40 }), block, (blocks, from) => {
      const bitmap = new DirtyBitmap(BLOCKS);
      for (const b of blocks) bitmap.set(b);
      bitmap.changed.take();
      bitmap.clearFrom(from);
      const left = new Set(blocks.filter((b) => b < from));
      assert.is(bitmap.count, left.size);
      for (const b of blocks) assert.is(bitmap.has(b), left.has(b));
      const gone = blocks.filter((b) => b >= from).map((b) => Math.floor(b / BITS_PER_PAGE));
      assert.equal(
        bitmap.changed.take(),
        [...new Set(gone)].sort((a, b) => a - b),
      );
    }),
    { numRuns: 150 },
  );
  const bitmap = new DirtyBitmap(BLOCKS);
  bitmap.setRuns([BLOCKS - 2, 10, BLOCKS + 5, 3]);
  assert.equal(bitmap.runs(), [BLOCKS - 2, 2]);
  assert.is(bitmap.count, 2);
});

bitmaps('walking by runs meets every bit once, across empty pages', () => {
  fc.assert(
    fc.property(fc.uniqueArray(block, { maxLength: 200 }), fc.integer({ min: 1, max: 50 }), (set, limit) => {
      const bitmap = new DirtyBitmap(BLOCKS);
      for (const b of set) bitmap.set(b);
      const met: number[] = [];
      for (let run = bitmap.nextRun(0, limit); run !== null; run = bitmap.nextRun(run.first + run.count, limit)) {
        assert.ok(run.count >= 1 && run.count <= limit);
        for (let i = 0; i < run.count; i++) met.push(run.first + i);
      }
      assert.equal(
        met,
        set.sort((a, b) => a - b),
      );
    }),
  );
});

bitmaps('a run goes on over the edge of a page', () => {
  const bitmap = new DirtyBitmap(BLOCKS);
  for (let b = BITS_PER_PAGE - 2; b < BITS_PER_PAGE + 3; b++) bitmap.set(b);
  assert.equal(bitmap.nextRun(0, 1000), { first: BITS_PER_PAGE - 2, count: 5 });
  assert.equal(bitmap.nextRun(BITS_PER_PAGE, 1000), { first: BITS_PER_PAGE, count: 3 });
  assert.equal(bitmap.changed.take(), [0, 1]);
});

bitmaps('the last block, and nothing behind it', () => {
  const bitmap = new DirtyBitmap(BLOCKS);
  bitmap.set(BLOCKS - 1);
  assert.equal(bitmap.nextRun(0, 1000), { first: BLOCKS - 1, count: 1 });
  assert.is(bitmap.nextRun(BLOCKS, 1000), null);
  assert.is(bitmap.nextRun(BLOCKS + BITS_PER_PAGE, 1000), null);
  assert.not.ok(bitmap.has(BLOCKS));
});

bitmaps('the largest volume: block numbers beyond 2^31', () => {
  const bitmap = new DirtyBitmap(2 ** 32);
  for (const b of [0, 2 ** 31 - 1, 2 ** 31, 2 ** 32 - 1]) assert.ok(bitmap.set(b));
  assert.is(bitmap.count, 4);
  assert.equal(bitmap.nextRun(1, 10), { first: 2 ** 31 - 1, count: 2 });
  assert.equal(bitmap.nextRun(2 ** 31 + 1, 10), { first: 2 ** 32 - 1, count: 1 });
  assert.ok(bitmap.clear(2 ** 32 - 1));
  assert.is(bitmap.nextRun(2 ** 31 + 1, 10), null);
});

bitmaps('changed pages are named once, in order; what changes nothing names none', () => {
  const bitmap = new DirtyBitmap(BLOCKS);
  bitmap.set(2 * BITS_PER_PAGE);
  bitmap.set(5);
  assert.is(bitmap.changed.size, 2);
  assert.equal(bitmap.changed.take(), [0, 2]);
  assert.equal(bitmap.changed.take(), []);
  bitmap.set(5);
  bitmap.clear(6);
  bitmap.clear(BITS_PER_PAGE);
  assert.equal(bitmap.changed.take(), []);
  bitmap.clear(5);
  assert.equal(bitmap.changed.take(), [0]);
});

const pages = suite('dirty bitmap: pages');
/** A body in the middle of a page, as MetaPages hands it out. */
const body = (): Uint8Array => new Uint8Array(new ArrayBuffer(4096), 32, PAGE_BODY_BYTES);

pages('round trip through page bodies', () => {
  fc.assert(
    fc.property(fc.uniqueArray(block, { maxLength: 300 }), (set) => {
      const before = new DirtyBitmap(BLOCKS);
      for (const b of set) before.set(b);
      const after = new DirtyBitmap(BLOCKS);
      for (let page = 0; page < 4; page++) {
        const bytes = body();
        before.encodePage(page, bytes);
        after.decodePage(page, bytes);
      }
      assert.is(after.count, set.length);
      for (const b of set) assert.ok(after.has(b));
      assert.equal(after.changed.take(), [], 'what was read is not changed');
    }),
    { numRuns: 50 },
  );
});

pages('decoding over bits that are set keeps the count right, and the body is not kept', () => {
  const bitmap = new DirtyBitmap(BLOCKS);
  for (let b = 0; b < 100; b++) bitmap.set(b);
  bitmap.set(BITS_PER_PAGE);
  const bytes = body();
  bytes[0] = 0b101;
  bitmap.decodePage(0, bytes);
  bytes.fill(0xff);
  assert.is(bitmap.count, 3);
  assert.ok(bitmap.has(0) && !bitmap.has(1) && bitmap.has(2) && bitmap.has(BITS_PER_PAGE));
});

pages('a damaged page is all ones, exactly up to the last block', () => {
  const sizes = [1, 31, 32, 33, 77, 1000, BITS_PER_PAGE - 1, BITS_PER_PAGE, BITS_PER_PAGE + 1, BLOCKS];
  for (const blocks of sizes) {
    const bitmap = new DirtyBitmap(blocks);
    const last = Math.ceil(blocks / BITS_PER_PAGE) - 1;
    bitmap.decodePage(last, null);
    const first = last * BITS_PER_PAGE;
    assert.is(bitmap.count, blocks - first, `${blocks} blocks`);
    assert.equal(bitmap.nextRun(0, 1e9), { first, count: blocks - first });
    assert.not.ok(bitmap.has(blocks), 'no bit behind the end');
  }
});

pages('an empty page encodes as zeros', () => {
  const bytes = body();
  new DirtyBitmap(BLOCKS).encodePage(1, bytes);
  assert.ok(bytes.every((b) => b === 0));
});

bitmaps.run();
pages.run();
