/**
 * The requests of the transmission phase: bytes in, validated requests out.
 *
 * Guarantees: any fragmentation of a stream gives the same requests; a request is validated in full before any room is
 * asked for its payload; the payload of a refused WRITE is skipped, so that the stream stays in step; each payload
 * byte is copied once, into memory that the sink gives; nothing is delivered after DISC or after bytes that are no
 * request. The order of the checks and their errors are those of nbdkit, except that an oversized request is answered
 * EOVERFLOW or EINVAL, as the specification wants, and never ENOMEM.
 */
import { copyBytes } from '../base/copy.ts';
import { get16, get32, get64 } from './big-endian.ts';
import {
  COMMANDS,
  COMMAND_FLAGS,
  MAX_PAYLOAD_BYTES,
  MAX_SKIPPED_PAYLOAD_BYTES,
  NBD_ERRORS,
  REQUEST_MAGIC,
} from './constants.ts';

export const REQUEST_BYTES = 28;

/** A request. One object per parser, overwritten by the next one: copy what must last. */
export interface NbdRequest {
  /** One of COMMANDS, unless the request is refused. */
  command: number;
  /** Bits of COMMAND_FLAGS. */
  flags: number;
  /** The client's name for the request, to be repeated in its reply: two unsigned 32-bit halves. */
  cookieHigh: number;
  cookieLow: number;
  offsetBytes: number;
  lengthBytes: number;
}

/** What the checks need to know of the export and of what was agreed. */
export interface Limits {
  readonly sizeBytes: number;
  readonly readOnly: boolean;
  readonly structuredReplies: boolean;
  /** At least one metadata context is selected. */
  readonly contexts: boolean;
}

/** Why a request is refused. `text` is for the person who reads the client's log. */
export interface Refusal {
  readonly error: number;
  readonly text: string;
}

/** What `onPayload` answers when there is no room now. */
export const WAIT: unique symbol = Symbol('wait');

export interface TransmissionSink {
  /**
   * The next bytes of a valid WRITE are there; `doneBytes` of its payload were delivered before.
   * @returns where they go: at least one byte, at most what is left of the payload (a sink with small buffers takes a
   * long write in parts); WAIT: no room now, ask again at the next push
   */
  onPayload(request: NbdRequest, doneBytes: number): Uint8Array | typeof WAIT;
  /** What `onPayload` gave is full. The write is complete when `doneBytes + part.length` is its length. */
  onPayloadPart(request: NbdRequest, doneBytes: number, part: Uint8Array): void;
  /** A whole valid request of any command but WRITE and DISC. */
  onRequest(request: NbdRequest): void;
  /** An invalid request, its payload skipped: it is to be answered with that error and has no other effect. */
  onRefused(request: NbdRequest, refusal: Refusal): void;
  /** DISC: the client goes once its requests are answered. */
  onDisconnect(): void;
  /** The bytes are no request, or too much would have to be skipped: the connection is to be closed. */
  onMalformed(reason: string): void;
}

const KNOWN_FLAGS =
  COMMAND_FLAGS.FUA | COMMAND_FLAGS.NO_HOLE | COMMAND_FLAGS.DF | COMMAND_FLAGS.REQ_ONE | COMMAND_FLAGS.FAST_ZERO;

const refusal = (error: number, text: string): Refusal => ({ error, text });

/** @returns null for a request that may be performed; allocates only for one that may not */
export function refusalOf(request: NbdRequest, limits: Limits): Refusal | null {
  const { command, flags, offsetBytes, lengthBytes } = request;
  const { READ, WRITE, FLUSH, TRIM, WRITE_ZEROES, BLOCK_STATUS } = COMMANDS;
  if (limits.readOnly && (command === WRITE || command === TRIM || command === WRITE_ZEROES)) {
    return refusal(NBD_ERRORS.EPERM, 'the export is read-only');
  }
  if (command > BLOCK_STATUS || command === COMMANDS.DISC) {
    return refusal(NBD_ERRORS.EINVAL, `unknown command ${command}`);
  }
  if (command === FLUSH) {
    if (offsetBytes !== 0 || lengthBytes !== 0) {
      return refusal(NBD_ERRORS.EINVAL, 'a flush has neither offset nor length');
    }
  } else if (lengthBytes === 0 || offsetBytes + lengthBytes > limits.sizeBytes) {
    const error = command === WRITE || command === WRITE_ZEROES ? NBD_ERRORS.ENOSPC : NBD_ERRORS.EINVAL;
    return refusal(error, lengthBytes === 0 ? 'a length of 0' : `past the end, which is at ${limits.sizeBytes}`);
  }
  // The usual request has no flag, or FUA.
  if ((flags & ~COMMAND_FLAGS.FUA) !== 0) {
    if ((flags & ~KNOWN_FLAGS) !== 0) return refusal(NBD_ERRORS.EINVAL, `unknown flags 0x${flags.toString(16)}`);
    if ((flags & COMMAND_FLAGS.NO_HOLE) !== 0 && command !== WRITE_ZEROES) {
      return refusal(NBD_ERRORS.EINVAL, 'NO_HOLE belongs to WRITE_ZEROES');
    }
    if ((flags & COMMAND_FLAGS.FAST_ZERO) !== 0 && command !== WRITE_ZEROES) {
      return refusal(NBD_ERRORS.EINVAL, 'FAST_ZERO belongs to WRITE_ZEROES');
    }
    if ((flags & COMMAND_FLAGS.DF) !== 0 && (command !== READ || !limits.structuredReplies)) {
      return refusal(NBD_ERRORS.EINVAL, 'DF belongs to READ with structured replies');
    }
    if ((flags & COMMAND_FLAGS.REQ_ONE) !== 0 && command !== BLOCK_STATUS) {
      return refusal(NBD_ERRORS.EINVAL, 'REQ_ONE belongs to BLOCK_STATUS');
    }
  }
  if ((command === READ || command === WRITE) && lengthBytes > MAX_PAYLOAD_BYTES) {
    const error = command === READ && limits.structuredReplies ? NBD_ERRORS.EOVERFLOW : NBD_ERRORS.EINVAL;
    return refusal(error, `at most ${MAX_PAYLOAD_BYTES} bytes at a time`);
  }
  if (command === BLOCK_STATUS && !(limits.structuredReplies && limits.contexts)) {
    return refusal(NBD_ERRORS.EINVAL, 'no metadata context was negotiated');
  }
  return null;
}

