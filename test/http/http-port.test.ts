/** Who is answered on the HTTP port of a node, with what, and who is not. */
// deadline: 180 s
import { request } from 'node:http';
import { type Socket, connect as connectTcp } from 'node:net';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { suite } from 'uvu';
import type { ClusterView } from '../../src/cli/cluster-status.ts';
import type { Happening } from '../../src/node/timeline.ts';
import { CoordinatorProcess } from '../support/coordinators.ts';
import { EventStream } from '../support/event-stream.ts';
import { HttpCluster } from '../support/http-cluster.ts';
import { until } from '../support/until.ts';

const test = suite('the HTTP port');

interface Answer {
  status: number;
  headers: Record<string, string | string[] | undefined>;
  body: string;
}

function ask(
  url: string,
  options: { method?: string; headers?: Record<string, string>; body?: string } = {},
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const { method = 'GET', headers = {}, body = '' } = options;
    const sent = request(url, { method, headers, agent: false }, (response) => {
      let text = '';
      response.setEncoding('utf8');
      response.on('data', (chunk: string) => (text += chunk));
      response.on('end', () => resolve({ status: response.statusCode!, headers: response.headers, body: text }));
    });
    sent.on('error', reject);
    sent.end(body);
  });
}

/** What comes back for bytes as they are, until the connection ends. */
function raw(url: string, text: string): Promise<string> {
  const { hostname, port } = new URL(url);
  return new Promise((resolve) => {
    let got = '';
    const socket = connectTcp(Number(port), hostname, () => socket.write(text));
    socket.on('data', (chunk) => (got += chunk.toString()));
    socket.on('error', () => {});
    socket.on('close', () => resolve(got));
  });
}

let http: HttpCluster;

test.before(async () => {
  http = await HttpCluster.start(['a', 'b'], '--http-host', 'disks.example');
  await http.cluster.create('disk', '16MiB', 2, '--allow-sparse');
  await http.cluster.untilSafe();
});

test.after(async () => {
  await http.cluster.stop();
});

test('each route answers, with the headers that keep a page to itself', async () => {
  const paths = [
    '/healthz',
    '/readyz',
    '/api/node',
    '/api/cluster',
    '/api/events',
    '/metrics',
    '/vendor/uplot/uPlot.min.css',
  ];
  for (const path of [...paths, '/vendor/uplot/uPlot.esm.js', '/nothing', '/vendor/uplot/']) {
    const { status, headers } = await ask(http.url('a', path));
    assert.is(status, path === '/nothing' ? 404 : path === '/vendor/uplot/' ? 403 : 200, path);
    const policy = String(headers['content-security-policy']);
    assert.ok(policy.startsWith("default-src 'self'; ") && policy.includes("frame-ancestors 'none'"), policy);
    assert.not.match(policy, /unsafe|\*|http/);
    assert.equal([headers['x-content-type-options'], headers['referrer-policy']], ['nosniff', 'no-referrer']);
    assert.is(headers['access-control-allow-origin'], undefined);
  }
  const { body: node } = await http.json<{ node: string; replicas: Array<{ volume: string }> }>('a', '/api/node');
  assert.equal([node.node, node.replicas.map(({ volume }) => volume)], ['a', ['disk']]);
  const { body: look } = await http.json<{ view: ClusterView }>('a', '/api/cluster');
  assert.is(look.view.verdict, 'safe');
  assert.is((await http.json('a', '/api/dirty/00?member=b')).status, 404);
  for (const path of ['/vendor/uplot/../package.json', '/..%2f..%2fpackage.json', '/vendor/uplot/..%2fpackage.json']) {
    const answer = await raw(http.url('a', ''), `GET ${path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n`);
    assert.match(answer, /^HTTP\/1.1 (?:400|403|404) /, path);
  }
});

test('a name that was not given is refused, for streams and files too', async () => {
  const port = new URL(http.url('a', '')).port;
  const cases: Array<[string, number]> = [
    ['localhost', 200],
    [`localhost:${port}`, 200],
    [`127.0.0.1:${port}`, 200],
    ['[::1]', 200],
    ['Disks.Example:80', 200],
    ['evil.example', 403],
    ['localhost.evil.example', 403],
    ['127.0.0.1.evil.example', 403],
    ['127.0.0.2', 403],
    ['10.0.0.1', 403],
    ['localhost@evil.example', 403],
  ];
  for (const [host, expected] of cases) {
    for (const path of ['/healthz', '/api/cluster', '/vendor/uplot/uPlot.min.css']) {
      assert.is((await ask(http.url('a', path), { headers: { host } })).status, expected, `${host} ${path}`);
    }
  }
  assert.is((await ask(http.url('a', '/api/stream'), { headers: { host: 'evil.example' } })).status, 403);
});

test('nothing but GETs, and nothing large', async () => {
  for (const method of ['POST', 'PUT', 'DELETE', 'PATCH', 'OPTIONS']) {
    const { status, headers } = await ask(http.url('a', '/api/node'), { method });
    assert.equal([status, headers['allow']], [405, 'GET, HEAD'], method);
  }
  const large = 'x'.repeat(64 * 1024);
  assert.is(
    (await ask(http.url('a', '/healthz'), { headers: { 'x-large': large } }).catch(() => null))?.status ?? 431,
    431,
  );
  const posted = ask(http.url('a', '/api/node'), {
    method: 'POST',
    body: large,
    headers: { 'content-type': 'text/plain' },
  });
  assert.is((await posted.catch(() => null))?.status ?? 405, 405);
  for (const bytes of [
    '\0\0\0\0\r\n\r\n',
    'GET / HTTP/9.9\r\n\r\n',
    'GET\r\n\r\n',
    `GET /${'a'.repeat(20_000)} HTTP/1.1\r\n\r\n`,
  ]) {
    assert.match(await raw(http.url('a', ''), bytes), /^(?:HTTP\/1.1 4\d\d |$)/);
  }
  assert.is((await ask(http.url('a', '/healthz'))).status, 200);
});

