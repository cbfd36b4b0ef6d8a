/**
 * The volume as its primary serves it, for a group of any size: it assigns positions, marks blocks, and answers when the
 * group says that a record is committed. A group of one commits what is durable here.
 *
 * Guarantees: a mutation is answered only when it is committed; overlapping writes take effect in log order, reads never
 * see half of one; a request is executed at most once per (session, request); every queue is bounded by the arena and
 * by the connections' limits. Pure: no sockets, files, timers, clocks or randomness.
 */
import assert from 'node:assert/strict';
import { combineBlocks, crcBlocks } from '../base/checksum.ts';
import type { ChangedExtent, Extent } from '../base/device.ts';
import { type ErrorCode, HoldfastError } from '../base/errors.ts';
import { type Position, comparePositions } from '../base/position.ts';
import { BLOCK_BYTES, MAX_IO_BYTES, MAX_ZERO_BYTES } from '../base/units.ts';
import type { Arena, Slot } from '../storage/arena.ts';
import type { BlockStore } from '../storage/block-store.ts';
import type { Mark, MarkChange } from '../storage/marks.ts';
import { RECORD_KINDS, type RecordKind, hasPayload, isControl } from '../storage/record.ts';
import type { CommitGroup } from './commit-group.ts';
import { Edges, Scratch } from './edges.ts';
import { dropReasonOf, isCommitted, refusalOf, volumeInfoOf } from './checks.ts';
import { Flushes } from './flushes.ts';
import { MendedReads } from './mended-reads.ts';
import { type Awaiting, type Mutation, lateAnswer } from './mutation.ts';
import { OwedZeros } from './owed-zeros.ts';
import { type Operation, RangeLock } from './range-lock.ts';
import { RoomQueue } from './room-queue.ts';
import type { Attachment, Done, Expired, ReadDone, ServedVolume, VolumeInfo } from './served-volume.ts';
import { SessionFence, type FencedAttachment } from './session-fence.ts';
import type { LogRecord } from './store.ts';
import { TableReads } from './table-reads.ts';

/** Blocks that operations under way may be on: it bounds the lock's memory, and the work of one turn. */
const MAX_LOCKED_BLOCKS = 65_536;
const NO_SESSION = 0n;
const NEVER: Expired = () => false;
export interface PrimaryVolumeOptions {
  readOnly: boolean;
  onFailed: (error: HoldfastError) => void;
  /** Default: a group of one. */
  group?: CommitGroup;
}

export class PrimaryVolume implements ServedVolume {
  private readonly store: BlockStore;
  private readonly arena: Arena;
  private readonly readOnly: boolean;
  private readonly group: CommitGroup | null;
  private readonly lock: RangeLock<LogRecord>;
  private readonly fence: SessionFence;
  private awaiting: Awaiting[] = [];
  readonly roomQueue: RoomQueue = new RoomQueue();
  private readonly flushes: Flushes;
  private readonly scratch: Scratch;
  /** Of clients, so far: reads and changes. */
  requests = 0;
  private unapplied = 0;
  /** Reads, and unaligned writes whose edges are being read. */
  private underWay = 0;
  private closing = false;
  private idleWaiters: Array<() => void> = [];
  readonly owedZeros: OwedZeros;
  private readonly tableReads: TableReads;
  readonly reads: MendedReads;

  constructor(store: BlockStore, arena: Arena, options: PrimaryVolumeOptions) {
    this.store = store;
    this.group = options.group ?? null;
    this.arena = arena;
    this.readOnly = options.readOnly || store.health !== 'good';
    this.lock = new RangeLock(this.group?.rules.readsWait);
    this.fence = new SessionFence(store, this.group?.rules.sessionsOnce);
    this.scratch = Scratch.of(arena);
    this.flushes = new Flushes(store);
    this.owedZeros = new OwedZeros(store, this.lock);
    this.tableReads = new TableReads(store, this.lock, this.group);
    const { lock, group } = this;
    const unapplied = (by: number): void => {
      this.unapplied += by;
      this.wakeIdle();
    };
    this.reads = new MendedReads({ store, arena, lock, fetchBlock: group?.fetchBlock, unapplied });
    store.listen({
      durable: (position) => (this.group === null ? this.committed(position) : this.group.durable(position)),
      localDurable: (record) => this.reads.durable(record),
      room: () => this.roomQueue.again(),
      failed: (error) => {
        this.abandon(error);
        options.onFailed(error);
      },
    });
  }

