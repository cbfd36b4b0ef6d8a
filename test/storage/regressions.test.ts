/** Cases that were red when they were found; each says what it asks for. They stay as a guard. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { BLOCK_BYTES, MAX_IO_BYTES, MiB } from '../../src/base/units.ts';
import type { Attachment } from '../../src/replication/served-volume.ts';
import type { VerifiedRead } from '../../src/storage/files.ts';
import { IoPool } from '../../src/storage/io-pool.ts';
import { MAX_SESSIONS, PAGE_BODY_BYTES, layoutOf, pagePosition } from '../../src/storage/layout.ts';
import { RECORD_KINDS, type RecordFields } from '../../src/storage/record.ts';
import { SessionTable } from '../../src/storage/session-table.ts';
import { StoreTables } from '../../src/storage/tables.ts';
import { createVolume } from '../../src/storage/volume-folder.ts';
import { VOLUME_ID } from '../support/journal-harness.ts';
import { SimulatedDisk } from '../support/simulated-disk.ts';
import { type Opened, SMALL, formatted, opened, reborn } from '../support/store-harness.ts';
import { refused, settled, turns } from '../support/unit-tools.ts';

const B = BLOCK_BYTES;
const found = suite('regressions');

const record = (kind: RecordFields['kind'], seq: number, firstBlock: number): RecordFields => ({
  kind,
  epoch: 1,
  seq,
  commitEpoch: 1,
  commitSeq: seq - 1,
  session: 0n,
  request: 0,
  firstBlock,
  blockCount: 1,
});

found('a block zeroed while a checkpoint writes its pages is still owed zeros after a crash and replay', () => {
  const layout = layoutOf(SMALL.sizeBytes, SMALL.journalBytes);
  const before = new StoreTables(layout, VOLUME_ID);
  before.applyBlocks(record(RECORD_KINDS.WRITE, 1, 5), Uint32Array.of(123));
  // A checkpoint with its tail here takes the changed pages, and writes them one after the other.
  const { pages, fill } = before.takeDirty(before.takeSessions());
  // Meanwhile the next record, which lies behind that tail, is applied.
  before.applyBlocks(record(RECORD_KINDS.ZERO, 2, 5), new Uint32Array(0));
  assert.ok(before.owed.has(5));
  // The crash: what the checkpoint wrote comes back, and the record behind its tail is replayed.
  const after = new StoreTables(layout, VOLUME_ID);
  for (const page of pages) {
    const body = new Uint8Array(PAGE_BODY_BYTES);
    fill(page, body);
    if (page >= layout.checksumFirstPage) after.checksums.decodePage(page - layout.checksumFirstPage, body);
    else after.owed.decodePage(page - layout.bitmapFirstPage, body);
  }
  after.applyBlocks(record(RECORD_KINDS.ZERO, 2, 5), new Uint32Array(0), true);
  assert.ok(after.owed.has(5), 'else the old bytes stay in `data` for good');
});

found('a session that was forgotten and came back is not vouched for from its beginning', () => {
  const table = new SessionTable();
  table.note(1n, 10, { epoch: 1, seq: 1 });
  for (let n = 2; n <= MAX_SESSIONS + 1; n++) table.note(BigInt(n), 1, { epoch: 1, seq: n });
  // Session 1 is forgotten, its connection lives on and writes again.
  table.note(1n, 11, { epoch: 1, seq: 5000 });
  assert.is(table.lookUp(1n, 11), 'done');
  // It reconnects and repeats request 10, whose answer was lost: to execute it again would undo newer writes.
  const answered = table.vouchesFor(1n, { epoch: 0, seq: 0 }) ? table.lookUp(1n, 10) : 'unknown';
  assert.is.not(answered, 'new');
});

found('after a damaged session page, a session that replay brings back is not vouched for either', () => {
  const table = SessionTable.decode([null], { epoch: 1, seq: 100 });
  table.note(1n, 11, { epoch: 1, seq: 101 });
  const answered = table.vouchesFor(1n, { epoch: 1, seq: 5 }) ? table.lookUp(1n, 10) : 'unknown';
  assert.is.not(answered, 'new');
});

const damagedPages: Array<[string, number]> = [
  ['sessions', 0],
  ['blocks owed zeros', layoutOf(SMALL.sizeBytes, SMALL.journalBytes).bitmapFirstPage],
  ['checksums', layoutOf(SMALL.sizeBytes, SMALL.journalBytes).checksumFirstPage],
];
for (const [what, page] of damagedPages) {
  found(`a damaged page of ${what}: once its loss was accepted, the volume stays good`, async () => {
    const layout = layoutOf(SMALL.sizeBytes, SMALL.journalBytes);
    const o = await opened(await formatted());
    const mine = await attach(o, 1n, 1);
    await write(o, 0, B, mine, 1);
    await write(o, B, B, mine, 2);
    await settled((done) => o.volume.zero(mine, 3, 0, B, done));
    await o.close();
    // Of the two slots one counts.
    for (const slot of [0, 1]) o.disk.files.meta[pagePosition(layout, page, slot) + 100]! ^= 1;
    const damaged = await opened(reborn(o.disk.files, 1, o.disk.arena));
    assert.is(damaged.store.health, 'damaged');
    await damaged.store.acceptLoss();
    await damaged.close();
    const again = await opened(reborn(damaged.disk.files, 2, o.disk.arena));
    assert.is(again.store.health, 'good', again.store.healthReason);
    await again.close();
  });
}

/** A disk whose verified reads wait until they are let go. */
class HoldingDisk extends SimulatedDisk {
  holding = false;
  private held: Array<() => void> = [];

