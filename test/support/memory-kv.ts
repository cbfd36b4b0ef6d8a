/**
 * A key-value volume in memory: what `KvVolume` means, in as few words as possible. The model that the tests of the real
 * one and of its ports compare with.
 *
 * Transactions take effect in the order of the calls. When they do, and when a read looks, is up to `later`: between the
 * call and the answer, as it is for the real one.
 */
import { HoldfastError } from '../../src/base/errors.ts';
import type {
  Condition,
  Entry,
  Expiry,
  Key,
  KvDone,
  KvInfo,
  KvLimits,
  KvVolume,
  RequestId,
  ScanPage,
  ScanRequest,
  Step,
  StepResult,
  Transaction,
  TransactionResult,
} from '../../src/kv/operations.ts';

export interface MemoryKvOptions {
  /** Milliseconds of the wall clock. */
  now: () => number;
  /** Runs it once, not before it returns. */
  later?: (work: () => void) => void;
  limits?: Partial<KvLimits>;
}

interface Held {
  value: Uint8Array;
  version: number;
  expiresAtMs: number | null;
}

const PAGE_BYTES = 128 * 1024;
const MAX_INT64 = 2n ** 63n - 1n;
const copy = (bytes: Uint8Array): Uint8Array => new Uint8Array(bytes);

export class MemoryKv implements Pick<KvVolume, 'info' | 'get' | 'scan' | 'size' | 'execute'> {
  private readonly now: () => number;
  private readonly later: (work: () => void) => void;
  private readonly limits: KvLimits;
  private held: Map<Key, Held> = new Map();
  private sorted: Key[] | null = null;
  private version = 0;
  /** Transactions that have not taken effect, in order. */
  private readonly row: Array<() => void> = [];
  durable = true;
  /** What every call is answered with, as long as it is set. */
  trouble: HoldfastError | null = null;

  constructor(options: MemoryKvOptions) {
    this.now = options.now;
    this.later = options.later ?? queueMicrotask;
    this.limits = { maxKeyBytes: 1024, maxValueBytes: 128 * 1024, maxTransactionBytes: 192 * 1024, ...options.limits };
  }

  info(): KvInfo {
    let liveBytes = 0;
    for (const [key, { value }] of this.held) liveBytes += key.length + value.length + 24;
    return {
      volume: 'memory',
      role: 'primary',
      state: 'in-sync',
      epoch: 1,
      version: this.version,
      keys: this.held.size,
      expiring: [...this.held.values()].filter(({ expiresAtMs }) => expiresAtMs !== null).length,
      durable: this.durable,
      liveBytes,
      usedBytes: liveBytes,
      sizeBytes: 2 ** 30,
      limits: this.limits,
    };
  }

  get(keys: Key[], done: KvDone<Array<Entry | null>>): void {
    this.answer(done, () => keys.map((key) => this.entry(key, false)));
  }

  size(done: KvDone<number>): void {
    this.answer(done, () => this.keys().filter((key) => this.find(key) !== null).length);
  }

  scan(request: ScanRequest, done: KvDone<ScanPage>): void {
    this.answer(done, () => this.page(request));
  }

  execute(transaction: Transaction, _id: RequestId | null, done: KvDone<TransactionResult>): void {
    const refusal = this.trouble ?? this.tooLarge(transaction);
    this.row.push(() => (refusal === null ? done(null, this.apply(transaction)) : done(refusal, null)));
    this.later(() => this.row.shift()!());
  }

  // --- state ----------------------------------------------------------------------------------------------------------

  private answer<T>(done: KvDone<T>, look: () => T): void {
    const { trouble } = this;
    this.later(() => (trouble === null ? done(null, look()) : done(trouble, null)));
  }

  private keys(): Key[] {
    return (this.sorted ??= [...this.held.keys()].sort((a, b) => (a < b ? -1 : 1)));
  }

  private find(key: Key): Held | null {
    const held = this.held.get(key) ?? null;
    if (held === null || held.expiresAtMs === null || held.expiresAtMs > this.now()) return held;
    this.held.delete(key);
    this.sorted = null;
    return null;
  }

  private entry(key: Key, keyOnly: boolean): Entry | null {
    const held = this.find(key);
    return held === null ? null : { key, ...held, value: keyOnly ? null : copy(held.value) };
  }

