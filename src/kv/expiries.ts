/** Keys by when they expire: a heap, whose entries may be out of date. Pure. */
import type { Key } from './operations.ts';

interface Expiry {
  atMs: number;
  key: Key;
}

export class Expiries {
  private readonly heap: Expiry[] = [];

  get size(): number {
    return this.heap.length;
  }

  add(key: Key, atMs: number): void {
    const { heap } = this;
    let at = heap.push({ atMs, key }) - 1;
    while (at > 0) {
      const above = (at - 1) >> 1;
      if (heap[above]!.atMs <= atMs) break;
      this.swap(at, above);
      at = above;
    }
  }

  /** Takes out one that is due; whoever asks looks whether the key still expires then. */
  due(nowMs: number): Expiry | null {
    const { heap } = this;
    const first = heap[0];
    if (first === undefined || first.atMs > nowMs) return null;
    const last = heap.pop()!;
    if (heap.length > 0) {
      heap[0] = last;
      this.sink();
    }
    return first;
  }

  private sink(): void {
    const { heap } = this;
    for (let at = 0; ;) {
      let least = at;
      for (const below of [2 * at + 1, 2 * at + 2]) {
        if (below < heap.length && heap[below]!.atMs < heap[least]!.atMs) least = below;
      }
      if (least === at) return;
      this.swap(at, least);
      at = least;
    }
  }

  private swap(a: number, b: number): void {
    const { heap } = this;
    [heap[a], heap[b]] = [heap[b]!, heap[a]!];
  }
}
