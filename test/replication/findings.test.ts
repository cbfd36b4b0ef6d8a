/** What a review of the core found, each by its number: red without its repair. */
import { DEFAULT_SYNC_RATES, SyncPace } from '../../src/replication/sync-pace.ts';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { ALL_RULES } from '../../src/replication/rules.ts';
import type { HoldfastError } from '../../src/base/errors.ts';
import { encodeConfig } from '../../src/storage/control.ts';
import { RECORD_KINDS } from '../../src/storage/record.ts';
import { PrimaryVolume } from '../../src/replication/primary-volume.ts';
import type { Downstream } from '../../src/replication/peer-messages.ts';
import { turns } from '../support/unit-tools.ts';
import { B, member, record, bytesOf, epochFill, followerOn, read, epoch1, Pipe } from '../support/core-harness.ts';

const test = suite('replication: findings in store and volume');

test('F1: an EPOCH record that is applied because the store settles, not because it is committed, keeps the suspects', async () => {
  const { disk, store } = await member();
  const follower = followerOn(disk, store);
  const sent = await bytesOf([
    ...epoch1,
    { kind: RECORD_KINDS.WRITE, epoch: 2, seq: 2, commit: [1, 1], first: 5, value: 7 },
    { kind: RECORD_KINDS.EPOCH, epoch: 2, seq: 3, commit: [1, 1], fill: epochFill() },
  ]);
  for (const bytes of sent) follower.take({ type: 'RECORD', bytes });
  await turns(20);
  await follower.settle();
  assert.equal(store.committedPosition, { epoch: 1, seq: 1 });
  assert.equal(store.peers.suspects().runs(), [5, 1], 'block 5 is not known to be committed');
});

test('F2: a group without its EPOCH record, applied by settling, then a crash: the block can be read', async () => {
  const { disk, store } = await member();
  const sent = await bytesOf([
    ...epoch1,
    { kind: RECORD_KINDS.WRITE, epoch: 1, seq: 2, first: 5, value: 3 },
    { kind: RECORD_KINDS.WRITE, epoch: 2, seq: 3, commit: [1, 2], first: 5, value: 7 },
  ]);
  const follower = followerOn(disk, store);
  for (const bytes of sent.slice(0, 2)) follower.take({ type: 'RECORD', bytes });
  await turns(20);
  follower.commit({ epoch: 1, seq: 2 });
  await turns(20);
  await store.checkpoint();
  follower.take({ type: 'RECORD', bytes: sent[2]! });
  await turns(20);
  await follower.settle();
  // Killed right behind it: everything that was written is there.
  disk.dead = true;
  const again = await member({ data: disk.files.data, journal: disk.files.journal, meta: disk.files.meta });
  const got = await read(again.disk, again.store, 5);
  assert.ok(got === 3 || got === 7, `block 5 reads as ${got}`);
});

test('F3: "present" that is applied after a later "absent" was appended leaves the bitmap alone', async () => {
  const { disk, store } = await member();
  const config =
    (action: 'absent' | 'present') =>
    (into: Uint8Array): void =>
      encodeConfig({ action, peer: 'b/1', completeAfter: { epoch: 1, seq: 1 } }, into);
  const sent = await bytesOf([
    ...epoch1,
    { kind: RECORD_KINDS.CONFIG, epoch: 1, seq: 2, commit: [1, 1], fill: config('absent') },
    { kind: RECORD_KINDS.CONFIG, epoch: 1, seq: 3, commit: [1, 2], fill: config('present') },
    { kind: RECORD_KINDS.CONFIG, epoch: 1, seq: 4, commit: [1, 2], fill: config('absent') },
    { kind: RECORD_KINDS.WRITE, epoch: 1, seq: 5, commit: [1, 2], first: 9, value: 1 },
  ]);
  const follower = followerOn(disk, store);
  for (const bytes of sent) follower.take({ type: 'RECORD', bytes });
  await turns(20);
  follower.commit({ epoch: 1, seq: 5 });
  await turns(20);
  assert.equal(store.peers.of('b/1')?.bitmap.runs(), [9, 1]);
});