  private page({ prefix, from, end, limit, keysOnly }: ScanRequest): ScanPage {
    const entries: Entry[] = [];
    let bytes = 0;
    for (const key of this.keys()) {
      if (key < from || !key.startsWith(prefix) || (end !== null && key >= end)) continue;
      const entry = this.entry(key, keysOnly);
      if (entry === null) continue;
      if (entries.length >= limit || bytes >= PAGE_BYTES) return { entries, next: key };
      entries.push(entry);
      bytes += key.length + (entry.value?.length ?? 0);
    }
    return { entries, next: null };
  }

  private tooLarge({ steps }: Transaction): HoldfastError | null {
    const { maxKeyBytes, maxValueBytes, maxTransactionBytes } = this.limits;
    let bytes = 0;
    for (const step of steps) {
      const valueBytes = step.type === 'put' ? step.value.length : 0;
      bytes += step.key.length + valueBytes;
      if (step.key.length > maxKeyBytes || valueBytes > maxValueBytes) {
        return new HoldfastError('TOO_LARGE', { operation: 'execute' });
      }
    }
    return bytes > maxTransactionBytes ? new HoldfastError('TOO_LARGE', { operation: 'execute' }) : null;
  }

  private holds(condition: Condition): boolean {
    const held = this.find(condition.key);
    if (condition.is === 'absent') return held === null;
    if (held === null) return false;
    if (condition.is === 'version') return held.version === condition.version;
    return condition.is === 'present' || Buffer.compare(held.value, condition.value) === 0;
  }

  private apply({ conditions, steps }: Transaction): TransactionResult {
    if (!conditions.every((condition) => this.holds(condition))) {
      return { applied: false, version: this.version, results: [] };
    }
    const next = this.version + 1;
    let changed = false;
    const results = steps.map((step) => {
      const result = this.step(step, next);
      if (result.done && step.type !== 'get') changed = true;
      return result;
    });
    if (changed) this.version = next;
    return { applied: true, version: this.version, results };
  }

  private step(step: Step, version: number): StepResult {
    const held = this.find(step.key);
    const result: StepResult = {
      done: true,
      existed: held !== null,
      value: null,
      version: held?.version ?? 0,
      expiresAtMs: held?.expiresAtMs ?? null,
    };
    const refused: StepResult = { ...result, done: false };
    const wrote: StepResult = { ...result, version };
    if (step.type === 'get') return held === null ? refused : { ...result, value: copy(held.value) };
    if (step.type === 'delete') {
      if (held === null) return refused;
      this.held.delete(step.key);
      this.sorted = null;
      return { ...wrote, value: step.previous ? held.value : null };
    }
    if (step.type === 'expire') {
      if (held === null) return refused;
      const expiresAtMs = this.expiryOf(step.expiry, held);
      if (expiresAtMs === held.expiresAtMs) return refused;
      this.held.set(step.key, { ...held, expiresAtMs, version });
      return wrote;
    }
    if (step.type === 'put') {
      const value = step.previous ? (held?.value ?? null) : null;
      if (step.when !== 'always' && (step.when === 'present') !== (held !== null)) return { ...refused, value };
      this.set(step.key, { value: copy(step.value), version, expiresAtMs: this.expiryOf(step.expiry, held) });
      return { ...wrote, value };
    }
    const text = held === null ? '0' : Buffer.from(held.value).toString('latin1');
    const before = /^(?:0|-?[1-9][0-9]{0,18})$/.test(text) ? BigInt(text) : null;
    if (before === null || before > MAX_INT64 || before < -MAX_INT64 - 1n) {
      return { ...refused, problem: 'NOT_AN_INTEGER' };
    }
    const after = before + step.delta;
    if (after > MAX_INT64 || after < -MAX_INT64 - 1n) return { ...refused, problem: 'OVERFLOW' };
    const value = Buffer.from(String(after));
    this.set(step.key, { value, version, expiresAtMs: held?.expiresAtMs ?? null });
    return { ...wrote, value: copy(value) };
  }

  private set(key: Key, held: Held): void {
    if (!this.held.has(key)) this.sorted = null;
    this.held.set(key, held);
  }

  private expiryOf(expiry: Expiry, held: Held | null): number | null {
    if (expiry === 'none') return null;
    if (expiry === 'keep') return held?.expiresAtMs ?? null;
    return 'atMs' in expiry ? expiry.atMs : this.now() + expiry.afterMs;
  }
}
