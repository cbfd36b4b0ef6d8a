/** The port itself, over sockets: its bounds, and that it outlives bad clients. The real tools of Redis, if there are. */
import { spawn, spawnSync } from 'node:child_process';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { RespServer, type RespServerOptions } from '../../src/node/resp-server.ts';
import { MemoryKv } from '../support/memory-kv.ts';
import { hasTool } from '../support/redis-server.ts';
import { RespClient } from '../support/resp-client.ts';
import { encodeCommand } from '../support/resp-replies.ts';
import { until } from '../support/until.ts';

const test = suite('RESP port');
const KiB = 1024;

interface Served {
  server: RespServer;
  port: number;
  kv: MemoryKv;
  log: string[];
}

const servers: RespServer[] = [];
test.after.each(async () => {
  for (const server of servers.splice(0)) await server.close();
});

async function serve(options: Partial<RespServerOptions> = {}): Promise<Served> {
  const kv = new MemoryKv({ now: () => Date.now(), later: setImmediate });
  const log: string[] = [];
  const server = new RespServer({
    volume: () => kv,
    version: '0',
    password: null,
    log: (_level, message, fields) => void log.push(`${message} ${JSON.stringify(fields)}`),
    ...options,
  });
  servers.push(server);
  const address = await server.listen('127.0.0.1:0');
  return { server, port: Number(address.split(':')[1]), kv, log };
}

test('many clients at once, each with a pipeline', async () => {
  const { port, server } = await serve();
  const clients = await Promise.all(Array.from({ length: 20 }, () => RespClient.open(port)));
  await Promise.all(
    clients.map(async (client, c) => {
      const count = 500;
      for (let i = 0; i < count; i++) {
        client.send(Buffer.concat([encodeCommand(['SET', `${c}:${i}`, `v${i}`]), encodeCommand(['GET', `${c}:${i}`])]));
      }
      for (let i = 0; i < count; i++) {
        assert.is((await client.next()).toString(), '+OK\r\n');
        assert.is((await client.next()).toString(), `$${`v${i}`.length}\r\nv${i}\r\n`);
      }
      client.close();
    }),
  );
  await until(() => server.size === 0, 'the connections to be gone');
});

test('more connections than allowed are told so', async () => {
  const { port } = await serve({ maxConnections: 2 });
  const [first, second] = [await RespClient.open(port), await RespClient.open(port)];
  await first.call('PING');
  await second.call('PING');
  const third = await RespClient.open(port);
  assert.is((await third.next()).toString(), '-ERR max number of clients reached\r\n');
  await third.closed;
  first.close();
  second.close();
});

test('who sends its commands and closes its side is answered', async () => {
  const { port } = await serve();
  const client = await RespClient.open(port);
  client.send(Buffer.concat([encodeCommand(['SET', 'a', '1']), encodeCommand(['GET', 'a'])]));
  client.finish();
  assert.is((await client.next()).toString(), '+OK\r\n');
  assert.is((await client.next()).toString(), '$1\r\n1\r\n');
  await client.closed;
});

test('a client that does not read is held back, and goes on when it reads', async () => {
  const { port, server, kv } = await serve();
  let asked = 0;
  const get = kv.get.bind(kv);
  kv.get = (keys, done) => {
    asked++;
    get(keys, done);
  };
  const client = await RespClient.open(port);
  await client.call('SET', 'a', Buffer.alloc(100 * KiB, 'x'));
  client.stopReading();
  const count = 1000;
  client.send(Buffer.concat(Array.from({ length: count }, () => encodeCommand(['GET', 'a']))));
  const [connection] = (server as unknown as { connections: Set<{ held: boolean }> }).connections;
  await until(() => connection!.held, 'the session to be held');
  assert.ok(asked < count / 2, `${asked} of ${count} values were read for somebody who does not want them`);
  client.readAgain();
  const value = `$${100 * KiB}\r\n${'x'.repeat(100 * KiB)}\r\n`;
  for (let i = 0; i < count; i++) assert.ok((await client.next()).equals(Buffer.from(value)));
  client.close();
});

