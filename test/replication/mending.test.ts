/** Blocks that rot under a running group: nobody reads them wrong, nobody is refused them, and they are mended. */
import * as assert from 'uvu/assert';
import { suite } from 'uvu';
import { BLOCK_BYTES } from '../../src/base/units.ts';
import type { HoldfastError } from '../../src/base/errors.ts';
import { Cluster } from '../simulation/cluster.ts';
import type { SimNode } from '../simulation/sim-node.ts';
import { World } from '../simulation/world.ts';

const BLOCKS = 64;
const test = suite('mending of rotten blocks');

interface Group {
  world: World;
  cluster: Cluster;
  primary: SimNode;
  backups: SimNode[];
}

async function until(world: World, what: string, is: () => boolean, ms = 5000): Promise<void> {
  const endMs = world.nowMs + ms;
  while (!is() && world.nowMs < endMs) await world.run(world.nowMs + 5);
  if (!is()) throw new Error(`${what}\n${world.log.slice(-40).join('\n')}`);
}

/** A group that serves, with block n full of n + 1. */
async function group(names: string[], seed = 1): Promise<Group> {
  const world = new World(seed);
  const cluster = await Cluster.make(world, names, BLOCKS);
  for (const node of cluster.nodes) node.boot();
  await until(world, 'served', () => cluster.nodes.some(({ volume }) => volume !== null), 9000);
  const primary = cluster.nodes.find(({ volume }) => volume !== null)!;
  const all: Group = { world, cluster, primary, backups: cluster.nodes.filter((node) => node !== primary) };
  for (let block = 0; block < BLOCKS; block++)
    assert.is(await write(all, block * BLOCK_BYTES, BLOCK_BYTES, block + 1), null);
  await until(world, 'applied everywhere', () =>
    cluster.nodes.every(({ store }) => store!.settledPosition.seq === primary.store!.lastPosition.seq),
  );
  return all;
}

async function write({ world, primary }: Group, offset: number, length: number, value: number): Promise<string | null> {
  let answer: HoldfastError | null | undefined;
  const slot = primary.disk!.arena.take(Math.ceil(((offset % BLOCK_BYTES) + length) / BLOCK_BYTES))!;
  slot.payload.fill(value, offset % BLOCK_BYTES, (offset % BLOCK_BYTES) + length);
  primary.volume!.write(null, 0, offset, length, slot, false, (error) => (answer = error));
  await until(world, 'a write is answered', () => answer !== undefined);
  return answer?.code ?? null;
}

/** Through the volume that clients read from. @returns the first byte of each block, or a code */
async function read({ world }: Group, node: SimNode, first: number, count: number): Promise<number[] | string> {
  let answer: number[] | string | undefined;
  const { arena } = node.disk!;
  const slot = arena.take(count)!;
  const volume = node.volume ?? node.backup!;
  volume.read(first * BLOCK_BYTES, count * BLOCK_BYTES, slot, (error) => {
    answer = error?.code ?? Array.from({ length: count }, (_, i) => slot.payload[i * BLOCK_BYTES + 1234]!);
    arena.release(slot);
  });
  await until(world, 'a read is answered', () => answer !== undefined);
  return answer!;
}

const rot = (node: SimNode, block: number): void => void (node.disk!.files.data[block * BLOCK_BYTES + 1234]! ^= 0x10);
const repaired = (node: SimNode): number => node.store!.counters()['repairedBlocks']!;
const onDisk = (node: SimNode, block: number): number => node.disk!.files.data[block * BLOCK_BYTES + 1234]!;
const counted = (from: number, count: number): number[] => Array.from({ length: count }, (_, i) => from + i + 1);

