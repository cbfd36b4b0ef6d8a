/** Reading the journal after a crash: wrapped rings, torn ends, damage, and doing it all again. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { HoldfastError } from '../../src/base/errors.ts';
import { MAX_IO_BLOCKS } from '../../src/base/units.ts';
import { PAGE_BYTES } from '../../src/storage/layout.ts';
import { type DecodedRecord, encodeBatchHeader } from '../../src/storage/record.ts';
import { type Recovered, recoverJournal } from '../../src/storage/recovery.ts';
import type { Superblock } from '../../src/storage/superblock.ts';
import { DISK_ID, JournalHarness, LAYOUT, START, newDisk, superblockAt } from '../support/journal-harness.ts';
import { Random } from '../support/random.ts';
import { SimulatedDisk } from '../support/simulated-disk.ts';
import { assertBytes } from '../support/unit-tools.ts';

const RING = LAYOUT.journalBytes;

interface Outcome extends Recovered {
  replayed: Array<{ seq: number; payload: Uint8Array }>;
}

/** Recovers from a copy of the disk's journal, on a new machine with the same memory. */
async function recover(from: SimulatedDisk, superblock: Superblock): Promise<Outcome & { disk: SimulatedDisk }> {
  const image = { data: new Uint8Array(0), journal: from.files.journal.slice(), meta: new Uint8Array(0) };
  const disk = new SimulatedDisk(image, 1, from.arena);
  const inUse = disk.arena.slotsInUse;
  const replayed: Outcome['replayed'] = [];
  const accept = async (records: DecodedRecord[]): Promise<void> => {
    for (const { seq, payload } of records) replayed.push({ seq, payload: payload.slice() });
  };
  const result = await recoverJournal(disk, LAYOUT, superblock, accept);
  assert.is(disk.arena.slotsInUse, inUse, 'the staging slot is given back');
  return { ...result, replayed, disk };
}

/** Writes `count` batches around the ring, keeping the last `keep`. */
async function laps(seed: number, count: number, keep: number): Promise<{ h: JournalHarness; tail: number }> {
  const h = new JournalHarness(newDisk(seed), { seed });
  const random = new Random(seed);
  let tail = 0;
  while (h.batches.length < count) {
    for (let n = 1 + random.below(2); n > 0; n--) h.append(random.below(MAX_IO_BLOCKS + 1));
    await h.journal.idle();
    tail = Math.max(0, h.batches.length - keep);
    h.journal.freeUpTo(h.tailAfter(tail).offsetBytes);
  }
  return { h, tail };
}

function assertReplayed(h: JournalHarness, tail: number, o: Outcome, batches = h.batches.length): void {
  const expected = h.batches.slice(tail, batches).flatMap((b) => b.records.map((r) => r.seq));
  assert.equal(
    o.replayed.map((r) => r.seq),
    expected,
  );
  for (const { seq, payload } of o.replayed) assertBytes(payload, h.written[seq - 1]!.payload, `record ${seq}`);
  assert.equal(o.head, h.tailAfter(batches));
  assert.is(o.batches, batches - tail);
  assert.is(o.records, expected.length);
  assert.is(o.bytes, o.head.offsetBytes - h.tailAfter(tail).offsetBytes);
}

const recovery = suite('recovery');

recovery('an empty journal: nothing, and no damage', async () => {
  const o = await recover(newDisk(1), superblockAt(START));
  assert.equal([o.batches, o.records, o.damage], [0, 0, null]);
  assert.equal(o.head, START);
  assert.equal(o.last, { epoch: 0, seq: 0 });
  assert.is(o.disk.counts.write, 0);
});

recovery('a wrapped journal replays from its tail, in order, byte for byte', async () => {
  for (const seed of [1, 2, 3]) {
    const { h, tail } = await laps(seed, 60, 6);
    assert.ok(h.journal.headPosition.offsetBytes > 2 * RING);
    const o = await recover(h.disk, superblockAt(h.tailAfter(tail)));
    assertReplayed(h, tail, o);
    assert.is(o.damage, null, String(o.damage));
    assert.equal(o.last, { epoch: 1, seq: h.written.length });
  }
});

