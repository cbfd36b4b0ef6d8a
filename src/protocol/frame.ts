/**
 * Frames: a header of 64 bytes and a payload. Pure: bytes in, frames out, no sockets.
 *
 * Guarantees: any fragmentation of a stream gives the same frames; a header is checked in full (magic, version, CRC,
 * reserved fields, type, length against the table) before anything is allocated for its payload; after the first
 * malformed frame nothing more is delivered; each payload byte is copied at most once. All numbers are little-endian.
 */
import { copyBytes } from '../base/copy.ts';
import { crc32 } from '../base/checksum.ts';
import { HoldfastError } from '../base/errors.ts';
import { headerCrc } from './header-crc.ts';
import { HEADER_VERSION, MAGIC, MAX_ERROR_BYTES, MESSAGE_BY_NUMBER, messageName, REPLY_BIT } from './messages.ts';

export const HEADER_BYTES = 64;

// Where the fields lie in a header.
const AT_LENGTH = 0;
const AT_MAGIC = 4;
const AT_VERSION = 6;
const AT_TYPE = 7;
const AT_FLAGS = 8;
const AT_STATUS = 10;
const AT_DEADLINE = 12;
const AT_REQUEST = 16;
const AT_EPOCH = 24;
const AT_OFFSET = 32;
const AT_COUNT = 40;
const AT_RESERVED = 44;
const AT_PAYLOAD_CRC = 56;
const AT_HEADER_CRC = 60;

/** What a header says. Fields that are left out are 0. */
export interface HeaderFields {
  /** Number of the message; a reply's with REPLY_BIT. */
  type: number;
  /** Bytes that follow the header. */
  payloadBytes: number;
  /** 0 in requests; the error's status in replies. */
  status?: number;
  /** Milliseconds that the sender waits; 0: no deadline. */
  deadlineMs?: number;
  requestId: number;
  epoch?: number;
  /** Bytes. */
  offset?: number;
  /** Bytes that the operation covers. */
  count?: number;
  /** CRC-32 of the payload; 0 without one. */
  payloadCrc?: number;
}

/** A received header. One object per decoder, overwritten by the next frame: copy what must last. */
export interface FrameHeader {
  /** Number of the message, without REPLY_BIT. */
  type: number;
  status: number;
  deadlineMs: number;
  requestId: number;
  epoch: number;
  offset: number;
  count: number;
  payloadBytes: number;
  payloadCrc: number;
  /** The sink's `onHeader` sets it to false to verify `payloadCrc` itself. */
  verify: boolean;
}

/** Writes a header of HEADER_BYTES at `at`. The values must fit their fields; allocates nothing. */
export function encodeHeader(into: Uint8Array, at: number, fields: HeaderFields): void {
  put32(into, at + AT_LENGTH, HEADER_BYTES + fields.payloadBytes);
  put16(into, at + AT_MAGIC, MAGIC);
  into[at + AT_VERSION] = HEADER_VERSION;
  into[at + AT_TYPE] = fields.type;
  put16(into, at + AT_FLAGS, 0);
  put16(into, at + AT_STATUS, fields.status ?? 0);
  put32(into, at + AT_DEADLINE, fields.deadlineMs ?? 0);
  put64(into, at + AT_REQUEST, fields.requestId);
  put64(into, at + AT_EPOCH, fields.epoch ?? 0);
  put64(into, at + AT_OFFSET, fields.offset ?? 0);
  put32(into, at + AT_COUNT, fields.count ?? 0);
  put32(into, at + AT_RESERVED, 0);
  put32(into, at + AT_RESERVED + 4, 0);
  put32(into, at + AT_RESERVED + 8, 0);
  put32(into, at + AT_PAYLOAD_CRC, fields.payloadCrc ?? 0);
  put32(into, at + AT_HEADER_CRC, headerCrc(into, at));
}

/** What `onHeader` answers when there is no room for the payload now. */
export const WAIT: unique symbol = Symbol('wait');

export interface FrameSink {
  /**
   * Called for a frame with a payload when its header is verified and the first byte of the payload is there.
   * @returns where the payload goes, exactly `payloadBytes` long; null: the decoder allocates; WAIT: no room now, ask
   * again at the next push
   */
  onHeader(header: FrameHeader): Uint8Array | typeof WAIT | null;
  /** A whole frame. `payload` is null if it has none, else what `onHeader` returned or the sink's own from now on. */
  onFrame(header: FrameHeader, payload: Uint8Array | null): void;
  /** The stream is malformed; the decoder swallows whatever comes now. BAD_FRAME, TOO_LARGE or WRONG_VERSION. */
  onMalformed(error: HoldfastError): void;
}

