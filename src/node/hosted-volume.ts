/**
 * One replica of one volume in a node's process: the replication core with its ports, which are the peers' streams, the
 * register, the clients and the clock.
 *
 * Guarantees: nothing reaches the core any more once it is being closed; a store that failed stops this replica and no
 * other, and is marked as poisoned when a sync failed; when the volume is served no more, its clients get no further
 * answer.
 */
import { randomInt } from 'node:crypto';
import type { HoldfastError } from '../base/errors.ts';
import { type DiskMeter, VolumeMeter } from '../base/meters.ts';
import { BLOCK_BYTES } from '../base/units.ts';
import type { Coordinator } from '../coordination/register.ts';
import type { KvLimits } from '../kv/operations.ts';
import { peerIdOf } from '../replication/group-register.ts';
import type { PeerLink, PeerMessage } from '../replication/peer-messages.ts';
import type { BackupVolume } from '../replication/backup-volume.ts';
import { Scrub } from '../replication/scrub.ts';
import type { Primary } from '../replication/primary.ts';
import type { PrimaryVolume } from '../replication/primary-volume.ts';
import { Replica } from '../replication/replica.ts';
import type { Times } from '../replication/rules.ts';
import type { ServedVolume } from '../replication/served-volume.ts';
import type { SyncRates } from '../replication/sync-pace.ts';
import type { Arena } from '../storage/arena.ts';
import type { BlockStore } from '../storage/block-store.ts';
import type { DirtyBitmap } from '../storage/dirty-bitmap.ts';
import type { OpenVolume } from '../storage/volume-folder.ts';
import { Comparing } from './comparing.ts';
import { HostedKv } from './hosted-kv.ts';
import type { KvServed } from './kv-served.ts';
import type { Faults } from './faults.ts';
import { LivingClock } from './living-clock.ts';
import { MeasuredVolume } from './measured-volume.ts';
import type { PeerNetwork, PeerPort, PeerVolume } from './peer-server.ts';
import { RegisterLink } from './register-link.ts';
import type { ReplicaStatus } from './replica-status.ts';
import { VolumeSize } from './volume-size.ts';

export type { ReplicaStatus, SyncStatus } from './replica-status.ts';

export interface Host {
  readonly node: string;
  readonly bootId: string;
  readonly arena: Arena;
  readonly network: PeerNetwork;
  readonly times: Times;
  readonly syncRates: SyncRates;
  /** Whether key-value volumes answer GETs, marked as stale, when nobody vouches for the answer. */
  readonly whenIsolated: 'consistent' | 'available';
  /** What a pass over all blocks may take; 0: there are none. */
  readonly scrubMs: number;
  readonly kvLimits: KvLimits;
  /** Calls with a short deadline, and calls with a longer one. */
  readonly quick: Coordinator;
  readonly patient: Coordinator;
  /** What the node said of itself last; null: nothing was heard of it. */
  peerAddress(node: string): string | null;
  /** For what other nodes send. */
  readonly peerArena: Arena;
  /** Null: there are none to be had. */
  readonly faults: Faults | null;
  serveReads(volume: ServedVolume): void;
  unserveReads(volume: ServedVolume): void;
  serve(volume: ServedVolume): void;
  /** A key-value volume. */
  serveKv(served: KvServed, primary: boolean): void;
  unserveKv(served: KvServed, primary: boolean): void;
  unserve(volume: ServedVolume): void;
  log(level: 'info' | 'warn' | 'error', message: string, fields: object): void;
}

/** How long a volume that is closed may take to apply what was appended. */
const SETTLE_MS = 5000;

const position = ({ epoch, seq }: { epoch: number; seq: number }): string => `${epoch}.${seq}`;
export const toHex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');

export class HostedVolume implements PeerVolume {
  readonly name: string;
  readonly volumeId: string;
  readonly diskId: string;
  readonly dir: string;
  readonly store: BlockStore;
  readonly register: RegisterLink;
  /** What clients asked of it here, and what its disk did. */
  readonly meter: VolumeMeter = new VolumeMeter();
  readonly disk: DiskMeter;
  private readonly host: Host;
  private readonly open: OpenVolume;
  private readonly replica: Replica;
  private readonly port: PeerPort;
  private served: PrimaryVolume | null = null;
  /** The same, as clients are given it. */
  private measured: ServedVolume | null = null;
  private readable: ServedVolume | null = null;
  private backup: BackupVolume | null = null;
  readonly comparing: Comparing;
  private readonly scrub: Scrub | null;
  /** Null: it is a disk. */
  readonly kv: HostedKv | null;
  private readonly clock: LivingClock;
  private readonly size: VolumeSize;
  private closing = false;
  private poisoned: Promise<void> | null = null;
  /** Nodes that could not be reached under the address that was tried last. */
  private readonly missed: Set<string> = new Set();
  private readonly rates: Map<string, { atMs: number; copiedBlocks: number; bytesPerSecond: number }> = new Map();
  private lastRefusal = '';
  /** Passes of the scrub that were told of, and when the present one began. */
  private scrubbed = { passes: 0, sinceMs: performance.now() };

