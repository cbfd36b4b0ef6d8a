/** Writes and reads the bytes of key-value messages. Little-endian; every read is checked. Pure. */
import { HoldfastError } from '../base/errors.ts';
import type { Key } from './operations.ts';

export class Writer {
  private bytes: Buffer = Buffer.allocUnsafe(256);
  private at = 0;

  private room(bytes: number): number {
    const { at } = this;
    this.at += bytes;
    if (this.at > this.bytes.length) {
      const grown = Buffer.allocUnsafe(Math.max(this.at, 2 * this.bytes.length));
      this.bytes.copy(grown, 0, 0, at);
      this.bytes = grown;
    }
    return at;
  }

  u8(value: number): void {
    const at = this.room(1);
    this.bytes[at] = value;
  }
  u32(value: number): void {
    const at = this.room(4);
    this.bytes.writeUInt32LE(value, at);
  }
  /** A safe integer, or any other number. */
  number(value: number): void {
    const at = this.room(8);
    this.bytes.writeDoubleLE(value, at);
  }
  i64(value: bigint): void {
    const at = this.room(8);
    this.bytes.writeBigInt64LE(BigInt.asIntN(64, value), at);
  }
  key(key: Key): void {
    this.u32(key.length);
    const at = this.room(key.length);
    this.bytes.write(key, at, 'latin1');
  }
  blob(value: Uint8Array): void {
    this.u32(value.length);
    const at = this.room(value.length);
    this.bytes.set(value, at);
  }
  text(text: string): void {
    this.blob(Buffer.from(text, 'utf8'));
  }

  end(): Buffer {
    return this.bytes.subarray(0, this.at);
  }
}

export class Reader {
  private readonly bytes: Buffer;
  private at = 0;

  constructor(bytes: Uint8Array) {
    this.bytes = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  }

  private take(bytes: number): number {
    const { at } = this;
    if (at + bytes > this.bytes.length) throw malformed('it ends too early');
    this.at += bytes;
    return at;
  }

  u8(): number {
    return this.bytes[this.take(1)]!;
  }
  u32(): number {
    return this.bytes.readUInt32LE(this.take(4));
  }
  number(): number {
    return this.bytes.readDoubleLE(this.take(8));
  }
  i64(): bigint {
    return this.bytes.readBigInt64LE(this.take(8));
  }
  u64(): bigint {
    return this.bytes.readBigUInt64LE(this.take(8));
  }
  key(): Key {
    const length = this.u32();
    const at = this.take(length);
    return this.bytes.toString('latin1', at, at + length);
  }
  /** A copy. */
  blob(): Uint8Array {
    const length = this.u32();
    const at = this.take(length);
    return new Uint8Array(this.bytes.subarray(at, at + length));
  }
  text(): string {
    const length = this.u32();
    const at = this.take(length);
    return this.bytes.toString('utf8', at, at + length);
  }
  /** One of a list of names. */
  one<T extends string>(names: readonly T[]): T {
    const name = names[this.u8()];
    if (name === undefined) throw malformed('an unknown number');
    return name;
  }
  /** How many follow, each of at least so many bytes. */
  count(leastBytes: number): number {
    const count = this.u32();
    if (count * leastBytes > this.bytes.length - this.at) throw malformed('it says that more follows than does');
    return count;
  }
  end(): void {
    if (this.at !== this.bytes.length) throw malformed('bytes are left');
  }
}

function malformed(detail: string): HoldfastError {
  return new HoldfastError('BAD_FRAME', { operation: 'decode a key-value message', detail });
}
