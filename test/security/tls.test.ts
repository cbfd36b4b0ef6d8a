/** TLS on the port for clients, on real processes: who gets in, what the others are told, and that nobody is harmed. */
import { copyFileSync, writeFileSync } from 'node:fs';
import { type Socket, connect as connectPlain } from 'node:net';
import { join } from 'node:path';
import { connect as connectTls } from 'node:tls';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { HoldfastError } from '../../src/base/errors.ts';
import { type ConnectOptions, type Volume, connect, list } from '../../src/client/index.ts';
import { holdfast, launch, temporaryFolder } from '../support/server-process.ts';
import { TestCa } from '../support/tls-files.ts';
import { until } from '../support/until.ts';

const test = suite('security, TLS');
const MiB = 1024 * 1024;
const folder = temporaryFolder();
const ca = new TestCa(join(folder, 'ca'));
const other = new TestCa(join(folder, 'other'));
const own = ca.issue('server');
const good = ca.issue('client');
const trusted: ConnectOptions = { connectMs: 4000, tls: { caFile: ca.certFile, ...good } };

type Running = Awaited<ReturnType<typeof launch<{ listen: string }>>>;
let server: Running;
let witness: Volume;
let url = '';
let made = 0;

function tlsArgs({ certFile, keyFile } = own, caFile = ca.certFile): string[] {
  return ['--tls-cert', certFile, '--tls-key', keyFile, '--tls-ca', caFile];
}

async function serve(...more: string[]): Promise<Running> {
  const args = ['serve', join(folder, `v${++made}`), '--size', '16MiB', '--name', 'v', '--listen', '127.0.0.1:0'];
  return launch([...args, ...more], { HOLDFAST_LOG_LEVEL: 'info' });
}

async function stop({ child, exited }: Running): Promise<void> {
  child.kill('SIGTERM');
  assert.is((await exited).code, 0);
}

async function refusal(address: string, options: ConnectOptions): Promise<HoldfastError> {
  try {
    await (await connect(address, options)).close();
  } catch (error) {
    return error as HoldfastError;
  }
  throw new Error('it was let in');
}

async function denied(address: string, tls: ConnectOptions['tls'], words: RegExp): Promise<void> {
  const error = await refusal(address, { connectMs: 4000, tls });
  assert.is(error.code, 'ACCESS', error.message);
  assert.match(error.message, words);
  assert.match(error.message, /To remedy: /);
}

test.before(async () => {
  server = await serve(...tlsArgs());
  url = `holdfasts://${server.info.listen}/v`;
  witness = await connect(url, trusted);
});

test.after(async () => {
  // Whatever the others did: it is still served.
  assert.equal(Buffer.from(await witness.read(0, 3)).toString(), 'tls');
  await witness.close();
  await stop(server);
});

test('with a certificate of the CA: all that a plain port does', async () => {
  await witness.write(0, Buffer.from('tls'));
  const bytes = Buffer.alloc(4 * MiB, 'abcdefg');
  await witness.write(MiB, bytes);
  assert.is(Buffer.compare(await witness.read(MiB, bytes.length), bytes), 0);
  assert.is((await list(url, trusted))[0]!.name, 'v');
  await until(() => server.printed().includes('"subject":"client"'), 'the line of whom it let in');
});

test('the command line takes its files from the environment', async () => {
  const env = ca.env(good);
  const { code, stdout, stderr } = await holdfast(['read', url, '--offset', '0', '--length', '3'], { env });
  assert.is(code, 0, stderr);
  assert.is(stdout.toString(), 'tls');
});

test('a client without a certificate, with an expired or a foreign one', async () => {
  const caFile = ca.certFile;
  await denied(url, { caFile }, /this port wants a certificate/);
  await denied(url, { caFile, ...ca.issue('late', undefined, -1) }, /the certificate has expired/);
  await denied(url, { caFile, ...other.issue('stranger') }, /the certificate comes from another CA/);
  for (const reason of ['wants a certificate', 'has expired', 'comes from another CA']) {
    await until(() => server.printed().includes(reason), `a line about: ${reason}`);
  }
});

test('a server that is not the one that is meant', async () => {
  await denied(url, { caFile: other.certFile, ...good }, /of the other end comes from another CA/);
  await denied(url, good, /of the other end comes from another CA/);
  await denied(url, { ...trusted.tls, serverName: 'elsewhere.example' }, /is for another name/);
  const late = await serve(...tlsArgs(ca.issue('late-server', undefined, -1)));
  await denied(`holdfasts://${late.info.listen}/v`, trusted.tls, /of the other end has expired/);
  await stop(late);
  const named = await connect(url, { ...trusted, tls: { ...trusted.tls, serverName: 'localhost' } });
  await named.close();
});

