/**
 * The pages of `meta`, written as shadows: each tracked page has two slots, and a map in the superblock says which one
 * counts. A checkpoint writes changed pages into their other slots, syncs, and then writes one superblock: before that
 * write nothing has changed, after it everything has.
 *
 * Guarantees: a crash at any instant leaves exactly the pages of one superblock; a page that the map names but that
 * does not verify (rotten, lost, misdirected, of another volume) is reported as damage, never read as empty.
 */
import { crc32 } from '../base/checksum.ts';
import { MAX_IO_BLOCKS } from '../base/units.ts';
import type { Slot } from './arena.ts';
import { type Files, io } from './files.ts';
import {
  type Layout,
  PAGE_BODY_BYTES,
  PAGE_BYTES,
  PAGE_HEADER_BYTES,
  PAGES_PER_GROUP,
  STATES_PER_MAP_PAGE,
  pagePosition,
} from './layout.ts';
import { getNumber, putNumber } from './record.ts';
import { type Superblock, decodeSuperblock, encodeSuperblock } from './superblock.ts';

/** State of a page in the map. */
const NEVER = 0;

/** Gives a page's content: fills `body` (4 064 bytes, zeroed before). */
export type FillPage = (page: number, body: Uint8Array) => void;

export class MetaPages {
  private readonly files: Files;
  private readonly layout: Layout;
  private readonly volumeId: Uint8Array;
  /** Per page: 0 never written, 1 or 2: its current slot plus one. */
  private readonly current: Uint8Array;
  /** Map pages that each superblock slot still lacks. */
  private readonly mapStale: [Set<number>, Set<number>];
  private readonly mapPageCrcs: [Uint32Array, Uint32Array];
  private readonly staging: Slot;
  /** The slot that holds the newest superblock. */
  private activeSlot: 0 | 1;
  /** Bytes written to `meta` since open. */
  bytesWritten = 0;

  private constructor(files: Files, layout: Layout, volumeId: Uint8Array, activeSlot: 0 | 1) {
    this.files = files;
    this.layout = layout;
    this.volumeId = volumeId;
    this.current = new Uint8Array(layout.trackedPages);
    const all = Array.from({ length: layout.mapPages }, (_, i) => i);
    this.mapStale = [new Set(all), new Set(all)];
    this.mapPageCrcs = [new Uint32Array(layout.mapPages), new Uint32Array(layout.mapPages)];
    this.activeSlot = activeSlot;
    const staging = files.arena.take(MAX_IO_BLOCKS);
    if (staging === null) throw new Error('the arena has no room for the staging of meta pages');
    this.staging = staging;
  }

  /** For a volume that is being formatted: no page was ever written. */
  static fresh(files: Files, layout: Layout, volumeId: Uint8Array): MetaPages {
    return new MetaPages(files, layout, volumeId, 1);
  }

  /** Reads the page map of the superblock in `slot`. @returns null if it does not belong to that superblock */
  static async open(files: Files, layout: Layout, superblock: Superblock, slot: 0 | 1): Promise<MetaPages | null> {
    const pages = new MetaPages(files, layout, superblock.volumeId, slot);
    let loaded = false;
    try {
      loaded = await pages.loadMap(superblock, slot);
    } finally {
      if (!loaded) pages.close();
    }
    return loaded ? pages : null;
  }

  close(): void {
    this.files.arena.release(this.staging);
  }

  private async loadMap(superblock: Superblock, slot: 0 | 1): Promise<boolean> {
    const { layout } = this;
    const crcs = this.mapPageCrcs[slot];
    for (let first = 0; first < layout.mapPages; first += PAGES_PER_GROUP) {
      const count = Math.min(PAGES_PER_GROUP, layout.mapPages - first);
      const buffer = this.staging.payload.subarray(0, count * PAGE_BYTES);
      const position = slot * layout.superblockSlotBytes + (1 + first) * PAGE_BYTES;
      if (!(await readable(this.files, buffer, position))) return false;
      for (let i = 0; i < count; i++) {
        const page = buffer.subarray(i * PAGE_BYTES, (i + 1) * PAGE_BYTES);
        const number = first + i;
        if (!verifyPage(page, mapPageNumber(number), this.volumeId)) return false;
        crcs[number] = new DataView(page.buffer, page.byteOffset).getUint32(0, true);
        const body = page.subarray(PAGE_HEADER_BYTES);
        const base = number * STATES_PER_MAP_PAGE;
        const end = Math.min(STATES_PER_MAP_PAGE, layout.trackedPages - base);
        for (let state = 0; state < end; state++) {
          this.current[base + state] = (body[state >> 2]! >> ((state & 3) * 2)) & 3;
        }
      }
    }
    this.mapStale[slot].clear();
    return crc32(bytesOf(crcs)) === superblock.mapCrc;
  }

