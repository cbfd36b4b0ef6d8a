/**
 * Reads a backup file, record by record.
 *
 * Guarantees: each record that is given out matched its CRCs and stood in its place; the end is reached without an error
 * only if the file is whole: nothing cut off, changed, moved, left out or added. Memory is bounded by one record.
 */
import { createHash } from 'node:crypto';
import { crc32 } from '../base/checksum.ts';
import { HoldfastError } from '../base/errors.ts';
import {
  type BackupHeader,
  type BackupTrailer,
  HEAD_BYTES,
  type Head,
  KINDS,
  decodeHead,
  decodeHeader,
  decodeTrailer,
} from './backup-format.ts';

export interface BackupRecord {
  head: Head;
  payload: Buffer;
  /** Where it begins in the file. */
  offsetBytes: number;
}

/** Where a pass lies in a file: it can be read by itself. */
export interface Section {
  offsetBytes: number;
  /** Of its first record. */
  index: number;
  endBytes: number;
}

/** A file that was read to its end and is whole. */
export interface Verified {
  /** For texts. */
  file: string;
  header: BackupHeader;
  trailer: BackupTrailer;
  /** In the order in which they apply. */
  sections: Section[];
  fileBytes: number;
}

export function badFile(file: string, detail: string): HoldfastError {
  return new HoldfastError('INVALID_ARGUMENT', {
    operation: 'read backup',
    detail: `${file}: ${detail}`,
    remedy: 'take a whole file as volume export makes it',
  });
}

/** Bytes of a stream in the pieces that are asked for. */
class Pieces {
  private readonly source: AsyncIterator<Buffer>;
  private held: Buffer[] = [];
  private heldBytes = 0;

  constructor(source: AsyncIterable<Buffer>) {
    this.source = source[Symbol.asyncIterator]();
  }

  /** @returns so many bytes; fewer at the end of the stream */
  async take(count: number): Promise<Buffer> {
    while (this.heldBytes < count) {
      const { value, done } = await this.source.next();
      if (done === true) break;
      this.held.push(value);
      this.heldBytes += value.length;
    }
    const whole = this.held.length === 1 ? this.held[0]! : Buffer.concat(this.held);
    const taken = whole.subarray(0, count);
    const rest = whole.subarray(taken.length);
    this.held = rest.length === 0 ? [] : [rest];
    this.heldBytes = rest.length;
    return taken;
  }

  async close(): Promise<void> {
    await this.source.return?.();
  }
}

/** Records from one place of a file on, each sound in itself and the successor of the one before. */
export async function* recordsFrom(
  source: AsyncIterable<Buffer>,
  file: string,
  start: Pick<Section, 'offsetBytes' | 'index'>,
  raw?: (bytes: Buffer, head: Head) => void,
): AsyncGenerator<BackupRecord> {
  const pieces = new Pieces(source);
  let { offsetBytes, index } = start;
  try {
    for (;;) {
      const bytes = await pieces.take(HEAD_BYTES);
      if (bytes.length === 0) return;
      if (bytes.length < HEAD_BYTES) throw badFile(file, `it is cut off at byte ${offsetBytes + bytes.length}`);
      const head = decodeHead(bytes);
      if (typeof head === 'string') {
        throw badFile(file, index === 0 ? `it is no backup of a volume: ${head}` : `${head}, at byte ${offsetBytes}`);
      }
      if (head.index !== index) {
        throw badFile(file, `record ${head.index} stands in the place of record ${index}, at byte ${offsetBytes}`);
      }
      const payload = await pieces.take(head.payloadBytes);
      if (payload.length < head.payloadBytes) {
        throw badFile(file, `it is cut off at byte ${offsetBytes + HEAD_BYTES + payload.length}`);
      }
      if (payload.length > 0 && crc32(payload) !== head.payloadCrc) {
        throw badFile(file, `it is damaged: record ${index}, at byte ${offsetBytes}, does not match its CRC`);
      }
      raw?.(bytes, head);
      if (payload.length > 0) raw?.(payload, head);
      yield { head, payload, offsetBytes };
      offsetBytes += HEAD_BYTES + head.payloadBytes;
      index++;
    }
  } finally {
    await pieces.close();
  }
}

