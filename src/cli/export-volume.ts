/**
 * Copies a served volume into a backup, as it was at one moment, while clients may go on writing.
 *
 * How: a mark is set, so that the volume notes what is written from there on; all blocks are copied; then what was
 * written meanwhile is copied, under a newer mark, and so on. A pass at whose beginning and end the volume is at the same
 * position, over one connection to one primary, has copied a volume that stood still: each block in the file is the one
 * of that position, because a block that this pass has not copied was not written since an earlier pass copied it.
 *
 * Guarantees: a copy is called consistent only after such a pass; without one nothing is left of it, unless a fuzzy copy
 * was asked for, and that one says what it is. The marks that were set for the copying are deleted again.
 */
import { randomBytes } from 'node:crypto';
import { type ErrorCode, HoldfastError, asHoldfastError } from '../base/errors.ts';
import { type Position, comparePositions } from '../base/position.ts';
import { BLOCK_BYTES, MiB } from '../base/units.ts';
import type { Volume } from '../client/index.ts';
import { PACKAGE_VERSION } from '../node/version.ts';
import { type BackupHeader, type BackupMark, type BackupTrailer, FORMAT, MAX_RUN_BLOCKS } from './backup-format.ts';
import type { BackupWriter } from './backup-writer.ts';

/** Reads under way. */
const AHEAD = 16;
/** So much is copied fast enough for writers to wait for it. More of it is copied before, while it gets less from pass to pass. */
const SHORT_BYTES = 8 * MiB;
/** While writers are told to wait: requests that were under way may still come in. */
const PAUSED_PASSES = 4;
const MAYBE_DONE: readonly ErrorCode[] = ['ABORTED', 'OUTCOME_UNKNOWN', 'DEADLINE'];
/** To delete marks when all else has failed. */
const CLEAN_UP_MS = 5000;

/** Keeps writers away for as long as a short pass takes. */
export interface Pause {
  begin(signal: AbortSignal): Promise<void>;
  /** Is called in any case, also when `begin` failed. */
  end(): Promise<void>;
}

export interface ExportOptions {
  /** Only what changed behind that mark. */
  since?: string | undefined;
  /** Set when the copy begins: the next incremental copy may begin there. */
  mark?: string | undefined;
  /** At most so many without writers being paused. */
  passes: number;
  /** A copy whose blocks are of different moments is taken too. */
  fuzzy: boolean;
  pause: Pause | null;
  signal: AbortSignal;
  /** How often a connection was lost so far. */
  outages: () => number;
  progress: (pass: number, doneBytes: number, totalBytes: number) => void;
  /** What could not be tidied up. */
  left: (text: string) => void;
}

export interface Exported {
  header: BackupHeader;
  trailer: BackupTrailer;
  pausedMs: number | null;
}

interface Run {
  firstBlock: number;
  blockCount: number;
}

/** Where the volume stands; equal ones mean that nothing was written in between. */
interface Point {
  position: Position;
  outages: number;
}

const isSame = (a: Point, b: Point): boolean =>
  comparePositions(a.position, b.position) === 0 && a.outages === b.outages;

export class VolumeExport {
  private readonly volume: Volume;
  /** When the copy begins: one that grows meanwhile is another thing. */
  private readonly sizeBytes: number;
  private readonly writer: BackupWriter;
  private readonly o: ExportOptions;
  private readonly temporary = `export-${randomBytes(4).toString('hex')}`;
  private readonly temporaries: Set<string> = new Set();
  private marked = false;
  private passes = 0;
  private pausedMs: number | null = null;

  constructor(volume: Volume, writer: BackupWriter, options: ExportOptions) {
    this.volume = volume;
    this.sizeBytes = volume.sizeBytes;
    this.writer = writer;
    this.o = options;
  }

  /** @throws HoldfastError BUSY: written to all the time; INVALID_ARGUMENT, ABORTED, or as the volume answers */
  async run(): Promise<Exported> {
    try {
      const exported = await this.copyAll();
      await this.tidy(false);
      return exported;
    } catch (error) {
      await this.tidy(true);
      throw error;
    }
  }

