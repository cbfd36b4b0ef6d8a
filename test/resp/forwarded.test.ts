/**
 * What a node's port for Redis asks of another node: never an answer that nobody vouches for, since nothing on that port
 * could mark it. A real server, a real client of it, and a real port.
 */
import * as assert from 'uvu/assert';
import { suite } from 'uvu';
import { connectKv } from '../../src/client/index.ts';
import { KvForwarder } from '../../src/gateway/kv-forwarder.ts';
import { StaleKv } from '../../src/kv/stale-kv.ts';
import { AvailableKv } from '../../src/node/available-kv.ts';
import { aboutNothing } from '../../src/node/hosted-kv.ts';
import { KvServed } from '../../src/node/kv-served.ts';
import { NodeKv } from '../../src/node/node-kv.ts';
import { RespServer } from '../../src/node/resp-server.ts';
import { Server } from '../../src/node/server.ts';
import { KvDisk, LIMITS, openKv } from '../support/kv-disk.ts';
import { RespClient } from '../support/resp-client.ts';
import { formatted, opened } from '../support/store-harness.ts';

const test = suite('RESP, forwarded');

/** Of AvailableKv, and of the port: short, since nothing else is to happen meanwhile. */
const PATIENCE_MS = 20;
const RETRY_MS = 100;

interface Bench {
  /** The primary has the right to answer reads. */
  vouches: boolean;
  redis: RespClient;
  url: string;
  /** Calls when a stale answer was given. */
  onStale: () => void;
  close: () => Promise<void>;
}

/** A primary that was started with `--when-isolated available`, and the Redis port of a node that asks it. */
async function bench(retryMs: number): Promise<Bench> {
  const own = await opened(await formatted());
  const disk = new KvDisk(8 * 256);
  const kv = await openKv(disk);
  kv.execute(
    {
      conditions: [],
      steps: [{ type: 'put', key: 'k', value: Buffer.from('v'), expiry: 'none', when: 'always', previous: false }],
    },
    null,
    () => {},
  );
  await disk.settle();
  disk.log.rightToRead = (done) => (made.vouches ? setImmediate(() => done(null)) : undefined);
  const stale = new StaleKv(disk.content, LIMITS, () => ({ ...aboutNothing('sim') }));
  const told = stale.get.bind(stale);
  stale.get = (keys, done) => {
    made.onStale();
    told(keys, done);
  };
  const info = (): ReturnType<typeof own.volume.info> => own.volume.info();
  const server = new Server({ arena: own.disk.arena });
  server.add(new KvServed(new AvailableKv(kv, stale, PATIENCE_MS), { info }, own.disk.arena, () => true));
  const address = await server.listen('127.0.0.1:0');
  const forwarded = new KvForwarder(
    () => address,
    () => 'sim',
    null,
    retryMs,
  );
  const volume = new NodeKv({ local: () => null, about: () => aboutNothing('sim'), forwarded });
  const port = new RespServer({ volume: () => volume, version: '0', password: null, log: () => {} });
  const redis = await RespClient.open(Number((await port.listen('127.0.0.1:0')).split(':')[1]));
  const made: Bench = {
    vouches: true,
    redis,
    url: `holdfast-kv://${address}/sim`,
    onStale: () => {},
    close: async () => {
      redis.close();
      forwarded.close();
      await port.close();
      await server.close();
      await own.close();
    },
  };
  return made;
}

test('what nobody vouches for is refused: a client of ours gets it, and marked', async () => {
  const made = await bench(RETRY_MS);
  assert.is(String(await made.redis.call('GET', 'k')), '$1\r\nv\r\n');
  made.vouches = false;
  for (const command of [
    ['GET', 'k'],
    ['EXISTS', 'k'],
    ['SCAN', '0'],
  ]) {
    assert.match(String(await made.redis.call(...command)), /^-TRYAGAIN .*nobody vouches for.*\r\n$/, command[0]);
  }
  const ours = await connectKv(made.url, { allowStale: true });
  const found = (await ours.get('k'))!;
  assert.equal([String(found.value), found.stale], ['v', true]);
  await ours.close();
  await made.close();
});

test('it is asked again until somebody does', async () => {
  const made = await bench(60_000);
  made.vouches = false;
  const asked = made.redis.call('GET', 'k');
  await new Promise<void>((resolve) => (made.onStale = resolve));
  made.vouches = true;
  assert.is(String(await asked), '$1\r\nv\r\n');
  await made.close();
});

test.run();
