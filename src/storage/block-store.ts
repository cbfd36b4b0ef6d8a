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
import type { Run } from './dirty-bitmap.ts';
import { type Files, io } from './files.ts';
import { type Batch, Journal, recordBytes } from './journal.ts';
import { type Layout, PAGE_BYTES } from './layout.ts';
import type { Marks } from './marks.ts';
import type { MetaPages } from './meta-pages.ts';
import { RECORD_KINDS, isControl } from './record.ts';
import type { SessionTable } from './session-table.ts';
import type { JournalTail, StoreHealth, Superblock } from './superblock.ts';
import type { StoreTables } from './tables.ts';

/** `data` is synced in the background whenever so much was applied, so that a checkpoint's own sync is short. */
const DATA_SYNC_BYTES = 64 * MiB;

/** Blocks of zeros that may wait for the checkpoint that makes them durable: 128 MiB. */
const MAX_ZEROED_BLOCKS = 32_768;

/** What an opening hands to the store (see open-store.ts). */
export interface OpenedParts {
  files: Files;
  layout: Layout;
  superblock: Superblock;
  meta: MetaPages;
  tables: StoreTables;
  head: JournalTail;
  last: Position;
  durable: boolean;
  defer: (run: () => void) => void;
}

export interface StoreCounters {
  batches: number;
  journalBytes: number;
  metaBytes: number;
  checkpoints: number;
  appliedRecords: number;
  appliedBytes: number;
  corruptBlocks: number;
  /** Longest stretch in which writers had to wait for room in the journal is measured by the layer above. */
  journalUsedBytes: number;
  owedBlocks: number;
  memoryBytes: number;
}

export class BlockStore implements ReplicatedStore {
  readonly sizeBytes: number;
  readonly blocks: number;
  readonly epoch: number;
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
    this.epoch = superblock.epoch;
    this.volumeId = superblock.volumeId;
    this.name = superblock.name;
    this.durable = parts.durable;
    this.last = parts.last;
    this.committed = parts.last;
    this.appliedTail = parts.head;
    this.appliedPosition = parts.last;
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

  get lastPosition(): Position {
    return this.last;
  }
  get committedPosition(): Position {
    return this.committed;
  }
  get marks(): Marks {
    return this.tables.marks;
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

  counters(): StoreCounters {
    return {
      batches: this.journal.batchesWritten,
      journalBytes: this.journal.bytesWritten,
      metaBytes: this.meta.bytesWritten,
      checkpoints: this.checkpoints,
      appliedRecords: this.appliedRecords,
      appliedBytes: this.appliedBytes,
      corruptBlocks: this.corruptBlocks,
      journalUsedBytes: this.journal.usedBytes,
      owedBlocks: this.tables.owed.count,
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
    assert(comparePositions(record, this.last) > 0 && record.seq === this.last.seq + 1, 'not the successor');
    assert(this.failure === null && !this.closed, 'append to a store that has stopped');
    this.last = { epoch: record.epoch, seq: record.seq };
    const bytes = recordBytes(record.kind === RECORD_KINDS.ZERO ? 0 : record.blockCount);
    this.uncommittedBytes.push({ position: this.last, bytes });
    this.uncommittedSum += bytes;
    this.tables.noteAppended(record, record.slot.payload);
    this.journal.append(record);
  }

  private batchDurable(batch: Batch): void {
    this.batches.push(batch);
    for (const record of batch.records) this.batchOf.set(record, batch);
    const { epoch, seq } = batch.records[batch.records.length - 1]!;
    this.events.durable({ epoch, seq });
    this.maybeCheckpoint();
  }

  commit(position: Position): void {
    if (comparePositions(position, this.committed) <= 0) return;
    this.committed = position;
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
    assert(comparePositions(record, this.committed) <= 0, 'only what is committed is applied');
    assert(this.batchOf.has(record), 'only what is durable is applied');
    if (record.kind !== RECORD_KINDS.WRITE) {
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
      const { epoch, seq } = passed.records[passed.records.length - 1]!;
      this.appliedPosition = { epoch, seq };
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

  /** The next run of blocks that zeros are owed, or null. */
  nextOwed(from: number, limit: number): Run | null {
    if (this.tables.zeroedCount >= MAX_ZEROED_BLOCKS) return null;
    for (let at = from; ;) {
      const run = this.tables.owed.nextRun(at, limit);
      if (run === null) return null;
      let zeroed = 0;
      while (zeroed < run.count && this.tables.isZeroed(run.first + zeroed)) zeroed++;
      let end = zeroed;
      while (end < run.count && !this.tables.isZeroed(run.first + end)) end++;
      if (end > zeroed) return { first: run.first + zeroed, count: end - zeroed };
      at = run.first + run.count;
    }
  }

  /** Writes zeros into owed blocks of the range, which the caller keeps everybody else away from. */
  async zeroOwed(first: number, count: number): Promise<void> {
    for (let at = first; at < first + count;) {
      let end = at;
      while (end < first + count && this.tables.owed.has(end) && this.isHole(end)) end++;
      if (end === at) {
        // Live data is owed nothing; such a bit comes back from a crash between a write and its checkpoint.
        this.tables.owed.clear(at);
        at++;
        continue;
      }
      const from = at;
      await io((done) =>
        this.files.zero(from * BLOCK_BYTES, (end - from) * BLOCK_BYTES, this.superblock.sparse, done),
      ).catch((error: HoldfastError) => {
        this.fail('write zeros', error);
        throw this.failure!;
      });
      for (let block = at; block < end; block++) this.tables.zeroWritten(block);
      this.appliedSinceSync += (end - at) * BLOCK_BYTES;
      at = end;
    }
  }

  /** Owed blocks whose zeros are written become durable, and are owed no longer, with a checkpoint. */
  settleZeroed(): void {
    if (this.tables.zeroedCount > 0 && this.checkpointing === null && this.failure === null && !this.closed) {
      void this.checkpoint().catch(() => {});
    }
  }

  get owedBlocks(): number {
    return this.tables.owed.count;
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
        headBatchNo: this.journal.durableBatchNo,
        ...change,
        bitmaps: this.tables.marks.uses(this.superblock.bitmaps),
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

/** CRC of n blocks of zeros. */
const CRC_OF_ZEROS = Array.from({ length: MAX_IO_BLOCKS + 1 }, (_, n) => crc32(new Uint8Array(n * BLOCK_BYTES)));