  private async copyAll(): Promise<Exported> {
    const { volume, o } = this;
    const since = o.since === undefined ? null : await this.markNamed(o.since);
    const startedAt = new Date().toISOString();
    if (o.mark !== undefined) {
      this.marked = true;
      await this.setMark(o.mark).catch((error: unknown) => {
        // Refused: if there is one of that name, it is not ours. Else it may be there all the same.
        this.marked = MAYBE_DONE.includes(asHoldfastError(error).code);
        throw error;
      });
    }
    const base = o.mark ?? (await this.setTemporary());
    const header: BackupHeader = {
      format: FORMAT,
      volumeId: Buffer.from(volume.volumeId).toString('hex'),
      volume: volume.name,
      sizeBytes: this.sizeBytes,
      blockBytes: volume.blockBytes,
      since,
      marks: (await this.marks()).filter(({ name }) => !this.temporaries.has(name)),
      startedAt,
      writtenBy: `holdfast ${PACKAGE_VERSION}`,
    };
    await this.writer.header(header);
    const { consistent, position } = await this.passesUntilStill(since, base);
    if (!consistent && !o.fuzzy) throw this.neverStill();
    const endedAt = new Date().toISOString();
    const trailer = await this.writer.finish({ consistent, position, passes: this.passes, endedAt });
    return { header, trailer, pausedMs: this.pausedMs };
  }

  private neverStill(): HoldfastError {
    return new HoldfastError('BUSY', {
      operation: 'export',
      volume: this.volume.name,
      detail: `it was written to in each of ${this.passes} passes, so the copy is of no single moment; nothing is left of it`,
      remedy:
        'give --hold, or --pause-hook with a command that stops the writers for a moment; or --fuzzy to take it so',
    });
  }

  // --- passes -----------------------------------------------------------------------------------------------------------

  private async passesUntilStill(
    since: BackupMark | null,
    base: string,
  ): Promise<{ consistent: boolean; position: Position }> {
    const { o } = this;
    let mark = base;
    let leftBefore = Infinity;
    for (let pass = 1; ; pass++) {
      // What is written during this pass is for the next one.
      const next = pass === 1 || pass === o.passes ? mark : await this.setTemporary();
      const runs = pass > 1 ? this.changed(mark) : since === null ? this.written() : this.changed(since.name);
      const { still, position } = await this.onePass(runs, pass === 1 && since === null);
      if (still) return { consistent: true, position };
      if (next !== mark) await this.deleteTemporary(mark);
      mark = next;
      if (o.pause !== null) {
        const leftBytes = await this.dirtyBytes(mark);
        const shrinks = leftBytes < leftBefore / 2;
        leftBefore = leftBytes;
        if (pass >= o.passes || leftBytes <= SHORT_BYTES || !shrinks) return this.paused(mark);
      }
      if (pass >= o.passes) return { consistent: false, position };
    }
  }

  private async paused(mark: string): Promise<{ consistent: boolean; position: Position }> {
    const pause = this.o.pause!;
    const begunMs = performance.now();
    try {
      await pause.begin(this.o.signal);
      for (let pass = 1; ; pass++) {
        const { still, position } = await this.onePass(this.changed(mark), false);
        if (still || pass === PAUSED_PASSES) return { consistent: still, position };
      }
    } finally {
      await pause.end();
      this.pausedMs = Math.round(performance.now() - begunMs);
    }
  }

  private async onePass(
    runs: AsyncGenerator<Run>,
    skipZeros: boolean,
  ): Promise<{ still: boolean; position: Position }> {
    this.passes++;
    const before = await this.point();
    await this.writer.pass(skipZeros);
    await this.copy(runs);
    const after = await this.point();
    return { still: isSame(before, after), position: after.position };
  }

  private async point(): Promise<Point> {
    const { volume, o } = this;
    const { position, sizeBytes } = await volume.info({ signal: o.signal });
    if (sizeBytes !== this.sizeBytes) {
      const detail = `it has ${sizeBytes} bytes now, and had ${this.sizeBytes} when the copy began`;
      throw new HoldfastError('BUSY', { operation: 'export', volume: volume.name, detail, remedy: 'export it again' });
    }
    return { position, outages: o.outages() };
  }

  private async copy(runs: AsyncGenerator<Run>): Promise<void> {
    const { volume, writer, o } = this;
    const ahead: Array<{ firstBlock: number; bytes: Promise<Uint8Array> }> = [];
    const takeOne = async (): Promise<void> => {
      const { firstBlock, bytes } = ahead.shift()!;
      const { buffer, byteOffset, length } = await bytes;
      await writer.blocks(firstBlock, Buffer.from(buffer, byteOffset, length));
      o.progress(this.passes, firstBlock * BLOCK_BYTES + length, this.sizeBytes);
    };
    for await (const { firstBlock, blockCount } of runs) {
      if (ahead.length >= AHEAD) await takeOne();
      const bytes = volume.read(firstBlock * BLOCK_BYTES, blockCount * BLOCK_BYTES, { signal: o.signal });
      // Awaited in order; one that fails early must not count as unhandled meanwhile.
      bytes.catch(() => {});
      ahead.push({ firstBlock, bytes });
    }
    while (ahead.length > 0) await takeOne();
  }

