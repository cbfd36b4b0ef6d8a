/**
 * One replica of a volume: what it is at the moment (follower of a primary, candidate, primary, target), and how it gets
 * from one to the other. Pure: streams, register, clock and randomness are handed in, time comes as `tick`.
 *
 * Guarantees: it seeks promotion only while the register has it in inSync, its disk is complete, and its promise has run
 * out; it promises nothing while an attempt is undecided; it follows no primary of an epoch older than it has durably
 * promised; each change of role begins with a settled store: everything appended is durable, applied, and remembered as
 * suspect where it is not known to be committed.
 */
import { ORIGIN, type Position } from '../base/position.ts';
import type { HoldfastError } from '../base/errors.ts';
import type { Arena } from '../storage/arena.ts';
import type { BlockStore } from '../storage/block-store.ts';
import type { ReplicaInfo } from '../storage/superblock.ts';
import { Follower } from './follower.ts';
import type { CasOutcome, GroupRegister } from './group-register.ts';
import type { Downstream, PeerLink, PeerMessage, Upstream } from './peer-messages.ts';
import { Primary } from './primary.ts';
import type { PrimaryVolume } from './primary-volume.ts';
import { ALL_RULES, DEFAULT_TIMES, type Rules, type Times } from './rules.ts';

export interface ReplicaPorts {
  /** Milliseconds of a clock that never goes back. */
  now(): number;
  /** Opens a stream to a node; the outcome comes through `connected` or `closed(node, null)`. */
  connect(node: string): void;
  /** Reads the register; the outcome comes through `learn`. No answer: nothing comes. */
  readRegister(): void;
  /** The outcome comes through `casSettled` with the same token. */
  compareAndSet(token: number, expectedVersion: number, next: GroupRegister): void;
  /** Clients may use this volume from now on; null: no longer, their connections are to be ended. */
  serve(volume: PrimaryVolume | null): void;
  /** In [0, 1). */
  random(): number;
  log(message: string, fields?: object): void;
}

export interface ReplicaOptions {
  node: string;
  store: BlockStore;
  arena: Arena;
  ports: ReplicaPorts;
  times?: Times;
  rules?: Rules;
}

type Role = 'idle' | 'following' | 'primary' | 'changing' | 'stopped';

export class Replica {
  readonly node: string;
  readonly store: BlockStore;
  role: Role = 'idle';
  primary: Primary | null = null;
  private readonly arena: Arena;
  private readonly ports: ReplicaPorts;
  private readonly times: Times;
  private readonly rules: Rules;
  private follower: Follower | null = null;
  /** The stream of the primary that is followed. */
  private upstream: PeerLink | null = null;
  private register: GroupRegister | null = null;
  /** Until then no promotion is sought. */
  private promiseUntilMs: number;
  private heardAtMs: number;
  private patienceMs: number;
  private nextReadMs = 0;
  /** Token of an attempt at promotion that has no outcome yet, and what it asked for. */
  private seeking: { token: number; expectedVersion: number } | null = null;
  /** An attempt against that version of the register had no answer: it may still take effect. */
  private undecidedVersion: number | null = null;
  private nextToken = 1;
  private nextSeekMs = 0;
  /** Changes of role follow one another. */
  private change: Promise<void> = Promise.resolve();

  constructor(o: ReplicaOptions) {
    this.node = o.node;
    this.store = o.store;
    this.arena = o.arena;
    this.ports = o.ports;
    this.times = o.times ?? DEFAULT_TIMES;
    this.rules = o.rules ?? ALL_RULES;
    const nowMs = this.ports.now();
    // What this process promised before it was started anew is not known: as if it had just done so.
    this.promiseUntilMs = this.rules.startUpWait ? nowMs + this.times.promiseMs : nowMs;
    this.heardAtMs = this.rules.startUpWait ? nowMs : -Infinity;
    this.patienceMs = this.drawPatience();
    this.follow();
  }

  private drawPatience(): number {
    return this.times.suspicionMs * (1 + this.ports.random() / 4);
  }

  get epoch(): number {
    return this.store.epoch;
  }

  // --- what changes the role --------------------------------------------------------------------------------------------

  /** Runs after the changes before it; messages that come meanwhile find no one. */
  private transition(work: () => Promise<void>): void {
    this.change = this.change
      .then(async () => {
        if (this.role === 'stopped') return;
        this.role = 'changing';
        await work();
      })
      .catch((error: unknown) => this.stop(`a change of role failed: ${String(error)}`));
  }

