/**
 * Whoever is not let in says anything at all: random bytes, broken TLS records, handshakes that stop, frames that are too
 * long, to the three ports of a cluster under TLS and to a plain port with tokens. The processes live, answer those they
 * know, and keep no memory of the others.
 */
import { readFileSync } from 'node:fs';
import { type Socket, connect as connectPlain } from 'node:net';
import { join } from 'node:path';
import { connect as connectTls } from 'node:tls';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { type ConnectOptions, ping } from '../../src/client/index.ts';
import { openCoordinator } from '../../src/coordination/open.ts';
import { encodeAuth } from '../../src/protocol/auth.ts';
import { encodeHeader } from '../../src/protocol/frame.ts';
import { encodeHello } from '../../src/protocol/handshake.ts';
import { MESSAGES } from '../../src/protocol/messages.ts';
import { encodeFrame } from '../../src/protocol/replies.ts';
import { CoordinatorProcess } from '../support/coordinators.ts';
import { Random } from '../support/random.ts';
import { holdfast, launch, temporaryFolder } from '../support/server-process.ts';
import { TestCa } from '../support/tls-files.ts';
import { until } from '../support/until.ts';

const test = suite('security, anything at all');
const folder = temporaryFolder();
const ca = new TestCa(join(folder, 'ca'));
const operator = ca.issue('operator', undefined, 2, ['URI:holdfast:admin:operator']);
const own = ca.issue('a', undefined, 2, ['URI:holdfast:node:a']);
const flags = ca.flags(own);
const seed = Number(process.env['HOLDFAST_SEED'] ?? 20_261_123);
const random = new Random(seed);
const CALLS = 240;
const AT_ONCE = 40;
/** What a process may have grown by. It has 96 MiB of its own that fill up anyway. */
const GROWN_BYTES = 192 * 1024 * 1024;

type Running = Awaited<ReturnType<typeof launch<{ listen: string; peerListen: string }>>>;
let coordinator: CoordinatorProcess;
let node: Running;
let plain: Running;
let token = '';
const trusted: ConnectOptions = { connectMs: 10_000, tls: { caFile: ca.certFile, ...operator } };

function portOf(address: string): number {
  return Number(address.split(':')[1]);
}

function memoryOf(pid: number): number {
  return Number(/VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))![1]) * 1024;
}

test.before(async () => {
  const tokens = join(folder, 'tokens');
  const made = await holdfast(['token', 'create', 'app', '--role', 'read-write', '--tokens', tokens]);
  token = made.stdout.toString().trim();
  coordinator = await CoordinatorProcess.start(join(folder, 'coordinator'), undefined, [], flags);
  const at = ['--listen', '127.0.0.1:0', '--peer-listen', '127.0.0.1:0', '--coordinator', coordinator.url];
  node = await launch(['node', '--name', 'a', '--dir', join(folder, 'a'), ...at, ...flags, '--tokens', tokens], {});
  const serve = ['serve', join(folder, 'v'), '--size', '8MiB', '--listen', '127.0.0.1:0', '--tokens', tokens];
  plain = await launch(serve, {});
});

test.after(async () => {
  for (const { child, exited } of [node, plain]) {
    child.kill('SIGTERM');
    assert.is((await exited).code, 0);
  }
  assert.is((await coordinator.kill('SIGTERM')).code, 0);
});

/** When it is closed. @param patient this end waits for the other to do so */
function over(socket: Socket, patient: boolean): Promise<void> {
  return new Promise((resolve) => {
    socket.on('error', () => {});
    socket.on('close', () => resolve());
    socket.resume();
    if (!patient) socket.end();
  });
}

function bytes(length: number): Buffer {
  return Buffer.from(Array.from({ length }, () => random.below(256)));
}

/** A record of TLS, or something like it. */
function record(type: number, body: Buffer, length = body.length): Buffer {
  return Buffer.concat([Buffer.from([type, 3, random.below(5), length >> 8, length & 255]), body]);
}

const hello = encodeFrame(
  { type: MESSAGES.HELLO.number, requestId: 1 },
  encodeHello({
    minVersion: 1,
    maxVersion: 1,
    features: 0n,
    requiredFeatures: 0n,
    session: 0n,
    generation: 0,
    client: 'anybody',
  }),
);

/** The header of a message of that length, rightly made, and some of what it promises. */
function tooLong(type: number, payloadBytes: number): Buffer {
  const frame = Buffer.alloc(64 + payloadBytes, 0x61);
  const fields = { status: 0, requestId: 2, epoch: 0, count: 0, payloadCrc: 1 };
  encodeHeader(frame, 0, { type, payloadBytes, ...fields });
  return frame;
}

