/**
 * The key-value side of a replica: keeps its content in step with the store, and serves it in whatever role the replica
 * has.
 *
 * Guarantees: nothing is served before the content was read whole; what the core takes back is served no more.
 */
import { BLOCK_BYTES } from '../base/units.ts';
import { HoldfastError } from '../base/errors.ts';
import type { VolumeMeter } from '../base/meters.ts';
import { BackupKv } from '../kv/backup-kv.ts';
import { type BlockChange, type BlockReader, KvContent } from '../kv/content.ts';
import type { KvInfo, KvLimits, KvVolume } from '../kv/operations.ts';
import { type Describe, PrimaryKv } from '../kv/primary-kv.ts';
import { ALL_KV_RULES, type KvRules } from '../kv/rules.ts';
import { StaleKv } from '../kv/stale-kv.ts';
import type { BackupVolume } from '../replication/backup-volume.ts';
import { volumeInfoOf } from '../replication/checks.ts';
import type { PrimaryVolume } from '../replication/primary-volume.ts';
import type { LogRecord } from '../replication/store.ts';
import type { Arena, Slot } from '../storage/arena.ts';
import type { BlockStore } from '../storage/block-store.ts';
import { RECORD_KINDS, isLocal } from '../storage/record.ts';
import { AvailableKv } from './available-kv.ts';
import { type KvClock, VolumeKvLog } from './kv-log.ts';
import { KvServed } from './kv-served.ts';
import { MeasuredKv } from './measured-kv.ts';

/** The most that fits a record, and what holds unless it is set lower. */
export const KV_LIMITS: KvLimits = { maxKeyBytes: 4096, maxValueBytes: 196_608, maxTransactionBytes: 229_376 };

/** What `status` tells. */
export interface KvStatus {
  /** It answers GETs, as primary or under the primary's grants. */
  answers: boolean;
  keys: number;
  version: number;
  /** Of keys and values with their headers, and of what they take on disk. */
  liveBytes: number;
  usedBytes: number;
  /** How long it took to read the keys when it last did. */
  loadMs: number;
}

type About = ReturnType<Describe>;
/** With `available`: what is not answered by then is answered with what is known here. */
const PATIENCE_MS = 1000;

export interface KvHost extends KvClock {
  /** GETs are answered, marked as stale, when nobody vouches for an answer. */
  readonly available: boolean;
  /** Of keys and values that are written. Default: KV_LIMITS. */
  readonly limits?: KvLimits;
  readonly store: BlockStore;
  readonly arena: Arena;
  /** None: nothing is counted. */
  readonly meter?: VolumeMeter;
  /** Monotonic. */
  nowMs(): number;
  /** Whether the replica follows a primary now. */
  follows(): boolean;
  serve(served: KvServed, primary: boolean): void;
  unserve(served: KvServed, primary: boolean): void;
  log(level: 'info' | 'warn' | 'error', message: string, fields: object): void;
}

export class HostedKv {
  private readonly host: KvHost;
  private readonly rules: KvRules;
  readonly content: KvContent;
  /** Records of groups that open an epoch, until they are applied. */
  private readonly opening: Set<LogRecord> = new Set();
  /** Those of them that came from another primary, and may take batches apart. */
  private readonly tearing: Set<LogRecord> = new Set();
  private building = false;
  private retryAtMs = 0;
  private primaryVolume: PrimaryVolume | null = null;
  private backupVolume: BackupVolume | null = null;
  private primary: PrimaryKv | null = null;
  /** `linearizable`: what never answers with what is stale; null: there is nothing of the kind. */
  private served: {
    served: KvServed;
    primary: boolean;
    isolated: boolean;
    linearizable: KvVolume | null;
  } | null = null;
  private closed = false;
  /** How long the last build took. */
  private loadMs = 0;

