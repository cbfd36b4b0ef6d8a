/**
 * Replies of the transmission phase. The encoders of headers write into memory of the caller and allocate nothing; the
 * others, for what is rare, return bytes of their own. `Replies` chooses between the simple and the structured form.
 *
 * Guarantees: error numbers are those that the specification lists, each only where it may appear; a chunk that ends
 * its reply carries DONE.
 */
import type { HoldfastError } from '../base/errors.ts';
import { encodeText, put16, put32, put64 } from './big-endian.ts';
import {
  CHUNKS,
  COMMANDS,
  COMMAND_FLAGS,
  NBD_ERRORS,
  REPLY_FLAG_DONE,
  SIMPLE_REPLY_MAGIC,
  STRUCTURED_REPLY_MAGIC,
} from './constants.ts';

export const SIMPLE_REPLY_BYTES = 16;
/** Header of a chunk, before its payload. */
export const CHUNK_HEADER_BYTES = 20;
/** Header and offset, before the data. */
export const OFFSET_DATA_BYTES = CHUNK_HEADER_BYTES + 8;
export const OFFSET_HOLE_BYTES = CHUNK_HEADER_BYTES + 12;
/** The longest that `Replies.read` and `Replies.done` write. */
export const MAX_REPLY_HEADER_BYTES = OFFSET_DATA_BYTES;

/** What a reply repeats of its request. */
export interface Cookie {
  readonly cookieHigh: number;
  readonly cookieLow: number;
}

/** What an error's reply depends on. */
export interface Asked extends Cookie {
  readonly command: number;
  readonly flags: number;
}

/** Writes SIMPLE_REPLY_BYTES. The data of a READ follows if `error` is 0. */
export function encodeSimpleReply(into: Uint8Array, at: number, cookie: Cookie, error: number): void {
  put32(into, at, SIMPLE_REPLY_MAGIC);
  put32(into, at + 4, error);
  put32(into, at + 8, cookie.cookieHigh);
  put32(into, at + 12, cookie.cookieLow);
}

/** Writes CHUNK_HEADER_BYTES; `payloadBytes` follow. */
export function encodeChunkHeader(
  into: Uint8Array,
  at: number,
  cookie: Cookie,
  type: number,
  payloadBytes: number,
  done: boolean,
): void {
  put32(into, at, STRUCTURED_REPLY_MAGIC);
  put16(into, at + 4, done ? REPLY_FLAG_DONE : 0);
  put16(into, at + 6, type);
  put32(into, at + 8, cookie.cookieHigh);
  put32(into, at + 12, cookie.cookieLow);
  put32(into, at + 16, payloadBytes);
}

/** Writes OFFSET_DATA_BYTES; `dataBytes` (at least 1) follow. */
export function encodeOffsetData(
  into: Uint8Array,
  at: number,
  cookie: Cookie,
  offsetBytes: number,
  dataBytes: number,
  done: boolean,
): void {
  encodeChunkHeader(into, at, cookie, CHUNKS.OFFSET_DATA, 8 + dataBytes, done);
  put64(into, at + CHUNK_HEADER_BYTES, offsetBytes);
}

/** Writes OFFSET_HOLE_BYTES: `holeBytes` (at least 1) from `offsetBytes` on read as zeros. */
export function encodeOffsetHole(
  into: Uint8Array,
  at: number,
  cookie: Cookie,
  offsetBytes: number,
  holeBytes: number,
  done: boolean,
): void {
  encodeChunkHeader(into, at, cookie, CHUNKS.OFFSET_HOLE, 12, done);
  put64(into, at + CHUNK_HEADER_BYTES, offsetBytes);
  put32(into, at + CHUNK_HEADER_BYTES + 8, holeBytes);
}

/** A chunk ERROR, or ERROR_OFFSET if `offsetBytes` is given, that ends its reply. */
export function encodeErrorChunk(cookie: Cookie, error: number, text: string, offsetBytes?: number): Uint8Array {
  const message = encodeText(text);
  const payloadBytes = 6 + message.length + (offsetBytes === undefined ? 0 : 8);
  const bytes = new Uint8Array(CHUNK_HEADER_BYTES + payloadBytes);
  const type = offsetBytes === undefined ? CHUNKS.ERROR : CHUNKS.ERROR_OFFSET;
  encodeChunkHeader(bytes, 0, cookie, type, payloadBytes, true);
  put32(bytes, CHUNK_HEADER_BYTES, error);
  put16(bytes, CHUNK_HEADER_BYTES + 4, message.length);
  bytes.set(message, CHUNK_HEADER_BYTES + 6);
  if (offsetBytes !== undefined) put64(bytes, CHUNK_HEADER_BYTES + 6 + message.length, offsetBytes);
  return bytes;
}

/** The error number for a device's error, as an answer to that request. */
export function nbdErrorOf(error: HoldfastError, asked: Asked): number {
  const { command, flags } = asked;
  if (error.code === 'OUT_OF_RANGE' && (command === COMMANDS.WRITE || command === COMMANDS.WRITE_ZEROES)) {
    return NBD_ERRORS.ENOSPC;
  }
  const number = error.nbdError;
  // Both have a meaning of their own, which holds for these flags only.
  if (number === NBD_ERRORS.ENOTSUP && (flags & COMMAND_FLAGS.FAST_ZERO) === 0) return NBD_ERRORS.EINVAL;
  if (number === NBD_ERRORS.EOVERFLOW && (flags & COMMAND_FLAGS.DF) === 0) return NBD_ERRORS.EINVAL;
  return number;
}

/** Encodes the replies of one connection. */
export class Replies {
  readonly structured: boolean;

  constructor(structured: boolean) {
    this.structured = structured;
  }

  /**
   * Writes what comes before the `lengthBytes` bytes of data that were read, all of what was asked.
   * @returns number of bytes written, at most MAX_REPLY_HEADER_BYTES
   */
  read(into: Uint8Array, at: number, cookie: Cookie, offsetBytes: number, lengthBytes: number): number {
    if (this.structured) {
      encodeOffsetData(into, at, cookie, offsetBytes, lengthBytes, true);
      return OFFSET_DATA_BYTES;
    }
    encodeSimpleReply(into, at, cookie, 0);
    return SIMPLE_REPLY_BYTES;
  }

  /**
   * Writes the whole reply of a request without data that succeeded. A simple reply is allowed in both forms and is the
   * shorter.
   * @returns number of bytes written
   */
  done(into: Uint8Array, at: number, cookie: Cookie): number {
    encodeSimpleReply(into, at, cookie, 0);
    return SIMPLE_REPLY_BYTES;
  }

  /** The whole reply of a request that failed. `error`: one of NBD_ERRORS. */
  error(cookie: Cookie, error: number, text: string): Uint8Array {
    if (this.structured) return encodeErrorChunk(cookie, error, text);
    const bytes = new Uint8Array(SIMPLE_REPLY_BYTES);
    encodeSimpleReply(bytes, 0, cookie, error);
    return bytes;
  }

  /** The whole reply of a request that the device failed. */
  failed(asked: Asked, error: HoldfastError): Uint8Array {
    return this.error(asked, nbdErrorOf(error, asked), error.message);
  }
}