  info(): VolumeInfo {
    return volumeInfoOf(this.store, this.readOnly);
  }

  attach(
    session: bigint,
    generation: number,
    since: Position | null,
    revoked: () => void,
    done: (error: HoldfastError | null, attachment: Attachment | null) => void,
  ): void {
    this.fence.attach(session, generation, since, revoked, done);
  }

  detach(attachment: Attachment): void {
    this.fence.detach(attachment);
  }

  // --- reading ----------------------------------------------------------------------------------------------------

  read(offsetBytes: number, lengthBytes: number, slot: Slot, done: ReadDone): void {
    const refusal = this.refusal('read', offsetBytes, lengthBytes, MAX_IO_BYTES, false);
    if (refusal !== null) return queueMicrotask(() => done(refusal, -1));
    this.group?.reached('read:received');
    this.requests++;
    const first = Math.floor(offsetBytes / BLOCK_BYTES);
    const count = Math.ceil((offsetBytes + lengthBytes) / BLOCK_BYTES) - first;
    const whole = offsetBytes % BLOCK_BYTES === 0 && lengthBytes % BLOCK_BYTES === 0;
    this.underWay++;
    this.reads.read(first, count, slot, (error, crc) => {
      this.over();
      const give = (refusedError: HoldfastError | null): void =>
        done(refusedError, refusedError === null && whole ? crc : -1);
      if (error !== null || this.group === null) give(error);
      else this.group.rightToRead(give);
    });
  }

  whenReadable(done: Done): void {
    this.tableReads.whenReadable(done);
  }

  extents(offsetBytes: number, lengthBytes: number, limit: number): Extent[] {
    const refusal = this.refusal('extents', offsetBytes, lengthBytes, Infinity, false);
    if (refusal !== null) throw refusal;
    return this.tableReads.extents(offsetBytes, lengthBytes, limit, this.unapplied === 0);
  }

  // --- writing ----------------------------------------------------------------------------------------------------

  write(
    attachment: Attachment | null,
    request: number,
    offsetBytes: number,
    lengthBytes: number,
    slot: Slot,
    crcsKnown: boolean,
    done: Done,
    expired: Expired = NEVER,
    token = 0,
  ): void {
    const refusal = this.refusal('write', offsetBytes, lengthBytes, MAX_IO_BYTES, true);
    const settled = refusal ?? this.fence.lookUp(attachment, request);
    this.group?.reached('write:received');
    if (settled !== 'new') return this.giveBack(slot, token, () => done(settled));
    const first = Math.floor(offsetBytes / BLOCK_BYTES);
    const count = Math.ceil((offsetBytes + lengthBytes) / BLOCK_BYTES) - first;
    const head = offsetBytes - first * BLOCK_BYTES;
    const tail = head + lengthBytes;
    const kind = RECORD_KINDS.WRITE;
    const mutation: Mutation = { kind, attachment, request, first, count, slot, done, expired, token };
    if (head === 0 && tail === count * BLOCK_BYTES) {
      this.whenRoom(mutation, count, () =>
        this.append(
          mutation,
          crcsKnown ? combineBlocks(slot.crcs, count) : crcBlocks(slot.payload.subarray(0, tail), slot.crcs, 0),
        ),
      );
    } else {
      this.whenRoom(mutation, count, () => this.writeUnaligned(mutation, head, tail));
    }
  }

  /** A mutation gets no place in the log. */
  private giveBack(slot: Slot, token: number, answer: () => void): void {
    this.arena.release(slot);
    this.flushes.placed(token);
    queueMicrotask(answer);
  }

