/** Extents from a view of which blocks are holes. Pure. */
import type { Extent } from '../base/device.ts';
import { BLOCK_BYTES } from '../base/units.ts';

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