test('F3b: ... and a reintegration that is under way copies every dirty block before it finishes', async () => {
  const { disk, store } = await member();
  await store.update({ epoch: 1 });
  const { SyncSource } = await import('../../src/replication/sync-source.ts');
  let durable = { epoch: 0, seq: 0 };
  const volume = new PrimaryVolume(store, disk.arena, {
    readOnly: false,
    onFailed: () => {},
    group: {
      appended: () => {},
      durable: (p) => (durable = p),
      rightToRead: () => {},
      mayRead: () => false,
      reached: () => {},
      rules: ALL_RULES,
    },
  });
  const config = (action: 'absent' | 'present'): void => {
    const slot = disk.arena.take(1)!;
    encodeConfig({ action, peer: 'b/1', completeAfter: { epoch: 0, seq: 0 } }, slot.payload);
    volume.log(RECORD_KINDS.CONFIG, 0, 1, slot, () => {});
  };
  config('absent');
  config('present'); // b was in sync again for a moment,
  config('absent'); // and fell out: c, slow, has acknowledged none of the two yet
  await turns(10);
  for (let block = 0; block < 400; block += 2) store.peers.of('b/1')!.bitmap.set(block); // what was written since
  const link = new Pipe('b');
  const copied = new Set<number>();
  const sync = new SyncSource({
    store,
    arena: disk.arena,
    volume,
    link,
    peer: 'b/1',
    rules: ALL_RULES,
    pace: new SyncPace(
      DEFAULT_SYNC_RATES,
      () => 0,
      () => 0,
    ),
    others: () => [],
    raised: () => {},
    reached: () => {},
    failed: () => {},
  });
  sync.start();
  await turns(3);
  volume.committed(durable);
  sync.advance();
  for (let i = 0; i < 2000 && !link.sent.some((m) => m.type === 'FINISH'); i++) {
    await turns(1);
    for (const m of link.sent.splice(0)) {
      if (m.type === 'COPY') {
        copied.add(m.firstBlock);
        sync.acknowledged(m.id);
      } else if (m.type === 'FINISH') link.sent.push(m);
    }
    sync.advance();
  }
  assert.is(copied.size, 200, 'dirty blocks copied when FINISH was sent');
});

test('F4: a bitmap that a target begins does not claim what lies before its barrier', async () => {
  const { disk, store } = await member();
  const follower = followerOn(disk, store);
  // 1.5 writes block 4; it is appended at the source, not committed, when the barrier is raised. Then c falls out:
  // it has up to 1.4. Block 4 comes to the target as a copy, once 1.5 is committed without c.
  const config = (into: Uint8Array): void =>
    encodeConfig({ action: 'absent', peer: 'c/1', completeAfter: { epoch: 1, seq: 4 } }, into);
  const other = await member();
  other.store.skipTo({ epoch: 1, seq: 5 });
  const r = record(other.disk.arena, { kind: RECORD_KINDS.CONFIG, epoch: 1, seq: 6, commit: [1, 4], fill: config });
  other.store.append(r);
  follower.take({ type: 'BARRIER', position: { epoch: 1, seq: 5 } });
  follower.take({ type: 'RECORD', bytes: r.bytes!.slice() });
  follower.take({ type: 'COPY', id: 1, firstBlock: 4, blockCount: 1, payload: new Uint8Array(B).fill(9) });
  await turns(20);
  follower.commit({ epoch: 1, seq: 6 });
  await turns(20);
  const of = store.peers.of('c/1')!;
  // As primary it copies everything to c only if completeAfter is above c's last position, 1.4.
  assert.ok(
    of.bitmap.has(4) || of.completeAfter.seq > 4,
    `complete after ${of.completeAfter.epoch}.${of.completeAfter.seq}, bits ${of.bitmap.runs().join()}`,
  );
});

test('F5: two updates that wait for a checkpoint do not run at the same time', async () => {
  const { disk, store } = await member();
  let syncs = 0;
  let most = 0;
  const sync = disk.sync.bind(disk);
  // The first thing that a checkpoint does is a sync of `data`.
  disk.sync = (file, done) => {
    if (file === 'data') {
      syncs++;
      most = Math.max(most, syncs);
    }
    sync(file, (e) => {
      if (file === 'data') syncs--;
      done(e);
    });
  };
  const { replica } = store;
  const all = [
    store.checkpoint(),
    store.update({ replica: { ...replica, state: 'in-sync' } }),
    store.update({ epoch: 7 }),
  ];
  await Promise.all(all);
  assert.is(most, 1, 'checkpoints at the same time');
  assert.is(store.epoch, 7);
});

