/**
 * The volume as a backup serves it: reads only, under grants of the primary. Pure.
 *
 * Guarantees: what is read was committed when the read began, or later: a block with a record that is not known to be
 * committed waits; a read is answered only while a grant runs, which counts from when it was asked for and ends before
 * the promises that it rests on; when the replica stops following, nothing is answered any more.
 */
import type { ChangedExtent, Extent } from '../base/device.ts';
import { HoldfastError } from '../base/errors.ts';
import type { Position } from '../base/position.ts';
import { BLOCK_BYTES, MAX_IO_BYTES } from '../base/units.ts';
import type { Arena, Slot } from '../storage/arena.ts';
import type { BlockStore } from '../storage/block-store.ts';
import type { Mark } from '../storage/marks.ts';
import { refusalOf, volumeInfoOf } from './checks.ts';
import type { Follower } from './follower.ts';
import type { Downstream, PeerLink } from './peer-messages.ts';
import { DRIFT } from './rules.ts';
import type { Attachment, Done, ReadDone, ServedVolume, VolumeInfo } from './served-volume.ts';

/** A grant is renewed while reads come, when less than this share of it is left. */
const RENEW_SHARE = 0.6;
/** An answer that does not come is asked for again. */
const ASK_AGAIN_MS = 50;

export interface BackupVolumeParts {
  store: BlockStore;
  /** What clients' slots are from. */
  arena: Arena;
  follower: Follower;
  now: () => number;
  /** Asks the primary for a grant; the answer comes as `granted` with the same number. */
  ask: (n: number) => void;
  /** Where the primary is, for errors. */
  primary: string;
}

export class BackupVolume implements ServedVolume {
  private readonly o: BackupVolumeParts;
  /** Reads that were answered. */
  answered = 0;
  private grantUntilMs = -Infinity;
  private grantMs = 0;
  private asks = 0;
  private askedAtMs = -Infinity;
  /** The number of the question that has no answer, 0 without one. */
  private asking = 0;
  /** Reads that wait for a grant. */
  private waiting: Array<() => void> = [];
  /** Reads that wait for the commit of a record. */
  private behind = 0;
  private over: HoldfastError | null = null;

  constructor(parts: BackupVolumeParts) {
    this.o = parts;
  }

  info(): VolumeInfo {
    return volumeInfoOf(this.o.store, true);
  }

  read(offsetBytes: number, lengthBytes: number, slot: Slot, done: ReadDone): void {
    const { store, follower } = this.o;
    // The primary may have heard before this node that the volume has grown; behind its end there are zeros.
    const endBytes = store.capacityBlocks * BLOCK_BYTES;
    const asked = { operation: 'read', offset: offsetBytes, length: lengthBytes, maxBytes: MAX_IO_BYTES, endBytes };
    const refusal = this.over ?? refusalOf(store, { ...asked, mutates: false, readOnly: true });
    if (refusal !== null) return queueMicrotask(() => done(refusal, -1));
    const first = Math.floor(offsetBytes / BLOCK_BYTES);
    const count = Math.ceil((offsetBytes + lengthBytes) / BLOCK_BYTES) - first;
    const whole = offsetBytes % BLOCK_BYTES === 0 && lengthBytes % BLOCK_BYTES === 0;
    const behind = follower.hasUncommitted(first, count);
    if (behind) this.behind++;
    this.renew(behind);
    follower.read(first, count, slot, (error, crc) => {
      if (behind) this.behind--;
      if (error !== null) return done(this.over ?? error, -1);
      const answer = (): void => {
        if (this.over === null) this.answered++;
        done(this.over, this.over === null && whole ? crc : -1);
      };
      if (this.over !== null || this.mayRead) return answer();
      this.waiting.push(answer);
      this.renew(true);
    });
  }

  /** Calls back, later, once a grant runs; with an error when this is no backup any more. */
  underGrant(done: Done): void {
    const answer = (): void => {
      if (this.over === null) this.answered++;
      done(this.over);
    };
    if (this.over !== null || this.mayRead) {
      this.renew(false);
      return queueMicrotask(answer);
    }
    this.waiting.push(answer);
    this.renew(true);
  }

