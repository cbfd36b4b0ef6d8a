/**
 * Blocks that are owed zeros: finding them and writing the zeros. They are owed until a checkpoint has made the zeros
 * durable. All I/O goes through the injected `Files`.
 */
import { ENTRY_ZERO } from '../base/checksum.ts';
import type { HoldfastError } from '../base/errors.ts';
import { BLOCK_BYTES } from '../base/units.ts';
import type { Run } from './dirty-bitmap.ts';
import { type Files, io } from './files.ts';
import type { StoreTables } from './tables.ts';

/** Blocks of zeros that may wait for the checkpoint that makes them durable: 128 MiB. */
const MAX_ZEROED_BLOCKS = 32_768;

export interface OwedBlocksParts {
  files: Files;
  tables: StoreTables;
  /** Make holes instead of writing. */
  sparse: boolean;
  /** The store stops; returns what to throw. */
  fail: (operation: string, cause: HoldfastError) => HoldfastError;
  /** So many bytes of `data` wait for a sync now. */
  wrote: (bytes: number) => void;
}

export class OwedBlocks {
  private readonly o: OwedBlocksParts;

  constructor(parts: OwedBlocksParts) {
    this.o = parts;
  }

  get count(): number {
    return this.o.tables.owed.count;
  }

  /** The next run of blocks that zeros are owed, or null. */
  next(from: number, limit: number): Run | null {
    const { tables } = this.o;
    if (tables.zeroedCount >= MAX_ZEROED_BLOCKS) return null;
    for (let at = from; ;) {
      const run = tables.owed.nextRun(at, limit);
      if (run === null) return null;
      let zeroed = 0;
      while (zeroed < run.count && tables.isZeroed(run.first + zeroed)) zeroed++;
      let end = zeroed;
      while (end < run.count && !tables.isZeroed(run.first + end)) end++;
      if (end > zeroed) return { first: run.first + zeroed, count: end - zeroed };
      at = run.first + run.count;
    }
  }

  /** Writes zeros into owed blocks of the range, which the caller keeps everybody else away from. */
  async write(first: number, count: number): Promise<void> {
    const { tables, files, sparse } = this.o;
    const hole = (block: number): boolean => tables.checksums.get(block) === ENTRY_ZERO;
    for (let at = first; at < first + count;) {
      let end = at;
      while (end < first + count && tables.owed.has(end) && hole(end)) end++;
      if (end === at) {
        // Live data is owed nothing; such a bit comes back from a crash between a write and its checkpoint.
        tables.owed.clear(at);
        at++;
        continue;
      }
      const from = at;
      await io((done) => files.zero(from * BLOCK_BYTES, (end - from) * BLOCK_BYTES, sparse, done)).catch(
        (error: HoldfastError) => {
          throw this.o.fail('write zeros', error);
        },
      );
      for (let block = at; block < end; block++) tables.zeroWritten(block);
      this.o.wrote((end - at) * BLOCK_BYTES);
      at = end;
    }
  }
}
