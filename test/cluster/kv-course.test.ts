/**
 * The tests that the report on RecoverKV describes, and its suite lacked: KT-1 to KT-15 and KT-17, by the course's calls, on
 * real processes. KT-16 is kv-fuzz. Where the report waits five seconds, these wait until the server is ALIVE.
 */
// deadline: 240 s
import * as assert from 'uvu/assert';
import { suite } from 'uvu';
import { admin } from '../../src/client/admin.ts';
import { connectKv } from '../../src/client/index.ts';
import { Kv739, type Kv739Options } from '../../src/client/kv739.ts';
import { KvCluster, NAMES, VOLUME } from '../support/kv-cluster.ts';
import { TestCluster } from '../support/cluster.ts';
import { Random } from '../support/random.ts';
import { RespClient } from '../support/resp-client.ts';

interface Context {
  kv: KvCluster;
  /** Initialised with all servers. */
  client: Kv739;
}

const test = suite<Context>('the course: key-value tests of the report');

/** A client that has that server for GETs, and may stop and cut it off. */
async function clientOf(kv: KvCluster, names: readonly string[], options: Kv739Options = {}): Promise<Kv739> {
  const client = new Kv739({ volume: VOLUME, ...options });
  const code = await client.init(names.map((name) => kv.address(name)));
  assert.is(code, 0, client.lastError?.message);
  return client;
}

async function put(client: Kv739, key: string, value: string): Promise<string | null> {
  const { code, oldValue } = await client.put(key, value);
  assert.ok(code === 0 || code === 1, `PUT ${key}: ${code} ${client.lastError?.message}`);
  return oldValue;
}

async function puts(client: Kv739, prefix: string, from: number, to: number, value = ''): Promise<void> {
  for (let i = from; i < to; i++) await put(client, `${prefix}${i}`, `${value}${i}`);
}

async function check(client: Kv739, prefix: string, from: number, to: number, value = ''): Promise<void> {
  for (let i = from; i < to; i++) {
    assert.equal(await client.get(`${prefix}${i}`), { code: 0, value: `${value}${i}` }, client.lastError?.message);
  }
}

/** Asks one server alone. */
async function checkAt(kv: KvCluster, name: string, ...range: [string, number, number, string?]): Promise<void> {
  const client = await clientOf(kv, [name]);
  await check(client, ...range);
  await client.shutdown();
}

async function die(kv: KvCluster, client: Kv739, name: string, clean: 0 | 1): Promise<void> {
  assert.is(await client.die(kv.address(name), clean), 0, client.lastError?.message);
  const { code, signal } = await kv.cluster.ended(name);
  if (clean === 1) assert.is(code, 0);
  else assert.is(signal, 'SIGKILL');
}

test.before(async (context) => {
  context.kv = await KvCluster.start('32MiB', '--enable-faults');
  context.client = await clientOf(context.kv, NAMES);
});

test.after(async ({ kv, client }) => {
  await client.shutdown();
  await kv.stop();
});

test('KT-1: every call before init, twice, with nothing, after shutdown', async ({ kv }) => {
  const client = new Kv739({ volume: VOLUME });
  const [a, b] = [kv.address('a'), kv.address('b')];
  const refused = async (): Promise<void> => {
    assert.equal(await client.get('k'), { code: -1, value: null });
    assert.match(client.lastError!.message, /init/);
    assert.equal(await client.put('k', 'v'), { code: -1, oldValue: null });
    assert.is(await client.die(a, 1), -1);
    assert.is(await client.partition(a, []), -1);
    assert.is(await client.shutdown(), -1);
  };
  await refused();
  assert.is(await client.init(null), -1);
  assert.is(await client.init([]), -1);
  assert.is(await client.init(['']), -1);
  assert.is(await client.init([a, '']), -1);
  assert.is(await client.init([a, '127.0.0.1:1']), -1, 'nobody is there');
  assert.is(await new Kv739({ volume: 'none' }).init([a]), -1);
  await refused();
  assert.is(await client.init([a, b]), 0);
  assert.is(await client.init([a, b]), -1);
  assert.equal(await client.get(''), { code: -1, value: null });
  assert.equal(await client.put('', 'v'), { code: -1, oldValue: null });
  assert.equal(await client.put('k', ''), { code: -1, oldValue: null });
  assert.equal((await client.get(null as unknown as string)).code, -1);
  assert.is(await client.die('', 1), -1);
  assert.is(await client.partition('', []), -1);
  assert.is(await client.partition(a, null), -1);
  assert.is(await client.partition(a, ['']), -1);
  assert.equal(await client.put('k'.repeat(128), 'v'.repeat(2048)), { code: 1, oldValue: null });
  assert.equal(await client.put('k'.repeat(129), 'v'), { code: -1, oldValue: null });
  assert.equal(await client.put('k', 'v'.repeat(2049)), { code: -1, oldValue: null });
  assert.match(client.lastError!.message, /2049 bytes, the limit is 2048/);
  assert.is(await client.shutdown(), 0);
  await refused();
  assert.is(await client.init([b]), 0, 'a client may begin anew');
  assert.is(await client.shutdown(), 0);
});

