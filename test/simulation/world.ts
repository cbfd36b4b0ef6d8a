/** A clock and a list of what is to happen: everything in a simulation happens here, one thing after another. */
import { Random } from '../support/random.ts';

interface Entry {
  atMs: number;
  order: number;
  run: () => void;
}

export class World {
  nowMs = 0;
  readonly random: Random;
  readonly log: string[] = [];
  private heap: Entry[] = [];
  private order = 0;

  constructor(seed: number) {
    this.random = new Random(seed);
  }

  after(delayMs: number, run: () => void): void {
    this.push({ atMs: this.nowMs + delayMs, order: this.order++, run });
  }

  note(text: string): void {
    this.log.push(`${this.nowMs.toFixed(1).padStart(9)}  ${text}`);
  }

  /** Lets time pass until nothing is left to do, or the limit. */
  async run(untilMs: number): Promise<void> {
    while (this.heap.length > 0 && this.heap[0]!.atMs <= untilMs) {
      const next = this.pop();
      this.nowMs = next.atMs;
      next.run();
      // Chains of promises come to rest before the next thing happens.
      for (let i = 0; i < 12; i++) await Promise.resolve();
    }
    this.nowMs = untilMs;
  }

  private push(entry: Entry): void {
    const { heap } = this;
    heap.push(entry);
    for (let i = heap.length - 1; i > 0;) {
      const parent = (i - 1) >> 1;
      if (before(heap[parent]!, heap[i]!)) break;
      [heap[parent], heap[i]] = [heap[i]!, heap[parent]!];
      i = parent;
    }
  }

  private pop(): Entry {
    const { heap } = this;
    const top = heap[0]!;
    const last = heap.pop()!;
    if (heap.length > 0) {
      heap[0] = last;
      for (let i = 0; ;) {
        const [left, right] = [2 * i + 1, 2 * i + 2];
        let least = i;
        if (left < heap.length && before(heap[left]!, heap[least]!)) least = left;
        if (right < heap.length && before(heap[right]!, heap[least]!)) least = right;
        if (least === i) break;
        [heap[least], heap[i]] = [heap[i]!, heap[least]!];
        i = least;
      }
    }
    return top;
  }
}

function before(a: Entry, b: Entry): boolean {
  return a.atMs < b.atMs || (a.atMs === b.atMs && a.order < b.order);
}
