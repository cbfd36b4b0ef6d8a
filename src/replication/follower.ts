/**
 * A replica that follows a primary: it journals what comes down the stream, in order, and applies what is committed.
 * Backup and target of a reintegration do the same; the target gets copies of blocks besides.
 *
 * Guarantees: records are appended in the order of the stream, each the successor of the one before (else the stream is
 * refused); nothing is applied before it is committed; an acknowledgment is sent for what is durable only; copies and
 * records on one block are applied in the order of the stream. What was appended is never given up: `settle` applies it
 * all. Pure.
 */
import { crcBlocks } from '../base/checksum.ts';
import { copyBytes } from '../base/copy.ts';
import { HoldfastError } from '../base/errors.ts';
import { type Position, comparePositions } from '../base/position.ts';
import { BLOCK_BYTES } from '../base/units.ts';
import type { Arena, Slot } from '../storage/arena.ts';
import type { BlockStore } from '../storage/block-store.ts';
import { RECORD_KINDS, type RecordFields, decodeRecord, hasPayload, isControl, isLocal } from '../storage/record.ts';
import { REPAIR_ID } from './block-exchange.ts';
import type { CrashPoint } from './crash-points.ts';
import type { Downstream } from './peer-messages.ts';
import { type Operation, RangeLock } from './range-lock.ts';
import type { LogRecord } from './store.ts';

export interface FollowerEvents {
  /** Durable up to here. */
  durable(position: Position): void;
  /** The copy of that number is durable. */
  copied(id: number): void;
  /** A block was read that does not match its checksum. */
  corrupt?(block: number): void;
  /** Everything is here: the store may say that it is in sync, once it has said so durably. */
  finished(): void;
  /** What came down the stream cannot be taken: the stream is to end. */
  refused(error: HoldfastError): void;
  reached(point: CrashPoint): void;
}

interface Awaiting {
  record: LogRecord;
  operation: Operation<LogRecord>;
}

type Taken = Extract<Downstream, { type: 'RECORD' | 'COPY' | 'BARRIER' | 'HANDOVER' | 'FINISH' }>;

export class Follower {
  private readonly store: BlockStore;
  private readonly arena: Arena;
  private readonly events: FollowerEvents;
  private readonly lock: RangeLock<LogRecord> = new RangeLock();
  /** Appended, not committed. */
  private awaiting: Awaiting[] = [];
  private readonly copies: Map<LogRecord, { id: number; operation: Operation<LogRecord> }> = new Map();
  /** Messages that wait for memory or for room in the journal, in order. */
  private inbox: Taken[] = [];
  /** Session pairs of the records behind the barrier: the table that comes with the finish may be older. */
  private pairs: RecordFields[] | null = null;
  /** The first message waits for memory or for room. */
  private blocked = false;
  private asked = false;
  private going = false;
  private closed = false;
  /** Blocks that came as copies. */
  copiedBlocks = 0;
  /** Reads under way. */
  private reading = 0;
  private unapplied = 0;
  private committed: Position;
  private idleWaiters: Array<() => void> = [];

  constructor(store: BlockStore, arena: Arena, events: FollowerEvents & { failed(error: HoldfastError): void }) {
    this.store = store;
    this.arena = arena;
    this.events = events;
    this.committed = store.committedPosition;
    store.listen({
      durable: (position) => {
        this.applyCommitted();
        events.durable(position);
      },
      localDurable: (record) => this.copyDurable(record),
      corrupt: (block) => this.events.corrupt?.(block),
      room: () => this.goOn(),
      failed: (error) => {
        this.closed = true;
        this.inbox = [];
        for (const resolve of this.idleWaiters.splice(0)) resolve();
        // Whoever waits behind them gets the error; their memory comes back once nothing is on its way to the disk.
        void store.journalIdle().then(() => {
          for (const { operation } of this.awaiting.splice(0)) this.lock.unhold(operation);
          for (const { operation } of this.copies.values()) this.lock.unhold(operation);
          this.copies.clear();
        });
        events.failed(error);
      },
    });
  }

  take(message: Taken): void {
    if (this.closed) return;
    this.inbox.push(message);
    if (!this.blocked) this.goOn();
  }

  private goOn(): void {
    this.blocked = false;
    // What a message brings about may call this again: the message is not to be handled twice.
    if (this.going) return;
    this.going = true;
    let refusal: HoldfastError | null = null;
    while (this.inbox.length > 0 && !this.blocked && !this.closed && refusal === null) {
      refusal = this.handle(this.inbox[0]!);
      if (!this.blocked) this.inbox.shift();
    }
    this.going = false;
    if (refusal === null) return;
    this.stop();
    this.events.refused(refusal);
  }

