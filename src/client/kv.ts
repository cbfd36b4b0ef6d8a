/**
 * The key-value client: `connectKv('holdfast-kv://host:port/volume')`.
 *
 * Guarantees: reads are linearizable, whoever answers them; a mutation that resolved is durable on every replica that is
 * in sync, and was executed once, whatever connections and primaries came and went meanwhile; one that is rejected with
 * OUTCOME_UNKNOWN, DEADLINE or ABORTED may or may not have been executed, with any other code it was not; keys and values
 * are bytes, in the order of bytes.
 */
import type { CallOptions } from '../base/device.ts';
import { HoldfastError } from '../base/errors.ts';
import {
  type KvRequest,
  decodeChanges,
  decodeFound,
  decodeInfo,
  decodeNumber,
  decodePage,
  decodeResult,
  isStale,
} from '../kv/codec.ts';
import type { KvInfo, KvLimits, Step, Transaction, TransactionResult } from '../kv/operations.ts';
import { MAX_KV_BYTES } from '../protocol/messages.ts';
import { parseVolumeAddress } from './address.ts';
import { Connections } from './connections.ts';
import { kvCall } from './kv-call.ts';
import { KvTransaction, deltaOf } from './kv-transaction.ts';
import {
  type Bytes,
  type DeleteOptions,
  type KvChange,
  type KvChanged,
  type KvConnectOptions,
  type KvEntry,
  type KvExpiry,
  type KvIf,
  type KvPage,
  type PutOptions,
  type ScanOptions,
  type WatchOptions,
  bytesOf,
  changeOf,
  conditionOf,
  entryOf,
  expiryOf,
  keyOf,
  refusal,
  stepResultOf,
} from './kv-types.ts';
import { Members } from './members.ts';
import { MAX_TIMER_MS, settingsOf } from './options.ts';
import { ReadAny, type Reader, type Target } from './read-policy.ts';
import { ReadListed } from './read-listed.ts';
import { backoffMs } from './retry.ts';

const PAGE_ENTRIES = 1000;
const CHANGES = 1000;
/** A watcher asks again so often: often enough that its server is not taken for silent. */
const WATCH_SHARE = 0.8;

/**
 * Opens a key-value volume: `holdfast-kv://host:port[,host:port...]/volume`, `holdfasts-kv://` under TLS; without a name, the only volume of the
 * server. Any node that knows the volume is enough: it tells where the others are.
 * @throws HoldfastError INVALID_ARGUMENT, UNREACHABLE, NO_SUCH_VOLUME, UNSUPPORTED (the volume is a disk), or as the
 *   server answers
 */
export async function connectKv(url: string, options: KvConnectOptions = {}): Promise<KvStore> {
  const { reads = 'primary', allowStale = false, ...rest } = options;
  if (!['primary', 'any', 'listed'].includes(reads)) throw refusal(`reads is "${reads}", not primary, any or listed`);
  const address = parseVolumeAddress(url, 'holdfast-kv');
  const settings = settingsOf(rest, address.secure);
  const connections = new Connections(address, settings);
  const { shared } = connections;
  if (reads === 'listed') {
    return new KvStore(address.volume, null, connections, new ReadListed(shared, address.servers), allowStale);
  }
  const { name } = await connections.open();
  const probe = new KvStore(name, null, connections, null, allowStale);
  let info: KvInfo;
  try {
    info = await probe.info({ deadlineMs: Math.max(1, settings.connectMs) });
  } catch (error) {
    connections.end(new HoldfastError('CLOSED', { operation: 'connect' }));
    throw error;
  }
  const reader = reads === 'any' ? new ReadAny(new Members(shared, false), () => connections.pick()) : null;
  return new KvStore(name, info.limits, connections, reader, allowStale);
}

export class KvStore {
  /** Of the volume; empty where the address has none and nothing has been asked yet. */
  readonly name: string;
  /** Null: not known, the servers enforce them. */
  readonly limits: KvLimits | null;
  private readonly connections: Connections;
  /** Null: the primary. */
  private readonly reader: Reader | null;
  private readonly allowStale: boolean;
  private closed = false;

  /** See `connectKv`. */
  constructor(
    name: string,
    limits: KvLimits | null,
    connections: Connections,
    reader: Reader | null,
    allowStale: boolean,
  ) {
    this.name = name;
    this.limits = limits;
    this.connections = connections;
    this.reader = reader;
    this.allowStale = allowStale;
  }

  // --- reads ------------------------------------------------------------------------------------------------------------

  /** @returns null: absent */
  async get(key: Bytes, options: CallOptions = {}): Promise<KvEntry | null> {
    const [entry] = await this.getMany([key], options);
    return entry!;
  }

  /** One state of the volume, in the order of the keys that were asked for; null: absent. */
  async getMany(keys: readonly Bytes[], options: CallOptions = {}): Promise<Array<KvEntry | null>> {
    if (keys.length === 0) return [];
    const reply = await this.read({ operation: 'get', keys: keys.map((key) => this.checkedKey(key)) }, options);
    const stale = isStale(reply);
    return decodeFound(reply).map((entry) => (entry === null ? null : entryOf(entry, stale)));
  }