test('F8: a mark that is not committed is not answered when the primary abdicates', async () => {
  const { disk, store } = await member();
  await store.update({ epoch: 1 });
  const volume = new PrimaryVolume(store, disk.arena, {
    readOnly: false,
    onFailed: () => {},
    group: {
      appended: () => {},
      durable: () => {},
      rightToRead: () => {},
      mayRead: () => false,
      reached: () => {},
      rules: ALL_RULES,
    },
  });
  let answer: HoldfastError | null | 'none' = 'none';
  volume.mark(null, 0, { action: 'set', name: 'm' }, (error) => (answer = error));
  await turns(5);
  volume.close();
  await store.suspectUncommitted();
  volume.abdicate();
  await volume.drain();
  assert.is.not(answer, null, 'answered "done" though it is durable nowhere else');
});

test('F9: extents are not answered without the right to read', async () => {
  const { disk, store } = await member();
  const volume = new PrimaryVolume(store, disk.arena, {
    readOnly: false,
    onFailed: () => {},
    group: {
      appended: () => {},
      durable: () => {},
      rightToRead: () => {},
      mayRead: () => false,
      reached: () => {},
      rules: ALL_RULES,
    },
  });
  let got: unknown = null;
  try {
    got = volume.extents(0, 4 * B, 4);
  } catch {
    got = null;
  }
  assert.is(got, null, 'an isolated primary says what is a hole');
});

test('F12: the session table that comes with FINISH has every request before the barrier', async () => {
  // What the source sends: its table when everything before S0 is committed, as SyncSource.advance does.
  const { disk, store } = await member();
  await store.update({ epoch: 1 });
  let durable = { epoch: 0, seq: 0 };
  const sessions: string[] = [];
  const volume = new PrimaryVolume(store, disk.arena, {
    readOnly: false,
    onFailed: () => {},
    group: {
      appended: () => {},
      durable: (p) => (durable = p),
      rightToRead: () => {},
      mayRead: () => false,
      reached: () => {},
      rules: ALL_RULES,
    },
  });
  const attachment = await new Promise<never>((resolve) =>
    volume.attach(
      9n,
      1,
      null,
      () => {},
      (_e, a) => resolve(a as never),
    ),
  );
  const slot = disk.arena.take(1)!;
  volume.write(attachment, 1, 0, B, slot, false, () => {});
  await turns(10);
  assert.equal(durable, { epoch: 1, seq: 1 });
  const link = new Pipe('b');
  store.peers.begin('b/1', { epoch: 1, seq: 1 });
  const { SyncSource } = await import('../../src/replication/sync-source.ts');
  const sync = new SyncSource({
    store,
    arena: disk.arena,
    volume,
    link,
    peer: 'b/1',
    rules: ALL_RULES,
    pace: new SyncPace(
      DEFAULT_SYNC_RATES,
      () => 0,
      () => 0,
    ),
    others: () => [],
    raised: () => {},
    reached: () => {},
    failed: () => {},
  });
  store.peers.of('b/1')!.bitmap.clearAll(); // the block was copied
  sync.start();
  volume.committed(durable); // as Primary.commit does, which calls advance right behind it
  sync.advance();
  const finish = link.sent.find((m) => m.type === 'FINISH') as Extract<Downstream, { type: 'FINISH' }> | undefined;
  await turns(20);
  if (finish === undefined) {
    sync.advance();
    return;
  }
  void sessions;
  const { SessionTable } = await import('../../src/storage/session-table.ts');
  assert.is(
    SessionTable.decode([...finish.sessions], finish.committed).lookUp(9n, 1),
    'done',
    'request 1 is before S0',
  );
});

test('a record with any byte flipped on its way is refused, takes no memory, and changes nothing', async () => {
  const [opening, good] = await bytesOf([
    ...epoch1,
    { kind: RECORD_KINDS.WRITE, epoch: 1, seq: 2, first: 5, value: 3, fill: (into) => void (into[77] = 9) },
  ]);
  const header = good!.length - B;
  for (const at of [0, 30, 92, 97, 101, header - 1, header, header + 77, good!.length - 1]) {
    const { disk, store } = await member();
    const said: string[] = [];
    const follower = followerOn(disk, store, said);
    follower.take({ type: 'RECORD', bytes: opening! });
    await turns(20);
    const inUse = disk.arena.slotsInUse;
    const bad = good!.slice();
    bad[at]! ^= 0x10;
    follower.take({ type: 'RECORD', bytes: bad });
    await turns(20);
    assert.match(said.at(-1) ?? '', /^refused .*does not verify/, `byte ${at} of ${bad.length}`);
    assert.is(disk.arena.slotsInUse, inUse, `byte ${at}`);
    assert.equal(store.lastPosition, { epoch: 1, seq: 1 });
  }
});

test.run();
