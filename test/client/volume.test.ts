/** Streams, several connections, questions without a volume. */
import { randomBytes } from 'node:crypto';
import { Readable, Writable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { KiB, MAX_IO_BYTES, MiB } from '../../src/base/units.ts';
import { connect, type ConnectOptions, list, ping, type Volume } from '../../src/client/index.ts';
import { MESSAGES } from '../../src/protocol/messages.ts';
import { rejectsWith, sameBytes } from '../contract/block-device.ts';
import { TwinServer } from '../support/twin-server.ts';
import { until } from '../support/until.ts';

const volumes = suite('client: volume');

function on(title: string, options: ConnectOptions, body: (twin: TwinServer, volume: Volume) => Promise<void>): void {
  volumes(title, async () => {
    const twin = await TwinServer.start();
    const volume = await connect(twin.url, options);
    try {
      await body(twin, volume);
    } finally {
      await twin.stop();
      await volume.close();
    }
  });
}

async function collect(stream: Readable): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of stream) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}

/** A stream of those bytes in pieces of changing size. */
function source(bytes: Buffer): Readable {
  const pieces = function* (): Generator<Buffer> {
    for (let at = 0, size = 1; at < bytes.length; at += size) {
      size = 1 + ((size * 7919) % 300_007);
      yield bytes.subarray(at, at + size);
    }
  };
  return Readable.from(pieces(), { objectMode: false });
}

on('a stream in and out, at an odd offset, over two connections', { connections: 2 }, async (twin, volume) => {
  const bytes = randomBytes(5 * MiB + 4321);
  await pipeline(source(bytes), volume.writable({ start: 777 }));
  sameBytes(await volume.read(777, bytes.length), bytes);
  sameBytes(await collect(volume.readable({ start: 777, end: 777 + bytes.length - 1 })), bytes);
  for (const e of twin.executions) {
    assert.is(Math.floor(e.offset / MAX_IO_BYTES), Math.floor((e.offset + e.count - 1) / MAX_IO_BYTES));
  }
  assert.ok(twin.executions.length <= 25, `${twin.executions.length} writes for 21 windows`);
  assert.is(new Set(twin.executions.map((e) => e.session)).size, 2);
});

on('the whole volume as a stream, and ranges of no and of one byte', {}, async (_twin, volume) => {
  await volume.write(0, Uint8Array.of(1, 2, 3));
  assert.is((await collect(volume.readable())).length, volume.sizeBytes);
  assert.equal([...(await collect(volume.readable({ start: 1, end: 1 })))], [2]);
  assert.is((await collect(volume.readable({ start: 5, end: 4 }))).length, 0);
  assert.is((await collect(volume.readable({ start: volume.sizeBytes }))).length, 0);
});

on('ranges that are none are refused', {}, async (_twin, volume) => {
  const size = volume.sizeBytes;
  await rejectsWith('OUT_OF_RANGE', async () => volume.readable({ start: size + 1 }));
  await rejectsWith('OUT_OF_RANGE', async () => volume.readable({ end: size }));
  await rejectsWith('INVALID_ARGUMENT', async () => volume.readable({ start: -1 }));
  await rejectsWith('INVALID_ARGUMENT', async () => volume.writable({ start: 0.5 }));
  await rejectsWith('OUT_OF_RANGE', async () => volume.writable({ start: size + 1 }));
});

on('a stream that does not fit fails, and says where', {}, async (_twin, volume) => {
  await rejectsWith('OUT_OF_RANGE', () =>
    pipeline(source(randomBytes(400_000)), volume.writable({ start: volume.sizeBytes - 300_000 })),
  );
});

on('a failed write or read fails the stream', {}, async (twin, volume) => {
  twin.refusals.push('IO_ERROR');
  await rejectsWith('IO_ERROR', () => pipeline(source(randomBytes(3 * MiB)), volume.writable()));
  await volume.flush();
  twin.refusals.push('CORRUPT_BLOCK');
  await rejectsWith('CORRUPT_BLOCK', () => collect(volume.readable()));
});

on('a writable finishes only when all of it is answered', {}, async (twin, volume) => {
  twin.hold = true;
  const stream = volume.writable();
  let finished = false;
  stream.on('finish', () => (finished = true));
  stream.end(new Uint8Array(10));
  await until(() => twin.heldCount === 1, 'the write at the server');
  assert.not(finished);
  twin.release();
  await until(() => finished, 'the end of the stream');
});

on('a slow reader holds back the reads', {}, async (twin, volume) => {
  const stream = volume.readable();
  stream.read(0);
  await until(() => twin.received.length > 0, 'the first read');
  await new Promise((resolve) => stream.once('readable', resolve));
  await ping(twin.url);
  assert.ok(twin.received.length <= 12, `${twin.received.length} reads ahead`);
  stream.destroy();
  await until(() => stream.closed, 'the end of the stream');
});

