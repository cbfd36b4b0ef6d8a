/** Bounds on what is in flight and waits; signals, deadlines, replies that are wrong or never come. */
import { createServer, type AddressInfo, type Socket } from 'node:net';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { KiB, MAX_IO_BYTES, MiB } from '../../src/base/units.ts';
import { connect, type ConnectOptions, HoldfastError, list, ping, type Volume } from '../../src/client/index.ts';
import { MESSAGES, REPLY_BIT, SESSION_WINDOW } from '../../src/protocol/messages.ts';
import { encodeErrorReply, encodeFrame } from '../../src/protocol/replies.ts';
import { rejectsWith, sameBytes } from '../contract/block-device.ts';
import { type Corruption, TwinServer } from '../support/twin-server.ts';
import { until } from '../support/until.ts';

const limits = suite('client: limits');

function on(title: string, options: ConnectOptions, body: (twin: TwinServer, volume: Volume) => Promise<void>): void {
  limits(title, async () => {
    const twin = await TwinServer.start();
    twin.limits.maxInFlightRequests = 5000;
    twin.limits.maxInFlightBytes = 64 * MiB;
    const volume = await connect(twin.url, { retryMs: 20_000, ...options });
    try {
      await body(twin, volume);
    } finally {
      await twin.stop();
      await volume.close();
    }
  });
}

const block = (value: number): Uint8Array => new Uint8Array(4096).fill(value);
/** Two round trips of another connection: what was on its way has arrived. */
const settle = async (twin: TwinServer): Promise<void> => {
  await ping(twin.url);
  await ping(twin.url);
};

on('mutations stay within the window of 1024', { maxInFlightRequests: 5000 }, async (twin, volume) => {
  twin.hold = (id) => id === 1;
  const writes = Array.from({ length: 1500 }, (_, i) => volume.write((i % 1024) * 4096, block(i)));
  await until(() => twin.executions.length === SESSION_WINDOW, 'a full window');
  await settle(twin);
  assert.is(twin.executions.length, SESSION_WINDOW);
  twin.release();
  await Promise.all(writes);
  assert.is(twin.executions.length, 1500);
  assert.is(twin.widestWindow, SESSION_WINDOW);
});

on('requests in flight are bounded', { maxInFlightRequests: 7 }, async (twin, volume) => {
  twin.hold = true;
  const reads = Array.from({ length: 50 }, () => volume.read(0, 1));
  await until(() => twin.heldCount === 7, 'seven reads');
  await settle(twin);
  assert.is(twin.heldCount, 7);
  twin.release();
  await Promise.all(reads);
  assert.is(twin.received.length, 50);
});

on(
  'bytes in flight are bounded, written and asked for alike',
  { maxInFlightBytes: 100 * KiB },
  async (twin, volume) => {
    twin.hold = true;
    const work = [volume.write(0, new Uint8Array(60 * KiB)), volume.read(0, 60 * KiB), volume.read(0, 10)];
    await until(() => twin.heldCount === 1, 'the write');
    await settle(twin);
    assert.is(twin.heldCount, 1);
    twin.release();
    await Promise.all(work);
  },
);

on('a server with narrower limits is obeyed', {}, async (twin, volume) => {
  twin.limits.maxInFlightRequests = 3;
  twin.drop();
  await volume.read(0, 1);
  twin.hold = true;
  const reads = Array.from({ length: 10 }, () => volume.read(0, 1));
  await until(() => twin.heldCount === 3, 'three reads');
  await settle(twin);
  assert.is(twin.heldCount, 3);
  twin.release();
  await Promise.all(reads);
});

on(
  'calls that wait are bounded: BUSY, without effect',
  { maxInFlightRequests: 1, maxQueued: 5 },
  async (twin, volume) => {
    twin.hold = true;
    const writes = Array.from({ length: 6 }, () => volume.write(0, block(1)));
    await rejectsWith('BUSY', () => volume.write(0, block(2)));
    twin.release();
    await Promise.all(writes);
    assert.is(twin.executions.length, 6);
  },
);

on('aborted in flight: ABORTED at once, the late reply is discarded', {}, async (twin, volume) => {
  await volume.write(0, block(5));
  twin.hold = true;
  const abort = new AbortController();
  const read = volume.read(0, 4096, { signal: abort.signal });
  await until(() => twin.heldCount === 1, 'the read at the server');
  abort.abort();
  await rejectsWith('ABORTED', () => read);
  twin.release();
  sameBytes(await volume.read(0, 4096), block(5));
  assert.is(twin.hellos.length, 1);
});

