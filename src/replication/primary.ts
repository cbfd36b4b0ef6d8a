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
import { MAX_IO_BLOCKS } from '../base/units.ts';
import type { Arena, Slot } from '../storage/arena.ts';
import type { BlockStore } from '../storage/block-store.ts';
import { type ConfigChange, encodeConfig, encodeEpoch } from '../storage/control.ts';
import { DirtyBitmap } from '../storage/dirty-bitmap.ts';
import { RECORD_KINDS } from '../storage/record.ts';
import { type CasOutcome, type GroupRegister, absentOf, peerIdOf } from './group-register.ts';
import { Membership } from './membership.ts';
import { Peer, type PeerPhase } from './peer.ts';
import type { PeerLink, Upstream } from './peer-messages.ts';
import { PrimaryVolume } from './primary-volume.ts';
import { DRIFT, type Rules, type Times } from './rules.ts';
import type { Done } from './served-volume.ts';
import type { LogRecord } from './store.ts';
import { SyncSource } from './sync-source.ts';

const RUN_BLOCKS = MAX_IO_BLOCKS - 1;
/** More blocks than these are not put into a group: the member is brought back by its bitmap instead. */
const MAX_GROUP_BLOCKS = 4096;

export interface PrimaryParts {
  node: string;
  store: BlockStore;
  arena: Arena;
  register: GroupRegister;
  times: Times;
  rules: Rules;
  now: () => number;
  /** Opens a stream to a node; it comes, or not, through `connected`. */
  connect(node: string): void;
  compareAndSet(expectedVersion: number, next: GroupRegister): void;
  /** The epoch is open: clients may be served by this volume. */
  serving(volume: PrimaryVolume): void;
  /** A later epoch is known, or the store has failed: the tenure is over. */
  over(reason: string): void;
  log(message: string, fields?: object): void;
}

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
  private waitingReads: Done[] = [];
  private beat = 0;
  private nextBeatMs = 0;
  private committedSent: Position = { epoch: 0, seq: 0 };

  constructor(parts: PrimaryParts) {
    this.o = parts;
    this.epoch = parts.register.epoch;
    this.beganMs = parts.now();
    this.durable = parts.store.durablePosition;
    this.volume = new PrimaryVolume(parts.store, parts.arena, {
      readOnly: false,
      onFailed: (error) => this.end(`the store failed: ${error.message}`),
      group: {
        appended: (record) => this.appended(record),
        durable: (position) => {
          this.durable = position;
          this.commit();
        },
        rightToRead: (done) => this.rightToRead(done),
      },
    });
    this.membership = new Membership(parts.register, {
      compareAndSet: (version, next) => parts.compareAndSet(version, next),
      changed: (removed, added) => this.registerChanged(removed, added),
      deposed: (register) => this.end(`epoch ${register.epoch} has begun, its primary is ${register.primary}`),
    });
    this.knowMembers();
    for (const peer of this.peers.values()) if (this.inSync(peer)) this.reach(peer);
    this.maybeOpen();
  }

  private knowMembers(): void {
    const { register } = this.membership;
    for (const { node } of register.members) {
      if (node !== this.o.node && !this.peers.has(node))
        this.peers.set(node, new Peer(node, peerIdOf(register, node)!));
    }
  }

  private inSync(peer: Peer): boolean {
    return this.membership.register.inSync.includes(peer.node);
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
    if (!member && this.membership.counted.includes(peer.node)) return link.close();
    peer.link = link;
    peer.phase = 'joining';
    peer.heardAtMs = this.o.now();
    const { registerId, version } = this.membership.register;
    const role = member ? 'member' : 'target';
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
    peer.link?.close();
    peer.link = null;
    peer.phase = 'away';
    peer.sync?.stop();
    peer.sync = null;
    peer.beats.clear();
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
    if (this.stage === 'over' || peer === undefined || peer.link !== link) return;
    peer.heardAtMs = this.o.now();
    switch (message.type) {
      case 'STATUS':
        return this.joined(peer, message);
      case 'REFUSED':
        return this.refused(peer, message);
      case 'ACK':
        if (comparePositions(message.position, peer.acked) > 0) peer.acked = message.position;
        peer.sync?.targetHas(peer.acked);
        return this.commit();
      case 'ECHO':
        return this.echo(peer, message.n, message.promiseMs);
      case 'COPY_ACK':
        return peer.sync?.acknowledged(message.id);
      case 'FINISHED':
        peer.phase = 'adding';
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
    if (this.stage === 'gathering') {
      peer.phase = 'joined';
      peer.must = true;
      peer.suspects = status.suspects;
      return this.maybeOpen();
    }
    this.beginSync(peer, status);
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
    if (union.count > MAX_GROUP_BLOCKS) {
      for (const { node } of members) this.membership.remove(node, this.o.now());
      return;
    }
    this.stage = 'opening';
    void this.open(union);
  }

  /** Nobody else changes the volume meanwhile. */
  private async open(union: DirtyBitmap): Promise<void> {
    const { store } = this.o;
    for (let at = 0; ;) {
      const run = union.nextRun(at, RUN_BLOCKS);
      if (run === null) break;
      at = run.first + run.count;
      const slot = await this.slot(run.count);
      const error = await new Promise<HoldfastError | null>((resolve) =>
        store.readBlocks(run.first, run.count, slot, (failure) => resolve(failure)),
      );
      if (this.over) return this.o.arena.release(slot);
      if (error !== null) return this.end(`block ${run.first} and following cannot be read: ${error.message}`);
      let hole = true;
      for (let block = run.first; hole && block < at; block++) hole = store.isHole(block);
      this.volume.log(hole ? RECORD_KINDS.ZERO : RECORD_KINDS.WRITE, run.first, run.count, slot, () => {});
    }
    const start = { absent: absentOf(this.membership.register), sessions: store.sessions.encode() };
    const slot = await this.slot(1 + start.sessions.length);
    if (this.over) return this.o.arena.release(slot);
    encodeEpoch(start, slot.payload);
    this.epochAt = this.volume.log(RECORD_KINDS.EPOCH, 0, 1 + start.sessions.length, slot, () => {});
    this.holdUntil = this.epochAt;
    this.commit();
  }

  private async slot(pages: number): Promise<Slot> {
    for (;;) {
      const slot = this.o.store.hasRoomForPeer(pages) ? this.o.arena.take(pages) : null;
      if (slot !== null) return slot;
      await new Promise<void>((resolve) => this.o.arena.whenFree(pages, resolve));
    }
  }

  private get over(): boolean {
    return this.stage === 'over';
  }

  // --- commit -----------------------------------------------------------------------------------------------------------

  private appended(record: LogRecord): void {
    for (const peer of this.peers.values()) {
      if (peer.link === null || !peer.must) {
        peer.sync?.appended(record);
        continue;
      }
      record.users++;
      peer.link.send({ type: 'RECORD', bytes: record.bytes! }, () => this.volume.letGo(record));
      peer.sync?.appended(record);
    }
  }

  private commit(): void {
    if (this.stage === 'gathering' || this.over || this.epochAt === null) return;
    let upTo = this.durable;
    for (const { must, acked } of this.peers.values()) if (must && comparePositions(acked, upTo) < 0) upTo = acked;
    if (this.holdUntil !== null) {
      if (comparePositions(upTo, this.holdUntil) < 0) return;
      this.holdUntil = null;
    }
    if (comparePositions(upTo, this.o.store.committedPosition) > 0) this.volume.committed(upTo);
    if (this.stage === 'opening' && comparePositions(upTo, this.epochAt) >= 0) {
      this.stage = 'serving';
      this.o.log('the epoch is open', { epoch: this.epoch, inSync: this.membership.register.inSync });
      this.o.serving(this.volume);
    }
    for (const { sync } of this.peers.values()) sync?.advance();
  }

  /** The register changed within this epoch. */
  private registerChanged(removed: string[], added: string[]): void {
    this.knowMembers();
    for (const node of removed) {
      const peer = this.peers.get(node);
      if (peer === undefined) continue;
      if (this.epochAt !== null) this.config({ action: 'absent', peer: peer.id, completeAfter: this.committed });
      peer.must = false;
      if (peer.phase !== 'away' && peer.phase !== 'connecting') this.failed(peer, 'it was removed');
    }
    for (const node of added) {
      const peer = this.peers.get(node);
      if (peer === undefined || peer.phase !== 'adding') continue;
      peer.phase = 'joined';
      peer.sync?.stop();
      peer.sync = null;
      this.o.log('a replica is in sync again', { peer: node });
      this.config({ action: 'present', peer: peer.id, completeAfter: this.committed });
    }
    if (this.stage === 'gathering') this.maybeOpen();
    else this.commit();
    this.readsAgain();
  }

  private get committed(): Position {
    return this.o.store.committedPosition;
  }

  /** Logs who is absent or present; nothing more is acknowledged until that is durable on all who must have it. */
  private config(change: ConfigChange): void {
    const slot = this.o.arena.take(1);
    if (slot === null) {
      this.o.arena.whenFree(1, () => this.over || this.config(change));
      return;
    }
    encodeConfig(change, slot.payload);
    this.holdUntil = this.volume.log(RECORD_KINDS.CONFIG, 0, 1, slot, () => {});
  }

  // --- reading ----------------------------------------------------------------------------------------------------------

  private echo(peer: Peer, n: number, promiseMs: number): void {
    const sentAtMs = peer.beats.get(n);
    if (sentAtMs === undefined) return;
    for (const earlier of peer.beats.keys()) if (earlier <= n) peer.beats.delete(earlier);
    const from = this.o.rules.rightFromSending ? sentAtMs : this.o.now();
    peer.rightUntilMs = Math.max(peer.rightUntilMs, from + promiseMs * DRIFT);
    this.readsAgain();
  }

  private get mayRead(): boolean {
    if (!this.o.rules.needPromise) return true;
    const nowMs = this.o.now();
    return this.membership.counted.every((node) => node === this.o.node || this.peers.get(node)!.rightUntilMs > nowMs);
  }

  private rightToRead(done: Done): void {
    if (this.over) done(new HoldfastError('NOT_PRIMARY', { operation: 'read' }));
    else if (this.mayRead) done(null);
    else this.waitingReads.push(done);
  }

  private readsAgain(): void {
    if (this.waitingReads.length > 0 && this.mayRead) for (const done of this.waitingReads.splice(0)) done(null);
  }

  // --- reintegration ----------------------------------------------------------------------------------------------------

  private beginSync(peer: Peer, status: Extract<Upstream, { type: 'STATUS' }>): void {
    const { store, rules } = this.o;
    if (store.peers.of(peer.id) === null && !store.peers.begin(peer.id, { epoch: 0, seq: 0 })) {
      return this.failed(peer, 'there is no bitmap left for it');
    }
    const known = store.peers.of(peer.id)!;
    if (comparePositions(known.completeAfter, status.base) > 0 || known.completeAfter.epoch === 0)
      known.bitmap.setAll();
    if (rules.targetSuspects) known.bitmap.setRuns(status.suspects);
    known.tracking = true;
    peer.phase = 'syncing';
    peer.acked = { epoch: 0, seq: 0 };
    this.o.log('reintegration begins', { peer: peer.node, dirtyBlocks: known.bitmap.count });
    const sync = new SyncSource({
      store,
      arena: this.o.arena,
      volume: this.volume,
      link: peer.link!,
      peer: peer.id,
      rules,
      others: () => absentOf(this.membership.register),
      raised: (s0) => {
        peer.must = true;
        peer.acked = s0;
      },
      finishing: () => {},
      failed: (reason) => this.failed(peer, reason),
    });
    peer.sync = sync;
    sync.start();
  }

  /** How the replicas stand, for `status`. */
  status(): Array<{
    node: string;
    phase: PeerPhase;
    acked: Position;
    sync: ReturnType<() => SyncSource['progress']> | null;
  }> {
    return [...this.peers.values()].map(({ node, phase, acked, sync }) => ({
      node,
      phase,
      acked,
      sync: sync?.progress ?? null,
    }));
  }

  // --- time -------------------------------------------------------------------------------------------------------------

  tick(): void {
    if (this.over) return;
    const nowMs = this.o.now();
    const { times } = this.o;
    this.membership.tick(nowMs);
    for (const peer of this.peers.values()) {
      const silentMs = nowMs - peer.heardAtMs;
      if (peer.link !== null && silentMs > times.suspicionMs)
        this.failed(peer, `silent for ${Math.round(silentMs)} ms`);
      if (peer.phase === 'connecting' && nowMs >= peer.nextAttemptMs) peer.phase = 'away';
      if (peer.phase === 'away' && nowMs >= peer.nextAttemptMs) this.again(peer, nowMs);
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
      peer.beats.set(n, nowMs);
      peer.link.send({ type: 'BEAT', n, committed: this.committed });
    }
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
    for (const done of this.waitingReads.splice(0)) done(error);
    this.o.over(reason);
  }
}
