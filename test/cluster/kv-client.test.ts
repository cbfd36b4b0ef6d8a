/** The key-value client library against three real nodes: what it promises, also while they are killed. */
// deadline: 180 s
import * as assert from 'uvu/assert';
import { suite } from 'uvu';
import { type KvChange, type KvEntry, type KvStore, connect, connectKv } from '../../src/client/index.ts';
import { KvCluster, NAMES } from '../support/kv-cluster.ts';
import { failsWith } from '../support/fails-with.ts';

const test = suite<{ kv: KvCluster; store: KvStore }>('key-value client library');

test.before(async (context) => {
  context.kv = await KvCluster.start('48MiB', '--enable-faults', '--http', '127.0.0.1:0');
  context.store = await connectKv(context.kv.url());
});

test.after(async ({ kv, store }) => {
  await store.close();
  await kv.stop();
});

const GETS = 300;

const text = (entry: KvEntry | null): string | null => entry?.value.toString() ?? null;

async function all<T>(source: AsyncIterable<T>, count = Infinity): Promise<T[]> {
  const found: T[] = [];
  for await (const one of source) if (found.push(one) >= count) break;
  return found;
}

test('put, get, delete: versions, old values, bytes of any kind', async ({ store }) => {
  assert.is(await store.get('a'), null);
  const first = await store.put('a', 'one');
  assert.equal([first.applied, first.existed, first.previous], [true, false, null]);
  const second = await store.put('a', 'two', { previous: true });
  assert.is(second.previous!.toString(), 'one');
  assert.ok(second.version > first.version);
  const found = (await store.get('a'))!;
  assert.equal([found.key.toString(), text(found), found.version, found.stale], ['a', 'two', second.version, false]);
  const gone = await store.delete('a', { previous: true });
  assert.equal([gone.applied, gone.existed, gone.previous!.toString()], [true, true, 'two']);
  assert.equal((await store.delete('a')).applied, false);
  const odd = Uint8Array.from([0, 255, 10, 13, 32, 128]);
  await store.put(odd, odd);
  assert.equal([...(await store.get(odd))!.value], [...odd]);
  await store.put('empty', '');
  assert.is(text(await store.get('empty')), '');
  assert.equal(
    (await store.getMany(['empty', 'nothing', odd])).map((one) => one?.value.length ?? null),
    [0, null, 6],
  );
});

test('conditions, compare and set, add, times to live', async ({ store }) => {
  assert.is(await store.compareAndSet('c', null, '1'), true);
  assert.is(await store.compareAndSet('c', null, '2'), false);
  assert.is(await store.compareAndSet('c', '1', '2'), true);
  const { version } = (await store.get('c'))!;
  assert.is((await store.put('c', '3', { if: { version: version - 1 } })).applied, false);
  assert.is((await store.put('c', '3', { if: { version } })).applied, true);
  assert.is((await store.put('d', '3', { if: 'present' })).applied, false);
  assert.is((await store.delete('c', { if: { value: '4' } })).applied, false);
  assert.is(await store.add('n', 5), 5n);
  assert.is(await store.add('n', -7n), -2n);
  await failsWith(store.add('a word', 2n ** 70n), 'INVALID_ARGUMENT');
  await store.put('word', 'word');
  await failsWith(store.add('word'), 'INVALID_ARGUMENT', /no decimal integer/);
  await store.put('t', 'soon over', { ttlMs: 60_000 });
  assert.ok((await store.get('t'))!.expiresAtMs! > Date.now());
  await store.put('t', 'kept', { keepTtl: true });
  assert.ok((await store.get('t'))!.expiresAtMs !== null);
  assert.is(await store.expire('t', {}), true);
  assert.is((await store.get('t'))!.expiresAtMs, null);
  assert.is(await store.expire('never there', { ttlMs: 5 }), false);
});

test('a transaction is done whole, or not at all', async ({ store }) => {
  const done = await store
    .transaction()
    .check('tx', 'absent')
    .put('tx', '1')
    .add('tx', 4)
    .get('tx')
    .delete('e')
    .commit();
  assert.is(done.applied, true);
  assert.equal(
    done.results.map(({ value }) => value?.toString() ?? null),
    [null, '5', '5', null],
  );
  const refused = await store.transaction().check('tx', 'absent').put('tx', '9').put('other', '9').commit();
  assert.equal([refused.applied, refused.results.length], [false, 0]);
  assert.equal((await store.getMany(['tx', 'other'])).map(text), ['5', null]);
  const once = store.transaction().put('tx', '6');
  await once.commit();
  await failsWith(once.commit(), 'INVALID_ARGUMENT', /once only/);
});

