/**
 * A volume of this node as an NBD device: requests travel in slots of the arena, from the socket to the journal and from
 * the disk to the socket.
 *
 * Guarantees: while slots are scarce a half-received WRITE lies in memory of its own, so that a stalled client holds
 * nobody up; a READ takes all the slots that it needs at once or goes on with one at a time, so that reads never wait for
 * one another.
 */
import { copyBytes } from '../base/copy.ts';
import type { ChangedExtent, Extent } from '../base/device.ts';
import type { HoldfastError } from '../base/errors.ts';
import { BLOCK_BYTES, MAX_IO_BYTES, type Part, split, splitZero } from '../base/units.ts';
import type { NbdExport } from '../nbd/exports.ts';
import type { Done, ServedVolume } from '../replication/served-volume.ts';
import type { Arena, Slot } from '../storage/arena.ts';
import type { NbdDevice, ReadPieces, Room } from './nbd-device.ts';

/** Below this share of free slots a half-received WRITE gets none. */
const KEEP_FREE_SHARE = 0.25;
/** Reads that need more slots than this are gathered outside of the arena. */
const MAX_READ_SLOTS = 9;

interface ServedRoom extends Room {
  readonly slot: Slot | null;
}

const pagesOf = ({ offsetBytes, lengthBytes }: Part): number =>
  Math.ceil(((offsetBytes % BLOCK_BYTES) + lengthBytes) / BLOCK_BYTES);

export class ServedNbdDevice implements NbdDevice {
  private readonly volume: ServedVolume;
  private readonly arena: Arena;

  constructor(volume: ServedVolume, arena: Arena) {
    this.volume = volume;
    this.arena = arena;
  }

  get export(): NbdExport {
    const { name, sizeBytes, readOnly } = this.volume.info();
    const marks = this.volume.marks().map((mark) => mark.name);
    return { name, sizeBytes, readOnly, marks, description: `Holdfast volume ${name}` };
  }

  // --- WRITE --------------------------------------------------------------------------------------------------------

  room(offsetBytes: number, lengthBytes: number): ServedRoom {
    const pages = pagesOf({ offsetBytes, lengthBytes });
    const slot = this.arena.freeShare(pages) > KEEP_FREE_SHARE ? this.arena.take(pages) : null;
    const at = offsetBytes % BLOCK_BYTES;
    const bytes = slot === null ? Buffer.allocUnsafe(lengthBytes) : slot.payload.subarray(at, at + lengthBytes);
    return { slot, bytes };
  }

  drop({ slot }: ServedRoom): void {
    if (slot !== null) this.arena.release(slot);
  }

  write({ slot, bytes }: ServedRoom, offsetBytes: number, done: Done): void {
    const lengthBytes = bytes.length;
    if (slot !== null) return this.volume.write(null, 0, offsetBytes, lengthBytes, slot, false, done);
    this.withSlot({ offsetBytes, lengthBytes }, (taken) => {
      copyBytes(taken.payload, offsetBytes % BLOCK_BYTES, bytes);
      this.volume.write(null, 0, offsetBytes, lengthBytes, taken, false, done);
    });
  }

  private withSlot(part: Part, use: (slot: Slot) => void): void {
    const pages = pagesOf(part);
    const slot = this.arena.take(pages);
    if (slot !== null) use(slot);
    else this.arena.whenFree(pages, () => this.withSlot(part, use));
  }

  zero(offsetBytes: number, lengthBytes: number, done: Done): void {
    const one = (part: Part, over: Done): void => this.volume.zero(null, 0, part.offsetBytes, part.lengthBytes, over);
    each(splitZero(offsetBytes, lengthBytes), one, done);
  }

  trim(offsetBytes: number, lengthBytes: number, done: Done): void {
    const one = (part: Part, over: Done): void => this.volume.trim(null, 0, part.offsetBytes, part.lengthBytes, over);
    each(splitZero(offsetBytes, lengthBytes), one, done);
  }

