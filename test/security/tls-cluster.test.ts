/** A whole cluster under TLS: coordinator, nodes, clients, the command line; and nodes that are not who they say. */
import { X509Certificate } from 'node:crypto';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { connect } from '../../src/client/index.ts';
import { openCoordinator } from '../../src/coordination/open.ts';
import type { HoldfastError } from '../../src/base/errors.ts';
import { encodePeerHello } from '../../src/protocol/peer-hello.ts';
import { peerHead, peerPayload } from '../../src/protocol/peer.ts';
import { TestCluster } from '../support/cluster.ts';
import { freePorts } from '../support/free-ports.ts';
import { ToldMetrics } from '../support/metrics.ts';
import { RespClient } from '../support/resp-client.ts';
import { holdfast, temporaryFolder } from '../support/server-process.ts';
import { type Pair, TestCa } from '../support/tls-files.ts';
import { until } from '../support/until.ts';
import { readFileSync } from 'node:fs';
import { connect as connectPlain } from 'node:net';
import { connect as connectTls } from 'node:tls';

const test = suite('security, a cluster under TLS');
const folder = temporaryFolder();
const ca = new TestCa(join(folder, 'ca'));
const other = new TestCa(join(folder, 'other'));
const operator = ca.issue('operator', undefined, 2, ['URI:holdfast:admin:operator']);
const client = ca.issue('client');
const ofNode = new Map(['a', 'b'].map((name) => [name, ca.issue(name, undefined, 2, [`URI:holdfast:node:${name}`])]));
const coordinatorPair = ca.issue('coordinator');
let cluster: TestCluster;
let peerPort = 0;
let token = '';

test.before(async () => {
  const tls = (name: string): string[] => ca.flags(ofNode.get(name) ?? coordinatorPair);
  // A node and an operator need no token: they are known by their certificates. A client needs both.
  const tokens = join(folder, 'tokens');
  const create = ['token', 'create', 'app', '--role', 'read-write', '--volume', 'v', '--tokens', tokens];
  token = (await holdfast(create)).stdout.toString().trim();
  cluster = await TestCluster.start(['a', 'b'], { tls, env: ca.env(operator), args: ['--tokens', tokens] });
  const slot = cluster.slot('a');
  peerPort = Number(slot.args[slot.args.indexOf('--peer-listen') + 1]!.split(':')[1]);
});

test.after(() => cluster.stop());

test('replicas are made, kept in sync and failed over, all of it under TLS', async () => {
  await cluster.create('v', '16MiB', 2);
  await cluster.untilSafe();
  const volume = await connect(cluster.url('v'), { token, tls: { caFile: ca.certFile, ...client } });
  const bytes = Buffer.alloc(1024 * 1024, 'replicated');
  await volume.write(0, bytes);
  const primary = await cluster.primary('v');
  await cluster.kill(primary);
  await volume.write(bytes.length, bytes);
  await cluster.restart(primary);
  await cluster.untilSafe();
  assert.is(Buffer.compare(await volume.read(bytes.length, bytes.length), bytes), 0);
  await volume.close();
});

test('the key-value port forwards to the primary under TLS', async () => {
  await cluster.create('keys', '64MiB', 2, '--kind', 'kv');
  const primary = await cluster.primary('keys');
  const backup = primary === 'a' ? 'b' : 'a';
  await cluster.kill(backup, 'SIGTERM');
  const [port, http] = await freePorts(2);
  await cluster.restart(backup, '--kv', `127.0.0.1:${port}`, '--http', `127.0.0.1:${http}`);
  await cluster.untilSafe();
  const redis = await RespClient.open(port!);
  assert.is(String(await redis.call('SET', 'k', 'v')), '+OK\r\n');
  assert.is(String(await redis.call('GET', 'k')), '$1\r\nv\r\n');
  redis.close();
  // What Prometheus is told of keys, at a backup that answers, and of its certificate.
  const told = await ToldMetrics.of(`http://127.0.0.1:${http}/metrics`);
  const kv = (name: string): number => told.of(`holdfast_kv_${name}`, { volume: 'keys', node: backup });
  assert.equal([kv('answers'), kv('keys')], [1, 1]);
  assert.ok(kv('live_bytes') > 0 && kv('used_bytes') >= kv('live_bytes'), told.text);
  const { validTo } = new X509Certificate(readFileSync(ofNode.get(backup)!.certFile));
  const expires = told.of('holdfast_certificate_expires_timestamp_seconds', { node: backup });
  assert.is(expires * 1000, Date.parse(validTo));
  assert.ok(told.of('holdfast_streams_queued_bytes', { node: backup }) >= 0);
});

test("a client's certificate does not do at the coordinator", async () => {
  const { code, stderr } = await holdfast(['volume', 'list'], {
    env: { ...ca.env(client), HOLDFAST_COORDINATOR: cluster.coordinatorUrl },
  });
  assert.is(code, 1);
  assert.match(stderr, /ACCESS|permission denied/);
  assert.match(stderr, /the certificate names no node.*URI:holdfast:admin:NAME/);
});

