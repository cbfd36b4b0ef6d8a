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
import { BackupVolume } from './backup-volume.ts';
import { Candidate, fromHex, strangeness, toHex } from './candidate.ts';
import type { CrashPoint } from './crash-points.ts';
import { Follower } from './follower.ts';
import type { CasOutcome, GroupRegister } from './group-register.ts';
import type { Downstream, PeerLink, PeerMessage, Upstream } from './peer-messages.ts';
import { Primary } from './primary.ts';
import { DEFAULT_SYNC_RATES, type SyncRates } from './sync-pace.ts';
import type { ReplicaOptions, ReplicaPorts } from './replica-ports.ts';
import { ALL_RULES, DEFAULT_TIMES, type Rules, type Times, checkTimes } from './rules.ts';
import { TARGET_STEPS } from './target-steps.ts';

type Role = 'idle' | 'following' | 'primary' | 'changing' | 'stopped';

export class Replica {
  readonly node: string;
  readonly store: BlockStore;
  role: Role = 'idle';
  primary: Primary | null = null;
  private readonly arena: Arena;
  private readonly peerArena: Arena;
  private readonly syncRates: SyncRates;
  private readonly ports: ReplicaPorts;
  private readonly times: Times;
  private readonly rules: Rules;
  private follower: Follower | null = null;
  private backup: BackupVolume | null = null;
  /** Answered by those before it. */
  private readsBefore = 0;
  /** The stream of the primary that is followed. */
  private upstream: PeerLink | null = null;
  private readonly candidate: Candidate;
  private nextReadMs = 0;
  private lastReadMs = -Infinity;
  private nextToken = 1;
  /** Of the attempts that have no answer: at promotion, and of the present tenure. */
  private seekToken = 0;
  private tenureToken = 0;
  /** Since when the follower has waited for memory. */
  private blockedSinceMs: number | null = null;
  /** Changes of role follow one another. */
  private change: Promise<void> = Promise.resolve();
  /** That are under way or wait. */
  private changes = 0;

  constructor(o: ReplicaOptions) {
    this.node = o.node;
    this.store = o.store;
    this.arena = o.arena;
    this.peerArena = o.peerArena ?? o.arena;
    this.syncRates = o.syncRates ?? DEFAULT_SYNC_RATES;
    this.ports = o.ports;
    this.times = o.times ?? DEFAULT_TIMES;
    this.rules = o.rules ?? ALL_RULES;
    checkTimes(this.times);
    const { node, store, times, rules } = this;
    this.candidate = new Candidate({
      node,
      store,
      times,
      rules,
      now: () => this.ports.now(),
      random: () => this.ports.random(),
      log: (message, fields) => this.ports.log(message, fields),
      reached: (point) => this.reached(point),
      isIdle: () => this.role === 'idle',
      readRegister: () => this.ports.readRegister(),
      compareAndSet: (version, next) => {
        this.seekToken = this.nextToken++;
        this.ports.compareAndSet(this.seekToken, version, next);
      },
      won: (register) => this.promote(register),
    });
    this.follow();
  }

  get epoch(): number {
    return this.store.epoch;
  }

  /** For `status`: reads that were answered as a backup, blocks that came as copies since it follows. */
  get counters(): { backupReads: number; copiedBlocks: number } {
    const backupReads = this.readsBefore + (this.backup?.answered ?? 0);
    return { backupReads, copiedBlocks: this.follower?.copiedBlocks ?? 0 };
  }

  // --- what changes the role --------------------------------------------------------------------------------------------

  /** Runs after the changes before it; messages that come meanwhile find no one. */
  private transition(work: () => Promise<void>): void {
    this.changes++;
    this.change = this.change
      .then(async () => {
        if (this.isStopped) return;
        this.role = 'changing';
        await work();
      })
      .catch((error: unknown) => this.stop(`a change of role failed: ${String(error)}`))
      .finally(() => this.changes--);
  }

