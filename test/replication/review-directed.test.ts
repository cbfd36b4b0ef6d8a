/** What a second review found: directed runs of the simulated cluster. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { BLOCK_BYTES } from '../../src/base/units.ts';
import { Cluster } from '../simulation/cluster.ts';
import type { SimNode } from '../simulation/sim-node.ts';
import { World } from '../simulation/world.ts';

const BLOCKS = 24;
const test = suite('replication: second review, directed');

async function until(world: World, ms: number, what: string, is: () => boolean): Promise<void> {
  const endMs = world.nowMs + ms;
  while (!is() && world.nowMs < endMs) await world.run(world.nowMs + 10);
  if (!is()) throw new Error(`${what}\n${world.log.slice(-60).join('\n')}`);
}

const primaryOf = (cluster: Cluster): SimNode | undefined => cluster.nodes.find(({ volume }) => volume !== null);

async function write(world: World, node: SimNode, block: number, value: number): Promise<void> {
  let done: unknown = 'not answered';
  const slot = node.disk!.arena.take(1)!;
  slot.payload.fill(value);
  node.volume!.write(null, 0, block * BLOCK_BYTES, BLOCK_BYTES, slot, false, (error) => (done = error));
  await until(world, 5000, `the write of ${value} to block ${block} is answered`, () => done !== 'not answered');
  assert.is(done, null);
}

const byteOf = async (world: World, node: SimNode, block: number): Promise<number> => {
  let value = -1;
  const slot = node.disk!.arena.take(1)!;
  node.store!.readBlocks(block, 1, slot, (error) => {
    value = error === null ? slot.payload[0]! : -2;
    node.disk!.arena.release(slot);
  });
  await until(world, 1000, 'a block is read', () => value !== -1);
  return value;
};

async function equal(world: World, one: SimNode, other: SimNode): Promise<void> {
  const differ: string[] = [];
  for (let block = 0; block < 24; block++) {
    const [a, b] = [await byteOf(world, one, block), await byteOf(world, other, block)];
    if (a !== b) differ.push(`block ${block}: ${one.name} has ${a}, ${other.name} has ${b}`);
  }
  assert.equal(differ, [], `two replicas in sync differ\n${world.log.join('\n')}`);
}

const allInSync = (cluster: Cluster): boolean => cluster.register.current.inSync.length === cluster.nodes.length;

test('R3: after a promotion by force the former members become equal to the one that was promoted', async () => {
  const world = new World(1);
  const cluster = await Cluster.make(world, ['a', 'b'], BLOCKS);
  for (const node of cluster.nodes) node.boot();
  await until(world, 9000, 'served', () => primaryOf(cluster) !== undefined);
  const [a, b] = primaryOf(cluster)!.name === 'a' ? cluster.nodes : [...cluster.nodes].reverse();
  await write(world, a!, 1, 1);
  // b falls out; what is acknowledged now lies on a alone.
  b!.crash(false);
  await write(world, a!, 2, 2);
  await write(world, a!, 3, 3);
  assert.equal(cluster.register.current.inSync, [a!.name]);
  // The last copy in sync is lost, as it seems: what b has is to count (holdfast volume promote --force).
  await world.run(world.nowMs + 500);
  a!.crash(false);
  b!.boot();
  await until(world, 5000, 'b has started', () => b!.store !== null);
  const now = cluster.register.current;
  assert.is(b!.store!.replica.state, 'in-sync');
  cluster.register.current = {
    ...now,
    version: now.version + 1,
    inSync: [b!.name],
    primary: '',
    epoch: Math.max(now.epoch, b!.store!.epoch) + 1,
  };
  await until(world, 9000, 'b is primary', () => b!.volume !== null);
  await write(world, b!, 4, 4);
  // It comes back all the same: "what lies on the others will be overwritten when they come back".
  a!.boot();
  await until(world, 20_000, 'a is in sync again', () => allInSync(cluster));
  await world.run(world.nowMs + 1000);
  await equal(world, a!, b!);
});

test('R4: a disk that was taken out of the members and comes back is brought in sync as a whole', async () => {
  const world = new World(2);
  const cluster = await Cluster.make(world, ['a', 'b', 'c'], BLOCKS);
  for (const node of cluster.nodes) node.boot();
  await until(world, 9000, 'served', () => primaryOf(cluster) !== undefined);
  await until(world, 9000, 'all in sync', () => allInSync(cluster));
  const first = primaryOf(cluster)!;
  const [second, third] = cluster.nodes.filter((node) => node !== first);
  await write(world, first, 1, 1);
  // One member is started anew and brought back: its stream begins somewhere.
  second!.crash(false);
  await write(world, first, 2, 2);
  second!.boot();
  await until(world, 20_000, 'all in sync', () => allInSync(cluster));
  await write(world, first, 3, 3);
  await world.run(world.nowMs + 500);
  // It becomes primary, the others are in sync.
  void first.stop();
  await until(
    world,
    9000,
    'another one serves',
    () => primaryOf(cluster) !== undefined && primaryOf(cluster) !== first,
  );
  if (primaryOf(cluster) !== second) return retry();
  await run();

  async function retry(): Promise<void> {
    first.boot();
    await until(world, 20_000, 'all in sync', () => allInSync(cluster));
    void third!.stop();
    await until(world, 9000, 'the second serves', () => second!.volume !== null);
    third!.boot();
    await until(world, 20_000, 'all in sync', () => allInSync(cluster));
    await run(first);
  }

  async function run(out: SimNode = third!): Promise<void> {
    if (!first.up) first.boot();
    await until(world, 20_000, 'all in sync', () => allInSync(cluster));
    assert.is(primaryOf(cluster), second);
    await world.run(world.nowMs + 500);
    // holdfast volume remove-replica, while that node is not reached: the replica stays where it is.
    out.crash(false);
    await until(world, 9000, 'it is out', () => !cluster.register.current.inSync.includes(out.name));
    const member = cluster.register.current.members.find(({ node }) => node === out.name)!;
    const without = cluster.register.current;
    cluster.register.current = {
      ...without,
      version: without.version + 1,
      members: without.members.filter(({ node }) => node !== out.name),
    };
    await world.run(world.nowMs + 3000);
    await write(world, second!, 5, 5);
    await write(world, second!, 6, 6);
    // holdfast volume add-replica finds it there, and takes it.
    out.boot();
    await world.run(world.nowMs + 1000);
    const now = cluster.register.current;
    cluster.register.current = { ...now, version: now.version + 1, members: [...now.members, member] };
    await until(world, 20_000, 'all in sync', () => allInSync(cluster));
    await world.run(world.nowMs + 1000);
    await equal(world, second!, out);
  }
});

test('R4b: nodes with names of 31 characters: a member that was away gets what it missed', async () => {
  const world = new World(3);
  const long = (name: string): string => `${name}.storage.eu-central-1.intern`;
  const cluster = await Cluster.make(world, ['a', 'b', 'c'].map(long), BLOCKS);
  for (const node of cluster.nodes) node.boot();
  await until(world, 9000, 'served', () => primaryOf(cluster) !== undefined);
  const first = primaryOf(cluster)!;
  const others = cluster.nodes.filter((node) => node !== first);
  await write(world, first, 1, 1);
  // Both others are started anew, one after the other, and brought back: a rolling restart.
  for (const node of others) {
    node.crash(false);
    await write(world, first, 2, 2);
    node.boot();
    await until(world, 20_000, 'all in sync', () => allInSync(cluster));
  }
  await world.run(world.nowMs + 500);
  // Then the primary, in good order.
  void first.stop();
  await until(
    world,
    9000,
    'another one serves',
    () => primaryOf(cluster) !== undefined && primaryOf(cluster) !== first,
  );
  const second = primaryOf(cluster)!;
  await write(world, second, 5, 5);
  await write(world, second, 6, 6);
  first.boot();
  await until(world, 20_000, 'all in sync', () => allInSync(cluster));
  await world.run(world.nowMs + 1000);
  await equal(world, second, first);
});

test('R8: a block that cannot be read at the source does not keep the rest from being copied, nor the source busy', async () => {
  const world = new World(4);
  const cluster = await Cluster.make(world, ['a', 'b'], BLOCKS);
  for (const node of cluster.nodes) node.boot();
  await until(world, 9000, 'served', () => primaryOf(cluster) !== undefined);
  const a = primaryOf(cluster)!;
  const b = cluster.nodes.find((node) => node !== a)!;
  await write(world, a, 1, 1);
  b.crash(false);
  await write(world, a, 2, 2);
  await write(world, a, 3, 3);
  await world.run(world.nowMs + 200);
  // One rotten block.
  a.disk!.files.data.fill(9, 2 * BLOCK_BYTES, 2 * BLOCK_BYTES + 10);
  const id = a.store!.peers.peers[0]!;
  b.boot();
  await until(
    world,
    60_000,
    'the other blocks are copied',
    () => a.store!.peers.of(id)!.bitmap.runs().join() === '2,1',
  );
  const before = world.log.filter((line) => line.includes('reintegration begins')).length;
  await world.run(world.nowMs + 30_000);
  const attempts = world.log.filter((line) => line.includes('reintegration begins')).length - before;
  assert.ok(attempts <= 4, `${attempts} attempts in 30 s`);
  assert.is(allInSync(cluster), false, 'it is not said to be in sync without that block');
  // Written anew, it can be read.
  await write(world, a, 2, 5);
  await until(world, 60_000, 'all in sync', () => allInSync(cluster));
  await world.run(world.nowMs + 1000);
  await equal(world, a, b);
});

test.run();
