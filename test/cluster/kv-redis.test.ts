/**
 * A key-value volume on three real nodes, used by real clients of Redis: ioredis, redis-cli, redis-benchmark, while nodes
 * are killed with SIGKILL and come back.
 */
// deadline: 180 s
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import * as assert from 'uvu/assert';
import { suite } from 'uvu';
import { ERROR_SCRIPT } from '../resp/error-script.ts';
import { COMMAND_SCRIPT, TRANSACTION_SCRIPT } from '../resp/scripts.ts';
import { freePorts } from '../support/free-ports.ts';
import { KvCluster, NAMES, VOLUME } from '../support/kv-cluster.ts';
import { RedisServer, hasTool } from '../support/redis-server.ts';
import { RespClient } from '../support/resp-client.ts';
import { Pair, playTwice } from '../support/resp-pair.ts';

const run = promisify(execFile);
const missing = ['redis-server', 'redis-cli', 'redis-benchmark'].filter((tool) => !hasTool(tool));
if (missing.length > 0) process.stdout.write(`# skip: not installed: ${missing.join(', ')}\n`);

/** What nodes of a durable volume have answered. */
let synced: unknown;

interface Context {
  kv: KvCluster;
}

const test = suite<Context>('key-value volume, clients of Redis');

/** Left out where a tool is missing. */
function withTools(name: string, run: (context: Context) => Promise<void>): void {
  if (missing.length === 0) test(name, run);
}

test.before(async (context) => {
  context.kv = await KvCluster.start('32MiB');
});

test.after(async ({ kv }) => {
  await kv.stop();
});

for (const [name, script] of Object.entries({ COMMAND_SCRIPT, ERROR_SCRIPT, TRANSACTION_SCRIPT })) {
  withTools(`${name}: a backup's port answers as the real redis-server does, byte for byte`, async ({ kv }) => {
    const redis = await RedisServer.start();
    const port = kv.port((await kv.roles()).backups[0]);
    const pairs: Pair[] = [];
    const both = async (): Promise<Pair> => {
      const pair = new Pair(await redis.client(), await RespClient.open(port));
      pairs.push(pair);
      return pair;
    };
    try {
      // The number of its replicas is told instead: docs/resp.md.
      const asked = await playTwice(both, script.replaceAll(/^ *WAIT \d+ \d+$/gm, ''));
      assert.ok(asked > 90, `${asked} commands`);
    } finally {
      for (const pair of pairs) pair.close();
      await redis.stop();
    }
  });
}

test('ioredis through a backup counts on while the primary is killed: each INCR once', async ({ kv }) => {
  const { primary, backups } = await kv.roles();
  const redis = kv.connect(backups[0]);
  let counted = 0;
  let killed: Promise<unknown> | null = null;
  for (let i = 1; i <= 600; i++) {
    if (i === 200) killed = kv.cluster.kill(primary);
    const value = await redis.incr('counter');
    assert.is(value, ++counted, 'executed twice, or not at all');
  }
  await killed;
  await kv.cluster.restart(primary);
  await kv.alive();
  assert.is(await redis.get('counter'), '600');
  redis.disconnect();
  // Whoever was away answers what he missed.
  const back = kv.connect(primary);
  assert.is(await back.get('counter'), '600');
  back.disconnect();
});

test('MULTI, WATCH and TTLs hold across the nodes', async ({ kv }) => {
  const { primary, backups } = await kv.roles();
  const [one, other] = [kv.connect(primary), kv.connect(backups[0])];
  await one.mset('x', '1', 'y', '2');
  await one.watch('x');
  await other.set('x', '5');
  assert.is(await one.multi().set('y', '9').exec(), null, 'x was changed by another node');
  assert.equal(await other.mget('x', 'y'), ['5', '2']);
  const done = await other.multi().incrby('x', 10).get('x').del('y').exec();
  assert.equal(done, [
    [null, 15],
    [null, '15'],
    [null, 1],
  ]);
  assert.is(await one.exists('y'), 0);
  await one.set('soon', 'gone', 'PX', 200);
  assert.ok((await other.pttl('soon')) <= 200);
  while ((await other.get('soon')) !== null);
  const binary = Buffer.from([0, 13, 10, 255, 32, 34, 44, 40, 41]);
  await other.set(Buffer.concat([Buffer.from('bin '), binary]), binary);
  assert.equal(await one.getBuffer(Buffer.concat([Buffer.from('bin '), binary])), binary);
  one.disconnect();
  other.disconnect();
});