  constructor(host: KvHost, rules: KvRules = ALL_KV_RULES) {
    this.host = host;
    this.rules = rules;
    const { store } = host;
    this.content = new KvContent(store.capacityBlocks, rules);
    store.observe({
      appended: (record, opening) => this.appended(record, opening),
      applied: (record, effect) => this.applied(record, effect),
    });
    if (store.replica.state !== 'syncing') void this.build();
  }

  /** What is served here, as primary or in sync with it; null: nothing. */
  get current(): KvVolume | null {
    return this.served?.linearizable ?? null;
  }

  /** As primary. */
  get serves(): boolean {
    return this.served?.primary === true;
  }

  private appended(record: LogRecord, opening: boolean): void {
    if (isLocal(record.kind)) return;
    // At a primary the group that opens an epoch says what is there already; at a backup it may take batches apart.
    if (opening) {
      this.opening.add(record);
      if (!this.host.follows() || !this.rules.rebuildAfterOpening) return;
      this.tearing.add(record);
      return this.content.invalidate();
    }
    this.content.appended(record, changeOf(record));
  }

  private applied(record: LogRecord, effect: boolean): void {
    const { kind } = record;
    if (kind === RECORD_KINDS.COPY || kind === RECORD_KINDS.COPY_ZERO) {
      if (this.rules.rebuildAfterCopies) this.content.invalidate();
      return;
    }
    if (isLocal(kind)) return;
    // What was read meanwhile may have been read before it.
    if (this.tearing.delete(record)) this.content.invalidate();
    if (this.opening.delete(record)) return;
    this.content.applied(record, changeOf(record), effect);
  }

  // --- roles ------------------------------------------------------------------------------------------------------------

  setPrimary(volume: PrimaryVolume | null): void {
    this.end();
    this.primaryVolume = volume;
    this.goOn();
  }

  setBackup(volume: BackupVolume | null): void {
    this.end();
    this.backupVolume = volume;
    this.goOn();
  }

  private end(): void {
    const { served, primary } = this;
    this.served = null;
    this.primary = null;
    if (served !== null) this.host.unserve(served.served, served.primary);
    // Whoever waits may ask the successor.
    primary?.end(
      new HoldfastError('NOT_PRIMARY', {
        operation: 'serve',
        volume: this.host.store.name,
        detail: 'this node is primary no more',
      }),
    );
  }

  /** Serves if there is a role to serve in and the content is whole; else sees to that. */
  private goOn(): void {
    if (this.closed || this.served !== null) return;
    const { primaryVolume, backupVolume, content, isolated } = this;
    const { store, arena, available, limits = KV_LIMITS } = this.host;
    if (isolated && !available) return;
    // What an opening group says of the blocks is not there yet.
    if (!isolated && this.tearing.size > 0) return;
    if (!content.valid) return store.replica.state === 'syncing' ? undefined : void this.build();
    const describe = (): About => this.describe();
    const stale = new StaleKv(content, limits, describe);
    let linearizable: KvVolume | null = null;
    if (primaryVolume !== null) {
      const log = new VolumeKvLog(primaryVolume, arena, this.host, this.rules);
      linearizable = this.primary = new PrimaryKv(log, content, limits, describe, this.rules);
    } else if (!isolated) {
      linearizable = new BackupKv(backupVolume!, content, limits, describe, this.rules);
    }
    const { meter } = this.host;
    if (linearizable !== null && meter !== undefined) linearizable = new MeasuredKv(linearizable, meter);
    const kv = !available
      ? linearizable!
      : linearizable === null
        ? stale
        : new AvailableKv(linearizable, stale, PATIENCE_MS);
    const { answers } = content.index;
    const vouches = (session: bigint, since: number): boolean => answers.knows(session) || since >= answers.forgotten;
    const under = { info: () => volumeInfoOf(store, false) };
    const served = new KvServed(kv, under, arena, vouches);
    this.served = { served, primary: primaryVolume !== null, isolated, linearizable };
    this.host.serve(this.served.served, this.served.primary);
  }

  /** Neither primary nor in sync with one. */
  private get isolated(): boolean {
    if (this.primaryVolume !== null) return false;
    return this.backupVolume === null || this.host.store.replica.state === 'syncing';
  }

