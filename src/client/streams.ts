/**
 * Node streams over a BlockDevice.
 *
 * Guarantees: operations are cut at multiples of 256 KiB of the volume, so each is atomic; a bounded number is under
 * way; a readable that is destroyed gives up its reads; a writable finishes only when every byte is durable.
 */
import { Readable, Writable } from 'node:stream';
import type { BlockDevice } from '../base/device.ts';
import { asHoldfastError, HoldfastError } from '../base/errors.ts';
import { MAX_IO_BYTES } from '../base/units.ts';

const UNDER_WAY = 8;

export interface ReadRange {
  /** First byte; default 0. */
  start?: number | undefined;
  /** Last byte, inclusive; default the volume's last. */
  end?: number | undefined;
}

function checkedPoint(operation: string, value: number, sizeBytes: number): number {
  if (Number.isSafeInteger(value) && value >= 0 && value <= sizeBytes) return value;
  const detail = `byte ${value} of a volume of ${sizeBytes} bytes`;
  throw new HoldfastError(Number.isSafeInteger(value) && value > sizeBytes ? 'OUT_OF_RANGE' : 'INVALID_ARGUMENT', {
    operation,
    detail,
  });
}

/** @throws HoldfastError INVALID_ARGUMENT, OUT_OF_RANGE */
export function readableOf(device: BlockDevice, range: ReadRange): Readable {
  const start = checkedPoint('readable', range.start ?? 0, device.sizeBytes);
  const end = checkedPoint('readable', (range.end ?? device.sizeBytes - 1) + 1, device.sizeBytes);
  return Readable.from(pieces(device, start, end), { objectMode: false, highWaterMark: MAX_IO_BYTES });
}

async function* pieces(device: BlockDevice, start: number, end: number): AsyncGenerator<Uint8Array> {
  const abort = new AbortController();
  const ahead: Array<Promise<Uint8Array>> = [];
  let at = start;
  try {
    for (;;) {
      while (at < end && ahead.length < UNDER_WAY) {
        const cut = Math.min(end, (Math.floor(at / MAX_IO_BYTES) + 1) * MAX_IO_BYTES);
        const read = device.read(at, cut - at, { signal: abort.signal });
        // Its error is thrown when its turn comes; if that never comes, nobody needs it.
        read.catch(() => {});
        ahead.push(read);
        at = cut;
      }
      const first = ahead.shift();
      if (first === undefined) return;
      yield await first;
    }
  } finally {
    abort.abort();
  }
}

/** @throws HoldfastError INVALID_ARGUMENT, OUT_OF_RANGE */
export function writableOf(device: BlockDevice, start: number): Writable {
  return new VolumeWritable(device, checkedPoint('writable', start, device.sizeBytes));
}

class VolumeWritable extends Writable {
  private readonly device: BlockDevice;
  private readonly abort = new AbortController();
  /** Where the next byte goes. */
  private at: number;
  /** The bytes that end at `at` and are not written yet. */
  private buffer: Uint8Array | null = null;
  private bufferedBytes = 0;
  private underWay = 0;
  private failure: Error | null = null;
  private waiting: (() => void) | null = null;

  constructor(device: BlockDevice, start: number) {
    super({ highWaterMark: MAX_IO_BYTES, decodeStrings: true });
    this.device = device;
    this.at = start;
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, callback: (error?: Error | null) => void): void {
    this.take(chunk).then(() => callback(), callback);
  }

  override _final(callback: (error?: Error | null) => void): void {
    this.writeBuffered();
    this.until(0).then(() => callback(), callback);
  }

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    this.abort.abort();
    callback(error);
  }

  private async take(chunk: Buffer): Promise<void> {
    if (this.at + chunk.length > this.device.sizeBytes) {
      throw new HoldfastError('OUT_OF_RANGE', {
        operation: 'writable',
        offsetBytes: this.at,
        lengthBytes: chunk.length,
        detail: `the volume has ${this.device.sizeBytes} bytes`,
      });
    }
    for (let from = 0; from < chunk.length;) {
      await this.until(UNDER_WAY - 1);
      const room = MAX_IO_BYTES - (this.at % MAX_IO_BYTES);
      const step = Math.min(room, chunk.length - from);
      this.buffer ??= new Uint8Array(room);
      this.buffer.set(chunk.subarray(from, from + step), this.bufferedBytes);
      this.bufferedBytes += step;
      this.at += step;
      from += step;
      if (step === room) this.writeBuffered();
    }
  }

  /** The buffer is the write's own from now on. */
  private writeBuffered(): void {
    if (this.buffer === null) return;
    const bytes = this.buffer.subarray(0, this.bufferedBytes);
    const offsetBytes = this.at - this.bufferedBytes;
    this.buffer = null;
    this.bufferedBytes = 0;
    this.underWay++;
    const settled = (error: unknown): void => {
      this.underWay--;
      if (error !== null) this.failure ??= asHoldfastError(error);
      this.waiting?.();
    };
    this.device.write(offsetBytes, bytes, { signal: this.abort.signal }).then(() => settled(null), settled);
  }

  /** Until at most so many writes are under way. @throws the first error of a write */
  private async until(most: number): Promise<void> {
    while (this.underWay > most && this.failure === null) {
      await new Promise<void>((resolve) => (this.waiting = resolve));
    }
    this.waiting = null;
    if (this.failure !== null) throw this.failure;
  }
}
