/**
 * One tenure of a primary: it opens its epoch with one atomic group of records, then serves; it decides what is
 * committed, removes members that fail, reads under the promises of the others, and brings absent members back. Pure.
 *
 * Guarantees: a record is committed when it is durable on every member that must acknowledge (mustAck, a superset of
 * inSync); a member that fails holds the acknowledgments up until the register says that it is out and a CONFIG record
 * that says so is durable on all others; reads are answered while every other in-sync member's promise runs; once a
 * later epoch is known, nothing is answered any more.
 */
import { HoldfastError } from '../base/errors.ts';
import { type Position, comparePositions } from '../base/position.ts';
import type { ConfigChange } from '../storage/control.ts';
import { DirtyBitmap } from '../storage/dirty-bitmap.ts';
import { BlockExchange } from './block-exchange.ts';
import { ConfigLog } from './config-log.ts';
import { type CasOutcome, type GroupRegister, absentOf, peerIdOf } from './group-register.ts';
import { Membership, deposedBy } from './membership.ts';
import { logGroup, planGroup } from './opening-group.ts';
import { Peer, type PeerPhase, messageOf } from './peer.ts';
import type { PeerLink, Upstream } from './peer-messages.ts';
import type { PrimaryParts } from './primary-parts.ts';
import { PrimaryVolume } from './primary-volume.ts';
import { ReadRights } from './read-rights.ts';
import type { LogRecord } from './store.ts';
import { SyncPace } from './sync-pace.ts';
import { type SyncProgress, SyncSource, prepareBitmap } from './sync-source.ts';

export class Primary {
  readonly volume: PrimaryVolume;
  readonly epoch: number;
  readonly membership: Membership;
  private readonly o: PrimaryParts;
  private readonly peers: Map<string, Peer> = new Map();
  private stage: 'gathering' | 'opening' | 'serving' | 'over' = 'gathering';
  private readonly beganMs: number;
  private durable: Position;
  /** Nothing is committed before this position is: the EPOCH record, or the newest CONFIG record. */
  private holdUntil: Position | null = null;
  private epochAt: Position | null = null;
  /** A member that was removed may answer reads until then: nothing is committed before. */
  private releaseAtMs = -Infinity;
  private readonly rights: ReadRights;
  private readonly configs: ConfigLog;
  readonly exchange: BlockExchange;
  private onEnded: () => void = () => {};
  private beat = 0;
  private nextBeatMs = 0;
  private committedSent: Position = { epoch: 0, seq: 0 };

  constructor(parts: PrimaryParts) {
    this.o = parts;
    this.epoch = parts.register.epoch;
    this.beganMs = parts.now();
    this.durable = parts.store.durablePosition;
    this.rights = new ReadRights({
      now: parts.now,
      own: parts.node,
      members: () => this.membership.counted,
      free: !parts.rules.needPromise,
      fromSending: parts.rules.rightFromSending,
      boundGrants: parts.rules.boundGrants,
    });
    this.volume = new PrimaryVolume(parts.store, parts.arena, {
      readOnly: false,
      onFailed: (error) => this.end(`the store failed: ${error.message}`),
      group: {
        appended: (record) => this.appended(record),
        durable: (position) => {
          this.durable = position;
          parts.reached('write:durable');
          this.commit();
        },
        rightToRead: (done) => this.rights.whenReadable(done),
        mayRead: () => this.rights.mayRead,
        fetchBlock: (block, take, done) => this.exchange.fetchBlock(block, take, done),
        reached: (point) => parts.reached(point),
        rules: parts.rules,
      },
    });
    const { volume } = this;
    this.exchange = new BlockExchange({ ...parts, volume, members: () => this.following });
    this.configs = new ConfigLog(parts.arena, this.volume, parts.register.members.length, () => this.logConfigs());
    this.membership = new Membership(parts.register, {
      compareAndSet: (version, next) => parts.compareAndSet(version, next),
      changed: (removed, added) => this.registerChanged(removed, added),
      deposed: (register) => this.end(deposedBy(register, this.epoch)),
    });
    this.knowMembers();
    for (const peer of this.peers.values()) if (this.inSync(peer)) this.reach(peer);
    this.maybeOpen();
  }

