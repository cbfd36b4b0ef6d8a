/**
 * Writes the zeros that blocks are owed, in the background, a run at a time. Pure.
 *
 * Guarantees: writes to the run are kept away meanwhile, reads are not: owed blocks are read without touching `data`.
 */
import type { BlockStore } from '../storage/block-store.ts';
import type { Operation, RangeLock } from './range-lock.ts';
import type { LogRecord } from './store.ts';

/** Blocks of owed zeros written at a time. */
const ZERO_RUN_BLOCKS = 256;

export class OwedZeros {
  private readonly store: BlockStore;
  private readonly lock: RangeLock<LogRecord>;
  private from = 0;
  /** The run that is being written; settles with whether there was one. */
  running: Promise<boolean> | null = null;

  constructor(store: BlockStore, lock: RangeLock<LogRecord>) {
    this.store = store;
    this.lock = lock;
  }

  /** Writes zeros into one run of blocks that are owed them. @returns whether there was one */
  writeSome(): Promise<boolean> {
    if (this.store.failed !== null) return Promise.resolve(false);
    this.running ??= this.writeRun().finally(() => {
      this.running = null;
    });
    return this.running;
  }

  private async writeRun(): Promise<boolean> {
    const run = this.store.owed.next(this.from, ZERO_RUN_BLOCKS) ?? this.store.owed.next(0, ZERO_RUN_BLOCKS);
    if (run === null) {
      this.store.settleZeroed();
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