  /**
   * Completes the edges, then appends. Room in the journal is reserved before the edges are locked: whoever waits for
   * room while it holds a lock would hold up the very records whose application makes room.
   */
  private writeUnaligned(mutation: Mutation, head: number, tail: number): void {
    const { first, count, slot, done } = mutation;
    this.store.reserve(count);
    this.underWay++;
    mutation.token ||= this.flushes.later();
    const edges = new Edges({ first, count, head, tail, slot });
    edges.read(this.lock, this.store, this.scratch, this.reads, (error) => {
      this.store.unreserve(count);
      const refusal = error ?? this.dropReason(mutation);
      if (refusal === null) {
        edges.renew(this.lock);
        this.append(mutation, crcBlocks(slot.payload.subarray(0, count * BLOCK_BYTES), slot.crcs, 0));
      } else {
        this.arena.release(slot);
        this.flushes.placed(mutation.token);
      }
      edges.release(this.lock);
      this.over();
      if (refusal === null) return;
      done(refusal);
      this.roomQueue.again();
    });
  }

  zero(
    attachment: Attachment | null,
    request: number,
    offsetBytes: number,
    lengthBytes: number,
    done: Done,
    expired: Expired = NEVER,
  ): void {
    const aligned = offsetBytes % BLOCK_BYTES === 0 && lengthBytes % BLOCK_BYTES === 0;
    const refusal = this.refusal('zero', offsetBytes, lengthBytes, aligned ? MAX_ZERO_BYTES : MAX_IO_BYTES, true);
    if (refusal !== null) return queueMicrotask(() => done(refusal));
    if (aligned) {
      const [first, count] = [offsetBytes / BLOCK_BYTES, lengthBytes / BLOCK_BYTES];
      return this.zeroBlocks(attachment, request, first, count, done, expired);
    }
    const head = offsetBytes % BLOCK_BYTES;
    this.withSlot(Math.ceil((head + lengthBytes) / BLOCK_BYTES), 0, (slot, token) => {
      slot.payload.fill(0, head, head + lengthBytes);
      this.write(attachment, request, offsetBytes, lengthBytes, slot, false, done, expired, token);
    });
  }

  trim(
    attachment: Attachment | null,
    request: number,
    offsetBytes: number,
    lengthBytes: number,
    done: Done,
    expired: Expired = NEVER,
  ): void {
    const refusal = this.refusal('trim', offsetBytes, lengthBytes, MAX_ZERO_BYTES, true);
    if (refusal !== null) return queueMicrotask(() => done(refusal));
    const first = Math.ceil(offsetBytes / BLOCK_BYTES);
    const end = Math.floor((offsetBytes + lengthBytes) / BLOCK_BYTES);
    if (end <= first) return queueMicrotask(() => done(null));
    this.zeroBlocks(attachment, request, first, end - first, done, expired);
  }

  private zeroBlocks(
    attachment: Attachment | null,
    request: number,
    first: number,
    count: number,
    done: Done,
    expired: Expired,
  ): void {
    const settled = this.fence.lookUp(attachment, request);
    if (settled !== 'new') return queueMicrotask(() => done(settled));
    this.withSlot(1, 0, (slot, token) => {
      const kind = RECORD_KINDS.ZERO;
      const mutation: Mutation = { kind, attachment, request, first, count, slot, done, expired, token };
      this.whenRoom(mutation, 0, () => this.append(mutation, 0));
    });
  }

  mark(attachment: Attachment | null, request: number, change: MarkChange, done: Done): void {
    const refusal = this.refusal('mark', 0, 1, 1, true);
    if (refusal !== null) return queueMicrotask(() => done(refusal));
    const settled = this.fence.lookUp(attachment, request);
    if (settled !== 'new') return queueMicrotask(() => done(settled));
    this.withSlot(1, 0, (slot, token) => {
      const kind = RECORD_KINDS.MARK;
      const mutation: Mutation = { kind, attachment, request, first: 0, count: 1, slot, done, expired: NEVER, token };
      this.whenRoom(mutation, 1, () => {
        // Decided here, where its place in the log is.
        const refused = this.store.marks.refusal(change);
        if (refused !== null) {
          const answer: Done = (error) => done(error ?? refused);
          return this.giveBack(slot, mutation.token, () => this.tableReads.whenReadable(answer));
        }
        this.store.marks.encode(change, slot.payload);
        this.append(mutation, crcBlocks(slot.payload, slot.crcs, 0));
      });
    });
  }

