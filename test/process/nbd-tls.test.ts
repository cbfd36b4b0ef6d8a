/**
 * TLS on a node's NBD port, from clients that no library would write: bytes in the clear where TLS has to be,
 * handshakes that stop half way, readers that stop. A witness in TLS goes on all the while.
 */
import { once } from 'node:events';
import { type Socket, connect, createServer } from 'node:net';
import { type TLSSocket, connect as connectTls } from 'node:tls';
import { join } from 'node:path';
import { writeFileSync } from 'node:fs';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { HoldfastError } from '../../src/base/errors.ts';
import { FlowControl } from '../../src/node/flow-control.ts';
import { type NbdTlsOptions, loadNbdTls, parsePsk } from '../../src/node/nbd-tls.ts';
import { SingleNode } from '../../src/node/single-node.ts';
import { createVolume } from '../../src/storage/volume-folder.ts';
import { infoOption, option, request, u32 } from '../support/nbd-client.ts';
import { RawClient } from '../support/raw-client.ts';
import { Random } from '../support/random.ts';
import { holdfast, temporaryFolder } from '../support/server-process.ts';
import { pskFile } from '../support/tls-files.ts';
import { until } from '../support/until.ts';

const test = suite('TLS on the NBD port');
const MiB = 1024 * 1024;
const SIZE = 64 * MiB;
const GREETING_BYTES = 18;
const ACK_BYTES = 20;
const SIMPLE_REPLY_BYTES = 16;
const [STARTTLS, GO, READ, WRITE] = [5, 7, 0, 1];
const HELLO = u32(3);

const folder = temporaryFolder();
const psk = pskFile(join(folder, 'psk'), 'alice');
const key = psk.keys.get('alice')!;
const WRONG_KEY = Buffer.alloc(32, 'wrong');
const log: string[] = [];
/** All of it, with its fields. */
const whole: string[] = [];
let node: SingleNode;
let port = 0;
let witness: Client;
let witnessed = 0;

/** A stream of bytes, asked for by number. */
class Client {
  readonly socket: Socket;
  closed = false;
  private chunks: Buffer[] = [];
  private received = 0;

  constructor(socket: Socket) {
    this.socket = socket;
    socket.on('error', () => {});
    socket.on('close', () => (this.closed = true));
    socket.on('data', (chunk) => {
      this.chunks.push(chunk);
      this.received += chunk.length;
    });
  }

  static async plain(): Promise<Client> {
    const socket = connect({ port, host: '127.0.0.1', noDelay: true });
    await once(socket, 'connect');
    const client = new Client(socket);
    await client.take(GREETING_BYTES);
    return client;
  }

  /** The consent to TLS is received, and nothing was said since. */
  static async consented(): Promise<Client> {
    const client = await Client.plain();
    client.socket.write(Buffer.concat([HELLO, option(STARTTLS)]));
    assert.is((await client.take(ACK_BYTES)).readUInt32BE(12), 1, 'the consent');
    return client;
  }

  /** In TLS, with GO behind it. */
  static async agreed(secret = key): Promise<Client> {
    const { socket } = await Client.consented();
    socket.removeAllListeners('data');
    const client = new Client(await secured(socket, secret));
    client.socket.write(infoOption(GO, ''));
    const info = await client.take(ACK_BYTES + 12);
    assert.is(info.readUInt32BE(12), 3, 'INFO');
    assert.is(Number(info.readBigUInt64BE(22)), SIZE);
    await client.take(ACK_BYTES);
    return client;
  }

  async take(bytes: number): Promise<Buffer> {
    await until(() => this.received >= bytes || this.closed, `${bytes} bytes`);
    assert.ok(this.received >= bytes, `the connection closed before ${bytes} bytes came`);
    const all = Buffer.concat(this.chunks);
    this.chunks = [all.subarray(bytes)];
    this.received -= bytes;
    return all.subarray(0, bytes);
  }

  /** All that still came. */
  async end(): Promise<Buffer> {
    await until(() => this.closed, 'the end of a connection');
    return Buffer.concat(this.chunks);
  }

  async write(offset: number, payload: Uint8Array): Promise<void> {
    this.socket.write(request({ command: WRITE, offset, payload }));
    assert.is((await this.take(SIMPLE_REPLY_BYTES)).readUInt32BE(4), 0);
  }

  async read(offset: number, length: number): Promise<Buffer> {
    this.socket.write(request({ command: READ, offset, length }));
    assert.is((await this.take(SIMPLE_REPLY_BYTES)).readUInt32BE(4), 0);
    return this.take(length);
  }
}