  /** One page of a scan: one state of the volume. `limit` at most 1000, which is also the default. */
  async scanPage(options: ScanOptions = {}): Promise<KvPage> {
    const { prefix = '', from = '', end, keysOnly = false } = options;
    const limit = Math.min(options.limit ?? PAGE_ENTRIES, PAGE_ENTRIES);
    if (!Number.isSafeInteger(limit) || limit < 1) throw refusal(`a limit of ${limit}`);
    const scan = {
      prefix: keyOf(prefix),
      from: keyOf(from),
      end: end === undefined ? null : keyOf(end),
      limit,
      keysOnly,
    };
    const reply = await this.read({ operation: 'scan', scan }, options);
    const { entries, next } = decodePage(reply);
    const stale = isStale(reply);
    return {
      entries: entries.map((entry) => entryOf(entry, stale)),
      next: next === null ? null : Buffer.from(next, 'latin1'),
    };
  }

  /** All keys of a prefix or a range, in order, page by page; each page is one state of the volume, several are not. */
  async *scan(options: ScanOptions = {}): AsyncGenerator<KvEntry, void, undefined> {
    let left = options.limit ?? Infinity;
    for (let from: Bytes | null = options.from ?? ''; from !== null && left > 0;) {
      const page: KvPage = await this.scanPage({ ...options, from, limit: Math.min(left, PAGE_ENTRIES) });
      yield* page.entries;
      left -= page.entries.length;
      from = page.next;
    }
  }

  /** How many keys there are. */
  async size(options: CallOptions = {}): Promise<number> {
    return decodeNumber(await this.ask({ operation: 'size' }, options, () => this.connections.pick()));
  }

  /** What the primary says of the volume. */
  async info(options: CallOptions = {}): Promise<KvInfo> {
    return decodeInfo(await this.ask({ operation: 'info' }, options, () => this.connections.pick()));
  }

  /**
   * The changes of keys with a prefix, in the order of versions, each once, until the loop is left or `signal` aborts it.
   * Over a change of primary it goes on where it was.
   * @throws HoldfastError OUT_OF_RANGE: changes after that version are not kept any more; read what is there, and watch
   *   from its version. ABORTED; as `get`
   */
  async *watch(options: WatchOptions = {}): AsyncGenerator<KvChange, void, undefined> {
    const { prefix = '', signal } = options;
    let after = options.after ?? (await this.info({ signal })).version;
    const { suspectMs } = this.connections.shared.settings;
    const waitMs = Math.max(1, Math.round(suspectMs * WATCH_SHARE));
    for (;;) {
      const { changes, version } = await this.changesAfter(after, { prefix, signal, waitMs });
      yield* changes;
      after = version;
    }
  }

  /**
   * What was changed behind a version, in the order of versions: whole transactions, about a thousand changes at most.
   * @param options `waitMs`: how long to wait for a change if there is none
   * @returns the changes, and the version up to which these are all
   * @throws HoldfastError as `watch`
   */
  async changesAfter(
    after: number,
    options: CallOptions & { prefix?: Bytes | undefined; waitMs: number },
  ): Promise<{ changes: KvChange[]; version: number }> {
    const { prefix = '', waitMs, ...call } = options;
    const watch = { prefix: keyOf(prefix), after, limit: CHANGES, waitMs };
    const reply = await this.ask({ operation: 'watch', watch }, call, () => this.connections.pick());
    const { changes, version } = decodeChanges(reply);
    return { changes: changes.map(changeOf), version };
  }

  // --- mutations --------------------------------------------------------------------------------------------------------

  /** The value must not be changed until it settles. @throws as `transaction().commit()` */
  async put(key: Bytes, value: Bytes, options: PutOptions = {}): Promise<KvChanged> {
    const { previous = false } = options;
    const expiry = expiryOf(options);
    const step: Step = { type: 'put', key: keyOf(key), value: bytesOf(value), expiry, when: 'always', previous };
    return this.changeOne(key, step, options);
  }

  /** Of a key that is absent nothing is done, and `applied` is false. */
  async delete(key: Bytes, options: DeleteOptions = {}): Promise<KvChanged> {
    return this.changeOne(key, { type: 'delete', key: keyOf(key), previous: options.previous ?? false }, options);
  }

  /** @param expected null: the key is absent. @returns whether it was so, and `value` is there now */
  async compareAndSet(key: Bytes, expected: Bytes | null, value: Bytes, options: CallOptions = {}): Promise<boolean> {
    const condition: KvIf = expected === null ? 'absent' : { value: expected };
    return (await this.put(key, value, { ...options, if: condition })).applied;
  }

  /**
   * The value as a decimal integer of 64 bits, 0 if it is absent, plus `delta`.
   * @returns the new one. @throws HoldfastError INVALID_ARGUMENT where it is none, as `transaction().commit()`
   */
  async add(key: Bytes, delta: number | bigint = 1, options: CallOptions = {}): Promise<bigint> {
    const steps: Step[] = [{ type: 'add', key: keyOf(key), delta: deltaOf(delta) }];
    const { results } = await this.execute({ conditions: [], steps }, options);
    return BigInt(stepResultOf(results[0]!).value!.toString('latin1'));
  }