test('KT-1: a PUT that was refused returns -1; one that may have been done, or not, -2', async ({ kv }) => {
  const generous = await clientOf(kv, NAMES, { maxKeyBytes: 10_000, maxValueBytes: 500_000 });
  for (const [key, value] of [
    ['k'.repeat(5000), 'v'],
    ['large', 'v'.repeat(300_000)],
  ] as const) {
    assert.equal(await generous.put(key, value), { code: -1, oldValue: null });
    assert.is(generous.lastError!.code, 'TOO_LARGE', 'the servers say so');
  }
  // Nobody can be taken out of the group, nor be made primary: what the primary has begun stays open.
  const everybody = [...NAMES, 'coordinator'];
  const faults = (kind: string): Promise<unknown> =>
    Promise.all(
      NAMES.map((name) => {
        const from = everybody.filter((one) => one !== name);
        return admin(kv.address(name), { op: 'fault', kind, from });
      }),
    );
  const hasty = await clientOf(kv, NAMES, { timeoutMs: 1000 });
  await put(hasty, 'open', 'before');
  await faults('partition');
  assert.equal(await hasty.put('open', 'after'), { code: -2, oldValue: null });
  assert.is(hasty.lastError!.code, 'DEADLINE');
  await faults('heal');
  await kv.alive();
  const { value } = await generous.get('open');
  assert.ok(value === 'before' || value === 'after', `${value}`);
  await Promise.all([generous, hasty].map((one) => one.shutdown()));
});

test('KT-2: keys once, keys again, PUT and GET in turns, absent keys', async ({ client }) => {
  assert.equal(await client.get(']['), { code: 1, value: null });
  for (let i = 0; i < 50; i++) assert.equal(await client.put(`u${i}`, `${i}`), { code: 1, oldValue: null });
  await check(client, 'u', 0, 50);
  for (let i = 0; i < 50; i++) assert.equal(await client.put(`u${i}`, `again ${i}`), { code: 0, oldValue: `${i}` });
  await check(client, 'u', 0, 50, 'again ');
  for (let i = 0; i < 100; i++) {
    const value = `${i} "quoted", (and) [more]; 'so'`;
    assert.is(await put(client, 'turns', value), i === 0 ? null : `${i - 1} "quoted", (and) [more]; 'so'`);
    assert.equal(await client.get('turns'), { code: 0, value });
  }
});

test('KT-3: what was PUT one after the other is on the disk of each server', async ({ kv }) => {
  for (const name of NAMES) {
    const one = await clientOf(kv, [name]);
    await puts(one, `kt3${name}`, 0, 40);
    await die(kv, one, name, 1);
    await one.shutdown();
    await kv.cluster.restart(name);
    await kv.alive();
    await checkAt(kv, name, `kt3${name}`, 0, 40);
  }
});

test('KT-4: what was acknowledged of many PUTs at once is there after a SIGKILL', async ({ kv }) => {
  for (const name of NAMES) {
    const one = await clientOf(kv, [name]);
    await Promise.all(Array.from({ length: 100 }, (_, i) => put(one, `kt4${name}${i}`, `${i}`)));
    await die(kv, one, name, 0);
    await one.shutdown();
    await kv.cluster.restart(name);
    await kv.alive();
    await checkAt(kv, name, `kt4${name}`, 0, 100);
  }
});

const SEED = 739;

test(`KT-5: a random half of the servers ends, clean and unclean; before it is back all is right, seed ${SEED}`, async ({
  kv,
  client,
}) => {
  const random = new Random(SEED);
  await puts(client, 'kt5', 0, 30);
  for (const clean of [1, 0] as const) {
    // Of three, and most have to be left.
    const half = [NAMES[random.below(NAMES.length)]!];
    for (const name of half) await die(kv, client, name, clean);
    for (let i = 0; i < 60; i++) {
      const key = `kt5${random.below(30)}`;
      const old = (await client.get(key)).value;
      assert.ok(old !== null, client.lastError?.message);
      assert.is(await put(client, key, `${clean}/${i}`), old);
      assert.equal(await client.get(key), { code: 0, value: `${clean}/${i}` });
    }
    for (const name of half) await kv.cluster.restart(name);
    await kv.alive();
  }
});

