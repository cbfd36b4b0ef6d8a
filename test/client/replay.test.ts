/** What happens to requests when connections are lost: executed once, answered once, nothing forgotten. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { MiB } from '../../src/base/units.ts';
import { connect, type ConnectOptions, type Volume } from '../../src/client/index.ts';
import { MESSAGES } from '../../src/protocol/messages.ts';
import { rejectsWith, sameBytes } from '../contract/block-device.ts';
import { until } from '../support/until.ts';
import { TwinServer } from '../support/twin-server.ts';

const replay = suite('client: replay');

function on(title: string, options: ConnectOptions, body: (twin: TwinServer, volume: Volume) => Promise<void>): void {
  replay(title, async () => {
    const twin = await TwinServer.start();
    const volume = await connect(twin.url, { retryMs: 20_000, ...options });
    try {
      await body(twin, volume);
    } finally {
      // A volume whose server is gone closes at once.
      await twin.stop();
      await volume.close();
    }
  });
}

const block = (value: number): Uint8Array => new Uint8Array(4096).fill(value);

function executedOnce(twin: TwinServer): void {
  const keys = twin.executions.map((e) => `${e.session}/${e.requestId}`);
  assert.is(new Set(keys).size, keys.length, 'a request was executed twice');
}

on('200 writes in flight when the connection is lost: each is executed once', {}, async (twin, volume) => {
  twin.hold = true;
  const writes = Array.from({ length: 200 }, (_, i) => volume.write(i * 4096, block(i)));
  await until(() => twin.heldCount === 200, '200 writes at the server');
  twin.hold = false;
  twin.drop();
  await Promise.all(writes);
  assert.is(twin.executions.length, 200);
  executedOnce(twin);
  for (let i = 0; i < 200; i++) sameBytes(await volume.read(i * 4096, 4096), block(i));
  assert.equal(
    twin.hellos.map((h) => h.generation),
    [1, 2],
  );
  assert.is(new Set(twin.hellos.map((h) => h.session)).size, 1);
});

for (const executeDropped of [true, false]) {
  on(`the connection is lost after each n-th request, executed: ${executeDropped}`, {}, async (twin, volume) => {
    twin.executeDropped = executeDropped;
    let expected = 0;
    for (let n = 1; n <= 12; n++) {
      twin.dropAfter = n;
      const work: Array<Promise<unknown>> = [];
      for (let i = 0; i < 12; i++) {
        work.push(volume.write(i * 4096, block(n * 16 + i)));
        work.push(volume.read(i * 4096, 4096));
      }
      expected += 12;
      await Promise.all(work);
      for (let i = 0; i < 12; i++) sameBytes(await volume.read(i * 4096, 4096), block(n * 16 + i), `round ${n}`);
    }
    assert.is(twin.executions.length, expected);
    executedOnce(twin);
    assert.is(twin.hellos.length, 13);
  });
}

on('replays go out in the order of their numbers, before anything new', {}, async (twin, volume) => {
  twin.hold = true;
  const first = Array.from({ length: 20 }, (_, i) => volume.write(i * 4096, block(1)));
  const reads = [volume.read(0, 1), volume.read(4096, 1)];
  await until(() => twin.heldCount === 22, 'all at the server');
  twin.hold = false;
  twin.drop();
  const later = volume.write(0, block(2));
  await Promise.all([...first, ...reads, later]);
  const ids = twin.received.filter((r) => r.connection === twin.connectionCount - 1).map((r) => r.requestId);
  // The later one may have been counted as lost with the others, or not.
  const others = ids.filter((id) => id !== 21);
  assert.equal(
    others,
    others.toSorted((x, y) => x - y),
  );
  assert.is(others.length, 22);
  assert.ok(ids.indexOf(21) > ids.indexOf(20));
  sameBytes(await volume.read(0, 4096), block(2));
});

on('a server that is away for a while: calls made meanwhile wait for it', {}, async (twin, volume) => {
  await twin.stop();
  const writes = [volume.write(0, block(1)), volume.write(4096, block(2))];
  await until(() => twin.connectionCount === 1, 'nothing new');
  await twin.listen();
  await Promise.all(writes);
  sameBytes(await volume.read(4096, 4096), block(2));
  executedOnce(twin);
});

on('several losses in a row', {}, async (twin, volume) => {
  const writes: Array<Promise<void>> = [];
  for (let i = 0; i < 40; i++) {
    if (i % 10 === 5) twin.dropAfter = 3;
    writes.push(volume.write(i * 4096, block(i)));
    if (i % 4 === 0) await writes[i];
  }
  await Promise.all(writes);
  for (let i = 0; i < 40; i++) sameBytes(await volume.read(i * 4096, 4096), block(i));
  executedOnce(twin);
  assert.ok(twin.hellos.length >= 4);
});

on('another epoch after a restart: attached anew, then repeated', {}, async (twin, volume) => {
  await volume.write(0, block(1));
  twin.epoch = 2;
  await volume.write(0, block(2));
  sameBytes(await volume.read(0, 4096), block(2));
  assert.is(twin.hellos.length, 2);
  executedOnce(twin);
});

for (const code of ['NOT_PRIMARY', 'SHUTTING_DOWN', 'WRONG_EPOCH'] as const) {
  on(`${code} is repeated on a new connection`, {}, async (twin, volume) => {
    twin.refusals.push(code);
    await volume.write(0, block(1));
    assert.is(twin.hellos.length, 2);
    assert.is(twin.executions.length, 1);
    assert.is(twin.executions[0]!.requestId, 1);
  });
}

on('BUSY is repeated on the same connection under the same number', {}, async (twin, volume) => {
  twin.refusals.push('BUSY', 'BUSY');
  await volume.write(0, block(1));
  assert.is(twin.hellos.length, 1);
  assert.equal(
    twin.received.map((r) => r.requestId),
    [1, 1, 1],
  );
});

on('BUSY for longer than retryMs is handed on', { retryMs: 0 }, async (twin, volume) => {
  twin.refusals.push('BUSY');
  await rejectsWith('BUSY', () => volume.write(0, block(1)));
});

on('a server that says GOODBYE is connected to again', {}, async (twin, volume) => {
  twin.hold = true;
  const write = volume.write(0, block(1));
  await until(() => twin.heldCount === 1, 'the write at the server');
  twin.hold = false;
  twin.goodbye('SHUTTING_DOWN');
  await write;
  assert.is(twin.executions.length, 1);
});

on(
  'a forgotten session: mutations in flight are unknown, reads are repeated, new calls go on',
  {},
  async (twin, volume) => {
    await volume.write(0, block(1));
    twin.hold = true;
    const write = volume.write(0, block(2));
    const read = volume.read(0, 4096);
    await until(() => twin.heldCount === 2, 'both at the server');
    twin.hold = false;
    twin.forgetSessions();
    twin.drop();
    await rejectsWith('OUTCOME_UNKNOWN', () => write);
    assert.is((await read).length, 4096);
    await volume.write(4096, block(3));
    assert.is(new Set(twin.hellos.map((h) => h.session)).size, 2);
    assert.is(twin.executions.at(-1)!.requestId, 1, 'numbers start anew');
  },
);

on('a mutation that was given up is not repeated', {}, async (twin, volume) => {
  twin.executeDropped = false;
  twin.hold = true;
  await volume.read(0, 0);
  const abort = new AbortController();
  const given = volume.write(0, block(1), { signal: abort.signal });
  const kept = volume.write(4096, block(2));
  await until(() => twin.heldCount === 2, 'both at the server');
  abort.abort();
  await rejectsWith('ABORTED', () => given);
  twin.hold = false;
  const before = twin.received.length;
  twin.drop();
  await kept;
  assert.equal(
    twin.received.slice(before).map((r) => r.requestId),
    [2],
  );
  // Its number is settled: the window moves on.
  for (let i = 0; i < 1100; i++) await volume.zero(8192, 1);
  assert.is(twin.executions.at(-1)!.requestId, 1102);
});

on('the bytes of a write may change once it was given up, the server gets what was sent', {}, async (twin, volume) => {
  const abort = new AbortController();
  const bytes = block(7);
  const write = volume.write(0, bytes, { signal: abort.signal });
  abort.abort();
  bytes.fill(9);
  await rejectsWith('ABORTED', () => write);
  await volume.flush();
  const got = await volume.read(0, 4096);
  assert.ok(got[0] === 7 || got[0] === 0);
  sameBytes(got, block(got[0]!));
  assert.is(twin.hellos.length, 1, 'no malformed frame');
});

on('another volume at the address: every call fails and says so', {}, async (twin, volume) => {
  twin.hold = true;
  const write = volume.write(0, block(1));
  await until(() => twin.heldCount === 1, 'the write at the server');
  twin.volumeId = new Uint8Array(16).fill(8);
  twin.drop();
  await rejectsWith('OUTCOME_UNKNOWN', () => write);
  await rejectsWith('NO_SUCH_VOLUME', () => volume.read(0, 1));
  await volume.read(0, 1).catch((e: Error) => assert.match(e.message, 'another volume'));
});

on('a smaller size: the same', {}, async (twin, volume) => {
  twin.sizeBytes = 4 * MiB;
  twin.drop();
  await rejectsWith('NO_SUCH_VOLUME', () => volume.read(0, 1));
});

on(
  'a larger size is that of a volume that has grown: seen when asked for, or at the next connection',
  {},
  async (twin, volume) => {
    assert.is(volume.sizeBytes, 8 * MiB);
    twin.sizeBytes = 16 * MiB;
    await rejectsWith('OUT_OF_RANGE', () => volume.read(8 * MiB, 1));
    assert.is((await volume.info()).sizeBytes, 16 * MiB);
    assert.is(volume.sizeBytes, 16 * MiB);
    twin.sizeBytes = 24 * MiB;
    await volume.write(0, block(1));
    assert.is(volume.sizeBytes, 16 * MiB, 'nobody has told it');
    twin.drop();
    sameBytes(await volume.read(0, 4096), block(1));
    assert.is(volume.sizeBytes, 24 * MiB);
  },
);

on(
  'no server for retryMs: mutations are unknown, reads unreachable, later calls try again',
  { retryMs: 300, maxInFlightRequests: 2 },
  async (twin, volume) => {
    twin.hold = true;
    const write = volume.write(0, block(1));
    const read = volume.read(0, 1);
    await until(() => twin.heldCount === 2, 'both at the server');
    await twin.stop();
    const waiting = volume.write(4096, block(2));
    await Promise.all([
      rejectsWith('OUTCOME_UNKNOWN', () => write),
      rejectsWith('UNREACHABLE', () => read),
      rejectsWith('UNREACHABLE', () => waiting, 'a write that was never sent'),
    ]);
    twin.hold = false;
    await twin.listen();
    await volume.write(4096, block(3));
    sameBytes(await volume.read(4096, 4096), block(3));
    executedOnce(twin);
  },
);

on('flush and control requests are repeated too', {}, async (twin, volume) => {
  twin.dropAfter = 1;
  await volume.flush();
  twin.dropAfter = 1;
  assert.is((await volume.extents(0, 8192)).length, 1);
  assert.is(twin.received.filter((r) => r.type === MESSAGES.FLUSH.number).length, 2);
  twin.drop();
  assert.is((await volume.info()).name, 'demo');
});

replay.run();