test('half a request, no password, and unread replies have a deadline', async () => {
  const { port, log } = await serve({ password: 'x', handshakeMs: 0, stallMs: 0 });
  const stranger = await RespClient.open(port);
  await stranger.closed;
  assert.match(log.join(), /no password/);
  const open = await serve({ stallMs: 0 });
  const [half, idle] = [await RespClient.open(open.port), await RespClient.open(open.port)];
  half.send('*2\r\n$3\r\nGE');
  await half.closed;
  assert.match(open.log.join(), /stalled/);
  // Who asks nothing owes nothing.
  assert.is((await idle.call('PING')).toString(), '+PONG\r\n');
  idle.close();
  const stuck = await RespClient.open(open.port);
  await stuck.call('SET', 'a', Buffer.alloc(100 * KiB));
  stuck.stopReading();
  stuck.send(Buffer.concat(Array.from({ length: 1000 }, () => encodeCommand(['GET', 'a']))));
  await until(() => open.server.size === 0, 'the reader that stopped to be thrown out');
  stuck.close();
});

test('drain: what was begun is answered, then the connections end', async () => {
  const { port, server } = await serve();
  const client = await RespClient.open(port);
  await client.call('PING');
  client.send(encodeCommand(['SET', 'a', '1']));
  assert.is((await client.next()).toString(), '+OK\r\n');
  await server.drain(10_000);
  await client.closed;
  assert.is(server.size, 0);
});

test('CLIENT LIST and INFO tell about the connections', async () => {
  const { port } = await serve({ replicas: () => 1 });
  const [first, second] = [await RespClient.open(port), await RespClient.open(port)];
  await second.call('CLIENT', 'SETNAME', 'second');
  const list = (await first.call('CLIENT', 'LIST')).toString();
  assert.match(
    list,
    /^\$\d+\r\nid=1 addr=127\.0\.0\.1:\d+ laddr=127\.0\.0\.1:\d+ name= .*\nid=2 .* name=second .*\n\r\n$/,
  );
  assert.match(
    (await first.call('INFO')).toString(),
    /connected_clients:2\r\n[^]*\r\nrole:master\r\nconnected_slaves:1/,
  );
  assert.not.match((await first.call('INFO', 'server')).toString(), /connected_clients/);
  first.close();
  second.close();
});

if (!hasTool('redis-cli')) {
  process.stdout.write('# skip: redis-cli is not installed\n');
} else {
  const cli = async (port: number, args: string[], input = ''): Promise<string> => {
    const child = spawn('redis-cli', ['-p', String(port), ...args]);
    let output = '';
    child.stdout.on('data', (chunk: Buffer) => (output += chunk.toString()));
    child.stdin.end(input);
    await new Promise((resolve) => child.once('close', resolve));
    return output;
  };

  test('redis-cli, in both protocols, with a script, and through all keys', async () => {
    const { port } = await serve();
    assert.is(await cli(port, ['SET', 'a', 'b']), 'OK\n');
    assert.is(await cli(port, ['-3', 'GET', 'a']), 'b\n');
    const script = 'MULTI\nINCR n\nSET b "x y"\nEXEC\nMGET a b n\n';
    assert.is(await cli(port, [], script), 'OK\nQUEUED\nQUEUED\n1\nOK\nb\nx y\n1\n');
    await cli(port, ['MSET', ...Array.from({ length: 100 }, (_, i) => [`key${i}`, 'v']).flat()]);
    const found = (await cli(port, ['--scan', '--pattern', 'key*'])).trim().split('\n');
    assert.is(new Set(found).size, 100);
    assert.match(await cli(port, ['COMMAND', 'DOCS', 'get']), /Get the value of a key/);
  });

  test('redis-cli --pipe', async () => {
    const { port } = await serve();
    const many = Array.from({ length: 5000 }, (_, i) => encodeCommand(['SET', `k${i}`, `v${i}`]).toString());
    assert.match(await cli(port, ['--pipe'], many.join('')), /errors: 0, replies: 5000/);
    assert.is(await cli(port, ['DBSIZE']), '5000\n');
  });

  test('redis-benchmark runs its tests', async () => {
    if (spawnSync('redis-benchmark', ['--help']).error !== undefined) return;
    const { port } = await serve();
    const tests = ['-t', 'ping,set,get,incr,mset', '-n', '2000', '-c', '10', '-P', '16', '--csv'];
    const child = spawn('redis-benchmark', ['-p', String(port), ...tests]);
    let output = '';
    for (const stream of [child.stdout, child.stderr])
      stream.on('data', (chunk: Buffer) => (output += chunk.toString()));
    const code = await new Promise((resolve) => child.once('close', resolve));
    assert.is(code, 0, output);
    assert.not.match(output, /WARNING|ERR/i);
    assert.match(output, /"GET"/);
  });
}

test.run();
