/** What must hold of a cluster that has come to rest, and of the same cluster after all of it has lost its power. */
import { BLOCK_BYTES } from '../../src/base/units.ts';
import { comparePositions } from '../../src/base/position.ts';
import type { BlockStore } from '../../src/storage/block-store.ts';
import type { Cluster } from './cluster.ts';
import type { Histories } from './histories.ts';
import { type SimNode, at } from './sim-node.ts';

/** Blocks read in one go. */
const RUN_BLOCKS = 32;
/** What journal and `meta` keep on every replica; what a primary keeps besides, for the edges of unaligned writes. */
const STORE_SLOTS = 2;
const PRIMARY_SLOTS = 24;

/** @returns what is wrong with replicas that are all in sync and idle, or null */
export function unrest(cluster: Cluster, histories: Histories): string | null {
  const [first] = cluster.nodes;
  const sessions = sessionsOf(first!.store!);
  for (const node of cluster.nodes) {
    const { store, name } = node;
    if (store!.replica.state !== 'in-sync') return `${name} is ${store!.replica.state}`;
    if (comparePositions(store!.committedPosition, store!.lastPosition) !== 0) return `${name} is idle: ${at(store!)}`;
    const { peers } = store!.peers;
    if (peers.length > 0) return `${name} has bitmaps left for ${peers.join(' ')}, which are in sync`;
    const suspects = store!.peers.suspects().count;
    if (suspects > 0) return `${name} has ${suspects} suspect blocks left`;
    const slots = node.disk!.arena.slotsInUse;
    if (slots > STORE_SLOTS + (node.volume === null ? 0 : PRIMARY_SLOTS)) return `${name}: ${slots} slots are in use`;
    const own = sessionsOf(store!);
    if (own !== sessions) return `the session tables of ${first!.name} and ${name} differ: ${apart(sessions, own)}`;
    const wrong = marksWrong(node, histories);
    if (wrong !== null) return wrong;
  }
  return null;
}

function marksWrong({ name, store }: SimNode, histories: Histories): string | null {
  for (const mark of histories.marks) {
    const bitmap = store!.marks.bitmap(mark.name);
    if (mark.deleteAnswered && bitmap !== null) return `${name} has mark ${mark.name}, which was deleted`;
    if (mark.deleteCalled || mark.setAnsweredMs === Infinity) continue;
    if (bitmap === null) return `${name} does not have mark ${mark.name}`;
    const lacks = [...mark.changed].filter((block) => !bitmap.has(block));
    if (lacks.length > 0) return `${name}: mark ${mark.name} lacks blocks ${lacks.join()}`;
  }
  return null;
}

/** The names of marks must be the same everywhere, also of those whose setting was not answered. */
export function marksDiffer(cluster: Cluster): string | null {
  const names = cluster.nodes.map(({ store }) =>
    store!.marks
      .list()
      .map(({ name }) => name)
      .sort()
      .join(' '),
  );
  if (names.every((one) => one === names[0])) return null;
  return `marks differ: ${cluster.nodes.map(({ name }, i) => `${name}: ${names[i]}`).join('; ')}`;
}

function sessionsOf(store: BlockStore): string {
  return store.sessions
    .encode()
    .map((body) => Buffer.from(body).toString('latin1'))
    .join('');
}

/** Where two encoded tables differ, by session. */
function apart(a: string, b: string): string {
  const show = (text: string, from: number): string =>
    Buffer.from(text.slice(from, from + 24), 'latin1').toString('hex');
  for (let i = 0; i < Math.max(a.length, b.length); i++) {
    if (a[i] !== b[i]) return `from byte ${i}: ${show(a, i)} and ${show(b, i)}`;
  }
  return 'nothing';
}

/** What a verified read gives of each block; null where a bit has rotted. */
async function contentOf(cluster: Cluster, node: SimNode): Promise<Array<Uint8Array | null> | string> {
  const { world, blocks } = cluster;
  const content: Array<Uint8Array | null> = [];
  const read = async (first: number, count: number): Promise<Uint8Array | string> => {
    const slot = node.disk!.arena.take(count);
    if (slot === null) return `${node.name}: memory is lost: ${node.disk!.arena.slotsInUse} slots are in use`;
    let over: string | null | undefined;
    node.store!.readBlocks(first, count, slot, (error) => (over = error?.message ?? null));
    while (over === undefined) await world.run(world.nowMs + 1);
    const bytes = slot.payload.slice(0, count * BLOCK_BYTES);
    node.disk!.arena.release(slot);
    return over ?? bytes;
  };
  for (let first = 0; first < blocks; first += RUN_BLOCKS) {
    const count = Math.min(RUN_BLOCKS, blocks - first);
    const run = await read(first, count);
    for (let i = 0; i < count; i++) {
      if (typeof run !== 'string') content.push(run.subarray(i * BLOCK_BYTES, (i + 1) * BLOCK_BYTES));
      else {
        const one = await read(first + i, 1);
        if (typeof one === 'string' && !node.rotten.has(first + i)) {
          return `${node.name}: block ${first + i} cannot be read: ${one}`;
        }
        content.push(typeof one === 'string' ? null : one);
      }
    }
  }
  return content;
}

/** The content of all replicas, byte for byte, by what a verified read gives: it must be the same. */
export async function commonContent(cluster: Cluster): Promise<Array<Uint8Array | null> | string> {
  const common: Array<Uint8Array | null> = Array.from({ length: cluster.blocks }, () => null);
  for (const node of cluster.nodes) {
    const content = await contentOf(cluster, node);
    if (typeof content === 'string') return content;
    const wrong = differing(common, content);
    if (wrong !== null) return `${wrong} between ${cluster.nodes[0]!.name} and ${node.name}`;
    content.forEach((block, i) => (common[i] ??= block));
  }
  return common;
}

/** @returns which block differs, or null */
export function differing(one: ReadonlyArray<Uint8Array | null>, two: ReadonlyArray<Uint8Array | null>): string | null {
  for (let block = 0; block < one.length; block++) {
    const [a, b] = [one[block], two[block]];
    if (a === null || b === null || Buffer.compare(a!, b!) === 0) continue;
    const word = (bytes: Uint8Array, at: number): number => Buffer.from(bytes.subarray(at, at + 4)).readUInt32LE();
    const show = (bytes: Uint8Array): string => `${word(bytes, 0)}|${word(bytes, BLOCK_BYTES / 2)}`;
    return `block ${block} differs (${show(a!)} and ${show(b!)})`;
  }
  return null;
}
