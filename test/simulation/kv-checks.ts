/**
 * What must hold of a key-value volume that has come to rest: what each replica has in memory is what its blocks say, and
 * all of them have the same.
 */
import { BLOCK_BYTES } from '../../src/base/units.ts';
import { type BlockReader, KvContent } from '../../src/kv/content.ts';
import type { Key } from '../../src/kv/operations.ts';
import type { Cluster } from './cluster.ts';
import { WALL_MS } from './sim-node.ts';

export interface Known {
  keys: Map<Key, string>;
  /** Of everything together. */
  sums: string;
  version: number;
}

export function knownBy({ index }: KvContent): Known {
  const keys = new Map<Key, string>();
  for (const key of index.sorted.from('')) {
    const { version, expiresAtMs, run, at, sizeBytes } = index.find(key)!;
    keys.set(key, `${version} ${expiresAtMs} ${run.bytes.toString('latin1', at, at + sizeBytes)}`);
  }
  const sums = `${index.keys} keys, ${index.liveBytes} bytes, ${index.usedBlocks} blocks, ${index.expiring.size} expire`;
  return { keys, sums, version: index.version };
}

/** Built anew from blocks. */
export async function builtFrom(content: ReadonlyArray<Uint8Array | null>): Promise<KvContent> {
  const bytes = Buffer.alloc(content.length * BLOCK_BYTES);
  content.forEach((block, i) => block !== null && bytes.set(block, i * BLOCK_BYTES));
  const reader: BlockReader = {
    blocks: content.length,
    holesEnd: (block) => block,
    read: (first, count, done) => {
      queueMicrotask(() => done(null, bytes.subarray(first * BLOCK_BYTES, (first + count) * BLOCK_BYTES)));
    },
  };
  const built = new KvContent(content.length);
  await built.build(reader);
  return built;
}

/** @returns what differs, or null */
export function apart(one: Known, two: Known): string | null {
  for (const key of new Set([...one.keys.keys(), ...two.keys.keys()])) {
    const [a, b] = [one.keys.get(key), two.keys.get(key)];
    if (a !== b) return `${key} is ${show(a)}, and ${show(b)}`;
  }
  return one.sums === two.sums ? null : `${one.sums}, and ${two.sums}`;
}

const show = (text: string | undefined): string =>
  text === undefined ? 'absent' : JSON.stringify(`${text.slice(0, 80)} of ${text.length}`);

/** @returns what is wrong with a replica's keys, or null */
export async function keysWrong(cluster: Cluster, content: ReadonlyArray<Uint8Array | null>): Promise<string | null> {
  const built = await builtFrom(content);
  const truth = knownBy(built);
  for (const { name, kv } of cluster.nodes) {
    if (kv === null || !kv.content.valid) return `${name} does not have its keys`;
    const wrong = apart(knownBy(kv.content), truth);
    if (wrong !== null) return `what ${name} knows is not what its blocks say: ${wrong}`;
    // What a batch said that is gone may have been newer.
    if (kv.content.index.version < truth.version) return `${name} is at version ${kv.content.index.version}`;
  }
  for (const [key, { expiresAtMs }] of built.index.expiring) {
    const lateMs = WALL_MS + cluster.world.nowMs - expiresAtMs;
    if (lateMs > 1000) return `${key} should have expired ${lateMs.toFixed(0)} ms ago`;
  }
  return null;
}
