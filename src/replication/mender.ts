/**
 * Mends blocks of a primary that do not match their checksums, with what another replica has. Pure.
 *
 * Guarantees: only bytes that match the block's own checksum entry are taken, so a replica that is behind, ahead or wrong
 * is refused; they are written through the journal, behind all that is on its way to the block; each block is mended by
 * one attempt at a time, and the number of attempts is bounded.
 */
import { crcBlocks } from '../base/checksum.ts';
import { copyBytes } from '../base/copy.ts';
import { BLOCK_BYTES } from '../base/units.ts';
import type { Arena, Slot } from '../storage/arena.ts';
import type { BlockStore } from '../storage/block-store.ts';
import { RECORD_KINDS } from '../storage/record.ts';
import type { Operation, RangeLock } from './range-lock.ts';
import type { LogRecord } from './store.ts';

const MAX_BLOCKS = 64;

/** Asks others for a block until `take` says that theirs is right, or nobody is left. */
export type FetchBlock = (
  block: number,
  take: (payload: Uint8Array) => boolean,
  done: (taken: boolean) => void,
) => void;

export interface MenderParts {
  store: BlockStore;
  arena: Arena;
  lock: RangeLock<LogRecord>;
  fetchBlock: FetchBlock;
  /** So many more records are not applied. */
  unapplied(by: 1 | -1): void;
}

export class Mender {
  private readonly o: MenderParts;
  private readonly waiting: Map<number, Array<(mended: boolean) => void>> = new Map();
  private readonly records: Map<LogRecord, Operation<LogRecord>> = new Map();
  private ended = false;

  constructor(parts: MenderParts) {
    this.o = parts;
  }

  /** @param done is called later. `mended`: another read may find it right */
  mend(block: number, done: (mended: boolean) => void): void {
    const others = this.waiting.get(block);
    if (others !== undefined) return void others.push(done);
    if (this.ended || this.waiting.size >= MAX_BLOCKS) return queueMicrotask(() => done(false));
    this.waiting.set(block, [done]);
    let settled = false;
    const take = (payload: Uint8Array): boolean => {
      const { store, lock } = this.o;
      if (this.ended || store.failed !== null) return false;
      // What is on its way to the block replaces all of it.
      settled = lock.newestWrite(block) !== null;
      if (settled) return true;
      if (payload.length !== BLOCK_BYTES || !store.isContent(block, payload)) return false;
      return this.write(block, payload);
    };
    this.o.fetchBlock(block, take, (taken) => {
      if (settled || !taken) this.settle(block, taken);
    });
  }

  /** @returns whether there was memory and room for it */
  private write(block: number, payload: Uint8Array): boolean {
    const { store, arena, lock } = this.o;
    if (!store.hasRoomForPeer(1)) return false;
    const slot: Slot | null = arena.take(1);
    if (slot === null) return false;
    copyBytes(slot.payload, 0, payload);
    const record = repairOf(block, slot);
    this.o.unapplied(1);
    // Held until it is durable.
    const operation = lock.write(block, 1, record, () => this.apply(record, operation));
    this.records.set(record, operation);
    store.append(record);
    return true;
  }

  /** A record of this store alone is durable. */
  durable(record: LogRecord): void {
    const operation = this.records.get(record);
    if (operation !== undefined && this.records.delete(record)) this.o.lock.unhold(operation);
  }

  private apply(record: LogRecord, operation: Operation<LogRecord>): void {
    const { store, arena, lock } = this.o;
    const over = (): void => {
      lock.finish(operation);
      arena.release(record.slot);
      this.o.unapplied(-1);
      this.settle(record.firstBlock, store.failed === null);
    };
    if (store.failed === null) store.apply(record, over);
    else queueMicrotask(over);
  }

  private settle(block: number, mended: boolean): void {
    const waiting = this.waiting.get(block) ?? [];
    this.waiting.delete(block);
    for (const done of waiting) done(mended);
  }

  /** Nothing more is written. What was appended is let go of where the store failed. */
  end(): void {
    this.ended = true;
    if (this.o.store.failed === null) return;
    const held = [...this.records.values()];
    this.records.clear();
    for (const operation of held) this.o.lock.unhold(operation);
  }
}

/** The record that puts one block, which lies in the slot, whatever was there. It has no position: it concerns this disk only. */
export function repairOf(block: number, slot: Slot): LogRecord {
  return {
    kind: RECORD_KINDS.REPAIR,
    epoch: 0,
    seq: 0,
    commitEpoch: 0,
    commitSeq: 0,
    session: 0n,
    request: 0,
    firstBlock: block,
    blockCount: 1,
    slot,
    payloadCrc: crcBlocks(slot.payload.subarray(0, BLOCK_BYTES), slot.crcs, 0),
    users: 1,
  };
}
