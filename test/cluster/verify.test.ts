/** `holdfast volume verify` on real nodes: equal under writes and a failover, and a replica that differs. */
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { suite } from 'uvu';
import { connect } from '../../src/client/index.ts';
import { repairOf } from '../../src/replication/mender.ts';
import { IoPool } from '../../src/storage/io-pool.ts';
import { openVolume } from '../../src/storage/volume-folder.ts';
import { TestCluster } from '../support/cluster.ts';

const test = suite('volume verify');
const BLOCK = 4096;
const SIZE = 64 * 1024 * 1024;

interface Verdict {
  equal: boolean;
  nodes: string[];
  comparedBytes: number;
  differentBlocks: number;
  skippedBlocks: number;
  differences: Array<{ node: string; block: number }>;
}

async function verify(cluster: TestCluster, ...flags: string[]): Promise<{ code: number; verdict: Verdict }> {
  const { code, stdout } = await cluster.cli('volume', 'verify', 'disk', '--json', ...flags);
  return { code, verdict: JSON.parse(stdout) as Verdict };
}

/** In a replica that nobody has open: other content with a checksum that is right. */
async function falsify(dir: string, block: number): Promise<void> {
  const pool = new IoPool({
    onLost: (error) => {
      throw error;
    },
  });
  const open = await openVolume(dir, pool);
  const { store } = open;
  const slot = pool.arena.take(1)!;
  slot.payload.fill(0x77, 0, BLOCK);
  const record = repairOf(block, slot);
  await new Promise<void>((resolve) => {
    store.listen({
      durable: () => {},
      localDurable: () => store.apply(record, () => resolve()),
      room: () => {},
      failed: (error) => {
        throw error;
      },
    });
    store.append(record);
  });
  await open.close();
  await pool.close();
}

/** What is a line in the log of a node, since it was started. */
function linesOf(cluster: TestCluster, node: string): Array<Record<string, unknown> & { msg: string }> {
  const lines = cluster.slot(node).running!.printed().split('\n');
  return lines
    .filter((line) => line.startsWith('{"level"'))
    .map((line) => JSON.parse(line) as Record<string, unknown> & { msg: string });
}

/** After the loss and the return of that primary: each node says in its log, and in its timeline, what it saw of it. */
async function failoverIsLogged(cluster: TestCluster, former: string): Promise<void> {
  const { epoch, primary: successor } = (await cluster.status()).volumes[0]!;
  const third = ['a', 'b', 'c'].find((name) => name !== former && name !== successor)!;
  const follows = 'follows the primary of a newer epoch';
  const told = linesOf(cluster, third).filter((line) => line.msg === follows && line['epoch'] === epoch);
  assert.equal(
    told.map(({ volume, primary, as }) => ({ volume, primary, as })),
    [{ volume: 'disk', primary: successor, as: 'member' }],
  );
  const events = (await cluster.must('events', '--node', third, '--json')).trim().split('\n');
  const kinds = events.map((line) => JSON.parse(line) as { kind: string; text: string });
  assert.ok(kinds.some(({ kind, text }) => kind === 'following' && text.includes(`${successor} in epoch ${epoch}`)));
  // Its steps back, in order.
  const steps = ['being brought in sync', 'the barrier is raised', 'everything is here', 'in sync, and the primary'];
  const lines = linesOf(cluster, former).filter(
    ({ from, copiedBlocks }) => from === successor && copiedBlocks !== undefined,
  );
  const found = lines.map(({ msg }) => steps.findIndex((step) => msg.startsWith(step))).filter((step) => step >= 0);
  assert.equal(found.slice(-steps.length), [0, 1, 2, 3], lines.map(({ msg }) => msg).join('; '));
  // Without TLS and tokens too it is said who was let in.
  const letIn = linesOf(cluster, third).filter(({ msg }) => msg === 'let in: a replica');
  assert.ok(
    letIn.some(({ volume, from, address }) => volume === 'disk' && from === successor && address !== undefined),
  );
  assert.ok(linesOf(cluster, successor).some(({ msg, peer, client }) => msg === 'let in' && peer && client));
}

test('equal under writes and while the primary changes; what differs is named', async () => {
  const cluster = await TestCluster.start(['a', 'b', 'c']);
  await cluster.create('disk', '64MiB', 3, '--allow-sparse');
  await cluster.untilSafe();
  const volume = await connect(cluster.url('disk'));
  let over = false;
  let written = 0;
  const writer = async (seed: number): Promise<void> => {
    for (let n = seed; !over; n = (n * 48_271) % 2_147_483_647, written++)
      await volume.write((n % (SIZE / BLOCK - 4)) * BLOCK + (n % 3) * 100, Buffer.alloc(BLOCK + (n % 5000), n));
  };
  const writers = Promise.all([1, 2, 3, 4].map((n) => writer(n)));
  writers.catch(() => {});
  const first = await verify(cluster);
  const expected = { equal: true, comparedBytes: SIZE, differentBlocks: 0, skippedBlocks: 0, differences: [] };
  assert.equal(first, { code: 0, verdict: { volume: 'disk', ...expected, nodes: first.verdict.nodes } } as never);
  assert.is(first.verdict.nodes.length, 2);
  assert.ok(written > 50, `${written} writes meanwhile`);
  // Slow enough for the primary to be killed in the middle.
  const primary = await cluster.primary('disk');
  const comparing = verify(cluster, '--rate', '16MiB');
  await cluster.until(() => written > 200, 'some writes more');
  await cluster.kill(primary);
  const second = await comparing;
  assert.is(second.code, 0, JSON.stringify(second));
  assert.is(second.verdict.comparedBytes, SIZE);
  over = true;
  await writers;
  await cluster.restart(primary);
  await cluster.untilSafe();
  await failoverIsLogged(cluster, primary);
  const [victim] = ['a', 'b', 'c'].filter((name) => name !== primary);
  await cluster.stopNodes();
  await falsify(join(cluster.slot(victim!).dir, 'volumes', 'disk'), 1234);
  for (const name of ['a', 'b', 'c']) await cluster.restart(name);
  await cluster.untilSafe();
  const third = await verify(cluster);
  assert.is(third.code, 1);
  const at = await cluster.primary('disk');
  // Where it is the primary that is wrong, the others differ from it.
  const others = ['a', 'b', 'c'].filter((name) => (at === victim ? name !== at : name === victim));
  assert.equal(
    third.verdict.differences.map(({ node, block }) => `${node} ${block}`).sort(),
    others.map((node) => `${node} 1234`),
  );
  const { code, stdout } = await cluster.cli('volume', 'verify', 'disk');
  assert.is(code, 1);
  assert.match(
    stdout,
    new RegExp(`DIFFERENT: ${others.length} block\\(s\\) of disk\\n.*block 1234, offset 5054464\\n`, 's'),
  );
  await volume.close();
  await cluster.stop();
});

test('a volume of one replica, and one that is not there, are refused', async () => {
  const cluster = await TestCluster.start(['a']);
  await cluster.create('one', '1MiB', 1, '--allow-sparse');
  await cluster.untilServed('one');
  const alone = await cluster.cli('volume', 'verify', 'one');
  assert.is(alone.code, 1);
  assert.match(alone.stderr, /one replica only.*add-replica/s);
  assert.match((await cluster.cli('volume', 'verify', 'two')).stderr, /knows: one/);
  await cluster.stop();
});

test.run();