for (const names of [
  ['a', 'b'],
  ['a', 'b', 'c'],
]) {
  test(`the primary reads right, and mends its disk, ${names.length} members`, async () => {
    const all = await group(names);
    const { primary, world } = all;
    for (const block of [7, 9, 10]) rot(primary, block);
    const [one, other] = await Promise.all([read(all, primary, 4, 16), read(all, primary, 9, 1)]);
    assert.equal([one, other], [counted(4, 16), [10]]);
    assert.equal([repaired(primary), onDisk(primary, 7), onDisk(primary, 9), onDisk(primary, 10)], [3, 8, 10, 11]);
    // It is in the journal too: what is mended stays so.
    primary.crash(true);
    await until(world, 'another one serves', () => all.backups.some(({ volume }) => volume !== null), 9000);
    primary.boot();
    await until(world, 'all in sync', () => all.cluster.register.current.inSync.length === names.length, 20_000);
    await until(world, 'it may read', () => primary.backup !== null || primary.volume !== null);
    assert.equal(await read(all, primary, 4, 16), counted(4, 16));
  });
}

test('a backup that meets one gets it from the primary; its reader may ask the primary', async () => {
  const all = await group(['a', 'b']);
  const [backup] = all.backups;
  rot(backup!, 30);
  assert.is(await read(all, backup!, 28, 4), 'CORRUPT_BLOCK');
  await until(all.world, 'mended', () => repaired(backup!) === 1);
  assert.equal(await read(all, backup!, 28, 4), counted(28, 4));
  assert.is(onDisk(backup!, 30), 31);
  assert.is(backup!.replica!.counters.copiedBlocks, 0, 'it counted as reintegration');
});

test('an unaligned write completes its edges with what is right', async () => {
  const all = await group(['a', 'b']);
  const { primary } = all;
  rot(primary, 20);
  rot(primary, 22);
  assert.is(await write(all, 20 * BLOCK_BYTES + 2000, 2 * BLOCK_BYTES, 200), null);
  assert.equal(await read(all, primary, 20, 3), [21, 200, 200]);
  assert.is(onDisk(primary, 20), 21);
  for (const node of all.backups) assert.equal(await read(all, node, 20, 3), [21, 200, 200]);
});

test('what is written over a rotten block meanwhile stays; nothing old comes back', async () => {
  for (let seed = 1; seed <= 30; seed++) {
    const all = await group(['a', 'b'], seed);
    const { primary, backups } = all;
    const [backup] = backups;
    rot(primary, 5);
    rot(backup!, 5);
    rot(backup!, 6);
    const work = [
      read(all, primary, 4, 4),
      read(all, backup!, 5, 2),
      write(all, 5 * BLOCK_BYTES, BLOCK_BYTES, 150),
      write(all, 6 * BLOCK_BYTES + 100, 1, 77),
    ];
    const [first] = await Promise.all(work);
    // Both copies were rotten until it was overwritten: there was nothing to be read before.
    if (typeof first !== 'string') assert.ok([6, 150].includes(first![1] as number));
    else assert.is(first, 'CORRUPT_BLOCK');
    assert.equal(await read(all, primary, 5, 2), [150, 7]);
    await until(all.world, 'mended', () => onDisk(backup!, 6) === 7 && onDisk(backup!, 5) === 150);
    assert.equal(await read(all, backup!, 5, 2), [150, 7]);
  }
});

test('rotten everywhere: an error for that block alone, until it is overwritten', async () => {
  const all = await group(['a', 'b']);
  const { primary, cluster } = all;
  for (const node of cluster.nodes) rot(node, 40);
  assert.is(await read(all, primary, 40, 1), 'CORRUPT_BLOCK');
  assert.equal(await read(all, primary, 41, 4), counted(41, 4));
  assert.is(await write(all, 40 * BLOCK_BYTES, BLOCK_BYTES, 9), null);
  assert.equal(await read(all, primary, 40, 1), [9]);
});

test('a member that falls silent while it is asked holds a read up no longer than until it is out', async () => {
  const all = await group(['a', 'b', 'c']);
  const { primary, backups } = all;
  rot(primary, 3);
  for (const backup of backups) backup.pause(60_000);
  const answer = await new Promise<number[] | string>((resolve) => void read(all, primary, 3, 1).then(resolve));
  assert.is(answer, 'CORRUPT_BLOCK', 'nobody is there to ask');
  assert.equal(await read(all, primary, 4, 1), [5]);
});

test.run();
