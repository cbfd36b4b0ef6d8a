/**
 * Writes a backup file, or streams one to stdout.
 *
 * Guarantees: a file of the given name is whole and durable; until then it is called NAME.partial, and is removed when
 * it is given up; nothing that is there already is replaced; memory is bounded.
 */
import { type Hash, createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { type FileHandle, open, rename, rm } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { crc32 } from '../base/checksum.ts';
import { HoldfastError, asHoldfastError } from '../base/errors.ts';
import { BLOCK_BYTES, MiB } from '../base/units.ts';
import {
  type BackupHeader,
  type BackupTrailer,
  HEAD_BYTES,
  KINDS,
  MAX_RUN_BLOCKS,
  type RecordKind,
  encodeHead,
} from './backup-format.ts';

const EMPTY = Buffer.alloc(0);
const ZEROS = Buffer.alloc(BLOCK_BYTES);
/** Runs of zeros are gathered; a record's count is a u32. */
const MAX_ZERO_BLOCKS = 2 ** 31;
/** Records are gathered up to this before they are handed on. */
const GATHER_BYTES = MiB;

/** Where the bytes go. */
interface Sink {
  write(bytes: Uint8Array): Promise<void>;
  /** All of it is there, durably. */
  finish(): Promise<void>;
  giveUp(): Promise<void>;
}

async function fileSink(path: string): Promise<Sink> {
  const where = { operation: 'export' };
  const partial = `${path}.partial`;
  if (existsSync(path)) {
    const remedy = 'take another name: a backup that others may build on is not replaced';
    throw new HoldfastError('EXISTS', { ...where, detail: path, remedy });
  }
  const failed = (error: unknown): HoldfastError => {
    const { code, message } = asHoldfastError(error);
    return new HoldfastError(code, { ...where, detail: `${partial}: ${message}`, cause: error });
  };
  const attempt = async <T>(work: Promise<T>): Promise<T> =>
    work.catch((error: unknown) => {
      throw failed(error);
    });
  // What lies in a volume is nobody else's business.
  const file: FileHandle = await attempt(open(partial, 'w', 0o600));
  return {
    write: async (bytes) => {
      for (let at = 0; at < bytes.length;) {
        at += (await attempt(file.write(bytes, at, bytes.length - at))).bytesWritten;
      }
    },
    finish: async () => {
      await attempt(file.sync());
      await attempt(file.close());
      await attempt(rename(partial, path));
      const folder = await open(dirname(resolve(path)), 'r');
      try {
        await attempt(folder.sync());
      } finally {
        await folder.close();
      }
    },
    giveUp: async () => {
      await file.close().catch(() => {});
      await rm(partial, { force: true });
    },
  };
}

function stdoutSink(): Sink {
  let failure: Error | null = null;
  let wake = (): void => {};
  process.stdout.on('error', (error) => {
    failure = error;
    wake();
  });
  const check = (): void => {
    if (failure === null) return;
    const detail = `nobody reads it any more: ${failure.message}`;
    throw new HoldfastError('IO_ERROR', { operation: 'export to stdout', detail, cause: failure });
  };
  return {
    write: async (bytes) => {
      check();
      await new Promise<void>((done) => {
        wake = done;
        process.stdout.write(bytes, () => done());
      });
      check();
    },
    finish: async () => {},
    giveUp: async () => {},
  };
}

export interface WriterCounts {
  dataBlocks: number;
  zeroBlocks: number;
  bytes: number;
}

export class BackupWriter {
  readonly counts: WriterCounts = { dataBlocks: 0, zeroBlocks: 0, bytes: 0 };
  private readonly sink: Sink;
  private readonly hash: Hash = createHash('sha256');
  private index = 0;
  /** Blocks that read as zeros are left out: the file is a full one, and nothing of them was written to it before. */
  private skipZeros = false;
  private zeros = { firstBlock: 0, blockCount: 0 };
  private gathered: Buffer[] = [];
  private gatheredBytes = 0;

  private constructor(sink: Sink) {
    this.sink = sink;
  }

  /** @param path `-` is stdout. @throws HoldfastError EXISTS, ACCESS, NO_SPACE, IO_ERROR */
  static async open(path: string): Promise<BackupWriter> {
    return new BackupWriter(path === '-' ? stdoutSink() : await fileSink(path));
  }

  async header(header: BackupHeader): Promise<void> {
    await this.record(KINDS.HEADER, 0, 0, Buffer.from(JSON.stringify(header)));
  }

  /** What follows is newer than what came before. */
  async pass(skipZeros: boolean): Promise<void> {
    await this.endZeros();
    this.skipZeros = skipZeros;
    await this.record(KINDS.PASS, 0, 0, EMPTY);
  }

  /** Whole blocks, behind those of the same pass that came before. */
  async blocks(firstBlock: number, bytes: Buffer): Promise<void> {
    const count = bytes.length / BLOCK_BYTES;
    const isZero = (i: number): boolean => bytes.subarray(i * BLOCK_BYTES, (i + 1) * BLOCK_BYTES).equals(ZEROS);
    for (let from = 0; from < count;) {
      const zero = isZero(from);
      let to = from + 1;
      while (to < count && to - from < MAX_RUN_BLOCKS && isZero(to) === zero) to++;
      if (zero) await this.zeroRun(firstBlock + from, to - from);
      else await this.data(firstBlock + from, bytes.subarray(from * BLOCK_BYTES, to * BLOCK_BYTES));
      from = to;
    }
  }

  async zeroRun(firstBlock: number, blockCount: number): Promise<void> {
    if (this.skipZeros) return;
    const { zeros } = this;
    const follows = zeros.firstBlock + zeros.blockCount === firstBlock;
    if (zeros.blockCount > 0 && follows && zeros.blockCount + blockCount <= MAX_ZERO_BLOCKS) {
      zeros.blockCount += blockCount;
      return;
    }
    await this.endZeros();
    this.zeros = { firstBlock, blockCount };
  }

  private async endZeros(): Promise<void> {
    const { firstBlock, blockCount } = this.zeros;
    if (blockCount === 0) return;
    this.zeros = { firstBlock: 0, blockCount: 0 };
    this.counts.zeroBlocks += blockCount;
    await this.record(KINDS.ZEROS, firstBlock, blockCount, EMPTY);
  }

  private async data(firstBlock: number, bytes: Buffer): Promise<void> {
    await this.endZeros();
    this.counts.dataBlocks += bytes.length / BLOCK_BYTES;
    await this.record(KINDS.DATA, firstBlock, bytes.length / BLOCK_BYTES, bytes);
  }

  /** The file is whole. */
  async finish(trailer: Pick<BackupTrailer, 'consistent' | 'position' | 'passes' | 'endedAt'>): Promise<BackupTrailer> {
    await this.endZeros();
    const whole: BackupTrailer = { ...trailer, ...this.counts, sha256: this.hash.copy().digest('hex') };
    await this.record(KINDS.TRAILER, 0, 0, Buffer.from(JSON.stringify(whole)));
    await this.handOn();
    await this.sink.finish();
    return whole;
  }

  /** Leaves nothing. */
  async giveUp(): Promise<void> {
    await this.sink.giveUp();
  }

  private async record(kind: RecordKind, firstBlock: number, blockCount: number, payload: Buffer): Promise<void> {
    const payloadCrc = payload.length === 0 ? 0 : crc32(payload);
    const head = encodeHead({
      kind,
      index: this.index++,
      firstBlock,
      blockCount,
      payloadBytes: payload.length,
      payloadCrc,
    });
    this.hash.update(head);
    if (payload.length > 0) this.hash.update(payload);
    this.counts.bytes += HEAD_BYTES + payload.length;
    this.gathered.push(head, payload);
    this.gatheredBytes += HEAD_BYTES + payload.length;
    if (this.gatheredBytes >= GATHER_BYTES) await this.handOn();
  }

  private async handOn(): Promise<void> {
    const bytes = Buffer.concat(this.gathered);
    [this.gathered, this.gatheredBytes] = [[], 0];
    await this.sink.write(bytes);
  }
}