  constructor(host: Host, open: OpenVolume) {
    const { store } = open;
    this.host = host;
    this.open = open;
    this.store = store;
    this.disk = open.meter;
    this.dir = open.dir;
    this.name = store.name;
    this.volumeId = toHex(store.volumeId);
    this.diskId = toHex(store.diskId);
    this.port = host.network.join(this);
    this.comparing = new Comparing(store, host.arena, host.node);
    this.register = new RegisterLink({
      volumeId: this.volumeId,
      node: host.node,
      bootId: host.bootId,
      quick: host.quick,
      patient: host.patient,
      learned: (register) => this.closing || this.replica.learn(register),
      log: (message, fields) => this.log('warn', message, fields),
    });
    store.repairs.told = (block) => this.log('info', 'a block was repaired', { block });
    this.kv = store.kind === 'kv' ? this.hostKv() : null;
    this.scrub = host.scrubMs > 0 ? this.scrubEvery(host.scrubMs) : null;
    this.size = new VolumeSize(store, (message, fields) => this.log('info', message, fields));
    this.clock = new LivingClock(() => this.replica.forgetRights());
    this.replica = new Replica({
      node: host.node,
      store,
      arena: host.arena,
      peerArena: host.peerArena,
      times: host.times,
      syncRates: host.syncRates,
      ports: {
        now: () => this.clock.now(),
        random: () => Math.random(),
        connect: (node) => this.port.connect(node, this.addressOf(node)),
        readRegister: () => this.register.read(),
        compareAndSet: (token, version, next) =>
          this.register.compareAndSet(
            version,
            next,
            (outcome) => this.closing || this.replica.casSettled(token, outcome),
          ),
        serve: (volume) => this.serve(volume),
        serveReads: (volume) => this.serveReads(volume),
        log: (message, fields) => this.log('info', message, fields ?? {}),
        ...(host.faults && { reached: (point) => host.faults!.reached(this.name, point) }),
      },
    });
  }

  private scrubEvery(passMs: number): Scrub {
    const { store, host } = this;
    return new Scrub(
      store,
      host.arena,
      () => performance.now(),
      passMs,
      (first, count, slot, done) => {
        const { served, backup } = this;
        if (served !== null) served.copyOut(first, count, slot, done);
        else if (backup !== null) backup.scrub(first, count, slot, done);
        return served !== null || backup !== null;
      },
      randomInt(store.blocks),
    );
  }

  private hostKv(): HostedKv {
    const { host, store } = this;
    return new HostedKv({
      store,
      arena: host.arena,
      meter: this.meter,
      available: host.whenIsolated === 'available',
      limits: host.kvLimits,
      nowMs: () => performance.now(),
      wallMs: () => Date.now(),
      soon: (run) => setImmediate(run),
      follows: () => this.replica.role === 'following',
      serve: (served, primary) => host.serveKv(served, primary),
      unserve: (served, primary) => host.unserveKv(served, primary),
      log: (level, message, fields) => this.log(level, message, fields),
    });
  }

  private log(level: 'info' | 'warn' | 'error', message: string, fields: object): void {
    if ('reason' in fields) this.lastRefusal = `${message}: ${String(fields.reason)}`;
    this.host.log(level, message, { volume: this.name, ...fields });
  }

  private serve(volume: PrimaryVolume | null): void {
    this.comparing.end(`${this.host.node} is primary no longer`);
    if (this.kv !== null) {
      this.served = volume;
      return this.kv.setPrimary(volume);
    }
    if (this.measured !== null) this.host.unserve(this.measured);
    this.served = volume;
    this.measured = volume === null ? null : new MeasuredVolume(volume, this.meter);
    if (this.measured !== null) this.host.serve(this.measured);
  }

  private serveReads(volume: BackupVolume | null): void {
    this.backup = volume;
    if (this.kv !== null) return this.kv.setBackup(volume);
    if (this.readable !== null) this.host.unserveReads(this.readable);
    this.readable = volume === null ? null : new MeasuredVolume(volume, this.meter);
    if (this.readable !== null) this.host.serveReads(this.readable);
  }