  /** A follower's journal on a store that is settled. */
  private follow(): void {
    this.follower = new Follower(this.store, this.arena, {
      durable: (position) => this.tell({ type: 'ACK', position }),
      copied: (id) => this.tell({ type: 'COPY_ACK', id }),
      finished: () => this.finishSync(),
      refused: (error) => this.dropUpstream(error.message),
      failed: (error) => this.stop(error.message),
    });
    this.role = 'idle';
  }

  private tell(message: Upstream): void {
    this.upstream?.send(message);
  }

  private dropUpstream(reason: string): void {
    if (this.upstream === null) return;
    this.ports.log('the stream of the primary ends', { from: this.upstream.node, reason });
    this.upstream.close();
    this.upstream = null;
    if (this.role === 'following') this.role = 'idle';
  }

  private async settle(): Promise<void> {
    const { follower, primary } = this;
    this.follower = null;
    this.primary = null;
    if (primary !== null) {
      this.ports.serve(null);
      primary.volume.close();
      await this.store.suspectUncommitted();
      primary.volume.abdicate();
      await primary.volume.drain();
    }
    await follower?.settle();
    if (this.store.failed !== null) throw this.store.failed;
  }

  private update(change: { epoch?: number; replica?: Partial<ReplicaInfo> }): Promise<void> {
    const { epoch, replica } = change;
    return this.store.update({
      ...(epoch !== undefined && { epoch }),
      ...(replica !== undefined && { replica: { ...this.store.replica, ...replica } }),
    });
  }

  // --- streams ----------------------------------------------------------------------------------------------------------

  /** A stream that this node asked for is open. */
  connected(link: PeerLink): void {
    if (this.primary !== null && this.role === 'primary') this.primary.connected(link);
    else link.close();
  }

  /** A stream has ended; null: it could not be opened. */
  closed(node: string, link: PeerLink | null): void {
    if (link !== null && link === this.upstream) {
      this.upstream = null;
      if (this.role === 'following') this.role = 'idle';
    } else this.primary?.closed(node, link);
  }

  received(link: PeerLink, message: PeerMessage): void {
    if (this.role === 'stopped') return link.close();
    switch (message.type) {
      case 'JOIN':
        return this.join(link, message);
      case 'RECORD':
      case 'COPY':
      case 'BARRIER':
      case 'HANDOVER':
      case 'FINISH':
        if (link === this.upstream || !this.rules.refuseOldEpoch) this.follower?.take(message);
        return;
      case 'RESIGNED':
        if (link === this.upstream && message.epoch === this.store.epoch) this.takeOver();
        return;
      case 'BEAT':
        if (link === this.upstream) this.beat(link, message);
        return;
      default:
        this.primary?.received(link, message);
    }
  }

  private join(link: PeerLink, message: Extract<Downstream, { type: 'JOIN' }>): void {
    const { epoch, role } = message;
    const refuse = (reason: string): void => {
      link.send({ type: 'REFUSED', epoch: this.store.epoch, reason });
    };
    if (epoch < this.store.epoch && this.rules.refuseOldEpoch) return refuse('promised to a later epoch');
    if (epoch === this.store.epoch && this.primary !== null) return refuse('this node is primary of that epoch');
    const { state } = this.store.replica;
    if (role === 'member' && (state !== 'in-sync' || this.store.health !== 'good')) {
      return refuse(`it is ${this.store.health === 'good' ? state : this.store.health}`);
    }
    // Its epoch was looked at above.
    const strange = this.strangeness(message.registerId, message.registerVersion, Infinity);
    if (strange !== null) return refuse(strange);
    this.dropUpstream('another one came');
    this.primary?.end(`${link.node} is primary of epoch ${epoch}`);
    this.upstream = link;
    this.heardAtMs = this.ports.now();
    this.transition(async () => {
      await this.settle();
      const { replica } = this.store;
      const sound = this.store.health === 'good';
      // Of a damaged disk nothing is known to be right.
      const base = !sound ? ORIGIN : replica.state === 'syncing' ? replica.base : this.store.lastPosition;
      const known = { registerId: fromHex(message.registerId), registerVersion: message.registerVersion };
      if (role === 'target') {
        this.store.peers.dropAll();
        this.store.marks.dropAll();
        await this.update({ epoch, replica: { ...known, state: 'syncing', base, groupEpoch: epoch } });
      } else if (epoch > this.store.epoch) await this.update({ epoch, replica: known });
      this.follow();
      if (this.upstream !== link) return;
      this.role = 'following';
      this.heardAtMs = this.ports.now();
      const suspects = this.store.peers.suspects().runs();
      const { state } = this.store.replica;
      const diskId = hex(this.store.diskId);
      const { lastPosition: last } = this.store;
      link.send({ type: 'STATUS', epoch, diskId, state, base, last, suspects });
    });
  }