  /** Something waits for memory, or for room in the journal. */
  get isBlocked(): boolean {
    return this.blocked && !this.closed;
  }

  private handle(message: Taken): HoldfastError | null {
    const { peers, marks } = this.store;
    switch (message.type) {
      case 'RECORD':
        return this.takeRecord(message.bytes);
      case 'COPY':
        return this.takeCopy(message);
      case 'BARRIER':
        this.store.skipTo(message.position);
        this.pairs = [];
        this.events.reached('target:barrier');
        return null;
      case 'HANDOVER':
        if (message.of === 'absent') peers.install(message.name, message.position, message.runs);
        else {
          marks.install(message.name, message.position);
          marks.bitmap(message.name)?.setRuns(message.runs);
        }
        return null;
      case 'FINISH':
        this.known(message.committed);
        this.applyCommitted();
        this.store.installSessions(message.sessions, message.committed, this.pairs ?? []);
        this.pairs = null;
        this.events.reached('target:finish');
        this.events.finished();
        return null;
    }
  }

  /** Memory and room for a record of so many payload blocks; null: it has to wait. */
  private room(blocks: number): Slot | null {
    if (!this.store.hasRoomForPeer(blocks)) {
      this.blocked = true;
      return null;
    }
    const slot = this.arena.take(Math.max(1, blocks));
    if (slot === null) {
      this.blocked = true;
      if (this.asked) return null;
      this.asked = true;
      this.arena.whenFree(Math.max(1, blocks), () => {
        this.asked = false;
        this.goOn();
      });
    }
    return slot;
  }

  private takeRecord(bytes: Uint8Array): HoldfastError | null {
    const refuse = (detail: string): HoldfastError => new HoldfastError('BAD_FRAME', { operation: 'follow', detail });
    // The frame's CRC was right. Its payload is read once more, where it is to lie: for the CRC of each block, and so of all.
    const decoded = decodeRecord(bytes, 0, this.store.volumeId, false);
    if (decoded === null || decoded.totalBytes !== bytes.length) return refuse('a record that does not verify');
    if (isLocal(decoded.kind)) return refuse('a record of another disk');
    const last = this.store.lastPosition;
    const follows = decoded.epoch === last.epoch ? decoded.seq === last.seq + 1 : decoded.epoch > last.epoch;
    if (!follows) {
      return refuse(`record ${decoded.epoch}.${decoded.seq} does not follow ${last.epoch}.${last.seq}`);
    }
    if (decoded.firstBlock + decoded.blockCount > this.store.capacityBlocks) return this.tooSmall();
    const blocks = hasPayload(decoded.kind) ? decoded.blockCount : 0;
    const slot = this.room(blocks);
    if (slot === null) return null;
    copyBytes(slot.payload, 0, decoded.payload);
    const crc = crcBlocksOf(slot, blocks);
    if (blocks > 0 && (crc !== decoded.payloadCrc || !decoded.crcs.every((one, i) => one === slot.crcs[i]))) {
      this.arena.release(slot);
      return refuse('a record whose payload does not verify');
    }
    this.events.reached('follow:received');
    const { epoch, seq, commitEpoch, commitSeq, session, request, firstBlock, blockCount } = decoded;
    const fields = { kind: decoded.kind, epoch, seq, commitEpoch, commitSeq, session, request, firstBlock, blockCount };
    const record = this.append(fields, slot, crc);
    if (fields.session !== 0n) this.pairs?.push(fields);
    this.known({ epoch: fields.commitEpoch, seq: fields.commitSeq });
    // Held until it is committed.
    this.awaiting.push({ record, operation: this.order(record) });
    this.events.reached('follow:appended');
    this.applyCommitted();
    return null;
  }

  private takeCopy({ id, firstBlock, blockCount, payload }: Extract<Taken, { type: 'COPY' }>): HoldfastError | null {
    if (firstBlock + blockCount > this.store.capacityBlocks) return this.tooSmall();
    const blocks = payload === null ? 0 : blockCount;
    const slot = this.room(blocks);
    if (slot === null) return null;
    if (payload !== null) copyBytes(slot.payload, 0, payload);
    const mends = id === REPAIR_ID && this.store.replica.state !== 'syncing';
    if (!mends) this.copiedBlocks += blockCount;
    const copied = mends ? RECORD_KINDS.REPAIR : RECORD_KINDS.COPY;
    const kind = payload === null ? RECORD_KINDS.COPY_ZERO : copied;
    const nowhere = { epoch: 0, seq: 0, commitEpoch: 0, commitSeq: 0, session: 0n, request: 0 };
    const record = this.append({ kind, ...nowhere, firstBlock, blockCount }, slot, crcBlocksOf(slot, blocks));
    this.copies.set(record, { id, operation: this.order(record) });
    return null;
  }

