/**
 * A key-value volume that is full grows while clients write and read: on every replica, over a primary that is killed, in
 * the middle of it, twice.
 */
// deadline: 120 s
import { existsSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { Redis } from 'ioredis';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { type KvStore, connectKv, HoldfastError } from '../../src/client/index.ts';
import { TestCluster } from '../support/cluster.ts';
import { freePorts } from '../support/free-ports.ts';
import { until } from '../support/until.ts';

const test = suite('key-value growth');
const MiB = 1024 * 1024;
const NAMES = ['a', 'b'];
const VALUE_BYTES = 60_000;
/** Between two attempts at a volume that is full. */
const FULL_MS = 20;
const CLOCK = 'clock';

/** Puts keys of its own, and now and then a number that only rises; it knows what must be there. */
class Writer {
  readonly acknowledged: Map<string, number> = new Map();
  /** Of the number: the last that was acknowledged, and the last that was sent. */
  known = 0;
  sent = 0;
  refused = 0;
  private readonly store: KvStore;
  private stopping = false;
  private readonly over: Promise<void>;
  failure: Error | null = null;

  constructor(store: KvStore) {
    this.store = store;
    this.over = this.run();
    // Thrown by whoever waits for it.
    this.over.catch((error: Error) => (this.failure = error));
  }

  private async run(): Promise<void> {
    for (let i = 0; !this.stopping;) {
      try {
        await this.store.put(CLOCK, String(++this.sent));
        this.known = this.sent;
        await this.store.put(`key ${i}`, Buffer.alloc(VALUE_BYTES, i));
        this.acknowledged.set(`key ${i}`, i++);
      } catch (error) {
        if (!(error instanceof HoldfastError)) throw error;
        // Sent to a primary that died, and refused by the next: the first may have executed it.
        if (error.code === 'OUTCOME_UNKNOWN') continue;
        if (error.code !== 'NO_SPACE') throw error;
        this.refused++;
        await new Promise((resolve) => setTimeout(resolve, FULL_MS));
      }
    }
  }

  /** @throws if anything came but that the volume is full */
  async stop(): Promise<void> {
    this.stopping = true;
    await this.over;
  }
}

/** Reads the number at one node, which may be the primary or a backup. */
class Reader {
  reads = 0;
  private stopping = false;
  private readonly over: Promise<void>;

  constructor(store: KvStore, writer: Writer, name: string) {
    this.over = this.run(store, writer, name);
    this.over.catch(() => {});
  }

  private async run(store: KvStore, writer: Writer, name: string): Promise<void> {
    while (!this.stopping) {
      const { known } = writer;
      const found = Number((await store.get(CLOCK))?.value.toString() ?? 0);
      assert.ok(found >= known && found <= writer.sent, `${name}: ${found}, of ${known} to ${writer.sent}`);
      this.reads++;
    }
  }

  async stop(): Promise<void> {
    this.stopping = true;
    await this.over;
  }
}

const folder = (cluster: TestCluster, node: string): string => join(cluster.slot(node).dir, 'volumes', 'keys');
const isGrowing = (cluster: TestCluster, node: string): boolean => existsSync(join(folder(cluster, node), 'growing'));

async function untilFull(writer: Writer): Promise<number> {
  const { refused } = writer;
  await until(() => writer.refused > refused + 3 || writer.failure !== null, 'the volume to be full');
  if (writer.failure !== null) throw writer.failure;
  return writer.acknowledged.size;
}

test('a full volume takes writes again; the primary is killed in the middle, and the command is given again', async () => {
  const cluster = await TestCluster.start([]);
  try {
    await scenario(cluster);
  } finally {
    await cluster.stop();
  }
});

async function scenario(cluster: TestCluster): Promise<void> {
  const ports = await freePorts(NAMES.length);
  for (const [i, name] of NAMES.entries()) await cluster.add(name, '--kv', `127.0.0.1:${ports[i]!}`);
  await cluster.create('keys', '6MiB', 2, '--kind', 'kv');
  await cluster.untilSafe();
  const url = `holdfast-kv://${NAMES.map((name) => cluster.slot(name).address).join(',')}/keys`;
  const store = await connectKv(url);
  const at = (name: string): Promise<KvStore> =>
    connectKv(`holdfast-kv://${cluster.slot(name).address}/keys`, { reads: 'listed' });
  const writer = new Writer(store);
  const there = new Map(await Promise.all(NAMES.map(async (name) => [name, await at(name)] as const)));
  const readers = [...there].map(([name, one]) => new Reader(one, writer, name));
  const small = await untilFull(writer);

  // --- no accident; what is behind the last whole MiB is used from the next growth on ---
  const size = 12 * MiB + 40_960;
  const primary = await cluster.primary('keys');
  const lines = (await cluster.must('volume', 'grow', 'keys', '--size', String(size))).trim().split('\n');
  assert.is(lines.at(-1), 'keys has grown from 6 MiB to 12 MiB, on a, b');
  assert.match(lines.at(-2)!, new RegExp(`^${primary}: its disk has room`), 'the primary last');
  assert.is((await store.info()).sizeBytes, size);
  const medium = await untilFull(writer);
  assert.ok(medium > 2 * small, `${small} keys, then ${medium}`);
  for (const port of ports) {
    const redis = new Redis({ port, host: '127.0.0.1' });
    assert.match(await redis.info(), new RegExp(`volume_size_bytes:${size}\\r`));
    redis.disconnect();
  }

  // --- the primary dies while it makes room ---
  const victim = await cluster.primary('keys');
  const command = cluster.cli('volume', 'grow', 'keys', '--size', '24MiB');
  await until(() => isGrowing(cluster, victim), `${victim} to begin`);
  await cluster.kill(victim);
  assert.is((await command).code, 1);
  await cluster.restart(victim);
  await cluster.untilSafe();
  assert.is((await store.info()).sizeBytes, size, 'the size is what it was');
  assert.is(statSync(join(folder(cluster, victim), 'data')).size, size);
  assert.is(await untilFull(writer), medium);

  // --- given again; it dies when its backup has room, and it has not ---
  const other = await cluster.primary('keys');
  const backup = NAMES.find((name) => name !== other)!;
  const again = cluster.must('volume', 'grow', 'keys', '--size', '24MiB');
  await until(() => isGrowing(cluster, backup), `${backup} to begin`);
  await until(() => !isGrowing(cluster, backup), `${backup} to have room`);
  await cluster.kill(other);
  await cluster.restart(other);
  const said = await again.catch((error: Error) => error.message);
  if (!said.includes('keys has grown')) await cluster.must('volume', 'grow', 'keys', '--size', '24MiB');
  assert.is((await store.info()).sizeBytes, 24 * MiB);
  await until(() => writer.acknowledged.size > medium + 20 || writer.failure !== null, 'new keys');

  // --- every key is at every replica ---
  await writer.stop();
  for (const reader of readers) await reader.stop();
  for (const { reads } of readers) assert.ok(reads > 50, `${reads} reads`);
  await cluster.untilSafe();
  assert.match(await cluster.must('volume', 'verify', 'keys'), /^EQUAL: keys/);
  for (const [name, one] of there) {
    for (const [key, i] of writer.acknowledged) {
      const { value } = (await one.get(key))!;
      assert.ok(value.length === VALUE_BYTES && value.every((byte) => byte === i % 256), `${key} at ${name}`);
    }
    await one.close();
  }
  await store.close();
  assert.equal(await cluster.stopNodes(), { a: 0, b: 0 });
  await cluster.compare('keys', NAMES);
}

test.run();