  /** Members come and go; another disk in the same node is another member. */
  private knowMembers(): void {
    const { register } = this.membership;
    for (const peer of this.peers.values()) {
      if (peerIdOf(register, peer.node) === peer.id) continue;
      peer.must = false;
      this.failed(peer, 'it is a member no longer');
      this.peers.delete(peer.node);
      if (this.o.store.peers.of(peer.id) !== null)
        this.config({ action: 'present', peer: peer.id, completeAfter: this.committed });
    }
    for (const { node } of register.members) {
      if (node !== this.o.node && !this.peers.has(node))
        this.peers.set(node, new Peer(node, peerIdOf(register, node)!));
    }
  }

  private inSync(peer: Peer): boolean {
    return this.membership.register.inSync.includes(peer.node);
  }

  /** Members that get every record and have what is committed. */
  private get following(): Peer[] {
    return [...this.peers.values()].filter(({ phase, must, link }) => phase === 'joined' && must && link !== null);
  }

  get serving(): boolean {
    return this.stage === 'serving';
  }

  // --- streams --------------------------------------------------------------------------------------------------------

  private reach(peer: Peer): void {
    peer.phase = 'connecting';
    peer.nextAttemptMs = this.o.now() + this.o.times.retryMs;
    this.o.connect(peer.node);
  }

  /** The stream that was asked for. */
  connected(link: PeerLink): void {
    const peer = this.peers.get(link.node);
    if (this.stage === 'over' || peer === undefined || peer.phase !== 'connecting') return link.close();
    const member = this.stage === 'gathering' && this.inSync(peer) && !this.membership.isRemoving(peer.node);
    // A target is brought back once the epoch is open.
    if (!member && (this.stage !== 'serving' || this.membership.counted.includes(peer.node))) return link.close();
    peer.link = link;
    peer.phase = 'joining';
    peer.joinedAs = member ? 'member' : 'target';
    peer.heardAtMs = this.o.now();
    const { registerId, version } = this.membership.register;
    const role = peer.joinedAs;
    link.send({ type: 'JOIN', epoch: this.epoch, registerId, registerVersion: version, role });
  }

  /** The stream ended, or could not be opened. */
  closed(node: string, link: PeerLink | null): void {
    const peer = this.peers.get(node);
    if (peer === undefined || peer.link !== link || this.stage === 'over') return;
    this.failed(peer, 'the connection ended');
  }

  private failed(peer: Peer, reason: string): void {
    const { phase } = peer;
    if (phase === 'away') return;
    if (phase !== 'connecting') this.o.log('a replica is lost', { peer: peer.node, phase, reason });
    if (this.o.rules.fenceStreams) peer.link?.close();
    peer.link = null;
    peer.phase = 'away';
    peer.sync?.stop();
    peer.sync = null;
    this.rights.lost(peer.node);
    this.exchange.lost(peer.node);
    peer.nextAttemptMs = this.o.now() + this.o.times.retryMs;
    if (this.membership.counted.includes(peer.node)) {
      // While the epoch opens it may still come in time.
      if (this.stage !== 'gathering' || phase === 'joined') this.membership.remove(peer.node, this.o.now());
    } else if (peer.must) {
      // Behind the barrier of a reintegration: it is not in sync yet, so nobody has to be asked.
      peer.must = false;
      this.o.store.peers.track(peer.id, true);
      this.commit();
    }
    if (!this.o.rules.casBeforeAck) {
      peer.must = false;
      this.commit();
    }
  }

  received(link: PeerLink, message: Upstream): void {
    const peer = this.peers.get(link.node);
    if (this.stage === 'over' || peer === undefined) return;
    if (peer.link !== link && this.o.rules.fenceStreams) return;
    peer.heardAtMs = this.o.now();
    switch (message.type) {
      case 'STATUS':
        return this.joined(peer, message);
      case 'REFUSED':
        return this.refused(peer, message);
      case 'ACK':
        if (comparePositions(message.position, peer.acked) > 0) peer.acked = message.position;
        this.o.reached('write:acknowledged');
        peer.sync?.targetHas(peer.acked);
        return this.commit();
      case 'ECHO':
        this.rights.promised(peer.node, message.n, message.promiseMs);
        return this.commit();
      case 'ASK':
        return this.asked(peer, message.n);
      case 'COPY_ACK':
        return peer.sync?.acknowledged(message.id);
      case 'FETCHED':
        return this.exchange.fetched(peer.node, message);
      case 'MEND':
        return this.exchange.wanted(peer, message.block);
      case 'FINISHED':
        if (peer.phase !== 'syncing') return;
        peer.phase = 'adding';
        this.o.reached('source:finished');
        return this.membership.add(peer.node, this.o.now());
    }
  }

