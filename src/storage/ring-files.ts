/**
 * Files on the worker ring: the real disk. Descriptors are opened once on the main thread and used by all workers.
 */
import { ERRNO_CORRUPT, ERRNO_SHORT, type IoRing, OPS, type RingViews, WORD } from './io-ring.ts';
import { getSystemErrorName } from 'node:util';
import { HoldfastError, type ErrorCode } from '../base/errors.ts';
import { DiskMeter } from '../base/meters.ts';
import { BLOCK_BYTES } from '../base/units.ts';
import type { Arena } from './arena.ts';
import type { FileName, Files, IoDone, JournalWrite, VerifiedRead } from './files.ts';
import { InlineReads } from './inline-reads.ts';
import type { IoPool } from './io-pool.ts';

export class RingFiles implements Files {
  readonly arena: Arena;
  private readonly pool: IoPool;
  private readonly fds: Readonly<Record<FileName, number>>;
  private readonly where: string;

  readonly meter: DiskMeter = new DiskMeter();
  private readonly inline: InlineReads | null;

  /**
   * @param where names the volume in errors
   * @param blocks of `data`: short reads of cached blocks may then be made on this thread
   */
  constructor(pool: IoPool, fds: Readonly<Record<FileName, number>>, where: string, blocks = 0) {
    this.inline = blocks > 0 ? new InlineReads(fds.data, blocks, pool) : null;
    this.pool = pool;
    this.arena = pool.arena;
    this.fds = fds;
    this.where = where;
  }

  read(file: FileName, into: Uint8Array, positionBytes: number, done: IoDone): void {
    const fill = (ring: RingViews, word: number): void => {
      this.common(ring, word, OPS.READ, file, positionBytes, into.length);
      ring.words[word + WORD.BUFFER] = into.byteOffset;
    };
    this.pool.io.submit(fill, (errno) => done(this.error(errno, 'read', file, positionBytes, into.length)));
    this.pool.announceSoon();
  }

  readVerified(read: VerifiedRead, done: (error: HoldfastError | null, crc: number) => void): void {
    const { into, crcs, firstBlock, seed } = read;
    const position = firstBlock * BLOCK_BYTES;
    const inline = this.inline?.read(read) ?? -1;
    if (inline >= 0) {
      this.inline!.recent.touch(firstBlock, into.length / BLOCK_BYTES);
      return queueMicrotask(() => done(null, inline));
    }
    const fill = (ring: RingViews, word: number): void => {
      this.common(ring, word, OPS.READ_VERIFIED, 'data', position, into.length);
      ring.words[word + WORD.BUFFER] = into.byteOffset;
      ring.words[word + WORD.CRCS] = crcs.byteOffset;
      ring.unsigned[word + WORD.SEED] = seed;
    };
    this.pool.io.submit(fill, (errno, value) => {
      if (errno === 0) {
        this.inline?.recent.touch(firstBlock, into.length / BLOCK_BYTES);
        return done(null, value);
      }
      if (errno !== ERRNO_CORRUPT) return done(this.error(errno, 'read', 'data', position, into.length), 0);
      const offsetBytes = position + value * BLOCK_BYTES;
      done(
        new HoldfastError('CORRUPT_BLOCK', {
          operation: 'read',
          volume: this.where,
          offsetBytes,
          lengthBytes: BLOCK_BYTES,
          detail: `block ${offsetBytes / BLOCK_BYTES} was read twice and matches its checksum neither time`,
          remedy: 'overwrite the block, or restore it from a copy; all other blocks are readable',
        }),
        0,
      );
    });
    this.pool.announceSoon();
  }

  write(file: FileName, from: Uint8Array, positionBytes: number, done: IoDone): void {
    const fill = (ring: RingViews, word: number, iovec: number): void => {
      this.common(ring, word, OPS.WRITE, file, positionBytes, from.length);
      ring.words[word + WORD.IOVECS] = 1;
      ring.words[word + WORD.SPLIT] = 1;
      ring.words[word + WORD.SYNC] = 0;
      ring.iovecs[iovec] = from.byteOffset;
      ring.iovecs[iovec + 1] = from.length;
    };
    if (file === 'data') this.inline?.recent.touch(positionBytes / BLOCK_BYTES, from.length / BLOCK_BYTES);
    this.pool.io.submit(fill, (errno) => done(this.error(errno, 'write', file, positionBytes, from.length)));
    this.pool.announceSoon();
  }

  writeJournal(write: JournalWrite, done: IoDone): void {
    const { parts, positionBytes, splitAt, secondPositionBytes, sync, records = 0 } = write;
    this.meter.batchRecords.record(records);
    const fill = (ring: RingViews, word: number, iovec: number): void => {
      this.common(ring, word, OPS.WRITE, 'journal', positionBytes, 0);
      ring.words[word + WORD.IOVECS] = parts.length;
      ring.words[word + WORD.SPLIT] = splitAt;
      ring.floats[(word + WORD.SECOND_POSITION) >> 1] = secondPositionBytes;
      ring.words[word + WORD.SYNC] = sync ? 1 : 0;
      parts.forEach((part, i) => {
        ring.iovecs[iovec + 2 * i] = part.byteOffset;
        ring.iovecs[iovec + 2 * i + 1] = part.length;
      });
    };
    const operation = sync ? 'write and fdatasync' : 'write';
    this.pool.journal.submit(fill, (errno, us) => {
      if (sync && errno === 0) this.meter.journalSyncs.record(us);
      done(this.error(errno, operation, 'journal', positionBytes, 0));
    });
    this.pool.announceSoon();
  }

  sync(file: FileName, done: IoDone): void {
    // The journal's syncs go through its own flusher only: one thread and one open file per file.
    const ring: IoRing = file === 'journal' ? this.pool.journal : this.pool.sync;
    ring.submit(
      (views, word) => this.common(views, word, OPS.SYNC, file, 0, 0),
      (errno, us) => {
        if (errno === 0) (file === 'journal' ? this.meter.journalSyncs : this.meter.otherSyncs).record(us);
        done(this.error(errno, 'fdatasync', file, 0, 0));
      },
    );
    this.pool.announceSoon();
  }

  zero(positionBytes: number, lengthBytes: number, punch: boolean, done: IoDone): void {
    this.pool.io.submit(
      (views, word) => this.common(views, word, punch ? OPS.PUNCH : OPS.ZERO, 'data', positionBytes, lengthBytes),
      (errno) => done(this.error(errno, 'write zeros', 'data', positionBytes, lengthBytes)),
    );
    this.pool.announceSoon();
  }

  private common(ring: RingViews, word: number, op: number, file: FileName, position: number, length: number): void {
    ring.words[word + WORD.OP] = op;
    ring.words[word + WORD.FD] = this.fds[file];
    ring.floats[(word + WORD.POSITION) >> 1] = position;
    ring.floats[(word + WORD.LENGTH) >> 1] = length;
  }

  private error(
    errno: number,
    operation: string,
    file: FileName,
    offsetBytes: number,
    lengthBytes: number,
  ): HoldfastError | null {
    if (errno === 0) return null;
    const name = errno === ERRNO_SHORT ? 'the file is shorter than it should be' : getSystemErrorName(-errno);
    const code: ErrorCode = name === 'ENOSPC' || name === 'EDQUOT' ? 'NO_SPACE' : 'IO_ERROR';
    return new HoldfastError(code, {
      operation: `${operation} of ${file}`,
      volume: this.where,
      offsetBytes,
      lengthBytes,
      detail: name,
      remedy: code === 'NO_SPACE' ? 'free space on that file system' : 'look into the kernel log; check the disk',
    });
  }
}
