/** Defects of RecoverKV that show between processes: one test each, by name. The others are in test/kv. */
// deadline: 240 s
import { readFileSync, readdirSync } from 'node:fs';
import * as assert from 'uvu/assert';
import { suite } from 'uvu';
import { Kv739 } from '../../src/client/kv739.ts';
import { encodeRequest } from '../../src/kv/codec.ts';
import { MESSAGES } from '../../src/protocol/messages.ts';
import { KvCluster, NAMES, VOLUME } from '../support/kv-cluster.ts';
import { RawClient } from '../support/raw-client.ts';
import { stopProcess } from '../support/stop-process.ts';

const test = suite<{ kv: KvCluster }>('key-value regressions, between nodes');

test.before(async (context) => {
  context.kv = await KvCluster.start('48MiB', '--enable-faults');
});

test.after(async ({ kv }) => {
  await kv.stop();
});

async function allEqual(kv: KvCluster): Promise<Record<string, string>> {
  const dumps = await Promise.all(NAMES.map((name) => kv.dump(name)));
  for (const one of dumps.slice(1)) assert.equal(one, dumps[0]);
  return dumps[0]!;
}

test('R-2: PUTs of one key at once, through all nodes, end the same on all of them', async ({ kv }) => {
  const clients = NAMES.flatMap((name) => Array.from({ length: 4 }, () => kv.connect(name)));
  await Promise.all(
    clients.map(async (redis, client) => {
      for (let i = 0; i < 60; i++) await redis.set(`k${i % 3}`, `client ${client} PUT ${i}`);
    }),
  );
  const answers = await Promise.all(NAMES.map((name) => kv.connect(name).mget('k0', 'k1', 'k2')));
  for (const answer of answers) assert.equal(answer, answers[0]);
  await allEqual(kv);
});

test('R-17: the old value of a PUT is the one before it, whoever is asked: they form one chain', async ({ kv }) => {
  const told = await Promise.all(
    NAMES.flatMap((name) =>
      Array.from({ length: 5 }, async (_, client) => {
        const redis = kv.connect(name);
        const old: Array<[string, string | null]> = [];
        for (let i = 0; i < 25; i++) {
          const value = `${name}${client}/${i}`;
          old.push([value, await redis.set('chain', value, 'GET')]);
        }
        return old;
      }),
    ),
  );
  const after = new Map(told.flat().map(([value, old]) => [old, value]));
  assert.is(after.size, told.flat().length, 'two PUTs were told the same old value');
  let last: string | null = null;
  let length = 0;
  for (let next = after.get(null); next !== undefined; next = after.get(next)) {
    last = next;
    length++;
  }
  assert.is(length, after.size);
  assert.is(await kv.connect('a').get('chain'), last);
});

test('R-3, R-4: a PUT waits for a node that hangs until that is out; woken, it answers with nothing old', async ({
  kv,
}) => {
  const { primary, backups } = await kv.roles();
  const redis = kv.connect(primary);
  await redis.set('hang', 'before');
  const hanging = kv.connect(backups[0]);
  assert.is(await hanging.get('hang'), 'before');
  const { child } = kv.cluster.slot(backups[0]).running!;
  await stopProcess(child);
  assert.is(await redis.set('hang', 'after'), 'OK');
  const view = await kv.cluster.status();
  assert.is.not(view.volumes[0]!.members.find(({ node }) => node === backups[0])!.mode, 'ALIVE');
  // These lie in its sockets when it wakes.
  const asked = Array.from({ length: 20 }, () => hanging.get('hang'));
  child.kill('SIGCONT');
  for (const answer of await Promise.all(asked)) assert.is(answer, 'after');
  await kv.alive();
});