  private refused(peer: Peer, { epoch, reason }: Extract<Upstream, { type: 'REFUSED' }>): void {
    if (epoch > this.epoch) return this.end(`${peer.node} has promised itself to epoch ${epoch}`);
    this.failed(peer, reason);
    // A member that says no cannot be waited for.
    if (this.membership.counted.includes(peer.node)) this.membership.remove(peer.node, this.o.now());
  }

  private joined(peer: Peer, status: Extract<Upstream, { type: 'STATUS' }>): void {
    if (peer.phase !== 'joining' || status.epoch !== this.epoch) return;
    if (`${peer.node}/${status.diskId}` !== peer.id)
      return this.failed(peer, 'it is another disk than the register names');
    if (peer.joinedAs === 'target') return this.beginSync(peer, status);
    // It was asked as a member; the register may say otherwise by now.
    if (this.stage !== 'gathering' || !this.inSync(peer)) return this.failed(peer, 'it comes too late');
    peer.phase = 'joined';
    peer.must = true;
    peer.suspects = status.suspects;
    this.maybeOpen();
  }

  // --- opening the epoch ------------------------------------------------------------------------------------------------

  private maybeOpen(): void {
    if (this.stage !== 'gathering') return;
    const members = [...this.peers.values()].filter((peer) => this.inSync(peer));
    if (members.some(({ phase }) => phase !== 'joined')) return;
    const union = new DirtyBitmap(this.o.store.blocks);
    if (members.length > 0 && this.o.rules.reconcile) {
      union.setRuns(this.o.store.peers.suspects().runs());
      for (const { suspects } of members) union.setRuns(suspects);
    }
    const runs = planGroup(union, this.o.arena, this.o.store.uncommittedLimitBytes);
    if (runs === null) {
      this.o.log('too much may differ for a group: the members are brought back', { blocks: union.count });
      for (const { node } of members) this.membership.remove(node, this.o.now());
      return;
    }
    this.stage = 'opening';
    this.o.reached('promote:gathered');
    const { store, arena, reached } = this.o;
    const start = (): { absent: string[] } => ({ absent: absentOf(this.membership.register) });
    const ended = new Promise<void>((resolve) => (this.onEnded = resolve));
    logGroup({ store, arena, volume: this.volume, runs, start, over: () => this.over, ended, reached }).then(
      (epochAt) => {
        if (epochAt === null || this.over) return;
        this.epochAt = epochAt;
        this.holdUntil = epochAt;
        this.logConfigs();
        this.commit();
      },
      (error: unknown) => this.end(`its own copy cannot be read: ${(error as Error).message}`),
    );
  }

  private get over(): boolean {
    return this.stage === 'over';
  }

  // --- commit -----------------------------------------------------------------------------------------------------------

  private appended(record: LogRecord): void {
    this.o.reached('write:appended');
    for (const peer of this.peers.values()) {
      if (peer.link === null || !peer.must) {
        peer.sync?.appended(record);
        continue;
      }
      record.users++;
      peer.link.send(messageOf(record), () => this.volume.letGo(record));
      peer.sync?.appended(record);
    }
    this.o.reached('write:sent');
  }

