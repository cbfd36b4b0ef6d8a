/**
 * Numbers in network byte order. Plain functions on byte arrays, because a DataView per chunk costs more than the
 * bytes; nothing here allocates except `concat` and the text functions.
 */
import { MAX_STRING_BYTES } from './constants.ts';

const TWO_32 = 0x1_0000_0000;

export function put16(into: Uint8Array, at: number, value: number): void {
  into[at] = value >>> 8;
  into[at + 1] = value;
}

export function put32(into: Uint8Array, at: number, value: number): void {
  into[at] = value >>> 24;
  into[at + 1] = value >>> 16;
  into[at + 2] = value >>> 8;
  into[at + 3] = value;
}

/** `value`: a whole number from 0 to 2^53 - 1. */
export function put64(into: Uint8Array, at: number, value: number): void {
  put32(into, at, Math.floor(value / TWO_32));
  put32(into, at + 4, value >>> 0);
}

export function get16(bytes: Uint8Array, at: number): number {
  return (bytes[at]! << 8) | bytes[at + 1]!;
}

export function get32(bytes: Uint8Array, at: number): number {
  return ((bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!) >>> 0;
}

/** Above 2^53 the value is rounded, and so still above every size that a volume can have. */
export function get64(bytes: Uint8Array, at: number): number {
  return get32(bytes, at) * TWO_32 + get32(bytes, at + 4);
}

export function concat(...parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

const ENCODER = new TextEncoder();
const DECODER = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** UTF-8, cut at a character where it is longer than `maxBytes`. */
export function encodeText(text: string, maxBytes = MAX_STRING_BYTES): Uint8Array {
  const bytes = ENCODER.encode(text);
  if (bytes.length <= maxBytes) return bytes;
  let end = maxBytes;
  while (end > 0 && (bytes[end]! & 0xc0) === 0x80) end--;
  return bytes.subarray(0, end);
}

/** @returns null where the bytes are no string of the protocol: not UTF-8, or with a NUL */
export function decodeText(bytes: Uint8Array): string | null {
  if (bytes.includes(0)) return null;
  try {
    return DECODER.decode(bytes);
  } catch {
    return null;
  }
}