  /** Sets, changes or, without any of the options, ends the time of a key. @returns false: it is absent */
  async expire(key: Bytes, expiry: KvExpiry, options: CallOptions = {}): Promise<boolean> {
    const steps: Step[] = [{ type: 'expire', key: keyOf(key), expiry: expiryOf(expiry) }];
    const { results } = await this.execute({ conditions: [], steps }, options);
    return results[0]!.existed;
  }

  /** Several steps as one. */
  transaction(): KvTransaction {
    return new KvTransaction((transaction, options) => this.execute(transaction, options));
  }

  private async changeOne(
    key: Bytes,
    step: Step,
    options: CallOptions & { if?: KvIf | undefined },
  ): Promise<KvChanged> {
    const conditions = options.if === undefined ? [] : [conditionOf(key, options.if)];
    const { applied, version, results } = await this.execute({ conditions, steps: [step] }, options);
    if (!applied) return { applied, version, existed: false, previous: null };
    const result = stepResultOf(results[0]!);
    return { applied: result.done, version, existed: result.existed, previous: result.value };
  }

  private async execute(transaction: Transaction, options: CallOptions): Promise<TransactionResult> {
    const request: KvRequest = { operation: 'execute', transaction, id: null };
    for (const { key } of [...transaction.steps, ...transaction.conditions]) this.checkedLength(key);
    return decodeResult(await this.ask(request, options, () => this.connections.pick()));
  }

  // --- requests ---------------------------------------------------------------------------------------------------------

  private checkedKey(key: Bytes): string {
    return this.checkedLength(keyOf(key));
  }

  private checkedLength(key: string): string {
    const { limits } = this;
    if (limits === null || key.length <= limits.maxKeyBytes) return key;
    const detail = `a key of ${key.length} bytes, the limit is ${limits.maxKeyBytes}`;
    throw new HoldfastError('TOO_LARGE', { operation: 'kv', volume: this.name, detail });
  }

  /** What may be stale is asked until it is not, if it must not be. */
  private async read(request: KvRequest, options: CallOptions): Promise<Uint8Array> {
    const { retryMs } = this.connections.shared.settings;
    const untilMs = performance.now() + retryMs;
    for (let attempt = 0; ; attempt++) {
      const reply = await this.ask(request, options, () => this.reader ?? this.connections.pick());
      if (this.allowStale || !isStale(reply)) return reply;
      if (performance.now() >= untilMs) {
        throw new HoldfastError('UNREACHABLE', {
          operation: request.operation,
          volume: this.name,
          detail: 'only answers that nobody vouches for',
          remedy: 'wait until its replicas see each other; or set allowStale',
        });
      }
      await new Promise((resolve) => setTimeout(resolve, backoffMs(attempt, Math.random(), 400)));
    }
  }

  private async ask(request: KvRequest, options: CallOptions, targetOf: () => Target): Promise<Uint8Array> {
    const { signal, deadlineMs } = options;
    const where = { operation: request.operation, volume: this.name };
    if (this.closed) throw new HoldfastError('CLOSED', where);
    if (signal?.aborted) throw new HoldfastError('ABORTED', { ...where, cause: signal.reason });
    if (deadlineMs !== undefined && !(deadlineMs >= 0)) throw refusal(`a deadline of ${deadlineMs} ms`);
    const deadlineAtMs = deadlineMs === undefined ? Infinity : performance.now() + deadlineMs;
    const call = kvCall(request, { deadlineAtMs });
    if (call.weightBytes > MAX_KV_BYTES) {
      const detail = `a request of ${call.weightBytes} bytes, the limit is ${MAX_KV_BYTES}`;
      throw new HoldfastError('TOO_LARGE', { ...where, detail });
    }
    const target = targetOf();
    return new Promise((resolve, reject) => {
      let timer: NodeJS.Timeout | undefined;
      const over = (): void => {
        signal?.removeEventListener('abort', abort);
        clearTimeout(timer);
      };
      const giveUp = (error: HoldfastError): void => {
        over();
        target.giveUp(call);
        reject(error);
      };
      const abort = (): void => giveUp(new HoldfastError('ABORTED', { ...where, cause: signal?.reason }));
      call.done = (error, payload) => {
        over();
        if (error === null) resolve(payload!);
        else reject(new HoldfastError(error.code, { ...error.details, ...where }));
      };
      signal?.addEventListener('abort', abort);
      if (deadlineMs !== undefined && deadlineMs !== Infinity) {
        const late = (): void => giveUp(new HoldfastError('DEADLINE', { ...where, detail: `${deadlineMs} ms` }));
        timer = setTimeout(late, Math.min(deadlineMs, MAX_TIMER_MS));
      }
      target.submit(call);
    });
  }

  /** Calls under way are waited for while the server is there; calls made from now on are refused with CLOSED. */
  async close(): Promise<void> {
    this.closed = true;
    await this.reader?.close();
    await this.connections.close();
  }
}
