/**
 * Reading and writing the fields of payloads. Pure.
 *
 * Guarantees: a reader never looks outside its bytes, whatever they say: BAD_FRAME instead; a writer never produces
 * more than its limit. Numbers are little-endian; strings are UTF-8 behind a u16 that counts their bytes.
 */
import { HoldfastError } from '../base/errors.ts';

const TEXT_ENCODER = new TextEncoder();
const TEXT_DECODER = new TextDecoder('utf-8', { fatal: true });

export class ByteWriter {
  private bytes = new Uint8Array(256);
  private view = new DataView(this.bytes.buffer);
  private used = 0;
  private readonly limitBytes: number;

  /** Writing more than `limitBytes` throws a RangeError: callers bound what they write. */
  constructor(limitBytes: number) {
    this.limitBytes = limitBytes;
  }

  get length(): number {
    return this.used;
  }

  /** Where the next bytes go. It may replace `bytes` and `view`: to be called before they are looked at. */
  private room(count: number): number {
    const at = this.used;
    if (at + count > this.limitBytes) throw new RangeError(`a payload above ${this.limitBytes} bytes`);
    if (at + count > this.bytes.length) {
      const larger = new Uint8Array(Math.max(at + count, 2 * this.bytes.length));
      larger.set(this.bytes);
      this.bytes = larger;
      this.view = new DataView(larger.buffer);
    }
    this.used += count;
    return at;
  }

  u8(value: number): this {
    const at = this.room(1);
    this.view.setUint8(at, value);
    return this;
  }

  u16(value: number): this {
    const at = this.room(2);
    this.view.setUint16(at, value, true);
    return this;
  }

  u32(value: number): this {
    const at = this.room(4);
    this.view.setUint32(at, value, true);
    return this;
  }

  u64(value: bigint): this {
    const at = this.room(8);
    this.view.setBigUint64(at, value, true);
    return this;
  }

  /** A whole number up to 2^53 - 1, as u64. */
  number(value: number): this {
    return this.u64(BigInt(value));
  }

  raw(bytes: Uint8Array): this {
    const at = this.room(bytes.length);
    this.bytes.set(bytes, at);
    return this;
  }

  /** A string, cut at a character where it has more than `maxBytes` bytes. */
  string(text: string, maxBytes: number): this {
    const encoded = TEXT_ENCODER.encode(text);
    let end = Math.min(encoded.length, maxBytes);
    if (end < encoded.length) while (end > 0 && (encoded[end]! & 0xc0) === 0x80) end--;
    return this.u16(end).raw(encoded.subarray(0, end));
  }

  /** What was written, as a copy. */
  finish(): Uint8Array {
    return this.bytes.slice(0, this.used);
  }
}

export class ByteReader {
  private readonly bytes: Uint8Array;
  private readonly view: DataView;
  private readonly what: string;
  private at = 0;

  /** `what` names the payload in errors. */
  constructor(bytes: Uint8Array, what: string) {
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.what = what;
  }

  /** @throws HoldfastError BAD_FRAME, always */
  fail(detail: string): never {
    throw new HoldfastError('BAD_FRAME', { operation: `decode ${this.what}`, detail });
  }

  get left(): number {
    return this.bytes.length - this.at;
  }

  private take(count: number): number {
    if (count > this.left) this.fail(`the payload ends after ${this.bytes.length} bytes, in the middle of a field`);
    const at = this.at;
    this.at += count;
    return at;
  }

  u8(): number {
    return this.view.getUint8(this.take(1));
  }

  u16(): number {
    return this.view.getUint16(this.take(2), true);
  }

  u32(): number {
    return this.view.getUint32(this.take(4), true);
  }

  u64(): bigint {
    return this.view.getBigUint64(this.take(8), true);
  }

  /** A u64 of at most 2^53 - 1. */
  number(): number {
    const value = this.u64();
    if (value > BigInt(Number.MAX_SAFE_INTEGER)) this.fail('a number above 2^53 - 1');
    return Number(value);
  }

  /** A copy. */
  raw(count: number): Uint8Array {
    const at = this.take(count);
    return this.bytes.slice(at, at + count);
  }

  boolean(): boolean {
    const value = this.u8();
    if (value > 1) this.fail(`${value} where 0 or 1 must be`);
    return value === 1;
  }

  string(maxBytes: number): string {
    const length = this.u16();
    if (length > maxBytes) this.fail(`a string of ${length} bytes, at most ${maxBytes}`);
    const bytes = this.raw(length);
    try {
      return TEXT_DECODER.decode(bytes);
    } catch {
      return this.fail('a string that is not UTF-8');
    }
  }

  /** The payload must end here. */
  end(): void {
    if (this.left > 0) this.fail(`${this.left} bytes too many`);
  }
}
