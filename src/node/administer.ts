/** ADMIN on a connection: JSON in, JSON out. Guarantees: one of both callbacks, once, in a later turn. */
import { HoldfastError, asHoldfastError } from '../base/errors.ts';
import { decodeJson, encodeJson } from '../protocol/json.ts';
import type { ConnectionHost } from './connection-host.ts';

/** @throws HoldfastError UNSUPPORTED, INVALID_ARGUMENT */
export function administer(
  { admin }: ConnectionHost,
  payload: Uint8Array | null,
  answer: (reply: Uint8Array) => void,
  fail: (error: HoldfastError) => void,
): void {
  if (admin === undefined) {
    throw new HoldfastError('UNSUPPORTED', { operation: 'ADMIN', detail: 'this server is no node of a cluster' });
  }
  admin(decodeJson(payload))
    .then(encodeJson)
    .then(answer, (error: unknown) => fail(asHoldfastError(error, { operation: 'ADMIN' })));
}
