/**
 * A mix of operations on a key-value volume through the client library, each client with a connection of its own and one
 * operation in flight. The request is one line of JSON on stdin; what it prints are lines of JSON: `loaded`, `second`,
 * `result`, `failed`. `holdfast kv bench` runs it.
 *
 * Guarantees: the time runs from the first request to the last answer; an operation that fails, and a read that answers
 * what belongs to another key, is counted and does not end the load; it ends with whoever started it: at the end of stdin.
 */
import { createInterface } from 'node:readline';
import { asHoldfastError } from '../../src/base/errors.ts';
import { type KvEntry, type KvStore, connectKv } from '../../src/client/index.ts';
import { Random } from '../load/workload.ts';
import {
  KeyCount,
  MixDraws,
  type MixKind,
  type MixRequest,
  type MixResult,
  YCSB,
  isKeyOfMix,
  keyOfMix,
} from './kv-mix.ts';
import { type MixSecond, MixTally } from './mix-tally.ts';

/** Of one transaction that loads, and one that deletes. */
const BATCH_KEYS = 200;
const BATCH_BYTES = 150_000;
const BATCHES_AT_ONCE = 8;
const HEAD_BYTES = 16;

const tell = (event: object): void => void process.stdout.write(`${JSON.stringify(event)}\n`);

/** The key's number, then bytes that do not repeat. */
class Values {
  private readonly padding: Buffer;
  private readonly bytes: number;

  constructor(bytes: number) {
    this.bytes = bytes;
    this.padding = Buffer.alloc(Math.max(0, bytes - HEAD_BYTES));
    new Random(1).fill(this.padding);
  }

  of(index: number): Buffer {
    return Buffer.concat([headOf(index), this.padding], this.bytes);
  }

  /** Whether a bench has put this value under this key: the value may be of another length. */
  static fits(value: Buffer, index: number): boolean {
    const head = headOf(index);
    const bytes = Math.min(head.length, value.length);
    return head.compare(value, 0, bytes, 0, bytes) === 0;
  }
}

const headOf = (index: number): Buffer => Buffer.from(String(index).padStart(HEAD_BYTES, '0'), 'latin1');

/** Work that is shared out among a few connections until there is no more. */
async function inBatches(stores: readonly KvStore[], one: (store: KvStore) => Promise<boolean>): Promise<void> {
  const worker = async (store: KvStore): Promise<void> => {
    while (await one(store));
  };
  await Promise.all(stores.slice(0, BATCHES_AT_ONCE).map(worker));
}

async function load({ prefix, keys, valueBytes }: MixRequest, stores: KvStore[], values: Values): Promise<number> {
  const begunMs = performance.now();
  const steps = Math.max(1, Math.min(BATCH_KEYS, Math.floor(BATCH_BYTES / (valueBytes + prefix.length + 100))));
  let next = 0;
  await inBatches(stores, async (store) => {
    const transaction = store.transaction();
    const end = Math.min(keys, next + steps);
    if (next >= end) return false;
    for (; next < end; next++) transaction.put(keyOfMix(prefix, next), values.of(next));
    await transaction.commit();
    return true;
  });
  return (performance.now() - begunMs) / 1000;
}

/** What is no key of a bench stays. */
async function clean(prefix: string, store: KvStore): Promise<number> {
  let deleted = 0;
  let batch: Buffer[] = [];
  const send = async (): Promise<void> => {
    if (batch.length === 0) return;
    const transaction = store.transaction();
    for (const key of batch) transaction.delete(key);
    batch = [];
    const { results } = await transaction.commit();
    deleted += results.filter(({ done }) => done).length;
  };
  for await (const { key } of store.scan({ prefix: `${prefix}key-`, keysOnly: true })) {
    if (isKeyOfMix(prefix, key.toString('utf8'))) batch.push(key);
    if (batch.length >= BATCH_KEYS / 4) await send();
  }
  await send();
  return deleted;
}

