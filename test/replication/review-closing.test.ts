/** What a second review found: things that wait for ever, or run out. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { HoldfastError } from '../../src/base/errors.ts';
import { Arena } from '../../src/storage/arena.ts';
import { layoutOf } from '../../src/storage/layout.ts';
import { formatStore, openStore } from '../../src/storage/open-store.ts';
import { PrimaryVolume } from '../../src/replication/primary-volume.ts';
import { Replica } from '../../src/replication/replica.ts';
import { SimulatedDisk } from '../support/simulated-disk.ts';
import { turns } from '../support/unit-tools.ts';
import { B, MiB, VOLUME, member, portsOf, alone } from '../support/core-harness.ts';

const test = suite('replication: second review, closing');

test('R6: a replica whose sparse disk is full can be stopped', async () => {
  const layout = layoutOf(2 * MiB, 4 * MiB);
  const sizes = { data: layout.sizeBytes, journal: layout.journalBytes, meta: layout.metaBytes };
  const disk = new SimulatedDisk(SimulatedDisk.blank(sizes), 1, new Arena(24 * MiB));
  const nowhere = { epoch: 0, seq: 0 };
  await formatStore(disk, {
    volumeId: VOLUME,
    diskId: Uint8Array.from({ length: 16 }, () => 0x64),
    name: 'sim',
    sizeBytes: 2 * MiB,
    journalBytes: 4 * MiB,
    createdAtMs: 0,
    sparse: true,
    durable: true,
    replica: { state: 'in-sync', base: nowhere, groupEpoch: 0, registerId: new Uint8Array(16), registerVersion: 0 },
  });
  const { store } = await openStore(disk, { sizes, defer: setImmediate, where: 'sim' });
  let volume = null as PrimaryVolume | null;
  const p = portsOf([], (v) => (volume = v));
  const replica = new Replica({ node: 'a', store, arena: disk.arena, ports: p.ports });
  p.clock.nowMs = 2000;
  replica.learn(alone);
  const { token, next } = p.cas[0]!;
  replica.casSettled(token, { outcome: 'done', register: { ...next, version: 2 } });
  await turns(60);
  assert.ok(volume, 'it serves');
  const write = disk.write.bind(disk);
  disk.write = (file, from, at, done) => {
    if (file !== 'data') return write(file, from, at, done);
    setImmediate(() => done(new HoldfastError('NO_SPACE', { operation: 'write of data' })));
  };
  let answered = false;
  volume!.write(null, 0, 0, B, disk.arena.take(1)!, false, () => (answered = true));
  await turns(30);
  assert.ok(answered && store.outOfSpace, 'it is in the journal, and waits for space');
  // As HostedVolume does it: nobody calls `retryParked` once it is closing, and it would not help.
  await replica.resign(Promise.resolve());
  let stopped = false;
  void replica.stopped().then(() => (stopped = true));
  await turns(300);
  assert.ok(stopped, 'it waits for space for ever: the node never ends');
});

test('R7: a node may be primary of as many volumes as it may host', async () => {
  // As many as a node hosts (MAX_VOLUMES), in the memory that it has (io-pool.ts).
  const arena = new Arena(96 * MiB);
  const { store } = await member();
  let made = 0;
  try {
    for (; made < 256; made++) new PrimaryVolume(store, arena, { readOnly: false, onFailed: () => {} });
  } catch (error) {
    assert.unreachable(`primary number ${made + 1}: ${(error as Error).message}`);
  }
  assert.ok(arena.take(1) !== null, 'there is no slot left for a request of one block');
});

test('R7b: a replica that wins an epoch while clients of other volumes hold the memory becomes primary when it is back', async () => {
  const { disk, store } = await member();
  let volume = null as PrimaryVolume | null;
  const p = portsOf([], (v) => (volume = v));
  const arena = new Arena(4 * MiB);
  const replica = new Replica({ node: 'a', store, arena, peerArena: disk.arena, ports: p.ports });
  p.clock.nowMs = 2000;
  // What a few connections with 4 KiB requests take.
  const held: Array<NonNullable<ReturnType<Arena['take']>>> = [];
  for (let slot = arena.take(1); slot !== null; slot = arena.take(1)) held.push(slot);
  replica.learn(alone);
  const { token, next } = p.cas[0]!;
  replica.casSettled(token, { outcome: 'done', register: { ...next, version: 2 } });
  await turns(60);
  for (const slot of held) arena.release(slot);
  for (let i = 0; i < 100 && volume === null; i++) {
    p.clock.nowMs += 20;
    replica.tick();
    await turns(3);
  }
  assert.ok(volume, `it is ${replica.role}`);
});

test.run();