test('scans are in the order of bytes, page by page', async ({ store }) => {
  const names = Array.from({ length: 2500 }, (_, i) => `s/${String(i).padStart(5, '0')}`);
  await Promise.all(names.map((name) => store.put(name, `value of ${name}`)));
  const found = await all(store.scan({ prefix: 's/' }));
  assert.equal(
    found.map(({ key }) => key.toString()),
    names,
  );
  assert.is(text(found[7]!), 'value of s/00007');
  const some = await all(store.scan({ prefix: 's/', from: 's/00100', end: 's/00200', limit: 30, keysOnly: true }));
  assert.equal([some.length, some[0]!.key.toString(), some[0]!.value.length], [30, 's/00100', 0]);
  const page = await store.scanPage({ prefix: 's/', limit: 10 });
  assert.equal([page.entries.length, page.next!.toString() > 's/00009'], [10, true]);
  assert.ok((await store.size()) >= 2500);
});

test('limits and bad input are told, and nothing is lost', async ({ kv, store }) => {
  const { maxKeyBytes, maxValueBytes } = store.limits!;
  await store.put('k'.repeat(maxKeyBytes), Buffer.alloc(maxValueBytes, 7));
  await failsWith(store.put('k'.repeat(maxKeyBytes + 1), ''), 'TOO_LARGE');
  await failsWith(store.put('v', Buffer.alloc(maxValueBytes + 1)), 'TOO_LARGE');
  await failsWith(store.put('v', Buffer.alloc(3 * 1024 * 1024)), 'TOO_LARGE');
  await failsWith(store.put('v', 5 as unknown as string), 'INVALID_ARGUMENT');
  await failsWith(store.put('v', '', { ttlMs: 1, keepTtl: true }), 'INVALID_ARGUMENT');
  await failsWith(store.get('v', { signal: AbortSignal.abort() }), 'ABORTED');
  await failsWith(connectKv('holdfast://127.0.0.1:1/x'), 'INVALID_ARGUMENT', /key-value volume/);
  await failsWith(connectKv(kv.url().replace(/keys$/, 'nothing'), { connectMs: 500 }), 'NO_SUCH_VOLUME');
  const disk = await connect(kv.cluster.url('keys'));
  await failsWith(disk.read(0, 4096), 'UNSUPPORTED', /key-value volume/);
  await disk.close();
  assert.is(await store.get('v'), null);
  const other = await connectKv(kv.url());
  await other.close();
  await failsWith(other.get('v'), 'CLOSED');
});

/** @returns false if the watch ended because changes are not kept any more: the successor had to read its keys anew */
async function watchOver(kv: KvCluster, store: KvStore, watcher: KvStore, prefix: string): Promise<boolean> {
  const { primary } = await kv.roles();
  const after = (await watcher.info()).version;
  const seen: KvChange[] = [];
  const watching = (async () => {
    try {
      for await (const change of watcher.watch({ prefix, after })) if (seen.push(change) >= 400) break;
      return true;
    } catch (error) {
      if ((error as { code?: string }).code !== 'OUT_OF_RANGE') throw error;
      return false;
    }
  })();
  watching.catch(() => {});
  for (let i = 0; i < 400; i++) {
    if (i === 150) void kv.cluster.kill(primary);
    if (i % 10 === 9) await store.delete(`${prefix}${i - 1}`);
    else await store.put(`${prefix}${i}`, String(i));
    await store.put('elsewhere', String(i));
  }
  const whole = await watching;
  assert.equal(
    seen.map(({ type, key, value }) => [type, key.toString(), value?.toString() ?? null]),
    Array.from({ length: whole ? 400 : seen.length }, (_, i) =>
      i % 10 === 9 ? ['delete', `${prefix}${i - 1}`, null] : ['put', `${prefix}${i}`, String(i)],
    ),
  );
  assert.ok(seen.every(({ version }, i) => i === 0 || version > seen[i - 1]!.version));
  await kv.cluster.restart(primary);
  await kv.alive();
  return whole;
}

test('a watcher gets each change once and in order, over a change of primary', async ({ kv, store }) => {
  const watcher = await connectKv(kv.url());
  let attempt = 1;
  while (!(await watchOver(kv, store, watcher, `w${attempt}/`))) {
    console.log('# the watch ended: changes were not kept over this failover');
    assert.ok(++attempt <= 4, 'no failover keeps the changes');
  }
  const abort = new AbortController();
  const waiting = watcher.watch({ prefix: 'never', signal: abort.signal })[Symbol.asyncIterator]().next();
  setImmediate(() => abort.abort());
  await failsWith(waiting, 'ABORTED');
  await watcher.close();
});

