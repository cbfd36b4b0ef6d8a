/**
 * What a replica knows of where the others may differ from it: a bitmap for each member that is absent, the suspect
 * bitmap (its own blocks that the others may not have), and the records that are not known to be committed. Pure.
 *
 * Guarantees: with the records in the journal, a member's bitmap contains every block written behind its
 * `completeAfter`; bits are set when a record is appended and written to `meta` before the tail passes it, so they need
 * no sync of their own. More bits than needed cost copying, fewer would cost data.
 */
import { type Position, comparePositions } from '../base/position.ts';
import { DirtyBitmap } from './dirty-bitmap.ts';
import type { Layout } from './layout.ts';
import type { RecordFields } from './record.ts';
import type { BitmapUse } from './superblock.ts';

const FIRST_SLOT = 1;
/** A group has at most five members. */
export const MAX_ABSENT = 4;
const SUSPECT_SLOT: number = FIRST_SLOT + MAX_ABSENT;

interface Recent extends Position {
  firstBlock: number;
  blockCount: number;
}

/** One member's bitmap. */
export interface PeerBitmap {
  /** Node and disk: `node/diskId`. Empty: the slot is free. */
  peer: string;
  completeAfter: Position;
  readonly bitmap: DirtyBitmap;
  /** False while the member gets every record itself. */
  tracking: boolean;
}

type Blocks = Pick<RecordFields, 'epoch' | 'seq' | 'firstBlock' | 'blockCount'>;

export class PeerBitmaps {
  readonly suspect: DirtyBitmap;
  private readonly slots: PeerBitmap[];
  /** Records behind the committed position, in order. */
  private recent: Recent[] = [];
  /**
   * A replica whose stream begins here knows nothing of the records before, not even of those that were not committed
   * then: no bitmap that it begins is complete from an earlier position on.
   */
  beginsAt: Position = { epoch: 0, seq: 0 };

  constructor(blocks: number) {
    this.suspect = new DirtyBitmap(blocks);
    this.slots = Array.from({ length: MAX_ABSENT }, () => ({
      peer: '',
      completeAfter: { epoch: 0, seq: 0 },
      bitmap: new DirtyBitmap(blocks),
      tracking: true,
    }));
  }

  /** A record about blocks is appended, or replayed. */
  note({ epoch, seq, firstBlock, blockCount }: Blocks): void {
    this.recent.push({ epoch, seq, firstBlock, blockCount });
    for (const slot of this.slots) if (slot.peer !== '' && slot.tracking) mark(slot.bitmap, firstBlock, blockCount);
  }

  /** Everything up to here is committed. */
  committed(position: Position): void {
    let count = 0;
    while (count < this.recent.length && comparePositions(this.recent[count]!, position) <= 0) count++;
    if (count > 0) this.recent.splice(0, count);
  }

  /**
   * After a recovery: what is not known to be committed is suspect from now on, its records are applied and gone.
   * @param remember always, but in a test that wants to see what happens without
   */
  suspectRecent(remember = true): void {
    const recent = this.recent.splice(0);
    if (remember) for (const { firstBlock, blockCount } of recent) mark(this.suspect, firstBlock, blockCount);
  }

  /** The whole of this replica is equal to the group again. */
  clearSuspect(): void {
    this.suspect.clearAll();
  }

  /** All blocks in which this replica may differ from another in-sync one. */
  suspects(): DirtyBitmap {
    const all = new DirtyBitmap(this.suspect.blocks);
    all.setRuns(this.suspect.runs());
    for (const { firstBlock, blockCount } of this.recent) mark(all, firstBlock, blockCount);
    return all;
  }

  of(peer: string): PeerBitmap | null {
    return this.slots.find((slot) => slot.peer === peer) ?? null;
  }

  get peers(): string[] {
    return this.slots.filter(({ peer }) => peer !== '').map(({ peer }) => peer);
  }