test('KT-6, KT-11, KT-12: servers end one after the other until one is left, clients PUT and GET on; back, each has what it missed', async ({
  kv,
}) => {
  const { primary, backups } = await kv.roles();
  const client = await clientOf(kv, NAMES);
  await puts(client, 'kt11', 0, 30);
  const many = await Promise.all(Array.from({ length: 4 }, () => clientOf(kv, NAMES)));
  for (const [round, [name, clean]] of (
    [
      [primary, 0],
      [backups[0], 1],
    ] as const
  ).entries()) {
    let over = false;
    const load = Promise.all(
      many.map(async (one, n) => {
        const key = `kt11 ${round} ${n}`;
        let last = -1;
        for (let i = 0; !over; i++) {
          await put(one, key, `${i}`);
          assert.equal(await one.get(key), { code: 0, value: `${i}` });
          last = i;
        }
        return last;
      }),
    );
    await die(kv, client, name, clean);
    await check(client, 'kt11', 0, 30);
    over = true;
    const last = await load;
    const left = await clientOf(kv, [backups[1]]);
    for (const [n, i] of last.entries()) {
      assert.ok(i >= 0);
      assert.equal(await left.get(`kt11 ${round} ${n}`), { code: 0, value: `${i}` });
    }
    await left.shutdown();
  }
  await puts(client, 'kt6', 0, 30);
  await checkAt(kv, backups[1], 'kt6', 0, 30);
  await Promise.all([client, ...many].map((one) => one.shutdown()));
  for (const name of [primary, backups[0]]) await kv.cluster.restart(name);
  await kv.alive();
  for (const name of [primary, backups[0]]) {
    await checkAt(kv, name, 'kt11', 0, 30);
    await checkAt(kv, name, 'kt6', 0, 30);
  }
});

test('KT-7: a server that is killed while it recovers recovers the next time', async ({ kv, client }) => {
  const { primary, backups } = await kv.roles();
  const [away] = backups;
  await die(kv, client, away, 1);
  await puts(client, 'kt7', 0, 150, 'v'.repeat(2000));
  for (const point of ['target:copied', 'target:finish']) {
    kv.cluster.slot(away).env = { HOLDFAST_CRASH_AT: point };
    await kv.cluster.restart(away);
    assert.is((await kv.cluster.ended(away)).signal, 'SIGKILL');
  }
  kv.cluster.slot(away).env = {};
  await kv.cluster.restart(away);
  await kv.alive();
  await checkAt(kv, away, 'kt7', 0, 150, 'v'.repeat(2000));
  assert.is((await kv.roles()).primary, primary);
});

test('KT-8: one server alone is killed, comes back, and serves', async () => {
  const cluster = await TestCluster.start([]);
  await cluster.add('alone', '--enable-faults');
  await cluster.create(VOLUME, '16MiB', 1, '--kind', 'kv', '--allow-sparse');
  await cluster.untilServed(VOLUME);
  const client = new Kv739();
  const { address } = cluster.slot('alone');
  assert.is(await client.init([address]), 0, client.lastError?.message);
  await puts(client, 'kt8', 0, 60);
  for (const clean of [0, 1] as const) {
    assert.is(await client.die(address, clean), 0);
    await cluster.ended('alone');
    const asked = client.get('kt8 0'.replace(' ', ''));
    await cluster.restart('alone');
    assert.equal(await asked, { code: 0, value: '0' }, 'a pause for the client');
    await check(client, 'kt8', 0, 60);
  }
  await client.shutdown();
  await cluster.stop();
});

test('KT-9: one key PUT through each server in turn is the same on all of them', async ({ kv }) => {
  const each = await Promise.all(NAMES.map((name) => clientOf(kv, [name])));
  for (let i = 0; i < 20; i++) {
    await put(each[i % 3]!, 'kt9', `${i}`);
    for (const one of each) assert.equal(await one.get('kt9'), { code: 0, value: `${i}` });
  }
  await Promise.all(each.map((one) => one.shutdown()));
});

test('KT-10: a server that was away has what it missed, clean and unclean', async ({ kv, client }) => {
  for (const clean of [1, 0] as const) {
    const { backups } = await kv.roles();
    await die(kv, client, backups[clean], clean);
    await puts(client, `kt10 ${clean} `, 0, 60);
    await kv.cluster.restart(backups[clean]);
    // Nobody else is asked: it waits until it may answer.
    const late = new Kv739({ volume: VOLUME });
    while ((await late.init([kv.address(backups[clean])])) !== 0) assert.match(late.lastError!.code, 'UNREACHABLE');
    await check(late, `kt10 ${clean} `, 0, 60);
    await late.shutdown();
    await kv.alive();
  }
});

/** All servers cut off from each other; one of the backups dies. Both of them miss a PUT. @returns them, that one first */
async function isolated(kv: KvCluster, client: Kv739): Promise<[string, string]> {
  const { backups } = await kv.roles();
  const [away] = backups;
  await put(client, 'kt13', 'old');
  for (const name of NAMES) assert.is(await client.partition(kv.address(name), []), 0, client.lastError?.message);
  await die(kv, client, away, 0);
  await put(client, 'kt13', 'new');
  await kv.cluster.restart(away);
  return backups;
}