on('a destroyed writable gives its writes up', {}, async (twin, volume) => {
  twin.hold = true;
  const stream = volume.writable();
  stream.on('error', () => {});
  stream.write(new Uint8Array(MAX_IO_BYTES));
  await until(() => twin.heldCount === 1, 'the write at the server');
  stream.destroy();
  twin.release();
  await until(() => stream.closed, 'the end of the stream');
  await volume.write(0, Uint8Array.of(1));
});

on('a pipe that loses its server in the middle goes on', {}, async (twin, volume) => {
  const bytes = randomBytes(4 * MiB);
  twin.dropAfter = 5;
  await pipeline(source(bytes), volume.writable());
  twin.dropAfter = 4;
  const into: Buffer[] = [];
  const sink = new Writable({
    write(chunk: Buffer, _encoding, callback) {
      into.push(chunk);
      callback();
    },
  });
  await pipeline(volume.readable({ end: bytes.length - 1 }), sink);
  sameBytes(Buffer.concat(into), bytes);
  assert.is(twin.executions.length, 16);
});

on('two connections share the work, each in a session of its own', { connections: 2 }, async (twin, volume) => {
  assert.is(new Set(twin.hellos.map((h) => h.session)).size, 2);
  twin.hold = true;
  const writes = Array.from({ length: 40 }, (_, i) => volume.write(i * 4096, new Uint8Array(4096).fill(i)));
  await until(() => twin.heldCount === 40, 'all at the server');
  const perConnection = [0, 1].map((c) => twin.received.filter((r) => r.connection === c).length);
  assert.equal(perConnection, [20, 20]);
  twin.hold = false;
  twin.drop();
  await Promise.all(writes);
  assert.is(twin.executions.length, 40);
  for (let i = 0; i < 40; i++) assert.is((await volume.read(i * 4096, 1))[0], i);
});

on(
  'flush waits for writes that other connections have, and for those that were not sent',
  { connections: 2, maxInFlightRequests: 1 },
  async (twin, volume) => {
    twin.hold = true;
    const order: number[] = [];
    const writes = Array.from({ length: 6 }, (_, i) => volume.write(0, Uint8Array.of(i)).then(() => order.push(i)));
    const flush = volume.flush().then(() => order.push(-1));
    await until(() => twin.heldCount === 2, 'two writes at the server');
    twin.release();
    await Promise.all([...writes, flush]);
    assert.is(order.at(-1), -1);
    assert.is(twin.received.at(-1)!.type, MESSAGES.FLUSH.number);
  },
);

on('info asks anew, list and ping need no volume', {}, async (twin, volume) => {
  await volume.write(0, Uint8Array.of(1));
  const info = await volume.info();
  assert.equal([info.name, info.sizeBytes, info.position.seq], ['demo', volume.sizeBytes, 1]);
  assert.equal(volume.volumeId, info.volumeId);
  assert.is(volume.name, 'demo');
  const all = await list(twin.url);
  assert.is(all.length, 600, 'more than one page');
  assert.equal(all[599], { name: 'v599', sizeBytes: 599, readOnly: false });
  assert.ok((await ping(twin.url)) >= 0);
  const only = await connect(`holdfast://${twin.address}`);
  assert.is(only.name, 'demo');
  await only.close();
});

on('extents of a long range come in several requests and are merged', {}, async (twin, volume) => {
  for (let i = 0; i < 2048; i += 2) twin.disk.write(i * 4096, Uint8Array.of(1));
  const all = await volume.extents(0, volume.sizeBytes, { limit: 10_000 });
  assert.is(all.length, 2048);
  assert.is((await volume.extents(0, volume.sizeBytes, { limit: 2047 })).length, 2047);
  await rejectsWith('INVALID_ARGUMENT', () => volume.extents(0, 1, { limit: 0 }));
});

volumes('a read-only volume refuses mutations before they are sent', async () => {
  const twin = await TwinServer.start();
  twin.readOnly = true;
  const volume = await connect(twin.url);
  assert.ok(volume.readOnly);
  await rejectsWith('READ_ONLY', () => volume.write(0, Uint8Array.of(1)));
  await rejectsWith('READ_ONLY', () => volume.zero(0, 1));
  await rejectsWith('READ_ONLY', () => volume.trim(0, 4096));
  assert.is((await volume.read(0, 4 * KiB)).length, 4096);
  assert.is(twin.received.length, 1);
  await volume.close();
  await twin.stop();
});

volumes.run();
