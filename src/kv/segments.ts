/**
 * The volume cut into segments of 1 MiB: batches lie in one, are written one behind the other, and a segment is used anew
 * only when it was zeroed as a whole. Pure.
 *
 * What is counted is all that the disk has room for; what a primary writes to is what the volume has. The two differ while
 * the volume grows: a replica may be sent what lies behind the end that it knows of.
 */
import type { Run } from './index-of-keys.ts';

export const SEGMENT_BLOCKS = 256;

export const segmentOf = (block: number): number => Math.floor(block / SEGMENT_BLOCKS);

/** What the batches of each segment come to: kept by the index. */
export class SegmentCounts {
  /** Bytes of items that count. */
  readonly live: Float64Array;
  /** Batches. */
  readonly runs: Uint16Array;

  /** @param roomBlocks what the disk has room for; what is behind the last whole segment is not used */
  constructor(roomBlocks: number) {
    const count = segmentOf(roomBlocks);
    this.live = new Float64Array(count);
    this.runs = new Uint16Array(count);
  }

  get count(): number {
    return this.live.length;
  }

  add(run: Run, bytes: number): void {
    this.live[segmentOf(run.first)]! += bytes;
  }

  clear(): void {
    this.live.fill(0);
    this.runs.fill(0);
  }
}

/** Where a primary puts batches: in whole segments of the volume, also when it has grown. */
export class Segments {
  private readonly counts: SegmentCounts;
  /** Zeroed, and not begun. */
  private readonly empty: number[] = [];
  private readonly isEmpty: Uint8Array;
  /** Batches that are on their way: the counts do not know them yet. */
  private readonly coming: Uint16Array;
  private current = -1;
  private at = SEGMENT_BLOCKS;
  private whole = 0;

  /** @param blocks what the volume has */
  constructor(counts: SegmentCounts, blocks: number) {
    this.counts = counts;
    this.isEmpty = new Uint8Array(counts.count);
    this.coming = new Uint16Array(counts.count);
    this.extend(blocks);
  }

  /** The volume has so many blocks now, which is durable here. Fewer than before change nothing. */
  extend(blocks: number): void {
    const { counts, whole: before } = this;
    const whole = Math.min(segmentOf(blocks), counts.count);
    if (whole <= before) return;
    this.whole = whole;
    for (let segment = whole - 1; segment >= before; segment--) if (counts.runs[segment] === 0) this.add(segment);
  }

  private add(segment: number): void {
    this.empty.push(segment);
    this.isEmpty[segment] = 1;
  }

  /** Whole ones that the volume has. */
  get count(): number {
    return this.whole;
  }
  get emptyCount(): number {
    return this.empty.length;
  }
  /** Blocks that are there to be written, at most. */
  get freeBlocks(): number {
    return this.empty.length * SEGMENT_BLOCKS + SEGMENT_BLOCKS - this.at;
  }

  /** @returns the first of so many blocks in a row, which are in use from now on; null: there are none */
  take(blocks: number): number | null {
    if (this.at + blocks > SEGMENT_BLOCKS) {
      const next = this.empty.pop();
      if (next === undefined) return null;
      this.isEmpty[next] = 0;
      this.current = next;
      this.at = 0;
    }
    const first = this.current * SEGMENT_BLOCKS + this.at;
    this.at += blocks;
    this.coming[this.current]!++;
    return first;
  }

  /** What was to be written there is applied: it is counted now. */
  arrived(first: number): void {
    this.coming[segmentOf(first)]!--;
  }

  /** It was zeroed. */
  release(segment: number): void {
    this.add(segment);
  }

  /** The written segment, other than those given and the one that is spared, in which least counts; null: there is none. */
  leastLive(except: ReadonlySet<number>, spared: number): number | null {
    const { live } = this.counts;
    let least = -1;
    for (let segment = 0; segment < this.whole; segment++) {
      if (this.isEmpty[segment] === 1 || segment === this.current || segment === spared) continue;
      if (this.coming[segment]! > 0 || except.has(segment)) continue;
      if (least < 0 || live[segment]! < live[least]!) least = segment;
    }
    return least < 0 ? null : least;
  }
}