/** Neither of them is ALIVE for such a client. */
async function refusedBy(kv: KvCluster, names: readonly string[], options: Kv739Options = {}): Promise<void> {
  const asked = names.map((name) => new Kv739({ volume: VOLUME, ...options }).init([kv.address(name)]));
  assert.equal(await Promise.all(asked), [-1, -1]);
}

test('KT-13, consistent: whoever is cut off from all others answers no GET; KT-14: healed, it has all', async ({
  kv,
  client,
}) => {
  await refusedBy(kv, await isolated(kv, client));
  assert.equal(await client.get('kt13'), { code: 0, value: 'new' });
  const all = NAMES.map((name) => kv.address(name));
  for (const name of all) assert.is(await client.partition(name, all), 0, client.lastError?.message);
  await kv.alive();
  for (const name of NAMES) {
    const healed = await clientOf(kv, [name]);
    assert.equal(await healed.get('kt13'), { code: 0, value: 'new' });
    await healed.shutdown();
  }
});

test('KT-15: who was not named in init is neither stopped nor cut off, nor named as reachable', async ({ kv }) => {
  const [a, b, c] = NAMES.map((name) => kv.address(name)) as [string, string, string];
  const client = await clientOf(kv, ['a', 'b']);
  assert.is(await client.die(c, 1), -1);
  assert.match(client.lastError!.message, /not named in init/);
  assert.is(await client.die('localhost:8989', 0), -1);
  assert.is(await client.partition(c, []), -1);
  assert.is(await client.partition(a, [b, c]), -1);
  assert.is(await client.partition(a, ['nobody:1']), -1);
  await kv.alive();
  assert.is((await client.get(']['))?.code, 1);
  await client.shutdown();
});

test('KT-17: the healer dies in mid-stream; another one goes on', async ({ kv, client }) => {
  const { primary, backups } = await kv.roles();
  const [away, third] = backups;
  await die(kv, client, away, 0);
  await puts(client, 'kt17', 0, 150, 'w'.repeat(2000));
  await kv.cluster.must('fault', 'crash', 'source:copy', '--node', primary, '--count', '2');
  await kv.cluster.restart(away);
  await kv.cluster.ended(primary);
  await kv.alive([away, third]);
  await checkAt(kv, away, 'kt17', 0, 150, 'w'.repeat(2000));
  await kv.cluster.restart(primary);
  await kv.alive();
});

const STALE: Kv739Options = { allowStale: true };

test('KT-13, available: whoever is cut off answers with what it has, marked as stale, takes no PUT, and answers no client of Redis', async () => {
  const kv = await KvCluster.start('16MiB', '--enable-faults', '--when-isolated', 'available');
  const client = await clientOf(kv, NAMES);
  const { primary } = await kv.roles();
  const isolatedOnes = await isolated(kv, client);
  const [away, third] = isolatedOnes;
  const [old, other] = [await clientOf(kv, [away], STALE), await clientOf(kv, [third], STALE)];
  for (const one of [old, other]) assert.equal(await one.get('kt13'), { code: 0, value: 'old' });
  await refusedBy(kv, isolatedOnes, { timeoutMs: 1500 });
  // PUTs go to the primary, not to what is stale.
  assert.is(await put(old, 'kt13', 'newer'), 'new');
  // Whoever has it all dies. A client of Redis could not tell an old answer from a new one: it is refused, as are PUTs.
  await kv.cluster.kill(primary);
  const redis = await Promise.all(['GET', 'SET'].map(() => RespClient.open(kv.port(away))));
  const refusals = await Promise.all([redis[0]!.call('GET', 'kt13'), redis[1]!.call('SET', 'kt13', 'lost')]);
  for (const refusal of refusals) assert.match(String(refusal), /^-TRYAGAIN [^\r\n]+\r\n$/);
  for (const one of redis) one.close();
  const ours = await connectKv(kv.url([away]), { reads: 'listed', allowStale: true });
  const marked = (await ours.get('kt13'))!;
  assert.equal([String(marked.value), marked.stale], ['old', true]);
  await ours.close();
  const view = await kv.cluster.status();
  assert.is(view.volumes[0]!.verdict, 'unavailable', 'one of those that lack a PUT was promoted');
  await kv.cluster.restart(primary);
  await kv.cluster.untilServed(VOLUME);
  assert.is((await kv.roles()).primary, primary);
  const all = NAMES.map((name) => kv.address(name));
  for (const name of all) assert.is(await client.partition(name, all), 0, client.lastError?.message);
  await kv.alive();
  assert.equal(await old.get('kt13'), { code: 0, value: 'newer' });
  await Promise.all([old, other, client].map((one) => one.shutdown()));
  await kv.stop();
});

test.run();
