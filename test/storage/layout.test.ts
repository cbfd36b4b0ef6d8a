/** Where things lie: no two overlap, from the smallest volume to 16 TiB. */
import fc from 'fast-check';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { BLOCK_BYTES, GiB, MAX_IO_BYTES, MAX_VOLUME_BYTES, MiB, TiB } from '../../src/base/units.ts';
import {
  BITMAP_SLOTS,
  BITS_PER_PAGE,
  CHECKSUMS_PER_PAGE,
  type Layout,
  MAX_SESSIONS,
  PAGES_PER_GROUP,
  PAGE_BODY_BYTES,
  PAGE_BYTES,
  SESSIONS_PER_PAGE,
  SESSION_BYTES,
  SESSION_PAGES,
  STATES_PER_MAP_PAGE,
  defaultJournalBytes,
  layoutOf,
  pagePosition,
} from '../../src/storage/layout.ts';
import { refused } from '../support/unit-tools.ts';

const SIZES = [BLOCK_BYTES, 2 * MiB, 127 * MiB, GiB, 66 * GiB, TiB, 16 * TiB];

const layouts = suite('layout');

layouts('page constants fit each other', () => {
  assert.is(CHECKSUMS_PER_PAGE, 1016);
  assert.is(BITS_PER_PAGE, 32_512);
  assert.is(STATES_PER_MAP_PAGE, 16_256);
  assert.ok(32 + SESSIONS_PER_PAGE * SESSION_BYTES <= PAGE_BODY_BYTES);
  assert.ok(SESSION_PAGES * SESSIONS_PER_PAGE >= MAX_SESSIONS);
  assert.ok((SESSION_PAGES - 1) * SESSIONS_PER_PAGE < MAX_SESSIONS);
});

function assertConsistent(l: Layout): void {
  assert.is(l.blocks * BLOCK_BYTES, l.sizeBytes);
  assert.is(l.bitmapFirstPage, SESSION_PAGES);
  assert.ok(l.pagesPerBitmap * BITS_PER_PAGE >= l.blocks && (l.pagesPerBitmap - 1) * BITS_PER_PAGE < l.blocks);
  assert.is(l.checksumFirstPage, l.bitmapFirstPage + BITMAP_SLOTS * l.pagesPerBitmap);
  const checksumPages = l.trackedPages - l.checksumFirstPage;
  assert.ok(checksumPages * CHECKSUMS_PER_PAGE >= l.blocks && (checksumPages - 1) * CHECKSUMS_PER_PAGE < l.blocks);
  assert.ok(l.mapPages * STATES_PER_MAP_PAGE >= l.trackedPages);
  assert.is(l.superblockSlotBytes, (1 + l.mapPages) * PAGE_BYTES);
  assert.ok(l.metaBytes % PAGE_BYTES === 0 && Number.isSafeInteger(l.metaBytes));
  const last = l.trackedPages - 1;
  assert.ok(pagePosition(l, 0, 0) >= 2 * l.superblockSlotBytes, 'pages lie behind both superblocks');
  assert.ok(pagePosition(l, last, 1) + PAGE_BYTES <= l.metaBytes, 'the last slot ends inside the file');
}

layouts('every size is consistent', () => {
  for (const size of SIZES) assertConsistent(layoutOf(size));
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 2 ** 31 - 1 }), (half) => assertConsistent(layoutOf(2 * half * BLOCK_BYTES))),
  );
});

layouts('no two slots of any two pages overlap, and second slots are second', () => {
  for (const size of [2 * MiB, 3 * GiB]) {
    const l = layoutOf(size);
    const seen = new Set<number>();
    for (let page = 0; page < l.trackedPages; page++) {
      for (const slot of [0, 1]) {
        const position = pagePosition(l, page, slot);
        assert.is(position % PAGE_BYTES, 0);
        assert.not.ok(seen.has(position), `page ${page} slot ${slot}`);
        seen.add(position);
      }
    }
    assert.is(seen.size, 2 * l.trackedPages);
  }
});

layouts('neighbours of one group and slot lie side by side', () => {
  const l = layoutOf(66 * GiB);
  fc.assert(
    fc.property(fc.integer({ min: 0, max: l.trackedPages - 2 }), fc.constantFrom(0, 1), (page, slot) => {
      const step = pagePosition(l, page + 1, slot) - pagePosition(l, page, slot);
      assert.is(step, (page + 1) % PAGES_PER_GROUP === 0 ? (PAGES_PER_GROUP + 1) * PAGE_BYTES : PAGE_BYTES);
    }),
  );
});

layouts('numbers of the largest volume', () => {
  const l = layoutOf(16 * TiB);
  assert.is(l.blocks, 2 ** 32);
  assert.is(l.pagesPerBitmap, 132_105);
  assert.is(l.checksumFirstPage, 47 + 16 * 132_105);
  assert.is(l.trackedPages, 47 + 16 * 132_105 + 4_227_331);
  assert.is(l.mapPages, 391);
  // The superblock of slot 1 is looked for within the first 1 024 pages when slot 0 is torn.
  assert.ok(l.mapPages + 1 < 1024);
  // Page numbers of the map count down from the top: they must not meet those of the tracked pages.
  assert.ok(l.trackedPages < 0xffffffff - l.mapPages);
  assert.is(l.journalBytes, GiB);
});

layouts('the journal is an eighth, within bounds, in whole pages', () => {
  assert.is(defaultJournalBytes(BLOCK_BYTES), 128 * MiB);
  assert.is(defaultJournalBytes(GiB), 128 * MiB);
  assert.is(defaultJournalBytes(4 * GiB), 512 * MiB);
  assert.is(defaultJournalBytes(8 * GiB), GiB);
  assert.is(defaultJournalBytes(MAX_VOLUME_BYTES), GiB);
  assert.is(defaultJournalBytes(2 * GiB + BLOCK_BYTES) % PAGE_BYTES, 0);
});

layouts('limits of the journal leave room for each other', () => {
  fc.assert(
    fc.property(fc.integer({ min: 1024, max: 262_144 }), (pages) => {
      const l = layoutOf(GiB, pages * PAGE_BYTES);
      for (const limit of [l.checkpointAtBytes, l.clientRoomBytes, l.uncommittedBytes]) {
        assert.is(limit % PAGE_BYTES, 0);
      }
      assert.ok(l.checkpointAtBytes + l.uncommittedBytes <= l.clientRoomBytes);
      assert.ok(l.clientRoomBytes < l.journalBytes - 2 * MAX_IO_BYTES + 1);
      assert.ok(l.clientRoomBytes > 0.75 * l.journalBytes - PAGE_BYTES && l.clientRoomBytes <= 0.75 * l.journalBytes);
    }),
  );
});

layouts('a journal too small for its limits, or of broken pages, is no layout', () => {
  assert.ok(layoutOf(GiB, 4 * MiB));
  for (const journal of [0, PAGE_BYTES, MiB, 4 * MiB - PAGE_BYTES, 4 * MiB + 1]) {
    assert.throws(() => layoutOf(GiB, journal), undefined, `journal of ${journal}`);
  }
});

layouts('sizes that no volume can have', async () => {
  for (const size of [0, -4096, 1, 4095, 4097, 6000, NaN, Infinity, 4096.5, 2 ** 60]) {
    await refused('INVALID_ARGUMENT', () => layoutOf(size));
  }
  const error = await refused('TOO_LARGE', () => layoutOf(MAX_VOLUME_BYTES + BLOCK_BYTES));
  assert.match(error.message, /16 TiB/);
});
layouts.run();