  private commit(): void {
    if (this.stage === 'gathering' || this.over || this.epochAt === null || this.configs.waiting) return;
    if (this.releaseAtMs > this.o.now()) return;
    // A primary that was stopped may find answers of long ago: who follows now it does not know before it is promised.
    if (this.stage === 'serving' && !this.rights.mayRead) return;
    let upTo = this.durable;
    for (const { must, acked } of this.peers.values()) if (must && comparePositions(acked, upTo) < 0) upTo = acked;
    if (this.holdUntil !== null) {
      if (comparePositions(upTo, this.holdUntil) < 0) return;
      this.holdUntil = null;
    }
    if (comparePositions(upTo, this.o.store.committedPosition) > 0) {
      this.volume.committed(upTo);
      this.o.reached('write:answered');
    }
    if (this.stage === 'opening' && comparePositions(upTo, this.epochAt) >= 0) {
      this.stage = 'serving';
      this.o.reached('promote:open');
      this.o.log('the epoch is open', { epoch: this.epoch, inSync: this.membership.register.inSync });
      this.o.serving(this.volume);
    }
    for (const { sync } of this.peers.values()) sync?.advance();
  }

  /** The register changed within this epoch. */
  private registerChanged(removed: string[], added: string[]): void {
    for (const node of removed) this.releaseAtMs = Math.max(this.releaseAtMs, this.rights.grantedUntilMs(node));
    this.knowMembers();
    for (const node of removed) {
      const peer = this.peers.get(node);
      if (peer === undefined) continue;
      if (this.stage !== 'gathering') this.config({ action: 'absent', peer: peer.id, completeAfter: this.committed });
      peer.must = false;
      if (peer.phase !== 'away' && peer.phase !== 'connecting') this.failed(peer, 'it was removed');
    }
    for (const node of added) {
      const peer = this.peers.get(node);
      if (peer === undefined || peer.phase !== 'adding') continue;
      peer.phase = 'joined';
      this.o.log('a replica is in sync again', { peer: node, copiedBlocks: peer.sync?.progress.copiedBlocks });
      peer.sync?.stop();
      peer.sync = null;
      this.config({ action: 'present', peer: peer.id, completeAfter: this.committed });
    }
    if (this.stage === 'gathering') this.maybeOpen();
    else this.commit();
    this.rights.again();
  }

  private get committed(): Position {
    return this.o.store.committedPosition;
  }

  /** Logs who is absent or present; nothing more is acknowledged until that is durable on all who must have it. */
  private config(change: ConfigChange): void {
    this.configs.add(change);
    this.logConfigs();
  }

  /** Behind the EPOCH record: what it says of the absent is older. */
  private logConfigs(): void {
    if (this.over || this.epochAt === null) return;
    const at = this.configs.log();
    if (at !== null && this.o.rules.holdForConfig) this.holdUntil = at;
    this.commit();
  }

  // --- reading ----------------------------------------------------------------------------------------------------------

  /** A member would answer reads itself. */
  private asked(peer: Peer, n: number): void {
    const sound = this.stage === 'serving' && peer.phase === 'joined' && peer.must && this.inSync(peer);
    const ms =
      sound && !this.membership.isRemoving(peer.node) ? this.rights.grant(peer.node, this.o.times.promiseMs) : 0;
    peer.link?.send({ type: 'GRANT', n, ms, committed: this.committed });
  }

  /** This machine slept: what was promised to it has run out. */
  forgetRights(): void {
    this.rights.forget();
  }

  // --- reintegration ----------------------------------------------------------------------------------------------------

  private beginSync(peer: Peer, status: Extract<Upstream, { type: 'STATUS' }>): void {
    const { store, rules } = this.o;
    if (!prepareBitmap(store, peer.id, status, rules.targetSuspects))
      return this.failed(peer, 'there is no bitmap left for it');
    peer.phase = 'syncing';
    peer.acked = { epoch: 0, seq: 0 };
    const { bitmap, completeAfter } = store.peers.of(peer.id)!;
    const has = { base: status.base, suspects: status.suspects.length / 2 };
    this.o.log('reintegration begins', { peer: peer.node, dirtyBlocks: bitmap.count, completeAfter, ...has });
    const sync = new SyncSource({
      store,
      arena: this.o.arena,
      volume: this.volume,
      link: peer.link!,
      peer: peer.id,
      rules,
      pace: new SyncPace(this.o.syncRates, this.o.now, () => this.volume.requests),
      others: () => absentOf(this.membership.register),
      raised: (s0) => {
        peer.must = true;
        peer.acked = s0;
      },
      failed: (reason, againMs) => {
        this.failed(peer, reason);
        peer.nextAttemptMs = this.o.now() + againMs;
      },
      reached: (point) => this.o.reached(point),
      step: (step) => this.o.log('a step of a reintegration', { peer: peer.node, step, ...sync.progress }),
    });
    peer.sync = sync;
    sync.start();
  }

