/** What the key-value client takes and gives. Bytes of a caller may be text, which is taken as UTF-8. */
import type { CallOptions } from '../base/device.ts';
import { HoldfastError } from '../base/errors.ts';
import type { Condition, Entry, Expiry, Key, StepResult } from '../kv/operations.ts';
import type { ConnectOptions } from './options.ts';

export type Bytes = string | Uint8Array;

export interface KvConnectOptions extends Omit<ConnectOptions, 'reads'> {
  /**
   * Who answers GETs and scans: the primary; any replica that is in sync, which spreads the load; or the servers that the
   * address names and no other. All of them are linearizable. With `listed`, `connectKv` does not wait for the volume.
   * Default `primary`.
   */
  reads?: 'primary' | 'any' | 'listed' | undefined;
  /**
   * Whether what nobody vouches for is given out, with `stale: true`; there is such an answer only from a node that was
   * started with `--when-isolated available`. Else it is asked again until `retryMs` is over. Default false.
   */
  allowStale?: boolean | undefined;
}

/** A key that is there. */
export interface KvEntry {
  key: Buffer;
  /** Empty where only keys were asked for. */
  value: Buffer;
  /** Of the transaction that wrote it; grows from one to the next. */
  version: number;
  /** Wall clock of the primary; null: never. */
  expiresAtMs: number | null;
  /** Nobody vouches for it: it may be old. Only with `allowStale`. */
  stale: boolean;
}

/** What must be so of the key, else nothing is done. `0` as version: it is absent. */
export type KvIf = 'absent' | 'present' | { version: number } | { value: Bytes };

/** When a key goes away by itself. Without any: never; `keep`: as it was. */
export interface KvExpiry {
  ttlMs?: number | undefined;
  /** Wall clock of the primary. */
  expiresAtMs?: number | undefined;
  keepTtl?: boolean | undefined;
}

export interface PutOptions extends CallOptions, KvExpiry {
  if?: KvIf | undefined;
  /** Give the value back that was there. Default false. */
  previous?: boolean | undefined;
}

export interface DeleteOptions extends CallOptions {
  if?: KvIf | undefined;
  previous?: boolean | undefined;
}

/** Of one mutation of one key. */
export interface KvChanged {
  /** False: what `if` says was not so, or there was nothing to delete. */
  applied: boolean;
  /** Of the key as it is now, where it was changed; else the newest of the volume. */
  version: number;
  /** Whether the key was there before. False where `if` was not so: nothing is known then. */
  existed: boolean;
  /** Null: absent before, or not asked for. */
  previous: Buffer | null;
}

export interface ScanOptions extends CallOptions {
  prefix?: Bytes | undefined;
  /** The first key at or after it. */
  from?: Bytes | undefined;
  /** Keys before it. */
  end?: Bytes | undefined;
  /** At most so many. Default: all. */
  limit?: number | undefined;
  keysOnly?: boolean | undefined;
}

export interface KvPage {
  /** One state of the volume, in the order of the keys' bytes. */
  entries: KvEntry[];
  /** `from` of the next page; null: there is none. */
  next: Buffer | null;
}

export interface WatchOptions {
  prefix?: Bytes | undefined;
  /** Changes of versions above it. Default: from now on. */
  after?: number | undefined;
  signal?: AbortSignal | undefined;
}

export interface KvChange {
  type: 'put' | 'delete';
  key: Buffer;
  /** Null: it was deleted, or has expired. */
  value: Buffer | null;
  version: number;
  expiresAtMs: number | null;
}

/** Of one step of a transaction. */
export interface KvStepResult {
  /** Whether the step changed something; of `get`: whether the key is there. */
  done: boolean;
  /** Whether the key was there before the step. */
  existed: boolean;
  /** `get`: the value; `add`: the new one; `put` and `delete` with `previous`: the old one. Else null. */
  value: Buffer | null;
  version: number;
  expiresAtMs: number | null;
}

export interface KvCommitted {
  /** False: a condition was not so; nothing was done and there are no results. */
  applied: boolean;
  version: number;
  /** In the order of the steps. */
  results: KvStepResult[];
}

export const keyOf = (key: Bytes): Key => bytesOf(key).toString('latin1');

/** The caller's own bytes, not a copy. */
export function bytesOf(bytes: Bytes): Buffer {
  if (typeof bytes === 'string') return Buffer.from(bytes, 'utf8');
  if (bytes instanceof Uint8Array) return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  throw refusal(`${typeof bytes} where bytes or text are expected`);
}

export function refusal(detail: string): HoldfastError {
  return new HoldfastError('INVALID_ARGUMENT', { operation: 'kv', detail });
}

/** @throws HoldfastError INVALID_ARGUMENT */
export function expiryOf({ ttlMs, expiresAtMs, keepTtl }: KvExpiry): Expiry {
  const given = [ttlMs !== undefined, expiresAtMs !== undefined, keepTtl === true].filter(Boolean).length;
  if (given > 1) throw refusal('more than one of ttlMs, expiresAtMs and keepTtl');
  if (keepTtl === true) return 'keep';
  const ms = ttlMs ?? expiresAtMs;
  if (ms === undefined) return 'none';
  if (!Number.isSafeInteger(ms) || ms < 1) throw refusal(`${ms} ms: whole milliseconds from 1 are expected`);
  return ttlMs === undefined ? { atMs: ms } : { afterMs: ms };
}

export function conditionOf(key: Bytes, condition: KvIf): Condition {
  const name = keyOf(key);
  if (condition === 'absent' || condition === 'present') return { key: name, is: condition };
  if ('version' in condition) return { key: name, is: 'version', version: condition.version };
  return { key: name, is: 'value', value: bytesOf(condition.value) };
}

export function entryOf({ key, value, version, expiresAtMs }: Entry, stale: boolean): KvEntry {
  return { key: Buffer.from(key, 'latin1'), value: bytesOf(value ?? ''), version, expiresAtMs, stale };
}

export function changeOf({ key, value, version, expiresAtMs }: Entry): KvChange {
  const type = value === null ? 'delete' : 'put';
  return {
    type,
    key: Buffer.from(key, 'latin1'),
    value: value === null ? null : bytesOf(value),
    version,
    expiresAtMs,
  };
}

/** @throws HoldfastError INVALID_ARGUMENT where a step says that it could not be done */
export function stepResultOf({ done, existed, value, version, expiresAtMs, problem }: StepResult): KvStepResult {
  if (problem !== undefined) {
    const detail =
      problem === 'OVERFLOW' ? 'the sum has more than 64 bits' : 'the value is no decimal integer of 64 bits';
    throw new HoldfastError('INVALID_ARGUMENT', { operation: 'add', detail });
  }
  return { done, existed, value: value === null ? null : bytesOf(value), version, expiresAtMs };
}