/** What the checks over all of a file have seen so far. */
class Checks {
  readonly sections: Section[] = [];
  header: BackupHeader | null = null;
  trailer: BackupTrailer | null = null;
  private readonly file: string;
  private dataBlocks = 0;
  private zeroBlocks = 0;
  /** Within a pass runs ascend. */
  private nextBlock = 0;

  constructor(file: string) {
    this.file = file;
  }

  /** @param bytes of all before it */
  see({ head, payload, offsetBytes }: BackupRecord, sha256: string | null): void {
    const { kind, firstBlock, blockCount, index } = head;
    const wrong = (detail: string): HoldfastError => badFile(this.file, `${detail}, at byte ${offsetBytes}`);
    if ((kind === KINDS.HEADER) !== (index === 0)) throw wrong('a header in the wrong place, or none');
    if (this.trailer !== null) throw wrong('something follows its end');
    switch (kind) {
      case KINDS.HEADER: {
        const header = decodeHeader(payload);
        if (typeof header === 'string') throw badFile(this.file, header);
        this.header = header;
        return;
      }
      case KINDS.PASS:
        this.sections.push({ offsetBytes, index, endBytes: offsetBytes });
        this.nextBlock = 0;
        return;
      case KINDS.TRAILER: {
        const trailer = decodeTrailer(payload);
        if (typeof trailer === 'string') throw badFile(this.file, trailer);
        if (trailer.bytes !== offsetBytes || trailer.sha256 !== sha256) {
          throw badFile(this.file, 'it was changed, or damaged: its SHA-256 is another one');
        }
        const same =
          trailer.dataBlocks === this.dataBlocks &&
          trailer.zeroBlocks === this.zeroBlocks &&
          trailer.passes === this.sections.length;
        if (!same) throw badFile(this.file, 'its totals are not those of its trailer');
        this.trailer = trailer;
        return;
      }
      default: {
        const section = this.sections.at(-1);
        if (section === undefined) throw wrong('blocks before the first pass');
        if (firstBlock < this.nextBlock) throw wrong(`block ${firstBlock} comes behind ${this.nextBlock - 1}`);
        const blocks = this.header!.sizeBytes / this.header!.blockBytes;
        if (firstBlock + blockCount > blocks)
          throw wrong(`block ${firstBlock + blockCount - 1} of a volume of ${blocks}`);
        this.nextBlock = firstBlock + blockCount;
        section.endBytes = offsetBytes + head.payloadBytes + HEAD_BYTES;
        if (kind === KINDS.DATA) this.dataBlocks += blockCount;
        else this.zeroBlocks += blockCount;
      }
    }
  }
}

/**
 * All records of a file between its header and its trailer.
 * @param started is told the header before the first of them
 * @returns what the file is; only then it is known to be whole
 * @throws HoldfastError INVALID_ARGUMENT for a file that is not
 */
export async function* readBackup(
  source: AsyncIterable<Buffer>,
  file: string,
  started: (header: BackupHeader) => void | Promise<void> = () => {},
): AsyncGenerator<BackupRecord, Verified> {
  const hash = createHash('sha256');
  const checks = new Checks(file);
  let fileBytes = 0;
  const raw = (bytes: Buffer, { kind }: Head): void => {
    fileBytes += bytes.length;
    if (kind !== KINDS.TRAILER) hash.update(bytes);
  };
  for await (const record of recordsFrom(source, file, { offsetBytes: 0, index: 0 }, raw)) {
    const { kind } = record.head;
    checks.see(record, kind === KINDS.TRAILER ? hash.copy().digest('hex') : null);
    if (kind === KINDS.HEADER) await started(checks.header!);
    else if (kind !== KINDS.TRAILER) yield record;
  }
  const { header, trailer, sections } = checks;
  if (header === null) throw badFile(file, 'it is empty');
  if (trailer === null) throw badFile(file, 'it is cut off: it has no end');
  return { file, header, trailer, sections, fileBytes };
}

/** Reads all of it. @throws HoldfastError INVALID_ARGUMENT for a file that is not whole */
export async function verifyBackup(
  source: AsyncIterable<Buffer>,
  file: string,
  progress: (bytes: number) => void = () => {},
): Promise<Verified> {
  const records = readBackup(source, file);
  for (;;) {
    const { value, done } = await records.next();
    if (done === true) return value;
    progress(value.offsetBytes);
  }
}