  private describe(): About {
    const { name, replica, epoch, sizeBytes, durable } = this.host.store;
    const role = this.primaryVolume === null ? 'backup' : 'primary';
    const expiring = this.content.index.expiring.size;
    return { volume: name, role, state: replica.state, epoch, sizeBytes, expiring, durable };
  }

  private async build(): Promise<void> {
    if (this.building || this.closed) return;
    this.building = true;
    const startMs = this.host.nowMs();
    try {
      const built = await this.content.build(this.reader());
      this.loadMs = this.host.nowMs() - startMs;
      const { keys, version } = this.content.index;
      const ms = Math.round(this.loadMs);
      if (built) this.host.log('info', 'the keys are read', { keys, version, ms });
    } catch (error) {
      this.content.invalidate();
      this.retryAtMs = this.host.nowMs() + 1000;
      const reason = error instanceof Error ? error.message : String(error);
      if (!this.closed) this.host.log('error', 'the keys cannot be read', { reason });
    }
    this.building = false;
    if (this.host.nowMs() >= this.retryAtMs) this.goOn();
  }

  private reader(): BlockReader {
    const { store, arena } = this.host;
    const withSlot = (count: number, use: (slot: Slot) => void): void => {
      const slot = arena.take(count);
      if (slot !== null) use(slot);
      else arena.whenFree(count, () => withSlot(count, use));
    };
    return {
      // Who is primary knows of a larger size before the others do.
      blocks: this.rules.readBehindEnd ? store.capacityBlocks : store.blocks,
      holesEnd: (block, limit) => (store.isHole(block) ? store.runEnd(block, limit) : block),
      read: (first, count, done) => {
        withSlot(count, (slot) => {
          if (this.closed) {
            arena.release(slot);
            return done(new HoldfastError('SHUTTING_DOWN', { operation: 'read keys' }), new Uint8Array(0));
          }
          store.readBlocks(first, count, slot, (error) => {
            try {
              done(error, slot.payload.subarray(0, count * BLOCK_BYTES));
            } finally {
              arena.release(slot);
            }
          });
        });
      },
    };
  }

  status(): KvStatus {
    const { keys, version, liveBytes, usedBlocks } = this.content.index;
    const answers = this.current !== null && this.content.valid;
    return { answers, keys, version, liveBytes, usedBytes: usedBlocks * BLOCK_BYTES, loadMs: Math.round(this.loadMs) };
  }

  /** As far as it is known here, whether it is served or not. */
  about(): KvInfo {
    return new StaleKv(this.content, this.host.limits ?? KV_LIMITS, () => this.describe()).info();
  }

  // --- time -------------------------------------------------------------------------------------------------------------

  /** Every 20 ms or so. */
  tick(): void {
    this.primary?.tick();
    // The disk under a sparse volume was full.
    if (this.primary?.spent === true && !this.host.store.outOfSpace) this.end();
    if (this.served !== null && (!this.content.valid || this.served.isolated !== this.isolated)) this.end();
    if (this.served === null && !this.building && this.host.nowMs() >= this.retryAtMs) this.goOn();
  }

  close(): void {
    this.end();
    this.closed = true;
  }
}

/** Of a volume that this node has no replica of. */
export function aboutNothing(volume: string): KvInfo {
  // Nobody here vouches for anything.
  const nothing = {
    epoch: 0,
    sizeBytes: 0,
    version: 0,
    keys: 0,
    expiring: 0,
    durable: false,
    liveBytes: 0,
    usedBytes: 0,
  };
  return { volume, role: 'backup', state: 'absent', ...nothing, limits: KV_LIMITS };
}

function changeOf({ kind, firstBlock, blockCount, slot }: LogRecord): BlockChange {
  const bytes = kind === RECORD_KINDS.ZERO ? null : slot.payload.subarray(0, blockCount * BLOCK_BYTES);
  return { first: firstBlock, blocks: blockCount, bytes };
}