  override readVerified(read: VerifiedRead, done: Parameters<SimulatedDisk['readVerified']>[1]): void {
    if (this.holding) this.held.push(() => super.readVerified(read, done));
    else super.readVerified(read, done);
  }

  letGo(): void {
    this.holding = false;
    for (const go of this.held.splice(0)) go();
  }
}

found('an unaligned write whose edge is slow to read does not stop the journal for good', async () => {
  const disk = new HoldingDisk((await formatted({ sizeBytes: 8 * MiB, journalBytes: 4 * MiB })).files, 1);
  const o = await opened(disk);
  await write(o, 0, B);
  await o.volume.drain();
  await o.store.checkpoint();
  await o.store.close();
  const held = new HoldingDisk(disk.files, 2, disk.arena);
  const p = await opened(held);
  let answered = 0;
  let asked = 0;
  const start = (at: number, length: number): void => {
    asked++;
    void write(p, at, length).then(() => void answered++);
  };
  held.holding = true;
  // Reads block 0 for its edges, and keeps others from changing it until it is in the log.
  start(10, 100);
  // Goes into the log first, and is not applied before the one above lets go of the block.
  start(0, B);
  for (let i = 1; i <= 14; i++) start(i * MAX_IO_BYTES, MAX_IO_BYTES);
  await turns(300);
  held.letGo();
  await turns(1000);
  assert.is(answered, asked, 'every write is answered');
});

found('flush waits for the unaligned writes that were called before it', async () => {
  const o = await opened(await formatted());
  await write(o, 0, B);
  const order: string[] = [];
  const unaligned = write(o, 10, 100).then(() => order.push('write'));
  const flush = settled((done) => o.volume.flush(done)).then(() => order.push('flush'));
  await Promise.all([unaligned, flush]);
  assert.equal(order, ['write', 'flush']);
});

found('a failed apply: the read that waits behind it is answered', async () => {
  const o = await opened(await formatted());
  const slot = o.disk.arena.take(1)!;
  let answer: string | null = null;
  // The journal's write succeeds, the write into `data` fails.
  o.disk.fault = { kind: 'write', n: 2, code: 'IO_ERROR' };
  const written = write(o, 0, B);
  o.volume.read(0, B, slot, (error) => void (answer = error === null ? 'data' : error.code));
  await written;
  await turns(50);
  assert.is(o.failures.length, 1);
  assert.is(answer, 'POISONED');
});

found('a failed apply: the attach that waits for it is answered', async () => {
  const o = await opened(await formatted());
  const mine = await attach(o, 1n, 1);
  o.disk.fault = { kind: 'write', n: 2, code: 'IO_ERROR' };
  const written = write(o, 0, B, mine, 1);
  let answer: string | null = null;
  o.volume.attach(
    1n,
    2,
    null,
    () => {},
    (error) => void (answer = error === null ? 'attached' : error.code),
  );
  await written;
  await turns(50);
  assert.is(o.failures.length, 1);
  assert.is(answer, 'POISONED');
});

found('a creation that its caller aborts says so', async () => {
  const root = mkdtempSync(join(tmpdir(), 'holdfast-found-'));
  const pool = new IoPool({ arenaBytes: 8 * MiB, onLost: (error) => assert.unreachable(error.message) });
  try {
    const signal = AbortSignal.abort();
    await refused('ABORTED', () => createVolume(join(root, 'v'), pool, { ...SMALL, signal }));
  } finally {
    await pool.close();
    rmSync(root, { recursive: true, force: true });
  }
});

function write(o: Opened, at: number, length: number, by: Attachment | null = null, request = 0): Promise<void> {
  const slot = o.disk.arena.take(Math.ceil(((at % B) + length) / B))!;
  slot.payload.fill(7);
  return settled((done) => o.volume.write(by, request, at, length, slot, false, done));
}

function attach(o: Opened, session: bigint, generation: number): Promise<Attachment> {
  return new Promise((resolve, reject) =>
    o.volume.attach(
      session,
      generation,
      null,
      () => {},
      (error, attachment) => (error === null ? resolve(attachment!) : reject(error)),
    ),
  );
}

found.run();