const SHUTTING_DOWN = refusal(NBD_ERRORS.ESHUTDOWN, 'the server is shutting down');

export class RequestParser {
  private readonly sink: TransmissionSink;
  private readonly limits: Limits;
  private readonly request: NbdRequest = {
    command: 0,
    flags: 0,
    cookieHigh: 0,
    cookieLow: 0,
    offsetBytes: 0,
    lengthBytes: 0,
  };
  /** A header that came in pieces. */
  private readonly held = new Uint8Array(REQUEST_BYTES);
  private heldBytes = 0;
  /** Bytes of the current WRITE's payload that are still to come. */
  private restBytes = 0;
  /** The current WRITE is refused: its payload is skipped. */
  private refused: Refusal | null = null;
  private part: Uint8Array | null = null;
  private partAt = 0;
  private paused = false;
  private shuttingDown = false;
  private dead = false;

  constructor(sink: TransmissionSink, limits: Limits) {
    this.sink = sink;
    this.limits = limits;
  }

  /** Bytes of an unfinished request are held. */
  get midRequest(): boolean {
    return !this.dead && (this.heldBytes > 0 || this.restBytes > 0);
  }

  /** To be called by the sink within a callback: nothing more is delivered, for good. */
  close(): void {
    this.dead = true;
    this.part = null;
  }

  /** Requests that begin from now on are refused with ESHUTDOWN. */
  shutDown(): void {
    this.shuttingDown = true;
  }

  /** To be called by the sink within a callback: `push` returns after it. The next push goes on. */
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
      if (this.restBytes > 0) {
        const next = this.refused === null ? this.fill(chunk, at) : this.skip(end, at);
        if (next === at) return at;
        at = next;
      } else if (this.heldBytes === 0 && end - at >= REQUEST_BYTES) {
        this.parse(chunk, at);
        at += REQUEST_BYTES;
      } else {
        const step = Math.min(REQUEST_BYTES - this.heldBytes, end - at);
        for (let i = 0; i < step; i++) this.held[this.heldBytes + i] = chunk[at + i]!;
        this.heldBytes += step;
        at += step;
        if (this.heldBytes < REQUEST_BYTES) continue;
        this.heldBytes = 0;
        this.parse(this.held, 0);
      }
    }
    return this.dead ? end : at;
  }

  /** @returns `at` itself if the sink has no room */
  private fill(chunk: Uint8Array, at: number): number {
    const doneBytes = this.request.lengthBytes - this.restBytes;
    if (this.part === null) {
      const part = this.sink.onPayload(this.request, doneBytes);
      if (part === WAIT) return at;
      if (this.dead) return chunk.length;
      if (part.length === 0 || part.length > this.restBytes) throw new RangeError('a destination of another length');
      this.part = part;
      this.partAt = 0;
    }
    const part = this.part;
    const step = Math.min(part.length - this.partAt, chunk.length - at);
    copyBytes(part, this.partAt, at === 0 && step === chunk.length ? chunk : chunk.subarray(at, at + step));
    this.partAt += step;
    if (this.partAt === part.length) {
      this.part = null;
      this.restBytes -= part.length;
      this.sink.onPayloadPart(this.request, doneBytes, part);
    }
    return at + step;
  }

  private skip(end: number, at: number): number {
    const step = Math.min(this.restBytes, end - at);
    this.restBytes -= step;
    if (this.restBytes === 0) {
      const refused = this.refused!;
      this.refused = null;
      this.sink.onRefused(this.request, refused);
    }
    return at + step;
  }

  private parse(bytes: Uint8Array, at: number): void {
    if (get32(bytes, at) !== REQUEST_MAGIC) return this.malformed('these bytes are not a request');
    const r = this.request;
    r.flags = get16(bytes, at + 4);
    r.command = get16(bytes, at + 6);
    r.cookieHigh = get32(bytes, at + 8);
    r.cookieLow = get32(bytes, at + 12);
    r.offsetBytes = get64(bytes, at + 16);
    r.lengthBytes = get32(bytes, at + 24);
    if (r.command === COMMANDS.DISC) {
      this.close();
      this.sink.onDisconnect();
      return;
    }
    const refused = this.shuttingDown ? SHUTTING_DOWN : refusalOf(r, this.limits);
    if (r.command === COMMANDS.WRITE && r.lengthBytes > 0) {
      if (refused !== null && r.lengthBytes > MAX_SKIPPED_PAYLOAD_BYTES) {
        return this.malformed(`a payload of ${r.lengthBytes} bytes`);
      }
      this.refused = refused;
      this.restBytes = r.lengthBytes;
      return;
    }
    if (refused === null) this.sink.onRequest(r);
    else this.sink.onRefused(r, refused);
  }

  private malformed(reason: string): void {
    this.close();
    this.sink.onMalformed(reason);
  }
}
