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
  /** What expires is gone at once, or as the real one has it, when `tick` deletes it. Default: at once. */
  expiry?: 'at once' | 'by tick';
}

interface Held {
  value: Uint8Array;
  version: number;
  expiresAtMs: number | null;
}

const PAGE_BYTES = 128 * 1024;
/** Of an entry of a page, besides key and value. */
const ENTRY_BYTES = 32;
const MAX_INT64 = 2n ** 63n - 1n;
const copy = (bytes: Uint8Array): Uint8Array => new Uint8Array(bytes);

export class MemoryKv implements Pick<KvVolume, 'info' | 'get' | 'scan' | 'size' | 'execute'> {
  private readonly now: () => number;
  private readonly later: (work: () => void) => void;
  private readonly limits: KvLimits;
  private readonly byTick: boolean;
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
    this.byTick = options.expiry === 'by tick';
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

  /** Deletes what has expired: a change like any other. */
  tick(): void {
    const nowMs = this.now();
    const due = this.keys().filter((key) => {
      const { expiresAtMs } = this.held.get(key)!;
      return expiresAtMs !== null && expiresAtMs <= nowMs;
    });
    if (due.length === 0) return;
    this.version++;
    for (const key of due) this.held.delete(key);
    this.sorted = null;
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
    if (held === null || held.expiresAtMs === null || this.byTick || held.expiresAtMs > this.now()) return held;
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
      const size = ENTRY_BYTES + key.length + (entry.value?.length ?? 0);
      if (entries.length > 0 && (entries.length >= limit || bytes + size > PAGE_BYTES)) return { entries, next: key };
      entries.push(entry);
      bytes += size;
    }
    return { entries, next: null };
  }

  private tooLarge({ conditions, steps }: Transaction): HoldfastError | null {
    const { maxKeyBytes, maxValueBytes, maxTransactionBytes } = this.limits;
    let bytes = 0;
    for (const part of [...conditions, ...steps]) {
      const valueBytes = 'value' in part ? part.value.length : 0;
      bytes += part.key.length + valueBytes;
      if (part.key.length > maxKeyBytes || valueBytes > maxValueBytes) {
        return new HoldfastError('TOO_LARGE', { operation: 'execute' });
      }
    }
    return bytes > maxTransactionBytes ? new HoldfastError('TOO_LARGE', { operation: 'execute' }) : null;
  }

  private holds(condition: Condition): boolean {
    const held = this.find(condition.key);
    if (condition.is === 'absent') return held === null;
    if (condition.is === 'version') return (held?.version ?? 0) === condition.version;
    if (held === null) return false;
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
      return { ...result, value: step.previous ? held.value : null };
    }
    if (step.type === 'expire') {
      if (held === null) return refused;
      if (step.expiry === 'keep' || (step.expiry === 'none' && held.expiresAtMs === null)) return refused;
      this.set(step.key, { ...held, expiresAtMs: this.expiryOf(step.expiry, held), version }, false);
      return wrote;
    }
    if (step.type === 'put') {
      const value = step.previous ? (held?.value ?? null) : null;
      if (step.when !== 'always' && (step.when === 'present') !== (held !== null)) return { ...refused, value };
      const expiresAtMs = this.expiryOf(step.expiry, held);
      this.set(step.key, { value: copy(step.value), version, expiresAtMs }, step.expiry === 'keep');
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
    this.set(step.key, { value, version, expiresAtMs: held?.expiresAtMs ?? null }, true);
    return { ...wrote, value: copy(value) };
  }

  /** @param keeps its time to live is the one that it had. One that is new and over takes it away */
  private set(key: Key, held: Held, keeps: boolean): void {
    this.sorted = null;
    this.held.set(key, held);
    if (!keeps && held.expiresAtMs !== null && held.expiresAtMs <= this.now()) this.held.delete(key);
  }

  private expiryOf(expiry: Expiry, held: Held | null): number | null {
    if (expiry === 'none') return null;
    if (expiry === 'keep') return held?.expiresAtMs ?? null;
    return Math.max(1, Math.round('atMs' in expiry ? expiry.atMs : this.now() + expiry.afterMs));
  }
}
