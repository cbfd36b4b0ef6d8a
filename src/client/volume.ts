/**
 * A volume of a server as a BlockDevice.
 *
 * Guarantees: those of BlockDevice; long operations are cut by `split`, so that every part is one atomic request; a
 * bounded number of parts of one call is under way. An operation that was given up leaves nothing waiting: parts that
 * were not sent are not sent any more.
 */
import type { Readable, Writable } from 'node:stream';
import type { BlockDevice, CallOptions, ChangedExtent, Extent, ExtentOptions } from '../base/device.ts';
import { checkCall } from '../base/check-call.ts';
import { HoldfastError } from '../base/errors.ts';
import { MiB, type Part, split, splitZero } from '../base/units.ts';
import {
  decodeExtents,
  decodeVolumeInfo,
  encodeExtentsRequest,
  encodeInfo,
  type VolumeInfo,
} from '../protocol/handshake.ts';
import {
  type ListedMark,
  type MarkRequest,
  decodeChanges,
  decodeMarks,
  encodeChangesRequest,
  encodeMark,
} from '../protocol/marks.ts';
import { MAX_EXTENTS, MESSAGES } from '../protocol/messages.ts';
import { Call } from './call.ts';
import type { Shared } from './connection.ts';
import type { Connections } from './connections.ts';
import { Members } from './members.ts';
import { MAX_TIMER_MS } from './options.ts';
import { ReadAll } from './read-all.ts';
import { ReadAny, type Reader, type Target } from './read-policy.ts';
import { readableOf, type ReadRange, writableOf } from './streams.ts';

const PARTS_UNDER_WAY = 16;
const DEFAULT_EXTENTS = 4096;
const NOTHING: Part = { offsetBytes: 0, lengthBytes: 0 };
/** Bytes that one EXTENTS request asks about: its count is a u32. */
const EXTENTS_WINDOW_BYTES = 1024 * MiB;

export interface WriteOptions extends CallOptions {
  /** The bytes are the library's from now on and are not copied: the caller must never change them again. */
  owned?: boolean | undefined;
}

export class Volume implements BlockDevice {
  readonly name: string;
  /** 16 bytes; it never changes, and no other volume has the same. */
  readonly volumeId: Uint8Array;
  readonly blockBytes: number;
  readonly atomicBytes: number;
  readonly readOnly: boolean;
  private readonly connections: Connections;
  /** Takes reads; null: whichever connection is picked. */
  private readonly reader: Reader | null;
  /** Why nothing is done any more. */
  private stopped: HoldfastError | null = null;
  private closed = false;
  /** Writes, zeroes and trims that are under way: what a flush waits for. */
  private readonly mutations: Set<Promise<unknown>> = new Set();

  /** See `connect`. */
  constructor(info: VolumeInfo, connections: Connections) {
    this.name = info.name;
    this.volumeId = info.volumeId;
    this.blockBytes = info.blockBytes;
    this.atomicBytes = info.atomicBytes;
    this.readOnly = info.readOnly;
    this.connections = connections;
    this.reader = this.readerOf(connections.shared);
  }

  /** It only rises: `info` asks for it anew, and so does every connection that is made again. */
  get sizeBytes(): number {
    return this.connections.known!.sizeBytes;
  }

  private readerOf(shared: Shared): Reader | null {
    switch (shared.settings.reads) {
      case 'primary':
        return null;
      case 'any':
        return new ReadAny(new Members(shared, false), () => this.connections.pick());
      case 'all':
        return new ReadAll(new Members(shared, true), shared.settings, (error) => (this.stopped = error));
    }
  }

  async read(offsetBytes: number, lengthBytes: number, options: CallOptions = {}): Promise<Uint8Array> {
    this.check('read', offsetBytes, lengthBytes);
    const result = new Uint8Array(lengthBytes);
    await this.readInto(offsetBytes, result, options);
    return result;
  }

