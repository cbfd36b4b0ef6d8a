/**
 * The block store: one replica on one machine. Journal, checkpoint and tables put together as a ReplicatedStore.
 *
 * Guarantees: `data` and the checksum entries change only by applying durable journal records (I9); the tail passes no
 * record that is not applied and synced; every block is verified before it is handed out; after a failed write or sync
 * the store is poisoned: nothing is acknowledged, nothing is retried. All I/O goes through the injected `Files`.
 */
import assert from 'node:assert/strict';
import { HoldfastError } from '../base/errors.ts';
import { type Position, comparePositions } from '../base/position.ts';
import { BLOCK_BYTES } from '../base/units.ts';
import type { ContentObserver, LogRecord, ReplicatedStore, StoreEvents, StoreRules } from '../replication/store.ts';
import type { Slot } from './arena.ts';
import { Checkpoints, type StoreChange } from './checkpoint.ts';
import type { Files } from './files.ts';
import { type Batch, Journal, recordBytes } from './journal.ts';
import { type Layout, PAGE_BYTES } from './layout.ts';
import type { Marks } from './marks.ts';
import type { MetaPages } from './meta-pages.ts';
import type { OpenedParts } from './opened-parts.ts';
import { OwedBlocks } from './owed-blocks.ts';
import type { PeerBitmaps } from './peer-bitmaps.ts';
import { RECORD_KINDS, type RecordFields, hasPayload, isControl, isLocal, writesBlocks } from './record.ts';
import type { SessionTable } from './session-table.ts';
import type { JournalTail, ReplicaInfo, StoreHealth, Superblock, VolumeKind } from './superblock.ts';
import type { StoreTables } from './tables.ts';
import { Uncommitted } from './uncommitted.ts';
import { Repairs, VerifiedBlocks } from './verified-blocks.ts';

/** Of the journal, kept free whatever a peer sends. */
const SPARE_PAGES = 16;

export class BlockStore implements ReplicatedStore {
  /** What its files have room for: a volume that grows has more than its size. */
  readonly capacityBlocks: number;
  readonly volumeId: Uint8Array;
  readonly kind: VolumeKind;
  readonly name: string;
  private readonly files: Files;
  private readonly layout: Layout;
  private readonly meta: MetaPages;
  private readonly tables: StoreTables;
  private readonly journal: Journal;
  readonly rules: StoreRules;
  /** fsync before acknowledgment, in this opening. */
  readonly durable: boolean;
  private events: StoreEvents = { durable: () => {}, room: () => {}, failed: () => {} };
  private readonly checkpoints: Checkpoints;
  private last: Position;
  private committed: Position;
  /** Last position that is durable here. */
  durablePosition: Position;
  /** Records up to here may be applied: committed, or remembered as suspect. */
  private mayApply: Position;
  /** Batches that the tail has not passed, oldest first. */
  private batches: Batch[] = [];
  private batchOf: Map<LogRecord, Batch> = new Map();
  /** Everything before it is applied. */
  private appliedTail: JournalTail;
  private appliedPosition: Position;
  private readonly uncommitted = new Uncommitted();
  /** Of the newest EPOCH record that was appended. */
  private epochAppended = 0;
  private observer: ContentObserver | null = null;
  private wantsRoom = false;
  private parked: Array<{ record: LogRecord; done: (error: HoldfastError | null) => void }> = [];
  /** Blocks that are owed zeros. */
  readonly owed: OwedBlocks;
  private failure: HoldfastError | null = null;
  private closed = false;
  private appliedRecords = 0;
  private appliedBytes = 0;
  /** Blocks that were taken from another replica, because they had rotted here. */
  readonly repairs: Repairs = new Repairs();
  private readonly verified: VerifiedBlocks;

