/**
 * The edges of an unaligned write: the blocks of which it covers only a part are completed to whole blocks before the
 * record is encoded. Pure.
 *
 * Guarantees: what is filled in is the newest content in the log, applied or not. The edges are read under a shared
 * lock that is kept until `release`: a write that comes to the same block meanwhile may be journaled, but it is not
 * applied, so `renew` finds it as the newest write of the block and takes its bytes instead.
 */
import type { HoldfastError } from '../base/errors.ts';
import { BLOCK_BYTES } from '../base/units.ts';
import type { Arena, Slot } from '../storage/arena.ts';
import { RECORD_KINDS } from '../storage/record.ts';
import type { MendedReads } from './mended-reads.ts';
import type { Operation, RangeLock } from './range-lock.ts';
import type { LogRecord, ReplicatedStore } from './store.ts';

/**
 * A few slots of its own to read edges into. The arena's must not be used: a slot is held by each unaligned write that
 * waits for its edges, so they could all be taken, and none would ever be given back.
 */
export class Scratch {
  private static readonly shared: WeakMap<Arena, Scratch> = new WeakMap();
  private readonly arena: Arena;
  private readonly free: Slot[] = [];
  private owned = 0;
  private waiting: Array<(slot: Slot) => void> = [];
  /** Volumes that use it. */
  private users = 1;

  /** The one of that arena: all volumes share it, so that their number does not matter. To be closed by each. */
  static of(arena: Arena): Scratch {
    let scratch = this.shared.get(arena);
    if (scratch === undefined) this.shared.set(arena, (scratch = new Scratch(arena)));
    else scratch.users++;
    return scratch;
  }

  private constructor(arena: Arena) {
    this.arena = arena;
    this.fill();
  }

  /** Where there is no memory at all at the moment, some comes back. */
  private fill(): void {
    while (this.owned < SCRATCH_SLOTS) {
      const slot = this.arena.take(1);
      if (slot === null) {
        if (this.owned === 0) this.arena.whenFree(1, () => this.users > 0 && this.fill());
        return;
      }
      this.owned++;
      this.give(slot);
    }
  }

  /** Calls with a slot, now or in turn; it is held for one read. */
  use(run: (slot: Slot) => void): void {
    const slot = this.free.pop();
    if (slot === undefined) this.waiting.push(run);
    else run(slot);
  }

  give(slot: Slot): void {
    const next = this.waiting.shift();
    if (next !== undefined) next(slot);
    else if (this.users === 0) this.arena.release(slot);
    else this.free.push(slot);
  }

  /** One user less; with the last one the memory is given back. */
  close(): void {
    if (--this.users > 0) return;
    Scratch.shared.delete(this.arena);
    for (const slot of this.free.splice(0)) this.arena.release(slot);
  }
}

const SCRATCH_SLOTS = 16;

/** An unaligned write: its blocks, and which bytes of them it covers. */
export interface Covered {
  first: number;
  count: number;
  /** The write covers bytes [head, tail) of its blocks. */
  head: number;
  tail: number;
  slot: Slot;
}

export class Edges {
  private readonly write: Covered;
  private readonly held: Array<Operation<LogRecord>> = [];

  constructor(write: Covered) {
    this.write = write;
  }

  /** Reads the edge blocks into the bytes of the slot that the write does not cover. */
  read(
    lock: RangeLock<LogRecord>,
    store: ReplicatedStore,
    pool: Scratch,
    mended: MendedReads,
    done: (error: HoldfastError | null) => void,
  ): void {
    const { first, count, head, tail, slot } = this.write;
    const last = first + count - 1;
    const tailPartial = tail < count * BLOCK_BYTES;
    const blocks = head > 0 ? [first] : [];
    if (tailPartial && !blocks.includes(last)) blocks.push(last);
    let left = blocks.length;
    let failure: HoldfastError | null = null;
    const one = (block: number, mayMend = true): void => {
      const operation: Operation<LogRecord> = lock.read(block, 1, () =>
        pool.use((scratch) =>
          store.readBlocks(block, 1, scratch, (error) => {
            if (error === null) {
              const bytes = scratch.payload.subarray(0, BLOCK_BYTES);
              if (block === first && head > 0) slot.payload.set(bytes.subarray(0, head), 0);
              if (block === last && tailPartial) {
                slot.payload.set(bytes.subarray(tail - (last - first) * BLOCK_BYTES), tail);
              }
            }
            pool.give(scratch);
            const over = (): void => {
              failure ??= error;
              if (--left === 0) done(failure);
            };
            // Not under the lock: what mends it has to pass.
            if (error === null || !mayMend) return over();
            const mending = mended.mend(error, (right) => (right ? one(block, false) : over()));
            if (!mending) return over();
            this.held.splice(this.held.indexOf(operation), 1);
            lock.finish(operation);
          }),
        ),
      );
      this.held.push(operation);
    };
    for (const block of blocks) one(block);
  }

  /** Replaces what was read by what was journaled for the same blocks since. To be called right before encoding. */
  renew(lock: RangeLock<LogRecord>): void {
    const { first, count, head, tail, slot } = this.write;
    if (head > 0) copyNewest(lock, first, 0, head, slot, 0);
    const end = count * BLOCK_BYTES;
    if (tail < end) copyNewest(lock, first + count - 1, BLOCK_BYTES - (end - tail), BLOCK_BYTES, slot, tail);
  }

  release(lock: RangeLock<LogRecord>): void {
    for (const operation of this.held.splice(0)) lock.finish(operation);
  }
}

/** Bytes [from, to) of a block from the newest write on it, if one is under way, into the slot at `at`. */
function copyNewest(lock: RangeLock<LogRecord>, block: number, from: number, to: number, slot: Slot, at: number): void {
  const newest = lock.newestWrite(block);
  if (newest === null) return;
  if (newest.kind === RECORD_KINDS.ZERO) {
    slot.payload.fill(0, at, at + (to - from));
    return;
  }
  const base = (block - newest.firstBlock) * BLOCK_BYTES;
  slot.payload.set(newest.slot.payload.subarray(base + from, base + to), at);
}