  /** Reads as many bytes as `result` has. After an error they are undefined; if it was given up, they may still change. */
  async readInto(offsetBytes: number, result: Uint8Array, options: CallOptions = {}): Promise<void> {
    const lengthBytes = result.length;
    this.check('read', offsetBytes, lengthBytes);
    await this.run('read', split(offsetBytes, lengthBytes), options, (part, deadlineAtMs) => {
      const from = part.offsetBytes - offsetBytes;
      const destination = result.subarray(from, from + part.lengthBytes);
      return new Call(MESSAGES.READ.number, part, { destination, deadlineAtMs });
    });
  }

  async write(offsetBytes: number, bytes: Uint8Array, options: WriteOptions = {}): Promise<void> {
    this.check('write', offsetBytes, bytes.length);
    const owned = options.owned ?? false;
    await this.mutate('write', split(offsetBytes, bytes.length), options, (part, deadlineAtMs) => {
      const from = part.offsetBytes - offsetBytes;
      const source = bytes.subarray(from, from + part.lengthBytes);
      return new Call(MESSAGES.WRITE.number, part, { source, owned, deadlineAtMs });
    });
  }

  async zero(offsetBytes: number, lengthBytes: number, options: CallOptions = {}): Promise<void> {
    this.check('zero', offsetBytes, lengthBytes);
    await this.mutate('zero', splitZero(offsetBytes, lengthBytes), options, (part, deadlineAtMs) => {
      return new Call(MESSAGES.ZERO.number, part, { deadlineAtMs });
    });
  }

  async trim(offsetBytes: number, lengthBytes: number, options: CallOptions = {}): Promise<void> {
    this.check('trim', offsetBytes, lengthBytes);
    await this.mutate('trim', splitZero(offsetBytes, lengthBytes), options, (part, deadlineAtMs) => {
      return new Call(MESSAGES.TRIM.number, part, { deadlineAtMs });
    });
  }

  async flush(options: CallOptions = {}): Promise<void> {
    this.check('flush', 0, 0);
    const earlier = [...this.mutations];
    const nothing = [{ offsetBytes: 0, lengthBytes: 0 }];
    // Parts of earlier calls may still wait in this process, where the server's flush does not know of them.
    const settled = Promise.allSettled(earlier);
    await this.run(
      'flush',
      nothing,
      options,
      (part, deadlineAtMs) => new Call(MESSAGES.FLUSH.number, part, { deadlineAtMs }),
      earlier.length > 0 ? settled : undefined,
    );
  }

  async extents(offsetBytes: number, lengthBytes: number, options: ExtentOptions = {}): Promise<Extent[]> {
    this.check('extents', offsetBytes, lengthBytes);
    const limit = options.limit ?? DEFAULT_EXTENTS;
    if (!Number.isSafeInteger(limit) || limit < 1) {
      throw new HoldfastError('INVALID_ARGUMENT', { operation: 'extents', detail: `a limit of ${limit}` });
    }
    const result: Extent[] = [];
    for (let at = offsetBytes, end = offsetBytes + lengthBytes; at < end;) {
      const window = { offsetBytes: at, lengthBytes: Math.min(EXTENTS_WINDOW_BYTES, end - at) };
      // One more than is wanted: the first of them may continue the last one of before.
      const source = encodeExtentsRequest(Math.min(MAX_EXTENTS, limit - result.length + 1));
      const reply = await this.runOne('extents', window, options, MESSAGES.EXTENTS.number, source);
      const found = decodeExtents(reply, at);
      const covered = found.reduce((sum, extent) => sum + extent.lengthBytes, 0);
      if (covered === 0 || covered > window.lengthBytes) {
        const detail = `the server's extents cover ${covered} bytes`;
        throw new HoldfastError('BAD_FRAME', { operation: 'extents', volume: this.name, ...window, detail });
      }
      for (const extent of found) {
        const last = result.at(-1);
        if (last?.kind === extent.kind) last.lengthBytes += extent.lengthBytes;
        else if (result.length === limit) return result;
        else result.push(extent);
      }
      at += covered;
    }
    return result;
  }

