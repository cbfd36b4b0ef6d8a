/**
 * The journal's writer: group commit into a ring of batches, through one flusher.
 *
 * Guarantees: one batch is in flight at a time, and batch n + 1 is never written before batch n is durable, so only
 * the last one can be torn; records become durable in append order; space is given back batch by batch, from the
 * oldest, when all of its records are applied and a checkpoint says so; nothing is written after a failure.
 */
import assert from 'node:assert/strict';
import type { HoldfastError } from '../base/errors.ts';
import type { Position } from '../base/position.ts';
import { BLOCK_BYTES, MAX_IO_BLOCKS } from '../base/units.ts';
import type { LogRecord } from '../replication/store.ts';
import type { Slot } from './arena.ts';
import type { Files } from './files.ts';
import { type Layout, MAX_BATCH_BYTES, MAX_BATCH_RECORDS, PAGE_BYTES } from './layout.ts';
import {
  BATCH_HEADER_BYTES,
  type EncodedRecord,
  encodeBatchHeader,
  encodeRecord,
  foldRecordCrc,
  headerBytes,
  isLocal,
} from './record.ts';
import type { JournalTail } from './superblock.ts';

/** A batch that was written, until the tail passes it. */
export interface Batch {
  /** Where the tail will be once this batch is passed. */
  next: JournalTail;
  records: LogRecord[];
  /** Position of the last record that has one. */
  last: Position | null;
  /** Records that are not applied yet. */
  unapplied: number;
}

/** Bytes that a record takes in a batch. */
export function recordBytes(payloadBlocks: number): number {
  return headerBytes(payloadBlocks) + payloadBlocks * BLOCK_BYTES;
}

export interface JournalOptions {
  files: Files;
  layout: Layout;
  volumeId: Uint8Array;
  diskId: Uint8Array;
  tail: JournalTail;
  head: JournalTail;
  /** fdatasync each batch. */
  durable: boolean;
  /** Runs a function after the requests that are at hand have been taken in (one turn of the event loop). */
  defer: (run: () => void) => void;
  onDurable: (batch: Batch) => void;
  onFailed: (error: HoldfastError) => void;
}

interface Pending {
  record: LogRecord;
  encoded: EncodedRecord;
}

export class Journal {
  private readonly o: JournalOptions;
  private readonly headerSlot: Slot;
  private pending: Pending[] = [];
  private pendingBytes = 0;
  private flushing = false;
  private inFlightBytes = 0;
  private scheduled = false;
  private stopped = false;
  /** Where the next batch goes. */
  private head: JournalTail;
  private tailOffsetBytes: number;
  /** Waits for everything appended so far. */
  private idleWaiters: Array<() => void> = [];
  batchesWritten = 0;
  bytesWritten = 0;

  constructor(options: JournalOptions) {
    this.o = options;
    this.head = { ...options.head };
    this.tailOffsetBytes = options.tail.offsetBytes;
    const slot = options.files.arena.take(1);
    if (slot === null) throw new Error('the arena has no room for a batch header');
    slot.payload.fill(0);
    this.headerSlot = slot;
  }

  close(): void {
    this.stopped = true;
    this.o.files.arena.release(this.headerSlot);
  }

  /** Bytes between tail and head, those in flight and waiting included. */
  get usedBytes(): number {
    return this.head.offsetBytes - this.tailOffsetBytes + this.inFlightBytes + this.pendingBytes;
  }

  /** For `status` and metrics. */
  counters(): { batches: number; journalBytes: number; journalUsedBytes: number } & Record<string, number> {
    return {
      batches: this.batchesWritten,
      journalBytes: this.bytesWritten,
      journalUsedBytes: this.usedBytes,
      journalSizeBytes: this.o.layout.journalBytes,
      journalTailBytes: this.tailOffsetBytes,
    };
  }

  /** The last batch known durable. */
  get durableBatchNo(): number {
    return this.head.batchNo - 1;
  }

  get headPosition(): JournalTail {
    return { ...this.head };
  }

  /** Whether so many more bytes fit below a limit; each record is counted with a page of padding. */
  fits(bytes: number, limitBytes: number): boolean {
    return this.usedBytes + bytes + 2 * PAGE_BYTES <= limitBytes;
  }

  append(record: LogRecord): void {
    assert(!this.stopped, 'append to a journal that has stopped');
    const encoded = encodeRecord(record.slot, this.o.volumeId, record, record.payloadCrc);
    record.bytes = encoded.bytes;
    this.pending.push({ record, encoded });
    // A batch of one record takes a header and padding besides: count the worst case, so that nothing overruns.
    this.pendingBytes += encoded.bytes.length + PAGE_BYTES;
    if (!this.flushing && !this.scheduled) {
      this.scheduled = true;
      this.o.defer(() => {
        this.scheduled = false;
        if (!this.flushing) this.flush();
      });
    }
  }