async function run(
  request: MixRequest,
  stores: KvStore[],
  values: Values,
  keys: KeyCount,
  toldSecond: (second: MixSecond) => void,
): Promise<Omit<MixResult, 'loaded' | 'cleaned'>> {
  const { prefix, seconds, operations } = request;
  const tally = new MixTally();
  const check = (entry: KvEntry | null, index: number): void => {
    if (entry === null) tally.absent++;
    else if (!Values.fits(entry.value, index))
      tally.failed(`${entry.key.toString()} holds what belongs to another key`);
  };
  const one = async (store: KvStore, kind: MixKind, draws: MixDraws): Promise<void> => {
    const index = kind === 'insert' ? keys.begin() : draws.key();
    const key = keyOfMix(prefix, index);
    const begunMs = performance.now();
    try {
      if (kind === 'read') check(await store.get(key), index);
      else if (kind === 'scan') {
        let found = 0;
        const range = { prefix: `${prefix}key-`, from: key, limit: draws.scanLength() };
        for await (const _entry of store.scan(range)) found++;
        if (found === 0) tally.absent++;
      } else {
        if (kind === 'readModifyWrite') check(await store.get(key), index);
        await store.put(key, values.of(index));
      }
      tally.completed(kind, performance.now() - begunMs);
    } catch (error) {
      tally.failed(`${kind} ${key}: ${asHoldfastError(error).message}`);
    } finally {
      if (kind === 'insert') keys.end(index);
    }
  };
  const begunMs = performance.now();
  const endMs = begunMs + (seconds ?? Infinity) * 1000;
  let left = operations ?? Infinity;
  let lookedMs = begunMs;
  const looks = setInterval(() => {
    const nowMs = performance.now();
    toldSecond(tally.second(Math.round((nowMs - begunMs) / 1000), nowMs - lookedMs));
    lookedMs = nowMs;
  }, 1000);
  const client = async (store: KvStore, index: number): Promise<void> => {
    const draws = new MixDraws(request, keys, index);
    while (performance.now() < endMs && left-- > 0) await one(store, draws.kind(), draws);
  };
  await Promise.all(stores.map(client));
  clearInterval(looks);
  const tookSeconds = (performance.now() - begunMs) / 1000;
  const { errors, firstError, absent } = tally;
  return {
    event: 'result',
    seconds: tookSeconds,
    operations: tally.operations,
    opsPerSecond: tally.operations / tookSeconds,
    ...tally.latencies(),
    errors,
    firstError,
    absent,
  };
}

async function serve(asked: MixRequest): Promise<void> {
  const request = asked.ycsb === null ? asked : { ...asked, ...YCSB[asked.ycsb]! };
  const { url, reads, prefix, clients, keys } = request;
  const stores = await Promise.all(
    Array.from({ length: clients }, () => connectKv(url, { reads, clientName: 'holdfast kv bench' })),
  );
  const values = new Values(request.valueBytes);
  const loaded = request.load ? { keys, seconds: await load(request, stores, values) } : null;
  if (loaded !== null) tell({ event: 'loaded', ...loaded });
  // What a warming run inserts is there afterwards.
  const there = new KeyCount(keys);
  const { warmSeconds = 0 } = request;
  const before = { ...request, seconds: warmSeconds, operations: null, seed: -1 };
  const warm = warmSeconds > 0 ? await run(before, stores, values, there, () => {}) : null;
  const result = await run(request, stores, values, there, tell);
  if (warm !== null && warm.errors > 0) {
    result.errors += warm.errors;
    result.firstError = warm.firstError;
  }
  const cleaned = request.clean ? await clean(prefix, stores[0]!) : null;
  tell({ ...result, loaded, cleaned } satisfies MixResult);
  await Promise.all(stores.map((store) => store.close()));
}

const lines = createInterface({ input: process.stdin });
lines.once('line', (line) => {
  serve(JSON.parse(line) as MixRequest).then(
    () => process.exit(),
    (error: unknown) => {
      tell({ event: 'failed', error: asHoldfastError(error).toJSON() });
      process.exit(1);
    },
  );
});
lines.once('close', () => process.exit(1));