function secured(socket: Socket, secret: Buffer): Promise<TLSSocket> {
  return new Promise((resolve, reject) => {
    const secure: TLSSocket = connectTls({
      socket,
      ciphers: 'TLS_AES_128_GCM_SHA256:PSK',
      checkServerIdentity: () => undefined,
      pskCallback: () => ({ identity: 'alice', psk: secret }),
    });
    secure.once('secureConnect', () => resolve(secure));
    secure.once('error', reject);
  });
}

/** What was logged since, when it is as much as that. */
async function logged(lines: number, what: RegExp): Promise<void> {
  await until(() => log.length >= lines, `${lines} lines in the log, ${log.join('; ')}`);
  const taken = log.splice(0);
  assert.is(taken.length, lines, taken.join('; '));
  for (const line of taken) assert.match(line, what);
}

test.before(async () => {
  const nbdTls = await loadNbdTls({ pskFile: psk.file });
  node = await SingleNode.start({
    dir: join(folder, 'vol'),
    listen: '127.0.0.1:0',
    nbd: '127.0.0.1:0',
    nbdTls,
    limits: { handshakeMs: 5000, stallMs: 5000 },
    prepare: (pool) => createVolume(join(folder, 'vol'), pool, { sizeBytes: SIZE, sparse: true }),
    maxConnections: 2,
    log: (_level, message, fields) => {
      whole.push(JSON.stringify({ message, fields }));
      if (message !== 'let in') log.push((fields as { reason: string }).reason);
    },
    onFatal: (error) => {
      throw error;
    },
  });
  port = Number(node.nbdUri!.split(':').at(-1));
  witness = await Client.agreed();
});
test.after.each(async () => {
  await witness.write(12_345, Uint8Array.of(++witnessed));
  assert.equal([...(await witness.read(12_345, 1))], [witnessed], 'the witness goes on');
  assert.equal(log, []);
});
test.after(async () => {
  witness.socket.destroy();
  assert.ok(await node.close());
  for (const secret of [key, WRONG_KEY]) {
    for (const encoding of ['hex', 'base64', 'latin1'] as const) {
      assert.not(whole.join('\n').includes(secret.toString(encoding)), 'a key in the log');
    }
  }
});

test('bytes in the clear behind STARTTLS, in the same segment, are not heard', async () => {
  const client = await Client.plain();
  client.socket.write(Buffer.concat([HELLO, option(STARTTLS), infoOption(GO, '')]));
  const answer = await client.end();
  assert.is(answer.length, ACK_BYTES, 'the consent and no more');
  await logged(1, /bytes in the clear after the consent to TLS/);
});

test('bytes in the clear after the consent are taken for TLS, which they are not', async () => {
  for (const bytes of [infoOption(GO, ''), new Random(1).bytes(5000), Buffer.alloc(70_000, 0x16)]) {
    const client = await Client.consented();
    client.socket.write(bytes);
    const answer = await client.end();
    assert.ok(answer.length === 0 || answer[0] === 0x15, `an alert of TLS or nothing: ${answer.toString('hex')}`);
    await logged(1, /the TLS handshake failed/);
  }
});

test('before TLS, nothing but STARTTLS is answered', async () => {
  const client = await Client.plain();
  client.socket.write(Buffer.concat([HELLO, infoOption(GO, ''), option(3)]));
  for (let i = 0; i < 2; i++) {
    const reply = await client.take(ACK_BYTES + 'TLS is required'.length);
    assert.is(reply.readUInt32BE(12), 0x80000005, 'ERR_TLS_REQD');
  }
  client.socket.destroy();
});

test('a ClientHello in pieces of one byte is a good one', async () => {
  const { socket } = await Client.consented();
  socket.removeAllListeners('data');
  // A wire that carries single bytes, between the client of TLS and the port.
  const [outer, inner] = await socketPair();
  outer.on('data', (chunk) => {
    for (const byte of chunk) socket.write(Uint8Array.of(byte));
  });
  socket.on('data', (chunk) => outer.write(chunk));
  socket.on('close', () => outer.destroy());
  outer.on('close', () => socket.destroy());
  const client = new Client(await secured(inner, key));
  client.socket.write(infoOption(GO, ''));
  await client.take(ACK_BYTES + 12 + ACK_BYTES);
  await client.write(777, Uint8Array.of(7, 8, 9));
  assert.equal([...(await client.read(776, 5))], [0, 7, 8, 9, 0]);
  client.socket.destroy();
});

test('a wrong key', async () => {
  const { socket } = await Client.consented();
  socket.removeAllListeners('data');
  const error = await secured(socket, WRONG_KEY).then(
    () => null,
    (e: Error) => e,
  );
  assert.instance(error, Error);
  await logged(1, /the TLS handshake failed/);
});