export class FrameDecoder {
  private readonly sink: FrameSink;
  private readonly replies: boolean;
  private readonly header: FrameHeader = {
    type: 0,
    status: 0,
    deadlineMs: 0,
    requestId: 0,
    epoch: 0,
    offset: 0,
    count: 0,
    payloadBytes: 0,
    payloadCrc: 0,
    verify: true,
  };
  /** A header that came in pieces. */
  private readonly held = new Uint8Array(HEADER_BYTES);
  private heldBytes = 0;
  /** The header of the current frame is parsed, its payload is not whole. */
  private inPayload = false;
  private payload: Uint8Array | null = null;
  private payloadAt = 0;
  private paused = false;
  private dead = false;

  /** `server` decodes requests, `client` replies. */
  constructor(sink: FrameSink, role: 'server' | 'client') {
    this.sink = sink;
    this.replies = role === 'client';
  }

  /** Bytes of an unfinished frame are held. */
  get midFrame(): boolean {
    return this.heldBytes > 0 || this.inPayload;
  }

  /** Nothing more is delivered: after a malformed frame or `close`. */
  get closed(): boolean {
    return this.dead;
  }

  /** To be called by the sink within a callback: nothing more is delivered, for good. */
  close(): void {
    this.dead = true;
    this.payload = null;
  }

  /** To be called by the sink within `onFrame`: `push` returns after this frame. The next push goes on. */
  pause(): void {
    this.paused = true;
  }

  /**
   * Takes the bytes of `chunk` from `from` on. They are not referred to afterwards.
   * @returns index of the first byte that was not consumed: `chunk.length`, or less if the sink said WAIT or paused;
   * then the caller keeps the rest and pushes it again
   */
  push(chunk: Uint8Array, from = 0): number {
    const end = chunk.length;
    let at = from;
    this.paused = false;
    while (at < end && !this.dead && !this.paused) {
      if (!this.inPayload) {
        if (this.heldBytes === 0 && end - at >= HEADER_BYTES) {
          this.inPayload = this.parse(chunk, at);
          at += HEADER_BYTES;
        } else {
          const step = Math.min(HEADER_BYTES - this.heldBytes, end - at);
          for (let i = 0; i < step; i++) this.held[this.heldBytes + i] = chunk[at + i]!;
          this.heldBytes += step;
          at += step;
          if (this.heldBytes < HEADER_BYTES) continue;
          this.heldBytes = 0;
          this.inPayload = this.parse(this.held, 0);
        }
        if (this.inPayload && this.header.payloadBytes === 0) {
          this.inPayload = false;
          this.sink.onFrame(this.header, null);
        }
        continue;
      }
      if (this.payload === null) {
        const destination = this.sink.onHeader(this.header);
        if (destination === WAIT) return at;
        if (this.dead) break;
        this.payload = destination ?? new Uint8Array(this.header.payloadBytes);
        if (this.payload.length !== this.header.payloadBytes) throw new RangeError('a destination of another length');
        this.payloadAt = 0;
      }
      const step = Math.min(this.payload.length - this.payloadAt, end - at);
      copyBytes(this.payload, this.payloadAt, at === 0 && step === end ? chunk : chunk.subarray(at, at + step));
      this.payloadAt += step;
      at += step;
      if (this.payloadAt === this.payload.length) this.finish(this.payload);
    }
    return this.dead ? end : at;
  }

  private finish(payload: Uint8Array): void {
    this.payload = null;
    this.inPayload = false;
    if (this.header.verify && crc32(payload) !== this.header.payloadCrc) {
      this.fail('BAD_FRAME', 'the payload does not match its CRC');
      return;
    }
    this.sink.onFrame(this.header, payload);
  }

