/**
 * What a store knows of its blocks: checksums, zeros owed, sessions; how a record changes them, and how they become
 * pages of `meta` and come back. Pure.
 *
 * Guarantees: applying a record again, or a prefix of the log again, ends in the same tables; a page is written
 * whenever it changed since it was last handed out.
 */
import { ENTRY_ZERO, entryOf, volumeSeed } from '../base/checksum.ts';
import { ChecksumTable } from './checksum-table.ts';
import { DirtyBitmap } from './dirty-bitmap.ts';
import { type Layout, OWED_SLOT, PAGE_BODY_BYTES, SESSION_PAGES } from './layout.ts';
import { type Position, comparePositions } from '../base/position.ts';
import { decodeConfig, decodeEpoch } from './control.ts';
import { Marks, decodeMarkChange } from './marks.ts';
import type { MetaPages } from './meta-pages.ts';
import { PeerBitmaps } from './peer-bitmaps.ts';
import { RECORD_KINDS, type RecordFields } from './record.ts';
import { SessionTable } from './session-table.ts';
import type { BitmapUse, Superblock } from './superblock.ts';

/** The changed pages of one checkpoint, ascending, and how to fill each. */
export interface DirtyPages {
  pages: number[];
  fill: (page: number, body: Uint8Array) => void;
}

export class StoreTables {
  readonly seed: number;
  readonly checksums: ChecksumTable;
  /** Blocks whose entry is zero while old bytes may still lie in `data`. */
  readonly owed: DirtyBitmap;
  readonly marks: Marks;
  readonly peers: PeerBitmaps;
  sessions: SessionTable = new SessionTable();
  /** Owed blocks whose zeros were written, but not synced yet. */
  private readonly zeroed: Set<number> = new Set();
  private readonly layout: Layout;
  private sessionsChanged = false;
  /** Tracked pages that did not verify. They are left as they are until the loss is accepted. */
  private damaged: number[] = [];
  /** Session pages to be written at the least, empty ones too: those that did not verify. */
  private leastSessionPages = 0;

  constructor(layout: Layout, volumeId: Uint8Array) {
    this.layout = layout;
    this.seed = volumeSeed(volumeId);
    this.checksums = new ChecksumTable(layout.blocks);
    this.owed = new DirtyBitmap(layout.blocks);
    this.marks = new Marks(layout.blocks);
    this.peers = new PeerBitmaps(layout.blocks);
  }

  /** @returns the number of tracked pages that did not verify */
  async load(meta: MetaPages, layout: Layout, { committed, bitmaps }: Superblock): Promise<number> {
    const bodies: Array<Uint8Array | null> = [];
    await meta.load(0, SESSION_PAGES, (page, body) => {
      if (body === null) this.damaged.push(page);
      bodies.push(body === null ? null : body.slice());
    });
    this.sessions = SessionTable.decode(bodies, committed);
    for (const slot of [OWED_SLOT, ...this.peers.load(bitmaps), ...this.marks.load(bitmaps)]) {
      const first = layout.bitmapFirstPage + slot * layout.pagesPerBitmap;
      await meta.load(first, layout.pagesPerBitmap, (page, body) => {
        if (body === null) this.damaged.push(page);
        this.bitmapOf(slot).decodePage(page - first, body);
      });
    }
    const { checksumFirstPage } = layout;
    await meta.load(checksumFirstPage, layout.trackedPages - checksumFirstPage, (page, body) => {
      if (body === null) this.damaged.push(page);
      this.checksums.decodePage(page - checksumFirstPage, body);
    });
    return this.damaged.length;
  }

  private bitmapOf(slot: number): DirtyBitmap {
    return slot === OWED_SLOT ? this.owed : (this.peers.bitmapOfSlot(slot) ?? this.marks.bitmapOfSlot(slot));
  }

  /** The bitmap that a tracked page belongs to, and the page's number in it. */
  private bitmapPage(page: number): { bitmap: DirtyBitmap; number: number } {
    const { bitmapFirstPage, pagesPerBitmap } = this.layout;
    const slot = Math.floor((page - bitmapFirstPage) / pagesPerBitmap);
    return { bitmap: this.bitmapOf(slot), number: (page - bitmapFirstPage) % pagesPerBitmap };
  }

  /**
   * To be called when a record is appended or replayed, before it is applied.
   * @param committed the last position known to be committed
   */
  noteAppended(record: RecordFields, payload: Uint8Array, committed: Position): void {
    switch (record.kind) {
      case RECORD_KINDS.WRITE:
      case RECORD_KINDS.ZERO:
        this.marks.note(record);
        return this.peers.note(record);
      case RECORD_KINDS.COPY:
      case RECORD_KINDS.COPY_ZERO:
        // What is copied here was written elsewhere behind some marks: nobody can tell which.
        return this.marks.noteUnknown(record);
      case RECORD_KINDS.MARK: {
        const change = decodeMarkChange(payload);
        if (change !== null) this.marks.begin(change, record);
        return;
      }
      case RECORD_KINDS.CONFIG: {
        const change = decodeConfig(payload);
        // Both when they are appended, in this order for ever: one that is applied late must not undo a later one. The
        // register had the member in sync before "present" was logged, so nobody needs its bitmap any more.
        if (change?.action === 'absent') this.peers.begin(change.peer, change.completeAfter);
        else if (change !== null) this.peers.drop(change.peer);
        return;
      }
      case RECORD_KINDS.EPOCH: {
        const start = decodeEpoch(payload);
        if (start === null) return;
        for (const peer of this.peers.peers) if (!start.absent.includes(peer)) this.peers.drop(peer);
        for (const peer of start.absent) this.peers.begin(peer, committed);
      }
    }
  }

