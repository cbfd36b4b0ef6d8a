/**
 * BlockDevice over a volume of this process: for tools, tests and embedders that need no network.
 *
 * Guarantees: those of BlockDevice; long operations are cut by `split`, a bounded number of parts is under way.
 */
import type { BlockDevice, CallOptions, Extent, ExtentOptions } from '../base/device.ts';
import { checkCall } from '../base/check-call.ts';
import { HoldfastError } from '../base/errors.ts';
import { BLOCK_BYTES, MAX_IO_BYTES, type Part, split, splitZero } from '../base/units.ts';
import type { Done, ServedVolume } from '../replication/served-volume.ts';
import type { Arena, Slot } from '../storage/arena.ts';

const PARTS_UNDER_WAY = 8;
const DEFAULT_EXTENTS = 4096;

export class LocalDevice implements BlockDevice {
  readonly sizeBytes: number;
  readonly blockBytes: number = BLOCK_BYTES;
  readonly atomicBytes: number = MAX_IO_BYTES;
  readonly readOnly: boolean;
  private readonly volume: ServedVolume;
  private readonly arena: Arena;
  private readonly onClose: () => Promise<void>;
  private closed = false;
  /** Writes, zeroes and trims that are under way: what a flush waits for. */
  private readonly mutations: Set<Promise<void>> = new Set();

  constructor(volume: ServedVolume, arena: Arena, onClose: () => Promise<void> = async () => {}) {
    const info = volume.info();
    this.sizeBytes = info.sizeBytes;
    this.readOnly = info.readOnly;
    this.volume = volume;
    this.arena = arena;
    this.onClose = onClose;
  }

  async read(offsetBytes: number, lengthBytes: number, options: CallOptions = {}): Promise<Uint8Array> {
    this.check('read', offsetBytes, lengthBytes);
    const result = new Uint8Array(lengthBytes);
    const parts = split(offsetBytes, lengthBytes);
    await this.each('read', parts, options, async (part) => {
      const slot = await this.take(pagesOf(part));
      await new Promise<void>((resolve, reject) => {
        this.volume.read(part.offsetBytes, part.lengthBytes, slot, (error) => {
          const at = part.offsetBytes % BLOCK_BYTES;
          if (error === null) {
            result.set(slot.payload.subarray(at, at + part.lengthBytes), part.offsetBytes - offsetBytes);
          }
          this.arena.release(slot);
          if (error === null) resolve();
          else reject(error);
        });
      });
    });
    return result;
  }

  async write(offsetBytes: number, bytes: Uint8Array, options: CallOptions = {}): Promise<void> {
    this.check('write', offsetBytes, bytes.length);
    await this.mutate('write', split(offsetBytes, bytes.length), options, async (part) => {
      const slot = await this.take(pagesOf(part));
      const from = part.offsetBytes - offsetBytes;
      slot.payload.set(bytes.subarray(from, from + part.lengthBytes), part.offsetBytes % BLOCK_BYTES);
      await settled((done) => this.volume.write(null, 0, part.offsetBytes, part.lengthBytes, slot, false, done));
    });
  }

  async flush(): Promise<void> {
    this.check('flush', 0, 0);
    // Parts of earlier calls may still wait for a slot, where the volume's flush does not know of them.
    await Promise.allSettled(this.mutations);
    await settled((done) => this.volume.flush(done));
  }

  async zero(offsetBytes: number, lengthBytes: number, options: CallOptions = {}): Promise<void> {
    this.check('zero', offsetBytes, lengthBytes);
    await this.mutate('zero', splitZero(offsetBytes, lengthBytes), options, (part) =>
      settled((done) => this.volume.zero(null, 0, part.offsetBytes, part.lengthBytes, done)),
    );
  }