  constructor(parts: OpenedParts) {
    const { files, layout, superblock } = parts;
    this.files = files;
    this.verified = new VerifiedBlocks(files, parts.tables, (block) => this.events.corrupt?.(block));
    this.layout = layout;
    this.meta = parts.meta;
    this.tables = parts.tables;
    this.rules = parts.rules;
    this.capacityBlocks = layout.blocks;
    this.volumeId = superblock.volumeId;
    this.kind = superblock.kind;
    this.name = superblock.name;
    this.durable = parts.durable;
    this.last = parts.last;
    this.durablePosition = parts.last;
    this.mayApply = parts.last;
    this.committed = parts.committed;
    this.appliedTail = parts.head;
    this.appliedPosition = parts.last;
    const fail = (operation: string, cause: HoldfastError): HoldfastError => {
      this.fail(operation, cause);
      return this.failure!;
    };
    this.owed = new OwedBlocks({
      files,
      tables: parts.tables,
      sparse: superblock.sparse,
      fail,
      wrote: (bytes) => this.checkpoints.wrote(bytes),
    });
    this.journal = new Journal({
      files,
      layout,
      volumeId: superblock.volumeId,
      diskId: superblock.diskId,
      tail: superblock.tail,
      head: parts.head,
      durable: parts.durable,
      defer: parts.defer,
      onDurable: (batch) => this.batchDurable(batch),
      onFailed: (error) => this.fail('journal write', error),
    });
    this.checkpoints = new Checkpoints({
      files,
      layout,
      meta: parts.meta,
      tables: parts.tables,
      journal: this.journal,
      superblock,
      durable: parts.durable,
      standing: () => ({ tail: this.appliedTail, committed: this.committed, last: this.durablePosition }),
      fail,
      failure: () => this.failure,
      freed: () => this.offerRoom(),
    });
  }

  listen(events: StoreEvents): void {
    this.events = events;
  }

  observe(observer: ContentObserver): void {
    this.observer = observer;
  }

  get superblock(): Readonly<Superblock> {
    return this.checkpoints.superblock;
  }
  /** Of the volume: it may rise while the store is open. */
  get sizeBytes(): number {
    return this.superblock.sizeBytes;
  }
  get blocks(): number {
    return this.superblock.sizeBytes / BLOCK_BYTES;
  }
  /** The newest epoch that this disk was opened in, or has promised itself to. */
  get epoch(): number {
    return this.checkpoints.superblock.epoch;
  }
  get lastPosition(): Position {
    return this.last;
  }
  get committedPosition(): Position {
    return this.committed;
  }
  get marks(): Marks {
    return this.tables.marks;
  }
  get peers(): PeerBitmaps {
    return this.tables.peers;
  }
  get replica(): ReplicaInfo {
    return this.checkpoints.replica;
  }
  get diskId(): Uint8Array {
    return this.checkpoints.superblock.diskId;
  }
  get sessions(): SessionTable {
    return this.tables.sessions;
  }
  /** Everything up to here is applied, and its session pairs are in the table. */
  get settledPosition(): Position {
    return this.appliedPosition;
  }
  get health(): StoreHealth {
    return this.checkpoints.superblock.health;
  }
  get healthReason(): string {
    return this.checkpoints.superblock.healthReason;
  }
  /** The error that stopped the store, if it has stopped. */
  get failed(): HoldfastError | null {
    return this.failure;
  }
  /** The disk of a sparse volume is full: no writes are taken until `retryParked` succeeds. */
  get outOfSpace(): boolean {
    return this.parked.length > 0;
  }

  /** Since the opening; bytes and blocks in use now. */
  counters(): { [name: string]: number } & { batches: number; journalBytes: number; checkpoints: number } {
    return {
      ...this.journal.counters(),
      metaBytes: this.meta.bytesWritten,
      checkpoints: this.checkpoints.count,
      appliedRecords: this.appliedRecords,
      appliedBytes: this.appliedBytes,
      corruptBlocks: this.verified.corrupt,
      rottenBlocks: this.verified.rottenBlocks,
      repairedBlocks: this.repairs.blocks,
      owedBlocks: this.owed.count,
      memoryBytes: this.tables.memoryBytes,
    };
  }