recovery('a tail at the very head replays nothing, though old batches lie all around', async () => {
  const { h } = await laps(4, 60, 2);
  const o = await recover(h.disk, superblockAt(h.journal.headPosition));
  assert.equal([o.batches, o.damage], [0, null]);
  assert.equal(o.head, h.journal.headPosition);
});

recovery('the accepted part is written again as it was, synced, and nothing else is touched', async () => {
  const { h, tail } = await laps(5, 40, 5);
  const before = h.disk.files.journal;
  const image = { data: new Uint8Array(0), journal: before.slice(), meta: new Uint8Array(0) };
  const disk = new SimulatedDisk(image, 5, h.disk.arena);
  disk.recording = true;
  const o = await recoverJournal(disk, LAYOUT, superblockAt(h.tailAfter(tail)), async () => {});
  assertBytes(disk.files.journal, before, 'the journal');
  let rewritten = 0;
  for (const event of disk.events.slice(0, -1)) if (event.kind === 'write') rewritten += event.bytes.length;
  assert.is(rewritten, o.bytes);
  assert.equal(disk.events.at(-1), { kind: 'sync', file: 'journal' });
  assert.is(disk.counts.sync, 1);
});

recovery('each torn last batch is an end: every byte in turn', async () => {
  const h = new JournalHarness(newDisk(6));
  await h.appendAlone(1);
  await h.appendAlone(2);
  const from = h.batches[0]!.next.offsetBytes;
  const record = 64 + 128 + 2 * 4096;
  for (let at = 0; at < record; at += at < 300 ? 7 : 511) {
    h.disk.files.journal[from + at]! ^= 0x40;
    const o = await recover(h.disk, superblockAt(START));
    assertReplayed(h, 0, o, 1);
    assert.is(o.damage, null);
    h.disk.files.journal[from + at]! ^= 0x40;
  }
  assertReplayed(h, 0, await recover(h.disk, superblockAt(START)));
});

recovery('a batch in the middle that is not valid is damage, wherever the later one lies', async () => {
  const { h, tail } = await laps(7, 50, 6);
  for (let broken = tail; broken < h.batches.length - 1; broken++) {
    const { offsetBytes } = h.tailAfter(broken);
    h.disk.files.journal[(offsetBytes + 70) % RING]! ^= 1;
    const o = await recover(h.disk, superblockAt(h.tailAfter(tail)));
    assertReplayed(h, tail, o, broken);
    assert.match(String(o.damage), `batch ${broken + 1} is not valid, yet batch`);
    h.disk.files.journal[(offsetBytes + 70) % RING]! ^= 1;
  }
});

recovery('a superblock that remembers a later batch than is found: damage', async () => {
  const { h, tail } = await laps(8, 30, 4);
  const last = h.batches.length;
  const at = h.tailAfter(tail);
  assert.is((await recover(h.disk, superblockAt(at, last))).damage, null, 'as many as there are');
  const o = await recover(h.disk, superblockAt(at, last + 1));
  assert.match(String(o.damage), `ends at batch ${last}, but batch ${last + 1} was durable`);
  assertReplayed(h, tail, o);
  // The last batch is lost as a whole: without that memory it would pass for a torn end.
  h.disk.files.journal[h.tailAfter(last - 1).offsetBytes % RING]! ^= 1;
  assert.is((await recover(h.disk, superblockAt(at))).damage, null);
  assert.match(String((await recover(h.disk, superblockAt(at, last))).damage), `ends at batch ${last - 1}`);
});