  /** How the other members stand, for `status`. */
  status(): Array<{ node: string; phase: PeerPhase; acked: Position; sync: SyncProgress | null }> {
    return [...this.peers.values()].map(({ node, phase, acked, sync }) => {
      return { node, phase, acked, sync: sync?.progress ?? null };
    });
  }

  // --- time -------------------------------------------------------------------------------------------------------------

  tick(): void {
    if (this.over) return;
    const nowMs = this.o.now();
    const { times } = this.o;
    this.membership.tick(nowMs);
    if (this.releaseAtMs > -Infinity && nowMs >= this.releaseAtMs) {
      this.releaseAtMs = -Infinity;
      this.commit();
    }
    for (const peer of this.peers.values()) {
      const silentMs = nowMs - peer.heardAtMs;
      if (peer.link !== null && silentMs > times.suspicionMs)
        this.failed(peer, `silent for ${Math.round(silentMs)} ms`);
      if (peer.phase === 'connecting' && nowMs >= peer.nextAttemptMs) peer.phase = 'away';
      if (peer.phase === 'away' && nowMs >= peer.nextAttemptMs) this.again(peer, nowMs);
      peer.sync?.tick();
    }
    if (nowMs >= this.nextBeatMs) {
      this.nextBeatMs = nowMs + times.heartbeatMs;
      this.beatAll(nowMs);
    } else if (comparePositions(this.committed, this.committedSent) > 0) this.beatAll(nowMs);
  }

  private again(peer: Peer, nowMs: number): void {
    const waiting = this.membership.counted.includes(peer.node);
    if (this.stage === 'gathering' && waiting) {
      if (nowMs - this.beganMs > this.o.times.gatherMs) this.membership.remove(peer.node, nowMs);
      else this.reach(peer);
    } else if (this.stage === 'serving' && !waiting) this.reach(peer);
    else if (waiting) this.membership.remove(peer.node, nowMs);
  }

  private beatAll(nowMs: number): void {
    const n = ++this.beat;
    this.committedSent = this.committed;
    for (const peer of this.peers.values()) {
      if (peer.link === null || (peer.phase !== 'joined' && peer.phase !== 'syncing' && peer.phase !== 'adding'))
        continue;
      this.rights.sent(peer.node, n, nowMs);
      peer.link.send({ type: 'BEAT', n, committed: this.committed });
    }
    this.o.reached('mark:sent');
  }

  casSettled(result: CasOutcome): void {
    this.membership.settled(result, this.o.now(), this.o.times.retryMs);
  }

  learn(register: GroupRegister): void {
    this.membership.learn(register, this.o.now());
  }

  /**
   * Stops on purpose: takes nothing more, answers what it has taken, and tells the members, which need not wait until
   * they suspect it. What cannot be committed in time is left to them.
   * @param waited resolves when waiting is to end
   */
  async resign(waited: Promise<void>): Promise<void> {
    if (this.over) return;
    this.volume.close();
    await Promise.race([this.volume.drain(), waited]);
    if (this.over) return;
    // From here on nothing is answered; only then may another one begin.
    const links = [...this.peers.values()].filter(({ phase }) => phase === 'joined').map(({ link }) => link);
    this.end('it has resigned', false);
    for (const link of links) link?.send({ type: 'RESIGNED', epoch: this.epoch });
  }

  /** The tenure is over: nothing is answered any more. */
  end(reason: string, closeLinks = true): void {
    if (this.over) return;
    this.stage = 'over';
    this.membership.stop();
    for (const peer of this.peers.values()) {
      if (closeLinks) peer.link?.close();
      peer.link = null;
      peer.sync?.stop();
    }
    const error = new HoldfastError('NOT_PRIMARY', { operation: 'serve', detail: reason });
    this.rights.end(error);
    this.exchange.lost(null);
    this.configs.end();
    this.onEnded();
    this.o.over(reason);
  }
}