  /**
   * Sets a mark, durably: from here on `changes` tells which blocks were written.
   * @throws HoldfastError EXISTS, TOO_MANY, INVALID_ARGUMENT (the name), OUTCOME_UNKNOWN
   */
  async mark(name: string, options: CallOptions = {}): Promise<void> {
    await this.changeMark({ action: 'set', name }, options);
  }

  /** Forgets a mark. @throws HoldfastError INVALID_ARGUMENT if there is none of that name */
  async deleteMark(name: string, options: CallOptions = {}): Promise<void> {
    await this.changeMark({ action: 'delete', name }, options);
  }

  private async changeMark(change: MarkRequest, options: CallOptions): Promise<void> {
    this.check('mark', 0, 0);
    const work = this.runOne('mark', NOTHING, options, MESSAGES.MARK.number, encodeMark(change));
    this.mutations.add(work);
    try {
      await work;
    } finally {
      this.mutations.delete(work);
    }
  }

  /** The marks of the volume, oldest first. */
  async marks(options: CallOptions = {}): Promise<ListedMark[]> {
    this.check('marks', 0, 0);
    return decodeMarks(await this.runOne('marks', NOTHING, options, MESSAGES.MARKS.number, null));
  }

  /**
   * What changed since a mark was set, in whole blocks, clipped to the range; perhaps more, never less. Without a mark
   * of that name everything counts as changed. With `limit` the answer may cover the range only in part.
   */
  async changes(
    mark: string,
    offsetBytes: number,
    lengthBytes: number,
    options: ExtentOptions = {},
  ): Promise<ChangedExtent[]> {
    this.check('changes', offsetBytes, lengthBytes);
    const limit = options.limit ?? DEFAULT_EXTENTS;
    const result: ChangedExtent[] = [];
    for (let at = offsetBytes, end = offsetBytes + lengthBytes; at < end;) {
      const window = { offsetBytes: at, lengthBytes: Math.min(EXTENTS_WINDOW_BYTES, end - at) };
      const source = encodeChangesRequest(Math.min(MAX_EXTENTS, limit - result.length + 1), mark);
      const found = decodeChanges(await this.runOne('changes', window, options, MESSAGES.CHANGES.number, source), at);
      const covered = found.reduce((sum, run) => sum + run.lengthBytes, 0);
      if (covered === 0 || covered > window.lengthBytes) {
        const detail = `the server's runs cover ${covered} bytes`;
        throw new HoldfastError('BAD_FRAME', { operation: 'changes', volume: this.name, ...window, detail });
      }
      for (const run of found) {
        const last = result.at(-1);
        if (last?.changed === run.changed) last.lengthBytes += run.lengthBytes;
        else if (result.length === limit) return result;
        else result.push(run);
      }
      at += covered;
    }
    return result;
  }

  /** Asks the server for what it knows of the volume now: its position moves, its size may have grown. */
  async info(options: CallOptions = {}): Promise<VolumeInfo> {
    this.check('info', 0, 0);
    const nothing = { offsetBytes: 0, lengthBytes: 0 };
    const reply = await this.runOne('info', nothing, options, MESSAGES.INFO.number, encodeInfo(''));
    const info = decodeVolumeInfo(reply);
    this.connections.accept(info);
    return info;
  }

  /** The bytes from `start` to `end` (inclusive, as with files; default: to the end of the volume), reading ahead. */
  readable(range: ReadRange = {}): Readable {
    return readableOf(this, range);
  }

  /** Writes what is piped into it from byte `start` on (default 0). It finishes when all of it is durable. */
  writable(where: { start?: number | undefined } = {}): Writable {
    return writableOf(this, where.start ?? 0);
  }

