/** What a second review found: grants of members that are gone. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { PrimaryVolume } from '../../src/replication/primary-volume.ts';
import { Replica } from '../../src/replication/replica.ts';
import type { GroupRegister } from '../../src/replication/group-register.ts';
import type { SimulatedDisk } from '../support/simulated-disk.ts';
import type { BlockStore } from '../../src/storage/block-store.ts';
import { turns } from '../support/unit-tools.ts';
import { B, member, portsOf, alone, Pipe } from '../support/core-harness.ts';

const test = suite('replication: second review, grants');

const three: GroupRegister = {
  ...alone,
  inSync: ['a', 'b', 'c'],
  members: ['a', 'b', 'c'].map((node) => ({ node, diskId: '64'.repeat(16) })),
};

interface Served {
  replica: Replica;
  volume: PrimaryVolume;
  disk: SimulatedDisk;
  store: BlockStore;
  register: GroupRegister;
  p: ReturnType<typeof portsOf>;
  b: Pipe;
  c: Pipe;
  tick: (ms: number) => void;
}

/** a is primary and serves, b and c are in sync and have promised; b holds a grant of some hundred milliseconds. */
async function granted(): Promise<Served> {
  const { disk, store } = await member();
  let volume = null as PrimaryVolume | null;
  const p = portsOf([], (v) => (volume = v));
  const replica = new Replica({ node: 'a', store, arena: disk.arena, ports: p.ports });
  p.clock.nowMs = 2000;
  replica.learn(three);
  const cas = p.cas.shift()!;
  const register = { ...cas.next, version: 2 };
  replica.casSettled(cas.token, { outcome: 'done', register });
  await turns(40);
  const links = ['b', 'c'].map((node) => new Pipe(node));
  const nowhere = { epoch: 0, seq: 0 };
  for (const link of links) {
    replica.connected(link);
    replica.received(link, {
      type: 'STATUS',
      epoch: 1,
      diskId: '64'.repeat(16),
      state: 'in-sync',
      base: nowhere,
      last: nowhere,
      suspects: [],
    });
  }
  await turns(20);
  for (const link of links) replica.received(link, { type: 'ACK', position: store.lastPosition });
  await turns(20);
  assert.ok(volume, 'the epoch is open');
  const tick = (ms: number): void => {
    p.clock.nowMs += ms;
    replica.tick();
  };
  tick(100);
  for (const link of links) {
    const beat = link.sent.findLast((m) => m.type === 'BEAT');
    assert.ok(beat?.type === 'BEAT');
    replica.received(link, { type: 'ECHO', n: beat.n, promiseMs: 500 });
  }
  replica.received(links[0]!, { type: 'ASK', n: 1 });
  const grant = links[0]!.sent.findLast((m) => m.type === 'GRANT');
  assert.ok(grant?.type === 'GRANT' && grant.ms > 400, 'b may answer reads');
  return { replica, volume: volume!, disk, store, register, p, b: links[0]!, c: links[1]!, tick };
}

test('R5: a primary that stops says so only when the grant of a member that it removed has run out', async () => {
  const { replica, b, c, p, register } = await granted();
  // The stream of b breaks at this end; b has not noticed.
  replica.closed('b', b);
  const cas = p.cas.shift()!;
  assert.equal(cas.next.inSync, ['a', 'c']);
  replica.casSettled(cas.token, { outcome: 'done', register: { ...cas.next, version: register.version + 1 } });
  const never = new Promise<void>(() => {});
  let over = false;
  void replica.resign(never).then(() => (over = true));
  await turns(40);
  const said = c.sent.some(({ type }) => type === 'RESIGNED');
  // c may promote itself at once, alone, and commit, while b answers reads by its grant.
  assert.not.ok(said, `c was told, ${over ? 'the primary is gone' : ''}, and b answers reads for another 400 ms`);
});

test('R5b: nothing is committed without a member that is no member any more before its grant has run out', async () => {
  const { replica, volume, store, disk, c, tick, register } = await granted();
  let answered = false;
  const slot = disk.arena.take(1)!;
  // holdfast volume remove-replica: out of inSync and of the members at once.
  replica.learn({
    ...register,
    version: register.version + 1,
    inSync: ['a', 'c'],
    members: register.members.filter(({ node }) => node !== 'b'),
  });
  volume.write(null, 0, 0, B, slot, false, () => (answered = true));
  await turns(40);
  replica.received(c, { type: 'ACK', position: store.lastPosition });
  tick(20);
  await turns(20);
  replica.received(c, { type: 'ACK', position: store.lastPosition });
  await turns(5);
  assert.not.ok(answered, 'a write is answered without b, which answers reads by its grant');
});

test.run();