  // --- append, durable, commit ---------------------------------------------------------------------------------

  hasRoom(payloadBlocks: number): boolean {
    const bytes = recordBytes(payloadBlocks) + this.uncommitted.reservedBytes;
    const room =
      this.journal.fits(bytes, this.layout.clientRoomBytes) &&
      this.uncommitted.bytes + bytes <= this.layout.uncommittedBytes;
    if (!room) {
      this.wantsRoom = true;
      this.checkpoints.maybe();
    }
    return room;
  }

  /** Whether a record that a peer sends may be appended: it may use the room that clients' records may not. */
  hasRoomForPeer(payloadBlocks: number): boolean {
    const room = this.journal.fits(recordBytes(payloadBlocks), this.layout.journalBytes - SPARE_PAGES * PAGE_BYTES);
    if (!room) {
      this.wantsRoom = true;
      this.checkpoints.maybe();
    }
    return room;
  }

  /** So many bytes of records may be uncommitted at a time. */
  get uncommittedLimitBytes(): number {
    return this.layout.uncommittedBytes;
  }

  reserve(payloadBlocks: number): void {
    this.uncommitted.reserve(payloadBlocks);
  }

  unreserve(payloadBlocks: number): void {
    this.uncommitted.unreserve(payloadBlocks);
  }

  append(record: LogRecord): void {
    assert(this.failure === null && !this.closed, 'append to a store that has stopped');
    if (!isLocal(record.kind)) {
      // The first record of an epoch follows the last one that its primary had, which may not be ours.
      assert(record.epoch > this.last.epoch || this.follows(record), 'not the successor');
      this.last = { epoch: record.epoch, seq: record.seq };
      this.uncommitted.appended(this.last, hasPayload(record.kind) ? record.blockCount : 0);
    }
    if (record.kind === RECORD_KINDS.EPOCH) this.epochAppended = record.epoch;
    this.tables.noteAppended(record, record.slot.payload, this.committed);
    if (this.observer !== null && !isControl(record.kind)) this.observer.appended(record, !this.counts(record));
    this.journal.append(record);
    if (!this.rules.journalFirst) this.writeBeside(record);
  }

  /** What a test sees go wrong: `data` changes while nobody knows whether the record will ever be in the journal. */
  private writeBeside({ kind, slot, firstBlock, blockCount }: LogRecord): void {
    if (!writesBlocks(kind)) return;
    const bytes = slot.payload.slice(0, blockCount * BLOCK_BYTES);
    this.files.write('data', bytes, firstBlock * BLOCK_BYTES, () => {});
  }

  private follows({ epoch, seq }: LogRecord): boolean {
    return epoch === this.last.epoch && seq === this.last.seq + 1;
  }

  private batchDurable(batch: Batch): void {
    this.batches.push(batch);
    for (const record of batch.records) this.batchOf.set(record, batch);
    if (batch.last !== null) this.events.durable((this.durablePosition = batch.last));
    for (const record of batch.records) if (isLocal(record.kind)) this.events.localDurable?.(record);
    this.checkpoints.maybe();
  }

  commit(position: Position): void {
    if (comparePositions(position, this.committed) <= 0) return;
    this.committed = position;
    if (comparePositions(position, this.mayApply) > 0) this.mayApply = position;
    this.tables.peers.committed(position);
    this.uncommitted.committed(position);
    this.offerRoom();
  }

  private offerRoom(): void {
    if (!this.wantsRoom) return;
    this.wantsRoom = false;
    this.events.room();
  }

  // --- apply ----------------------------------------------------------------------------------------------------

