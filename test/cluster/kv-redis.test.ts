/**
 * A key-value volume on three real nodes, used by real clients of Redis: ioredis, redis-cli, redis-benchmark, while nodes
 * are killed with SIGKILL and come back.
 */
// deadline: 180 s
import { execFile, spawnSync } from 'node:child_process';
import { promisify } from 'node:util';
import * as assert from 'uvu/assert';
import { suite } from 'uvu';
import { KvCluster, NAMES, VOLUME } from '../support/kv-cluster.ts';

const run = promisify(execFile);
const hasRedis = spawnSync('redis-cli', ['--version']).status === 0;

const test = suite<{ kv: KvCluster }>('key-value volume, clients of Redis');

test.before(async (context) => {
  context.kv = await KvCluster.start('32MiB');
});

test.after(async ({ kv }) => {
  await kv.stop();
});

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

test('redis-cli and redis-benchmark run while a backup is killed and returns; all nodes hold the same', async ({
  kv,
}) => {
  if (!hasRedis) return console.log('skipped: redis-tools is not installed');
  const { primary, backups } = await kv.roles();
  const port = String(kv.port(primary));
  const bench = (pipeline: string, count: string): Promise<{ stdout: string }> =>
    run('redis-benchmark', [
      '-p',
      port,
      '-t',
      'set,get',
      '-P',
      pipeline,
      '-c',
      '50',
      '-n',
      count,
      '-r',
      '2000',
      '-q',
      '-e',
    ]);
  const first = bench('1', '6000');
  await kv.cluster.kill(backups[0]);
  assert.match((await first).stdout, /SET: [\d.]+ requests per second[\s\S]*GET: [\d.]+ requests per second/);
  const second = bench('16', '30000');
  await kv.cluster.restart(backups[0]);
  const { stdout } = await second;
  assert.match(stdout, /SET: [\d.]+ requests per second[\s\S]*GET: [\d.]+ requests per second/);
  assert.not.match(stdout, /[Ee]rror/);
  await kv.alive();
  const cli = async (...args: string[]): Promise<string> =>
    (await run('redis-cli', ['-p', port, ...args])).stdout.trim();
  assert.is(await cli('SET', 'a key', 'with blanks, (commas) and "quotes"'), 'OK');
  const dumps = await Promise.all(NAMES.map((name) => kv.dump(name)));
  assert.ok(Object.keys(dumps[0]!).length > 1500);
  assert.is(dumps[0]!['a key'], Buffer.from('with blanks, (commas) and "quotes"').toString('base64'));
  for (const one of dumps.slice(1)) assert.equal(one, dumps[0]);
});

test('the replicas are equal, byte for byte', async ({ kv: { cluster } }) => {
  await cluster.untilSafe();
  assert.equal(await cluster.stopNodes(), { a: 0, b: 0, c: 0 });
  await cluster.compare(VOLUME, NAMES);
});

test.run();
