/**
 * Replies as bytes, RESP2 or RESP3, one after the other in a buffer that grows.
 *
 * Guarantees: what is taken is never written to again, and holds copies: nothing of a reply is needed afterwards.
 */
import { type AnyReply, Double, Failure, Members, NO_ARRAY, Pairs, Status, type Text } from './reply.ts';

export type RespProtocol = 2 | 3;

const SLAB_BYTES = 4 * 1024;
/** The sign, a length of at most ten digits, and two ends of lines. */
const BULK_EXTRA_BYTES = 1 + 10 + 4;
const NONE = Buffer.alloc(0);

/** Replies that are larger than a slab lie side by side in one of these, whosever they are. */
const SHARED_BYTES = 64 * 1024;
const MAX_SHARE_BYTES = 16 * 1024;
let shared: Buffer = NONE;
let sharedAt = 0;

function shareOf(bytes: number): Buffer {
  if (bytes > MAX_SHARE_BYTES) return Buffer.allocUnsafeSlow(bytes);
  if (sharedAt + bytes > shared.length) {
    shared = Buffer.allocUnsafeSlow(SHARED_BYTES);
    sharedAt = 0;
  }
  sharedAt += bytes;
  return shared.subarray(sharedAt - bytes, sharedAt);
}

export class ReplyWriter {
  private readonly slabBytes: number;
  private slab: Buffer = NONE;
  private start = 0;
  private at = 0;

  constructor(slabBytes: number = SLAB_BYTES) {
    this.slabBytes = slabBytes;
  }

  /** Bytes that were put and not taken. */
  get length(): number {
    return this.at - this.start;
  }

  /** @returns what was put since the last time */
  take(): Buffer {
    const taken = this.slab.subarray(this.start, this.at);
    this.start = this.at;
    // Who waits idly keeps little.
    if (this.slab.length > this.slabBytes) {
      this.slab = NONE;
      this.start = this.at = 0;
    }
    return taken;
  }

  raw(bytes: Uint8Array): void {
    this.reserve(bytes.length);
    this.slab.set(bytes, this.at);
    this.at += bytes.length;
  }

  put(reply: AnyReply, protocol: RespProtocol): void {
    const modern = protocol === 3;
    if (reply === null) this.line(modern ? '_\r\n' : '$-1\r\n');
    else if (reply === NO_ARRAY) this.line(modern ? '_\r\n' : '*-1\r\n');
    else if (reply instanceof Uint8Array) this.bulk(reply);
    else if (reply instanceof Status) this.line(`+${reply.text}\r\n`);
    else if (typeof reply === 'number' || typeof reply === 'bigint') this.line(`:${reply}\r\n`);
    else if (typeof reply === 'string') this.bulk(Buffer.from(reply));
    else if (reply instanceof Failure) this.line(`-${reply.text}\r\n`);
    else if (typeof reply === 'boolean') this.line(modern ? `#${reply ? 't' : 'f'}\r\n` : `:${reply ? 1 : 0}\r\n`);
    else if (Array.isArray(reply)) this.all('*', reply.length, reply, protocol);
    else if (reply instanceof Pairs) {
      this.all(modern ? '%' : '*', modern ? reply.flat.length / 2 : reply.flat.length, reply.flat, protocol);
    } else if (reply instanceof Members) this.all(modern ? '~' : '*', reply.members.length, reply.members, protocol);
    else if (reply instanceof Double) {
      const text = nameOfDouble(reply.value);
      if (modern) this.line(`,${text}\r\n`);
      else this.bulk(Buffer.from(text));
    } else if (modern) {
      const bytes = Buffer.from(`txt:${reply.text}`);
      this.line(`=${bytes.length}\r\n`);
      this.ended(bytes);
    } else this.bulk(Buffer.from((reply satisfies Text).text));
  }

  private all(sign: string, count: number, replies: readonly AnyReply[], protocol: RespProtocol): void {
    this.line(`${sign}${count}\r\n`);
    for (const reply of replies) this.put(reply, protocol);
  }

  private bulk(bytes: Uint8Array): void {
    // At once, so that a large value does not find the slab too small behind its own head.
    this.reserve(bytes.length + BULK_EXTRA_BYTES);
    this.line(`$${bytes.length}\r\n`);
    this.ended(bytes);
  }

  private ended(bytes: Uint8Array): void {
    this.reserve(bytes.length + 2);
    this.slab.set(bytes, this.at);
    this.at += bytes.length;
    this.slab[this.at++] = 0x0d;
    this.slab[this.at++] = 0x0a;
  }

  /** Code units are bytes. */
  private line(text: string): void {
    this.reserve(text.length);
    this.at += this.slab.write(text, this.at, 'latin1');
  }

  private reserve(bytes: number): void {
    if (this.at + bytes <= this.slab.length) return;
    const wanted = Math.max(this.slabBytes, this.length + bytes, this.length * 2);
    // What is no larger than a slab is kept by who waits idly, and must not keep a shared one.
    const grown = wanted > this.slabBytes ? shareOf(wanted) : Buffer.allocUnsafeSlow(wanted);
    this.slab.copy(grown, 0, this.start, this.at);
    this.at = this.length;
    this.start = 0;
    this.slab = grown;
  }
}

function nameOfDouble(value: number): string {
  if (Number.isNaN(value)) return 'nan';
  if (!Number.isFinite(value)) return value > 0 ? 'inf' : '-inf';
  return String(value);
}