  /** To be asked behind each wait of a change. */
  private get isStopped(): boolean {
    return this.role === 'stopped';
  }

  /** A follower's journal on a store that is settled. */
  private follow(): void {
    this.follower = new Follower(this.store, this.peerArena, {
      durable: (position) => {
        this.reached('follow:durable');
        this.tell({ type: 'ACK', position });
        this.reached('follow:acknowledged');
      },
      copied: (id) => {
        this.reached('target:copied');
        this.tell({ type: 'COPY_ACK', id });
      },
      reached: (point) => this.reached(point),
      finished: () => this.finishSync(),
      corrupt: (block) => this.tell({ type: 'MEND', block }),
      refused: (error) => this.dropUpstream(error.message),
      failed: (error) => this.stop(error.message),
    });
    this.role = 'idle';
  }

  private reached(point: CrashPoint): void {
    const step = TARGET_STEPS[point];
    if (step !== undefined) {
      this.ports.log(step, { from: this.upstream?.node, copiedBlocks: this.follower?.copiedBlocks });
    }
    this.ports.reached?.(point);
  }

  private tell(message: Upstream): void {
    this.upstream?.send(message);
  }

  private dropUpstream(reason: string): void {
    if (this.upstream === null) return;
    this.ports.log('the stream of the primary ends', { from: this.upstream.node, reason });
    this.upstream.close();
    this.unfollow();
  }

  private unfollow(): void {
    this.upstream = null;
    this.endBackup();
    if (this.role === 'following') this.role = 'idle';
  }

  private endBackup(): void {
    if (this.backup === null) return;
    this.backup.end();
    this.readsBefore += this.backup.answered;
    this.backup = null;
    this.ports.serveReads?.(null);
  }

  /** Reads may be answered here once the primary grants it. */
  private beginBackup(link: PeerLink): void {
    const { store, arena, follower } = this;
    this.backup = new BackupVolume({
      store,
      arena,
      follower: follower!,
      primary: link.node,
      now: () => this.ports.now(),
      ask: (n) => link.send({ type: 'ASK', n }),
    });
    this.ports.serveReads?.(this.backup);
  }

  private async settle(): Promise<void> {
    const { follower, primary } = this;
    this.follower = null;
    this.primary = null;
    this.endBackup();
    if (primary !== null) {
      // It may have come into being while this waited for its turn: nothing of it may go on.
      primary.end('another role begins');
      this.ports.serve(null);
      primary.volume.close();
      await this.store.suspectUncommitted();
      primary.volume.abdicate();
      await primary.volume.drain();
    }
    await follower?.settle();
    if (this.store.failed !== null) throw this.store.failed;
  }

