/** One key-value request of a connection: decoded, asked of the volume, its answer encoded. */
import { HoldfastError, asHoldfastError } from '../base/errors.ts';
import {
  type KvRequest,
  decodeRequest,
  encodeChanges,
  encodeFound,
  encodeInfo,
  encodeNumber,
  encodePage,
  encodeResult,
} from '../kv/codec.ts';
import type { KvDone, KvVolume, RequestId } from '../kv/operations.ts';
import { MAX_KV_BYTES } from '../protocol/messages.ts';

/** Changes in one answer. */
const MAX_CHANGES = 1024;
const MAX_WAIT_MS = 60_000;
const MAX_KEYS = 10_000;

/** Who asks, for what is executed at most once. */
export type Identify = (floor: number) => RequestId | null;

/**
 * @param mutation whether it came as one
 * @param done is called once, never before this returns
 * @throws HoldfastError BAD_FRAME, INVALID_ARGUMENT
 */
export function perform(
  kv: KvVolume,
  payload: Uint8Array,
  mutation: boolean,
  identify: Identify,
  done: (error: HoldfastError | null, reply: Uint8Array | null) => void,
): void {
  const request = decodeRequest(payload);
  if ((request.operation === 'execute') !== mutation) {
    throw new HoldfastError('BAD_FRAME', { operation: request.operation, detail: 'in a message of another kind' });
  }
  ask(kv, request, identify, (error, reply) => {
    if (error !== null || reply!.length <= MAX_KV_BYTES) return done(error, reply);
    const detail = `the answer has ${reply!.length} bytes, the limit is ${MAX_KV_BYTES}`;
    done(new HoldfastError('TOO_LARGE', { operation: request.operation, detail, remedy: 'ask for fewer keys' }), null);
  });
}

function ask(
  kv: KvVolume,
  request: KvRequest,
  identify: Identify,
  done: (error: HoldfastError | null, reply: Uint8Array | null) => void,
): void {
  const as =
    <T>(encode: (result: T, stale?: boolean) => Uint8Array): KvDone<T> =>
    (error, result, stale) => {
      if (error !== null) return done(error, null);
      let reply: Uint8Array;
      try {
        reply = encode(result!, stale);
      } catch (cause) {
        return done(asHoldfastError(cause), null);
      }
      done(null, reply);
    };
  switch (request.operation) {
    case 'get':
      bounded(request.keys.length, MAX_KEYS, 'keys');
      return kv.get(request.keys, as(encodeFound));
    case 'execute': {
      const { id, transaction } = request;
      return kv.execute(transaction, id === null ? null : identify(id.floor), as(encodeResult));
    }
    case 'scan':
      return kv.scan(request.scan, as(encodePage));
    case 'size':
      return kv.size(as(encodeNumber));
    case 'watch': {
      const { watch } = request;
      const limit = Math.min(watch.limit, MAX_CHANGES);
      return kv.watch({ ...watch, limit, waitMs: Math.min(watch.waitMs, MAX_WAIT_MS) }, as(encodeChanges));
    }
    case 'info': {
      const info = kv.info();
      return queueMicrotask(() => as(encodeInfo)(null, info));
    }
  }
}

function bounded(count: number, limit: number, what: string): void {
  if (count <= limit) return;
  throw new HoldfastError('TOO_LARGE', { operation: 'get', detail: `${count} ${what}, the limit is ${limit}` });
}