test('clients that begin with TLS and stop half way end by the deadline; those that vanish, at once', async () => {
  const hello = await clientHello();
  const waiting = [];
  for (let i = 0; i < 10; i++) {
    const client = await Client.consented();
    client.socket.write(hello.subarray(0, Math.floor((hello.length * i) / 10)));
    waiting.push(client);
  }
  await Promise.all(waiting.map((client) => client.end()));
  await logged(10, /slow handshake/);
  const client = await Client.consented();
  client.socket.write(hello.subarray(0, 100));
  client.socket.resetAndDestroy();
  await logged(1, /the TLS handshake failed/);
});

test('2000 requests at once through TLS', async () => {
  const client = await Client.agreed();
  const bytes = Buffer.from(new Random(2).bytes(40 * MiB));
  const part = 256 * 1024;
  for (let at = 0; at < bytes.length; at += part) {
    const payload = bytes.subarray(at, at + part);
    client.socket.write(request({ command: WRITE, cookie: BigInt(at), offset: MiB + at, payload }));
  }
  const cookies = new Set<number>();
  for (let at = 0; at < bytes.length; at += part) {
    const reply = await client.take(SIMPLE_REPLY_BYTES);
    assert.is(reply.readUInt32BE(4), 0);
    cookies.add(Number(reply.readBigUInt64BE(8)));
  }
  assert.is(cookies.size, bytes.length / part);
  const reads = 2000;
  for (let i = 0; i < reads; i++) {
    client.socket.write(request({ command: READ, cookie: BigInt(i), offset: MiB + i * 20_000, length: 19_999 }));
  }
  const answers = await client.take(reads * (SIMPLE_REPLY_BYTES + 19_999));
  for (let i = 0; i < reads; i++) {
    const reply = answers.subarray(i * (SIMPLE_REPLY_BYTES + 19_999));
    const at = Number(reply.readBigUInt64BE(8)) * 20_000;
    const found = reply.subarray(SIMPLE_REPLY_BYTES, SIMPLE_REPLY_BYTES + 19_999);
    assert.ok(found.equals(bytes.subarray(at, at + 19_999)), `read at ${at}`);
  }
  assert.ok((await client.read(MiB, 32 * MiB)).equals(bytes.subarray(0, 32 * MiB)));
  client.socket.destroy();
});

test('a reader that stops: beyond the limit its requests are not read, and it is ended as stalled', async () => {
  const reader = await Client.agreed();
  reader.socket.pause();
  for (let i = 0; i < 8; i++) reader.socket.write(request({ command: READ, offset: 0, length: 16 * MiB }));
  reader.socket.write(request({ command: WRITE, offset: 63 * MiB, payload: Uint8Array.of(1) }));
  await logged(1, /stalled/);
  reader.socket.destroy();
  assert.equal([...(await witness.read(63 * MiB, 1))], [0], 'the write stood behind more than 32 MiB of replies');
});

test('writers that are gone in mid-write are no matter', async () => {
  for (let i = 0; i < 5; i++) {
    const writer = await Client.agreed();
    writer.socket.write(request({ command: WRITE, offset: 50 * MiB, payload: new Random(i).bytes(MiB) }));
    writer.socket.write(request({ command: WRITE, offset: 51 * MiB, length: MiB, payload: new Uint8Array(9999) }));
    await writer.take(SIMPLE_REPLY_BYTES);
    writer.socket.destroy();
  }
});

