/** The table of checksum entries against a map, and its pages. */
import fc from 'fast-check';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { ENTRY_LOST, ENTRY_ZERO } from '../../src/base/checksum.ts';
import { ChecksumTable } from '../../src/storage/checksum-table.ts';
import { CHECKSUMS_PER_PAGE, PAGE_BODY_BYTES } from '../../src/storage/layout.ts';

/** Entries of one piece of memory. */
const SEGMENT = 64 * CHECKSUMS_PER_PAGE;
const BLOCKS = 2 * SEGMENT + 500;
const block = fc.oneof(
  fc.integer({ min: 0, max: BLOCKS - 1 }),
  fc
    .tuple(fc.constantFrom(0, CHECKSUMS_PER_PAGE, SEGMENT, 2 * SEGMENT, BLOCKS), fc.integer({ min: -5, max: 5 }))
    .map(([base, delta]) => Math.min(BLOCKS - 1, Math.max(0, base + delta))),
);
const entry = fc.constantFrom(ENTRY_ZERO, 1, 0x80000000, 0xfffffffe, ENTRY_LOST);
const changes = fc.array(fc.record({ at: block, count: fc.integer({ min: 1, max: 20 }), entry }), { maxLength: 40 });

function tableOf(list: Array<{ at: number; count: number; entry: number }>): [ChecksumTable, Map<number, number>] {
  const table = new ChecksumTable(BLOCKS);
  const model = new Map<number, number>();
  for (const { at, count, entry: value } of list) {
    for (let b = at; b < Math.min(at + count, BLOCKS); b++) {
      table.set(b, value);
      model.set(b, value);
    }
  }
  return [table, model];
}

const tables = suite('checksum table');

tables('does what a map does', () => {
  fc.assert(
    fc.property(changes, block, (list, first) => {
      const [table, model] = tableOf(list);
      for (const [b, value] of model) assert.is(table.get(b), value);
      const count = Math.min(65, BLOCKS - first);
      const into = new Uint32Array(66).fill(0x5a5a5a5a);
      const expected = Array.from({ length: count }, (_, i) => model.get(first + i) ?? ENTRY_ZERO);
      assert.is(
        table.copyOut(first, count, into),
        expected.some((value) => value !== ENTRY_ZERO),
      );
      assert.equal([...into.subarray(0, count)], expected);
      assert.is(into[count], 0x5a5a5a5a);
    }),
  );
});

tables('runs of holes and of data, over the edges of memory that was never taken', () => {
  fc.assert(
    fc.property(changes, block, fc.integer({ min: 1, max: BLOCKS }), (list, from, length) => {
      const [table, model] = tableOf(list);
      const limit = Math.min(from + length, BLOCKS);
      const hole = (b: number): boolean => (model.get(b) ?? ENTRY_ZERO) === ENTRY_ZERO;
      let end = from + 1;
      while (end < limit && hole(end) === hole(from)) end++;
      assert.is(table.runEnd(from, limit), end);
    }),
  );
});

tables('changed pages are named once, and only the changed ones', () => {
  const table = new ChecksumTable(BLOCKS);
  table.set(SEGMENT, 5);
  table.set(CHECKSUMS_PER_PAGE - 1, 6);
  table.set(CHECKSUMS_PER_PAGE, 7);
  table.set(BLOCKS - 1, ENTRY_ZERO);
  assert.is(table.changed.size, 3);
  assert.equal(table.changed.take(), [0, 1, 64]);
  table.set(SEGMENT, 5);
  assert.equal(table.changed.take(), []);
  table.set(SEGMENT, ENTRY_ZERO);
  assert.equal(table.changed.take(), [64]);
});

tables('memory is taken where there is data', () => {
  const table = new ChecksumTable(2 ** 32);
  assert.is(table.memoryBytes, 0);
  for (let i = 0; i < 1000; i++) table.set(i * 4_000_000, ENTRY_ZERO);
  assert.is(table.memoryBytes, 0);
  table.set(2 ** 32 - 1, 9);
  table.set(2 ** 31, 8);
  assert.is(table.get(2 ** 32 - 1), 9);
  assert.is(table.get(2 ** 31), 8);
  assert.is(table.memoryBytes, 2 * 4 * SEGMENT);
  assert.is(table.runEnd(0, 2 ** 32), 2 ** 31);
  assert.is(table.runEnd(2 ** 31 + 1, 2 ** 32), 2 ** 32 - 1);
});
tables.run();

const pages = suite('checksum table: pages');
const body = (): Uint8Array => new Uint8Array(new ArrayBuffer(4096), 32, PAGE_BODY_BYTES);

pages('round trip through page bodies', () => {
  fc.assert(
    fc.property(changes, (list) => {
      const [table, model] = tableOf(list);
      const after = new ChecksumTable(BLOCKS);
      for (const page of table.changed.take()) {
        const bytes = body();
        table.encodePage(page, bytes);
        after.decodePage(page, bytes);
      }
      for (const [b, value] of model) assert.is(after.get(b), value);
      assert.equal(after.changed.take(), [], 'what was read is not changed');
    }),
    { numRuns: 50 },
  );
});

pages('the last page holds fewer entries than it has room for', () => {
  const table = new ChecksumTable(CHECKSUMS_PER_PAGE + 3);
  const bytes = body().fill(0xff);
  table.decodePage(1, bytes);
  assert.is(table.get(CHECKSUMS_PER_PAGE + 2), 0xffffffff);
  assert.is(table.get(CHECKSUMS_PER_PAGE - 1), ENTRY_ZERO);
  const out = body();
  table.encodePage(1, out);
  assert.ok(out.subarray(0, 12).every((b) => b === 0xff));
  assert.ok(out.subarray(12).every((b) => b === 0));
});

pages('a damaged page loses exactly its own blocks', () => {
  for (const blocks of [BLOCKS, CHECKSUMS_PER_PAGE + 3]) {
    const table = new ChecksumTable(blocks);
    const last = Math.ceil(blocks / CHECKSUMS_PER_PAGE) - 1;
    table.decodePage(last, null);
    const first = last * CHECKSUMS_PER_PAGE;
    assert.is(table.get(first - 1), ENTRY_ZERO);
    for (let b = first; b < blocks; b++) assert.is(table.get(b), ENTRY_LOST);
  }
});
pages.run();
