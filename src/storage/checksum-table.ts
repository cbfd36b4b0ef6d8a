/**
 * The checksum entry of every block, in memory, over the tracked pages of `meta`. Pure.
 *
 * Guarantees: memory is taken only for parts of the volume that hold data, 4 bytes a block; every page with a changed
 * entry is named by `changed` exactly until it was handed out for writing.
 */
import { ChangedPages } from './changed-pages.ts';
import { ENTRY_LOST, ENTRY_ZERO } from '../base/checksum.ts';
import { CHECKSUMS_PER_PAGE } from './layout.ts';

const PAGES_PER_SEGMENT = 64;
const ENTRIES_PER_SEGMENT = PAGES_PER_SEGMENT * CHECKSUMS_PER_PAGE;

export class ChecksumTable {
  readonly blocks: number;
  /** Pages (counted from the table's first) that changed and are to be written. */
  readonly changed: ChangedPages = new ChangedPages();
  private readonly segments: Array<Uint32Array | undefined>;

  constructor(blocks: number) {
    this.blocks = blocks;
    this.segments = Array.from({ length: Math.ceil(blocks / ENTRIES_PER_SEGMENT) });
  }

  get(block: number): number {
    const index = Math.floor(block / ENTRIES_PER_SEGMENT);
    const segment = this.segments[index];
    return segment === undefined ? ENTRY_ZERO : segment[block - index * ENTRIES_PER_SEGMENT]!;
  }

  set(block: number, entry: number): void {
    const index = Math.floor(block / ENTRIES_PER_SEGMENT);
    let segment = this.segments[index];
    if (segment === undefined) {
      if (entry === ENTRY_ZERO) return;
      segment = this.segments[index] = new Uint32Array(ENTRIES_PER_SEGMENT);
    }
    const at = block - index * ENTRIES_PER_SEGMENT;
    if (segment[at] === entry) return;
    segment[at] = entry;
    this.changed.touch(Math.floor(block / CHECKSUMS_PER_PAGE));
  }

  /** Copies entries of `count` blocks into `into`. @returns whether any of them is not zero */
  copyOut(first: number, count: number, into: Uint32Array): boolean {
    let any = false;
    for (let i = 0; i < count; i++) if ((into[i] = this.get(first + i)) !== ENTRY_ZERO) any = true;
    return any;
  }

  /** End of the run of blocks from `block` on that are all holes, or all not, at most `limit`. */
  runEnd(block: number, limit: number): number {
    const hole = this.get(block) === ENTRY_ZERO;
    let at = block + 1;
    while (at < limit) {
      const index = Math.floor(at / ENTRIES_PER_SEGMENT);
      const end = Math.min(limit, (index + 1) * ENTRIES_PER_SEGMENT);
      const segment = this.segments[index];
      if (segment === undefined) {
        if (!hole) return at;
        at = end;
        continue;
      }
      for (const base = index * ENTRIES_PER_SEGMENT; at < end; at++) {
        if ((segment[at - base] === ENTRY_ZERO) !== hole) return at;
      }
    }
    return limit;
  }

  /** Writes a page's entries into a page body. */
  encodePage(page: number, body: Uint8Array): void {
    const words = new Uint32Array(body.buffer, body.byteOffset, CHECKSUMS_PER_PAGE);
    const first = page * CHECKSUMS_PER_PAGE;
    const segment = this.segments[Math.floor(first / ENTRIES_PER_SEGMENT)];
    if (segment === undefined) return;
    const at = first % ENTRIES_PER_SEGMENT;
    words.set(segment.subarray(at, at + CHECKSUMS_PER_PAGE));
  }

  /** Takes a page's entries from its body, or marks its blocks as lost where the page is damaged. */
  decodePage(page: number, body: Uint8Array | null): void {
    const first = page * CHECKSUMS_PER_PAGE;
    const count = Math.min(CHECKSUMS_PER_PAGE, this.blocks - first);
    const index = Math.floor(first / ENTRIES_PER_SEGMENT);
    const segment = (this.segments[index] ??= new Uint32Array(ENTRIES_PER_SEGMENT));
    const at = first % ENTRIES_PER_SEGMENT;
    if (body === null) segment.fill(ENTRY_LOST, at, at + count);
    else segment.set(new Uint32Array(body.buffer, body.byteOffset, count), at);
  }

  /** Bytes of memory in use. */
  get memoryBytes(): number {
    return this.segments.reduce((sum, segment) => sum + (segment?.byteLength ?? 0), 0);
  }
}
