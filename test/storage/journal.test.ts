/** The journal's writer: batches, order, the ring's end, limits, and what a failure leaves. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { MAX_IO_BLOCKS, MiB } from '../../src/base/units.ts';
import { Arena } from '../../src/storage/arena.ts';
import { recordBytes } from '../../src/storage/journal.ts';
import { MAX_BATCH_BYTES, MAX_BATCH_RECORDS, PAGE_BYTES, layoutOf } from '../../src/storage/layout.ts';
import { BATCH_HEADER_BYTES, decodeBatch, decodeBatchHeader } from '../../src/storage/record.ts';
import { DISK_ID, JournalHarness, LAYOUT, VOLUME_ID, newDisk } from '../support/journal-harness.ts';
import { Random } from '../support/random.ts';
import { SimulatedDisk } from '../support/simulated-disk.ts';
import { assertBytes, turns } from '../support/unit-tools.ts';

const RING = LAYOUT.journalBytes;

/** Reads the ring as it lies in the file: the batch that begins at an offset of the endless ring. */
function batchAt(journal: Uint8Array, offset: number): Uint8Array {
  const at = offset % RING;
  const twice = new Uint8Array(Math.min(RING, MAX_BATCH_BYTES));
  const first = journal.subarray(at, Math.min(RING, at + twice.length));
  twice.set(first);
  if (first.length < twice.length) twice.set(journal.subarray(0, twice.length - first.length), first.length);
  return twice;
}

/** Checks that the last batches in the ring say what was appended; `from` is the first that was not overwritten. */
function assertChain(h: JournalHarness, from = 0): void {
  let offset = h.tailAfter(from).offsetBytes;
  for (let i = from; i < h.batches.length; i++) {
    const bytes = batchAt(h.disk.files.journal, offset);
    const header = decodeBatchHeader(bytes, 0, DISK_ID)!;
    assert.ok(header, `batch ${i} has a header`);
    assert.is(header.batchNo, i + 1);
    assert.is(header.prevCrc, h.tailAfter(i).prevCrc, 'it names its predecessor');
    const records = decodeBatch(bytes, header, VOLUME_ID)!;
    assert.ok(records, `batch ${i} is whole`);
    const { next, records: reported } = h.batches[i]!;
    assert.equal(
      records.map((r) => r.seq),
      reported.map((r) => r.seq),
    );
    for (const record of records) {
      const { payload, kind } = h.written[record.seq - h.written[0]!.seq]!;
      assert.is(record.kind, kind);
      assertBytes(record.payload, payload, `payload of ${record.seq}`);
    }
    assert.equal(next, {
      offsetBytes: offset + header.lengthBytes,
      batchNo: header.batchNo + 1,
      prevCrc: header.headerCrc,
    });
    offset = next.offsetBytes;
  }
}

const writing = suite('journal');

writing('what is appended in one turn is one batch, what comes meanwhile is the next', async () => {
  const h = new JournalHarness(newDisk(1));
  for (const blocks of [1, 0, 2]) h.append(blocks);
  assert.is(h.batches.length, 0, 'nothing is durable before the call returns');
  await turns(1);
  h.append(5);
  h.append(1);
  await h.journal.idle();
  assert.equal(
    h.batches.map((b) => b.records.map((r) => r.seq)),
    [
      [1, 2, 3],
      [4, 5],
    ],
  );
  assert.is(h.journal.batchesWritten, 2);
  assert.is(h.journal.bytesWritten, h.batches[1]!.next.offsetBytes);
  assert.equal(h.journal.headPosition, h.batches[1]!.next);
  assert.is(h.journal.durableBatchNo, 2);
  assertChain(h);
});

writing('batch n + 1 is written only when batch n is synced', async () => {
  const h = new JournalHarness(newDisk(2));
  h.disk.recording = true;
  const random = new Random(2);
  for (let i = 0; i < 40; i++) {
    h.append(random.below(4));
    if (random.chance(0.5)) await turns(random.below(3));
  }
  await h.journal.idle();
  assert.ok(h.batches.length > 5);
  let unsynced = new Set<number>();
  for (const event of h.disk.events) {
    if (event.kind === 'sync') {
      unsynced = new Set();
      continue;
    }
    const header = decodeBatchHeader(
      event.bytes.length >= BATCH_HEADER_BYTES ? event.bytes : new Uint8Array(64),
      0,
      DISK_ID,
    );
    if (header !== null) unsynced.add(header.batchNo);
    assert.ok(unsynced.size <= 1, 'two batches without a sync between them');
  }
  assert.is(h.disk.events.at(-1)!.kind, 'sync');
  assert.is(h.disk.counts.sync, h.batches.length, 'one sync each');
});

writing('laps around the ring: batches that straddle its end come back whole', async () => {
  const h = new JournalHarness(newDisk(3));
  const random = new Random(3);
  let passed = 0;
  let straddled = 0;
  for (let i = 0; h.journal.headPosition.offsetBytes < 5 * RING; i++) {
    for (let n = 1 + random.below(3); n > 0; n--) h.append(1 + random.below(MAX_IO_BLOCKS));
    await h.journal.idle();
    const { offsetBytes } = h.tailAfter(h.batches.length - 1);
    const end = h.journal.headPosition.offsetBytes;
    if (Math.floor(offsetBytes / RING) !== Math.floor((end - 1) / RING)) straddled++;
    // Keep the last three batches.
    if (h.batches.length > passed + 3) {
      passed = h.batches.length - 3;
      h.journal.freeUpTo(h.tailAfter(passed).offsetBytes);
    }
    if (i % 4 === 0) assertChain(h, passed);
  }
  assertChain(h, passed);
  assert.ok(straddled >= 3, `${straddled} batches straddled the end`);
});