on('aborted while it waits: never sent', { maxInFlightRequests: 1 }, async (twin, volume) => {
  twin.hold = true;
  const first = volume.write(0, block(1));
  const abort = new AbortController();
  const second = volume.write(0, block(2), { signal: abort.signal });
  const third = volume.write(4096, block(3));
  abort.abort();
  await rejectsWith('ABORTED', () => second);
  twin.release();
  await Promise.all([first, third]);
  assert.equal(
    twin.executions.map((e) => e.offset),
    [0, 4096],
  );
  sameBytes(await volume.read(0, 4096), block(1));
});

on('aborted in the middle of a long write: the rest is never sent', {}, async (twin, volume) => {
  twin.hold = true;
  const abort = new AbortController();
  const write = volume.write(0, new Uint8Array(8 * MiB), { signal: abort.signal });
  await until(() => twin.heldCount === 16, 'the parts under way');
  abort.abort();
  await rejectsWith('ABORTED', () => write);
  twin.release();
  await volume.read(0, 1);
  assert.is(twin.executions.length, 16);
});

on('a deadline: DEADLINE, and the server was told of it', {}, async (twin, volume) => {
  twin.hold = true;
  await rejectsWith('DEADLINE', () => volume.read(0, 1, { deadlineMs: 30 }));
  await rejectsWith('DEADLINE', () => volume.read(0, 1, { deadlineMs: 0 }));
  const told = twin.received[0]!.deadlineMs;
  assert.ok(told >= 1 && told <= 30, `${told}`);
  await rejectsWith('INVALID_ARGUMENT', () => volume.read(0, 1, { deadlineMs: NaN }));
  await rejectsWith('INVALID_ARGUMENT', () => volume.read(0, 1, { deadlineMs: -1 }));
});

on('a deadline while there is no server', {}, async (twin, volume) => {
  await twin.stop();
  await rejectsWith('DEADLINE', () => volume.write(0, block(1), { deadlineMs: 30 }));
});

on('an error of the server reaches the caller with what it says', {}, async (twin, volume) => {
  twin.refusals.push('CORRUPT_BLOCK');
  const error = await volume.read(4096, 10).then(
    () => assert.unreachable(),
    (e: unknown) => e,
  );
  assert.instance(error, HoldfastError);
  const { code, details, message } = error as HoldfastError;
  assert.is(code, 'CORRUPT_BLOCK');
  assert.equal([details.offsetBytes, details.lengthBytes], [4096, 10]);
  assert.is(details.peer, twin.address);
  assert.match(message, 'as the test says');
});

for (const how of ['header', 'payload', 'type', 'length', 'garbage'] satisfies Corruption[]) {
  on(`a malformed reply (${how}) ends the connection, the request is repeated`, {}, async (twin, volume) => {
    await volume.write(0, block(3));
    twin.corruptNext = how;
    sameBytes(await volume.read(0, 4096), block(3));
    assert.is(twin.hellos.length, 2);
    twin.corruptNext = how === 'payload' ? 'header' : how;
    await volume.write(0, block(4));
    sameBytes(await volume.read(0, 4096), block(4));
    assert.is(twin.executions.length, 2, 'the repeated write was not executed again');
  });
}

on('a reply that comes twice is taken once', {}, async (twin, volume) => {
  twin.answerTwice = true;
  for (let i = 0; i < 50; i++) {
    await volume.write(0, block(i));
    sameBytes(await volume.read(0, 4096), block(i));
  }
  assert.is(twin.hellos.length, 1);
});

on(
  'a silent server is asked with PING, then left',
  { idleTimeoutMs: 40, handshakeTimeoutMs: 200 },
  async (twin, volume) => {
    twin.silent = true;
    const write = volume.write(0, block(1));
    await until(() => twin.pings >= 1 && twin.connectionCount >= 2, 'PING and another connection');
    twin.silent = false;
    await write;
    assert.is(twin.executions.length, 1);
  },
);

on('a server that is slow but answers PING is waited for', { idleTimeoutMs: 20 }, async (twin, volume) => {
  twin.hold = true;
  const write = volume.write(0, block(1));
  await until(() => twin.pings >= 3, 'three PINGs');
  assert.is(twin.connectionCount, 1);
  twin.release();
  await write;
  assert.is(twin.hellos.length, 1);
});

on('close waits for what is under way, then refuses', {}, async (twin, volume) => {
  twin.hold = true;
  const write = volume.write(0, block(1));
  await until(() => twin.heldCount === 1, 'the write at the server');
  const closing = volume.close();
  await rejectsWith('CLOSED', () => volume.read(0, 1));
  twin.release();
  await Promise.all([write, closing]);
  assert.is(twin.executions.length, 1);
});

on('close with the server gone: what is under way fails at once', {}, async (twin, volume) => {
  twin.hold = true;
  const write = volume.write(0, block(1));
  const read = volume.read(0, 1);
  await until(() => twin.heldCount === 2, 'both at the server');
  await twin.stop();
  await Promise.all([
    rejectsWith('OUTCOME_UNKNOWN', () => write),
    read.then(
      () => assert.unreachable(),
      () => {},
    ),
    until(() => twin.connectionCount === 1, 'the loss').then(() => volume.close()),
  ]);
});

