/**
 * A bitmap of blocks: those that an absent replica lacks, those still owed zeros, those a mark counts. Pure.
 *
 * Guarantees: memory is taken page by page (32 512 blocks) where bits are set; walking it never visits empty pages bit
 * by bit; `count` is exact, also that of each page; every changed page is named by `changed` until it was handed out.
 */
import { ChangedPages } from './changed-pages.ts';
import { BITS_PER_PAGE, PAGE_BODY_BYTES } from './layout.ts';

const WORDS = PAGE_BODY_BYTES / 4;
/** Behind the bits of a page in memory: how many of them are set. */
const COUNT = WORDS;

/** A run of set bits, in blocks. */
export interface Run {
  first: number;
  count: number;
}

export class DirtyBitmap {
  readonly blocks: number;
  /** Pages (counted from the table's first) that changed and are to be written. */
  readonly changed: ChangedPages = new ChangedPages();
  private readonly pages: Map<number, Uint32Array> = new Map();
  private bits = 0;

  constructor(blocks: number) {
    this.blocks = blocks;
  }

  /** Bits that are set. */
  get count(): number {
    return this.bits;
  }

  has(block: number): boolean {
    const page = this.pages.get(Math.floor(block / BITS_PER_PAGE));
    if (page === undefined) return false;
    const bit = block % BITS_PER_PAGE;
    return ((page[bit >>> 5]! >>> (bit & 31)) & 1) !== 0;
  }

  /** @returns whether the bit was clear before */
  set(block: number): boolean {
    const number = Math.floor(block / BITS_PER_PAGE);
    let page = this.pages.get(number);
    if (page === undefined) this.pages.set(number, (page = new Uint32Array(WORDS + 1)));
    const bit = block % BITS_PER_PAGE;
    const mask = 1 << (bit & 31);
    const word = page[bit >>> 5]!;
    if ((word & mask) !== 0) return false;
    page[bit >>> 5] = word | mask;
    page[COUNT]!++;
    this.bits++;
    this.changed.touch(number);
    return true;
  }

  /** @returns whether the bit was set before */
  clear(block: number): boolean {
    const number = Math.floor(block / BITS_PER_PAGE);
    const page = this.pages.get(number);
    if (page === undefined) return false;
    const bit = block % BITS_PER_PAGE;
    const mask = 1 << (bit & 31);
    const word = page[bit >>> 5]!;
    if ((word & mask) === 0) return false;
    page[bit >>> 5] = word & ~mask;
    page[COUNT]!--;
    this.bits--;
    this.changed.touch(number);
    return true;
  }

  clearAll(): void {
    for (const [number, words] of this.pages) {
      if (words[COUNT] !== 0) this.changed.touch(number);
      words.fill(0);
    }
    this.bits = 0;
  }

  setAll(): void {
    for (let number = 0; number * BITS_PER_PAGE < this.blocks; number++) {
      this.decodePage(number, null);
      this.changed.touch(number);
    }
  }

  /** Of blocks from there on. */
  clearFrom(block: number): void {
    for (const [number, words] of this.pages) {
      const first = Math.max(block, number * BITS_PER_PAGE);
      const end = (number + 1) * BITS_PER_PAGE;
      if (words[COUNT] === 0 || first >= end) continue;
      for (let at = first; at < end; at++) this.clear(at);
    }
  }

  /** The first run of set bits at or after `from`, at most `limit` blocks of it; null when there is none. */
  nextRun(from: number, limit: number): Run | null {
    const first = this.nextSet(from);
    if (first < 0) return null;
    let end = first + 1;
    const stop = Math.min(first + limit, this.blocks);
    while (end < stop && this.has(end)) end++;
    return { first, count: end - first };
  }

  /** All runs of set bits: first, count, first, count ... */
  runs(): number[] {
    const runs: number[] = [];
    for (let run: Run | null, at = 0; (run = this.nextRun(at, this.blocks)) !== null; at = run.first + run.count) {
      runs.push(run.first, run.count);
    }
    return runs;
  }

  setRuns(runs: readonly number[]): void {
    for (let i = 0; i < runs.length; i += 2) {
      // Another replica may have room for more.
      const end = Math.min(runs[i]! + runs[i + 1]!, this.blocks);
      for (let block = runs[i]!; block < end; block++) this.set(block);
    }
  }

