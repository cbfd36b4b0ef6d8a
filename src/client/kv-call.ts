/** Key-value requests as calls of a connection. */
import { type KvRequest, encodeRequest } from '../kv/codec.ts';
import { MESSAGES } from '../protocol/messages.ts';
import { Call } from './call.ts';

export interface KvCallOptions {
  /** Point in time of performance.now(). */
  deadlineAtMs?: number | undefined;
}

/** At most so many bytes of a transaction, of a step and of a condition are no key and no value. */
const HEADER_BYTES = 64;

/**
 * A read that may be asked anywhere and again; a transaction that its session numbers, so that it is executed at most once.
 * What the values are made of must not change until it is answered.
 */
export function kvCall(request: KvRequest, { deadlineAtMs = Infinity }: KvCallOptions): Call {
  const nowhere = { offsetBytes: 0, lengthBytes: 0 };
  if (request.operation !== 'execute') {
    const source = encodeRequest(request);
    return new Call(MESSAGES.KV_READ.number, nowhere, { source, owned: true, deadlineAtMs });
  }
  const { transaction } = request;
  // The session and the number are those of the connection and the frame; only the floor cannot be told otherwise.
  const compose = (floor: number): Uint8Array =>
    encodeRequest({ operation: 'execute', transaction, id: { session: 0n, request: 0, floor, since: 0 } });
  const parts = [...transaction.steps, ...transaction.conditions];
  const weightBytes = parts.reduce((sum, part) => {
    return sum + HEADER_BYTES + part.key.length + ('value' in part ? part.value.length : 0);
  }, HEADER_BYTES);
  return new Call(MESSAGES.KV_EXECUTE.number, nowhere, { compose, deadlineAtMs, weightBytes });
}