  /** Answers a FETCH: what is here once all that came before it is applied. */
  tellOf({ n, firstBlock, blockCount, content }: Extract<Downstream, { type: 'FETCH' }>, link: PeerLink): void {
    const { store, arena, follower } = this.o;
    const slot = firstBlock + blockCount <= store.capacityBlocks ? arena.take(blockCount) : null;
    if (slot === null || this.over !== null) {
      if (slot !== null) arena.release(slot);
      return link.send({ type: 'FETCHED', n, crcs: [], payload: null });
    }
    follower.read(firstBlock, blockCount, slot, (error) => {
      const release = (): void => arena.release(slot);
      const crcs = error === null ? [...slot.crcs.subarray(0, blockCount)] : [];
      const payload = error === null && content ? slot.payload.subarray(0, blockCount * BLOCK_BYTES) : null;
      link.send({ type: 'FETCHED', n, crcs, payload }, release);
    });
  }

  /** Reads blocks as they are committed, for nobody: to see whether they are right. */
  scrub(first: number, count: number, slot: Slot, done: Done): void {
    this.o.follower.read(first, count, slot, done);
  }

  /** Something waits for the commit of a record, until what this returns is called. */
  awaitCommit(): () => void {
    this.behind++;
    this.renew(true);
    return () => this.behind--;
  }

  private get mayRead(): boolean {
    return this.o.now() < this.grantUntilMs;
  }

  private renew(urgent: boolean): void {
    const nowMs = this.o.now();
    if (!urgent && this.grantUntilMs - nowMs > this.grantMs * RENEW_SHARE) return;
    if (this.asking !== 0 && nowMs - this.askedAtMs < ASK_AGAIN_MS) return;
    this.asking = ++this.asks;
    this.askedAtMs = nowMs;
    this.o.ask(this.asking);
  }

  /** The primary's answer: reads may be answered for so long from when question n was asked; 0: not now. */
  granted(n: number, ms: number): void {
    if (n !== this.asking || this.over !== null) return;
    this.asking = 0;
    this.grantMs = ms * DRIFT;
    this.grantUntilMs = Math.max(this.grantUntilMs, this.askedAtMs + this.grantMs);
    if (this.mayRead) for (const answer of this.waiting.splice(0)) answer();
  }

  /** To be called every 20 ms or so: asks again for what is waited for. */
  tick(): void {
    if (this.waiting.length > 0 || this.behind > 0) this.renew(true);
  }

  /** This machine slept: it holds no rights. */
  forgetRights(): void {
    this.grantUntilMs = -Infinity;
    this.asking = 0;
  }

  /** The replica follows that primary no longer. */
  end(): void {
    this.over ??= this.notPrimary('read');
    this.grantUntilMs = -Infinity;
    for (const answer of this.waiting.splice(0)) answer();
  }

  private notPrimary(operation: string): HoldfastError {
    const { store, primary } = this.o;
    return new HoldfastError('NOT_PRIMARY', { operation, volume: store.name, detail: `its primary is ${primary}` });
  }

  private refuse(operation: string, done: Done): void {
    const error = this.notPrimary(operation);
    queueMicrotask(() => done(error));
  }

  attach(
    _session: bigint,
    _generation: number,
    _since: Position | null,
    _revoked: () => void,
    done: (error: HoldfastError | null, attachment: Attachment | null) => void,
  ): void {
    this.refuse('attach', (error) => done(error, null));
  }
  detach(): void {}
  write(_a: Attachment | null, _r: number, _o: number, _l: number, slot: Slot, _k: boolean, done: Done): void {
    this.o.arena.release(slot);
    this.refuse('write', done);
  }
  zero(_a: Attachment | null, _r: number, _o: number, _l: number, done: Done): void {
    this.refuse('zero', done);
  }
  trim(_a: Attachment | null, _r: number, _o: number, _l: number, done: Done): void {
    this.refuse('trim', done);
  }
  mark(_a: Attachment | null, _r: number, _c: unknown, done: Done): void {
    this.refuse('mark', done);
  }
  flush(done: Done): void {
    this.refuse('flush', done);
  }
  whenReadable(done: Done): void {
    this.refuse('extents', done);
  }
  extents(): Extent[] {
    throw this.notPrimary('extents');
  }
  marks(): Mark[] {
    throw this.notPrimary('marks');
  }
  changes(): ChangedExtent[] {
    throw this.notPrimary('changes');
  }
}
