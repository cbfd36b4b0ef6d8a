/**
 * Where batches lie, by their first block. Pure.
 *
 * Every batch that is written is looked for here block by block, and takes the place of others: a hash table of thousands
 * that come and go would be built anew again and again.
 */
import type { Run } from './index-of-keys.ts';
import { SEGMENT_BLOCKS, segmentOf } from './segments.ts';

export class RunTable {
  /** By segment, then by block within it. Made when something lies there. */
  private segments: Array<Array<Run | undefined> | undefined> = [];

  get(first: number): Run | undefined {
    return this.segments[segmentOf(first)]?.[first % SEGMENT_BLOCKS];
  }

  set(run: Run): void {
    const blocks = (this.segments[segmentOf(run.first)] ??= Array.from({ length: SEGMENT_BLOCKS }, () => undefined));
    blocks[run.first % SEGMENT_BLOCKS] = run;
  }

  delete(run: Run): void {
    const blocks = this.segments[segmentOf(run.first)];
    if (blocks !== undefined) blocks[run.first % SEGMENT_BLOCKS] = undefined;
  }

  clear(): void {
    this.segments = [];
  }
}
