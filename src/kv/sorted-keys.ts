/**
 * Keys in the order of their bytes, for scans. Nothing is sorted before the first scan; from then on keys are kept in
 * sorted chunks of at most 1 024. Pure.
 */
import type { Key } from './operations.ts';

const CHUNK_KEYS = 1024;

export class SortedKeys {
  private readonly all: () => Iterable<Key>;
  private chunks: Key[][] | null = null;

  /** @param all the keys that are there now, in any order */
  constructor(all: () => Iterable<Key>) {
    this.all = all;
  }

  private sorted(): Key[][] {
    if (this.chunks !== null) return this.chunks;
    // Strings of code units 0 to 255 compare as their bytes do.
    const keys = [...this.all()].sort((a, b) => (a < b ? -1 : a > b ? 1 : 0));
    const chunks: Key[][] = [];
    for (let i = 0; i < keys.length; i += CHUNK_KEYS / 2) chunks.push(keys.slice(i, i + CHUNK_KEYS / 2));
    this.chunks = chunks;
    return chunks;
  }

  /** The last chunk that begins at or before the key; 0 if none does. */
  private chunkOf(chunks: Key[][], key: Key): number {
    let low = 0;
    let high = chunks.length;
    while (high - low > 1) {
      const middle = (low + high) >>> 1;
      if (chunks[middle]![0]! <= key) low = middle;
      else high = middle;
    }
    return low;
  }

  /** Of the first key of a chunk at or after the one given. */
  private placeIn(chunk: Key[], key: Key): number {
    let low = 0;
    let high = chunk.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (chunk[middle]! < key) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  add(key: Key): void {
    const { chunks } = this;
    if (chunks === null) return;
    if (chunks.length === 0) {
      chunks.push([key]);
      return;
    }
    const index = this.chunkOf(chunks, key);
    const chunk = chunks[index]!;
    const at = this.placeIn(chunk, key);
    if (chunk[at] === key) return;
    chunk.splice(at, 0, key);
    if (chunk.length > CHUNK_KEYS) chunks.splice(index + 1, 0, chunk.splice(CHUNK_KEYS / 2));
  }

  delete(key: Key): void {
    const { chunks } = this;
    if (chunks === null || chunks.length === 0) return;
    const index = this.chunkOf(chunks, key);
    const chunk = chunks[index]!;
    const at = this.placeIn(chunk, key);
    if (chunk[at] !== key) return;
    chunk.splice(at, 1);
    if (chunk.length === 0) chunks.splice(index, 1);
  }

  /** Keys at or after `from`, in order. Not to be changed meanwhile. */
  *from(from: Key): Generator<Key> {
    const chunks = this.sorted();
    if (chunks.length === 0) return;
    const first = this.chunkOf(chunks, from);
    for (let index = first; index < chunks.length; index++) {
      const chunk = chunks[index]!;
      for (let at = index === first ? this.placeIn(chunk, from) : 0; at < chunk.length; at++) yield chunk[at]!;
    }
  }

  clear(): void {
    this.chunks = null;
  }
}