recovery('links that do not fit are no continuation: number, predecessor, disk', async () => {
  const h = new JournalHarness(newDisk(9));
  await h.appendAlone(1);
  const { next } = h.batches[0]!;
  const good = superblockAt(START);
  assert.is((await recover(h.disk, { ...good, tail: { ...START, prevCrc: 1 } })).batches, 0);
  assert.is((await recover(h.disk, { ...good, tail: { ...START, batchNo: 2 }, headBatchNo: 1 })).batches, 0);
  assert.is((await recover(h.disk, { ...good, diskId: new Uint8Array(16) })).batches, 0);
  assert.is((await recover(h.disk, { ...good, volumeId: new Uint8Array(16) })).batches, 0);
  assert.is((await recover(h.disk, { ...good, tail: next })).batches, 0);
  assert.is((await recover(h.disk, good)).batches, 1);
});

recovery('the ring filled to its last page is read once, not round and round', async () => {
  // Behind the end of the last batch the first one's header comes again.
  const h = new JournalHarness(newDisk(10));
  for (let i = 0; i < 15; i++) h.append(64);
  await h.journal.idle();
  while (RING - h.journal.headPosition.offsetBytes >= 2 * PAGE_BYTES) {
    const left = RING / PAGE_BYTES - h.journal.headPosition.offsetBytes / PAGE_BYTES;
    await h.appendAlone(Math.min(64, left - 1));
  }
  assert.ok(RING - h.journal.headPosition.offsetBytes <= PAGE_BYTES);
  const o = await recover(h.disk, superblockAt(START));
  assertReplayed(h, 0, o);
  assert.is(o.damage, null);
});

recovery('a batch that would reach past the tail is none', async () => {
  const h = new JournalHarness(newDisk(11));
  await h.appendAlone(1);
  // A sealed header at the head that claims the whole ring: more than is free.
  const header = new Uint8Array(64);
  const { batchNo, prevCrc, offsetBytes } = h.journal.headPosition;
  encodeBatchHeader(header, DISK_ID, { batchNo, prevCrc, recordCount: 1, lengthBytes: RING, bodyCrc: 0 });
  h.disk.files.journal.set(header, offsetBytes);
  const o = await recover(h.disk, superblockAt(START));
  assertReplayed(h, 0, o);
});

recovery('what the superblock knew to be committed counts where the journal holds less', async () => {
  const h = new JournalHarness(newDisk(12));
  await h.appendAlone(1);
  const known = await recover(h.disk, { ...superblockAt(START), committed: { epoch: 5, seq: 9 } });
  assert.equal(known.last, { epoch: 5, seq: 9 });
  assert.equal((await recover(h.disk, superblockAt(START))).last, { epoch: 1, seq: 1 });
});

recovery('it can be done again and again, and written on from where it ended', async () => {
  const { h, tail } = await laps(13, 30, 4);
  const superblock = superblockAt(h.tailAfter(tail));
  const first = await recover(h.disk, superblock);
  const second = await recover(first.disk, superblock);
  assertBytes(second.disk.files.journal, first.disk.files.journal, 'the journal after two recoveries');
  assert.equal(second.head, first.head);
  const on = new JournalHarness(second.disk, { tail: superblock.tail, head: second.head, seq: second.last.seq });
  await on.appendAlone(3);
  const third = await recover(on.disk, superblock);
  assert.is(third.batches, first.batches + 1);
  assert.is(third.last.seq, second.last.seq + 1);
  assertBytes(third.replayed.at(-1)!.payload, on.written[0]!.payload, 'the record after the crash');
});

recovery('a failing write or sync of the rewriting is an error, and reports nothing', async () => {
  const { h, tail } = await laps(14, 20, 4);
  for (const kind of ['write', 'sync'] as const) {
    const image = { data: new Uint8Array(0), journal: h.disk.files.journal.slice(), meta: new Uint8Array(0) };
    const disk = new SimulatedDisk(image, 1, h.disk.arena);
    const inUse = disk.arena.slotsInUse;
    disk.fault = { kind, n: 1, code: 'IO_ERROR' };
    const error = await recoverJournal(disk, LAYOUT, superblockAt(h.tailAfter(tail)), async () => {}).then(
      () => null,
      (e: unknown) => e,
    );
    assert.ok(error instanceof HoldfastError);
    assert.is(disk.arena.slotsInUse, inUse);
  }
});
recovery.run();