  private update(change: { epoch?: number; replica?: Partial<ReplicaInfo>; sizeBytes?: number }): Promise<void> {
    return this.store.update(change);
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
      this.candidate.lost();
      this.unfollow();
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
        if (link === this.upstream || !this.rules.fenceStreams) this.follower?.take(message);
        return;
      case 'RESIGNED':
        if (link === this.upstream && message.epoch === this.store.epoch) this.takeOver();
        return;
      case 'GRANT':
        if (link !== this.upstream) return;
        this.follower?.commit(message.committed);
        return this.backup?.granted(message.n, message.ms);
      case 'FETCH':
        if (link === this.upstream) this.backup?.tellOf(message, link);
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
    // It cannot settle: a full disk holds up what is to be applied.
    if (this.changes >= MAX_CHANGES) return refuse('it is still busy with what came before');
    const { state } = this.store.replica;
    if (role === 'member' && (state !== 'in-sync' || this.store.health !== 'good')) {
      return refuse(`it is ${this.store.health === 'good' ? state : this.store.health}`);
    }
    // Its epoch was looked at above.
    const strange = strangeness(this.store, message.registerId, message.registerVersion, Infinity);
    if (strange !== null && this.rules.refuseOldEpoch) return refuse(strange);
    if (this.rules.fenceStreams) this.dropUpstream('another one came');
    this.primary?.end(`${link.node} is primary of epoch ${epoch}`);
    this.upstream = link;
    this.candidate.heard();
    this.transition(async () => {
      await this.settle();
      if (this.isStopped) return;
      // Looked at again: this node may have promised itself elsewhere, or have won an epoch, while this waited.
      if (epoch < this.store.epoch && this.rules.refuseOldEpoch) {
        this.follow();
        refuse('promised to a later epoch');
        if (this.upstream === link) this.dropUpstream('it is of an older epoch');
        return;
      }
      const { replica } = this.store;
      const sound = this.store.health === 'good';
      // Of a damaged disk nothing is known to be right.
      const base = !sound ? ORIGIN : replica.state === 'syncing' ? replica.base : this.store.lastPosition;
      const known = { registerId: fromHex(message.registerId), registerVersion: message.registerVersion };
      const newer = epoch > this.store.epoch;
      if (role === 'target') {
        this.store.peers.dropAll();
        this.store.marks.dropAll();
        await this.update({ epoch, replica: { ...known, state: 'syncing', base, groupEpoch: epoch } });
      } else if (newer) await this.update({ epoch, replica: known });
      if (this.isStopped) return;
      this.follow();
      if (newer) this.ports.log('follows the primary of a newer epoch', { primary: link.node, epoch, as: role });
      if (role === 'target') this.reached('target:joined');
      if (this.upstream !== link) return;
      this.role = 'following';
      if (role === 'member') this.beginBackup(link);
      this.candidate.heard();
      const suspects = this.rules.reportSuspects ? this.store.peers.suspects().runs() : [];
      const { state } = this.store.replica;
      const diskId = toHex(this.store.diskId);
      const { lastPosition: last } = this.store;
      link.send({ type: 'STATUS', epoch, diskId, state, base, last, suspects });
    });
  }

  private beat(link: PeerLink, { n, committed }: Extract<Downstream, { type: 'BEAT' }>): void {
    this.candidate.heard();
    this.follower?.commit(committed);
    if (this.candidate.promise()) link.send({ type: 'ECHO', n, promiseMs: this.times.promiseMs });
  }

  /** The primary has resigned: what was promised to it is void, and there is nothing to wait for. */
  private takeOver(): void {
    this.dropUpstream('it has resigned');
    this.candidate.release();
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
    if (this.rules.voidAtFinish) this.store.peers.clearSuspect();
    void this.store.becomeSound({ state: 'in-sync', base }).then(
      () => {
        if (link === null || link !== this.upstream) return;
        this.reached('target:in-sync');
        link.send({ type: 'FINISHED' });
        // Grants are given once the register has it in sync.
        if (this.backup === null) this.beginBackup(link);
      },
      (error: HoldfastError) => this.stop(error.message),
    );
  }

  // --- the register and promotion -----------------------------------------------------------------------------------------

  /** The register as it is, read or watched. */
  learn(register: GroupRegister): void {
    if (this.isStopped || !this.candidate.learn(register)) return;
    this.primary?.learn(register);
    this.candidate.consider();
  }

  casSettled(token: number, result: CasOutcome): void {
    if (this.isStopped) return;
    if (token === this.seekToken) this.candidate.settled(result);
    // The answer to an attempt of an earlier tenure says nothing to this one.
    else if (token === this.tenureToken) this.primary?.casSettled(result);
  }