  /** Whether a register cannot be the one that this disk belongs to: nothing is done on its word then. */
  private strangeness(registerId: string, version: number, epoch: number): string | null {
    const { replica } = this.store;
    const own = hex(replica.registerId);
    if (/[1-9a-f]/.test(own) && own !== registerId) return `its register is ${own}, not ${registerId}`;
    if (version < replica.registerVersion) return `the register was at version ${replica.registerVersion} before`;
    return epoch < this.store.epoch ? `the register was at epoch ${this.store.epoch} before` : null;
  }

  private beat(link: PeerLink, { n, committed }: Extract<Downstream, { type: 'BEAT' }>): void {
    const nowMs = this.ports.now();
    this.heardAtMs = nowMs;
    this.patienceMs = this.drawPatience();
    this.follower?.commit(committed);
    if (this.rules.noPromiseWhileSeeking && (this.seeking !== null || this.undecidedVersion !== null)) return;
    this.promiseUntilMs = Math.max(this.promiseUntilMs, nowMs + this.times.promiseMs);
    link.send({ type: 'ECHO', n, promiseMs: this.times.promiseMs });
  }

  /** The primary has resigned: what was promised to it is void, and there is nothing to wait for. */
  private takeOver(): void {
    this.dropUpstream('it has resigned');
    this.promiseUntilMs = -Infinity;
    this.heardAtMs = -Infinity;
    this.nextReadMs = 0;
    this.ports.readRegister();
  }

  /**
   * Stops on purpose. A primary hands over first.
   * @param waited resolves when waiting for requests under way is to end
   */
  async resign(waited: Promise<void>): Promise<void> {
    if (this.role === 'primary') await this.primary?.resign(waited);
    this.stop('it was told to');
  }

  private finishSync(): void {
    const link = this.upstream;
    const base: Position = this.store.lastPosition;
    this.store.peers.clearSuspect();
    void this.store.update({ replica: { ...this.store.replica, state: 'in-sync', base }, ...SOUND }).then(
      () => {
        if (link !== null && link === this.upstream) link.send({ type: 'FINISHED' });
      },
      (error: HoldfastError) => this.stop(error.message),
    );
  }

  // --- the register and promotion -----------------------------------------------------------------------------------------

  /** The register as it is, read or watched. */
  learn(register: GroupRegister): void {
    if (this.role === 'stopped' || (this.register !== null && register.version < this.register.version)) return;
    // A primary that is new gets the time to make itself heard.
    if (this.register !== null && register.epoch > this.register.epoch) this.heardAtMs = this.ports.now();
    this.register = register;
    if (this.undecidedVersion !== null && register.version > this.undecidedVersion) {
      this.undecidedVersion = null;
      // It did take effect, and nobody has changed the register since.
      if (this.role === 'idle' && register.primary === this.node && register.epoch > this.store.epoch) {
        return this.promote(register);
      }
    }
    this.primary?.learn(register);
    this.maybeSeek();
    this.maybeDecide();
  }

  private maybeSeek(): void {
    const { register } = this;
    const nowMs = this.ports.now();
    if (register === null || this.role !== 'idle' || this.seeking !== null || nowMs < this.nextSeekMs) return;
    if (nowMs - this.heardAtMs < this.patienceMs || nowMs < this.promiseUntilMs) return;
    const { inSync } = register;
    const own = register.members.find(({ node }) => node === this.node);
    if (own?.diskId !== hex(this.store.diskId)) return;
    if (this.rules.promoteInSyncOnly && (!inSync.includes(this.node) || this.store.replica.state !== 'in-sync')) return;
    if (this.store.health !== 'good') return;
    const strange = this.strangeness(register.registerId, register.version, register.epoch);
    if (strange !== null) {
      this.nextSeekMs = nowMs + STRANGE_MS;
      return this.ports.log('the register is not to be trusted', { reason: strange });
    }
    const stays = inSync.filter((node) => node === this.node || node !== register.primary);
    const next = { ...register, primary: this.node, inSync: stays.includes(this.node) ? stays : [...stays, this.node] };
    next.epoch = Math.max(register.epoch, this.store.epoch) + (this.rules.newEpoch ? 1 : 0);
    this.ports.log('seeking promotion', { epoch: next.epoch, version: register.version, inSync: next.inSync });
    this.seek(register.version, next);
  }

