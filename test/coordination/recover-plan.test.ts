/** Which replicas count as in sync when the registers are lost, by what the disks say; and what is named as a risk. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { type Found, planAll, planRecovery } from '../../src/cli/recover-plan.ts';
import type { ReplicaStatus } from '../../src/node/hosted-volume.ts';

const replica = (changes: Partial<ReplicaStatus>): ReplicaStatus => ({
  volume: 'v',
  volumeId: '1'.repeat(32),
  diskId: '2'.repeat(32),
  dir: '/v',
  kind: 'block',
  sizeBytes: 1 << 20,
  capacityBytes: 1 << 20,
  role: 'idle',
  serving: false,
  state: 'in-sync',
  health: 'good',
  healthReason: '',
  failed: null,
  epoch: 5,
  last: '5.10',
  committed: '5.10',
  outOfSpace: false,
  backupReads: 0,
  copiedBytes: 0,
  registerId: '3'.repeat(32),
  registerVersion: 7,
  members: ['a', 'b'],
  scrub: null,
  repairedBlocks: 0,
  waits: null,
  kv: null,
  peers: [],
  ...changes,
});

const on = (node: string, changes: Partial<ReplicaStatus> = {}): Found => ({
  node,
  address: `${node}:7441`,
  clientAddress: `${node}:7401`,
  replica: replica(changes),
});

const test = suite('recovery of registers: the plan');

test('equal disks are all in sync, in an epoch above theirs', () => {
  const { inSync, epoch, risks } = planRecovery([on('b'), on('a')]);
  assert.equal(inSync, ['a', 'b']);
  assert.is(epoch, 6);
  assert.equal(risks, []);
});

test('the larger size counts: who was away when the volume grew has not heard of it', () => {
  const grown = { sizeBytes: 2 << 20, capacityBytes: 2 << 20 };
  assert.is(planRecovery([on('a'), on('b', grown)]).sizeBytes, 2 << 20);
  assert.is(planRecovery([on('a', grown), on('b')]).sizeBytes, 2 << 20);
});

test('the log that reaches farther counts, by number and not by its letters', () => {
  assert.equal(planRecovery([on('a', { last: '5.9' }), on('b')]).inSync, ['b']);
  assert.equal(planRecovery([on('a', { last: '5.10' }), on('b', { last: '4.99' })]).inSync, ['a']);
});

test('a later epoch beats a longer log', () => {
  const plan = planRecovery([on('a', { epoch: 5, last: '5.100' }), on('b', { epoch: 6, last: '5.90' })]);
  assert.equal(plan.inSync, ['b']);
  assert.is(plan.epoch, 7);
  assert.equal(plan.risks, []);
});

test('what is not whole is not in sync, whatever it has', () => {
  for (const changes of [{ state: 'syncing' }, { health: 'damaged' }, { failed: 'fdatasync' }]) {
    const { inSync, risks } = planRecovery([on('a', { ...changes, last: '5.99' }), on('b')]);
    assert.equal(inSync, ['b']);
    assert.equal(risks, []);
  }
  const none = planRecovery([on('a', { state: 'syncing' }), on('b', { health: 'damaged' })]);
  assert.equal(none.inSync, []);
  assert.match(none.risks.join(), /none of the replicas is whole/);
});

test('an epoch of which only a target is left: its primary had more', () => {
  const { inSync, epoch, risks } = planRecovery([on('a', { epoch: 6, state: 'syncing' }), on('b')]);
  assert.equal(inSync, ['b']);
  assert.is(epoch, 7);
  assert.match(risks.join(), /epoch 6 has begun/);
});

test('members that nobody asked are missed', () => {
  const { risks } = planRecovery([on('a', { members: ['a', 'b', 'c'] }), on('b')]);
  assert.is(risks.length, 1);
  assert.match(risks[0]!, /c was a member/);
  assert.match(planRecovery([on('a', { members: ['a'] })]).risks.join(), /only a has a replica/);
});

test('volumes are told apart by their ids', () => {
  const plans = planAll([on('a'), on('a', { volumeId: '4'.repeat(32), volume: 'w' }), on('b')]);
  assert.equal(
    plans.map(({ volume, inSync }) => [volume, inSync.join()]),
    [
      ['v', 'a,b'],
      ['w', 'a'],
    ],
  );
});

test.run();