  /** The volume has grown, and this replica has not. */
  private tooSmall(): HoldfastError {
    const { name, capacityBlocks } = this.store;
    const detail = `there is room for ${capacityBlocks * BLOCK_BYTES} bytes here, and more came`;
    const remedy = `holdfast volume grow ${name} --size SIZE, with the size that it has`;
    return new HoldfastError('OUT_OF_RANGE', { operation: 'follow', volume: name, detail, remedy });
  }

  private append(fields: RecordFields, slot: Slot, payloadCrc: number): LogRecord {
    const record: LogRecord = { ...fields, slot, payloadCrc, users: 1 };
    this.unapplied++;
    this.store.append(record);
    return record;
  }

  private order(record: LogRecord): Operation<LogRecord> {
    const count = isControl(record.kind) ? 0 : record.blockCount;
    const operation = this.lock.write(record.firstBlock, count, record, () => this.apply(record, operation));
    return operation;
  }

  private apply(record: LogRecord, operation: Operation<LogRecord>): void {
    const over = (): void => {
      this.unapplied--;
      this.lock.finish(operation);
      this.arena.release(record.slot);
      this.wakeIdle();
    };
    if (this.store.failed === null) this.store.apply(record, over);
    else queueMicrotask(over);
  }

  private wakeIdle(): void {
    if (this.unapplied === 0 && this.reading === 0) for (const resolve of this.idleWaiters.splice(0)) resolve();
  }

  /** Reads whole blocks as they are committed: a read of a block with a record that is not waits for it. */
  read(first: number, count: number, slot: Slot, done: (error: HoldfastError | null, crc: number) => void): void {
    this.reading++;
    const operation: Operation<LogRecord> = this.lock.read(first, count, () =>
      this.store.readBlocks(first, count, slot, (error, crc) => {
        this.lock.finish(operation);
        this.reading--;
        done(error, crc);
        this.wakeIdle();
      }),
    );
  }

  /** Whether a record on these blocks is not known to be committed. */
  hasUncommitted(first: number, count: number): boolean {
    for (let block = first; block < first + count; block++) if (this.lock.newestWrite(block) !== null) return true;
    return false;
  }

  private copyDurable(record: LogRecord): void {
    const copy = this.copies.get(record);
    if (copy === undefined) return;
    this.copies.delete(record);
    this.lock.unhold(copy.operation);
    if (copy.id !== REPAIR_ID) this.events.copied(copy.id);
  }

  /** The primary says that everything up to here is committed. */
  commit(position: Position): void {
    this.known(position);
    this.applyCommitted();
    this.events.reached('follow:committed');
  }

  private known(position: Position): void {
    if (comparePositions(position, this.committed) > 0) this.committed = { epoch: position.epoch, seq: position.seq };
  }

  /** What is committed and durable here is applied; more may be committed than has arrived. */
  private applyCommitted(): void {
    const durable = this.store.durablePosition;
    const upTo = comparePositions(this.committed, durable) < 0 ? this.committed : durable;
    if (comparePositions(upTo, this.store.committedPosition) > 0) this.store.commit(upTo);
    const last = this.store.rules.commitFirst ? upTo : durable;
    let count = 0;
    while (count < this.awaiting.length && comparePositions(this.awaiting[count]!.record, last) <= 0) count++;
    for (const { operation } of this.awaiting.splice(0, count)) this.lock.unhold(operation);
  }

  /** Takes nothing more. */
  stop(): void {
    this.closed = true;
    this.inbox = [];
  }

  /**
   * The end of following: everything appended becomes durable, is remembered as suspect where it is not known to be
   * committed, and is applied. The store then stands for itself.
   */
  async settle(): Promise<void> {
    this.stop();
    await this.store.suspectUncommitted();
    for (const { operation } of this.awaiting.splice(0)) this.lock.unhold(operation);
    while ((this.unapplied > 0 || this.reading > 0) && this.store.failed === null) {
      await new Promise<void>((resolve) => this.idleWaiters.push(resolve));
    }
  }
}

function crcBlocksOf(slot: Slot, blocks: number): number {
  return blocks === 0 ? 0 : crcBlocks(slot.payload.subarray(0, blocks * BLOCK_BYTES), slot.crcs, 0);
}