  /**
   * Keeps a bitmap for a member from here on: what was appended behind `completeAfter` is in it, and what is suspect.
   * One that is there already is kept and only grows. @returns false if there is no slot left
   */
  begin(peer: string, completeAfter: Position): boolean {
    let slot = this.of(peer);
    if (slot === null) {
      slot = this.slots.find((one) => one.peer === '') ?? null;
      if (slot === null) return false;
      slot.bitmap.clearAll();
      slot.peer = peer;
      const { epoch, seq } = comparePositions(this.beginsAt, completeAfter) > 0 ? this.beginsAt : completeAfter;
      slot.completeAfter = { epoch, seq };
    }
    slot.tracking = true;
    for (const one of this.recent) mark(slot.bitmap, one.firstBlock, one.blockCount);
    slot.bitmap.setRuns(this.suspect.runs());
    return true;
  }

  /** A bitmap as another replica has it: its runs and the records from here on make it complete. */
  install(peer: string, completeAfter: Position, runs: readonly number[]): void {
    if (!this.begin(peer, completeAfter)) return;
    const slot = this.of(peer)!;
    slot.completeAfter = { epoch: completeAfter.epoch, seq: completeAfter.seq };
    slot.bitmap.setRuns(runs);
  }

  /** The member gets every record itself from now on (false), or no longer: then what may not have arrived is set. */
  track(peer: string, tracking: boolean): void {
    const slot = this.of(peer);
    if (slot === null) return;
    slot.tracking = tracking;
    if (tracking) for (const one of this.recent) mark(slot.bitmap, one.firstBlock, one.blockCount);
  }

  drop(peer: string): void {
    const slot = this.of(peer);
    if (slot === null) return;
    slot.peer = '';
    slot.tracking = true;
    slot.bitmap.clearAll();
  }

  dropAll(): void {
    for (const peer of this.peers) this.drop(peer);
  }

  // --- on disk --------------------------------------------------------------------------------------------------------

  /** For the superblock. */
  uses(bitmaps: readonly BitmapUse[]): BitmapUse[] {
    const origin = { epoch: 0, seq: 0 };
    return bitmaps.map((use, index) => {
      if (index === SUSPECT_SLOT) return { kind: 'suspect', name: '', completeAfter: origin };
      const slot = this.slots[index - FIRST_SLOT];
      if (slot === undefined) return use;
      if (slot.peer === '') return { kind: 'free', name: '', completeAfter: origin };
      return { kind: 'absent', name: slot.peer, completeAfter: slot.completeAfter };
    });
  }

  /** Takes over what the superblock says. @returns numbers of the bitmap slots that are to be loaded */
  load(bitmaps: readonly BitmapUse[]): number[] {
    const used = bitmaps[SUSPECT_SLOT]!.kind === 'suspect' ? [SUSPECT_SLOT] : [];
    this.slots.forEach((slot, i) => {
      const use = bitmaps[FIRST_SLOT + i]!;
      if (use.kind !== 'absent') return;
      slot.peer = use.name;
      slot.completeAfter = use.completeAfter;
      used.push(FIRST_SLOT + i);
    });
    return used;
  }

  /** Null for a slot that is not of these. */
  bitmapOfSlot(slot: number): DirtyBitmap | null {
    return slot === SUSPECT_SLOT ? this.suspect : (this.slots[slot - FIRST_SLOT]?.bitmap ?? null);
  }

  /** Changed pages, as tracked pages. */
  takeChanged({ bitmapFirstPage, pagesPerBitmap }: Layout): number[] {
    const bitmaps = [...this.slots.map(({ bitmap }) => bitmap), this.suspect];
    return bitmaps.flatMap((bitmap, i) => {
      const first = bitmapFirstPage + (FIRST_SLOT + i) * pagesPerBitmap;
      return bitmap.changed.take().map((page) => first + page);
    });
  }
}

function mark(bitmap: DirtyBitmap, first: number, count: number): void {
  for (let block = first; block < first + count; block++) bitmap.set(block);
}
