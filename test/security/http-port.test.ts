/** The HTTP port of a node with TLS and tokens, reached as from another machine: who is let in, and who is not. */
import { copyFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { connect as connectTls } from 'node:tls';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { secretOf } from '../../src/node/http-door.ts';
import { TestCluster } from '../support/cluster.ts';
import { freePorts } from '../support/free-ports.ts';
import { type HttpAnswer, type HttpAsked, basic, bearer, httpGet, openGet } from '../support/https-get.ts';
import { holdfast, temporaryFolder } from '../support/server-process.ts';
import { type Pair, TestCa } from '../support/tls-files.ts';
import { until } from '../support/until.ts';

const test = suite('security, the HTTP port');
const folder = temporaryFolder();
const ca = new TestCa(join(folder, 'ca'));
const other = new TestCa(join(folder, 'other'));
const NODE = ['URI:holdfast:node:a'];
const live: Pair = { certFile: join(folder, 'live-cert.pem'), keyFile: join(folder, 'live-key.pem') };
const tokens = join(folder, 'tokens');
const OPEN = ['/healthz', '/readyz'];
const CLOSED = ['/', '/api/node', '/api/cluster', '/api/events', '/api/stream', '/api/dirty/00', '/metrics', '/none'];
let cluster: TestCluster;
let url = '';
let port = 0;
let reader = '';

function put(pair: Pair): void {
  copyFileSync(pair.certFile, live.certFile);
  copyFileSync(pair.keyFile, live.keyFile);
}

async function create(name: string, ...more: string[]): Promise<string> {
  const { code, stdout, stderr } = await holdfast(['token', 'create', name, '--tokens', tokens, ...more]);
  assert.is(code, 0, stderr);
  return stdout.toString().trim();
}

const ask = (path: string, asked: HttpAsked = {}): Promise<HttpAnswer> =>
  httpGet(url + path, { caFile: ca.certFile, ...asked });
const logged = (words: string): Promise<void> => until(() => cluster.log().includes(words), `a line: ${words}`);

/** All that comes back for these bytes. */
function said(secure: boolean, text: string): Promise<string> {
  return new Promise((resolve) => {
    const at = { host: '127.0.0.1', port };
    const socket = secure ? connectTls({ ...at, rejectUnauthorized: false }) : connect(at);
    let got = '';
    socket.on('data', (chunk) => (got += chunk.toString()));
    socket.on('error', () => {});
    socket.on('close', () => resolve(got));
    socket.write(text);
  });
}

test.before(async () => {
  reader = await create('reader', '--role', 'read', '--volume', 'disk');
  put(ca.issue('a', undefined, 2, NODE));
  [port] = (await freePorts(1)) as [number];
  url = `https://127.0.0.1:${port}`;
  const coordinator = ca.issue('coordinator');
  const operator = ca.issue('operator', undefined, 2, ['URI:holdfast:admin:operator']);
  const tls = (name: string): string[] => ca.flags(name === 'a' ? live : coordinator);
  const args = ['--http', `0.0.0.0:${port}`, '--tokens', tokens];
  cluster = await TestCluster.start(['a'], { tls, env: ca.env(operator), args });
});

test.after(() => cluster.stop());

test('a token in a header, as programs and as browsers send it', () => {
  assert.is(secretOf(bearer('hf_x')), 'hf_x');
  assert.is(secretOf('bearer   hf_x '), 'hf_x');
  assert.is(secretOf(basic('hf_x')), 'hf_x');
  assert.is(secretOf(`Basic ${Buffer.from(':hf:x').toString('base64')}`), 'hf:x');
  for (const none of [undefined, '', 'Bearer', 'Bearer ', 'hf_x', 'Digest hf_x', 'Basic !', basic(''), 'Bearer a b']) {
    assert.is(secretOf(none), null, none);
  }
});

test('plain HTTP is refused, in words that its client understands', async () => {
  const answer = await said(false, `GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n`);
  assert.match(answer, /^HTTP\/1.1 403 .*this port speaks TLS.*https:\/\//s);
  await logged('refused: no TLS');
});

test('without a token: whether it lives and is ready, and nothing else', async () => {
  for (const path of OPEN) assert.is((await ask(path)).status, 200, path);
  for (const path of CLOSED) {
    const { status, headers, body } = await ask(path);
    assert.is(status, 401, path);
    assert.match(String(headers['www-authenticate']), /^Basic realm=.*Bearer realm=/);
    assert.ok(String(headers['content-security-policy']).startsWith("default-src 'self'; "));
    assert.equal(Object.keys(JSON.parse(body) as object), ['error'], body);
  }
  await logged('refused: no token');
  // No other spelling leads past the door.
  for (const path of [
    '//api/node',
    '/healthz/../api/node',
    '/healthz%2f..%2fapi/node',
    '/api/node?/healthz',
    '/readyz/',
  ]) {
    const answer = await said(true, `GET ${path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n`);
    assert.match(answer, /^HTTP\/1.1 4\d\d /, path);
    assert.not.match(answer, 'replicas');
  }
});

test('a wrong token gets no further, and ends the connection', async () => {
  for (const authorization of [bearer('hf_wrong-secret'), basic('hf_wrong-secret'), bearer(`${reader}x`)]) {
    const { status, headers, body } = await ask('/metrics', { authorization });
    assert.equal([status, headers['connection']], [401, 'close']);
    assert.match(body, /does not take that token/);
  }
  await logged('refused: the token');
});

test('a token that may only read one volume is enough, from programs and from browsers', async () => {
  for (const authorization of [bearer(reader), basic(reader)]) {
    for (const path of ['/', '/api/node', '/api/cluster', '/api/events', '/metrics', '/healthz']) {
      assert.is((await ask(path, { authorization })).status, 200, path);
    }
    assert.is((await ask('/api/node', { authorization, method: 'POST' })).status, 405);
  }
  await logged('"port":"HTTP"');
  await logged('"token":"reader"');
  assert.not.match(cluster.log(), reader);
  assert.not.match(cluster.log(), 'hf_wrong-secret');
  assert.not.match(cluster.log(), Buffer.from(`me:${reader}`).toString('base64'));
});

test("an operator's certificate does for a token; a client's does not, and one of another CA is refused", async () => {
  const operator = ca.issue('viewer', undefined, 2, ['URI:holdfast:admin:viewer']);
  assert.is((await ask('/api/node', { pair: operator })).status, 200);
  const client = ca.issue('client');
  assert.is((await ask('/api/node', { pair: client })).status, 401);
  assert.is((await ask('/api/node', { pair: client, authorization: bearer(reader) })).status, 200);
  const foreign = await ask('/healthz', { pair: other.issue('stranger'), authorization: bearer(reader) });
  assert.is(foreign.status, 403);
  assert.match(foreign.body, /comes from another CA/);
});

test('whoever does not finish a request is cut off behind TLS too', async () => {
  const answer = await said(true, 'GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Slow: ');
  assert.match(answer, /^HTTP\/1.1 408 /);
});

test('a new certificate is shown to new connections; a token that is removed ends its streams', async () => {
  const hangUp = (): void => void cluster.slot('a').running!.child.kill('SIGHUP');
  const authorization = bearer(await create('viewer', '--role', 'read'));
  const taken = (what: string): number => cluster.log().split(`${what}: the new files are in force`).length;
  const renewed = async (what: string): Promise<void> => {
    const before = taken(what);
    hangUp();
    await until(() => taken(what) > before, `new files of ${what}`);
  };
  await renewed('tokens');
  const { fingerprint: before } = await ask('/healthz');
  const stream = await openGet(`${url}/api/stream`, { caFile: ca.certFile, authorization });
  assert.is(stream.statusCode, 200);
  let text = '';
  let ended = false;
  stream.on('data', (chunk: Buffer) => (text += chunk.toString()));
  stream.on('error', () => {});
  stream.on('close', () => (ended = true));

  put(ca.issue('a2', undefined, 2, NODE));
  await renewed('TLS');
  const { status, fingerprint: after } = await ask('/api/node', { authorization });
  assert.is(status, 200);
  assert.is.not(after, before);
  text = '';
  await until(() => text.includes('event: rates'), 'the stream to go on');
  assert.not.ok(ended);

  const { code, stderr } = await holdfast(['token', 'remove', 'viewer', '--tokens', tokens]);
  assert.is(code, 0, stderr);
  hangUp();
  await until(() => ended, 'the end of the stream');
  assert.is((await ask('/api/node', { authorization })).status, 401);
  assert.is((await ask('/api/node', { authorization: bearer(reader) })).status, 200);
});

test('beyond loopback it is opened only where it is protected; off and insecure have to be said', async () => {
  const own = ['--listen', '127.0.0.1:0', '--peer-listen', '127.0.0.1:0', '--coordinator', 'holdfasts://127.0.0.1:1'];
  const start = async (...more: string[]): Promise<string> => {
    const args = ['node', '--name', 'a', '--dir', join(folder, 'n'), ...own, ...more];
    const { code, stderr } = await holdfast(args);
    assert.is(code, 1);
    return stderr;
  };
  const open = ['--http', `0.0.0.0:${port}`];
  const unprotected = /listen for --http: permission denied.*nothing protects it.*--http-insecure/s;
  assert.match(await start(...open), unprotected);
  assert.match(await start(...open, '--tokens', tokens), unprotected);
  assert.match(await start(...open, ...ca.flags(live), '--http-tls', 'off'), unprotected);
  assert.match(await start(...open, ...ca.flags(live), '--tls-client-cert', 'allow'), unprotected);
  assert.match(await start('--http', '127.0.0.1:0', '--http-tls', 'require'), /--http-tls require.*no certificate/);
  // They get past the rule, to the port, which is taken.
  assert.match(await start(...open, ...ca.flags(live)), /in use|EADDRINUSE/);
  assert.match(await start(...open, ...ca.flags(live), '--tls-client-cert', 'allow', '--tokens', tokens), /EADDRINUSE/);
});

test.run();