  /** Calls under way are waited for while the server is there; calls made from now on are refused with CLOSED. */
  async close(): Promise<void> {
    this.closed = true;
    await this.reader?.close();
    await this.connections.close();
  }

  private check(operation: string, offsetBytes: number, lengthBytes: number): void {
    checkCall(this, this.closed, operation, offsetBytes, lengthBytes);
    if (this.stopped !== null) throw this.stopped;
  }

  private targetOf(call: Call): Target {
    return this.reader !== null && call.message.number === MESSAGES.READ.number ? this.reader : this.connections.pick();
  }

  private async mutate(
    operation: string,
    parts: Part[],
    options: CallOptions,
    make: (part: Part, deadlineAtMs: number) => Call,
  ): Promise<void> {
    const work = this.run(operation, parts, options, make);
    this.mutations.add(work);
    try {
      await work;
    } finally {
      this.mutations.delete(work);
    }
  }

  private async runOne(
    operation: string,
    range: Part,
    options: CallOptions,
    type: number,
    source: Uint8Array | null,
  ): Promise<Uint8Array | null> {
    let payload: Uint8Array | null = null;
    const own = source === null ? {} : { source };
    const make = (part: Part, deadlineAtMs: number): Call => new Call(type, part, { ...own, deadlineAtMs });
    await this.run(operation, [range], options, make, undefined, (reply) => (payload = reply));
    return payload;
  }

  /**
   * Makes a call of each part, a few at a time, until all are answered, one has failed (then those under way are
   * waited for), or the caller gives up.
   */
  private run(
    operation: string,
    parts: Part[],
    options: CallOptions,
    make: (part: Part, deadlineAtMs: number) => Call,
    before?: Promise<unknown>,
    answered?: (payload: Uint8Array | null) => void,
  ): Promise<void> {
    const { signal, deadlineMs } = options;
    const where = { operation, volume: this.name };
    if (deadlineMs !== undefined && !(deadlineMs >= 0)) {
      const detail = `a deadline of ${deadlineMs} ms`;
      return Promise.reject(new HoldfastError('INVALID_ARGUMENT', { ...where, detail }));
    }
    if (signal?.aborted) return Promise.reject(new HoldfastError('ABORTED', where));
    if (parts.length === 0) return Promise.resolve();
    const deadlineAtMs = deadlineMs === undefined ? Infinity : performance.now() + deadlineMs;
    return new Promise((resolve, reject) => {
      const live: Map<Call, Target> = new Map();
      let next = 0;
      let failed: HoldfastError | null = null;
      let over = false;
      let timer: NodeJS.Timeout | undefined;
      const finish = (error: HoldfastError | null): void => {
        over = true;
        signal?.removeEventListener('abort', abort);
        clearTimeout(timer);
        if (error === null) resolve();
        else reject(error);
      };
      const giveUp = (error: HoldfastError): void => {
        if (over) return;
        for (const [call, target] of live) target.giveUp(call);
        finish(error);
      };
      const abort = (): void => giveUp(new HoldfastError('ABORTED', { ...where, cause: signal?.reason }));
      const launch = (): void => {
        while (!over && failed === null && next < parts.length && live.size < PARTS_UNDER_WAY) {
          const call = make(parts[next++]!, deadlineAtMs);
          const target = this.targetOf(call);
          live.set(call, target);
          call.done = (error, payload) => {
            live.delete(call);
            if (error === null) answered?.(payload);
            failed ??= error;
            launch();
            if (live.size === 0 && !over) finish(failed);
          };
          target.submit(call);
        }
      };
      signal?.addEventListener('abort', abort);
      if (deadlineMs !== undefined && deadlineMs !== Infinity) {
        const error = (): HoldfastError => new HoldfastError('DEADLINE', { ...where, detail: `${deadlineMs} ms` });
        timer = setTimeout(() => giveUp(error()), Math.min(deadlineMs, MAX_TIMER_MS));
      }
      if (before === undefined) launch();
      else void before.then(launch);
    });
  }
}