test('R-7, R-9: what a node missed in the middle is found, and all of it before it is ALIVE', async ({ kv }) => {
  const { primary, backups } = await kv.roles();
  const redis = kv.connect(primary);
  for (let round = 0; round < 2; round++) {
    for (let i = 0; i < 40; i++) await redis.set(`hole ${round} ${i}`, 'seen by all');
    await kv.cluster.must('fault', 'partition', '--from', `${primary},${backups[1]},coordinator`, '--node', backups[0]);
    for (let i = 0; i < 40; i += 2) await redis.set(`hole ${round} ${i}`, `missed in round ${round}`);
    await kv.cluster.must('fault', 'heal', '--node', backups[0]);
    // The last of them comes while it is being brought back, or after.
    for (let i = 1; i < 40; i += 2) await redis.set(`hole ${round} ${i}`, 'late');
    await kv.alive();
    const found = await kv.dump(backups[0]);
    for (let i = 0; i < 40; i++) {
      const value = Buffer.from(found[`hole ${round} ${i}`]!, 'base64').toString();
      assert.is(value, i % 2 === 0 ? `missed in round ${round}` : 'late');
    }
  }
  await allEqual(kv);
});

test('R-8: the healer dies in the middle of it: another one goes on', async ({ kv }) => {
  const { primary, backups } = await kv.roles();
  const [away, third] = backups;
  await kv.cluster.kill(away);
  const redis = kv.connect(third);
  const value = 'x'.repeat(100_000);
  for (let i = 0; i < 80; i++) await redis.set(`large ${i}`, value);
  // It ends itself with SIGKILL when it has sent so many copies.
  await kv.cluster.must('fault', 'crash', 'source:copy', '--node', primary, '--count', '3');
  await kv.cluster.restart(away);
  await kv.cluster.ended(primary);
  await kv.alive([away, third]);
  assert.is(await kv.connect(away).strlen('large 79'), value.length);
  await kv.cluster.restart(primary);
  await kv.alive();
  await allEqual(kv);
});

test('R-11: a node that was healed heals others: it alone has everything', async ({ kv }) => {
  const { primary, backups } = await kv.roles();
  const [away, third] = backups;
  const redis = kv.connect(primary);
  await redis.set('twice', 'first');
  await kv.cluster.kill(away);
  await redis.set('twice', 'second');
  await redis.set('twice', 'third');
  await redis.set('only once', 'yes');
  await kv.cluster.restart(away);
  await kv.alive();
  await kv.cluster.kill(third);
  await kv.cluster.kill(primary);
  await kv.alive([away]);
  const alone = kv.connect(away);
  assert.equal(await alone.mget('twice', 'only once'), ['third', 'yes']);
  await alone.set('twice', 'fourth');
  await kv.cluster.restart(third);
  await kv.cluster.restart(primary);
  await kv.alive();
  for (const name of NAMES) assert.is(await kv.connect(name).get('twice'), 'fourth');
});

test('R-12: a clean end hands over and takes no PUT afterwards; an unclean one is a SIGKILL', async ({ kv }) => {
  const { primary, backups } = await kv.roles();
  const redis = kv.connect(backups[0]);
  const puts: Array<Promise<string>> = [];
  for (let i = 0; i < 50; i++) puts.push(redis.set(`clean ${i}`, 'yes'));
  const logOf = (name: string): (() => string) => kv.cluster.slot(name).running!.printed;
  const log = logOf(primary);
  assert.is(await kv.cluster.kill(primary, 'SIGTERM'), 0);
  assert.equal(new Set(await Promise.all(puts)), new Set(['OK']));
  assert.match(log(), /resign/i);
  for (let i = 0; i < 50; i++) assert.is(await redis.get(`clean ${i}`), 'yes');
  await kv.cluster.restart(primary);
  await kv.alive();
  const after = (await kv.roles()).primary;
  const last = logOf(after);
  // It has seen the other one resign.
  const resignations = (): number => last().match(/resign/gi)?.length ?? 0;
  const seen = resignations();
  assert.is(await kv.cluster.kill(after), null, 'it had an exit code');
  assert.is(resignations(), seen);
  await kv.cluster.restart(after);
  await kv.alive();
});

