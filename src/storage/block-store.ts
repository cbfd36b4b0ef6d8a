/**
 * The block store: one replica on one machine. Journal, checkpoint and tables put together as a ReplicatedStore.
 *
 * Guarantees: `data` and the checksum entries change only by applying durable journal records (I9); the tail passes no
 * record that is not applied and synced; every block is verified before it is handed out; after a failed write or sync
 * the store is poisoned: nothing is acknowledged, nothing is retried. All I/O goes through the injected `Files`.
 */
import assert from 'node:assert/strict';
import { ENTRY_ZERO, crc32 } from '../base/checksum.ts';
import { HoldfastError } from '../base/errors.ts';
import { type Position, comparePositions } from '../base/position.ts';
import { BLOCK_BYTES, MAX_IO_BLOCKS, MiB } from '../base/units.ts';
import type { LogRecord, ReplicatedStore, StoreEvents } from '../replication/store.ts';
import type { Slot } from './arena.ts';
import { type Files, io } from './files.ts';
import { type Batch, Journal, recordBytes } from './journal.ts';
import { type Layout, PAGE_BYTES } from './layout.ts';
import type { Marks } from './marks.ts';
import type { MetaPages } from './meta-pages.ts';
import { OwedBlocks } from './owed-blocks.ts';
import type { PeerBitmaps } from './peer-bitmaps.ts';
import { hasPayload, isControl, isLocal, writesBlocks } from './record.ts';
import type { SessionTable } from './session-table.ts';
import type { JournalTail, ReplicaInfo, StoreHealth, Superblock } from './superblock.ts';
import type { StoreTables } from './tables.ts';

/** `data` is synced in the background whenever so much was applied, so that a checkpoint's own sync is short. */
const DATA_SYNC_BYTES = 64 * MiB;

/** What an opening hands to the store (see open-store.ts). */
export interface OpenedParts {
  files: Files;
  layout: Layout;
  superblock: Superblock;
  meta: MetaPages;
  tables: StoreTables;
  head: JournalTail;
  last: Position;
  committed: Position;
  durable: boolean;
  defer: (run: () => void) => void;
}

export class BlockStore implements ReplicatedStore {
  readonly sizeBytes: number;
  readonly blocks: number;
  readonly volumeId: Uint8Array;
  readonly name: string;
  private readonly files: Files;
  private readonly layout: Layout;
  private readonly meta: MetaPages;
  private readonly tables: StoreTables;
  private readonly journal: Journal;
  /** fsync before acknowledgment, in this opening. */
  readonly durable: boolean;
  private events: StoreEvents = { durable: () => {}, room: () => {}, failed: () => {} };
  private superblock: Superblock;
  private last: Position;
  private committed: Position;
  private durablePosition: Position;
  /** Batches that the tail has not passed, oldest first. */
  private batches: Batch[] = [];
  private batchOf: Map<LogRecord, Batch> = new Map();
  /** Everything before it is applied. */
  private appliedTail: JournalTail;
  private appliedPosition: Position;
  private uncommittedBytes: Array<{ position: Position; bytes: number }> = [];
  private uncommittedSum = 0;
  private reservedBytes = 0;
  private wantsRoom = false;
  private checkpointing: Promise<void> | null = null;
  private appliedSinceSync = 0;
  private syncingData = false;
  private parked: Array<{ record: LogRecord; done: (error: HoldfastError | null) => void }> = [];
  /** Blocks that are owed zeros. */
  readonly owed: OwedBlocks;
  private failure: HoldfastError | null = null;
  private closed = false;
  private checkpoints = 0;
  private appliedRecords = 0;
  private appliedBytes = 0;
  private corruptBlocks = 0;

