/** A volume whose primary changes: real servers, and ways to them that fall silent. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { connect, type ConnectOptions, list, ping, type Volume } from '../../src/client/index.ts';
import { Server } from '../../src/node/server.ts';
import { rejectsWith, sameBytes } from '../contract/block-device.ts';
import { SmallCluster } from '../support/small-cluster.ts';
import { until } from '../support/until.ts';

const failover = suite('client: failover');

interface Told {
  moved: Array<[from: string, to: string]>;
  lost: number;
}

function on(
  title: string,
  options: ConnectOptions & { nodes?: number },
  body: (cluster: SmallCluster, volume: Volume, told: Told) => Promise<void>,
): void {
  failover(title, async () => {
    const { nodes = 2, ...others } = options;
    const cluster = await SmallCluster.start(nodes, 'shared');
    const told: Told = { moved: [], lost: 0 };
    const events = {
      moved: (from: string, to: string) => void told.moved.push([from, to]),
      lost: () => void told.lost++,
    };
    // Never more than the address of one node.
    const volume = await connect(cluster.url(cluster.nodes[0]!), { retryMs: 20_000, events, ...others });
    try {
      await body(cluster, volume, told);
    } finally {
      await cluster.close();
      await volume.close();
    }
  });
}

const block = (value: number): Uint8Array => new Uint8Array(4096).fill(value);

on('the primary dies: the call goes on at an address that was only told', {}, async (cluster, volume, told) => {
  const [first, second] = cluster.nodes;
  await volume.write(0, block(1));
  await first!.proxy.close();
  cluster.promote(second!);
  await volume.write(0, block(2));
  sameBytes(await volume.read(0, 4096), block(2));
  assert.equal(told, { moved: [[first!.proxy.address, second!.proxy.address]], lost: 1 });
});

on('the primary hands over: NOT_PRIMARY leads to the new one', { connections: 3 }, async (cluster, volume, told) => {
  const [first, second] = cluster.nodes;
  await volume.write(0, block(1));
  cluster.promote(second!);
  // Only who asks the old one for its volume is told.
  first!.proxy.drop();
  await Promise.all(Array.from({ length: 9 }, (_, i) => volume.write(i * 4096, block(2))));
  assert.equal(told.moved, [[first!.proxy.address, second!.proxy.address]]);
  assert.ok(first!.attaches.primary <= 6, `${first!.attaches.primary} ATTACHes at the old primary`);
});

failover('a backup is asked first, and names the primary', async () => {
  const cluster = await SmallCluster.start(3, 'shared');
  const [first, second, third] = cluster.nodes;
  const volume = await connect(cluster.url(third!));
  await volume.write(0, block(1));
  assert.equal(
    [first!, second!, third!].map((node) => node.attaches.primary),
    [1, 0, 1],
  );
  assert.is((await list(cluster.url(third!))).length, 0);
  assert.ok((await ping(cluster.url(second!))) >= 0);
  await volume.close();
  await cluster.close();
});

for (const connections of [1, 3]) {
  on(
    `the primary falls silent and another takes over, ${connections} connection(s): nothing is executed twice`,
    // Nothing but the suspicion may find it out.
    { connections, nodes: 3, idleTimeoutMs: 1_000_000, handshakeTimeoutMs: 1_000_000 },
    async (cluster, volume, told) => {
      const [first, , third] = cluster.nodes;
      await volume.write(0, block(1));
      const before = cluster.executed;
      const writes: Array<Promise<void>> = [];
      for (let i = 0; i < 30; i++) writes.push(volume.write(i * 4096, block(i)));
      // Those that got through are executed, and nobody is told.
      await until(() => cluster.executed > before, 'the first of the writes');
      first!.proxy.fallSilent();
      for (let i = 30; i < 60; i++) writes.push(volume.write(i * 4096, block(i)));
      cluster.promote(third!);
      await Promise.all(writes);
      assert.is(cluster.executed, before + 60);
      for (let i = 0; i < 60; i++) sameBytes(await volume.read(i * 4096, 4096), block(i));
      assert.equal(told.moved, [[first!.proxy.address, third!.proxy.address]]);
    },
  );
}

on(
  'a primary that is only slow is not left, and a node that lives in the past leads nobody astray',
  { suspectMs: 50, nodes: 3 },
  async (cluster, volume, told) => {
    const [first, second, third] = cluster.nodes;
    await volume.write(0, block(1));
    await until(() => third!.connectionCount === 0, 'nobody there');
    const asked = second!.proxy.accepted;
    third!.knows = { ...cluster.location, epoch: 1, primary: 'n3', primaryAddress: third!.proxy.address };
    first!.readsStick = true;
    const given = new AbortController();
    const read = volume.read(0, 4096, { signal: given.signal });
    await until(() => second!.proxy.accepted >= asked + 3, 'several questions');
    given.abort();
    await rejectsWith('ABORTED', () => read);
    assert.equal(told, { moved: [], lost: 0 });
    await volume.write(0, block(2));
  },
);

failover('a node that swallows everything does not hold up a connect by another one', async () => {
  const cluster = await SmallCluster.start(2, 'shared');
  const [first, second] = cluster.nodes;
  cluster.promote(second!);
  first!.proxy.fallSilent();
  const both = `holdfast://${first!.proxy.address},${second!.proxy.address}/sim`;
  // Far longer than the test may take.
  const patient = { connectMs: 1_000_000, handshakeTimeoutMs: 1_000_000 };
  const volume = await connect(both, patient);
  assert.ok((await ping(both, patient)) >= 0);
  await list(both, patient);
  await volume.write(0, block(1));
  sameBytes(await volume.read(0, 4096), block(1));
  await volume.close();
  await until(() => second!.connectionCount === 0, 'the end of every link');
  await cluster.close();
});

on('no primary for a while: a bounded number of attempts, then on', { nodes: 2 }, async (cluster, volume) => {
  const [first, second] = cluster.nodes;
  await volume.write(0, block(1));
  const old = cluster.location;
  // Each sends its clients to the other one.
  first!.knows = { ...old, epoch: 7, primary: 'n2', primaryAddress: second!.proxy.address };
  second!.knows = { ...old, epoch: 7, primary: 'n1', primaryAddress: first!.proxy.address };
  cluster.location = { ...old, epoch: 8, primary: '' };
  const before = first!.attaches.primary + second!.attaches.primary;
  const beganMs = performance.now();
  first!.proxy.drop();
  const write = volume.write(0, block(2));
  const attaches = (): number => first!.attaches.primary + second!.attaches.primary - before;
  await until(() => attaches() >= 12, 'some rounds');
  // Two nodes a round, and at least 20 ms before each.
  const rounds = Math.floor((performance.now() - beganMs) / 20) + 1;
  assert.ok(attaches() <= 2 * rounds, `${attaches()} attempts in ${rounds} pauses`);
  first!.knows = second!.knows = null;
  cluster.promote(second!);
  await write;
  sameBytes(await volume.read(0, 4096), block(2));
});

failover('a node that does not know the volume is passed over, unless there is no other', async () => {
  const cluster = await SmallCluster.start(1, 'shared');
  const stranger = new Server({ arena: cluster.nodes[0]!.arena });
  const elsewhere = await stranger.listen('127.0.0.1:0');
  const volume = await connect(`holdfast://${elsewhere},${cluster.nodes[0]!.proxy.address}/sim`);
  await volume.write(0, block(1));
  await volume.close();
  await rejectsWith('NO_SUCH_VOLUME', () => connect(`holdfast://${elsewhere}/sim`));
  await stranger.close();
  await cluster.close();
});

failover.run();