/** `redis-benchmark -t set,get`, to its end: it exits with an error as soon as it is answered with one. */
async function bench(port: number, pipeline: number, count: number): Promise<void> {
  const load = ['-P', String(pipeline), '-c', '50', '-n', String(count), '-r', '2000'];
  const { stdout, stderr } = await run('redis-benchmark', ['-p', String(port), '-t', 'set,get', ...load, '-q']);
  assert.match(stdout, /SET: [\d.]+ requests per second[\s\S]*GET: [\d.]+ requests per second/);
  assert.not.match(stdout + stderr, /error/i);
}

withTools('redis-benchmark runs while the primary is killed and returns, and while a backup is', async ({ kv }) => {
  const { primary, backups } = await kv.roles();
  // There is load all the time, however fast the machine is.
  let over = false;
  const load = (async () => {
    do await bench(kv.port(backups[0]), 16, 10_000);
    while (!over);
  })();
  await kv.cluster.kill(primary);
  await kv.alive(backups);
  await kv.cluster.restart(primary);
  await kv.alive();
  await kv.cluster.kill(backups[1]);
  await kv.cluster.restart(backups[1]);
  await kv.alive();
  over = true;
  await load;
});

withTools('redis-cli; all nodes hold the same', async ({ kv }) => {
  const port = String(kv.port((await kv.roles()).primary));
  await bench(kv.port('a'), 1, 4000);
  const cli = async (...args: string[]): Promise<string> =>
    (await run('redis-cli', ['-p', port, ...args])).stdout.trim();
  assert.is(await cli('SET', 'a key', 'with blanks, (commas) and "quotes"'), 'OK');
  const dumps = await Promise.all(NAMES.map((name) => kv.dump(name)));
  assert.ok(Object.keys(dumps[0]!).length > 1500);
  assert.is(dumps[0]!['a key'], Buffer.from('with blanks, (commas) and "quotes"').toString('base64'));
  for (const one of dumps.slice(1)) assert.equal(one, dumps[0]);
});

test('INFO counts the keys that go away by themselves, on a backup too', async ({ kv }) => {
  const { primary, backups } = await kv.roles();
  const [one, other] = [kv.connect(primary), kv.connect(backups[0])];
  const told = async (): Promise<number> => {
    const info = await other.info('keyspace');
    const expires = /^db0:keys=\d+,expires=(\d+),avg_ttl=0\r?$/m.exec(info)?.[1];
    assert.ok(expires !== undefined, info);
    return Number(expires);
  };
  const before = await told();
  await one.set('later', 'gone', 'EX', 1000);
  // What it answers is among its keys.
  assert.is(await other.get('later'), 'gone');
  assert.is(await told(), before + 1);
  await one.persist('later');
  assert.is(await other.ttl('later'), -1);
  assert.is(await told(), before);
  synced = await other.config('GET', 'appendfsync');
  one.disconnect();
  other.disconnect();
});

test('the replicas are equal, byte for byte', async ({ kv: { cluster } }) => {
  await cluster.untilSafe();
  assert.equal(await cluster.stopNodes(), { a: 0, b: 0, c: 0 });
  await cluster.compare(VOLUME, NAMES);
});

test('CONFIG GET appendfsync says what the volume does', async ({ kv }) => {
  assert.equal(synced, ['appendfsync', 'always']);
  const [port] = await freePorts(1);
  await kv.cluster.add('d', '--kv', `127.0.0.1:${port}`, '--kv-volume', 'fast');
  const where = ['--node', 'd', '--kind', 'kv', '--allow-sparse', '--durability', 'none'];
  await kv.cluster.create('fast', '16MiB', 1, ...where);
  await kv.cluster.untilServed('fast');
  const client = await RespClient.open(port!);
  assert.is(String(await client.call('CONFIG', 'GET', 'appendfsync')), '*2\r\n$11\r\nappendfsync\r\n$2\r\nno\r\n');
  client.close();
});

test.run();
