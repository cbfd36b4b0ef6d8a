/** Extents from a view of which blocks are holes, and from a bitmap of which have changed. Pure. */
import type { ChangedExtent, Extent } from '../base/device.ts';
import { BLOCK_BYTES } from '../base/units.ts';
import type { DirtyBitmap } from '../storage/dirty-bitmap.ts';

/** Blocks that one call looks at: it bounds the work of one turn. */
const SCAN_BLOCKS = 262_144;
/** The same where block by block must be asked. */
const SLOW_SCAN_BLOCKS = SCAN_BLOCKS / 16;

export interface HoleView {
  isHole(block: number): boolean;
  /** End of the run of blocks of one kind from `block` on, at most `limit`; null where only `isHole` can tell. */
  runEnd: ((block: number, limit: number) => number) | null;
}

/** At most `limit` extents from `offsetBytes` on, clipped to the range; the range may be covered only in part. */
export function extentsOf(view: HoleView, offsetBytes: number, lengthBytes: number, limit: number): Extent[] {
  const end = offsetBytes + lengthBytes;
  let block = Math.floor(offsetBytes / BLOCK_BYTES);
  const scan = view.runEnd === null ? SLOW_SCAN_BLOCKS : SCAN_BLOCKS;
  const scanEnd = Math.min(Math.ceil(end / BLOCK_BYTES), block + scan);
  const extents: Extent[] = [];
  while (block < scanEnd && extents.length < limit) {
    const hole = view.isHole(block);
    let next = block + 1;
    if (view.runEnd !== null) next = view.runEnd(block, scanEnd);
    else while (next < scanEnd && view.isHole(next) === hole) next++;
    const from = Math.max(block * BLOCK_BYTES, offsetBytes);
    const to = Math.min(next * BLOCK_BYTES, end);
    extents.push({ offsetBytes: from, lengthBytes: to - from, kind: hole ? 'hole' : 'data' });
    block = next;
  }
  return extents;
}

/** What changed by a mark's bitmap; without one everything did: a copy of too much is safe, of too little is not. */
export function changesOf(
  bitmap: DirtyBitmap | null,
  offsetBytes: number,
  lengthBytes: number,
  limit: number,
): ChangedExtent[] {
  const end = offsetBytes + lengthBytes;
  if (bitmap === null) return [{ offsetBytes, lengthBytes, changed: true }];
  const endBlock = Math.ceil(end / BLOCK_BYTES);
  const changes: ChangedExtent[] = [];
  const add = (first: number, next: number, changed: boolean): void => {
    const from = Math.max(first * BLOCK_BYTES, offsetBytes);
    const to = Math.min(next * BLOCK_BYTES, end);
    if (to > from && changes.length < limit) changes.push({ offsetBytes: from, lengthBytes: to - from, changed });
  };
  for (let block = Math.floor(offsetBytes / BLOCK_BYTES); block < endBlock && changes.length < limit;) {
    const run = bitmap.nextRun(block, endBlock - block);
    const first = Math.min(run?.first ?? endBlock, endBlock);
    add(block, first, false);
    block = first;
    if (run === null || first === endBlock) continue;
    add(first, first + run.count, true);
    block = first + run.count;
  }
  return changes;
}