  // --- streams ----------------------------------------------------------------------------------------------------------

  registerId(): string {
    return toHex(this.store.replica.registerId);
  }

  /** What the node said last counts, unless it was not reached so: then what the register says, in turn. */
  private addressOf(node: string): string | null {
    const said = this.host.peerAddress(node);
    const registered = this.register.known?.members.find((member) => member.node === node)?.address;
    // It is no member any more.
    if (registered === undefined) return null;
    return this.missed.has(node) ? registered : (said ?? registered);
  }

  connected(link: PeerLink): void {
    this.missed.delete(link.node);
    if (this.closing) link.close();
    else this.replica.connected(link);
  }

  closed(node: string, link: PeerLink | null): void {
    if (link === null && !this.missed.delete(node)) this.missed.add(node);
    if (!this.closing) this.replica.closed(node, link);
  }

  received(link: PeerLink, message: PeerMessage): void {
    if (!this.closing) this.replica.received(link, message);
  }

  refused(reason: string): void {
    this.lastRefusal = `refused: ${reason}`;
  }

  // --- time -------------------------------------------------------------------------------------------------------------

  /** Every 20 ms or so. */
  tick(): void {
    if (this.closing) return;
    if (this.store.failed !== null) return this.storeFailed(this.store.failed);
    this.size.follow(this.register.known);
    this.replica.tick();
    this.kv?.tick();
    this.scrub?.tick();
    this.served?.owedZeros.tick();
  }

  /** Every second or so. */
  slowTick(): void {
    if (this.closing || this.store.failed !== null) return;
    if (this.store.outOfSpace) this.store.retryParked();
    this.tellOfScrub();
    const nowMs = performance.now();
    for (const { node, sync } of this.replica.primary?.status() ?? []) {
      if (sync === null) {
        this.rates.delete(node);
        continue;
      }
      const { copiedBlocks } = sync;
      const before = this.rates.get(node);
      const bytes = before === undefined ? 0 : (copiedBlocks - before.copiedBlocks) * BLOCK_BYTES;
      const bytesPerSecond = before === undefined ? 0 : Math.max(0, (bytes * 1000) / (nowMs - before.atMs));
      this.rates.set(node, { atMs: nowMs, copiedBlocks, bytesPerSecond });
    }
  }

  private tellOfScrub(): void {
    const progress = this.scrub?.progress;
    if (progress === undefined || progress.passes === this.scrubbed.passes) return;
    const { passes, totalBytes, lastFoundBlocks: foundBlocks } = progress;
    const nowMs = performance.now();
    const tookMs = Math.round(nowMs - this.scrubbed.sinceMs);
    this.scrubbed = { passes, sinceMs: nowMs };
    this.log('info', 'a scrub has ended', { passes, blocks: totalBytes / BLOCK_BYTES, foundBlocks, tookMs });
  }

  private storeFailed(error: HoldfastError): void {
    if (this.poisoned !== null) return;
    this.replica.stop(error.message);
    this.log('error', 'the store has failed', { reason: error.message });
    // A failed sync leaves pages that look clean and are not on disk: the next opening must know.
    const marked = /fdatasync/.test(error.message) ? this.store.markPoisoned(error.message) : Promise.resolve();
    this.poisoned = marked.catch(() => {});
  }

  // --- the end ----------------------------------------------------------------------------------------------------------

  /**
   * Stops being a replica; a primary hands over first. What it told the others may still be on its way: the streams are
   * the caller's to end, by `close`.
   * @param waited resolves when waiting for requests under way is to end
   */
  async resign(waited: Promise<void>): Promise<void> {
    if (this.closing) return;
    await this.replica.resign(waited);
    this.closing = true;
    this.kv?.close();
    this.register.close();
  }

  /** After `resign`: ends the streams, applies what was appended, closes the store. */
  async close(): Promise<void> {
    this.closing = true;
    this.kv?.close();
    this.register.close();
    this.replica.stop('it is closed');
    this.port.leave();
    await this.poisoned;
    // What a full disk holds up stays in the journal.
    const late = new Promise<void>((resolve) => setTimeout(resolve, SETTLE_MS).unref());
    const stopped = this.replica.stopped();
    await Promise.race([stopped, late]).catch((error: unknown) =>
      this.log('error', 'closing', { reason: String(error) }),
    );
    try {
      await this.open.close();
    } finally {
      if (this.store.failed !== null) this.storeFailed(this.store.failed);
      await this.poisoned;
    }
  }

