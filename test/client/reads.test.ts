/** Reads from backups and from all replicas: real servers, stores that are alike until a test makes them differ. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { connect, type ConnectOptions, HoldfastError, type Volume } from '../../src/client/index.ts';
import { rejectsWith, sameBytes } from '../contract/block-device.ts';
import { Random } from '../support/random.ts';
import { type ClusterNode, SmallCluster } from '../support/small-cluster.ts';
import { until } from '../support/until.ts';

const reads = suite('client: read policies');
const block = (value: number): Uint8Array => new Uint8Array(4096).fill(value);

function on(
  title: string,
  options: ConnectOptions & { stores: 'shared' | 'own' },
  body: (cluster: SmallCluster, volume: Volume) => Promise<void>,
): void {
  reads(title, async () => {
    const { stores, ...others } = options;
    const cluster = await SmallCluster.start(3, stores);
    for (const node of cluster.nodes) {
      for (let i = 0; i < 8; i++) await node.own.device.write(i * 4096, block(i + 1));
    }
    const volume = await connect(cluster.url(cluster.nodes[0]!), { retryMs: 20_000, ...others });
    try {
      await body(cluster, volume);
    } finally {
      // As a client whose nodes are there.
      await volume.close();
      await cluster.close();
    }
  });
}

/** Every member that is in sync has a link for reads. */
async function linked(nodes: readonly ClusterNode[]): Promise<void> {
  await until(() => nodes.every((node) => node.attaches.any > 0), 'links for reading');
}

const readsOf = (cluster: SmallCluster): number[] => cluster.nodes.map((node) => node.reads);

on(
  'any: reads are spread over all that are in sync, and are right',
  { stores: 'shared', reads: 'any' },
  async (c, v) => {
    await linked(c.nodes.slice(1));
    await until(() => c.nodes.every((node) => node.connectionCount > 0), 'connections');
    for (let round = 0; round < 10; round++) {
      const all = await Promise.all(Array.from({ length: 24 }, (_, i) => v.read((i % 8) * 4096, 4096)));
      for (const [i, bytes] of all.entries()) sameBytes(bytes, block((i % 8) + 1));
    }
    const counts = readsOf(c);
    assert.is(
      counts.reduce((sum, n) => sum + n, 0),
      240,
    );
    for (const n of counts) assert.ok(n >= 40, `reads per node: ${counts.join(', ')}`);
    await v.write(0, block(99));
    for (let i = 0; i < 6; i++) sameBytes(await v.read(0, 4096), block(99));
  },
);

on('any: mutations and flush go to the primary alone', { stores: 'own', reads: 'any' }, async (c, v) => {
  await linked(c.nodes.slice(1));
  const before = c.nodes.map((node) => node.own.volume.info().position.seq);
  await v.write(0, block(9));
  await v.zero(4096, 4096);
  await v.flush();
  await v.extents(0, v.sizeBytes);
  const after = c.nodes.map((node) => node.own.volume.info().position.seq);
  assert.equal(
    after.map((seq, i) => seq - before[i]!),
    [2, 0, 0],
  );
});

on('any: what a backup refuses is read from the primary', { stores: 'shared', reads: 'any' }, async (c, v) => {
  await linked(c.nodes.slice(1));
  for (const node of c.nodes.slice(1)) node.refuseReads = 5;
  const refused = (): boolean => c.nodes.slice(1).some((node) => node.refuseReads < 5);
  // The backups know of their links a moment before the client uses them.
  for (let round = 0; round < 500 && !refused(); round++) {
    await Promise.all(
      Array.from({ length: 30 }, async (_, i) => sameBytes(await v.read((i % 8) * 4096, 4096), block((i % 8) + 1))),
    );
  }
  assert.ok(refused(), 'none was refused');
});

on(
  'any: a backup that falls silent costs no read',
  { stores: 'shared', reads: 'any', suspectMs: 100, idleTimeoutMs: 1_000_000 },
  async (c, v) => {
    await linked(c.nodes.slice(1));
    c.nodes[1]!.proxy.fallSilent();
    c.nodes[2]!.readsStick = true;
    const before = c.nodes[0]!.reads;
    await Promise.all(
      Array.from({ length: 60 }, async (_, i) => sameBytes(await v.read((i % 8) * 4096, 4096), block((i % 8) + 1))),
    );
    assert.is(c.nodes[0]!.reads - before, 60);
  },
);

on('any: who is out of sync is not read from, and is again later', { stores: 'shared', reads: 'any' }, async (c, v) => {
  const [, second, third] = c.nodes;
  await linked([second!, third!]);
  c.setInSync(second!, false);
  second!.proxy.drop();
  await until(() => second!.connectionCount === 0, 'the end of the link');
  const before = second!.reads;
  for (let i = 0; i < 20; i++) await v.read(0, 4096);
  assert.is(second!.reads, before);
  c.setInSync(second!, true);
  // Whatever makes it look again.
  third!.proxy.drop();
  await until(() => second!.connectionCount > 0, 'a link for reading');
});