  apply(record: LogRecord, done: (error: HoldfastError | null) => void): void {
    const may = isLocal(record.kind) || comparePositions(record, this.mayApply) <= 0;
    assert(may || !this.rules.commitFirst, 'only what is committed is applied');
    assert(this.batchOf.has(record), 'only what is durable is applied');
    if (!writesBlocks(record.kind) || !this.counts(record)) {
      queueMicrotask(() => this.applied(record, done));
      return;
    }
    const bytes = record.slot.payload.subarray(0, record.blockCount * BLOCK_BYTES);
    this.files.write('data', bytes, record.firstBlock * BLOCK_BYTES, (error) => {
      if (this.failure !== null) return done(this.failure);
      if (error === null) {
        this.appliedBytes += bytes.length;
        this.checkpoints.wrote(bytes.length);
        this.applied(record, done);
        this.checkpoints.maybeSyncData();
      } else if (error.code === 'NO_SPACE' && this.checkpoints.superblock.sparse) {
        // The record is safe in the journal; it stays there until the disk has room again.
        this.parked.push({ record, done });
      } else {
        this.fail('apply', error);
        done(this.failure);
      }
    });
  }

  /**
   * The records that open an epoch count together or not at all: one whose EPOCH record never came here has no effect,
   * as a recovery would have it. Its blocks stay suspect.
   */
  private counts({ kind, epoch }: LogRecord): boolean {
    if (isLocal(kind) || epoch <= this.epochAppended || !this.rules.wholeGroups) return true;
    const { state, groupEpoch } = this.checkpoints.superblock.replica;
    return state === 'solo' || epoch <= Math.max(groupEpoch, this.checkpoints.groupEpoch);
  }

  private applied(record: LogRecord, done: (error: HoldfastError | null) => void): void {
    if (this.failure !== null) return done(this.failure);
    const counts = this.counts(record);
    if (counts && isControl(record.kind)) this.tables.applyControl(record, record.slot.payload, this.committed);
    if (record.kind === RECORD_KINDS.EPOCH) this.checkpoints.groupEpoch = record.epoch;
    if (counts && !isControl(record.kind)) {
      this.tables.applyBlocks(record, record.slot.crcs);
      this.verified.replaced(record);
    }
    if (this.observer !== null && !isControl(record.kind)) this.observer.applied(record, counts);
    this.appliedRecords++;
    if (record.kind === RECORD_KINDS.REPAIR) this.repairs.note(record);
    const batch = this.batchOf.get(record)!;
    this.batchOf.delete(record);
    batch.unapplied--;
    // Sessions are noted batch by batch, so that the table at a tail is exactly that of the records before it.
    while (this.batches.length > 0 && this.batches[0]!.unapplied === 0) {
      const passed = this.batches.shift()!;
      for (const one of passed.records) this.tables.applySession(one);
      this.appliedPosition = passed.last ?? this.appliedPosition;
      this.appliedTail = passed.next;
    }
    done(null);
    this.checkpoints.maybe();
  }

  /** Resolves once nothing is on its way into the journal: the memory of records may be used again. */
  journalIdle(): Promise<void> {
    return this.journal.idle();
  }

  /** Tries again to apply what a full disk held up. */
  retryParked(): void {
    for (const { record, done } of this.parked.splice(0)) this.apply(record, done);
  }

  // --- read -----------------------------------------------------------------------------------------------------

  readBlocks(first: number, count: number, slot: Slot, done: (error: HoldfastError | null, crc: number) => void): void {
    assert(count >= 1 && count <= slot.pages && first >= 0 && first + count <= this.capacityBlocks);
    if (this.failure !== null) {
      const error = this.failure;
      return queueMicrotask(() => done(error, 0));
    }
    this.verified.read(first, count, slot, done);
  }

  /** Whether the block was never written or is zeroed, by what is applied. */
  isHole(block: number): boolean {
    return this.verified.isHole(block);
  }

  /** Whether these bytes are what the block holds, by what is applied. */
  isContent(block: number, bytes: Uint8Array): boolean {
    return this.verified.isContent(block, bytes);
  }