async function refusalOfCoordinator(url: string, pair: Pair | null): Promise<string> {
  const text = (file: string): string => readFileSync(file, 'utf8');
  const own = pair === null ? {} : { cert: text(pair.certFile), key: text(pair.keyFile) };
  const tls = url.startsWith('holdfasts') ? { ca: text(ca.certFile), ...own } : undefined;
  const coordinator = openCoordinator(url, { deadlineMs: 4000, tls });
  try {
    await coordinator.list();
    return 'it was let in';
  } catch (error) {
    return `${(error as HoldfastError).code} ${(error as Error).message}`;
  } finally {
    await coordinator.close();
  }
}

test('who else is refused by the coordinator, in words', async () => {
  const url = cluster.coordinatorUrl;
  const admin = ['URI:holdfast:admin:x'];
  assert.is(await refusalOfCoordinator(url, operator), 'it was let in');
  assert.match(await refusalOfCoordinator(url, null), /^ACCESS.*wants a certificate/);
  assert.match(await refusalOfCoordinator(url, ca.issue('late', undefined, -1, admin)), /^ACCESS.*has expired/);
  assert.match(await refusalOfCoordinator(url, other.issue('x', undefined, 2, admin)), /^ACCESS.*another CA/);
  assert.match(await refusalOfCoordinator(url.replace('holdfasts', 'holdfast'), null), /^ACCESS.*speaks TLS/);
});

/** What the port for nodes says to a HELLO from that node with those files; '' if it says nothing bad. */
function knock(pair: Pair | null, from: string): Promise<string> {
  const text = (file: string): string => readFileSync(file, 'utf8');
  const own = pair === null ? {} : { cert: text(pair.certFile), key: text(pair.keyFile) };
  return new Promise((resolve) => {
    const options = { host: '127.0.0.1', port: peerPort, ca: text(ca.certFile), ...own };
    let heard = '';
    const socket = connectTls({ ...options, checkServerIdentity: () => undefined }, () => {
      const ids = { volumeId: '11'.repeat(16), registerId: '22'.repeat(16), streamId: '33'.repeat(16) };
      const hello = { minVersion: 1, maxVersion: 1, ...ids, volume: 'v', from, to: 'a', bootId: 'boot' };
      socket.write(peerHead(peerPayload('HELLO', encodePeerHello(hello)), 0));
    });
    socket.setEncoding('utf8');
    socket.on('data', (chunk: string) => (heard += chunk));
    socket.on('error', () => {});
    socket.on('close', () => resolve(heard));
  });
}

test('whoever speaks no TLS at the port for nodes is told so, and gets no further', async () => {
  const heard = await new Promise<string>((resolve) => {
    const socket = connectPlain(peerPort, '127.0.0.1', () => {
      const ids = { volumeId: '11'.repeat(16), registerId: '22'.repeat(16), streamId: '33'.repeat(16) };
      const hello = { minVersion: 1, maxVersion: 1, ...ids, volume: 'v', from: 'b', to: 'a', bootId: 'boot' };
      socket.write(peerHead(peerPayload('HELLO', encodePeerHello(hello)), 0));
    });
    let text = '';
    socket.on('data', (bytes) => (text += bytes.toString('latin1')));
    socket.on('error', () => {});
    socket.on('close', () => resolve(text));
  });
  assert.match(heard, /this port speaks TLS, and what came is none/);
  assert.not.match(heard, /has v as/);
  await until(() => /"port":"nodes".*refused: no TLS/.test(cluster.log()), 'a line of log');
});

test('nobody but a node, under its own name, gets a word with a node', async () => {
  assert.match(await knock(client, 'b'), /the certificate names no node.*URI:holdfast:node:NAME/);
  assert.match(await knock(operator, 'b'), /the certificate names no node/);
  assert.match(await knock(null, 'b'), /wants a certificate/);
  assert.match(await knock(ca.issue('old', undefined, -1, ['URI:holdfast:node:b']), 'b'), /has expired/);
  assert.match(await knock(other.issue('b', undefined, 2, ['URI:holdfast:node:b']), 'b'), /comes from another CA/);
  // Its own name, and another volume: that is looked at only after who it is.
  assert.match(await knock(ofNode.get('b')!, 'b'), /has v as 1111/);
  const stranger = ca.issue('c', undefined, 2, ['URI:holdfast:node:c']);
  assert.match(await knock(stranger, 'b'), /it says that it is b, and its certificate is of c/);
  // A name that only looks as if it held a second entry.
  const two = ca.issue('two', undefined, 2, ['URI:holdfast:node:b', 'URI:holdfast:node:c']);
  assert.match(await knock(two, 'b'), /the certificate names node b and c/);
  await until(() => cluster.log().includes('comes from another CA'), 'a line of log');
});

test.run();