limits('nobody listens: UNREACHABLE', async () => {
  const twin = await TwinServer.start();
  const { url } = twin;
  await twin.stop();
  await rejectsWith('UNREACHABLE', () => connect(url, { connectMs: 0 }));
  await rejectsWith('UNREACHABLE', () => list(url));
  await rejectsWith('UNREACHABLE', () => ping(url));
});

limits('the second of two addresses is taken where the first is dead', async () => {
  const dead = await TwinServer.start();
  const deadAddress = dead.address;
  await dead.stop();
  const twin = await TwinServer.start();
  const volume = await connect(`holdfast://${deadAddress},${twin.address}/demo`);
  await volume.write(0, block(1));
  assert.is((await list(`holdfast://${deadAddress},${twin.address}`)).length, 600);
  await volume.close();
  await twin.stop();
});

limits('an unknown volume: NO_SUCH_VOLUME at once', async () => {
  const twin = await TwinServer.start();
  await rejectsWith('NO_SUCH_VOLUME', () => connect(`holdfast://${twin.address}/other`));
  assert.is(twin.hellos.length, 1);
  await twin.stop();
});

/** A server that gives one answer to whatever comes. */
async function answering(reply: Uint8Array, work: (url: string) => Promise<void>): Promise<void> {
  const sockets: Socket[] = [];
  const server = createServer((socket) => {
    sockets.push(socket);
    socket.on('error', () => {});
    socket.once('data', () => socket.write(reply));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  try {
    await work(`holdfast://127.0.0.1:${(server.address() as AddressInfo).port}/demo`);
  } finally {
    for (const socket of sockets) socket.destroy();
    await new Promise<void>((resolve) => server.close(() => resolve()));
  }
}

const hello = { type: MESSAGES.HELLO.number, requestId: 0, offset: 0, count: 0 };

limits('a server that speaks another protocol', async () => {
  await answering(Buffer.from('SSH-2.0-OpenSSH\r\n'.repeat(10)), (url) =>
    rejectsWith('BAD_FRAME', () => connect(url, { connectMs: 0 })),
  );
});

limits('a server that speaks another version', async () => {
  const refusal = encodeErrorReply(hello, 0, new HoldfastError('WRONG_VERSION', { detail: 'versions 2 to 3' }));
  // The id is not known before the client has sent it, so the refusal comes as GOODBYE.
  const goodbye = encodeFrame(
    { type: MESSAGES.GOODBYE.number | REPLY_BIT, requestId: 0, status: 7 },
    refusal.subarray(64),
  );
  await answering(goodbye, async (url) => {
    await rejectsWith('WRONG_VERSION', () => connect(url));
    await connect(url).catch((e: Error) => assert.match(e.message, 'versions 2 to 3'));
  });
});

limits('a server that says nothing: UNREACHABLE or lost after the handshake time', async () => {
  await answering(new Uint8Array(0), (url) =>
    rejectsWith('CONNECTION_LOST', () => connect(url, { connectMs: 0, handshakeTimeoutMs: 50 })),
  );
});

limits('reads and writes are cut at 256 KiB, all parts under way at once', async () => {
  const twin = await TwinServer.start();
  const volume = await connect(twin.url);
  await volume.write(1000, new Uint8Array(MiB).fill(1));
  assert.equal(
    twin.executions.map((e) => [e.offset, e.count]),
    [
      [1000, MAX_IO_BYTES - 1000],
      [MAX_IO_BYTES, MAX_IO_BYTES],
      [2 * MAX_IO_BYTES, MAX_IO_BYTES],
      [3 * MAX_IO_BYTES, MAX_IO_BYTES],
      [4 * MAX_IO_BYTES, 1000],
    ],
  );
  await volume.write(1000, new Uint8Array(MAX_IO_BYTES));
  assert.is(twin.executions.length, 6, 'up to 256 KiB is one request, whatever its alignment');
  twin.hold = true;
  const read = volume.read(0, 3 * MiB);
  await until(() => twin.heldCount === 12, 'twelve parts at once');
  twin.release();
  assert.is((await read).length, 3 * MiB);
  await volume.zero(100, 8 * MiB - 200);
  assert.equal(
    twin.executions.slice(6).map((e) => [e.offset, e.count]),
    [
      [100, MAX_IO_BYTES - 100],
      [MAX_IO_BYTES, 8 * MiB - 2 * MAX_IO_BYTES],
      [8 * MiB - MAX_IO_BYTES, MAX_IO_BYTES - 100],
    ],
  );
  await volume.close();
  await twin.stop();
});

limits.run();