test('whoever does not finish a request is cut off', async () => {
  const answer = await raw(http.url('a', ''), 'GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Slow: ');
  assert.match(answer, /^HTTP\/1.1 408 /);
});

test('32 streams, and not one more; a place that is left is free', async () => {
  const url = http.url('b', '/api/stream');
  const streams = Array.from({ length: 32 }, () => new EventStream(url));
  for (const stream of streams)
    await stream.first('cluster', ({ view }) => view !== undefined, 'a look at the cluster');
  assert.is(streams[0]!.headers['content-type'], 'text/event-stream; charset=utf-8');
  assert.ok(String(streams[0]!.headers['content-security-policy']).includes("frame-ancestors 'none'"));
  assert.is((await ask(url)).status, 503);
  streams.pop()!.close();
  // The node hears of the end of the other one when it does.
  let last = new EventStream(url);
  await until(() => last.status !== 0, 'an answer');
  for (let tries = 0; tries < 100 && last.status !== 200; tries++) {
    last = new EventStream(url);
    await until(() => last.status !== 0, 'an answer');
  }
  assert.is(last.status, 200);
  const first = streams[0]!;
  await first.first('rates', ({ node }) => node === 'b', 'rates');
  for (const stream of [...streams, last]) stream.close();
});

test('128 connections, and not one more; a place that is left is free', async () => {
  const { hostname, port } = new URL(http.url('a', ''));
  const get = 'GET /healthz HTTP/1.1\r\nHost: localhost\r\n';
  const sockets: Socket[] = [];
  // Some are open already. Answered, each has 30 s for its next request.
  for (let open = true; open && sockets.length <= 128;) {
    const socket = connectTcp(Number(port), hostname, () => socket.write(`${get}\r\n`));
    socket.on('error', () => {});
    open = await new Promise((resolve) => {
      socket.once('data', (answer) => resolve(answer.toString().startsWith('HTTP/1.1 200 ')));
      socket.once('close', () => resolve(false));
    });
    if (open) sockets.push(socket);
  }
  assert.ok(sockets.length > 100 && sockets.length <= 128, `${sockets.length}`);
  const oneMore = (): Promise<string> => raw(http.url('a', ''), `${get}Connection: close\r\n\r\n`);
  assert.is(await oneMore(), '');
  sockets.pop()!.destroy();
  // The node hears of the end of the other one when it does.
  let answer = '';
  for (let tries = 0; tries < 1000 && answer === ''; tries++) answer = await oneMore();
  assert.match(answer, /^HTTP\/1.1 200 /);
  for (const socket of sockets) socket.destroy();
  for (let free = 0; free < 8;) free = (await oneMore()) === '' ? 0 : free + 1;
});

test('a coordinator that is gone is told, and so is its return', async () => {
  const { cluster } = http;
  // The primary asks for the register now and then.
  const stream = new EventStream(http.url(await cluster.primary('disk'), '/api/stream'));
  const isolated = (over: boolean): Promise<Happening> =>
    stream.first('happened', ({ kind, fields }) => kind === 'isolated' && fields['over'] === over, 'isolated');
  await stream.first('cluster', ({ view }) => view?.verdict === 'safe', 'a look at the cluster');
  await cluster.coordinator.kill();
  assert.match(String((await isolated(false)).fields['reason']), /no server could be reached/);
  await stream.first('cluster', ({ error }) => error !== undefined, 'an error');
  assert.is((await http.json('a', '/api/cluster')).status, 503);
  assert.is((await http.json('a', '/healthz')).status, 200);
  assert.equal(await http.json('a', '/readyz'), { status: 200, body: { ready: true, reasons: [] } });
  const { address } = cluster.coordinator;
  cluster.coordinator = await CoordinatorProcess.start(join(cluster.dir, 'coordinator'), address);
  await until(() => stream.of('cluster').at(-1)?.view?.verdict === 'safe', 'it is safe again');
  await isolated(true);
  stream.close();
});

test('a node that neither serves nor follows is not ready', async () => {
  const { cluster } = http;
  const primary = await cluster.primary('disk');
  const other = primary === 'a' ? 'b' : 'a';
  await cluster.coordinator.kill();
  await cluster.kill(primary);
  let reasons: string[] = [];
  const end = performance.now() + 20_000;
  while (reasons.length === 0 && performance.now() < end) {
    const { status, body } = await http.json<{ reasons: string[] }>(other, '/readyz');
    if (status === 503) ({ reasons } = body);
  }
  assert.match(reasons.join(), /^disk: it neither serves nor follows: /);
});

test('beyond loopback it is refused at the start, unless that was asked for', async () => {
  const { cluster } = http;
  const args = [
    'node',
    '--name',
    'c',
    '--dir',
    `${cluster.dir}/c`,
    '--listen',
    '127.0.0.1:0',
    '--peer-listen',
    '127.0.0.1:0',
  ];
  for (const listen of ['0.0.0.0:0', '[::]:0', '10.1.2.3:7481', 'example.org:7481']) {
    const { code, stderr } = await cluster.cli(...args, '--http', listen);
    assert.is(code, 1, stderr);
    assert.match(stderr, /listen for --http: .*nothing protects it.*--http-insecure/s);
  }
});

test.run();
