/** What `connect` tells of lost connections, and bytes that are given away with a write. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { type ConnectEvents, type ConnectOptions, connect, type Volume } from '../../src/client/index.ts';
import { rejectsWith, sameBytes } from '../contract/block-device.ts';
import { TwinServer } from '../support/twin-server.ts';
import { until } from '../support/until.ts';

const outages = suite('client: outages');

function on(
  title: string,
  options: ConnectOptions,
  body: (twin: TwinServer, volume: Volume, told: string[]) => Promise<void>,
): void {
  outages(title, async () => {
    const told: string[] = [];
    const events: ConnectEvents = {
      lost: (error) => told.push(`lost ${error.code}`),
      back: (awayMs) => told.push(awayMs > 0 ? 'back' : `back after ${awayMs} ms`),
      gaveUp: (error, forGood) => told.push(`gave up ${error.code} ${forGood}`),
    };
    const twin = await TwinServer.start();
    const volume = await connect(twin.url, { retryMs: 20_000, events, ...options });
    try {
      await body(twin, volume, told);
    } finally {
      await twin.stop();
      await volume.close();
    }
  });
}

const block = (value: number): Uint8Array => new Uint8Array(4096).fill(value);

on('one word for all connections: lost, back, lost, back', { connections: 4 }, async (twin, volume, told) => {
  assert.equal(told, []);
  for (const expected of [2, 4]) {
    twin.drop();
    await until(() => told.length === expected, 'back');
    assert.equal(told.slice(-2), ['lost CONNECTION_LOST', 'back']);
  }
  await volume.write(0, block(1));
  assert.is(told.length, 4);
});

on('retryMs Infinity: calls wait', { connections: 2, retryMs: Infinity }, async (twin, volume, told) => {
  await twin.stop();
  const work = [volume.write(0, block(1)), volume.read(4096, 1), volume.flush()];
  await until(() => told.length === 1, 'the loss');
  await twin.listen();
  await Promise.all(work);
  await until(() => told.length === 2, 'back');
});

on('giving up is told once, before the calls fail', { connections: 3, retryMs: 100 }, async (twin, volume, told) => {
  await twin.stop();
  await rejectsWith('UNREACHABLE', () => volume.read(0, 1));
  assert.equal(told, ['lost CONNECTION_LOST', 'gave up UNREACHABLE false']);
  await Promise.all([1, 2, 3].map(() => rejectsWith('UNREACHABLE', () => volume.read(0, 1))));
  assert.is(told.length, 2);
  await twin.listen();
  await volume.read(0, 1);
});

on('another volume at the address is told as the end', { connections: 2 }, async (twin, volume, told) => {
  twin.volumeId = new Uint8Array(16).fill(8);
  twin.drop();
  await until(() => told.length === 2, 'the end');
  assert.equal(told, ['lost CONNECTION_LOST', 'gave up NO_SUCH_VOLUME true']);
  await rejectsWith('NO_SUCH_VOLUME', () => volume.read(0, 1));
  assert.is(told.length, 2);
});

on('closing is no outage', { connections: 2 }, async (_twin, volume, told) => {
  await volume.close();
  assert.equal(told, []);
});

on('bytes that were given away are sent, and sent again, like copied ones', {}, async (twin, volume) => {
  twin.executeDropped = false;
  const long = new Uint8Array(700_001).map((_, i) => i % 251);
  twin.dropAfter = 2;
  await volume.write(4097, long, { owned: true });
  sameBytes(await volume.read(4097, long.length), long);
  twin.refusals.push('BUSY');
  await volume.write(0, block(9), { owned: true });
  sameBytes(await volume.read(0, 4096), block(9));
  assert.is(twin.hellos.length, 2, 'no malformed frame');
});

on('readInto fills the memory that it is given', {}, async (twin, volume) => {
  twin.disk.write(5, Uint8Array.of(1, 2, 3));
  const into = new Uint8Array(300_000).fill(9);
  await volume.readInto(4, into);
  sameBytes(into.subarray(0, 5), Uint8Array.of(0, 1, 2, 3, 0));
  assert.is(into.at(-1), 0);
});

outages.run();