  /**
   * Applies a record that is about no block.
   * @param committed the last position known to be committed
   */
  applyControl(record: RecordFields, payload: Uint8Array, committed: Position): void {
    if (record.kind === RECORD_KINDS.MARK) {
      const change = decodeMarkChange(payload);
      if (change !== null) this.marks.apply(change, record);
    } else if (record.kind === RECORD_KINDS.EPOCH) {
      const start = decodeEpoch(payload);
      if (start === null) return;
      this.installSessions(start.sessions, record);
      this.marks.reconcile(start.marks, record);
      // The group has its content everywhere only once it is committed; until then others may differ in what it covers.
      if (comparePositions(record, committed) <= 0) this.peers.clearSuspect();
    }
  }

  /**
   * Changes the entries of a record's blocks. `crcs`: unseeded, one per payload block.
   * @param replayed the record may have been applied before the crash: an entry of zero then says nothing about `data`,
   * because pages are written later than the tail that they go with
   */
  applyBlocks(record: RecordFields, crcs: Uint32Array, replayed = false): void {
    const end = record.firstBlock + record.blockCount;
    if (record.kind === RECORD_KINDS.ZERO || record.kind === RECORD_KINDS.COPY_ZERO) {
      for (let block = record.firstBlock; block < end; block++) {
        // A block that was never written, or is owed already, has nothing new to be zeroed.
        if (!replayed && this.checksums.get(block) === ENTRY_ZERO) continue;
        this.checksums.set(block, ENTRY_ZERO);
        this.owed.set(block);
        this.zeroed.delete(block);
      }
      return;
    }
    for (let block = record.firstBlock, i = 0; block < end; block++, i++) {
      this.checksums.set(block, entryOf(this.seed, block, crcs[i]!));
      if (this.owed.count > 0 && this.owed.clear(block)) this.zeroed.delete(block);
    }
  }

  /** Notes a record's session pair; to be called in log order, at batch boundaries (see BlockStore). */
  applySession(record: RecordFields): void {
    if (record.session === 0n || record.seq === 0) return;
    this.sessions.note(record.session, record.request, record);
    this.sessionsChanged = true;
  }

  /** Another replica's session table takes the place of this one. */
  installSessions(bodies: readonly Uint8Array[], at: Position): void {
    this.sessions = SessionTable.decode([...bodies], at);
    this.sessionsChanged = true;
  }

  /** Zeros were written into `data` for this block. */
  zeroWritten(block: number): void {
    if (this.owed.has(block)) this.zeroed.add(block);
  }

  get zeroedCount(): number {
    return this.zeroed.size;
  }

  isZeroed(block: number): boolean {
    return this.zeroed.has(block);
  }

  /** Owed blocks whose zeros are written; a sync of `data` that begins now makes them durable (`settleZeroed`). */
  zeroedBlocks(): number[] {
    return [...this.zeroed];
  }

  /** These blocks' zeros are durable: they are owed no longer, unless they were written or zeroed again meanwhile. */
  settleZeroed(blocks: number[]): void {
    for (const block of blocks) if (this.zeroed.delete(block)) this.owed.clear(block);
  }

  /** The session pages as they are now; null when nothing changed. To be taken together with the tail. */
  takeSessions(): Uint8Array[] | null {
    if (!this.sessionsChanged) return null;
    this.sessionsChanged = false;
    const pages = this.sessions.encode();
    while (pages.length < this.leastSessionPages) pages.push(new Uint8Array(PAGE_BODY_BYTES));
    return pages;
  }

  get isDamaged(): boolean {
    return this.damaged.length > 0;
  }

  /** The loss is accepted: pages that did not verify are written anew, with what is left of their content. */
  renewDamaged(): void {
    const { bitmapFirstPage, checksumFirstPage } = this.layout;
    // What was lost may be what changed since.
    this.marks.distrust();
    for (const page of this.damaged.splice(0)) {
      if (page < bitmapFirstPage) {
        this.sessionsChanged = true;
        this.leastSessionPages = Math.max(this.leastSessionPages, page + 1);
      } else if (page < checksumFirstPage) {
        const { bitmap, number } = this.bitmapPage(page);
        bitmap.changed.touch(number);
      } else this.checksums.changed.touch(page - checksumFirstPage);
    }
  }

  /** Everything else that changed. Its content is encoded when it is asked for: later is as good (replay ends the same). */
  takeDirty(sessions: Uint8Array[] | null): DirtyPages {
    const { bitmapFirstPage, pagesPerBitmap, checksumFirstPage } = this.layout;
    const owedFirst = bitmapFirstPage + OWED_SLOT * pagesPerBitmap;
    const pages = [
      ...(sessions ?? []).map((_, i) => i),
      ...this.owed.changed.take().map((page) => owedFirst + page),
      ...this.peers.takeChanged(this.layout),
      ...this.marks.takeChanged(this.layout),
      ...this.checksums.changed.take().map((page) => checksumFirstPage + page),
    ];
    const fill = (page: number, body: Uint8Array): void => {
      if (page < bitmapFirstPage) body.set(sessions![page]!);
      else if (page < checksumFirstPage) {
        const { bitmap, number } = this.bitmapPage(page);
        bitmap.encodePage(number, body);
      } else this.checksums.encodePage(page - checksumFirstPage, body);
    };
    return { pages, fill };
  }

  /** What each bitmap slot is used for, for the superblock. */
  bitmapUses(bitmaps: readonly BitmapUse[]): BitmapUse[] {
    return this.marks.uses(this.peers.uses(bitmaps));
  }

  get memoryBytes(): number {
    return this.checksums.memoryBytes;
  }
}
