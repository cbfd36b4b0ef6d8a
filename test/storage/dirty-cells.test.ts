/** How many bits are set in each stretch of a bitmap, against counting them one by one. */
import * as assert from 'uvu/assert';
import { suite } from 'uvu';
import { DirtyBitmap } from '../../src/storage/dirty-bitmap.ts';
import { BITS_PER_PAGE } from '../../src/storage/layout.ts';
import { Random } from '../support/random.ts';

const test = suite('stretches of a bitmap');

function counted(bitmap: DirtyBitmap, cellBlocks: number): number[] {
  const cells: number[] = Array.from({ length: Math.ceil(bitmap.blocks / cellBlocks) }, () => 0);
  for (let block = 0; block < bitmap.blocks; block++) if (bitmap.has(block)) cells[Math.floor(block / cellBlocks)]!++;
  return cells;
}

function agrees(bitmap: DirtyBitmap, most: number): void {
  const { cellBlocks, cells } = bitmap.cells(most);
  assert.ok(cells.length <= most, `${cells.length} of at most ${most}`);
  assert.equal(cells, counted(bitmap, cellBlocks));
  assert.is(
    cells.reduce((sum, count) => sum + count, 0),
    bitmap.count,
  );
}

for (const blocks of [1, 31, 32, 33, 1000, BITS_PER_PAGE, BITS_PER_PAGE + 1, 5 * BITS_PER_PAGE + 77]) {
  for (const most of [1, 3, 7, 1024]) {
    test(`${blocks} blocks in at most ${most}`, () => {
      const bitmap = new DirtyBitmap(blocks);
      agrees(bitmap, most);
      const random = new Random(blocks * most);
      for (let i = 0; i < 500; i++) {
        const block = random.below(blocks);
        if (random.below(3) === 0) bitmap.clear(block);
        else bitmap.set(block);
      }
      agrees(bitmap, most);
      bitmap.setAll();
      agrees(bitmap, most);
      assert.is(bitmap.count, blocks);
      bitmap.clear(blocks - 1);
      agrees(bitmap, most);
      const body = new Uint8Array(BITS_PER_PAGE / 8);
      bitmap.encodePage(0, body);
      const read = new DirtyBitmap(blocks);
      read.decodePage(0, body);
      agrees(read, most);
      bitmap.clearAll();
      agrees(bitmap, most);
      assert.is(bitmap.count, 0);
    });
  }
}

test.run();
