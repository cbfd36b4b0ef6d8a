/** A group of replicas in the simulated world that serves, and reads and writes on it. */
import * as assert from 'uvu/assert';
import type { HoldfastError } from '../../src/base/errors.ts';
import { BLOCK_BYTES } from '../../src/base/units.ts';
import { Cluster } from '../simulation/cluster.ts';
import type { SimNode } from '../simulation/sim-node.ts';
import { World } from '../simulation/world.ts';

export const BLOCKS = 64;
export interface Group {
  world: World;
  cluster: Cluster;
  primary: SimNode;
  backups: SimNode[];
}

export async function until(world: World, what: string, is: () => boolean, ms = 5000): Promise<void> {
  const endMs = world.nowMs + ms;
  while (!is() && world.nowMs < endMs) await world.run(world.nowMs + 5);
  if (!is()) throw new Error(`${what}\n${world.log.slice(-40).join('\n')}`);
}

/** A group that serves, with block n full of n + 1. */
export async function group(names: string[], seed = 1): Promise<Group> {
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

export async function write(
  { world, primary }: Group,
  offset: number,
  length: number,
  value: number,
): Promise<string | null> {
  let answer: HoldfastError | null | undefined;
  const slot = primary.disk!.arena.take(Math.ceil(((offset % BLOCK_BYTES) + length) / BLOCK_BYTES))!;
  slot.payload.fill(value, offset % BLOCK_BYTES, (offset % BLOCK_BYTES) + length);
  primary.volume!.write(null, 0, offset, length, slot, false, (error) => (answer = error));
  await until(world, 'a write is answered', () => answer !== undefined);
  return answer?.code ?? null;
}

/** Through the volume that clients read from. @returns the first byte of each block, or a code */
export async function read({ world }: Group, node: SimNode, first: number, count: number): Promise<number[] | string> {
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

export const rot = (node: SimNode, block: number): void =>
  void (node.disk!.files.data[block * BLOCK_BYTES + 1234]! ^= 0x10);
export const repaired = (node: SimNode): number => node.store!.counters()['repairedBlocks']!;
export const onDisk = (node: SimNode, block: number): number => node.disk!.files.data[block * BLOCK_BYTES + 1234]!;
export const counted = (from: number, count: number): number[] => Array.from({ length: count }, (_, i) => from + i + 1);