test('what arrives while the consent is not out is left for TLS, whole', async () => {
  const server = createServer({ pauseOnConnect: true }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const client = connect((server.address() as { port: number }).port, '127.0.0.1');
  const [accepted] = (await once(server, 'connection')) as [Socket];
  let pushed = '';
  let detached: Socket | null = null;
  const limits = { maxInFlightBytes: MiB, maxInFlightRequests: 10 };
  const push = (chunk: Uint8Array): number => {
    pushed += Buffer.from(chunk).toString();
    // One that leaves at once, and behind it more than the kernel takes: it is not out until the client reads.
    flow.replies.frame(1, 0, (into, at) => into.fill(1, at, at + 1));
    queueMicrotask(() => flow.replies.pieces([new Uint8Array(64 * MiB)], 0, () => {}));
    flow.detach((socket) => (detached = socket));
    return chunk.length;
  };
  const flow = new FlowControl(accepted, limits, push, () => {}, true);
  client.write('first');
  await until(() => pushed === 'first', 'the first chunk');
  client.write('second');
  await until(() => accepted.readableLength === 'second'.length, 'the second chunk');
  assert.is(detached, null, 'the client has read nothing');
  client.resume();
  await until(() => detached !== null, 'the socket');
  assert.is(String(accepted.read()), 'second');
  assert.is(pushed, 'first');
  client.destroy();
  accepted.destroy();
  server.close();
});

test('options that make no sense, and files of keys that are none; no key is shown', async () => {
  const file = join(folder, 'bad.psk');
  const hex = 'deadbeef'.repeat(8);
  const text: Array<[string, RegExp]> = [
    ['', /bad\.psk holds no key/],
    [`\nalice ${hex}\n`, /line 2: not of the form username:hexkey/],
    [`alice:${hex}x`, /line 1: not of the form/],
    [`alice:${hex}\n\nalice:${hex}`, /line 3: that username has a key already/],
    ['alice:deadbeef', /line 1: a key of 4 bytes; 16 to 256 are good/],
    [`${'a'.repeat(129)}:${hex}`, /line 1: more than 128 bytes of name/],
    [`# a comment:${hex}`, /line 1: a username that begins with #/],
  ];
  for (const [content, why] of text) {
    writeFileSync(file, content);
    await refused({ pskFile: file }, why);
  }
  assert.equal([...parsePsk('f', `#c3a9:${hex}\r\nb:${hex}\n`).keys()], ['é', 'b']);
  await refused({ policy: 'require' }, /"require" without a certificate or a pre-shared key/);
  await refused({ policy: 'allow' }, /"allow" without/);
  await refused({ policy: 'off', pskFile: psk.file }, /TLS is off/);
  await refused({ pskFile: join(folder, 'nowhere') }, /nowhere: there is no such file/);
  assert.is(await loadNbdTls({}), null);
  assert.is(await loadNbdTls({ policy: 'off' }), null);
  assert.is((await loadNbdTls({ pskFile: psk.file }))!.policy, 'require');
  assert.is((await loadNbdTls({ pskFile: psk.file, policy: 'allow' }))!.policy, 'allow');
});

test('one connection more than the port for clients has places is turned away; a place that is left is free', async () => {
  const clients = Number(node.address.split(':').at(-1));
  const open = [await RawClient.connect(clients), await RawClient.connect(clients)];
  for (const [i, client] of open.entries()) assert.is((await client.hello(BigInt(i + 1), 1)).error, null);
  const third = await RawClient.connect(clients);
  await third.closed;
  assert.is(third.goodbye?.code, 'TOO_MANY', third.goodbye?.message);
  await logged(1, /the limit is 2/);
  // Whoever is in is not disturbed.
  assert.is((await open[1]!.attach('', null)).error, null);
  open[0]!.socket.end();
  await until(() => node.server.connectionCount === 1, 'the server to hear of it');
  const next = await RawClient.connect(clients);
  assert.is((await next.hello(4n, 1)).error, null);
  for (const client of [open[1]!, next]) client.socket.destroy();
});

test('the command line', async () => {
  const cases: Array<[string[], RegExp]> = [
    [['--nbd', '127.0.0.1:0', '--nbd-tls', 'perhaps'], /"perhaps".*write require, allow/],
    [['--nbd', '127.0.0.1:0', '--nbd-tls', 'require'], /without a certificate or a pre-shared key/],
    [['--nbd-tls-psk', psk.file], /no NBD port/],
  ];
  for (const [args, why] of cases) {
    const { code, stderr } = await holdfast(['serve', join(folder, 'never'), '--size', '1MiB', ...args]);
    assert.is(code, 1);
    assert.match(stderr, why);
  }
});

async function refused(options: NbdTlsOptions, why: RegExp): Promise<void> {
  const error = await loadNbdTls(options).then(
    () => null,
    (e: unknown) => e,
  );
  assert.instance(error, HoldfastError);
  const { message, details } = error as HoldfastError;
  assert.match(message, why);
  assert.ok(details.operation && details.detail && details.remedy, message);
  assert.not.match(message, /deadbeef/);
}

/** Two ends of a connection. */
async function socketPair(): Promise<[Socket, Socket]> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const inner = connect((server.address() as { port: number }).port, '127.0.0.1');
  const [outer] = (await once(server, 'connection')) as [Socket];
  server.close();
  return [outer, inner];
}

/** The first bytes of a client of TLS. */
async function clientHello(): Promise<Buffer> {
  const [outer, inner] = await socketPair();
  void secured(inner, key).catch(() => {});
  const [bytes] = (await once(outer, 'data')) as [Buffer];
  outer.destroy();
  return bytes;
}

test.run();
