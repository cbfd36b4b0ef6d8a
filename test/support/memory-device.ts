/**
 * A volume in memory: the twin that every other BlockDevice is compared with, as plain as can be.
 *
 * Guarantees: `MemoryDisk` does each operation at once and as a whole; `MemoryDevice` gives the guarantees of
 * BlockDevice over it. A block is a hole until it is written, and again when it is zeroed as a whole.
 */
import type { BlockDevice, CallOptions, Extent, ExtentOptions } from '../../src/base/device.ts';
import { HoldfastError } from '../../src/base/errors.ts';
import { BLOCK_BYTES, MAX_IO_BYTES } from '../../src/base/units.ts';

export class MemoryDisk {
  readonly bytes: Uint8Array;
  private readonly written: Uint8Array;

  constructor(sizeBytes: number) {
    this.bytes = new Uint8Array(sizeBytes);
    this.written = new Uint8Array(Math.ceil(sizeBytes / BLOCK_BYTES));
  }

  read(offsetBytes: number, lengthBytes: number): Uint8Array {
    return this.bytes.slice(offsetBytes, offsetBytes + lengthBytes);
  }

  write(offsetBytes: number, bytes: Uint8Array): void {
    if (bytes.length === 0) return;
    this.bytes.set(bytes, offsetBytes);
    this.written.fill(1, Math.floor(offsetBytes / BLOCK_BYTES), Math.ceil((offsetBytes + bytes.length) / BLOCK_BYTES));
  }

  zero(offsetBytes: number, lengthBytes: number): void {
    this.bytes.fill(0, offsetBytes, offsetBytes + lengthBytes);
    const [first, end] = wholeBlocks(offsetBytes, lengthBytes);
    if (first < end) this.written.fill(0, first, end);
  }

  trim(offsetBytes: number, lengthBytes: number): void {
    const [first, end] = wholeBlocks(offsetBytes, lengthBytes);
    if (first < end) this.zero(first * BLOCK_BYTES, (end - first) * BLOCK_BYTES);
  }

  extents(offsetBytes: number, lengthBytes: number, limit: number): Extent[] {
    const extents: Extent[] = [];
    const end = offsetBytes + lengthBytes;
    for (let at = offsetBytes; at < end;) {
      const block = Math.floor(at / BLOCK_BYTES);
      const step = Math.min(end, (block + 1) * BLOCK_BYTES) - at;
      const kind = this.written[block] === 1 ? 'data' : 'hole';
      const last = extents.at(-1);
      if (last?.kind === kind) last.lengthBytes += step;
      else if (extents.length === limit) break;
      else extents.push({ offsetBytes: at, lengthBytes: step, kind });
      at += step;
    }
    return extents;
  }
}

function wholeBlocks(offsetBytes: number, lengthBytes: number): [first: number, end: number] {
  return [Math.ceil(offsetBytes / BLOCK_BYTES), Math.floor((offsetBytes + lengthBytes) / BLOCK_BYTES)];
}

export class MemoryDevice implements BlockDevice {
  readonly sizeBytes: number;
  readonly blockBytes: number = BLOCK_BYTES;
  readonly atomicBytes: number = MAX_IO_BYTES;
  readonly readOnly: boolean;
  readonly disk: MemoryDisk;
  private closed = false;

  constructor(sizeBytes: number, options: { readOnly?: boolean } = {}) {
    this.sizeBytes = sizeBytes;
    this.readOnly = options.readOnly ?? false;
    this.disk = new MemoryDisk(sizeBytes);
  }

  async read(offsetBytes: number, lengthBytes: number, options?: CallOptions): Promise<Uint8Array> {
    this.check('read', offsetBytes, lengthBytes, options);
    return this.disk.read(offsetBytes, lengthBytes);
  }

  async write(offsetBytes: number, bytes: Uint8Array, options?: CallOptions): Promise<void> {
    this.check('write', offsetBytes, bytes.length, options);
    this.disk.write(offsetBytes, bytes);
  }

  async flush(options?: CallOptions): Promise<void> {
    this.check('flush', 0, 0, options);
  }

  async zero(offsetBytes: number, lengthBytes: number, options?: CallOptions): Promise<void> {
    this.check('zero', offsetBytes, lengthBytes, options);
    this.disk.zero(offsetBytes, lengthBytes);
  }

  async trim(offsetBytes: number, lengthBytes: number, options?: CallOptions): Promise<void> {
    this.check('trim', offsetBytes, lengthBytes, options);
    this.disk.trim(offsetBytes, lengthBytes);
  }

  async extents(offsetBytes: number, lengthBytes: number, options?: ExtentOptions): Promise<Extent[]> {
    this.check('extents', offsetBytes, lengthBytes, options);
    return this.disk.extents(offsetBytes, lengthBytes, options?.limit ?? 4096);
  }

  async close(): Promise<void> {
    this.closed = true;
  }

  private check(operation: string, offsetBytes: number, lengthBytes: number, options?: CallOptions): void {
    const where = { operation, offsetBytes, lengthBytes };
    if (this.closed) throw new HoldfastError('CLOSED', where);
    const whole = Number.isSafeInteger(offsetBytes) && Number.isSafeInteger(lengthBytes);
    if (!whole || offsetBytes < 0 || lengthBytes < 0) throw new HoldfastError('INVALID_ARGUMENT', where);
    if (offsetBytes + lengthBytes > this.sizeBytes) throw new HoldfastError('OUT_OF_RANGE', where);
    if (this.readOnly && ['write', 'zero', 'trim'].includes(operation)) throw new HoldfastError('READ_ONLY', where);
    if (options?.signal?.aborted) throw new HoldfastError('ABORTED', where);
  }
}
