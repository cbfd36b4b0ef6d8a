/**
 * Reads a volume from end to end, again and again, so that what has rotted is found, and mended, while there is another
 * copy. Pure.
 *
 * Guarantees: a pass begins at a block that is handed in, goes on to the end and then from the start, so that processes which
 * end early do not all read the same part; it takes about the time that was stated, however the volume is filled; a bounded number of reads is
 * under way; what cannot be read is passed over, and met again by the next pass.
 */
import type { HoldfastError } from '../base/errors.ts';
import { BLOCK_BYTES } from '../base/units.ts';
import type { Arena, Slot } from '../storage/arena.ts';
import type { BlockStore } from '../storage/block-store.ts';

const RUN_BLOCKS = 64;
const READS_UNDER_WAY = 4;
/** What was not read in time is not made up for at once. */
const MOST_SAVED_BLOCKS = RUN_BLOCKS * READS_UNDER_WAY;

/** Reads blocks under the lock of whoever has the volume; false: not now. */
export type ScrubRead = (
  first: number,
  count: number,
  slot: Slot,
  done: (error: HoldfastError | null) => void,
) => boolean;

export interface ScrubProgress {
  /** Passes that came to their end. */
  passes: number;
  /** What this pass has got through, of `totalBytes`. */
  doneBytes: number;
  totalBytes: number;
  /** Reads since this pass began, of whomever, that met a block which does not match its checksum. */
  foundBlocks: number;
  /** Of the last pass that ended. */
  lastFoundBlocks: number | null;
  /** What it is to get through. */
  bytesPerSecond: number;
  /** What this pass does get through, holes too; null: too little was due yet to say. */
  measuredBytesPerSecond: number | null;
}

export class Scrub {
  private readonly store: BlockStore;
  private readonly arena: Arena;
  private readonly now: () => number;
  private readonly readBlocks: ScrubRead;
  private readonly blocksPerMs: number;
  private readonly from: number;
  private at: number;
  /** Blocks from `from` to the end, once it was there and goes on from the start up to `from`; null: not yet. */
  private tail: number | null = null;
  private beganMs: number;
  private underWay = 0;
  private lastMs: number;
  private saved = 0;
  private passes = 0;
  /** What the store had counted when this pass began. */
  private foundBefore = 0;
  private lastFound: number | null = null;

  /**
   * @param passMs what a pass over the whole volume may take
   * @param from the block that passes begin at: one at random
   */
  constructor(store: BlockStore, arena: Arena, now: () => number, passMs: number, readBlocks: ScrubRead, from: number) {
    this.store = store;
    this.arena = arena;
    this.now = now;
    this.readBlocks = readBlocks;
    this.blocksPerMs = store.blocks / passMs;
    this.from = Math.min(from, Math.max(0, store.blocks - 1));
    this.at = this.from;
    this.lastMs = now();
    this.beganMs = this.lastMs;
  }

  get progress(): ScrubProgress {
    return {
      passes: this.passes,
      doneBytes: this.done * BLOCK_BYTES,
      totalBytes: this.store.blocks * BLOCK_BYTES,
      foundBlocks: this.found,
      lastFoundBlocks: this.lastFound,
      bytesPerSecond: Math.round(this.blocksPerMs * BLOCK_BYTES * 1000),
      measuredBytesPerSecond: this.measured(),
    };
  }

  /** Blocks that this pass has got through. */
  private get done(): number {
    return this.tail === null ? this.at - this.from : this.tail + this.at;
  }

  private measured(): number | null {
    const tookMs = this.now() - this.beganMs;
    const due = tookMs * this.blocksPerMs;
    return due < RUN_BLOCKS ? null : Math.round((this.done * BLOCK_BYTES * 1000) / tookMs);
  }

  private get found(): number {
    return this.store.counters()['corruptBlocks']! - this.foundBefore;
  }

  /** To be called every 20 ms or so. */
  tick(): void {
    const nowMs = this.now();
    this.saved = Math.min(MOST_SAVED_BLOCKS, this.saved + (nowMs - this.lastMs) * this.blocksPerMs);
    this.lastMs = nowMs;
    while (this.underWay < READS_UNDER_WAY && this.saved >= 1 && this.next());
  }

  /** Of the stretch that is read: up to the end of the volume, or to where the pass began. */
  private get end(): number {
    return this.tail === null ? this.store.blocks : this.from;
  }

  private over(): void {
    this.passes++;
    this.lastFound = this.found;
    this.foundBefore += this.found;
    this.tail = null;
    this.beganMs = this.now();
  }

  /** @returns whether something was begun */
  private next(): boolean {
    const { store } = this;
    if (this.at >= this.end) {
      // A read under way may yet send it back.
      if (this.underWay > 0) return false;
      if (this.tail === null && this.from > 0) this.tail = this.at - this.from;
      else this.over();
      this.at = this.tail === null ? this.from : 0;
    }
    const { end } = this;
    const first = this.at;
    if (store.isHole(first)) {
      // Time is stated for the whole volume, but nothing lies there.
      const holeEnd = store.runEnd(first, Math.min(end, first + Math.max(1, Math.floor(this.saved))));
      this.saved -= holeEnd - first;
      this.at = holeEnd;
      return true;
    }
    const count = store.runEnd(first, Math.min(end, first + RUN_BLOCKS)) - first;
    if (this.saved < count && this.saved < MOST_SAVED_BLOCKS) return false;
    const slot = this.arena.take(count);
    if (slot === null) return false;
    const begun = this.readBlocks(first, count, slot, (error) => {
      this.arena.release(slot);
      this.underWay--;
      // The blocks behind it were not looked at.
      const bad = error?.code === 'CORRUPT_BLOCK' ? error.details.offsetBytes! / BLOCK_BYTES : null;
      if (bad !== null && bad + 1 < this.at) this.at = Math.min(this.at, bad + 1);
    });
    if (!begun) {
      this.arena.release(slot);
      return false;
    }
    this.underWay++;
    this.saved -= count;
    this.at = first + count;
    return true;
  }
}