  constructor(parts: OpenedParts) {
    const { files, layout, superblock } = parts;
    this.files = files;
    this.layout = layout;
    this.superblock = superblock;
    this.meta = parts.meta;
    this.tables = parts.tables;
    this.sizeBytes = layout.sizeBytes;
    this.blocks = layout.blocks;
    this.volumeId = superblock.volumeId;
    this.name = superblock.name;
    this.durable = parts.durable;
    this.last = parts.last;
    this.durablePosition = parts.last;
    this.committed = parts.committed;
    this.appliedTail = parts.head;
    this.appliedPosition = parts.last;
    this.owed = new OwedBlocks({
      files,
      tables: parts.tables,
      sparse: superblock.sparse,
      fail: (operation, cause) => {
        this.fail(operation, cause);
        return this.failure!;
      },
      wrote: (bytes) => (this.appliedSinceSync += bytes),
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
  }

  listen(events: StoreEvents): void {
    this.events = events;
  }

  /** The newest epoch that this disk was opened in, or has promised itself to. */
  get epoch(): number {
    return this.superblock.epoch;
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
    return this.superblock.replica;
  }
  get diskId(): Uint8Array {
    return this.superblock.diskId;
  }
  get sessions(): SessionTable {
    return this.tables.sessions;
  }
  /** Everything up to here is applied, and its session pairs are in the table. */
  get settledPosition(): Position {
    return this.appliedPosition;
  }
  get health(): StoreHealth {
    return this.superblock.health;
  }
  get healthReason(): string {
    return this.superblock.healthReason;
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
      batches: this.journal.batchesWritten,
      journalBytes: this.journal.bytesWritten,
      metaBytes: this.meta.bytesWritten,
      checkpoints: this.checkpoints,
      appliedRecords: this.appliedRecords,
      appliedBytes: this.appliedBytes,
      corruptBlocks: this.corruptBlocks,
      journalUsedBytes: this.journal.usedBytes,
      owedBlocks: this.owed.count,
      memoryBytes: this.tables.memoryBytes,
    };
  }

  // --- append, durable, commit ---------------------------------------------------------------------------------

  hasRoom(payloadBlocks: number): boolean {
    const bytes = recordBytes(payloadBlocks) + this.reservedBytes;
    const room =
      this.journal.fits(bytes, this.layout.clientRoomBytes) &&
      this.uncommittedSum + bytes <= this.layout.uncommittedBytes;
    if (!room) {
      this.wantsRoom = true;
      this.maybeCheckpoint();
    }
    return room;
  }

  reserve(payloadBlocks: number): void {
    this.reservedBytes += recordBytes(payloadBlocks) + PAGE_BYTES;
  }

  unreserve(payloadBlocks: number): void {
    this.reservedBytes -= recordBytes(payloadBlocks) + PAGE_BYTES;
  }

  append(record: LogRecord): void {
    assert(this.failure === null && !this.closed, 'append to a store that has stopped');
    if (!isLocal(record.kind)) {
      // The first record of an epoch follows the last one that its primary had, which may not be ours.
      assert(record.epoch > this.last.epoch || this.follows(record), 'not the successor');
      this.last = { epoch: record.epoch, seq: record.seq };
      const bytes = recordBytes(hasPayload(record.kind) ? record.blockCount : 0);
      this.uncommittedBytes.push({ position: this.last, bytes });
      this.uncommittedSum += bytes;
    }
    this.tables.noteAppended(record, record.slot.payload, this.committed);
    this.journal.append(record);
  }

  private follows({ epoch, seq }: LogRecord): boolean {
    return epoch === this.last.epoch && seq === this.last.seq + 1;
  }

  private batchDurable(batch: Batch): void {
    this.batches.push(batch);
    for (const record of batch.records) this.batchOf.set(record, batch);
    const last = lastPositioned(batch.records);
    if (last !== null) {
      this.durablePosition = last;
      this.events.durable(last);
    }
    for (const record of batch.records) if (isLocal(record.kind)) this.events.localDurable?.(record);
    this.maybeCheckpoint();
  }

  commit(position: Position): void {
    if (comparePositions(position, this.committed) <= 0) return;
    this.committed = position;
    this.tables.peers.committed(position);
    let settled = 0;
    for (const entry of this.uncommittedBytes) {
      if (comparePositions(entry.position, position) > 0) break;
      this.uncommittedSum -= entry.bytes;
      settled++;
    }
    this.uncommittedBytes.splice(0, settled);
    this.offerRoom();
  }

  private offerRoom(): void {
    if (!this.wantsRoom) return;
    this.wantsRoom = false;
    this.events.room();
  }

  // --- apply ----------------------------------------------------------------------------------------------------

  apply(record: LogRecord, done: (error: HoldfastError | null) => void): void {
    assert(isLocal(record.kind) || comparePositions(record, this.committed) <= 0, 'only what is committed is applied');
    assert(this.batchOf.has(record), 'only what is durable is applied');
    if (!writesBlocks(record.kind)) {
      queueMicrotask(() => this.applied(record, done));
      return;
    }
    const bytes = record.slot.payload.subarray(0, record.blockCount * BLOCK_BYTES);
    this.files.write('data', bytes, record.firstBlock * BLOCK_BYTES, (error) => {
      if (this.failure !== null) return done(this.failure);
      if (error === null) {
        this.appliedBytes += bytes.length;
        this.appliedSinceSync += bytes.length;
        this.applied(record, done);
        this.maybeSyncData();
      } else if (error.code === 'NO_SPACE' && this.superblock.sparse) {
        // The record is safe in the journal; it stays there until the disk has room again.
        this.parked.push({ record, done });
      } else {
        this.fail('apply', error);
        done(this.failure);
      }
    });
  }

  private applied(record: LogRecord, done: (error: HoldfastError | null) => void): void {
    if (this.failure !== null) return done(this.failure);
    if (isControl(record.kind)) this.tables.applyControl(record, record.slot.payload);
    else this.tables.applyBlocks(record, record.slot.crcs);
    this.appliedRecords++;
    const batch = this.batchOf.get(record)!;
    this.batchOf.delete(record);
    batch.unapplied--;
    // Sessions are noted batch by batch, so that the table at a tail is exactly that of the records before it.
    while (this.batches.length > 0 && this.batches[0]!.unapplied === 0) {
      const passed = this.batches.shift()!;
      for (const one of passed.records) this.tables.applySession(one);
      this.appliedPosition = lastPositioned(passed.records) ?? this.appliedPosition;
      this.appliedTail = passed.next;
    }
    done(null);
    this.maybeCheckpoint();
  }

  /** Tries again to apply what a full disk held up. */
  retryParked(): void {
    for (const { record, done } of this.parked.splice(0)) this.apply(record, done);
  }

  // --- read -----------------------------------------------------------------------------------------------------

  readBlocks(first: number, count: number, slot: Slot, done: (error: HoldfastError | null, crc: number) => void): void {
    assert(count >= 1 && count <= slot.pages && first >= 0 && first + count <= this.blocks);
    if (this.failure !== null) {
      const error = this.failure;
      return queueMicrotask(() => done(error, 0));
    }
    const into = slot.payload.subarray(0, count * BLOCK_BYTES);
    if (!this.tables.checksums.copyOut(first, count, slot.crcs)) {
      into.fill(0);
      slot.crcs.fill(CRC_OF_ZEROS[1]!, 0, count);
      return queueMicrotask(() => done(null, CRC_OF_ZEROS[count]!));
    }
    this.files.readVerified({ into, crcs: slot.crcs, firstBlock: first, seed: this.tables.seed }, (error, crc) => {
      if (error?.code === 'CORRUPT_BLOCK') this.corruptBlocks++;
      done(error, crc);
    });
  }

  /** Whether the block was never written or is zeroed, by what is applied. */
  isHole(block: number): boolean {
    return this.tables.checksums.get(block) === ENTRY_ZERO;
  }

  /** End of the run of blocks of one kind from `block` on, at most `limit`. */
  runEnd(block: number, limit: number): number {
    return this.tables.checksums.runEnd(block, limit);
  }

  // --- zeros owed -----------------------------------------------------------------------------------------------

  /** Owed blocks whose zeros are written become durable, and are owed no longer, with a checkpoint. */
  settleZeroed(): void {
    if (this.tables.zeroedCount > 0 && this.checkpointing === null && this.failure === null && !this.closed) {
      void this.checkpoint().catch(() => {});
    }
  }

  // --- sync and checkpoint ----------------------------------------------------------------------------------------

  private maybeSyncData(): void {
    if (this.syncingData || this.appliedSinceSync < DATA_SYNC_BYTES || !this.durable) return;
    this.syncingData = true;
    this.appliedSinceSync = 0;
    this.files.sync('data', (error) => {
      this.syncingData = false;
      if (error !== null) this.fail('fdatasync of data', error);
      else this.maybeSyncData();
    });
  }

  private maybeCheckpoint(): void {
    if (this.journal.usedBytes < this.layout.checkpointAtBytes || this.checkpointing !== null || this.closed) return;
    // Nothing to gain while nothing behind the tail is applied: the next applied batch asks again.
    if (this.appliedTail.offsetBytes === this.superblock.tail.offsetBytes) return;
    void this.checkpoint().catch(() => {});
  }

  /** Moves the tail over everything that is applied. Concurrent calls share one run. */
  checkpoint(): Promise<void> {
    if (this.failure !== null) return Promise.reject(this.failure);
    if (this.checkpointing !== null) return this.checkpointing;
    return this.beginCheckpoint({});
  }

  private beginCheckpoint(change: Partial<Superblock>): Promise<void> {
    const run = this.runCheckpoint(change).finally(() => {
      this.checkpointing = null;
      this.maybeCheckpoint();
    });
    this.checkpointing = run;
    return run;
  }

  private async runCheckpoint(change: Partial<Superblock>): Promise<void> {
    const tail = { ...this.appliedTail };
    const sessions = this.tables.takeSessions();
    const zeroed = this.tables.zeroedBlocks();
    try {
      await io((done) => this.files.sync('data', done));
      this.tables.settleZeroed(zeroed);
      const { pages, fill } = this.tables.takeDirty(sessions);
      const next: Superblock = {
        ...this.superblock,
        tail,
        committed: this.committed,
        last: this.durablePosition,
        headBatchNo: this.journal.durableBatchNo,
        ...change,
        bitmaps: this.tables.bitmapUses(this.superblock.bitmaps),
        sequence: this.superblock.sequence + 1,
      };
      await this.meta.commit(next, pages, fill);
      this.superblock = next;
    } catch (error) {
      this.fail('checkpoint', error as HoldfastError);
      throw this.failure!;
    }
    this.checkpoints++;
    if (!this.closed) {
      this.journal.freeUpTo(tail.offsetBytes);
      this.offerRoom();
    }
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
    for (const { done } of this.parked.splice(0)) done(this.failure);
    this.events.failed(this.failure);
  }

  /**
   * Marks the store as poisoned on disk, best effort: the next opening is read-only until the loss was accepted. Only
   * a failed sync calls for it; a failed write is found again by replay.
   */
  async markPoisoned(reason: string): Promise<void> {
    await this.checkpointsOver();
    const next = { ...this.superblock, health: 'poisoned' as const, healthReason: reason };
    next.sequence++;
    await this.meta.commit(next, [], () => {}).catch(() => {});
  }

  /** Writes a superblock with that change, durably, with all that is applied. */
  async update(change: Partial<Pick<Superblock, 'epoch' | 'replica'>>): Promise<void> {
    await this.checkpointsOver();
    if (this.failure !== null) throw this.failure;
    await this.beginCheckpoint(change);
  }

  /** Declares a poisoned or damaged store good again, after its owner has accepted what may be lost. */
  async acceptLoss(): Promise<void> {
    await this.checkpointsOver();
    this.tables.renewDamaged();
    await this.beginCheckpoint({ health: 'good', healthReason: '' });
  }

  /** Until none runs: one that ends may have begun the next. */
  private async checkpointsOver(): Promise<void> {
    while (this.checkpointing !== null) await this.checkpointing.catch(() => {});
  }

  /**
   * Closes in good order: everything appended is durable and applied (the caller has seen to that), the journal is
   * empty and the superblock says so. A store that failed closes without writing.
   */
  async close(): Promise<void> {
    if (this.closed) return;
    await this.journal.idle();
    this.closed = true;
    await this.checkpointsOver();
    try {
      if (this.failure === null) await this.runCheckpoint({ clean: this.batches.length === 0 });
    } finally {
      this.journal.close();
      this.meta.close();
    }
  }
}

/** The last position among records of which some may have none. */
function lastPositioned(records: readonly LogRecord[]): Position | null {
  const last = records.findLast((record) => !isLocal(record.kind));
  return last === undefined ? null : { epoch: last.epoch, seq: last.seq };
}

/** CRC of n blocks of zeros. */
const CRC_OF_ZEROS = Array.from({ length: MAX_IO_BLOCKS + 1 }, (_, n) => crc32(new Uint8Array(n * BLOCK_BYTES)));