test('a plain client on a port with TLS, and one with TLS on a plain port', async () => {
  await denied(url.replace('holdfasts', 'holdfast'), undefined, /this port speaks TLS.*holdfasts:\/\//);
  await until(() => server.printed().includes('refused: no TLS'), 'a line');
  const plain = await serve();
  await denied(`holdfasts://${plain.info.listen}/v`, trusted.tls, /speaks no TLS on this port/);
  await until(() => plain.printed().includes('a TLS handshake on a port without TLS'), 'a line');
  await stop(plain);
});

test('nothing below TLS 1.3', async () => {
  const [host, port] = server.info.listen.split(':');
  const failed = await new Promise<Error>((resolve, reject) => {
    const options = {
      host,
      port: Number(port),
      ca: undefined,
      maxVersion: 'TLSv1.2' as const,
      rejectUnauthorized: false,
    };
    connectTls(options, () => reject(new Error('it was let in'))).once('error', resolve);
  });
  assert.match(failed.message, /protocol version/i);
});

test('callers that say nothing, or too much, give way', async () => {
  const [host, port] = server.info.listen.split(':');
  const sockets: Socket[] = [];
  let closed = 0;
  for (let i = 0; i < 80; i++) {
    const socket = connectPlain({ host: host!, port: Number(port) });
    socket.on('error', () => {});
    socket.on('close', () => closed++);
    sockets.push(socket);
  }
  await until(() => closed >= 16, 'the oldest of them to be closed');
  await (await connect(url, trusted)).close();
  for (const socket of sockets) socket.destroy();
  // A record of a handshake that goes on and on: a ClientHello of 100 KiB, in records of 16 KiB.
  const flood = connectPlain({ host: host!, port: Number(port) });
  flood.on('error', () => {});
  const record = Buffer.alloc(5 + 16_384, 1);
  Buffer.from([0x16, 3, 1, 0x40, 0]).copy(record);
  Buffer.from([1, 1, 0x86, 0xa0]).copy(record, 5);
  const ended = new Promise((resolve) => flood.once('close', resolve));
  const more = (): void => void (flood.destroyed || flood.write(record, () => setImmediate(more)));
  more();
  await ended;
});

test('new certificates without a restart; bad ones are not taken', async () => {
  const at = { certFile: join(folder, 'live-cert.pem'), keyFile: join(folder, 'live-key.pem') };
  const caFile = join(folder, 'live-ca.pem');
  const put = (pair: typeof at, from: string): void => {
    copyFileSync(pair.certFile, at.certFile);
    copyFileSync(pair.keyFile, at.keyFile);
    copyFileSync(from, caFile);
  };
  put(own, ca.certFile);
  const live = await serve(...tlsArgs(at, caFile));
  const address = `holdfasts://${live.info.listen}/v`;
  const old = await connect(address, trusted);
  writeFileSync(at.certFile, 'nothing of a certificate');
  live.child.kill('SIGHUP');
  await until(() => live.printed().includes('the old ones stay in force'), 'a line about the bad file');
  await (await connect(address, trusted)).close();
  // Found without a signal too.
  put(other.issue('server'), other.certFile);
  await until(() => live.printed().includes('the new files are in force'), 'the new files to be taken');
  await denied(address, trusted.tls, /comes from another CA/);
  const moved = other.issue('client');
  await (await connect(address, { connectMs: 4000, tls: { caFile: other.certFile, ...moved } })).close();
  // Whoever was let in stays in.
  assert.is((await old.read(0, 3)).length, 3);
  await old.close();
  await stop(live);
});

test('certificates that may be left away, with tokens', async () => {
  const file = join(folder, 'tokens');
  const made = await holdfast(['token', 'create', 'app', '--role', 'read', '--tokens', file]);
  const token = made.stdout.toString().trim();
  // With TLS it may be reached from anywhere.
  const args = [...tlsArgs(), '--tls-client-cert', 'allow', '--tokens', file, '--listen', '0.0.0.0:0'];
  const open = await serve(...args);
  const address = `holdfasts://127.0.0.1:${open.info.listen.split(':')[1]}/v`;
  const caFile = ca.certFile;
  await (await connect(address, { connectMs: 4000, tls: { caFile }, token })).close();
  await denied(address, { caFile }, /wants a token/);
  // One that is shown has to be good.
  await denied(address, { caFile, ...other.issue('shown') }, /comes from another CA/);
  await stop(open);
  const { code, stderr } = await holdfast(['serve', join(folder, 'never'), ...args.filter((_, i) => i < 8 || i > 9)]);
  assert.is(code, 1);
  assert.match(stderr, /nothing protects it.*give --tokens/);
});

test('flags that do not go together', async () => {
  const { certFile } = own;
  for (const [args, words] of [
    [['--tls-cert', certFile], /missing: --tls-key, --tls-ca/],
    [[...tlsArgs(), '--tls-client-cert', 'maybe'], /write require, or allow/],
    [tlsArgs({ certFile, keyFile: good.keyFile }), /do not go together/],
    [tlsArgs(own, join(folder, 'none.pem')), /there is no such file/],
  ] as const) {
    const { code, stderr } = await holdfast(['serve', join(folder, 'never'), ...args]);
    assert.is(code, 1);
    assert.match(stderr, words);
  }
  const node = ['node', '--name', 'a', '--dir', join(folder, 'node'), '--coordinator', 'holdfast://127.0.0.1:1'];
  const { code, stderr } = await holdfast([...node, ...tlsArgs()]);
  assert.is(code, 1);
  assert.match(stderr, /the certificate names no node, and this is node a.*URI:holdfast:node:a/);
});

test.run();
