/** Tokens in a cluster without TLS: what admins may, and nodes that forward to each other with a token of their own. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { pause } from '../../src/cli/cluster.ts';
import { admin } from '../../src/client/admin.ts';
import { connectKv } from '../../src/client/index.ts';
import type { ReplicaStatus } from '../../src/node/replica-status.ts';
import { TestCluster } from '../support/cluster.ts';
import { failsWith } from '../support/fails-with.ts';
import { freePorts } from '../support/free-ports.ts';
import { bearer, httpGet } from '../support/https-get.ts';
import { RespClient } from '../support/resp-client.ts';
import { holdfast, temporaryFolder } from '../support/server-process.ts';
import { pskFile } from '../support/tls-files.ts';

const test = suite('security, tokens in a cluster');
const folder = temporaryFolder();
const file = join(folder, 'tokens');
const nodeFile = join(folder, 'node.token');
const passwordFile = join(folder, 'password');
const PASSWORD = 'correct horse battery staple';
const psk = pskFile(join(folder, 'psk'), 'alice');
/** Tokens. */
const made: string[] = [];
let cluster: TestCluster;
let [boss, app, viewer, stranger] = ['', '', '', ''];

async function create(name: string, ...more: string[]): Promise<string> {
  const { code, stdout, stderr } = await holdfast(['token', 'create', name, '--tokens', file, ...more]);
  assert.is(code, 0, stderr);
  made.push(stdout.toString().trim());
  return made.at(-1)!;
}

test.before(async () => {
  boss = await create('boss', '--role', 'admin');
  app = await create('app', '--role', 'read-write', '--volume', 'keys');
  viewer = await create('viewer', '--role', 'read', '--volume', 'keys');
  stranger = await create('stranger', '--role', 'read-write', '--volume', 'other');
  writeFileSync(nodeFile, await create('nodes', '--role', 'read-write'), { mode: 0o600 });
  writeFileSync(passwordFile, PASSWORD, { mode: 0o600 });
  const guards = ['--kv-password-file', passwordFile, '--nbd-tls-psk', psk.file];
  const args = ['--tokens', file, '--node-token-file', nodeFile, ...guards];
  cluster = await TestCluster.start(['a', 'b'], { args, env: { HOLDFAST_TOKEN: boss } });
});

test.after(async () => {
  await cluster.stop();
  const [key] = psk.keys.values();
  const secrets = [...made, PASSWORD, 'a wrong password', key!.toString('hex'), key!.toString('base64')];
  for (const secret of secrets) assert.not(cluster.log().includes(secret), 'a secret in the log');
});

test('an admin makes a volume, others do not even see the status', async () => {
  await cluster.create('keys', '64MiB', 2, '--kind', 'kv');
  await cluster.untilSafe();
  const env = { HOLDFAST_COORDINATOR: cluster.coordinatorUrl, HOLDFAST_TOKEN: app };
  const args = ['volume', 'create', 'more', '--size', '8MiB', '--replicas', '2', '--allow-sparse'];
  const { code, stderr } = await holdfast(args, { env });
  assert.is(code, 1);
  assert.match(stderr, /the token "app" is no admin/);
});

async function portOf(node: string): Promise<RespClient> {
  const [port] = await freePorts(1);
  await cluster.kill(node, 'SIGTERM');
  await cluster.restart(node, '--kv', `127.0.0.1:${port}`);
  await cluster.untilSafe();
  const client = await RespClient.open(port!);
  assert.match(String(await client.call('AUTH', 'a wrong password')), /^-WRONGPASS/);
  assert.is(String(await client.call('AUTH', PASSWORD)), '+OK\r\n');
  return client;
}

test('a port for Redis forwards with the token of its node', async () => {
  const backup = (await cluster.primary('keys')) === 'a' ? 'b' : 'a';
  const redis = await portOf(backup);
  assert.is(String(await redis.call('SET', 'k', 'v')), '+OK\r\n');
  redis.close();
  const url = cluster.url('keys').replace('holdfast:', 'holdfast-kv:');
  const store = await connectKv(url, { token: app, connectMs: 5000 });
  assert.is(String((await store.get('k'))!.value), 'v');
  await store.close();
});