test('a killed primary is a pause: each add is executed once, reads never go back, whoever answers', async ({ kv }) => {
  const any = await connectKv(kv.url(), { reads: 'any' });
  const writers = await Promise.all(Array.from({ length: 4 }, () => connectKv(kv.url(NAMES.slice(0, 1)))));
  let over = false;
  let seen = 0n;
  let reads = 0;
  const reading = (async () => {
    while (!over) {
      const counted = BigInt(text(await any.get('sum')) ?? '0');
      assert.ok(counted >= seen, `read ${counted} after ${seen}`);
      seen = counted;
      reads++;
    }
  })();
  const told = new Set<bigint>();
  for (const round of [0, 1]) {
    const { primary } = await kv.roles();
    const kills: Array<Promise<unknown>> = [];
    await Promise.all(
      writers.map(async (writer, w) => {
        for (let i = 0; i < 100; i++) {
          if (w === 0 && i === 30) kills.push(kv.cluster.kill(primary));
          const sum = await writer.add('sum');
          assert.not.ok(told.has(sum), 'executed twice');
          told.add(sum);
        }
      }),
    );
    await Promise.all(kills);
    assert.is(told.size, 400 * (round + 1));
    await kv.cluster.restart(primary);
    await kv.alive();
  }
  over = true;
  await reading;
  assert.ok(reads > 50);
  assert.is(text(await any.get('sum')), '800');
  await Promise.all([any, ...writers].map((one) => one.close()));
});

/** GETs and scans of clients that the node has answered since it started. */
async function readsAt(kv: KvCluster, name: string): Promise<number> {
  const { http } = kv.cluster.slot(name).running!.info as unknown as { http: string };
  const text = await (await fetch(new URL('/metrics', http))).text();
  const line = text.split('\n').find((one) => /^holdfast_operations_total\{[^}]*op="read"/.test(one));
  assert.ok(line, text);
  return Number(line!.slice(line!.lastIndexOf(' ')));
}

test('K-14: GETs are spread over all replicas in sync: each answers its share', async ({ kv }) => {
  const any = await connectKv(kv.url(), { reads: 'any' });
  await any.put('spread', 'everywhere');
  const readsOfAll = (): Promise<number[]> => Promise.all(NAMES.map((name) => readsAt(kv, name)));
  const shares = async (): Promise<number[]> => {
    const before = await readsOfAll();
    const asked = Array.from({ length: GETS }, () => any.get('spread'));
    for (const entry of await Promise.all(asked)) assert.is(text(entry), 'everywhere');
    return (await readsOfAll()).map((reads, i) => reads - before[i]!);
  };
  // It begins with the primary alone, until it knows the others.
  for (let attempt = 0; attempt < 20 && (await shares()).includes(0); attempt++);
  const told = await shares();
  const sum = told.reduce((all, one) => all + one);
  assert.ok(sum >= GETS, 'each is answered by one of them, or asked again of another');
  for (const share of told)
    assert.ok(share >= GETS / NAMES.length / 2, `of ${GETS} GETs the nodes answered ${told.join(', ')}`);
  await any.close();
});

test('a listed server answers alone, in whatever role; while it is away, nobody answers for it', async ({
  kv,
  store,
}) => {
  await store.put('listed', 'here');
  const each = await Promise.all(NAMES.map((name) => connectKv(kv.url([name]), { reads: 'listed', retryMs: 20_000 })));
  for (const one of each) assert.is(text(await one.get('listed')), 'here');
  const { backups } = await kv.roles();
  const alone = each[NAMES.indexOf(backups[0])]!;
  await kv.cluster.kill(backups[0]);
  await store.put('listed', 'changed');
  const impatient = await connectKv(kv.url([backups[0]]), { reads: 'listed', retryMs: 300 });
  const { message } = await failsWith(impatient.get('listed'), 'UNREACHABLE');
  assert.match(message, kv.address(backups[0]));
  await impatient.close();
  const waiting = alone.get('listed');
  await kv.cluster.restart(backups[0]);
  assert.is(text(await waiting), 'changed', 'it answered before it had what it missed');
  // Writes go to the primary all the same.
  await alone.put('listed', 'again');
  assert.is(text(await alone.get('listed')), 'again');
  await kv.alive();
  await Promise.all(each.map((one) => one.close()));
});

test.run();