on(
  'any: a read that was given up, and a close with reads under way',
  { stores: 'shared', reads: 'any' },
  async (c, v) => {
    await linked(c.nodes.slice(1));
    for (const node of c.nodes) node.readsStick = true;
    const abort = new AbortController();
    const given = Array.from({ length: 6 }, () =>
      rejectsWith('ABORTED', () => v.read(0, 10, { signal: abort.signal })),
    );
    await until(() => readsOf(c).reduce((sum, n) => sum + n, 0) >= 6, 'the reads at the nodes');
    abort.abort();
    await Promise.all(given);
    for (const node of c.nodes) node.readsStick = false;
    const last = Array.from({ length: 6 }, () => v.read(4096, 4096));
    c.nodes[0]!.proxy.drop();
    for (const bytes of await Promise.all(last)) sameBytes(bytes, block(2));
  },
);

on(
  'all: every replica is asked, and what they agree on is handed out',
  { stores: 'own', reads: 'all' },
  async (c, v) => {
    const before = readsOf(c);
    sameBytes(await v.read(4096, 8192), Buffer.concat([block(2), block(3)]));
    sameBytes(await v.read(4097, 1), Uint8Array.of(2));
    assert.equal(
      readsOf(c).map((n, i) => n - before[i]!),
      [2, 2, 2],
    );
    // More than may be compared at once.
    const long = await Promise.all(Array.from({ length: 6 }, () => v.read(0, v.sizeBytes)));
    for (const bytes of long) sameBytes(bytes.subarray(0, 8192), Buffer.concat([block(1), block(2)]));
  },
);

on('all: a flipped bit stops the volume and is shown', { stores: 'own', reads: 'all' }, async (c, v) => {
  const third = c.nodes[2]!;
  const flipped = block(4);
  flipped[100]! ^= 0x40;
  await third.own.device.write(3 * 4096, flipped);
  sameBytes(await v.read(0, 3 * 4096), Buffer.concat([block(1), block(2), block(3)]));
  let error = new HoldfastError('ABORTED');
  await v.read(0, 8 * 4096).catch((thrown: HoldfastError) => (error = thrown));
  assert.is(error.code, 'DIVERGED');
  assert.is(error.errno, 'EIO');
  assert.is(error.details.offsetBytes, 3 * 4096);
  for (const [i, node] of c.nodes.entries()) {
    const bytes = i === 2 ? '44' + '04'.repeat(15) : '04'.repeat(16);
    assert.match(error.message, `n${i + 1} (${node.proxy.address}) has ${bytes}`);
  }
  assert.match(error.message, `from byte ${3 * 4096 + 100} on`);
  await rejectsWith('DIVERGED', () => v.read(0, 1));
  await rejectsWith('DIVERGED', () => v.write(0, block(1)));
  await rejectsWith('DIVERGED', () => v.flush());
});

on('all: writers beside it raise no alarm', { stores: 'shared', reads: 'all' }, async (c, v) => {
  const writer = await connect(c.url(c.nodes[0]!));
  const random = new Random(5);
  let going = true;
  const written = [0, 0];
  // To and fro, and ever new: both look like a difference to who asks one replica after the other.
  const writing = [(n: number) => n % 2, (n: number) => n % 251].map(async (valueOf, i) => {
    for (let n = 0; going; n++, written[i]!++) await writer.write(i * 4096, block(valueOf(n)));
  });
  // Some replicas answer a few writes later than others.
  for (const node of c.nodes) {
    node.beforeRead = async () => {
      const from = written[0]! + written[1]!;
      const lag = Math.max(0, random.below(6) - 3);
      await until(() => !going || written[0]! + written[1]! >= from + lag, 'the next write');
    };
  }
  try {
    for (let i = 0; i < 100; i++) {
      const bytes = await v.read((i % 2) * 4096, 4096);
      sameBytes(bytes, block(bytes[0]!));
    }
  } finally {
    going = false;
    await Promise.all(writing);
    await writer.close();
  }
  const repeated = c.nodes[2]!.reads - 100;
  assert.ok(repeated > 20, `${repeated} reads were repeated: no difference was seen, nothing was tested`);
});

on(
  'all: while one that is in sync is silent nothing is handed out; without it, it goes on',
  { stores: 'own', reads: 'all', suspectMs: 100 },
  async (c, v) => {
    const second = c.nodes[1]!;
    await v.read(0, 1);
    second.readsStick = true;
    let answered = false;
    const read = v.read(0, 4096).then((bytes) => {
      answered = true;
      return bytes;
    });
    const asked = second.attaches.any;
    await until(() => second.attaches.any > asked + 1, 'several attempts');
    assert.not(answered);
    c.setInSync(second, false);
    sameBytes(await read, block(1));
    // Out of sync it may differ.
    await second.own.device.write(0, block(77));
    sameBytes(await v.read(0, 4096), block(1));
  },
);

on(
  'all: with a replica away for good, reads fail and name it',
  { stores: 'own', reads: 'all', retryMs: 300 },
  async (c, v) => {
    await c.nodes[1]!.proxy.close();
    const error = await v.read(0, 1).catch((thrown: HoldfastError) => thrown);
    assert.instance(error, HoldfastError);
    assert.is((error as HoldfastError).code, 'UNREACHABLE');
    assert.match((error as HoldfastError).message, 'n2:');
  },
);

reads('an unknown policy is refused', async () => {
  const odd = { reads: 'some' } as unknown as ConnectOptions;
  await rejectsWith('INVALID_ARGUMENT', () => connect('holdfast://127.0.0.1:1/v', odd));
});

reads.run();
