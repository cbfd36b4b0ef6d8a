/**
 * Writes verified backup files into a served volume, and reads back what came of it.
 *
 * Guarantees: after it the volume holds, byte for byte, what the files say, durably, and zeros where they say nothing; a
 * run that was cut short may be repeated; what a later pass says of a block is written after what an earlier one says.
 */
import { HoldfastError } from '../base/errors.ts';
import { BLOCK_BYTES } from '../base/units.ts';
import type { Volume } from '../client/index.ts';
import { KINDS } from './backup-format.ts';
import type { BackupInput } from './backup-input.ts';
import { type BackupRecord, type Verified, badFile, readBackup, recordsFrom } from './backup-reader.ts';

/** Requests under way. */
const AHEAD = 16;
const ZEROS = Buffer.alloc(BLOCK_BYTES);
/** Blocks that are read back at a time where nothing was written. */
const GAP_BLOCKS = 64;

type Report = (doneBytes: number) => void;

/** Work under way. The first that fails is thrown by whoever comes next. */
class UnderWay {
  private readonly all = new Set<Promise<void>>();
  private failure: { error: unknown } | null = null;

  async add(work: () => Promise<void>): Promise<void> {
    while (this.all.size >= AHEAD) await Promise.race(this.all);
    this.rethrow();
    const one: Promise<void> = work()
      .catch((error: unknown) => {
        this.failure ??= { error };
      })
      .finally(() => this.all.delete(one));
    this.all.add(one);
  }

  /** Waits for all of it. */
  async settled(): Promise<void> {
    await Promise.all(this.all);
    this.rethrow();
  }

  private rethrow(): void {
    if (this.failure !== null) throw this.failure.error;
  }
}

/** @returns whether nothing was ever written to it, or all of it was zeroed */
export async function isEmpty(volume: Volume): Promise<boolean> {
  const [first] = await volume.extents(0, volume.sizeBytes, { limit: 1 });
  return first!.kind === 'hole' && first!.lengthBytes === volume.sizeBytes;
}

/** Zeros wherever something was written. */
export async function zeroAll(volume: Volume, signal: AbortSignal, report: Report): Promise<void> {
  for (let at = 0; at < volume.sizeBytes;) {
    for (const { offsetBytes, lengthBytes, kind } of await volume.extents(at, volume.sizeBytes - at, { signal })) {
      if (kind === 'data') await volume.zero(offsetBytes, lengthBytes, { signal });
      at = offsetBytes + lengthBytes;
      report(at);
    }
  }
}

/** Writes records in their order. */
export class VolumeWriter {
  private readonly volume: Volume;
  private readonly signal: AbortSignal;
  private readonly underWay = new UnderWay();

  constructor(volume: Volume, signal: AbortSignal) {
    this.volume = volume;
    this.signal = signal;
  }

  /** @param compare read it back at once, because it will not come again */
  async write({ head, payload }: BackupRecord, compare = false): Promise<void> {
    const { volume, signal } = this;
    const { kind } = head;
    // A pass may say something else of the same blocks than the one before.
    if (kind === KINDS.PASS) return this.settled();
    const at = head.firstBlock * BLOCK_BYTES;
    const length = head.blockCount * BLOCK_BYTES;
    await this.underWay.add(async () => {
      if (kind === KINDS.ZEROS) return volume.zero(at, length, { signal });
      await volume.write(at, payload, { signal, owned: true });
      if (!compare) return;
      const found = await volume.read(at, length, { signal });
      if (!payload.equals(found)) throw differs(volume, at, length);
    });
  }

  async settled(): Promise<void> {
    await this.underWay.settled();
  }
}

function differs(volume: Pick<Volume, 'name'>, offsetBytes: number, lengthBytes: number): HoldfastError {
  return new HoldfastError('IO_ERROR', {
    operation: 'read back',
    volume: volume.name,
    offsetBytes,
    lengthBytes,
    detail: 'it is not what was written',
    remedy: 'make sure that nobody else writes to the volume, and import again with --overwrite',
  });
}

