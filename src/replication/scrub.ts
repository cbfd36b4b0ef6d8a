/**
 * Reads a volume from end to end, again and again, so that what has rotted is found, and mended, while there is another
 * copy. Pure.
 *
 * Guarantees: a pass takes about the time that was stated, however the volume is filled; a bounded number of reads is
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
  /** Where this pass is, of `totalBytes`. */
  doneBytes: number;
  totalBytes: number;
  /** Reads since this pass began, of whomever, that met a block which does not match its checksum. */
  foundBlocks: number;
  /** Of the last pass that ended. */
  lastFoundBlocks: number | null;
  bytesPerSecond: number;
}

export class Scrub {
  private readonly store: BlockStore;
  private readonly arena: Arena;
  private readonly now: () => number;
  private readonly readBlocks: ScrubRead;
  private readonly blocksPerMs: number;
  private at = 0;
  private underWay = 0;
  private lastMs: number;
  private saved = 0;
  private passes = 0;
  /** What the store had counted when this pass began. */
  private foundBefore = 0;
  private lastFound: number | null = null;

  /** @param passMs what a pass over the whole volume may take */
  constructor(store: BlockStore, arena: Arena, now: () => number, passMs: number, readBlocks: ScrubRead) {
    this.store = store;
    this.arena = arena;
    this.now = now;
    this.readBlocks = readBlocks;
    this.blocksPerMs = store.blocks / passMs;
    this.lastMs = now();
  }

  get progress(): ScrubProgress {
    return {
      passes: this.passes,
      doneBytes: this.at * BLOCK_BYTES,
      totalBytes: this.store.blocks * BLOCK_BYTES,
      foundBlocks: this.found,
      lastFoundBlocks: this.lastFound,
      bytesPerSecond: Math.round(this.blocksPerMs * BLOCK_BYTES * 1000),
    };
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

  /** @returns whether something was begun */
  private next(): boolean {
    const { store } = this;
    if (this.at >= store.blocks) {
      if (this.underWay > 0) return false;
      this.passes++;
      this.lastFound = this.found;
      this.foundBefore += this.found;
      this.at = 0;
    }
    const first = this.at;
    if (store.isHole(first)) {
      // Time is stated for the whole volume, but nothing lies there.
      const end = store.runEnd(first, Math.min(store.blocks, first + Math.max(1, Math.floor(this.saved))));
      this.saved -= end - first;
      this.at = end;
      return true;
    }
    const count = store.runEnd(first, Math.min(store.blocks, first + RUN_BLOCKS)) - first;
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