  marks(): Mark[] {
    return this.tableReads.marks();
  }

  changes(mark: string, offsetBytes: number, lengthBytes: number, limit: number): ChangedExtent[] {
    const refusal = this.refusal('changes', offsetBytes, lengthBytes, Infinity, false);
    if (refusal !== null) throw refusal;
    return this.tableReads.changes(mark, offsetBytes, lengthBytes, limit);
  }

  /** @param token of `Flushes.later`, 0 at first */
  private withSlot(pages: number, token: number, use: (slot: Slot, token: number) => void): void {
    const slot = this.arena.take(pages);
    if (slot !== null) return use(slot, token);
    const waiting = token || this.flushes.later();
    this.arena.whenFree(pages, () => this.withSlot(pages, waiting, use));
  }

  /** Runs now if the journal has room and nobody waits, else in turn; what must not run is answered instead. */
  private whenRoom(mutation: Mutation, payloadBlocks: number, run: () => void): void {
    const ran = this.roomQueue.run(() => {
      const refusal = this.dropReason(mutation);
      if (refusal !== null) {
        this.giveBack(mutation.slot, mutation.token, () => mutation.done(refusal));
        return true;
      }
      const { isHeld } = this.roomQueue;
      if (isHeld || !this.store.hasRoom(payloadBlocks) || this.lockIsFull(mutation.count)) return false;
      run();
      return true;
    });
    if (!ran) mutation.token ||= this.flushes.later();
  }

  /** Records of zeros are large for the lock and small for the journal, so the lock has a bound of its own. */
  private lockIsFull(blocks: number): boolean {
    const { busyBlocks } = this.lock;
    return busyBlocks > 0 && this.unapplied > 0 && busyBlocks + blocks > MAX_LOCKED_BLOCKS;
  }

  /** Why a mutation that has no place in the log yet must not get one. */
  private dropReason({ attachment, expired, first, count }: Mutation): HoldfastError | null {
    const revoked = attachment !== null && this.fence.isRevoked(attachment);
    return dropReasonOf(this.store, { first, count, revoked, closing: this.closing ? this.closedCode : null, expired });
  }

  private get closedCode(): ErrorCode {
    return this.group === null ? 'SHUTTING_DOWN' : 'NOT_PRIMARY';
  }

  /**
   * Appends a record of the group's own: the slot holds its payload. The caller has seen to room, and to it that nobody
   * else changes the blocks meanwhile. @returns its position
   */
  log(kind: RecordKind, first: number, count: number, slot: Slot, done: Done): Position {
    const blocks = hasPayload(kind) ? count : 0;
    const crc = blocks === 0 ? 0 : crcBlocks(slot.payload.subarray(0, blocks * BLOCK_BYTES), slot.crcs, 0);
    this.append({ kind, attachment: null, request: 0, first, count, slot, done, expired: NEVER, token: 0 }, crc);
    return this.store.lastPosition;
  }

  /** Reads whole blocks as they are committed, for another replica. */
  copyOut(first: number, count: number, slot: Slot, done: Done): void {
    this.reads.read(first, count, slot, done);
  }

  /** Whether a record on the block is not applied. */
  isChanging(block: number): boolean {
    return this.lock.newestWrite(block) !== null;
  }

  private append(mutation: Mutation, payloadCrc: number): void {
    const { kind, attachment, request, first, count, slot, done } = mutation;
    const { committedPosition, lastPosition } = this.store;
    const record: LogRecord = {
      kind,
      epoch: this.store.epoch,
      seq: lastPosition.seq + 1,
      commitEpoch: committedPosition.epoch,
      commitSeq: committedPosition.seq,
      session: attachment?.session ?? NO_SESSION,
      request: attachment === null ? 0 : request,
      firstBlock: first,
      blockCount: count,
      slot,
      payloadCrc,
      users: 1,
    };
    if (attachment !== null) (attachment as FencedAttachment).last = record;
    if (!isControl(kind)) this.requests++;
    // What is about no block takes effect when it is applied, and is answered then.
    const late = isControl(kind) ? lateAnswer(done) : null;
    const operation = this.lock.write(first, late === null ? count : 0, record, () =>
      this.applyNow(record, operation, late?.applied ?? null),
    );
    this.unapplied++;
    this.awaiting.push({ record, operation, done: late?.committed ?? done });
    this.store.append(record);
    this.group?.appended(record);
    this.flushes.placed(mutation.token);
  }