/** Writes a file that was verified. @throws HoldfastError also if it is another one by now */
export async function writeFile(
  writer: VolumeWriter,
  file: Verified,
  input: BackupInput,
  report: Report,
): Promise<void> {
  const records = readBackup(input.read(), file.file);
  for (;;) {
    const { value, done } = await records.next();
    if (done === true) {
      await writer.settled();
      if (value.trailer.sha256 !== file.trailer.sha256) throw badFile(file.file, 'it was replaced while it was read');
      return;
    }
    await writer.write(value);
    report(value.offsetBytes);
  }
}

/** A bit for each block: 32 MiB for a volume of 1 TiB. */
class Blocks {
  private readonly bits: Uint8Array;

  constructor(count: number) {
    this.bits = new Uint8Array(Math.ceil(count / 8));
  }

  has(block: number): boolean {
    return (this.bits[Math.floor(block / 8)]! & (1 << (block % 8))) !== 0;
  }

  add(block: number): void {
    this.bits[Math.floor(block / 8)]! |= 1 << (block % 8);
  }
}

/** What reading back needs of a volume. */
type Readable = Pick<Volume, 'name' | 'sizeBytes' | 'read' | 'extents'>;

/** Reads a volume back and compares, the newest pass first, because it says what a block is in the end. */
export class ReadBack {
  private readonly volume: Readable;
  private readonly signal: AbortSignal;
  private readonly seen: Blocks;
  private readonly underWay = new UnderWay();

  constructor(volume: Readable, signal: AbortSignal) {
    this.volume = volume;
    this.signal = signal;
    this.seen = new Blocks(volume.sizeBytes / BLOCK_BYTES);
  }

  /** @param report bytes read of the files. @throws HoldfastError IO_ERROR for the first block that differs */
  async compare(files: ReadonlyArray<{ file: Verified; input: BackupInput }>, report: Report): Promise<void> {
    let doneBytes = 0;
    for (const { file, input } of [...files].reverse()) {
      for (const section of [...file.sections].reverse()) {
        const { offsetBytes, endBytes } = section;
        for await (const record of recordsFrom(input.read(offsetBytes, endBytes), file.file, section)) {
          await this.compareRecord(record);
          report(doneBytes + record.offsetBytes - offsetBytes);
        }
        doneBytes += endBytes - offsetBytes;
      }
    }
    await this.compareRest();
    await this.underWay.settled();
  }

  private async compareRecord({ head, payload }: BackupRecord): Promise<void> {
    const { kind, firstBlock, blockCount } = head;
    if (kind === KINDS.DATA) return this.compareRun(firstBlock, blockCount, payload);
    if (kind !== KINDS.ZEROS) return;
    for (let done = 0; done < blockCount; done += GAP_BLOCKS) {
      await this.compareRun(firstBlock + done, Math.min(GAP_BLOCKS, blockCount - done), null);
    }
  }

  /** @param expected null: zeros */
  private async compareRun(firstBlock: number, count: number, expected: Buffer | null): Promise<void> {
    const { seen, volume, signal } = this;
    const wanted = Array.from({ length: count }, (_, i) => i).filter((i) => !seen.has(firstBlock + i));
    if (wanted.length === 0) return;
    for (const i of wanted) seen.add(firstBlock + i);
    await this.underWay.add(async () => {
      const found = await volume.read(firstBlock * BLOCK_BYTES, count * BLOCK_BYTES, { signal });
      for (const i of wanted) {
        const [from, to] = [i * BLOCK_BYTES, (i + 1) * BLOCK_BYTES];
        if ((expected?.subarray(from, to) ?? ZEROS).equals(found.subarray(from, to))) continue;
        throw differs(volume, (firstBlock + i) * BLOCK_BYTES, BLOCK_BYTES);
      }
    });
  }

  /** Of what no file speaks: zeros. Holes are that. */
  private async compareRest(): Promise<void> {
    const { volume, signal } = this;
    for (let at = 0; at < volume.sizeBytes;) {
      for (const { offsetBytes, lengthBytes, kind } of await volume.extents(at, volume.sizeBytes - at, { signal })) {
        at = offsetBytes + lengthBytes;
        if (kind === 'hole') continue;
        const end = at / BLOCK_BYTES;
        for (let block = offsetBytes / BLOCK_BYTES; block < end; block += GAP_BLOCKS) {
          await this.compareRun(block, Math.min(GAP_BLOCKS, end - block), null);
        }
      }
    }
  }
}
