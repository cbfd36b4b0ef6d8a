/**
 * The arena: a fixed amount of shared, page-aligned memory, cut into slots that travel from a socket to the journal,
 * to the data file and back without being copied. What is on its way to a disk lies here and nowhere else.
 *
 * Guarantees: `take` never allocates memory beyond the arena; a slot belongs to one owner until `release`; a caller
 * that was refused is called back, first come first served, once a slot of its class is free.
 */
import { BLOCK_BYTES, MAX_IO_BLOCKS } from '../base/units.ts';

// The compiler's libraries declare WebAssembly only together with the DOM.
declare const WebAssembly: {
  Memory: new (limits: { initial: number; maximum: number; shared: true }) => { readonly buffer: SharedArrayBuffer };
};

/** Bytes in front of each payload: a record's header is encoded there, so that header and payload are one run. */
export const HEADER_ROOM_BYTES = BLOCK_BYTES;

export class Slot {
  /** All of it: header room, then payload. */
  readonly bytes: Uint8Array;
  /** Payload area, `pages` whole blocks, page-aligned. */
  readonly payload: Uint8Array;
  readonly pages: number;
  /** Unseeded CRC per block of the payload, where known. Shared memory: workers read and write it. */
  readonly crcs: Uint32Array;
  readonly classIndex: number;
  inUse = false;

  constructor(memory: ArrayBufferLike, base: number, pages: number, classIndex: number) {
    this.bytes = new Uint8Array(memory, base, HEADER_ROOM_BYTES + pages * BLOCK_BYTES);
    this.payload = this.bytes.subarray(HEADER_ROOM_BYTES);
    this.pages = pages;
    this.classIndex = classIndex;
    // The first part of the header room belongs to the checksums, the record header ends at the payload.
    this.crcs = new Uint32Array(memory, base, MAX_IO_BLOCKS + 1);
  }
}

/** Pages per slot and share of the arena, per class. */
const CLASSES = [
  { pages: 1, share: 0.25 },
  { pages: 2, share: 0.15 },
  { pages: 16, share: 0.15 },
  { pages: MAX_IO_BLOCKS, share: 0.45 },
] as const;

function sharedMemory(pages: number): SharedArrayBuffer {
  // A WebAssembly memory is page-aligned, which a SharedArrayBuffer is not promised to be.
  return new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true }).buffer;
}

export class Arena {
  /** Shared, so that worker threads see the same bytes. */
  readonly memory: SharedArrayBuffer;
  readonly sizeBytes: number;
  private readonly free: Slot[][];
  private readonly waiting: Array<Array<() => void>>;
  private readonly total: number[];
  private waking = false;

  /** @param from memory that another arena leaves free, from that byte on */
  constructor(sizeBytes: number, from?: { memory: SharedArrayBuffer; base: number }) {
    const pages = Math.ceil(sizeBytes / 65536);
    this.memory = from?.memory ?? sharedMemory(pages);
    this.sizeBytes = pages * 65536;
    this.free = CLASSES.map(() => []);
    this.waiting = CLASSES.map(() => []);
    this.total = CLASSES.map(() => 0);
    let base = from?.base ?? 0;
    CLASSES.forEach(({ pages: slotPages, share }, index) => {
      const slotBytes = HEADER_ROOM_BYTES + slotPages * BLOCK_BYTES;
      const count = Math.floor((this.sizeBytes * share) / slotBytes);
      if (count < 4) throw new RangeError(`an arena of ${sizeBytes} bytes is too small`);
      for (let i = 0; i < count; i++, base += slotBytes) {
        this.free[index]!.push(new Slot(this.memory, base, slotPages, index));
      }
      this.total[index] = count;
      this.free[index]!.reverse();
    });
  }

  /** Two arenas in one memory: what is taken from one is never missing in the other. */
  static pair(firstBytes: number, secondBytes: number): [Arena, Arena] {
    const round = (bytes: number): number => Math.ceil(bytes / 65536) * 65536;
    const memory = sharedMemory((round(firstBytes) + round(secondBytes)) / 65536);
    return [new Arena(firstBytes, { memory, base: 0 }), new Arena(secondBytes, { memory, base: round(firstBytes) })];
  }

  private classOf(pages: number): number {
    return CLASSES.findIndex((c) => c.pages >= pages);
  }

  /** @returns a slot with room for so many blocks, or null when none is free (see `whenFree`) */
  take(pages: number): Slot | null {
    const index = this.classOf(pages);
    if (index < 0) throw new RangeError(`no slot holds ${pages} pages`);
    const slot = this.free[index]!.pop();
    if (slot === undefined) return null;
    slot.inUse = true;
    return slot;
  }

  release(slot: Slot): void {
    if (!slot.inUse) throw new Error('arena slot released twice');
    slot.inUse = false;
    this.free[slot.classIndex]!.push(slot);
    this.wake();
  }

  /**
   * Calls waiters while there are slots: whoever is woken may want none any more. Waiters release slots themselves, so
   * only the outermost call goes round: thousands that are refused in a row must not pile up on the stack.
   */
  private wake(): void {
    if (this.waking) return;
    this.waking = true;
    try {
      for (let woken = true; woken;) {
        woken = false;
        for (let index = 0; index < CLASSES.length; index++) {
          const free = this.free[index]!;
          const waiting = this.waiting[index]!;
          for (; free.length > 0 && waiting.length > 0; woken = true) waiting.shift()!();
        }
      }
    } finally {
      this.waking = false;
    }
  }

  /** Calls back once when a slot for so many blocks may be free; the callee tries `take` again. */
  whenFree(pages: number, callback: () => void): void {
    this.waiting[this.classOf(pages)]!.push(callback);
  }

  /** Share of the slots of that size that are free, 0 to 1. */
  freeShare(pages: number): number {
    const index = this.classOf(pages);
    return this.free[index]!.length / this.total[index]!;
  }

  /** Of what class the slots for so many blocks are, and how many there are of it. */
  slotsFor(pages: number): { classIndex: number; total: number } {
    const classIndex = this.classOf(pages);
    return { classIndex, total: this.total[classIndex]! };
  }

  /** Slots in use, for tests and status. */
  get slotsInUse(): number {
    return this.total.reduce((sum, n) => sum + n, 0) - this.free.reduce((sum, list) => sum + list.length, 0);
  }
}