  // --- what it tells ----------------------------------------------------------------------------------------------------

  get role(): string {
    return this.replica.role;
  }

  get isPrimary(): boolean {
    return this.replica.role === 'primary';
  }

  /** As primary; of a key-value volume once its keys are read. */
  get serving(): boolean {
    return this.kv === null ? this.served !== null : this.kv.serves;
  }

  /** Null: this node is not primary. */
  get primary(): Primary | null {
    return this.replica.primary;
  }

  get volume(): PrimaryVolume | null {
    return this.served;
  }

  status(): ReplicaStatus {
    const { store, replica } = this;
    const known = this.register.known;
    return {
      volume: this.name,
      volumeId: this.volumeId,
      diskId: this.diskId,
      dir: this.dir,
      kind: store.kind,
      sizeBytes: store.sizeBytes,
      capacityBytes: store.capacityBlocks * BLOCK_BYTES,
      role: replica.role,
      serving: this.serving,
      state: store.replica.state,
      health: store.health,
      healthReason: store.healthReason,
      failed: store.failed?.message ?? null,
      epoch: store.epoch,
      last: position(store.lastPosition),
      committed: position(store.committedPosition),
      outOfSpace: store.outOfSpace,
      backupReads: replica.counters.backupReads,
      copiedBytes: replica.counters.copiedBlocks * BLOCK_BYTES,
      registerId: this.registerId(),
      registerVersion: known?.version ?? null,
      members: this.members(),
      scrub: this.scrub?.progress ?? null,
      repairedBlocks: store.counters()['repairedBlocks']!,
      waits: this.waits(),
      kv: this.kv?.status() ?? null,
      peers: this.peers(),
    };
  }

  private members(): string[] {
    const registered = this.register.known?.members.map(({ node }) => node) ?? [];
    // A peer is called NODE/DISK.
    const lacking = this.store.peers.peers.map((peer) => peer.slice(0, peer.lastIndexOf('/')));
    return [...new Set([this.host.node, ...registered, ...lacking])].sort();
  }

  /** What a member lacks; null: no note is kept of it. */
  dirtyOf(node: string): DirtyBitmap | null {
    const { known } = this.register;
    const id = known === null ? null : peerIdOf(known, node);
    return id === null ? null : (this.store.peers.of(id)?.bitmap ?? null);
  }

  private peers(): ReplicaStatus['peers'] {
    return (this.replica.primary?.status() ?? []).map(({ node, phase, acked, sync }) => {
      const dirty = this.dirtyOf(node);
      return {
        node,
        phase,
        acked: position(acked),
        dirtyBytes: dirty === null ? null : dirty.count * BLOCK_BYTES,
        sync: sync && {
          phase: sync.phase,
          pass: sync.pass,
          copiedBytes: sync.copiedBlocks * BLOCK_BYTES,
          leftBytes: sync.dirtyBlocks * BLOCK_BYTES,
          bytesPerSecond: Math.round(this.rates.get(node)?.bytesPerSecond ?? 0),
        },
      };
    });
  }

  private waits(): string | null {
    const { register, replica, store, host } = this;
    if (store.failed !== null) return `the store has failed: ${store.failed.message}`;
    if (replica.role === 'stopped') return this.lastRefusal;
    if (store.outOfSpace) return 'the disk under the sparse volume is full';
    const small = this.size.refusal(register.known);
    if (small !== null) return small;
    if (replica.role === 'following') return null;
    if (register.failure !== null) return `the coordinator does not answer: ${register.failure.message}`;
    const { known } = register;
    if (known === null) return register.absent ? 'the coordinator has no register of this volume' : 'for the register';
    const member = known.members.find(({ node }) => node === host.node);
    if (member === undefined) return 'the register does not have this node as a member';
    if (member.diskId !== this.diskId) return `the register names another disk of this node: ${member.diskId}`;
    if (replica.role === 'primary') {
      if (this.served !== null) return null;
      const missing = this.peers().filter(({ node, phase }) => known.inSync.includes(node) && phase !== 'joined');
      return `to open its epoch: ${missing.map(({ node, phase }) => `${node} is ${phase}`).join(', ')}`;
    }
    if (!known.inSync.includes(host.node)) {
      return `for the primary (${known.primary || 'there is none'}) to bring it in. ${this.lastRefusal}`.trim();
    }
    return `for a primary, or to become it. ${this.lastRefusal}`.trim();
  }
}