  async trim(offsetBytes: number, lengthBytes: number, options: CallOptions = {}): Promise<void> {
    this.check('trim', offsetBytes, lengthBytes);
    await this.mutate('trim', splitZero(offsetBytes, lengthBytes), options, (part) =>
      settled((done) => this.volume.trim(null, 0, part.offsetBytes, part.lengthBytes, done)),
    );
  }

  async extents(offsetBytes: number, lengthBytes: number, options: ExtentOptions = {}): Promise<Extent[]> {
    this.check('extents', offsetBytes, lengthBytes);
    const limit = options.limit ?? DEFAULT_EXTENTS;
    const result: Extent[] = [];
    for (let at = offsetBytes; at < offsetBytes + lengthBytes;) {
      await settled((done) => this.volume.whenReadable(done));
      for (const extent of this.volume.extents(at, offsetBytes + lengthBytes - at, limit - result.length + 1)) {
        const last = result.at(-1);
        if (last?.kind === extent.kind) last.lengthBytes += extent.lengthBytes;
        else if (result.length === limit) return result;
        else result.push(extent);
        at = extent.offsetBytes + extent.lengthBytes;
      }
    }
    return result;
  }

  async close(): Promise<void> {
    if (this.closed) return;
    this.closed = true;
    await this.onClose();
  }

  private check(operation: string, offsetBytes: number, lengthBytes: number): void {
    checkCall(this, this.closed, operation, offsetBytes, lengthBytes);
  }

  private async take(pages: number): Promise<Slot> {
    for (;;) {
      const slot = this.arena.take(pages);
      if (slot !== null) return slot;
      await new Promise<void>((resolve) => this.arena.whenFree(pages, resolve));
    }
  }

  private async mutate(
    operation: string,
    parts: Part[],
    options: CallOptions,
    one: (part: Part) => Promise<void>,
  ): Promise<void> {
    const work = this.each(operation, parts, options, one);
    this.mutations.add(work);
    try {
      await work;
    } finally {
      this.mutations.delete(work);
    }
  }

  /** Runs the parts, a few at a time, until all are done, one fails, or the caller gives up. */
  private async each(
    operation: string,
    parts: Part[],
    options: CallOptions,
    one: (part: Part) => Promise<void>,
  ): Promise<void> {
    const queue = parts.values();
    const runner = async (): Promise<void> => {
      for (const part of queue) {
        if (options.signal?.aborted) throw new HoldfastError('ABORTED', { operation });
        await one(part);
      }
    };
    const all = Promise.all(Array.from({ length: Math.min(PARTS_UNDER_WAY, parts.length) }, runner)).then(() => {});
    await orGivenUp(operation, all, options);
  }
}

/** The promise, unless the caller's signal or deadline comes first. */
async function orGivenUp(operation: string, work: Promise<void>, options: CallOptions): Promise<void> {
  const { signal, deadlineMs } = options;
  if (signal === undefined && deadlineMs === undefined) return work;
  let cleanUp = (): void => {};
  const givenUp = new Promise<never>((_, reject) => {
    const abort = (): void => reject(new HoldfastError('ABORTED', { operation }));
    if (signal?.aborted) abort();
    signal?.addEventListener('abort', abort);
    const timer =
      deadlineMs === undefined
        ? undefined
        : setTimeout(
            () => reject(new HoldfastError('DEADLINE', { operation, detail: `${deadlineMs} ms` })),
            deadlineMs,
          );
    cleanUp = () => {
      signal?.removeEventListener('abort', abort);
      clearTimeout(timer);
    };
  });
  work.catch(() => {});
  try {
    await Promise.race([work, givenUp]);
  } finally {
    cleanUp();
  }
}

function pagesOf(part: Part): number {
  return Math.ceil(((part.offsetBytes % BLOCK_BYTES) + part.lengthBytes) / BLOCK_BYTES);
}

function settled(call: (done: Done) => void): Promise<void> {
  return new Promise((resolve, reject) => call((error) => (error === null ? resolve() : reject(error))));
}