  /** Resolves once nothing is pending or in flight. */
  idle(): Promise<void> {
    if (this.stopped || (!this.flushing && this.pending.length === 0)) return Promise.resolve();
    return new Promise((resolve) => this.idleWaiters.push(resolve));
  }

  /** The tail moved: space behind it is free. */
  freeUpTo(offsetBytes: number): void {
    assert(offsetBytes >= this.tailOffsetBytes && offsetBytes <= this.head.offsetBytes);
    this.tailOffsetBytes = offsetBytes;
  }

  private flush(): void {
    if (this.stopped || this.pending.length === 0) {
      for (const resolve of this.idleWaiters.splice(0)) resolve();
      return;
    }
    this.flushing = true;
    const { records, parts, lengthBytes, headerCrc } = this.assemble();
    const ring = this.o.layout.journalBytes;
    const at = this.head.offsetBytes % ring;
    assert(this.head.offsetBytes + lengthBytes - this.tailOffsetBytes <= ring, 'the journal overran its tail');
    this.inFlightBytes = lengthBytes;
    const next: JournalTail = {
      offsetBytes: this.head.offsetBytes + lengthBytes,
      batchNo: this.head.batchNo + 1,
      prevCrc: headerCrc,
    };
    const splitAt = cutAtRingEnd(parts, ring - at);
    const place = { parts, positionBytes: at, splitAt, secondPositionBytes: 0 };
    const write = { ...place, sync: this.o.durable, records: records.length };
    this.o.files.writeJournal(write, (error) => {
      this.flushing = false;
      this.inFlightBytes = 0;
      if (this.stopped) return;
      if (error !== null) {
        this.stopped = true;
        for (const resolve of this.idleWaiters.splice(0)) resolve();
        this.o.onFailed(error);
        return;
      }
      this.head = next;
      this.batchesWritten++;
      this.bytesWritten += lengthBytes;
      this.o.onDurable({ next, records, last: lastPosition(records), unapplied: records.length });
      this.flush();
    });
  }

  /** Takes as many pending records as a batch holds and puts header and padding around them. */
  private assemble(): { records: LogRecord[]; parts: Uint8Array[]; lengthBytes: number; headerCrc: number } {
    let bytes = BATCH_HEADER_BYTES;
    let count = 0;
    let fold = 0;
    const parts: Uint8Array[] = [this.headerSlot.bytes.subarray(0, BATCH_HEADER_BYTES)];
    while (count < this.pending.length && count < MAX_BATCH_RECORDS) {
      const { encoded } = this.pending[count]!;
      if (bytes + encoded.bytes.length > MAX_BATCH_BYTES) break;
      bytes += encoded.bytes.length;
      this.pendingBytes -= encoded.bytes.length + PAGE_BYTES;
      fold = foldRecordCrc(fold, encoded.headerCrc);
      parts.push(encoded.bytes);
      count++;
    }
    const taken = this.pending.splice(0, count);
    const lengthBytes = Math.ceil(bytes / PAGE_BYTES) * PAGE_BYTES;
    if (lengthBytes > bytes) parts.push(this.headerSlot.payload.subarray(0, lengthBytes - bytes));
    const headerCrc = encodeBatchHeader(this.headerSlot.bytes, this.o.diskId, {
      batchNo: this.head.batchNo,
      prevCrc: this.head.prevCrc,
      recordCount: count,
      lengthBytes,
      bodyCrc: fold,
    });
    return { records: taken.map((p) => p.record), parts, lengthBytes, headerCrc };
  }
}

function lastPosition(records: readonly LogRecord[]): Position | null {
  const last = records.findLast(({ kind }) => !isLocal(kind));
  return last === undefined ? null : { epoch: last.epoch, seq: last.seq };
}

/** Cuts the parts where the ring ends. @returns how many parts lie before the end */
function cutAtRingEnd(parts: Uint8Array[], roomBytes: number): number {
  let sum = 0;
  for (let i = 0; i < parts.length; i++) {
    const part = parts[i]!;
    if (sum + part.length > roomBytes) {
      const cut = roomBytes - sum;
      if (cut === 0) return i;
      parts.splice(i, 1, part.subarray(0, cut), part.subarray(cut));
      return i + 1;
    }
    sum += part.length;
  }
  return parts.length;
}

/** The largest record a client can cause, in bytes of journal. */
export const LARGEST_RECORD_BYTES = recordBytes(MAX_IO_BLOCKS);