/** What somebody says who knows no better, or worse. */
function nonsense(): Buffer {
  switch (random.below(8)) {
    case 0:
      return bytes(1 + random.below(3000));
    case 1:
      return record(22, bytes(random.below(500)));
    case 2:
      return record(22, Buffer.concat([Buffer.from([1, 0, 1, 0xfc, 3, 3]), bytes(300)]), 16_384);
    case 3:
      return record(20 + random.below(6), bytes(random.below(200)), random.below(65_536));
    case 4:
      return tooLong(MESSAGES.HELLO.number, 65_536);
    case 5:
      return Buffer.concat([hello, tooLong(MESSAGES.AUTH.number, 512)]);
    case 6:
      return Buffer.concat([hello, tooLong(MESSAGES.KV_READ.number, 1024 * 1024)]);
    default:
      return Buffer.concat([
        hello,
        encodeFrame({ type: MESSAGES.AUTH.number, requestId: 2 }, encodeAuth('hf_x')),
        bytes(90),
      ]);
  }
}

/** Those that stay silent after what they said, until the storm is over. */
const silent: Set<Socket> = new Set();

async function call(port: number, secure: boolean): Promise<void> {
  const said = nonsense();
  const options = { host: '127.0.0.1', port };
  const socket = secure ? connectTls({ ...options, rejectUnauthorized: false }) : connectPlain(options);
  socket.write(said);
  const stays = random.below(8) === 0;
  if (stays) silent.add(socket);
  const ended = over(socket, stays);
  return stays ? undefined : ended;
}

async function storm(port: number, secure: (i: number) => boolean): Promise<void> {
  let next = 0;
  const worker = async (): Promise<void> => {
    while (next < CALLS) await call(port, secure(next++));
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
  for (const socket of silent) socket.destroy();
  silent.clear();
}

async function survives(pid: number, ports: readonly number[], answers: () => Promise<unknown>): Promise<void> {
  // Once to have everything loaded and every buffer made.
  for (const port of ports) await storm(port, (i) => i % 4 === 0);
  const before = memoryOf(pid);
  for (const port of ports) await storm(port, (i) => i % 4 === 0);
  await answers();
  const grown = memoryOf(pid) - before;
  assert.ok(grown < GROWN_BYTES, `it has grown by ${grown} bytes (seed ${seed})`);
}

test('the ports of a node under TLS', () =>
  survives(node.child.pid!, [portOf(node.info.listen), portOf(node.info.peerListen)], async () => {
    assert.ok((await ping(`holdfasts://${node.info.listen}`, trusted)) >= 0);
  }));

test('the port of a coordinator under TLS', () =>
  survives(coordinator.child.pid!, [portOf(coordinator.address)], async () => {
    const text = (file: string): string => readFileSync(file, 'utf8');
    const tls = { ca: text(ca.certFile), cert: text(operator.certFile), key: text(operator.keyFile) };
    const client = openCoordinator(coordinator.url, { tls, deadlineMs: 10_000 });
    assert.equal(await client.list(), []);
    await client.close();
  }));

test('a plain port with tokens', () =>
  survives(plain.child.pid!, [portOf(plain.info.listen)], async () => {
    assert.ok((await ping(`holdfast://${plain.info.listen}`, { token, connectMs: 10_000 })) >= 0);
  }));

test('frames of somebody unknown are refused by their header, before their payload is there', async () => {
  const heads: Array<[string, Buffer, RegExp]> = [
    ['HELLO', tooLong(MESSAGES.HELLO.number, 65_536), /65536 bytes of somebody who is not let in yet, at most 16384/],
    ['another message', tooLong(MESSAGES.KV_READ.number, 1024 * 1024), /the first message must be HELLO/],
    ['AUTH', Buffer.concat([hello, tooLong(MESSAGES.AUTH.number, 513)]), /AUTH with a payload of 513 bytes/],
    ['a message after HELLO', Buffer.concat([hello, tooLong(MESSAGES.KV_READ.number, 1024)]), /wants a token first/],
  ];
  for (const [what, frame, words] of heads) {
    let heard = '';
    const socket = connectPlain({ host: '127.0.0.1', port: portOf(plain.info.listen) });
    socket.setEncoding('latin1').on('data', (chunk: string) => (heard += chunk));
    // The header, and the first byte of what it promises.
    const headerAt = what === 'HELLO' || what === 'another message' ? 0 : hello.length;
    socket.write(frame.subarray(0, headerAt + 65));
    await over(socket, true);
    assert.match(heard, words, what);
  }
});

test('lines of log are bounded', async () => {
  const lines = node
    .printed()
    .split('\n')
    .filter((line) => line.includes('refused:'));
  assert.ok(lines.length > 10, 'there are some');
  assert.ok(lines.length < 2 * CALLS, `${lines.length} lines of ${4 * CALLS} calls`);
  await until(() => node.printed().includes('"suppressed":'), 'a count of those that were left out');
});

test.run();