  private nextSet(from: number): number {
    const lastPage = Math.floor((this.blocks - 1) / BITS_PER_PAGE);
    for (
      let number = Math.floor(from / BITS_PER_PAGE), bit = from % BITS_PER_PAGE;
      number <= lastPage;
      number++, bit = 0
    ) {
      const page = this.pages.get(number);
      if (page === undefined || page[COUNT] === 0) continue;
      for (let w = bit >>> 5, mask = -1 << (bit & 31); w < WORDS; w++, mask = -1) {
        const word = page[w]! & mask;
        if (word !== 0) return number * BITS_PER_PAGE + w * 32 + (31 - Math.clz32(word & -word));
      }
    }
    return -1;
  }

  private countOfPage(page: number): number {
    return this.pages.get(page)?.[COUNT] ?? 0;
  }

  /**
   * How many bits are set in each of at most `most` equal stretches. The work is bounded: no more than `most` pages are
   * counted bit by bit, as of a volume of up to 127 GiB for 1024 stretches, and of those only pages that are neither empty
   * nor full; of a larger one a stretch is some whole pages, whose counts are kept.
   */
  cells(most: number): { cellBlocks: number; cells: number[] } {
    const pages = Math.ceil(this.blocks / BITS_PER_PAGE);
    if (pages > most) {
      const perCell = Math.ceil(pages / most);
      const cells: number[] = Array.from({ length: Math.ceil(pages / perCell) }, () => 0);
      for (const [number, page] of this.pages) cells[Math.floor(number / perCell)]! += page[COUNT]!;
      return { cellBlocks: perCell * BITS_PER_PAGE, cells };
    }
    const cellBlocks = Math.max(32, Math.ceil(this.blocks / most / 32) * 32);
    const cells: number[] = Array.from({ length: Math.ceil(this.blocks / cellBlocks) }, () => 0);
    for (const [number, page] of this.pages) if (page[COUNT] !== 0) this.addPage(cells, cellBlocks, number, page);
    return { cellBlocks, cells };
  }

  /** Cells and pages begin at whole words. */
  private addPage(cells: number[], cellBlocks: number, number: number, page: Uint32Array): void {
    const first = number * BITS_PER_PAGE;
    const end = Math.min(first + BITS_PER_PAGE, this.blocks);
    const full = page[COUNT] === end - first;
    for (let at = first; at < end;) {
      const cell = Math.floor(at / cellBlocks);
      const to = Math.min(end, (cell + 1) * cellBlocks);
      cells[cell]! += full ? to - at : popCount(page, (at - first) >>> 5, (to - first + 31) >>> 5);
      at = to;
    }
  }

  encodePage(page: number, body: Uint8Array): void {
    const words = this.pages.get(page);
    if (words !== undefined) new Uint32Array(body.buffer, body.byteOffset, WORDS).set(words.subarray(0, WORDS));
  }

  /** Takes a page from its body; a damaged one reads as all ones: copying too much is safe, too little is not. */
  decodePage(page: number, body: Uint8Array | null): void {
    const words = new Uint32Array(WORDS + 1);
    const first = page * BITS_PER_PAGE;
    if (body === null) {
      const count = Math.min(BITS_PER_PAGE, this.blocks - first);
      words.fill(-1 >>> 0, 0, count >>> 5);
      if (count & 31) words[count >>> 5] = 2 ** (count & 31) - 1;
    } else {
      words.set(new Uint32Array(body.buffer, body.byteOffset, WORDS));
    }
    words[COUNT] = popCount(words, 0, WORDS);
    this.bits += words[COUNT] - this.countOfPage(page);
    this.pages.set(page, words);
  }
}

/** Bits that are set in a stretch of words. */
function popCount(words: Uint32Array, from: number, to: number): number {
  let sum = 0;
  for (let i = from; i < to; i++) {
    const word = words[i]!;
    let v = word - ((word >>> 1) & 0x55555555);
    v = (v & 0x33333333) + ((v >>> 2) & 0x33333333);
    sum += (((v + (v >>> 4)) & 0x0f0f0f0f) * 0x01010101) >>> 24;
  }
  return sum;
}