  private applyNow(record: LogRecord, operation: Operation<LogRecord>, done: Done | null): void {
    const over: Done = (error) => {
      this.unapplied--;
      this.lock.finish(operation);
      this.letGo(record);
      // A record that is applied because this node is primary no longer is answered by its successor.
      if (error !== null || isCommitted(this.store, record)) done?.(error);
      this.fence.settled();
      this.wakeIdle();
      if (!this.roomQueue.isEmpty) this.roomQueue.again();
    };
    // A store that failed applies nothing more; whoever waits behind this record hears of it from the store.
    if (this.store.failed !== null) queueMicrotask(() => over(this.store.failed));
    else this.store.apply(record, over);
  }

  /** One of those that use the record's memory needs it no longer. */
  letGo(record: LogRecord): void {
    if (--record.users === 0) this.arena.release(record.slot);
  }

  /** Everything up to here is durable on every replica that must have it. */
  committed(position: Position): void {
    this.store.commit(position);
    let count = 0;
    while (count < this.awaiting.length && comparePositions(this.awaiting[count]!.record, position) <= 0) count++;
    const committed = this.awaiting.splice(0, count);
    for (const { done } of committed) done(null);
    for (const { operation } of committed) this.lock.unhold(operation);
    this.flushes.committed(position);
    this.wakeIdle();
  }

  flush(done: Done): void {
    this.flushes.flush(done);
  }

  // --- checks, background, end --------------------------------------------------------------------------------------

  private refusal(
    operation: string,
    offset: number,
    length: number,
    maxBytes: number,
    mutates: boolean,
  ): HoldfastError | null {
    if (this.closing && this.store.failed === null)
      return new HoldfastError(this.closedCode, { operation, volume: this.store.name });
    return refusalOf(this.store, { operation, offset, length, maxBytes, mutates, readOnly: this.readOnly });
  }

  close(): void {
    this.closing = true;
  }

  /**
   * This node is primary no longer: whoever waits for an answer gets none from here (their connections end), what was
   * appended is applied. The store has remembered what is not known to be committed.
   */
  abdicate(): void {
    for (const { operation } of this.awaiting.splice(0)) this.lock.unhold(operation);
    this.roomQueue.again();
  }

  private abandon(error: HoldfastError): void {
    const abandoned = this.awaiting.splice(0);
    for (const { done } of abandoned) done(error);
    this.flushes.abandon(error);
    // Each in its order, and with its memory, once nothing of it is on its way to the disk.
    const release = (): void => {
      for (const { operation } of abandoned) this.lock.unhold(operation);
      this.reads.end();
      this.scratch.close();
    };
    void this.store.journalIdle().then(release);
    this.fence.abandon();
    this.roomQueue.again();
    for (const resolve of this.idleWaiters.splice(0)) resolve();
  }

  private over(): void {
    this.underWay--;
    this.wakeIdle();
  }

  private get idle(): boolean {
    return this.unapplied === 0 && this.underWay === 0;
  }

  private wakeIdle(): void {
    if (this.idle) for (const resolve of this.idleWaiters.splice(0)) resolve();
  }

  /** Refuses new requests and resolves when those under way are applied. */
  async drain(): Promise<void> {
    this.closing = true;
    await this.owedZeros.running;
    this.roomQueue.again();
    while (!this.idle && this.store.failed === null) {
      await new Promise<void>((resolve) => this.idleWaiters.push(resolve));
    }
    assert(this.store.failed !== null || this.awaiting.length === 0);
    // A store that failed does that itself, once its journal is idle.
    if (this.store.failed === null) this.scratch.close();
  }
}
