/**
 * PUTs and GETs of a key-value volume through the client library, each client with a connection of its own and one
 * operation in flight. One process runs one load after another, as lines of JSON on stdin tell it, over connections that
 * stay open. All clients share the process: each waking brings the answers of several, and the processor time that the
 * generator itself took is told beside each figure.
 *
 * Guarantees: a load's time runs from its first request to its last answer; an operation that fails or answers what was not
 * put is counted and does not end the load; keys follow from the seed, and a value from its key and its length.
 */
import { createInterface } from 'node:readline';
import { connectKv, type KvStore } from '../../src/client/index.ts';
import { Histogram } from '../load/histogram.ts';
import { Random } from '../load/workload.ts';
import { type KvLoad, type KvResult, keyOf } from './kv-load.ts';

/** PUTs of one transaction, and its bytes, at most. */
const FILL_STEPS = 200;
const FILL_BYTES = 150_000;
const FILL_CLIENTS = 8;
const CURVE_POINTS = 200;

const url = process.argv[2];
if (url === undefined) {
  process.stderr.write('usage: kv-generator URL, loads on stdin\n');
  process.exit(2);
}
const stores = { primary: [] as KvStore[], any: [] as KvStore[] };
const padding: Map<number, Buffer> = new Map();

/** A decimal of eleven digits and, if there is room, padding behind it. */
function valueOf(index: number, bytes: number): Buffer {
  let rest = padding.get(bytes);
  if (rest === undefined) {
    rest = Buffer.alloc(Math.max(0, bytes - 11));
    new Random(1).fill(rest);
    padding.set(bytes, rest);
  }
  const head = String(index).padStart(11, '0').slice(-Math.min(11, bytes));
  return Buffer.concat([Buffer.from(head, 'latin1'), rest], bytes);
}

async function enough(reads: KvLoad['reads'], count: number): Promise<KvStore[]> {
  const own = stores[reads];
  while (own.length < count) own.push(await connectKv(url!, { reads }));
  return own;
}

async function run(load: KvLoad): Promise<KvResult> {
  const { op, clients, reads, keys, valueBytes, seconds, count = keys, tellAt, seed } = load;
  const own = await enough(reads, clients);
  const latency = new Histogram();
  let operations = 0;
  let failures = 0;
  let firstFailure: string | null = null;
  const failed = (why: string): void => {
    failures++;
    firstFailure ??= why;
  };
  const one = async (store: KvStore, index: number): Promise<void> => {
    const key = keyOf(index);
    const value = valueOf(index, valueBytes);
    const begunMs = performance.now();
    try {
      if (op === 'put') await store.put(key, value);
      else {
        const entry = await store.get(key);
        if (entry === null || !entry.value.equals(value)) failed(`GET ${key}: ${entry === null ? 'absent' : 'wrong'}`);
      }
    } catch (error) {
      failed(`${op} ${key}: ${String(error)}`);
    }
    latency.record((performance.now() - begunMs) * 1e6);
    if (++operations === tellAt) process.stdout.write('{"event":"at"}\n');
  };
  const cpu = process.cpuUsage();
  const begunMs = performance.now();
  const endMs = begunMs + (seconds ?? 0) * 1000;
  const client = async (index: number): Promise<void> => {
    const store = own[index]!;
    if (seconds === null) {
      for (let i = index; i < count; i += clients) await one(store, i % keys);
      return;
    }
    const random = new Random(seed * 65_537 + index);
    while (performance.now() < endMs) await one(store, Math.floor(random.unit() * keys));
  };
  await Promise.all(Array.from({ length: clients }, (_, index) => client(index)));
  const wallMs = performance.now() - begunMs;
  const { user, system } = process.cpuUsage(cpu);
  return {
    wallMs,
    operations,
    opsPerSecond: (operations * 1000) / wallMs,
    failures,
    firstFailure,
    latency: latency.summary(),
    generatorCpuPercent: (user + system) / 10 / wallMs,
    curve: load.curve === true ? curveOf(latency) : [],
  };
}

function curveOf(latency: Histogram): Array<[number, number]> {
  const shares = Array.from({ length: CURVE_POINTS }, (_, i) => i / CURVE_POINTS);
  return [...shares, 0.999, 1].map((share) => [latency.quantileNs(share) / 1e6, share]);
}

/** Keys from `from` to `to`, many in one transaction: for volumes on which something else is measured. */
async function fill(from: number, to: number, valueBytes: number): Promise<object> {
  const own = await enough('primary', FILL_CLIENTS);
  const steps = Math.max(1, Math.min(FILL_STEPS, Math.floor(FILL_BYTES / (valueBytes + 100))));
  let next = from;
  const client = async (store: KvStore): Promise<void> => {
    while (next < to) {
      const transaction = store.transaction();
      const end = Math.min(to, next + steps);
      for (; next < end; next++) transaction.put(keyOf(next), valueOf(next, valueBytes));
      await transaction.commit();
    }
  };
  await Promise.all(own.slice(0, FILL_CLIENTS).map(client));
  return { filled: to - from };
}

for await (const line of createInterface({ input: process.stdin })) {
  const request = JSON.parse(line) as KvLoad | { fill: { from: number; to: number; valueBytes: number } };
  const result =
    'fill' in request ? await fill(request.fill.from, request.fill.to, request.fill.valueBytes) : await run(request);
  process.stdout.write(`${JSON.stringify(result)}\n`);
}
await Promise.all([...stores.primary, ...stores.any].map((store) => store.close()));
