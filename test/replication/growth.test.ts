/**
 * Replicas whose disks have room for different numbers of blocks, as while a volume grows: whoever has less is brought in
 * sync all the same, takes nothing that lies behind its end, and does not become primary of a volume that is larger.
 */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { BLOCK_BYTES } from '../../src/base/units.ts';
import { Cluster } from '../simulation/cluster.ts';
import type { SimNode } from '../simulation/sim-node.ts';
import { World } from '../simulation/world.ts';
import { enlargedImage } from '../support/enlarged-image.ts';
import { BLOCKS, type Group, counted, onDisk, read, until, write } from '../support/sim-group.ts';

const test = suite('replication: growth');
const ROOM = 96;

/** Both have block n full of n + 1; those that are named have room for more. */
async function groupWith(roomy: string[], seed: number): Promise<Group> {
  const world = new World(seed);
  const cluster = await Cluster.make(world, ['a', 'b'], BLOCKS);
  for (const name of roomy)
    cluster.node(name).image = await enlargedImage(cluster.node(name).image, ROOM * BLOCK_BYTES);
  cluster.register.current.sizeBytes = BLOCKS * BLOCK_BYTES;
  // So that it is primary.
  cluster.node('a').boot();
  await until(world, 'a is up', () => cluster.node('a').store !== null);
  await world.run(world.nowMs + 50);
  cluster.node('b').boot();
  await until(world, 'served', () => cluster.primary !== undefined, 9000);
  const primary = cluster.primary!;
  const group: Group = { world, cluster, primary, backups: cluster.nodes.filter((node) => node !== primary) };
  for (let block = 0; block < BLOCKS; block++) {
    assert.is(await write(group, block * BLOCK_BYTES, BLOCK_BYTES, block + 1), null);
  }
  return group;
}

const inSync = ({ cluster }: Group, node: SimNode): boolean => cluster.register.current.inSync.includes(node.name);

test('a member with less room than the primary is brought in sync from nothing', async () => {
  for (const roomy of [['a'], ['b']]) {
    const group = await groupWith(roomy, 3);
    const { world, primary, cluster } = group;
    const [backup] = group.backups as [SimNode];
    backup.crash(false);
    await until(world, 'it is out', () => !inSync(group, backup), 9000);
    assert.is(await write(group, 0, BLOCK_BYTES, 77), null);
    // As if nothing were known of it.
    const { peers } = primary.store!;
    peers.of(peers.peers[0]!)!.bitmap.setAll();
    backup.boot();
    await until(world, 'it is in sync again', () => inSync(group, backup), 20_000);
    assert.is(cluster.wrong, null);
    assert.equal(await read(group, backup, 0, 3), [77, ...counted(1, 2)]);
    assert.is(backup.store!.blocks, BLOCKS);
    assert.is(await write(group, BLOCKS * BLOCK_BYTES, BLOCK_BYTES, 1), 'OUT_OF_RANGE', 'whatever room there is');
  }
});

test('with room everywhere a larger size is taken, survives a failover, and what lies behind the old end too', async () => {
  const group = await groupWith(['a', 'b'], 5);
  const { world, cluster, primary } = group;
  const [backup] = group.backups as [SimNode];
  cluster.register.current = {
    ...cluster.register.current,
    version: cluster.register.current.version + 1,
    sizeBytes: ROOM * BLOCK_BYTES,
  };
  // As node/volume-size.ts does when it hears of it; the backup has not heard yet.
  let told = false;
  void primary.store!.update({ sizeBytes: ROOM * BLOCK_BYTES }).then(() => (told = true));
  await until(world, 'the new size is durable', () => told);
  assert.is(await write(group, (ROOM - 1) * BLOCK_BYTES, BLOCK_BYTES, 99), null);
  assert.is(backup.store!.blocks, BLOCKS);
  assert.equal(await read(group, backup, ROOM - 2, 2), [0, 99], 'read at the backup');
  primary.crash(false);
  await until(world, 'another one serves', () => backup.volume !== null, 20_000);
  assert.is(backup.store!.blocks, ROOM, 'it serves nothing before it knows the size');
  const after: Group = { ...group, primary: backup, backups: [] };
  assert.equal(await read(after, backup, ROOM - 2, 2), [0, 99]);
  assert.is(await write(after, BLOCKS * BLOCK_BYTES, BLOCK_BYTES, 98), null);
  assert.is(cluster.wrong, null);
});

test('a member without the room refuses what lies behind its end, and never serves a volume that is larger', async () => {
  const group = await groupWith(['a'], 7);
  const { world, cluster, primary } = group;
  if (primary.name !== 'a') return assert.unreachable('a begins');
  const [backup] = group.backups as [SimNode];
  // What `volume grow` never does: the size is raised before b has room.
  let told = false;
  void primary.store!.update({ sizeBytes: ROOM * BLOCK_BYTES }).then(() => (told = true));
  await until(world, 'the new size is durable', () => told);
  assert.is(await write(group, (ROOM - 1) * BLOCK_BYTES, BLOCK_BYTES, 99), null, 'acknowledged without it');
  assert.not.ok(inSync(group, backup));
  assert.is(onDisk(primary, ROOM - 1), 99);
  assert.is(backup.disk!.files.data.length, BLOCKS * BLOCK_BYTES, 'nothing was written behind its end');

  const { current } = cluster.register;
  primary.crash(false);
  cluster.register.current = {
    ...current,
    version: current.version + 1,
    inSync: ['a', 'b'],
    sizeBytes: ROOM * BLOCK_BYTES,
  };
  await world.run(world.nowMs + 10_000);
  assert.is(backup.volume, null);
  assert.is(cluster.register.current.primary, 'a', 'it has not even asked');
  assert.is(backup.store!.blocks, BLOCKS);
});

test.run();
