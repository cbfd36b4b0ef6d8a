/**
 * Checkpoints: what is applied is synced, the tables' changed pages are written, and a superblock moves the tail. Pure
 * but for the injected `Files`.
 *
 * Guarantees: one at a time; the superblock in force names only what is durable; the tail passes nothing that is not
 * applied and synced; a failure stops the store.
 */
import type { HoldfastError } from '../base/errors.ts';
import type { Position } from '../base/position.ts';
import { MiB } from '../base/units.ts';
import { type Files, io } from './files.ts';
import type { Journal } from './journal.ts';
import type { Layout } from './layout.ts';
import type { MetaPages } from './meta-pages.ts';
import type { JournalTail, ReplicaInfo, Superblock } from './superblock.ts';
import type { StoreTables } from './tables.ts';

/** `data` is synced in the background whenever so much was applied, so that a checkpoint's own sync is short. */
const DATA_SYNC_BYTES = 64 * MiB;

/** What the store stands at. */
export interface Standing {
  /** Everything before it is applied. */
  tail: JournalTail;
  committed: Position;
  /** Last position that is durable here. */
  last: Position;
}

/** Of the replica's fields those that are given; the others stay what they are when it is written. */
export type SuperblockChange = Partial<Omit<Superblock, 'replica'>> & { replica?: Partial<ReplicaInfo> };

/** What the store's owner may change. */
export type StoreChange = Pick<SuperblockChange, 'epoch' | 'replica' | 'health' | 'healthReason' | 'sizeBytes'>;

export interface CheckpointsParts {
  files: Files;
  layout: Layout;
  meta: MetaPages;
  tables: StoreTables;
  journal: Journal;
  superblock: Superblock;
  durable: boolean;
  standing: () => Standing;
  /** The store stops; returns what to throw. */
  fail: (operation: string, cause: HoldfastError) => HoldfastError;
  /** Why the store has stopped, if it has. */
  failure: () => HoldfastError | null;
  /** The journal has room again. */
  freed: () => void;
}

export class Checkpoints {
  /** The superblock in force. */
  superblock: Superblock;
  /** The highest epoch whose EPOCH record is applied. */
  groupEpoch: number;
  /** How many were made. */
  count = 0;
  closed = false;
  private readonly o: CheckpointsParts;
  private running: Promise<void> | null = null;
  private appliedSinceSync = 0;
  private syncingData = false;

  constructor(parts: CheckpointsParts) {
    this.o = parts;
    this.superblock = parts.superblock;
    this.groupEpoch = parts.superblock.replica.groupEpoch;
  }

  get isRunning(): boolean {
    return this.running !== null;
  }

  get replica(): ReplicaInfo {
    return this.withGroup(this.superblock.replica);
  }

  private withGroup(replica: ReplicaInfo): ReplicaInfo {
    return { ...replica, groupEpoch: Math.max(replica.groupEpoch, this.groupEpoch) };
  }

  /** So many bytes of `data` wait for a sync now. */
  wrote(bytes: number): void {
    this.appliedSinceSync += bytes;
  }

  maybeSyncData(): void {
    if (this.syncingData || this.appliedSinceSync < DATA_SYNC_BYTES || !this.o.durable) return;
    this.syncingData = true;
    this.appliedSinceSync = 0;
    this.o.files.sync('data', (error) => {
      this.syncingData = false;
      if (error !== null) this.o.fail('fdatasync of data', error);
      else this.maybeSyncData();
    });
  }

  /** Begins one if the journal is full enough. */
  maybe(): void {
    const { journal, layout, standing } = this.o;
    if (journal.usedBytes < layout.checkpointAtBytes || this.running !== null || this.closed) return;
    // Nothing to gain while nothing behind the tail is applied: the next applied batch asks again.
    if (standing().tail.offsetBytes === this.superblock.tail.offsetBytes) return;
    void this.run().catch(() => {});
  }

  /** Moves the tail over everything that is applied. Concurrent calls share one run. */
  run(): Promise<void> {
    const failure = this.o.failure();
    if (failure !== null) return Promise.reject(failure);
    return this.running ?? this.begin({});
  }

  /** One of its own, whose superblock says something new. Calls follow one another. */
  async update(change: SuperblockChange): Promise<void> {
    // Looked at again behind each wait, with nothing in between: of several that waited one begins.
    while (this.running !== null) await this.running.catch(() => {});
    const failure = this.o.failure();
    if (failure !== null) throw failure;
    await this.begin(change);
  }

  private begin(change: SuperblockChange): Promise<void> {
    const run = this.make(change).finally(() => {
      this.running = null;
      this.maybe();
    });
    this.running = run;
    return run;
  }

  /** Until none runs: one that ends may have begun the next. */
  async over(): Promise<void> {
    while (this.running !== null) await this.running.catch(() => {});
  }

  /** The last one. */
  async close(change: SuperblockChange): Promise<void> {
    this.closed = true;
    await this.over();
    if (this.o.failure() === null) await this.make(change);
  }

  private async make({ replica, ...change }: SuperblockChange): Promise<void> {
    const { files, tables, meta, journal } = this.o;
    const { tail } = this.o.standing();
    const sessions = tables.takeSessions();
    const zeroed = tables.zeroedBlocks();
    try {
      await io((done) => files.sync('data', done));
      tables.settleZeroed(zeroed);
      const { pages, fill } = tables.takeDirty(sessions);
      const { committed, last } = this.o.standing();
      const next: Superblock = {
        ...this.superblock,
        tail: { ...tail },
        committed,
        last,
        headBatchNo: journal.durableBatchNo,
        ...change,
        replica: this.withGroup({ ...this.superblock.replica, ...replica }),
        bitmaps: tables.bitmapUses(this.superblock.bitmaps),
        sequence: this.superblock.sequence + 1,
      };
      await meta.commit(next, pages, fill);
      this.superblock = next;
    } catch (error) {
      throw this.o.fail('checkpoint', error as HoldfastError);
    }
    this.count++;
    if (this.closed) return;
    journal.freeUpTo(tail.offsetBytes);
    this.o.freed();
  }

  /** Best effort, whatever has failed. */
  async markPoisoned(reason: string): Promise<void> {
    await this.over();
    const next = { ...this.superblock, health: 'poisoned' as const, healthReason: reason };
    next.sequence++;
    await this.o.meta.commit(next, [], () => {}).catch(() => {});
  }
}