writing('a batch that ends exactly at the ring’s end, and one that begins there', async () => {
  // A header and records of n blocks fill whole pages: choose sizes that sum up to the ring.
  const h = new JournalHarness(newDisk(4));
  const pages = (blocks: number): number => Math.ceil((BATCH_HEADER_BYTES + recordBytes(blocks)) / PAGE_BYTES);
  let left = RING / PAGE_BYTES;
  while (left > 0) {
    let blocks = Math.min(MAX_IO_BLOCKS, left - 1);
    while (pages(blocks) > left || left - pages(blocks) === 1) blocks--;
    h.journal.freeUpTo(h.tailAfter(Math.max(0, h.batches.length - 1)).offsetBytes);
    await h.appendAlone(blocks);
    left -= pages(blocks);
  }
  assert.is(h.journal.headPosition.offsetBytes, RING);
  const full = h.batches.length;
  h.journal.freeUpTo(h.tailAfter(full - 1).offsetBytes);
  await h.appendAlone(1);
  assertChain(h, full - 1);
  assert.is(decodeBatchHeader(h.disk.files.journal, 0, DISK_ID)!.batchNo, full + 1, 'it lies at the start of the file');
});

writing('a batch holds at most 1 000 records', async () => {
  const h = new JournalHarness(newDisk(5, new Arena(40 * MiB)));
  for (let i = 0; i < MAX_BATCH_RECORDS + 7; i++) h.append(0);
  await h.journal.idle();
  assert.equal(
    h.batches.map((b) => b.records.length),
    [MAX_BATCH_RECORDS, 7],
  );
  assertChain(h);
});

writing('a batch holds at most 4 MiB', async () => {
  const layout = layoutOf(2 * MiB, 12 * MiB);
  const image = SimulatedDisk.blank({ data: 0, journal: layout.journalBytes, meta: 0 });
  const h = new JournalHarness(new SimulatedDisk(image, 6), { layout });
  for (let i = 0; i < 20; i++) h.append(64);
  await h.journal.idle();
  assert.equal(
    h.batches.map((b) => b.records.length),
    [15, 5],
  );
  const bytes = h.batches[0]!.next.offsetBytes;
  assert.ok(bytes <= MAX_BATCH_BYTES && bytes + recordBytes(64) > MAX_BATCH_BYTES, 'the sixteenth would not fit');
});

writing('room: what is counted is never less than what is written', async () => {
  const h = new JournalHarness(newDisk(7));
  const random = new Random(7);
  for (let i = 0; i < 60; i++) {
    const before = h.journal.usedBytes;
    const sizes = Array.from({ length: 1 + random.below(6) }, () => random.below(10));
    for (const blocks of sizes) h.append(blocks);
    const counted = h.journal.usedBytes;
    assert.ok(counted >= before + sizes.reduce((sum, blocks) => sum + recordBytes(blocks), 0));
    await h.journal.idle();
    assert.ok(h.journal.usedBytes <= counted, `${h.journal.usedBytes} after ${counted}`);
    assert.is(h.journal.usedBytes, h.journal.headPosition.offsetBytes - h.tailAfter(i).offsetBytes);
    h.journal.freeUpTo(h.journal.headPosition.offsetBytes);
    assert.is(h.journal.usedBytes, 0);
  }
  assert.ok(h.journal.fits(1000, 1000 + 2 * PAGE_BYTES));
  assert.not.ok(h.journal.fits(1001, 1000 + 2 * PAGE_BYTES));
});

writing('the tail can move neither back nor past the head', async () => {
  const h = new JournalHarness(newDisk(8));
  await h.appendAlone(1);
  await h.appendAlone(1);
  const { offsetBytes } = h.batches[0]!.next;
  h.journal.freeUpTo(offsetBytes);
  assert.throws(() => h.journal.freeUpTo(offsetBytes - PAGE_BYTES));
  assert.throws(() => h.journal.freeUpTo(h.journal.headPosition.offsetBytes + PAGE_BYTES));
});

for (const kind of ['write', 'sync'] as const) {
  writing(`a failing ${kind} stops it: reported once, nothing durable, nothing written after it`, async () => {
    const h = new JournalHarness(newDisk(9));
    await h.appendAlone(2);
    h.append(1);
    h.disk.fault = { kind, n: 1, code: 'IO_ERROR' };
    await turns(1);
    h.append(3);
    await h.journal.idle();
    await turns(10);
    assert.is(h.disk.faultsFired, 1);
    assert.is(h.failures.length, 1);
    assert.is(h.failures[0]!.code, 'IO_ERROR');
    assert.is(h.batches.length, 1);
    assert.is(h.journal.durableBatchNo, 1);
    assert.is(h.disk.counts.write, 2, 'the third record was never written');
    assert.throws(() => h.append(1), /has stopped/);
    await h.journal.idle();
  });
}

writing('closing gives back the slot of the header', async () => {
  const disk = newDisk(10);
  const h = new JournalHarness(disk);
  await h.appendAlone(1);
  assert.is(disk.counts.sync, 1);
  const slots = disk.arena.slotsInUse;
  h.journal.close();
  assert.is(disk.arena.slotsInUse, slots - 1, 'its header’s slot is given back');
});
writing.run();
