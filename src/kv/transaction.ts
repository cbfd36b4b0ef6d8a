/**
 * A transaction, worked out against a state: what it answers, and which keys it leaves how. Pure.
 *
 * Guarantees: each step sees the ones before it; a transaction whose conditions do not hold changes nothing; a key that is
 * given a time to live that is over is not there afterwards.
 */
import { HoldfastError } from '../base/errors.ts';
import { EMPTY } from './batch.ts';
import type { Condition, Expiry, Key, KvLimits, Step, StepResult, Transaction } from './operations.ts';

/** A key that is there. */
export interface Present {
  value: Uint8Array;
  version: number;
  /** 0: never. */
  expiresAtMs: number;
}

/** Null: it is not there. */
export type View = (key: Key) => Present | null;

export interface Outcome {
  applied: boolean;
  results: StepResult[];
  /** What the keys are afterwards; null: deleted. Empty: nothing changes. */
  changes: Map<Key, Present | null>;
}

const INT64_MAX = 2n ** 63n - 1n;
const INT64_MIN = -(2n ** 63n);

export function work(transaction: Transaction, view: View, version: number, nowMs: number): Outcome {
  const changes = new Map<Key, Present | null>();
  if (!transaction.conditions.every((condition) => holds(condition, view))) {
    return { applied: false, results: [], changes };
  }
  const now: View = (key) => {
    const changed = changes.get(key);
    return changed === undefined ? view(key) : changed;
  };
  const results = transaction.steps.map((step) => take(step, now, changes, version, nowMs));
  return { applied: true, results, changes };
}

function holds(condition: Condition, view: View): boolean {
  const present = view(condition.key);
  switch (condition.is) {
    case 'absent':
      return present === null;
    case 'present':
      return present !== null;
    case 'version':
      return (present?.version ?? 0) === condition.version;
    case 'value':
      return present !== null && Buffer.compare(present.value, condition.value) === 0;
  }
}

function take(step: Step, view: View, changes: Map<Key, Present | null>, version: number, nowMs: number): StepResult {
  const { key } = step;
  const before = view(key);
  const result: StepResult = {
    done: false,
    existed: before !== null,
    value: null,
    version: before?.version ?? 0,
    expiresAtMs: before === null || before.expiresAtMs === 0 ? null : before.expiresAtMs,
  };
  const put = (value: Uint8Array, expiry: Expiry): void => {
    const expiresAtMs = expiryOf(expiry, before, nowMs);
    // One that it has already ends by a deletion of its own.
    const over = expiry !== 'keep' && expiresAtMs !== 0 && expiresAtMs <= nowMs;
    changes.set(key, over ? null : { value, version, expiresAtMs });
    result.done = true;
    result.version = version;
  };
  switch (step.type) {
    case 'get':
      result.done = before !== null;
      result.value = before?.value ?? null;
      break;
    case 'put':
      if (step.previous) result.value = before?.value ?? null;
      if (step.when === 'always' || (step.when === 'present') === (before !== null)) put(step.value, step.expiry);
      break;
    case 'delete':
      if (step.previous) result.value = before?.value ?? null;
      if (before === null) break;
      changes.set(key, null);
      result.done = true;
      break;
    case 'add': {
      const sum = sumOf(before?.value ?? null, step.delta);
      if (typeof sum === 'string') result.problem = sum;
      else put((result.value = Buffer.from(String(sum), 'latin1')), 'keep');
      break;
    }
    case 'expire':
      if (before !== null && !isAsItIs(step.expiry, before)) put(before.value, step.expiry);
      break;
  }
  return result;
}

function sumOf(value: Uint8Array | null, delta: bigint): bigint | 'NOT_AN_INTEGER' | 'OVERFLOW' {
  const text = value === null ? '0' : value.length > 20 ? '' : Buffer.from(value).toString('latin1');
  if (!/^(?:0|-?[1-9]\d*)$/.test(text)) return 'NOT_AN_INTEGER';
  const number = BigInt(text);
  if (number > INT64_MAX || number < INT64_MIN) return 'NOT_AN_INTEGER';
  const sum = number + delta;
  return sum > INT64_MAX || sum < INT64_MIN ? 'OVERFLOW' : sum;
}

/** Nothing would change: who watches the key is told nothing. */
function isAsItIs(expiry: Expiry, before: Present): boolean {
  return expiry === 'keep' || (expiry === 'none' && before.expiresAtMs === 0);
}

function expiryOf(expiry: Expiry, before: Present | null, nowMs: number): number {
  if (expiry === 'none') return 0;
  if (expiry === 'keep') return before?.expiresAtMs ?? 0;
  // 0 stands for never.
  return Math.max(1, Math.round('atMs' in expiry ? expiry.atMs : nowMs + expiry.afterMs));
}

/** @returns why a transaction is not taken, null if it is */
export function refusalOf({ conditions, steps }: Transaction, limits: KvLimits): HoldfastError | null {
  let bytes = 0;
  const refuse = (what: string, length: number, limit: number): HoldfastError =>
    new HoldfastError('TOO_LARGE', {
      operation: 'execute',
      detail: `${what} of ${length}, the limit is ${limit} bytes`,
    });
  for (const part of [...conditions, ...steps]) {
    const value = ('value' in part ? part.value : EMPTY).length;
    if (part.key.length > limits.maxKeyBytes) return refuse('a key', part.key.length, limits.maxKeyBytes);
    if (value > limits.maxValueBytes) return refuse('a value', value, limits.maxValueBytes);
    bytes += part.key.length + value;
  }
  return bytes > limits.maxTransactionBytes ? refuse('a transaction', bytes, limits.maxTransactionBytes) : null;
}
