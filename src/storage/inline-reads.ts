/**
 * Short reads on the main thread, where that is sure to be short: a single client that waits for each answer gains
 * nothing from a worker, and pays for waking it.
 *
 * Guarantees: only while one connection alone is active, for blocks that were used a moment ago (they are in the page
 * cache), a few per turn of the loop; reads that take long all the same switch it off for a while. Whatever is not as
 * it should be is left to the worker, which reads and verifies anew.
 */
import { readSync } from 'node:fs';
import { ENTRY_ZERO, combineBlock, crc32, entryOf } from '../base/checksum.ts';
import { BLOCK_BYTES } from '../base/units.ts';
import type { VerifiedRead } from './files.ts';
import type { IoPool } from './io-pool.ts';
import { RecentBlocks } from './recent-blocks.ts';

const MAX_BLOCKS = 4;
/** Two reads that take so long within a second were no reads of the page cache (one may be the scheduler's doing). */
const LONG_MS = 4;
const TWICE_WITHIN_MS = 1000;
const OFF_MS = 10_000;

export class InlineReads {
  readonly recent: RecentBlocks;
  private readonly fd: number;
  private readonly pool: IoPool;
  private offUntilMs = 0;
  private longAtMs = -Infinity;
  private readonly crcs = new Uint32Array(MAX_BLOCKS);

  constructor(fd: number, blocks: number, pool: IoPool) {
    this.fd = fd;
    this.pool = pool;
    this.recent = new RecentBlocks(blocks, performance.now());
  }

  /** @returns the unseeded CRC of what was read into place and verified, or -1: a worker has to do it */
  read({ into, crcs, firstBlock, seed }: VerifiedRead): number {
    const count = into.length / BLOCK_BYTES;
    if (count > MAX_BLOCKS || !this.pool.mayReadInline()) return -1;
    const beganMs = performance.now();
    if (beganMs < this.offUntilMs || !this.recent.has(firstBlock, count, beganMs)) return -1;
    let whole = 0;
    try {
      if (readSync(this.fd, into, 0, into.length, firstBlock * BLOCK_BYTES) !== into.length) return -1;
    } catch {
      return -1;
    }
    for (let i = 0; i < count; i++) {
      const expected = crcs[i]!;
      const crc = crc32(into.subarray(i * BLOCK_BYTES, (i + 1) * BLOCK_BYTES));
      if (expected === ENTRY_ZERO || entryOf(seed, firstBlock + i, crc) !== expected) return -1;
      this.crcs[i] = crc;
      whole = i === 0 ? crc : combineBlock(whole, crc);
    }
    for (let i = 0; i < count; i++) crcs[i] = this.crcs[i]!;
    const endedMs = performance.now();
    if (endedMs - beganMs > LONG_MS) {
      if (endedMs - this.longAtMs < TWICE_WITHIN_MS) this.offUntilMs = endedMs + OFF_MS;
      this.longAtMs = endedMs;
    }
    return whole;
  }
}
