/**
 * Objects as JSON text, the payload of ADMIN. Pure.
 *
 * Guarantees: what decodes is an object; text that is none, or is no UTF-8, is INVALID_ARGUMENT; what is longer than a
 * control message may be is refused before it is sent.
 */
import { HoldfastError } from '../base/errors.ts';
import { MAX_CONTROL_BYTES } from './messages.ts';

/** @throws HoldfastError INVALID_ARGUMENT */
export function decodeJson(payload: Uint8Array | null): Record<string, unknown> {
  const wrong = (detail: string): HoldfastError =>
    new HoldfastError('INVALID_ARGUMENT', { operation: 'ADMIN', detail });
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(payload ?? new Uint8Array(0)));
  } catch {
    throw wrong('the payload is no JSON text');
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw wrong('the payload is no JSON object');
  return value as Record<string, unknown>;
}

/** @throws HoldfastError TOO_LARGE */
export function encodeJson(value: object): Uint8Array {
  const bytes = new TextEncoder().encode(JSON.stringify(value));
  if (bytes.length <= MAX_CONTROL_BYTES) return bytes;
  const detail = `${bytes.length} bytes of JSON, the limit is ${MAX_CONTROL_BYTES}`;
  throw new HoldfastError('TOO_LARGE', { operation: 'ADMIN', detail });
}