  /** What is not a hole. */
  private async *written(): AsyncGenerator<Run> {
    const { volume, o } = this;
    for (let at = 0; at < this.sizeBytes;) {
      const extents = await volume.extents(at, this.sizeBytes - at, { signal: o.signal });
      for (const { offsetBytes, lengthBytes, kind } of extents) {
        if (kind === 'data') yield* cut(offsetBytes, lengthBytes);
        at = offsetBytes + lengthBytes;
      }
    }
  }

  private async *changed(mark: string): AsyncGenerator<Run> {
    const { volume, o } = this;
    for (let at = 0; at < this.sizeBytes;) {
      const found = await volume.changes(mark, at, this.sizeBytes - at, { signal: o.signal });
      for (const { offsetBytes, lengthBytes, changed } of found) {
        if (changed) yield* cut(offsetBytes, lengthBytes);
        at = offsetBytes + lengthBytes;
      }
    }
  }

  // --- marks ------------------------------------------------------------------------------------------------------------

  private async marks(): Promise<BackupMark[]> {
    const marks = await this.volume.marks({ signal: this.o.signal });
    return marks.map(({ name, position }) => ({ name, position }));
  }

  /** What was written behind a mark; of a mark that is not there: all that can be. */
  private async dirtyBytes(mark: string): Promise<number> {
    const marks = await this.volume.marks({ signal: this.o.signal });
    const dirtyBlocks = marks.find(({ name }) => name === mark)?.dirtyBlocks;
    return dirtyBlocks === undefined ? this.sizeBytes : dirtyBlocks * BLOCK_BYTES;
  }

  private async markNamed(name: string): Promise<BackupMark> {
    const marks = await this.marks();
    const found = marks.find((one) => one.name === name);
    if (found !== undefined) return found;
    throw new HoldfastError('INVALID_ARGUMENT', {
      operation: 'export',
      volume: this.volume.name,
      detail: `it has no mark "${name}"; it has ${marks.map((one) => one.name).join(', ') || 'none'}`,
      remedy: 'without that mark nobody knows what changed: make a full backup, with --mark',
    });
  }

  /** @returns its name. A read-only volume has none of them: everything counts as changed since a mark that is not there */
  private async setTemporary(): Promise<string> {
    const name = `${this.temporary}-${this.passes}`;
    if (this.volume.readOnly) return name;
    this.temporaries.add(name);
    await this.setMark(name);
    return name;
  }

  /** An interrupt waits for it: one that was given up might come to be after it was looked for. */
  private async setMark(name: string): Promise<void> {
    await this.volume.mark(name);
    if (this.o.signal.aborted) throw new HoldfastError('ABORTED', { operation: 'export', volume: this.volume.name });
  }

  private async deleteTemporary(name: string): Promise<void> {
    if (!this.temporaries.has(name)) return;
    await this.volume.deleteMark(name, { signal: this.o.signal });
    this.temporaries.delete(name);
  }

  /** Whatever happened: no mark of ours is to fill the volume's few places. */
  private async tidy(failed: boolean): Promise<void> {
    const names = [...this.temporaries];
    if (failed && this.marked) names.push(this.o.mark!);
    if (names.length === 0) return;
    try {
      const there = await this.volume.marks({ deadlineMs: CLEAN_UP_MS });
      for (const name of names) {
        if (there.some((one) => one.name === name)) await this.volume.deleteMark(name, { deadlineMs: CLEAN_UP_MS });
      }
    } catch (error) {
      const url = 'holdfast volume mark URL NAME --delete';
      this.o.left(`marks may be left, delete them (${url}): ${names.join(', ')}: ${asHoldfastError(error).message}`);
    }
  }
}

/** A run in parts that are one request each. */
function* cut(offsetBytes: number, lengthBytes: number): Generator<Run> {
  const end = (offsetBytes + lengthBytes) / BLOCK_BYTES;
  for (let firstBlock = offsetBytes / BLOCK_BYTES; firstBlock < end;) {
    const windowEnd = (Math.floor(firstBlock / MAX_RUN_BLOCKS) + 1) * MAX_RUN_BLOCKS;
    const blockCount = Math.min(windowEnd, end) - firstBlock;
    yield { firstBlock, blockCount };
    firstBlock += blockCount;
  }
}