  flush(done: Done): void {
    this.volume.flush(done);
  }

  // --- READ ---------------------------------------------------------------------------------------------------------

  read(offsetBytes: number, lengthBytes: number, done: ReadPieces): void {
    if (lengthBytes <= MAX_IO_BYTES) {
      this.withSlot({ offsetBytes, lengthBytes }, (slot) => this.readOne(slot, offsetBytes, lengthBytes, done));
      return;
    }
    const parts = split(offsetBytes, lengthBytes);
    const slots = this.takeAll(parts);
    if (slots === null) return this.gather(parts, offsetBytes, lengthBytes, done);
    const release = (): void => slots.forEach((slot) => this.arena.release(slot));
    let index = 0;
    const one = (part: Part, over: Done): void =>
      this.volume.read(part.offsetBytes, part.lengthBytes, slots[index++]!, over);
    each(parts, one, (error) => {
      const pieces = parts.map((part, i) => pieceOf(slots[i]!, part.offsetBytes, part.lengthBytes));
      done(error, error === null ? pieces : [], release);
    });
  }

  private readOne(slot: Slot, offsetBytes: number, lengthBytes: number, done: ReadPieces): void {
    this.volume.read(offsetBytes, lengthBytes, slot, (error) => {
      done(error, error === null ? [pieceOf(slot, offsetBytes, lengthBytes)] : [], () => this.arena.release(slot));
    });
  }

  private takeAll(parts: readonly Part[]): Slot[] | null {
    if (parts.length > MAX_READ_SLOTS || this.arena.freeShare(pagesOf(parts[0]!)) <= KEEP_FREE_SHARE) return null;
    const slots: Slot[] = [];
    for (const part of parts) {
      const slot = this.arena.take(pagesOf(part));
      if (slot === null) {
        for (const taken of slots) this.arena.release(taken);
        return null;
      }
      slots.push(slot);
    }
    return slots;
  }

  private gather(parts: Part[], offsetBytes: number, lengthBytes: number, done: ReadPieces): void {
    const whole = Buffer.allocUnsafe(lengthBytes);
    const one = (part: Part, over: Done): void =>
      this.withSlot(part, (slot) =>
        this.volume.read(part.offsetBytes, part.lengthBytes, slot, (error) => {
          if (error === null)
            copyBytes(whole, part.offsetBytes - offsetBytes, pieceOf(slot, part.offsetBytes, part.lengthBytes));
          this.arena.release(slot);
          over(error);
        }),
      );
    each(parts, one, (error) => done(error, error === null ? [whole] : [], () => {}));
  }

  // --- BLOCK_STATUS ---------------------------------------------------------------------------------------------------

  async allocation(offsetBytes: number, lengthBytes: number, limit: number): Promise<readonly Extent[]> {
    await this.readable();
    return this.volume.extents(offsetBytes, lengthBytes, limit);
  }

  async changes(
    mark: string,
    offsetBytes: number,
    lengthBytes: number,
    limit: number,
  ): Promise<readonly ChangedExtent[]> {
    await this.readable();
    return this.volume.changes(mark, offsetBytes, lengthBytes, limit);
  }

  private readable(): Promise<void> {
    return new Promise((resolve, reject) =>
      this.volume.whenReadable((error) => (error === null ? resolve() : reject(error))),
    );
  }
}

function pieceOf(slot: Slot, offsetBytes: number, lengthBytes: number): Uint8Array {
  const at = offsetBytes % BLOCK_BYTES;
  return slot.payload.subarray(at, at + lengthBytes);
}

/** Calls each part; `done` comes when all are over, with the first error. */
function each(parts: readonly Part[], call: (part: Part, done: Done) => void, done: Done): void {
  let left = parts.length;
  let failure: HoldfastError | null = null;
  for (const part of parts) {
    call(part, (error) => {
      failure ??= error;
      if (--left === 0) done(failure);
    });
  }
}
