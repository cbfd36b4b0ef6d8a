/**
 * Marks: named bitmaps of what changed since a point of the log, for incremental backup. Pure.
 *
 * A mark is set and deleted by a MARK record. Its bits are set when a record is appended, so that whoever sees a write
 * acknowledged sees it in the mark; it counts, and is written to `meta`, from when its own record is applied.
 *
 * Guarantees: a mark's bitmap contains every block of every record behind the mark's position, perhaps more (after a
 * crash, or where a page of it was damaged), never fewer; replaying any part of the log again changes nothing.
 */
import { HoldfastError } from '../base/errors.ts';
import { type Position, comparePositions } from '../base/position.ts';
import { DirtyBitmap } from './dirty-bitmap.ts';
import { BITMAP_SLOTS, type Layout } from './layout.ts';
import type { BitmapUse } from './superblock.ts';
import type { RecordFields } from './record.ts';

/** The other slots are for what the store itself and absent replicas need. */
const FIRST_SLOT = 6;
export const MAX_MARKS: number = BITMAP_SLOTS - FIRST_SLOT;
const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;

/** What a MARK record says. */
export interface MarkChange {
  action: 'set' | 'delete';
  name: string;
}

/** A mark as its users see it. */
export interface Mark {
  name: string;
  /** Blocks written behind this position are in it. */
  position: Position;
  /** Blocks that are in it. */
  dirtyBlocks: number;
}

interface Slot {
  bitmap: DirtyBitmap;
  name: string;
  position: Position;
  /** `pending`: the record is appended, not applied yet. */
  state: 'free' | 'pending' | 'active';
}

/** @throws HoldfastError INVALID_ARGUMENT */
export function checkMarkName(name: string): void {
  if (NAME.test(name)) return;
  throw new HoldfastError('INVALID_ARGUMENT', {
    operation: 'mark',
    detail: `"${name.slice(0, 80)}" is no name for a mark`,
    remedy: 'take letters, digits, dot, dash and underscore, at most 64, the first one a letter or a digit',
  });
}

/** What `Marks.encode` wrote. @returns null for bytes that no version of ours wrote */
export function decodeMarkChange(bytes: Uint8Array): MarkChange | null {
  const action = bytes[0] === 1 ? 'set' : bytes[0] === 2 ? 'delete' : null;
  const name = new TextDecoder().decode(bytes.subarray(2, 2 + bytes[1]!));
  return action !== null && NAME.test(name) ? { action, name } : null;
}

export class Marks {
  /** Position of the newest MARK record that was appended: until it is applied the list is not what it will be. */
  changedAt: Position = { epoch: 0, seq: 0 };
  private readonly slots: Slot[];

  constructor(blocks: number) {
    this.slots = Array.from({ length: MAX_MARKS }, () => ({
      bitmap: new DirtyBitmap(blocks),
      name: '',
      position: { epoch: 0, seq: 0 },
      state: 'free',
    }));
  }

  /** Why a change is not to be logged; null if it may be. */
  refusal({ action, name }: MarkChange): HoldfastError | null {
    const where = { operation: `mark ${name}` };
    const known = this.slots.some((slot) => slot.state !== 'free' && slot.name === name);
    if (action === 'delete') {
      return known ? null : new HoldfastError('INVALID_ARGUMENT', { ...where, detail: 'there is no such mark' });
    }
    if (known) {
      const remedy = 'delete it first, or take another name: setting it again would forget what changed since';
      return new HoldfastError('EXISTS', { ...where, remedy });
    }
    if (this.slots.some((slot) => slot.state === 'free')) return null;
    const detail = `a volume has at most ${MAX_MARKS} marks`;
    return new HoldfastError('TOO_MANY', { ...where, detail, remedy: 'delete one that is not needed any more' });
  }

  /** The payload of a MARK record, one block: action, length of the name, name. */
  encode({ action, name }: MarkChange, into: Uint8Array): void {
    const bytes = new TextEncoder().encode(name);
    into.fill(0);
    into[0] = action === 'set' ? 1 : 2;
    into[1] = bytes.length;
    into.set(bytes, 2);
  }

  /** A record is appended, or replayed: its blocks are in all marks before it. */
  note(record: Pick<RecordFields, 'epoch' | 'seq' | 'firstBlock' | 'blockCount'>): void {
    for (const slot of this.slots) {
      if (slot.state === 'free' || comparePositions(record, slot.position) <= 0) continue;
      const end = record.firstBlock + record.blockCount;
      for (let block = record.firstBlock; block < end; block++) slot.bitmap.set(block);
    }
  }

  /** Blocks get content that was written at some other time, behind any of the marks perhaps. */
  noteUnknown({ firstBlock, blockCount }: Pick<RecordFields, 'firstBlock' | 'blockCount'>): void {
    for (const { state, bitmap } of this.slots) {
      if (state === 'free') continue;
      for (let block = firstBlock; block < firstBlock + blockCount; block++) bitmap.set(block);
    }
  }

