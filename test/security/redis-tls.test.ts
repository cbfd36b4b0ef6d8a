/** The port for clients of Redis under TLS: redis-cli and ioredis, with certificates, without, and with none that do. */
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { Redis } from 'ioredis';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { TestCluster } from '../support/cluster.ts';
import { freePorts } from '../support/free-ports.ts';
import { httpGet } from '../support/https-get.ts';
import { holdfast, temporaryFolder } from '../support/server-process.ts';
import { type Pair, TestCa } from '../support/tls-files.ts';
import { until } from '../support/until.ts';

const test = suite('security, the Redis port under TLS');
const folder = temporaryFolder();
const ca = new TestCa(join(folder, 'ca'));
const other = new TestCa(join(folder, 'other'));
const operator = ca.issue('operator', undefined, 2, ['URI:holdfast:admin:operator']);
const client = ca.issue('client');
const stranger = other.issue('stranger');
const ofNode = ca.issue('a', undefined, 2, ['URI:holdfast:node:a']);
const coordinator = ca.issue('coordinator');
let cluster: TestCluster;
let port = 0;
let httpPort = 0;

test.before(async () => {
  [port, httpPort] = (await freePorts(2)) as [number, number];
  const tls = (name: string): string[] => ca.flags(name === 'a' ? ofNode : coordinator);
  const args = ['--kv', `127.0.0.1:${port}`, '--kv-tls', 'require', '--http', `0.0.0.0:${httpPort}`];
  cluster = await TestCluster.start(['a'], { tls, env: ca.env(operator), args });
  await cluster.create('keys', '16MiB', 1, '--kind', 'kv', '--allow-sparse');
});

test.after(() => cluster.stop());

/** @returns what it printed, errors too */
function redisCli(pair: Pair | null, ...args: string[]): Promise<string> {
  const own = pair === null ? [] : ['--cert', pair.certFile, '--key', pair.keyFile];
  const tls = ['--tls', '--cacert', ca.certFile, ...own];
  return new Promise((resolve) => {
    execFile('redis-cli', ['-p', String(port), ...tls, ...args], { timeout: 20_000 }, (_error, stdout, stderr) =>
      resolve(`${stdout}${stderr}`.trim()),
    );
  });
}

test('redis-cli with a certificate reads and writes', async () => {
  await cluster.until(({ volumes }) => volumes[0]?.members[0]?.mode === 'ALIVE', 'the volume to be served');
  assert.is(await redisCli(client, 'SET', 'greeting', 'hello'), 'OK');
  assert.is(await redisCli(client, 'GET', 'greeting'), 'hello');
});

test('so does ioredis, many commands at once and large values', async () => {
  const read = (file: string): string => readFileSync(file, 'utf8');
  const tls = { ca: read(ca.certFile), cert: read(client.certFile), key: read(client.keyFile) };
  const redis = new Redis({ host: '127.0.0.1', port, tls, maxRetriesPerRequest: 1 });
  const value = 'v'.repeat(100_000);
  await Promise.all(Array.from({ length: 50 }, (_, i) => redis.set(`key ${i}`, `${i}${value}`)));
  const found = await redis.mget(...Array.from({ length: 5 }, (_, i) => `key ${i}`));
  assert.equal(
    found,
    Array.from({ length: 5 }, (_, i) => `${i}${value}`),
  );
  await redis.quit();
});

test('whoever shows no certificate, an expired one, or one of another CA, gets to no command', async () => {
  for (const [pair, words] of [
    [null, 'this port wants a certificate'],
    [stranger, 'comes from another CA'],
    [ca.issue('late', undefined, -1), 'the certificate has expired'],
  ] as const) {
    const said = await redisCli(pair, 'GET', 'greeting');
    assert.not.match(said, 'hello');
    assert.match(said, new RegExp(`ERR.*${words}`));
    const verdict = new RegExp(`"port":"Redis".*${words}.*refused: the certificate`);
    await until(() => verdict.test(cluster.log()), `a line: ${words}`);
  }
});

test('whoever speaks no TLS is told so in an error of Redis', async () => {
  const said = await new Promise<string>((resolve) => {
    const socket = connect(port, '127.0.0.1', () => socket.write('*1\r\n$4\r\nPING\r\n'));
    let text = '';
    socket.on('data', (bytes) => (text += bytes.toString()));
    socket.on('close', () => resolve(text));
  });
  assert.match(said, /^-ERR .*this port speaks TLS.*redis-cli --tls[^\n]*\r\n$/);
});

test('the HTTP port of a node without tokens lets in certificates of its CA', async () => {
  const at = `https://127.0.0.1:${httpPort}`;
  const caFile = ca.certFile;
  assert.is((await httpGet(`${at}/healthz`, { caFile })).status, 200);
  const { status, body } = await httpGet(`${at}/metrics`, { caFile });
  assert.is(status, 403);
  assert.match(body, /this port wants a certificate/);
  assert.is((await httpGet(`${at}/metrics`, { caFile, pair: client })).status, 200);
});

test('beyond loopback it speaks TLS by itself; off is refused there, and require without certificates everywhere', async () => {
  const own = ['--listen', '127.0.0.1:0', '--peer-listen', '127.0.0.1:0', '--coordinator', 'holdfasts://127.0.0.1:1'];
  const start = (...more: string[]): ReturnType<typeof holdfast> =>
    holdfast(['node', '--name', 'a', '--dir', join(folder, 'n'), ...own, ...more]);
  const open = ['--kv', `0.0.0.0:${port}`];
  const off = await start(...ca.flags(ofNode), ...open, '--kv-tls', 'off');
  assert.match(off.stderr, /listen for --kv: permission denied.*nothing protects it.*not --kv-tls off/);
  const none = await start('--kv', '127.0.0.1:0', '--kv-tls', 'require');
  assert.match(none.stderr, /parse --kv-tls require.*this node has no certificate/);
  // It gets past the rule, to the port, which is taken.
  const on = await start(...ca.flags(ofNode), ...open);
  assert.match(on.stderr, /in use|EADDRINUSE/);
});

test.run();
