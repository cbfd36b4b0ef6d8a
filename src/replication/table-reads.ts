/**
 * What a primary answers from its tables: extents, marks, changes. They are reads like any other. Pure.
 *
 * Guarantees: they are answered only while the primary has the right to read; what is not committed is not shown as a
 * hole, because it may still come to nothing.
 */
import type { ChangedExtent, Extent } from '../base/device.ts';
import { HoldfastError } from '../base/errors.ts';
import type { BlockStore } from '../storage/block-store.ts';
import type { Mark } from '../storage/marks.ts';
import { RECORD_KINDS } from '../storage/record.ts';
import { isCommitted } from './checks.ts';
import type { CommitGroup } from './commit-group.ts';
import { changesOf, extentsOf } from './extents.ts';
import type { RangeLock } from './range-lock.ts';
import type { Done } from './served-volume.ts';
import type { LogRecord } from './store.ts';

export class TableReads {
  private readonly store: BlockStore;
  private readonly lock: RangeLock<LogRecord>;
  private readonly group: CommitGroup | null;

  constructor(store: BlockStore, lock: RangeLock<LogRecord>, group: CommitGroup | null) {
    this.store = store;
    this.lock = lock;
    this.group = group;
  }

  whenReadable(done: Done): void {
    if (this.group === null) queueMicrotask(() => done(null));
    else this.group.rightToRead(done);
  }

  private check(operation: string): void {
    if (this.group === null || this.group.mayRead()) return;
    const detail = 'other members are not heard of';
    throw new HoldfastError('BUSY', { operation, volume: this.store.name, detail });
  }

  /** @param settled everything that was appended is applied */
  extents(offsetBytes: number, lengthBytes: number, limit: number, settled: boolean): Extent[] {
    this.check('extents');
    const runEnd = (block: number, most: number): number => this.store.runEnd(block, most);
    const isHole = (block: number): boolean => this.isHole(block, settled);
    return extentsOf({ isHole, runEnd: settled ? runEnd : null }, offsetBytes, lengthBytes, limit);
  }

  /** By what is committed, applied or not. */
  private isHole(block: number, settled: boolean): boolean {
    const newest = settled ? null : this.lock.newestWrite(block);
    if (newest === null) return this.store.isHole(block);
    return newest.kind === RECORD_KINDS.ZERO && isCommitted(this.store, newest);
  }

  marks(): Mark[] {
    this.check('marks');
    return this.store.marks.list();
  }

  changes(mark: string, offsetBytes: number, lengthBytes: number, limit: number): ChangedExtent[] {
    this.check('changes');
    return changesOf(this.store.marks.bitmap(mark), offsetBytes, lengthBytes, limit);
  }
}