test('and not without one', async () => {
  const backup = (await cluster.primary('keys')) === 'a' ? 'b' : 'a';
  writeFileSync(nodeFile, 'hf_none');
  const redis = await portOf(backup);
  assert.match(String(await redis.call('SET', 'k', 'w')), /^-/);
  redis.close();
});

test('R-14: a PUT of who may only read, or has another volume, is refused, and no replica has changed', async () => {
  const url = cluster.url('keys').replace('holdfast:', 'holdfast-kv:');
  const owner = await connectKv(url, { token: app, connectMs: 5000 });
  const { version } = await owner.put('k', 'before');
  const versions = (): Promise<number[]> =>
    Promise.all(
      ['a', 'b'].map(async (name) => {
        const { replicas } = await admin(cluster.slot(name).address, { op: 'status', from: 0 }, { token: boss });
        return (replicas as ReplicaStatus[]).find(({ volume }) => volume === 'keys')!.kv!.version;
      }),
    );
  const there = [version, version];
  // A backup applies it a moment after it was acknowledged.
  while (String(await versions()) !== String(there)) await pause(10);
  const reader = await connectKv(url, { token: viewer, connectMs: 5000 });
  assert.is(String((await reader.get('k'))!.value), 'before');
  await failsWith(reader.put('k', 'theirs'), 'READ_ONLY');
  await failsWith(reader.delete('k'), 'READ_ONLY');
  await reader.close();
  await failsWith(connectKv(url, { token: stranger, connectMs: 5000 }), 'ACCESS', /"stranger" does not permit/);
  assert.equal(await versions(), there);
  assert.is(String((await owner.get('k'))!.value), 'before');
  await owner.close();
});

test('the port to look at the node wants a token too, where it is opened without TLS', async () => {
  const [port] = await freePorts(1);
  await cluster.kill('a', 'SIGTERM');
  await cluster.restart('a', '--http', `0.0.0.0:${port}`, '--http-insecure');
  const at = `http://127.0.0.1:${port}`;
  assert.is((await httpGet(`${at}/healthz`)).status, 200);
  assert.is((await httpGet(`${at}/api/node`)).status, 401);
  assert.is((await httpGet(`${at}/api/node`, { authorization: bearer('hf_none') })).status, 401);
  assert.is((await httpGet(`${at}/api/node`, { authorization: bearer(app) })).status, 200);
  // On loopback nobody is asked.
  await cluster.kill('a', 'SIGTERM');
  await cluster.restart('a', '--http', `127.0.0.1:${port}`);
  assert.is((await httpGet(`${at}/api/node`)).status, 200);
});

test('who may write to a disk may hold its writers back for a backup; nobody else, and nothing else', async () => {
  await cluster.create('disk', '8MiB', 2, '--allow-sparse');
  await cluster.untilSafe();
  const { volumeId, primary } = (await cluster.status()).volumes.find(({ volume }) => volume === 'disk')!;
  const at = cluster.slot(primary).address;
  const writer = await create('writer', '--role', 'read-write', '--volume', 'disk');
  const reader = await create('reader', '--role', 'read', '--volume', 'disk');
  for (const name of ['a', 'b']) cluster.slot(name).running!.child.kill('SIGHUP');
  const hold = { op: 'hold-writes', volumeId, ms: 5000 };
  const codeOf = (token: string, request: { op: string }): Promise<string> =>
    admin(at, request, { token }).then(
      () => 'done',
      ({ code, message }: { code: string; message: string }) => `${code}: ${message}`,
    );
  // The files are read again in the background.
  while (/does not take that token/.test(await codeOf(reader, hold))) await pause(10);
  assert.match(await codeOf(app, hold), /^ACCESS: .*"app" permits no such volume/);
  assert.match(await codeOf(reader, hold), /^ACCESS: .*"reader" is no admin/);
  assert.match(await codeOf(writer, { op: 'resign', volumeId } as { op: string }), /^ACCESS: .*"writer" is no admin/);
  const { token } = await admin(at, hold, { token: writer });
  assert.equal(await admin(at, { op: 'let-writes', volumeId, token }, { token: writer }), { wasHeld: true });

  const backup = join(folder, 'disk.hfb');
  const env = { HOLDFAST_TOKEN: writer };
  const made = await holdfast(['volume', 'export', cluster.url('disk'), backup, '--mark', 'm', '--hold', '500'], {
    env,
  });
  assert.is(made.code, 0, made.stderr);
});

test.run();
