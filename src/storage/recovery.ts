/**
 * Reading the journal after a crash: follows the chain of batches from the tail, tells a torn end from damage, and
 * rewrites what it accepts, because what was read from the page cache may never have reached the disk.
 *
 * Guarantees: no record is handed out that was not written whole; nothing is reported before the accepted part is
 * durable again, byte for byte as it was; running it twice, or crashing inside it, changes nothing.
 */
import { type Position, comparePositions } from '../base/position.ts';
import { MAX_IO_BLOCKS, MiB, BLOCK_BYTES, formatBytes } from '../base/units.ts';
import type { Slot } from './arena.ts';
import { type Files, io } from './files.ts';
import { type Layout, MAX_BATCH_BYTES, PAGE_BYTES } from './layout.ts';
import { type BatchHeader, type DecodedRecord, decodeBatch, decodeBatchHeader } from './record.ts';
import type { JournalTail, Superblock } from './superblock.ts';

/** Largest transfer of one staging slot. */
const CHUNK_BYTES = (MAX_IO_BLOCKS - 1) * BLOCK_BYTES;
/** How far behind the end a later valid batch is looked for. */
const SCAN_BYTES = 64 * MiB;

export interface Recovered {
  /** Where the next batch goes. */
  head: JournalTail;
  /** Last position found, or what the superblock knew. */
  last: Position;
  batches: number;
  records: number;
  /** Bytes of journal replayed. */
  bytes: number;
  /** Why the end that was found is no end but damage; null for a proper or torn end. */
  damage: string | null;
}

/** Reports how far a recovery is: bytes of journal read. */
export type RecoveryProgress = (bytes: number) => void;

/**
 * @param accept is given the records of each batch in order; it applies them
 * @param progress is called after each batch
 * @param alone the other superblock is not valid: if it was a newer one, the journal may have gone on behind this tail
 * and over it, so all of it is searched for batches that this superblock knows nothing of
 */
export async function recoverJournal(
  files: Files,
  layout: Layout,
  superblock: Superblock,
  accept: (records: DecodedRecord[]) => Promise<void>,
  progress: RecoveryProgress = () => {},
  alone = false,
): Promise<Recovered> {
  const staging = files.arena.take(MAX_IO_BLOCKS);
  if (staging === null) throw new Error('the arena has no room for a recovery');
  try {
    const ring = new RingReader(files, layout, staging);
    const { tail } = superblock;
    const result: Recovered = {
      head: { ...tail },
      last: superblock.committed,
      batches: 0,
      records: 0,
      bytes: 0,
      damage: null,
    };
    for (;;) {
      const { head } = result;
      if (head.offsetBytes - tail.offsetBytes + PAGE_BYTES > layout.journalBytes) break;
      const batch = await readBatch(
        ring,
        superblock,
        head,
        layout.journalBytes - (head.offsetBytes - tail.offsetBytes),
      );
      if (batch === null) break;
      await ring.rewrite(head.offsetBytes, batch.header.lengthBytes);
      await accept(batch.records);
      result.head = {
        offsetBytes: head.offsetBytes + batch.header.lengthBytes,
        batchNo: head.batchNo + 1,
        prevCrc: batch.header.headerCrc,
      };
      for (const { epoch, seq } of batch.records) {
        if (comparePositions({ epoch, seq }, result.last) > 0) result.last = { epoch, seq };
      }
      result.batches++;
      result.records += batch.records.length;
      result.bytes += batch.header.lengthBytes;
      progress(result.bytes);
    }
    if (result.batches > 0) await io((done) => files.sync('journal', done));
    result.damage = await damageBehind(ring, superblock, layout, result.head, alone, result.batches > 0);
    return result;
  } finally {
    files.arena.release(staging);
  }
}

async function readBatch(
  ring: RingReader,
  superblock: Superblock,
  head: JournalTail,
  roomBytes: number,
): Promise<{ header: BatchHeader; records: DecodedRecord[] } | null> {
  const first = await ring.view(head.offsetBytes, PAGE_BYTES);
  const header = decodeBatchHeader(first, 0, superblock.diskId);
  if (header === null || header.batchNo !== head.batchNo || header.prevCrc !== head.prevCrc) return null;
  if (header.lengthBytes > roomBytes) return null;
  const bytes = await ring.view(head.offsetBytes, header.lengthBytes);
  const records = decodeBatch(bytes, header, superblock.volumeId);
  return records === null ? null : { header, records };
}

