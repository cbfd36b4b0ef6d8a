/**
 * The client library over a server that is killed and started again: the callers see a pause and no error, every write
 * is executed, none lands late.
 */
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { connect } from '../../src/client/index.ts';
import { Random } from '../support/random.ts';
import { ServerProcess, temporaryFolder } from '../support/server-process.ts';

const test = suite('client over restarts');
const LANES = 8;
const LANE_BYTES = 256 * 1024;
const KILLS = 6;

test(`${KILLS} kills under load: no error, nothing lost, nothing late`, async () => {
  const dir = join(temporaryFolder(), 'vol');
  let server = await ServerProcess.start(dir, ['--size', '16MiB']);
  const port = String(server.port);
  const volume = await connect(server.url, { connections: 2 });
  let stop = false;
  const shadows = Array.from({ length: LANES }, () => new Uint8Array(LANE_BYTES));
  let operations = 0;
  const lanes = shadows.map(async (shadow, lane) => {
    const random = new Random(lane + 1);
    const base = lane * LANE_BYTES;
    while (!stop) {
      const length = 1 + random.below(30_000);
      const at = random.below(LANE_BYTES - length);
      if (random.chance(0.7)) {
        const bytes = random.bytes(length);
        await volume.write(base + at, bytes);
        shadow.set(bytes, at);
      } else if (random.chance(0.2)) {
        await volume.zero(base + at, length);
        shadow.fill(0, at, at + length);
      } else {
        const bytes = await volume.read(base + at, length);
        assert.is(Buffer.compare(bytes, shadow.subarray(at, at + length)), 0, `lane ${lane} at ${at}`);
      }
      operations++;
    }
  });
  // A caller that pipelines overlapping writes: after the replays the last one must be the one that stays.
  const overlapping = (async () => {
    const base = LANES * LANE_BYTES;
    for (let i = 1; !stop; i++) {
      await volume.write(base, new Uint8Array(20_000).fill(i % 251));
      assert.is((await volume.read(base + 19_999, 1))[0], i % 251);
    }
  })();
  for (let i = 0; i < KILLS; i++) {
    await new Promise((resolve) => setTimeout(resolve, 300));
    assert.is((await server.kill()).signal, 'SIGKILL');
    server = await ServerProcess.start(dir, ['--listen', `127.0.0.1:${port}`]);
    assert.is(server.info.health, 'good');
  }
  await new Promise((resolve) => setTimeout(resolve, 200));
  stop = true;
  await Promise.all([...lanes, overlapping]);
  for (const [lane, shadow] of shadows.entries()) {
    assert.is(Buffer.compare(await volume.read(lane * LANE_BYTES, LANE_BYTES), shadow), 0, `lane ${lane}`);
  }
  assert.ok(operations > KILLS * LANES, `${operations} operations`);
  await volume.close();
  assert.is((await server.kill('SIGTERM')).code, 0);
});

test('a graceful stop and start is a pause as well', async () => {
  const dir = join(temporaryFolder(), 'vol');
  let server = await ServerProcess.start(dir, ['--size', '16MiB']);
  const port = String(server.port);
  const volume = await connect(server.url);
  let stop = false;
  const writer = (async () => {
    for (let i = 1; !stop; i++) await volume.write(i % 100, Uint8Array.of(i % 256));
  })();
  for (let i = 0; i < 2; i++) {
    await new Promise((resolve) => setTimeout(resolve, 200));
    assert.is((await server.kill('SIGTERM')).code, 0);
    server = await ServerProcess.start(dir, ['--listen', `127.0.0.1:${port}`]);
    assert.is(server.info.recovered, null, 'it was closed in good order');
  }
  stop = true;
  await writer;
  await volume.close();
  await server.kill('SIGTERM');
});

test.run();
