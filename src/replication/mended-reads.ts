/**
 * Reads under the range lock that do not fail because of a block that can be mended. Pure.
 *
 * Guarantees: the lock is not held while something is mended; a read of n blocks is tried at most n + 1 times.
 */
import type { HoldfastError } from '../base/errors.ts';
import { BLOCK_BYTES } from '../base/units.ts';
import type { Slot } from '../storage/arena.ts';
import type { BlockStore } from '../storage/block-store.ts';
import { type FetchBlock, Mender, type MenderParts } from './mender.ts';
import type { Operation, RangeLock } from './range-lock.ts';
import type { LogRecord } from './store.ts';

export class MendedReads {
  private readonly store: BlockStore;
  private readonly lock: RangeLock<LogRecord>;
  /** Null: there is nobody to ask. */
  private readonly mender: Mender | null;

  constructor({ fetchBlock, ...parts }: Omit<MenderParts, 'fetchBlock'> & { fetchBlock: FetchBlock | undefined }) {
    this.store = parts.store;
    this.lock = parts.lock;
    this.mender = fetchBlock === undefined ? null : new Mender({ ...parts, fetchBlock });
  }

  /** Whole blocks as they are committed. `done` is called once the lock is let go of. */
  read(
    first: number,
    count: number,
    slot: Slot,
    done: (error: HoldfastError | null, crc: number) => void,
    triesLeft = count,
  ): void {
    // `run` may be called before `read` returns; the store answers in a later turn, when `operation` is set.
    const operation: Operation<LogRecord> = this.lock.read(first, count, () =>
      this.store.readBlocks(first, count, slot, (error, crc) => {
        this.lock.finish(operation);
        if (error === null || triesLeft === 0) return done(error, crc);
        const again = (mended: boolean): void =>
          mended ? this.read(first, count, slot, done, triesLeft - 1) : done(error, crc);
        if (!this.mend(error, again)) done(error, crc);
      }),
    );
  }

  /**
   * Blocks at a moment at which nothing about them is on its way: `begun` is called at that moment, in the same turn in
   * which it is known. Not mended.
   * @param done `still`: false if something is on its way; then `begun` is not called
   */
  readStill(
    first: number,
    count: number,
    slot: Slot,
    begun: () => void,
    done: (error: HoldfastError | null, still: boolean) => void,
  ): void {
    const operation: Operation<LogRecord> = this.lock.read(first, count, () =>
      queueMicrotask(() => {
        let still = true;
        for (let block = first; still && block < first + count; block++) still = this.lock.newestWrite(block) === null;
        if (!still) {
          this.lock.finish(operation);
          return done(null, false);
        }
        begun();
        this.store.readBlocks(first, count, slot, (error) => {
          this.lock.finish(operation);
          done(error, true);
        });
      }),
    );
  }

  /** @returns whether `done` will be called: it is about a block, and there may be somebody to ask */
  mend(error: HoldfastError, done: (mended: boolean) => void): boolean {
    if (this.mender === null || error.code !== 'CORRUPT_BLOCK') return false;
    this.mender.mend(error.details.offsetBytes! / BLOCK_BYTES, done);
    return true;
  }

  /** A record of this store alone is durable. */
  durable(record: LogRecord): void {
    this.mender?.durable(record);
  }

  /** The store has failed: nothing more is mended. */
  end(): void {
    this.mender?.end();
  }
}
