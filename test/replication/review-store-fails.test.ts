/** What a second review found: a store that fails under a primary or a backup. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { ALL_RULES } from '../../src/replication/rules.ts';
import { RECORD_KINDS } from '../../src/storage/record.ts';
import { PrimaryVolume } from '../../src/replication/primary-volume.ts';
import { turns } from '../support/unit-tools.ts';
import { B, member, bytesOf, followerOn, epoch1 } from '../support/core-harness.ts';

const test = suite('replication: second review, a store fails');

const group = {
  appended: () => {},
  durable: () => {},
  rightToRead: (done: (e: null) => void) => done(null),
  mayRead: () => true,
  reached: () => {},
  rules: ALL_RULES,
};

async function caught(run: () => Promise<void>): Promise<unknown[]> {
  const errors: unknown[] = [];
  const note = (error: unknown): void => void errors.push(error);
  const before = process.listeners('uncaughtException');
  process.removeAllListeners('uncaughtException');
  process.on('uncaughtException', note);
  try {
    await run();
  } finally {
    process.removeListener('uncaughtException', note);
    for (const one of before) process.on('uncaughtException', one as () => void);
  }
  return errors;
}

test('R1: a read is under way on a block with an uncommitted write when the store fails: no exception', async () => {
  const { disk, store } = await member();
  await store.update({ epoch: 1, replica: { groupEpoch: 1 } });
  let answered: unknown = 'nothing';
  const errors = await caught(async () => {
    const volume = new PrimaryVolume(store, disk.arena, { readOnly: false, onFailed: () => {}, group });
    // Something to read first, so that the read goes to the disk.
    let wrote = false;
    const slot0 = disk.arena.take(1)!;
    slot0.payload.fill(1);
    volume.write(null, 0, 5 * B, B, slot0, false, () => (wrote = true));
    await turns(20);
    volume.committed(store.lastPosition);
    await turns(20);
    assert.ok(wrote);
    // A journal write that fails at once, and a read that takes longer.
    let failNow: () => void = () => assert.unreachable('no batch');
    const writeJournal = disk.writeJournal.bind(disk);
    disk.writeJournal = (write, done) => {
      failNow = () => {
        disk.fault = { kind: 'any', n: 1, code: 'IO_ERROR' };
        writeJournal(write, done);
      };
    };
    const readVerified = disk.readVerified.bind(disk);
    let readNow: () => void = () => assert.unreachable('no read');
    disk.readVerified = (read, done) => void (readNow = () => readVerified(read, done));
    volume.read(5 * B, B, disk.arena.take(1)!, (error) => (answered = error));
    const slot = disk.arena.take(1)!;
    volume.write(null, 0, 5 * B, B, slot, false, () => {});
    await turns(5);
    failNow();
    await turns(10);
    assert.ok(store.failed, 'the store has failed');
    readNow();
    await turns(10);
  });
  assert.equal(errors.map(String), []);
  assert.is.not(answered, 'nothing');
});

test('R1b: the same with a write that is being applied', async () => {
  const { disk, store } = await member();
  await store.update({ epoch: 1, replica: { groupEpoch: 1 } });
  const errors = await caught(async () => {
    const volume = new PrimaryVolume(store, disk.arena, { readOnly: false, onFailed: () => {}, group });
    const write = disk.write.bind(disk);
    let applyNow: () => void = () => assert.unreachable('not applied');
    disk.write = (file, from, at, done) => {
      if (file === 'data') applyNow = () => write(file, from, at, done);
      else write(file, from, at, done);
    };
    volume.write(null, 0, 5 * B, B, disk.arena.take(1)!, false, () => {});
    await turns(20);
    volume.committed(store.lastPosition);
    await turns(5);
    disk.fault = { kind: 'any', n: 1, code: 'IO_ERROR' };
    volume.write(null, 0, 5 * B, B, disk.arena.take(1)!, false, () => {});
    await turns(20);
    assert.ok(store.failed);
    applyNow();
    await turns(10);
  });
  assert.equal(errors.map(String), []);
});

test('R2: a primary volume whose store has failed gives back the memory that its writes hold', async () => {
  const { disk, store } = await member();
  await store.update({ epoch: 1, replica: { groupEpoch: 1 } });
  const before = disk.arena.slotsInUse;
  const volume = new PrimaryVolume(store, disk.arena, { readOnly: false, onFailed: () => {}, group });
  let answered = 0;
  for (let i = 0; i < 100; i++) volume.write(null, 0, i * B, B, disk.arena.take(1)!, false, () => answered++);
  disk.fault = { kind: 'any', n: 1, code: 'IO_ERROR' };
  await turns(60);
  assert.ok(store.failed);
  await volume.drain();
  await store.close().catch(() => {});
  assert.is(answered, 100);
  assert.ok(disk.arena.slotsInUse <= before, `${disk.arena.slotsInUse} slots in use, ${before} before`);
});

test('R2b: a follower whose store has failed gives back the memory of its records, and answers its reads', async () => {
  const { disk, store } = await member();
  const before = disk.arena.slotsInUse;
  const follower = followerOn(disk, store);
  const writes = Array.from({ length: 50 }, (_, i) => {
    return { kind: RECORD_KINDS.WRITE, epoch: 1, seq: 2 + i, first: i, value: 7 };
  });
  const sent = await bytesOf([...epoch1, ...writes]);
  for (const bytes of sent.slice(0, 40)) follower.take({ type: 'RECORD', bytes });
  await turns(40);
  let answered = false;
  const slot = disk.arena.take(1)!;
  follower.read(3, 1, slot, () => {
    answered = true;
    disk.arena.release(slot);
  });
  disk.fault = { kind: 'any', n: 1, code: 'IO_ERROR' };
  for (const bytes of sent.slice(40)) follower.take({ type: 'RECORD', bytes });
  await turns(60);
  assert.ok(store.failed);
  // What `Replica.stopped` does with a store that has failed: nothing more.
  follower.stop();
  await store.close().catch(() => {});
  await turns(20);
  const said = `${disk.arena.slotsInUse} slots in use, ${before} before; the read was ${answered ? '' : 'not '}answered`;
  assert.ok(answered && disk.arena.slotsInUse <= before, said);
});

test.run();
