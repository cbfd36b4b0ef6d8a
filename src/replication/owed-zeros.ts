/**
 * Writes the zeros that blocks are owed, in the background, a run at a time. Pure.
 *
 * Nobody waits for them: what is owed zeros is read as zeros, and what is written again is owed none. So they wait for a
 * lull; while clients write, a run now and then is all: each run is I/O beside theirs, and so is the checkpoint that makes
 * it durable. Where zeros are holes, which give the disk its room back, they wait for nothing.
 *
 * Guarantees: writes to the run are kept away meanwhile, reads are not: owed blocks are read without touching `data`.
 */
import type { BlockStore } from '../storage/block-store.ts';
import type { Operation, RangeLock } from './range-lock.ts';
import type { LogRecord } from './store.ts';

/** Blocks of owed zeros written at a time. */
const ZERO_RUN_BLOCKS = 256;
/** Looks in a row at which nothing new was logged: a lull. */
const LULL_LOOKS = 10;
/** One run in so many looks while there is none. */
const BUSY_LOOKS = 50;

export class OwedZeros {
  private readonly store: BlockStore;
  private readonly lock: RangeLock<LogRecord>;
  private from = 0;
  /** What was logged last, at the last look, and for how many looks. */
  private lastSeq = -1;
  private quietLooks = 0;
  private busyLooks = 0;
  /** The run that is being written; settles with whether there was one. */
  running: Promise<boolean> | null = null;

  constructor(store: BlockStore, lock: RangeLock<LogRecord>) {
    this.store = store;
    this.lock = lock;
  }

  /** Every 20 ms or so. */
  tick(): void {
    const { seq } = this.store.lastPosition;
    this.quietLooks = seq === this.lastSeq ? this.quietLooks + 1 : 0;
    this.lastSeq = seq;
    if (this.store.owed.count === 0) return;
    this.busyLooks++;
    const lull = this.quietLooks >= LULL_LOOKS || this.store.superblock.sparse;
    if (!lull && this.busyLooks < BUSY_LOOKS) return;
    this.busyLooks = 0;
    void this.writeSome(lull);
  }

  /**
   * Writes zeros into one run of blocks that are owed them.
   * @param settle where there is none, a checkpoint makes those durable that were written
   * @returns whether there was one
   */
  writeSome(settle = true): Promise<boolean> {
    if (this.store.failed !== null) return Promise.resolve(false);
    this.running ??= this.writeRun(settle).finally(() => {
      this.running = null;
    });
    return this.running;
  }

  private async writeRun(settle: boolean): Promise<boolean> {
    const run = this.store.owed.next(this.from, ZERO_RUN_BLOCKS) ?? this.store.owed.next(0, ZERO_RUN_BLOCKS);
    if (run === null) {
      if (settle) this.store.settleZeroed();
      return false;
    }
    this.from = run.first + run.count;
    await new Promise<void>((granted) => {
      const operation: Operation<LogRecord> = this.lock.read(run.first, run.count, () =>
        queueMicrotask(() => {
          this.store.owed
            .write(run.first, run.count)
            .catch(() => {})
            .finally(() => {
              this.lock.finish(operation);
              granted();
            });
        }),
      );
    });
    return true;
  }
}