test('R-13: a node that does not exist is no other one', async ({ kv }) => {
  const { code, stderr } = await kv.cluster.cli('fault', 'kill', '--node', 'nobody');
  assert.is.not(code, 0);
  assert.match(stderr, /nobody/);
  await kv.alive();
});

test('R-14: a PUT of who has not attached the volume is refused, and changes nothing anywhere', async ({ kv }) => {
  await kv.connect('a').set('mine', 'before');
  const before = await allEqual(kv);
  // By the protocol, at whoever is primary and at the others: introduced, and no more.
  const steps = [{ type: 'put' as const, key: 'mine', value: Buffer.from('theirs'), expiry: 'none' as const }];
  const transaction = {
    conditions: [],
    steps: steps.map((step) => ({ ...step, when: 'always' as const, previous: false })),
  };
  const put = encodeRequest({ operation: 'execute', transaction, id: null });
  for (const name of NAMES) {
    const stranger = await RawClient.connect(Number(kv.address(name).split(':')[1]));
    await stranger.hello(14n, 1);
    const { error } = await stranger.ask({ type: MESSAGES.KV_EXECUTE.number, requestId: 1 }, put);
    assert.is(error?.code, 'NOT_ATTACHED');
    stranger.close();
  }
  // By the course's calls: before init, of a volume that is none, and after shutdown.
  const client = new Kv739({ volume: VOLUME });
  const refused = { code: -1, oldValue: null };
  assert.equal(await client.put('mine', 'theirs'), refused);
  const elsewhere = new Kv739({ volume: 'another' });
  assert.is(await elsewhere.init([kv.address('a')]), -1);
  assert.equal(await elsewhere.put('mine', 'theirs'), refused);
  assert.is(await client.init([kv.address('a')]), 0);
  assert.is(await client.shutdown(), 0);
  assert.equal(await client.put('mine', 'theirs'), refused);
  assert.is(client.lastError!.code, 'NOT_ATTACHED');
  assert.equal(await allEqual(kv), before);
});

test('R-15: clients that come and go at once, by the hundred', async ({ kv }) => {
  await Promise.all(
    Array.from({ length: 150 }, async (_, i) => {
      const redis = kv.connect(NAMES[i % 3]!);
      await redis.client('SETNAME', `client-${i}`);
      await redis.incr('visits');
      redis.disconnect();
    }),
  );
  assert.is(await kv.connect('a').get('visits'), '150');
});

/** Processes on this machine that were started as the node with that folder. */
function processesOf(dir: string): number {
  const commands = readdirSync('/proc').map((pid) => {
    if (!/^\d+$/.test(pid)) return '';
    try {
      return readFileSync(`/proc/${pid}/cmdline`, 'latin1');
    } catch {
      // It has ended.
      return '';
    }
  });
  return commands.filter((command) => command.split('\0').includes(dir)).length;
}

test('R-16: while a node is down requests fail or go elsewhere; nothing is started, nobody sleeps', async ({ kv }) => {
  const { backups } = await kv.roles();
  await kv.cluster.kill(backups[0]);
  const redis = kv.connect(backups[1]);
  await Promise.all(Array.from({ length: 300 }, (_, i) => redis.set(`storm ${i % 10}`, String(i))));
  const expected = NAMES.map((name) => ({ name, processes: name === backups[0] ? 0 : 1 }));
  assert.equal(
    NAMES.map((name) => ({ name, processes: processesOf(kv.cluster.slot(name).dir) })),
    expected,
  );
  const gone = await kv
    .connect(backups[0])
    .client('ID')
    .catch(() => 'refused');
  assert.is(gone, 'refused');
  await kv.cluster.restart(backups[0]);
  await kv.alive();
});

test('the replicas are equal, byte for byte', async ({ kv: { cluster } }) => {
  await cluster.untilSafe();
  assert.equal(await cluster.stopNodes(), { a: 0, b: 0, c: 0 });
  await cluster.compare(VOLUME, NAMES);
});

test.run();
