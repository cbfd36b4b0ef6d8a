/** Several steps on several keys as one: all of them or none, seen by others at once. */
import type { CallOptions } from '../base/device.ts';
import type { Transaction, TransactionResult } from '../kv/operations.ts';
import {
  type Bytes,
  type KvCommitted,
  type KvExpiry,
  type KvIf,
  bytesOf,
  conditionOf,
  expiryOf,
  keyOf,
  refusal,
  stepResultOf,
} from './kv-types.ts';

export interface StepPutOptions extends KvExpiry {
  /** Else this step does nothing; the others are not concerned. */
  when?: 'absent' | 'present' | undefined;
  previous?: boolean | undefined;
}

export class KvTransaction {
  private readonly transaction: Transaction = { conditions: [], steps: [] };
  private readonly execute: (transaction: Transaction, options: CallOptions) => Promise<TransactionResult>;
  private committed = false;

  constructor(execute: (transaction: Transaction, options: CallOptions) => Promise<TransactionResult>) {
    this.execute = execute;
  }

  /** Nothing is done unless all of them are so before the first step. */
  check(key: Bytes, condition: KvIf): this {
    this.transaction.conditions.push(conditionOf(key, condition));
    return this;
  }

  get(key: Bytes): this {
    this.transaction.steps.push({ type: 'get', key: keyOf(key) });
    return this;
  }

  put(key: Bytes, value: Bytes, options: StepPutOptions = {}): this {
    const { when = 'always', previous = false } = options;
    const expiry = expiryOf(options);
    this.transaction.steps.push({ type: 'put', key: keyOf(key), value: bytesOf(value), expiry, when, previous });
    return this;
  }

  delete(key: Bytes, options: { previous?: boolean | undefined } = {}): this {
    this.transaction.steps.push({ type: 'delete', key: keyOf(key), previous: options.previous ?? false });
    return this;
  }

  /** The value as a decimal integer of 64 bits, 0 if it is absent. */
  add(key: Bytes, delta: number | bigint = 1): this {
    this.transaction.steps.push({ type: 'add', key: keyOf(key), delta: deltaOf(delta) });
    return this;
  }

  /** Without any of the options: it never goes away by itself. */
  expire(key: Bytes, expiry: KvExpiry): this {
    this.transaction.steps.push({ type: 'expire', key: keyOf(key), expiry: expiryOf(expiry) });
    return this;
  }

  /**
   * The values must not be changed until it settles. Once only.
   * @throws HoldfastError INVALID_ARGUMENT, TOO_LARGE, NO_SPACE, OUTCOME_UNKNOWN, UNREACHABLE; INVALID_ARGUMENT also
   *   where an `add` met no integer: the other steps are done then
   */
  async commit(options: CallOptions = {}): Promise<KvCommitted> {
    if (this.committed) throw refusal('a transaction is committed once only');
    this.committed = true;
    const { applied, version, results } = await this.execute(this.transaction, options);
    return { applied, version, results: results.map(stepResultOf) };
  }
}

export function deltaOf(delta: number | bigint): bigint {
  if (typeof delta === 'number' && !Number.isSafeInteger(delta)) throw refusal(`${delta} is no whole number`);
  return BigInt.asIntN(64, BigInt(delta)) === BigInt(delta) ? BigInt(delta) : refuseSize(delta);
}

function refuseSize(delta: number | bigint): never {
  throw refusal(`${delta} has more than 64 bits`);
}