/** The chain ended at `head`. Says why that cannot be where writing stopped, if it cannot. */
async function damageBehind(
  ring: RingReader,
  superblock: Superblock,
  layout: Layout,
  head: JournalTail,
  alone: boolean,
  replayed: boolean,
): Promise<string | null> {
  const lastFound = head.batchNo - 1;
  if (lastFound < superblock.headBatchNo) {
    return `the journal ends at batch ${lastFound}, but batch ${superblock.headBatchNo} was durable when the superblock was written`;
  }
  const next = decodeBatchHeader(await ring.view(head.offsetBytes, PAGE_BYTES), 0, superblock.diskId);
  const nextBytes = next?.batchNo === head.batchNo ? next.lengthBytes : PAGE_BYTES;
  if (!superblock.clean && ring.hasUnreadable(head.offsetBytes, nextBytes)) {
    // Whether a batch was there cannot be told any more.
    return `the journal cannot be read behind batch ${lastFound}`;
  }
  if (superblock.clean && !replayed && !alone) return null;
  const ringEnd = superblock.tail.offsetBytes + layout.journalBytes;
  const end = alone ? ringEnd : Math.min(head.offsetBytes + SCAN_BYTES, ringEnd);
  for (let at = head.offsetBytes + PAGE_BYTES; at + PAGE_BYTES <= end; at += CHUNK_BYTES) {
    const bytes = await ring.view(at, Math.min(CHUNK_BYTES, end - at));
    for (let offset = 0; offset < bytes.length; offset += PAGE_BYTES) {
      const later = decodeBatchHeader(bytes, offset, superblock.diskId);
      if (later !== null && later.batchNo > head.batchNo) {
        return `batch ${head.batchNo} is not valid, yet batch ${later.batchNo} lies ${formatBytes(at + offset - head.offsetBytes)} behind it`;
      }
    }
  }
  return null;
}

/** Reads a ring as if it were endless, through one staging slot, into a window of its own. */
class RingReader {
  private readonly files: Files;
  private readonly ringBytes: number;
  private readonly staging: Slot;
  private window = new Uint8Array(0);
  private windowAt = 0;
  /** Positions of pages that gave an error. */
  private readonly unreadable: Set<number> = new Set();

  constructor(files: Files, layout: Layout, staging: Slot) {
    this.files = files;
    this.ringBytes = layout.journalBytes;
    this.staging = staging;
  }

  /** The bytes [at, at + length) of the endless ring; valid until the next call. */
  async view(at: number, length: number): Promise<Uint8Array> {
    if (at < this.windowAt || at + length > this.windowAt + this.window.length) {
      const want = Math.min(Math.max(length, MiB), MAX_BATCH_BYTES + MiB, this.ringBytes);
      const window = new Uint8Array(Math.max(want, length));
      await this.transfer(at, window.length, async (position, offset, bytes) => {
        await this.read(position, bytes);
        window.set(bytes, offset);
      });
      this.window = window;
      this.windowAt = at;
    }
    return this.window.subarray(at - this.windowAt, at - this.windowAt + length);
  }

  /** A page that cannot be read costs itself, not its neighbours: the window reads ahead of what is needed. */
  private async read(position: number, bytes: Uint8Array): Promise<void> {
    const whole = await this.tryRead(position, bytes);
    for (let at = 0; !whole && at < bytes.length; at += PAGE_BYTES) {
      const page = bytes.subarray(at, at + PAGE_BYTES);
      if (await this.tryRead(position + at, page)) continue;
      page.fill(0);
      this.unreadable.add(position + at);
    }
  }

  private tryRead(position: number, bytes: Uint8Array): Promise<boolean> {
    return new Promise((resolve) => this.files.read('journal', bytes, position, (error) => resolve(error === null)));
  }

  /** Whether a page of [at, at + length) could not be read. */
  hasUnreadable(at: number, length: number): boolean {
    if (this.unreadable.size === 0) return false;
    for (let offset = 0; offset < length; offset += PAGE_BYTES) {
      if (this.unreadable.has((at + offset) % this.ringBytes)) return true;
    }
    return false;
  }

  /** Writes back bytes of the window, exactly as they were read. */
  async rewrite(at: number, length: number): Promise<void> {
    const source = this.window.subarray(at - this.windowAt, at - this.windowAt + length);
    await this.transfer(at, length, async (position, offset, bytes) => {
      bytes.set(source.subarray(offset, offset + bytes.length));
      await io((done) => this.files.write('journal', bytes, position, done));
    });
  }

  private async transfer(
    at: number,
    length: number,
    one: (position: number, offset: number, staging: Uint8Array) => Promise<void>,
  ): Promise<void> {
    for (let offset = 0; offset < length;) {
      const position = (at + offset) % this.ringBytes;
      const count = Math.min(CHUNK_BYTES, length - offset, this.ringBytes - position);
      await one(position, offset, this.staging.payload.subarray(0, count));
      offset += count;
    }
  }
}
