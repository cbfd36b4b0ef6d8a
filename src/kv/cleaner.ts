/**
 * Keeps segments empty: one in which nothing counts is zeroed; what still counts of one that is mostly dead is moved.
 * Pure.
 *
 * Guarantees: a segment is zeroed only when nothing in it counts, by what is applied, and never the newest batch; one is moved at a time, and about as
 * many blocks are moved as clients write, more when segments are scarce; the pause of a step is that of one segment.
 */
import type { HoldfastError } from '../base/errors.ts';
import { BLOCK_BYTES } from '../base/units.ts';
import {
  ANSWER,
  BATCH_HEADER_BYTES,
  DELETE,
  EMPTY,
  MAX_BATCH_BYTES,
  type NewItem,
  PUT,
  answerAt,
  blocksOf,
  eachItem,
  expiryAt,
  itemBytes,
  keyAt,
  valueAt,
} from './batch.ts';
import type { KvIndex, Run } from './index-of-keys.ts';
import type { KvRules } from './rules.ts';
import { SEGMENT_BLOCKS, type Segments } from './segments.ts';

const SEGMENT_BYTES = SEGMENT_BLOCKS * BLOCK_BYTES;
const ZEROING_AT_ONCE = 8;
/** A segment with more than this share of it live is left alone. */
const DENSE = 0.9;
/** Blocks that are moved for each that clients write, when segments are scarce. */
const SCARCE_SHARE = 16;
/** A volume is made denser even if there is room, when less than this share of what it uses counts. */
const LOOSE = 0.4;
/** That many segments are left alone then. */
const SMALL_SEGMENTS = 4;
const MAX_ALLOWANCE_BLOCKS = 4 * SEGMENT_BLOCKS;

/** So late it is zeroed where the rule is off. */
const LATE_TICKS = 10;

type Done = (error: HoldfastError | null) => void;

export interface CleanerParts {
  index: KvIndex;
  segments: Segments;
  rules: KvRules;
  /** Done when it is applied. @returns whether there was room for it */
  write(items: NewItem[], bytes: number, done: Done): boolean;
  /** Done when it is committed. */
  zero(first: number, count: number, done: Done): void;
}

export class Cleaner {
  private readonly o: CleanerParts;
  /** Blocks that may be moved on account of what clients wrote. */
  private allowance = 0;
  private moving: number | null = null;
  private readonly zeroing: Set<number> = new Set();
  /** There was no room to move to: not again before the next tick. */
  private stuck = false;
  private over = false;
  /** Released before it is zeroed: only where the rule is off. */
  private late: Array<{ segment: number; ticks: number }> = [];

  constructor(parts: CleanerParts) {
    this.o = parts;
  }

  /** Segments that clients do not get: more of them in a larger volume. */
  get reserve(): number {
    return Math.max(3, Math.min(16, Math.floor(this.o.segments.count / 16)));
  }

  tick(): void {
    this.stuck = false;
    for (const one of this.late) {
      if (++one.ticks === LATE_TICKS) this.o.zero(one.segment * SEGMENT_BLOCKS, SEGMENT_BLOCKS, () => {});
    }
    this.pump();
  }

  /** Clients have written so many blocks. */
  written(blocks: number): void {
    this.allow(blocks * (this.scarce ? SCARCE_SHARE : 2));
  }

  /** Clients were refused, for want of room. */
  refused(): void {
    this.allow(SEGMENT_BLOCKS);
    this.pump();
  }

  /** What is moved is bounded by what clients do: what cannot be packed better would be moved for ever. */
  private allow(blocks: number): void {
    this.allowance = Math.min(this.allowance + blocks, MAX_ALLOWANCE_BLOCKS);
  }

  private get scarce(): boolean {
    return this.o.segments.emptyCount <= this.reserve + 2;
  }

  pump(): void {
    while (!this.over && this.zeroing.size < ZEROING_AT_ONCE) {
      const segment = this.o.segments.leastLive(this.except, this.spared);
      if (segment === null) return;
      const live = this.o.index.segments.live[segment]!;
      if (live === 0) this.zero(segment);
      else {
        if (this.moving !== null || this.stuck || !this.worthMoving(live)) return;
        if (this.o.rules.zeroDeadOnly) this.move(segment);
        else this.zero(segment);
        return;
      }
    }
  }

  /** The newest batch says which version comes next, also when nothing else of it counts. */
  private get spared(): number {
    return this.o.rules.keepNewest ? this.o.index.newestSegment : -1;
  }

  private get except(): ReadonlySet<number> {
    return this.moving === null ? this.zeroing : new Set([...this.zeroing, this.moving]);
  }

  private worthMoving(live: number): boolean {
    const { segments, index } = this.o;
    if (live > DENSE * SEGMENT_BYTES || this.allowance <= 0) return false;
    if (this.scarce || segments.emptyCount < segments.count / 4) return true;
    const used = segments.count - segments.emptyCount;
    return used > SMALL_SEGMENTS && index.liveBytes < LOOSE * used * SEGMENT_BYTES;
  }

  private zero(segment: number): void {
    if (!this.o.rules.zeroBeforeReuse) {
      this.o.segments.release(segment);
      this.late.push({ segment, ticks: 0 });
      return;
    }
    this.zeroing.add(segment);
    this.o.zero(segment * SEGMENT_BLOCKS, SEGMENT_BLOCKS, (error) => {
      this.zeroing.delete(segment);
      if (error !== null || this.over) return;
      // What is written there next comes behind it in the log.
      this.o.segments.release(segment);
      this.pump();
    });
  }

  /** In as many batches as it takes; none of the old ones is gone before all of them are applied. */
  private move(segment: number): void {
    this.moving = segment;
    let left = 1;
    const over: Done = () => {
      if (--left > 0) return;
      this.moving = null;
      this.pump();
    };
    let items: NewItem[] = [];
    let bytes = BATCH_HEADER_BYTES;
    const write = (): void => {
      if (items.length === 0) return;
      this.allowance -= blocksOf(bytes);
      if (this.o.write(items, bytes, over)) left++;
      else this.stuck = true;
      items = [];
      bytes = BATCH_HEADER_BYTES;
    };
    for (let block = segment * SEGMENT_BLOCKS; block < (segment + 1) * SEGMENT_BLOCKS; block++) {
      const run = this.o.index.runs.get(block);
      if (run === undefined) continue;
      for (const item of this.liveItems(run)) {
        const size = itemBytes(item);
        if (bytes + size > MAX_BATCH_BYTES) write();
        items.push(item);
        bytes += size;
      }
    }
    write();
    queueMicrotask(() => over(null));
  }

  private liveItems(run: Run): NewItem[] {
    const items: NewItem[] = [];
    const { bytes } = run;
    eachItem(bytes, run.entries, (kind, at, _end, version) => {
      if (!this.o.index.isLive(run, at)) return;
      if (kind === ANSWER) return void items.push(answerAt(bytes, at));
      const deleted = kind === DELETE;
      const value = deleted ? EMPTY : valueAt(bytes, at);
      items.push({
        kind: deleted ? DELETE : PUT,
        key: keyAt(bytes, at),
        version,
        expiresAtMs: expiryAt(bytes, at),
        value,
      });
    });
    return items;
  }

  end(): void {
    this.over = true;
  }
}