  private promote(register: GroupRegister): void {
    this.transition(async () => {
      this.dropUpstream('this node is primary now');
      await this.settle();
      if (this.isStopped) return;
      const known = Math.max(this.store.epoch, this.candidate.register?.epoch ?? 0);
      if (register.epoch < known) return this.follow();
      this.reached('promote:won');
      const replica = { registerId: fromHex(register.registerId), registerVersion: register.version };
      const sizeBytes = Math.max(register.sizeBytes ?? 0, this.store.sizeBytes);
      await this.update({ epoch: register.epoch, replica, sizeBytes });
      if (this.isStopped) return;
      this.role = 'primary';
      this.primary = new Primary({
        node: this.node,
        store: this.store,
        arena: this.arena,
        register,
        times: this.times,
        rules: this.rules,
        syncRates: this.syncRates,
        now: () => this.ports.now(),
        connect: (node) => this.ports.connect(node),
        compareAndSet: (version, next) => {
          this.tenureToken = this.nextToken++;
          this.ports.compareAndSet(this.tenureToken, version, next);
        },
        reached: (point) => this.reached(point),
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
    this.candidate.heard();
    this.transition(async () => {
      await this.settle();
      if (!this.isStopped) this.follow();
    });
  }

  // --- time -------------------------------------------------------------------------------------------------------------

  /** To be called every 20 ms or so. */
  tick(): void {
    if (this.role === 'stopped') return;
    const nowMs = this.ports.now();
    this.primary?.tick();
    this.backup?.tick();
    this.dropIfBlocked(nowMs);
    const { silentMs } = this.candidate;
    if (this.role === 'following' && this.candidate.isImpatient) {
      this.dropUpstream(`nothing was heard for ${Math.round(silentMs)} ms`);
    }
    // What is read decides whether promotion is sought: it is read as soon as that may be.
    const hurry = this.role === 'idle' && this.candidate.isReady && nowMs >= this.lastReadMs + HURRY_MS;
    if (hurry || (nowMs >= this.nextReadMs && (this.role !== 'following' || this.candidate.isUndecided))) {
      this.lastReadMs = nowMs;
      // A primary that serves hears of changes by the watch, or by what it meets.
      this.nextReadMs = nowMs + this.times.retryMs * (this.primary?.serving === true ? 5 : 1);
      this.ports.readRegister();
    }
  }

  /**
   * A primary that sends more than there is memory for is left: it goes on without this member, which is brought back.
   * To wait on could be for ever: its memory may be held by what waits for this member.
   */
  private dropIfBlocked(nowMs: number): void {
    if (this.follower?.isBlocked !== true) this.blockedSinceMs = null;
    else if (this.blockedSinceMs === null) this.blockedSinceMs = nowMs;
    else if (nowMs - this.blockedSinceMs > BLOCKED_MS) {
      this.blockedSinceMs = null;
      this.dropUpstream('there was no memory, or no room in the journal, for what it sent');
    }
  }

  /**
   * The clock stood still or jumped (the machine was suspended): what was promised to this node may have run out. What
   * it has promised itself runs on: longer than it need.
   */
  forgetRights(): void {
    this.primary?.forgetRights();
    this.backup?.forgetRights();
  }

  /** For good: the store has failed, or the process is to end. */
  stop(reason: string): void {
    if (this.role === 'stopped') return;
    this.role = 'stopped';
    this.ports.log('the replica stops', { reason });
    this.primary?.end(reason);
    this.follower?.stop();
    this.upstream?.close();
    this.upstream = null;
    this.endBackup();
    this.ports.serve(null);
  }

  /** After `stop`: everything that was appended is applied, nothing is under way. The store may be closed then. */
  async stopped(): Promise<void> {
    const settled = this.change.then(() => {
      this.role = 'stopped';
      return this.store.failed === null ? this.settle() : undefined;
    });
    // What a full disk holds up stays in the journal.
    await (this.store.outOfSpace ? Promise.race([settled, this.store.journalIdle()]) : settled);
  }
}

/** Changes of role that wait for one another. */
const MAX_CHANGES = 8;
/** Between reads of the register while promotion is due. */
const HURRY_MS = 50;
/** A follower that can take nothing for so long lets its primary go on without it. */
const BLOCKED_MS = 10_000;