  /** Checks and takes over a header. @returns false if it is malformed */
  private parse(bytes: Uint8Array, at: number): boolean {
    if (get16(bytes, at + AT_MAGIC) !== MAGIC) return this.fail('BAD_FRAME', strange(bytes, at));
    const version = bytes[at + AT_VERSION]!;
    if (version !== HEADER_VERSION) {
      return this.fail('WRONG_VERSION', `frames of version ${version}, this side speaks ${HEADER_VERSION}`);
    }
    if (get32(bytes, at + AT_HEADER_CRC) !== headerCrc(bytes, at)) {
      return this.fail('BAD_FRAME', 'the header does not match its CRC');
    }
    const h = this.header;
    const type = bytes[at + AT_TYPE]!;
    h.type = type & ~REPLY_BIT;
    h.status = get16(bytes, at + AT_STATUS);
    h.deadlineMs = get32(bytes, at + AT_DEADLINE);
    h.requestId = get64(bytes, at + AT_REQUEST);
    h.epoch = get64(bytes, at + AT_EPOCH);
    h.offset = get64(bytes, at + AT_OFFSET);
    h.count = get32(bytes, at + AT_COUNT);
    h.payloadBytes = get32(bytes, at + AT_LENGTH) - HEADER_BYTES;
    h.payloadCrc = get32(bytes, at + AT_PAYLOAD_CRC);
    h.verify = true;
    const message = MESSAGE_BY_NUMBER[h.type];
    if (message === undefined || (type & REPLY_BIT) !== (this.replies ? REPLY_BIT : 0)) {
      return this.fail('BAD_FRAME', `unknown message type ${type}`);
    }
    if (!this.replies && (message.unsolicited || h.status !== 0)) {
      return this.fail(
        'BAD_FRAME',
        message.unsolicited ? `${message.name} is the server's` : 'a request with a status',
      );
    }
    const reserved =
      get16(bytes, at + AT_FLAGS) |
      get32(bytes, at + AT_RESERVED) |
      get32(bytes, at + AT_RESERVED + 4) |
      get32(bytes, at + AT_RESERVED + 8);
    if (reserved !== 0) return this.fail('BAD_FRAME', 'reserved bits are set');
    if (h.requestId < 0 || h.epoch < 0 || h.offset < 0) return this.fail('BAD_FRAME', 'a number above 2^53 - 1');
    return this.checkLength(h);
  }

  private checkLength(h: FrameHeader): boolean {
    const message = MESSAGE_BY_NUMBER[h.type]!;
    if (h.payloadBytes < 0) return this.fail('BAD_FRAME', 'a length below that of the header');
    const failed = h.status !== 0;
    const least = failed ? 0 : this.replies ? message.reply[0] : message.request[0];
    const most = failed ? MAX_ERROR_BYTES : this.replies ? message.reply[1] : message.request[1];
    const what = `${messageName(h.type)} with a payload of ${h.payloadBytes} bytes`;
    if (h.payloadBytes > most) return this.fail('TOO_LARGE', `${what}, at most ${most}`);
    if (h.payloadBytes < least) return this.fail('BAD_FRAME', `${what}, at least ${least}`);
    const counted = !failed && message.counted === (this.replies ? 'reply' : 'request');
    if (counted && h.payloadBytes !== h.count) return this.fail('BAD_FRAME', `${what} and a count of ${h.count}`);
    if (h.payloadBytes === 0 && h.payloadCrc !== 0) return this.fail('BAD_FRAME', 'a payload CRC without a payload');
    return true;
  }

  private fail(code: 'BAD_FRAME' | 'TOO_LARGE' | 'WRONG_VERSION', detail: string): false {
    this.close();
    this.inPayload = false;
    this.sink.onMalformed(new HoldfastError(code, { operation: 'decode frame', detail }));
    return false;
  }
}

/** The first bytes of TLS: a record of type 22, version 3.x. */
function strange(bytes: Uint8Array, at: number): string {
  const tls = bytes[at] === 0x16 && bytes[at + 1] === 3;
  return tls ? 'a TLS handshake on a port without TLS' : 'this is not the Holdfast protocol';
}

function put16(into: Uint8Array, at: number, value: number): void {
  into[at] = value;
  into[at + 1] = value >>> 8;
}

function put32(into: Uint8Array, at: number, value: number): void {
  into[at] = value;
  into[at + 1] = value >>> 8;
  into[at + 2] = value >>> 16;
  into[at + 3] = value >>> 24;
}

function put64(into: Uint8Array, at: number, value: number): void {
  put32(into, at, value >>> 0);
  put32(into, at + 4, Math.floor(value / 0x1_0000_0000));
}

function get16(bytes: Uint8Array, at: number): number {
  return bytes[at]! | (bytes[at + 1]! << 8);
}

function get32(bytes: Uint8Array, at: number): number {
  return (bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24)) >>> 0;
}

/** -1 for a number above 2^53 - 1. */
function get64(bytes: Uint8Array, at: number): number {
  const high = get32(bytes, at + 4);
  return high > 0x1f_ffff ? -1 : high * 0x1_0000_0000 + get32(bytes, at);
}
