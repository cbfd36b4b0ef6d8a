/**
 * KT-16: clients on conflicting keys through all nodes, with none, one or two nodes killed half way, and the primary
 * stopped for a while: per key the history is linearizable, with unknown outcomes.
 */
// deadline: 180 s
import type { Redis } from 'ioredis';
import * as assert from 'uvu/assert';
import { suite } from 'uvu';
import { type BlockOp, violation } from '../simulation/linearizable.ts';
import { KvCluster, NAMES } from '../support/kv-cluster.ts';
import { Random } from '../support/random.ts';

const CLIENTS = 6;
const KEYS = 5;
const OPERATIONS = 250;

const test = suite<{ kv: KvCluster }>('KT-16: fuzz');

test.before(async (context) => {
  context.kv = await KvCluster.start('32MiB', '--enable-faults');
});

test.after(async ({ kv }) => {
  await kv.stop();
});

/** What a client saw, key by key. 0: absent. */
type History = Map<string, BlockOp[]>;

let nextValue = 1;

/** One client that goes from node to node when it gets an error. */
async function client(kv: KvCluster, seed: number, run: string, history: History, half: () => void): Promise<void> {
  const random = new Random(seed);
  let redis: Redis = kv.connect(NAMES[seed % 3]!, true);
  for (let i = 0; i < OPERATIONS; i++) {
    if (i === OPERATIONS / 2) half();
    const key = `${run} ${random.below(KEYS)}`;
    const kind = random.chance(0.5) ? 'write' : 'read';
    const op: BlockOp = { kind, value: 0, calledMs: performance.now(), answeredMs: Infinity, who: `client ${seed}` };
    if (kind === 'write') op.value = random.chance(0.15) ? 0 : nextValue++;
    history.get(key)!.push(op);
    try {
      if (kind === 'read') op.value = Number((await redis.get(key)) ?? 0);
      else if (op.value === 0) await redis.del(key);
      else await redis.set(key, String(op.value));
      op.answeredMs = performance.now();
    } catch {
      // Its outcome is unknown; a read of which nothing is known says nothing.
      if (kind === 'read') history.get(key)!.splice(history.get(key)!.indexOf(op), 1);
      redis.disconnect();
      redis = kv.connect(NAMES[random.below(3)]!, true);
    }
  }
  redis.disconnect();
}

/** @param harm what happens when the clients are half way */
async function play(kv: KvCluster, run: string, harm: () => Promise<void>): Promise<void> {
  const history: History = new Map(Array.from({ length: KEYS }, (_, i) => [`${run} ${i}`, []]));
  let harmed: Promise<void> | null = null;
  const half = (): void => void (harmed ??= harm());
  await Promise.all(Array.from({ length: CLIENTS }, (_, seed) => client(kv, seed, run, history, half)));
  // Begun by the first of them.
  await (harmed as Promise<void> | null);
  await kv.alive();
  // The end belongs to the history: every node is asked.
  for (const name of NAMES) {
    const redis = kv.connect(name);
    for (const [key, ops] of history) {
      const calledMs = performance.now();
      const value = Number((await redis.get(key)) ?? 0);
      ops.push({ kind: 'read', value, calledMs, answeredMs: performance.now(), who: `in the end, ${name}` });
    }
    redis.disconnect();
  }
  let answered = 0;
  for (const [key, ops] of history) {
    assert.is(violation(ops), null, key);
    answered += ops.filter(({ answeredMs }) => answeredMs !== Infinity).length;
  }
  assert.ok(answered > (CLIENTS * OPERATIONS) / 2, `only ${answered} were answered`);
}

test('nobody is harmed', ({ kv }) => play(kv, 'calm', async () => {}));

test('the primary is killed', ({ kv }) =>
  play(kv, 'primary', async () => {
    const { primary } = await kv.roles();
    await kv.cluster.kill(primary);
    await kv.cluster.restart(primary);
  }));

test('the primary and a backup are killed, one after the other', ({ kv }) =>
  play(kv, 'two', async () => {
    const { primary, backups } = await kv.roles();
    await kv.cluster.kill(primary);
    await kv.alive([backups[0], backups[1]]);
    await kv.cluster.kill(backups[0]);
    await kv.cluster.restart(primary);
    await kv.cluster.restart(backups[0]);
  }));

test('the primary is stopped for two seconds', ({ kv }) =>
  play(kv, 'stopped', async () => {
    const { primary } = await kv.roles();
    await kv.cluster.must('fault', 'pause', '--ms', '2000', '--node', primary);
  }));

test('the primary is cut off from everybody but its clients', ({ kv }) =>
  play(kv, 'cut', async () => {
    const { primary, backups } = await kv.roles();
    const others = `${backups.join(',')},coordinator`;
    await kv.cluster.must('fault', 'partition', '--from', others, '--for-ms', '3000', '--node', primary);
  }));

test.run();