  /** Whether the page was ever written. */
  has(page: number): boolean {
    return this.current[page] !== NEVER;
  }

  /**
   * Reads every written page of [first, first + count) and hands out its body, or null where it does not verify.
   * The body is only valid during the call.
   */
  async load(first: number, count: number, each: (page: number, body: Uint8Array | null) => void): Promise<void> {
    for (let page = first; page < first + count;) {
      if (this.current[page] === NEVER) {
        page++;
        continue;
      }
      const run = this.runFrom(page, first + count, (p) => this.current[p]! - 1);
      const buffer = this.staging.payload.subarray(0, run * PAGE_BYTES);
      const position = pagePosition(this.layout, page, this.current[page]! - 1);
      const whole = await readable(this.files, buffer, position);
      for (let i = 0; i < run; i++, page++) {
        const bytes = buffer.subarray(i * PAGE_BYTES, (i + 1) * PAGE_BYTES);
        // A bad sector costs its page, not its neighbours.
        if (!whole && !(await readable(this.files, bytes, position + i * PAGE_BYTES))) bytes.fill(0);
        each(page, verifyPage(bytes, page, this.volumeId) ? bytes.subarray(PAGE_HEADER_BYTES) : null);
      }
    }
  }

  /** How many pages from `page` on lie side by side in the same slot. */
  private runFrom(page: number, end: number, slotOf: (page: number) => number): number {
    const slot = slotOf(page);
    const groupEnd = Math.min(end, (Math.floor(page / PAGES_PER_GROUP) + 1) * PAGES_PER_GROUP);
    let last = page + 1;
    while (last < groupEnd && slotOf(last) === slot) last++;
    return last - page;
  }

  /**
   * Makes the content of `pages` (ascending) and the superblock durable in one step. `fill` is asked for each page
   * shortly before it is written.
   */
  async commit(superblock: Superblock, pages: number[], fill: FillPage): Promise<void> {
    const { files, layout } = this;
    const flipped: Array<[number, number]> = [];
    const otherSlot = (page: number): number => (this.current[page] === 1 ? 1 : 0);
    for (let at = 0; at < pages.length;) {
      const first = pages[at]!;
      const contiguous = contiguousEnd(pages, at);
      const run = this.runFrom(first, first + (contiguous - at), otherSlot);
      const slot = otherSlot(first);
      const buffer = this.staging.payload.subarray(0, run * PAGE_BYTES);
      for (let i = 0; i < run; i++) {
        const page = buffer.subarray(i * PAGE_BYTES, (i + 1) * PAGE_BYTES);
        page.fill(0);
        fill(first + i, page.subarray(PAGE_HEADER_BYTES));
        sealPage(page, first + i, superblock.sequence, this.volumeId);
        flipped.push([first + i, slot + 1]);
      }
      this.bytesWritten += buffer.length;
      await io((done) => files.write('meta', buffer, pagePosition(layout, first, slot), done));
      at += run;
    }
    if (pages.length > 0) await io((done) => files.sync('meta', done));
    for (const [page, state] of flipped) {
      this.current[page] = state;
      const mapPage = Math.floor(page / STATES_PER_MAP_PAGE);
      this.mapStale[0].add(mapPage);
      this.mapStale[1].add(mapPage);
    }
    await this.writeSuperblock(superblock);
  }

  /** Writes map and superblock into the slot that is not active, with one sync, and makes it the active one. */
  private async writeSuperblock(superblock: Superblock): Promise<void> {
    const { files, layout } = this;
    const slot = this.activeSlot === 0 ? 1 : 0;
    const position = slot * layout.superblockSlotBytes;
    for (const mapPage of this.mapStale[slot]) {
      const page = this.staging.payload.subarray(0, PAGE_BYTES);
      page.fill(0);
      const body = page.subarray(PAGE_HEADER_BYTES);
      const base = mapPage * STATES_PER_MAP_PAGE;
      const end = Math.min(STATES_PER_MAP_PAGE, layout.trackedPages - base);
      for (let i = 0; i < end; i++) body[i >> 2]! |= this.current[base + i]! << ((i & 3) * 2);
      this.mapPageCrcs[slot][mapPage] = sealPage(page, mapPageNumber(mapPage), superblock.sequence, this.volumeId);
      await io((done) => files.write('meta', page, position + (1 + mapPage) * PAGE_BYTES, done));
      this.bytesWritten += PAGE_BYTES;
    }
    const page = this.staging.payload.subarray(0, PAGE_BYTES);
    page.set(encodeSuperblock({ ...superblock, mapCrc: crc32(bytesOf(this.mapPageCrcs[slot])) }));
    await io((done) => files.write('meta', page, position, done));
    this.bytesWritten += PAGE_BYTES;
    await io((done) => files.sync('meta', done));
    this.mapStale[slot].clear();
    this.activeSlot = slot;
  }
}