  /** A MARK record is appended: from here on the bits are set. */
  begin({ action, name }: MarkChange, at: Position): void {
    this.changedAt = { epoch: at.epoch, seq: at.seq };
    if (action !== 'set' || this.slots.some((slot) => slot.state !== 'free' && slot.name === name)) return;
    const slot = this.slots.find(({ state }) => state === 'free');
    // None is free only in a replay of what was deleted since: whoever deleted it does not miss it.
    if (slot === undefined) return;
    slot.state = 'pending';
    slot.name = name;
    slot.position = { epoch: at.epoch, seq: at.seq };
  }

  /** A MARK record is committed and applied. */
  apply({ action, name }: MarkChange, at: Position): void {
    const slot = this.slots.find((one) => one.state !== 'free' && one.name === name);
    if (slot === undefined || comparePositions(slot.position, at) > 0) return;
    if (action === 'set') slot.state = 'active';
    else {
      slot.state = 'free';
      slot.bitmap.clearAll();
    }
  }

  list(): Mark[] {
    return this.slots
      .filter(({ state }) => state === 'active')
      .map(({ name, position, bitmap }) => ({ name, position, dirtyBlocks: bitmap.count }))
      .sort((a, b) => comparePositions(a.position, b.position));
  }

  bitmap(name: string): DirtyBitmap | null {
    return this.slots.find((slot) => slot.state === 'active' && slot.name === name)?.bitmap ?? null;
  }

  /** As another replica has it: the mark is there from here on. */
  install(name: string, position: Position): void {
    const slot = this.slots.find(({ state }) => state === 'free');
    if (slot === undefined || this.bitmap(name) !== null) return;
    Object.assign(slot, { state: 'active', name, position: { epoch: position.epoch, seq: position.seq } });
  }

  /**
   * An epoch begins with these marks: others were never committed and are gone; one that is not here, or is another of
   * the same name, counts everything as changed, because nobody here can vouch for what it missed.
   * @param at of the EPOCH record: what was appended behind it is not its business
   */
  reconcile(marks: ReadonlyArray<{ name: string; position: Position }>, at: Position): void {
    for (const slot of this.slots) {
      if (slot.state === 'free' || comparePositions(slot.position, at) > 0) continue;
      const meant = marks.find(({ name }) => name === slot.name);
      if (meant !== undefined && comparePositions(meant.position, slot.position) === 0) slot.state = 'active';
      else {
        slot.state = 'free';
        slot.bitmap.clearAll();
      }
    }
    for (const { name, position } of marks) {
      if (this.bitmap(name) !== null) continue;
      this.install(name, position);
      this.bitmap(name)?.setAll();
    }
  }

  dropAll(): void {
    for (const slot of this.slots) {
      slot.state = 'free';
      slot.bitmap.clearAll();
    }
  }

  /** Nobody can vouch for what the marks missed: everything counts as changed. */
  distrust(): void {
    for (const slot of this.slots) if (slot.state !== 'free') slot.bitmap.setAll();
  }

  // --- on disk --------------------------------------------------------------------------------------------------------

  /** For the superblock: what the slots are used for. */
  uses(bitmaps: readonly BitmapUse[]): BitmapUse[] {
    return bitmaps.map((use, index) => {
      const slot = this.slots[index - FIRST_SLOT];
      if (slot === undefined) return use;
      if (slot.state !== 'active') return { kind: 'free', name: '', completeAfter: { epoch: 0, seq: 0 } };
      return { kind: 'mark', name: slot.name, completeAfter: slot.position };
    });
  }

  /** Takes over what the superblock says. @returns numbers of the bitmap slots that are to be loaded */
  load(bitmaps: readonly BitmapUse[]): number[] {
    const used: number[] = [];
    this.slots.forEach((slot, i) => {
      const use = bitmaps[FIRST_SLOT + i]!;
      if (use.kind !== 'mark') return;
      slot.state = 'active';
      slot.name = use.name;
      slot.position = use.completeAfter;
      used.push(FIRST_SLOT + i);
    });
    return used;
  }

  bitmapOfSlot(slot: number): DirtyBitmap {
    return this.slots[slot - FIRST_SLOT]!.bitmap;
  }

  /** Changed pages of all marks that count, as tracked pages; those of a pending one wait until it does. */
  takeChanged({ bitmapFirstPage, pagesPerBitmap }: Layout): number[] {
    return this.slots.flatMap(({ state, bitmap }, i) => {
      if (state === 'pending') return [];
      const first = bitmapFirstPage + (FIRST_SLOT + i) * pagesPerBitmap;
      return bitmap.changed.take().map((page) => first + page);
    });
  }
}
