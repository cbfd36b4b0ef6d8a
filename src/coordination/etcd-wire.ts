/**
 * etcd's v3 API as its JSON gateway has it: keys and values in base64, 64-bit numbers as text, errors as gRPC codes.
 *
 * Guarantees: a reply that is not of the expected form is refused in words.
 */
import { type ErrorCode, HoldfastError } from '../base/errors.ts';
import type { Verdict } from './endpoints.ts';
import type { HttpReply } from './http-call.ts';

export interface KeyValue {
  key: string;
  value: string;
  /** Revision of the whole etcd at the key's last change; unlike a version it also changes when it is made again. */
  modRevision: string;
  /** '0': none. */
  lease: string;
}

/** Codes of gRPC that say more than that something failed. */
const INVALID_ARGUMENT = 3;
const PERMISSION_DENIED = 7;
const RESOURCE_EXHAUSTED = 8;
const FAILED_PRECONDITION = 9;
const UNAVAILABLE = 14;
const UNAUTHENTICATED = 16;

export const base64 = (text: string): string => Buffer.from(text).toString('base64');
const plain = (text: unknown): string => Buffer.from(typeof text === 'string' ? text : '', 'base64').toString();

/** All keys that begin with `prefix`: etcd wants the first key behind them. The last character must be ASCII. */
export function prefixRange(prefix: string): { key: string; range_end: string } {
  const end = prefix.slice(0, -1) + String.fromCharCode(prefix.charCodeAt(prefix.length - 1) + 1);
  return { key: base64(prefix), range_end: base64(end) };
}

/** Of a range reply, or of one within a transaction's. @throws HoldfastError BAD_FRAME */
export function keyValuesOf(range: unknown, operation: string): KeyValue[] {
  const kvs = objectOf(range, operation)['kvs'] ?? [];
  if (!Array.isArray(kvs)) throw badReply(operation, 'kvs is no list');
  return kvs.map((each): KeyValue => {
    const kv = objectOf(each, operation);
    const modRevision = kv['mod_revision'];
    if (typeof kv['key'] !== 'string' || typeof modRevision !== 'string')
      throw badReply(operation, 'no key or revision');
    const lease = typeof kv['lease'] === 'string' ? kv['lease'] : '0';
    return { key: plain(kv['key']), value: plain(kv['value']), modRevision, lease };
  });
}

/** What a transaction did: null if its comparisons held, else what its ranges found. @throws HoldfastError BAD_FRAME */
export function txnOf(reply: unknown, operation: string): KeyValue[] | null {
  const body = objectOf(reply, operation);
  objectOf(body['header'], operation);
  if (body['succeeded'] === true) return null;
  const responses = body['responses'] ?? [];
  if (!Array.isArray(responses)) throw badReply(operation, 'responses is no list');
  return responses.flatMap((each) => keyValuesOf(objectOf(each, operation)['response_range'], operation));
}

export function objectOf(value: unknown, operation: string): Record<string, unknown> {
  if (typeof value === 'object' && value !== null) return value as Record<string, unknown>;
  throw badReply(operation, 'an object is missing');
}

function badReply(operation: string, detail: string): HoldfastError {
  return new HoldfastError('BAD_FRAME', {
    operation,
    detail: `the reply: ${detail}`,
    remedy: 'look whether etcd 3.4 or later, with its JSON gateway, listens at that address',
  });
}

function errorOf({ body, text }: HttpReply): { code: number; message: string } {
  const { code, message, error } = (body ?? {}) as { code?: unknown; message?: unknown; error?: unknown };
  const words = typeof message === 'string' ? message : typeof error === 'string' ? error : text || 'no etcd error';
  return { code: typeof code === 'number' ? code : -1, message: words };
}

/** The token is not known, or was given before users or roles changed; the request was not executed. */
export function wantsNewToken(reply: HttpReply): boolean {
  if (reply.status === 200) return false;
  const { code, message } = errorOf(reply);
  return code === UNAUTHENTICATED || (code === INVALID_ARGUMENT && message.includes('auth: revision in header is old'));
}

export function judgeEtcd(reply: HttpReply): Verdict {
  if (reply.status === 200) return 'answer';
  const { code } = errorOf(reply);
  // No leader, a leader that changed, a request that timed out among the members: it may be in the log.
  const definite = [INVALID_ARGUMENT, PERMISSION_DENIED, RESOURCE_EXHAUSTED, FAILED_PRECONDITION, UNAUTHENTICATED];
  return code !== UNAVAILABLE && (definite.includes(code) || reply.status < 500) ? 'answer' : 'unknown';
}

/** etcd 3.4 that has a config file leaves its JSON gateway off, and then knows none of these paths. */
function isGatewayOff({ status, body }: HttpReply): boolean {
  return status === 404 && (body === null || typeof body !== 'object');
}

/** With users and --client-cert-auth both, etcd's gateway takes no certificate that could be meant to name a user. */
function isCommonNameRefused({ status, text }: HttpReply): boolean {
  return status === 400 && (text ?? '').startsWith('CommonName of client');
}

/** @throws HoldfastError ACCESS, NO_SPACE, IO_ERROR unless the reply is good */
export function refuseErrors(reply: HttpReply, operation: string): Record<string, unknown> {
  if (reply.status === 200) return objectOf(reply.body, operation);
  const { code, message } = errorOf(reply);
  const named = isCommonNameRefused(reply);
  const userless = message.includes('etcdserver: user name is');
  const denied = code === UNAUTHENTICATED || code === PERMISSION_DENIED || userless || named;
  const full = code === RESOURCE_EXHAUSTED && message.includes('space exceeded');
  const found: ErrorCode =
    denied || message.includes('authentication failed') ? 'ACCESS' : full ? 'NO_SPACE' : 'IO_ERROR';
  throw new HoldfastError(found, {
    operation,
    detail: `etcd: ${message} (HTTP ${reply.status})`,
    remedy: isGatewayOff(reply)
      ? 'start etcd with its JSON gateway: enable-grpc-gateway: true in its config file, or --enable-grpc-gateway'
      : named
        ? 'give HOLDFAST_ETCD_CERT a certificate whose subject has no CN: where etcd has users, its gateway takes no other'
        : found === 'ACCESS'
          ? "give the name and password of an etcd user whose role may read and write the keys under Holdfast's prefix"
          : found === 'NO_SPACE'
            ? 'compact and defragment etcd, then: etcdctl alarm disarm'
            : undefined,
  });
}