/** Reads a part of `meta`. @returns whether it could be read */
function readable(files: Files, into: Uint8Array, positionBytes: number): Promise<boolean> {
  return new Promise((resolve) => files.read('meta', into, positionBytes, (error) => resolve(error === null)));
}

/** Map pages are numbered from the top, so that none is ever taken for a tracked page. */
function mapPageNumber(index: number): number {
  return 0xffffffff - index;
}

function bytesOf(words: Uint32Array): Uint8Array {
  return new Uint8Array(words.buffer, words.byteOffset, words.byteLength);
}

function contiguousEnd(pages: number[], at: number): number {
  let end = at + 1;
  while (end < pages.length && pages[end] === pages[end - 1]! + 1) end++;
  return end;
}

function sealPage(page: Uint8Array, number: number, generation: number, volumeId: Uint8Array): number {
  const view = new DataView(page.buffer, page.byteOffset, PAGE_BYTES);
  view.setUint32(4, number, true);
  putNumber(view, 8, generation);
  page.set(volumeId, 16);
  const crc = crc32(page.subarray(4, PAGE_HEADER_BYTES + PAGE_BODY_BYTES));
  view.setUint32(0, crc, true);
  return crc;
}

function verifyPage(page: Uint8Array, number: number, volumeId: Uint8Array): boolean {
  const view = new DataView(page.buffer, page.byteOffset, PAGE_BYTES);
  if (view.getUint32(0, true) !== crc32(page.subarray(4)) || view.getUint32(4, true) !== number) return false;
  for (let i = 0; i < 16; i++) if (page[16 + i] !== volumeId[i]) return false;
  return getNumber(view, 8) > 0;
}

/** The newer valid superblock of the two, and the older one if it is valid too. */
export interface FoundSuperblocks {
  candidates: Array<{ superblock: Superblock; slot: 0 | 1 }>;
  laterFormat: number | null;
}

/** Reads both superblock slots; newest first. The slot size follows from the volume's size, so slot 0 is read first. */
export async function readSuperblocks(
  files: Files,
  layoutFor: (superblock: Superblock) => Layout,
  metaBytes: number,
): Promise<FoundSuperblocks> {
  const staging = files.arena.take(1);
  if (staging === null) throw new Error('the arena has no room to read superblocks');
  const found: FoundSuperblocks = { candidates: [], laterFormat: null };
  const readAt = async (position: number, slot: 0 | 1): Promise<Superblock | null> => {
    if (position + PAGE_BYTES > metaBytes) return null;
    const page = staging.payload.subarray(0, PAGE_BYTES);
    if (!(await readable(files, page, position))) return null;
    const decoded = decodeSuperblock(page);
    if (decoded === null) return null;
    if ('laterFormat' in decoded) {
      found.laterFormat = decoded.laterFormat;
      return null;
    }
    found.candidates.push({ superblock: decoded, slot });
    return decoded;
  };
  try {
    const first = await readAt(0, 0);
    if (first !== null) {
      await readAt(layoutFor(first).superblockSlotBytes, 1);
    } else {
      // Slot 0 is torn: slot 1 lies behind a page map of unknown length, so look at each page that may begin it.
      for (let page = 2; page < 1 + 1024 && (page + 1) * PAGE_BYTES <= metaBytes; page++) {
        const second = await readAt(page * PAGE_BYTES, 1);
        if (second !== null && layoutFor(second).superblockSlotBytes === page * PAGE_BYTES) break;
        if (second !== null) found.candidates.pop();
      }
    }
  } finally {
    files.arena.release(staging);
  }
  found.candidates.sort((a, b) => b.superblock.sequence - a.superblock.sequence);
  return found;
}