  /** An attempt without an answer is decided by one more on the same version, with the content as it is. */
  private maybeDecide(): void {
    const { register } = this;
    if (this.undecidedVersion === null || this.seeking !== null || this.ports.now() < this.nextSeekMs) return;
    if (register?.version === this.undecidedVersion) this.seek(register.version, register);
  }

  private seek(expectedVersion: number, next: GroupRegister): void {
    const token = this.nextToken++;
    this.seeking = { token, expectedVersion };
    this.ports.compareAndSet(token, expectedVersion, next);
  }

  casSettled(token: number, result: CasOutcome): void {
    if (this.role === 'stopped') return;
    if (this.seeking === null || this.seeking.token !== token) return this.primary?.casSettled(result);
    const { expectedVersion } = this.seeking;
    this.seeking = null;
    if (result.outcome === 'unknown') {
      this.undecidedVersion = expectedVersion;
      this.nextSeekMs = this.ports.now() + this.times.retryMs;
      return this.ports.readRegister();
    }
    const { register } = result;
    this.undecidedVersion = null;
    this.register = register;
    if (register.primary === this.node && register.epoch > this.store.epoch) this.promote(register);
  }

  private promote(register: GroupRegister): void {
    this.transition(async () => {
      this.dropUpstream('this node is primary now');
      await this.settle();
      if (register.epoch < this.store.epoch) return this.follow();
      const known = { registerId: fromHex(register.registerId), registerVersion: register.version };
      await this.update({ epoch: register.epoch, replica: known });
      this.role = 'primary';
      this.primary = new Primary({
        node: this.node,
        store: this.store,
        arena: this.arena,
        register,
        times: this.times,
        rules: this.rules,
        now: () => this.ports.now(),
        connect: (node) => this.ports.connect(node),
        compareAndSet: (version, next) => this.ports.compareAndSet(this.nextToken++, version, next),
        serving: (volume) => this.ports.serve(volume),
        over: (reason) => this.deposed(reason),
        log: (message, fields) => this.ports.log(message, fields),
      });
    });
  }

  private deposed(reason: string): void {
    this.ports.log('the tenure is over', { epoch: this.store.epoch, reason });
    this.ports.serve(null);
    if (this.store.failed !== null) return this.stop(reason);
    if (this.role !== 'primary') return;
    this.heardAtMs = this.ports.now();
    this.transition(async () => {
      await this.settle();
      this.follow();
    });
  }

  // --- time -------------------------------------------------------------------------------------------------------------

  /** To be called every 20 ms or so. */
  tick(): void {
    if (this.role === 'stopped') return;
    const nowMs = this.ports.now();
    this.primary?.tick();
    if (this.role === 'following' && nowMs - this.heardAtMs > this.patienceMs) {
      this.dropUpstream(`nothing was heard for ${Math.round(nowMs - this.heardAtMs)} ms`);
    }
    if (nowMs >= this.nextReadMs && (this.role !== 'following' || this.undecidedVersion !== null)) {
      this.nextReadMs = nowMs + this.times.retryMs;
      this.ports.readRegister();
    }
  }

  /** For good: the store has failed, or the process is to end. */
  stop(reason: string): void {
    if (this.role === 'stopped') return;
    this.role = 'stopped';
    this.ports.log('the replica stops', { reason });
    this.primary?.end(reason);
    this.primary = null;
    this.follower?.stop();
    this.upstream?.close();
    this.upstream = null;
    this.ports.serve(null);
  }
}

/** Every block came from a replica in sync, or was equal to it. */
const SOUND = { health: 'good', healthReason: '' } as const;
/** How often it is said that the register is strange. */
const STRANGE_MS = 10_000;

function fromHex(text: string): Uint8Array {
  return Uint8Array.from({ length: 16 }, (_, i) => parseInt(text.slice(2 * i, 2 * i + 2), 16) || 0);
}

function hex(bytes: Uint8Array): string {
  let text = '';
  for (const byte of bytes) text += byte.toString(16).padStart(2, '0');
  return text;
}
