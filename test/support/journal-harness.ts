/** A journal on a simulated disk, without a store above it. */
import { crcBlocks } from '../../src/base/checksum.ts';
import type { HoldfastError } from '../../src/base/errors.ts';
import { ORIGIN } from '../../src/base/position.ts';
import { BLOCK_BYTES, MiB } from '../../src/base/units.ts';
import type { LogRecord } from '../../src/replication/store.ts';
import type { Arena } from '../../src/storage/arena.ts';
import { type Batch, Journal } from '../../src/storage/journal.ts';
import { BITMAP_SLOTS, type Layout, layoutOf } from '../../src/storage/layout.ts';
import { RECORD_KINDS } from '../../src/storage/record.ts';
import { type JournalTail, type Superblock, soloReplica } from '../../src/storage/superblock.ts';
import { Random } from './random.ts';
import { SimulatedDisk } from './simulated-disk.ts';

export const VOLUME_ID = Uint8Array.from({ length: 16 }, (_, i) => i + 1);
export const DISK_ID = Uint8Array.from({ length: 16 }, (_, i) => 100 + i);
export const START: JournalTail = { offsetBytes: 0, batchNo: 1, prevCrc: 0 };

/** The smallest layout there is: a journal of 4 MiB. */
export const LAYOUT: Layout = layoutOf(2 * MiB, 4 * MiB);

export function newDisk(seed: number, arena?: Arena): SimulatedDisk {
  const image = SimulatedDisk.blank({ data: 0, journal: LAYOUT.journalBytes, meta: 0 });
  return arena === undefined ? new SimulatedDisk(image, seed) : new SimulatedDisk(image, seed, arena);
}

export interface Written {
  seq: number;
  kind: number;
  firstBlock: number;
  payload: Uint8Array;
}

export class JournalHarness {
  readonly disk: SimulatedDisk;
  readonly journal: Journal;
  /** Batches reported durable, in order. */
  readonly batches: Batch[] = [];
  readonly failures: HoldfastError[] = [];
  /** What was appended, in order. */
  readonly written: Written[] = [];
  private readonly random: Random;
  private seq: number;

  constructor(
    disk: SimulatedDisk,
    options: { seed?: number; tail?: JournalTail; head?: JournalTail; seq?: number; layout?: Layout } = {},
  ) {
    this.disk = disk;
    this.random = new Random(options.seed ?? 1);
    this.seq = options.seq ?? 0;
    this.journal = new Journal({
      files: disk,
      layout: options.layout ?? LAYOUT,
      volumeId: VOLUME_ID,
      diskId: DISK_ID,
      tail: options.tail ?? START,
      head: options.head ?? options.tail ?? START,
      durable: true,
      defer: setImmediate,
      onDurable: (batch) => {
        this.batches.push(batch);
        for (const record of batch.records) disk.arena.release(record.slot);
      },
      onFailed: (error) => void this.failures.push(error),
    });
  }

  /** Appends a write of so many blocks, or a ZERO record for 0. */
  append(blocks: number): LogRecord {
    const slot = this.disk.arena.take(Math.max(1, blocks));
    if (slot === null) throw new Error('the arena of the test is too small');
    const payload = this.random.bytes(blocks * BLOCK_BYTES);
    slot.payload.set(payload);
    const record: LogRecord = {
      kind: blocks === 0 ? RECORD_KINDS.ZERO : RECORD_KINDS.WRITE,
      epoch: 1,
      seq: ++this.seq,
      commitEpoch: 1,
      commitSeq: this.seq - 1,
      session: 9n,
      request: this.seq,
      firstBlock: this.seq % 100,
      blockCount: blocks === 0 ? 3 : blocks,
      slot,
      users: 1,
      payloadCrc: blocks === 0 ? 0 : crcBlocks(payload, slot.crcs, 0),
    };
    this.written.push({ seq: record.seq, kind: record.kind, firstBlock: record.firstBlock, payload });
    this.journal.append(record);
    return record;
  }

  /** Appends and waits until it is durable. */
  async appendAlone(blocks: number): Promise<void> {
    this.append(blocks);
    await this.journal.idle();
  }

  /** The tail as it would be had the first `count` batches been passed. */
  tailAfter(count: number): JournalTail {
    return count === 0 ? START : this.batches[count - 1]!.next;
  }
}

/** A superblock that says only what a recovery asks of it. */
export function superblockAt(tail: JournalTail, headBatchNo = tail.batchNo - 1): Superblock {
  return {
    sequence: 1,
    volumeId: VOLUME_ID,
    diskId: DISK_ID,
    name: 'j',
    sizeBytes: LAYOUT.sizeBytes,
    capacityBytes: LAYOUT.sizeBytes,
    journalBytes: LAYOUT.journalBytes,
    createdAtMs: 0,
    epoch: 1,
    committed: ORIGIN,
    last: ORIGIN,
    replica: soloReplica(),
    tail,
    headBatchNo,
    clean: false,
    sparse: false,
    durable: true,
    kind: 'block',
    health: 'good',
    healthReason: '',
    bitmaps: Array.from({ length: BITMAP_SLOTS }, () => ({ kind: 'free' as const, name: '', completeAfter: ORIGIN })),
    mapCrc: 0,
  };
}