  /** End of the run of blocks of one kind from `block` on, at most `limit`. */
  runEnd(block: number, limit: number): number {
    return this.tables.checksums.runEnd(block, limit);
  }

  // --- zeros owed -----------------------------------------------------------------------------------------------

  /** Owed blocks whose zeros are written become durable, and are owed no longer, with a checkpoint. */
  settleZeroed(): void {
    if (this.tables.zeroedCount > 0 && !this.checkpoints.isRunning && this.failure === null && !this.closed) {
      void this.checkpoint().catch(() => {});
    }
  }

  /** Moves the tail over everything that is applied. Concurrent calls share one run. */
  checkpoint(): Promise<void> {
    return this.checkpoints.run();
  }

  // --- failure and close ----------------------------------------------------------------------------------------

  /** Stops the store for good: what the disk holds after a failed write or sync is not known. */
  private fail(operation: string, cause: HoldfastError): void {
    if (this.failure !== null) return;
    this.failure =
      cause.code === 'POISONED'
        ? cause
        : new HoldfastError('POISONED', {
            operation,
            volume: this.name,
            detail: cause.message,
            remedy: 'check the disk, then start the server again: it recovers from the journal',
            cause,
          });
    const parked = this.parked.splice(0);
    // First everybody learns that nothing may be appended any more; then memory comes back.
    this.events.failed(this.failure);
    for (const { done } of parked) done(this.failure);
  }

  /**
   * Marks the store as poisoned on disk, best effort: the next opening is read-only until the loss was accepted. Only
   * a failed sync calls for it; a failed write is found again by replay.
   */
  async markPoisoned(reason: string): Promise<void> {
    await this.checkpoints.markPoisoned(reason);
  }

  /**
   * Everything appended is made durable, and what is not known to be committed is remembered, durably, as suspect: it
   * may be applied from now on, and the tail may pass it.
   */
  async suspectUncommitted(): Promise<void> {
    await this.journal.idle();
    this.tables.peers.suspectRecent(this.rules.suspectAtSettle);
    await this.update({});
    this.mayApply = this.last;
  }

  /** The session table as another replica has it at `at`, and what was logged since. */
  installSessions(bodies: readonly Uint8Array[], at: Position, since: readonly RecordFields[]): void {
    this.tables.installSessions(bodies, at);
    for (const fields of since) this.tables.applySession(fields);
  }

  /** The next record is the one behind `position`: what lies before it came as copies. */
  skipTo(position: Position): void {
    this.last = this.durablePosition = { epoch: position.epoch, seq: position.seq };
    this.tables.peers.beginsAt = this.last;
  }

  /** Writes a superblock with that change, durably, with all that is applied. */
  async update(change: StoreChange): Promise<void> {
    await this.checkpoints.update(change);
  }

  /** Everything came from a replica in sync, or was equal to it: whatever was wrong before is good. */
  async becomeSound(replica: Partial<ReplicaInfo>): Promise<void> {
    await this.checkpoints.over();
    if (this.tables.isDamaged) this.tables.renewDamaged();
    await this.checkpoints.update({ replica, health: 'good', healthReason: '' });
  }

  /** Declares a poisoned or damaged store good again, after its owner has accepted what may be lost. */
  async acceptLoss(): Promise<void> {
    await this.checkpoints.over();
    this.tables.renewDamaged();
    await this.checkpoints.update({ health: 'good', healthReason: '' });
  }

  /**
   * Closes in good order: everything appended is durable and applied (the caller has seen to that), the journal is
   * empty and the superblock says so. A store that failed closes without writing.
   */
  async close(): Promise<void> {
    if (this.closed) return;
    await this.journal.idle();
    this.closed = true;
    try {
      await this.checkpoints.close({ clean: this.batches.length === 0 });
    } finally {
      this.journal.close();
      this.meta.close();
    }
  }
}
