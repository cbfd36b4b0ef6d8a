/**
 * The payload of AUTH: a client's token. Pure.
 *
 * Guarantees: those of `handshake.ts`; no error repeats a token.
 */
import { ByteReader, ByteWriter } from './codec.ts';
import { MESSAGES } from './messages.ts';

/** Bit of the features in HELLO's reply: nothing is answered before AUTH. */
export const WANTS_AUTH = 1n;
export const MAX_TOKEN_BYTES = 255;

/** @throws RangeError for a longer token */
export function encodeAuth(token: string): Uint8Array {
  if (Buffer.byteLength(token) > MAX_TOKEN_BYTES) throw new RangeError('a token of more than 255 bytes');
  return new ByteWriter(MESSAGES.AUTH.request[1]).string(token, MAX_TOKEN_BYTES).finish();
}

/** @throws HoldfastError BAD_FRAME */
export function decodeAuth(payload: Uint8Array | null): string {
  const r = new ByteReader(payload ?? new Uint8Array(0), 'AUTH');
  const token = r.string(MAX_TOKEN_BYTES);
  r.end();
  return token;
}
