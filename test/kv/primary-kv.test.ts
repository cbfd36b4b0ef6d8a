/** The key-value volume against a model, with everything under it coming late and out of order. */
import * as assert from 'uvu/assert';
import { suite } from 'uvu';
import type { HoldfastError } from '../../src/base/errors.ts';
import { KvContent } from '../../src/kv/content.ts';
import type { Step, Transaction, TransactionResult } from '../../src/kv/operations.ts';
import type { PrimaryKv } from '../../src/kv/primary-kv.ts';
import { KvDisk, openKv } from '../support/kv-disk.ts';
import { Random } from '../support/random.ts';

const test = suite('primary-kv');

const bytes = (text: string): Uint8Array => Buffer.from(text, 'latin1');
const put = (key: string, value: string | Uint8Array): Step => ({
  type: 'put',
  key,
  value: typeof value === 'string' ? bytes(value) : value,
  expiry: 'none',
  when: 'always',
  previous: true,
});
const del = (key: string): Step => ({ type: 'delete', key, previous: true });
const only = (...steps: Step[]): Transaction => ({ conditions: [], steps });

interface Answer<T> {
  error: HoldfastError | null;
  result: T | null;
}

function execute(kv: PrimaryKv, transaction: Transaction): Promise<Answer<TransactionResult>> {
  return new Promise((resolve) => kv.execute(transaction, null, (error, result) => resolve({ error, result })));
}

function get(kv: PrimaryKv, key: string): Promise<string | null> {
  return new Promise((resolve, reject) =>
    kv.get([key], (error, found) => {
      if (error !== null) reject(error);
      const value = found?.[0]?.value ?? null;
      resolve(value && Buffer.from(value).toString('latin1'));
    }),
  );
}

test('what is put is read, and the previous value is the one before in the order of the log', async () => {
  const disk = new KvDisk(4096);
  const kv = await openKv(disk);
  const first = execute(kv, only(put('a', '1')));
  const second = execute(kv, only(put('a', '2')));
  const read = get(kv, 'a');
  await disk.settle();
  assert.is((await first).result!.results[0]!.value, null);
  assert.equal(Buffer.from((await second).result!.results[0]!.value!).toString(), '1');
  assert.is(await read, '2');
});

test('nothing that is not committed is read', async () => {
  const disk = new KvDisk(4096);
  const kv = await openKv(disk);
  void execute(kv, only(put('a', '1')));
  let answered = false;
  const read = get(kv, 'a').then((value) => {
    answered = true;
    return value;
  });
  for (let i = 0; i < 10; i++) {
    disk.turn();
    await Promise.resolve();
  }
  assert.not(answered);
  await disk.settle();
  assert.is(await read, '1');
});

test('a repeated request is answered, not executed', async () => {
  const disk = new KvDisk(4096);
  const kv = await openKv(disk);
  const id = { session: 7n, request: 1, floor: 1, since: 0 };
  const add: Transaction = only({ type: 'add', key: 'n', delta: 1n });
  const ask = (on: PrimaryKv): Promise<Answer<TransactionResult>> =>
    new Promise((resolve) => on.execute(add, id, (error, result) => resolve({ error, result })));
  const answers = [ask(kv), ask(kv)];
  await disk.settle();
  answers.push(ask(kv));
  await disk.settle();
  disk.lose();
  const again = await openKv(disk);
  answers.push(ask(again));
  await disk.settle();
  for (const answer of answers) {
    assert.equal(Buffer.from((await answer).result!.results[0]!.value!).toString(), '1');
  }
});

test('a key expires by a logged deletion', async () => {
  const disk = new KvDisk(4096);
  const kv = await openKv(disk);
  void execute(kv, only({ ...put('a', '1'), expiry: { afterMs: 100 } } as Step));
  await disk.settle();
  disk.nowMs += 99;
  kv.tick();
  await disk.settle();
  const before = get(kv, 'a');
  await disk.settle();
  assert.is(await before, '1');
  disk.nowMs += 1;
  kv.tick();
  await disk.settle();
  const after = get(kv, 'a');
  await disk.settle();
  assert.is(await after, null);
  assert.is(disk.backup.index.keys, 0);
});

test('a full volume refuses to grow, still deletes, and then grows again', async () => {
  const disk = new KvDisk(16 * 256);
  const kv = await openKv(disk);
  const value = new Uint8Array(100_000).fill(7);
  let written = 0;
  for (; ; written++) {
    const answer = execute(kv, only(put(`key ${written}`, value)));
    await disk.settle();
    const { error } = await answer;
    if (error === null) continue;
    assert.is(error.code, 'NO_SPACE');
    break;
  }
  assert.ok(written > 50, `${written} values fit`);
  for (let i = 0; i < written; i += 2) {
    const answer = execute(kv, only(del(`key ${i}`)));
    await disk.settle();
    assert.is((await answer).error, null);
  }
  for (let i = 0; i < 20; i++) {
    kv.tick();
    await disk.settle();
  }
  for (let i = 0; i < written / 4; i++) {
    const answer = execute(kv, only(put(`new ${i}`, value)));
    await disk.settle();
    assert.is((await answer).error, null, `value ${i}`);
  }
});

/** The whole of it, as a plain object. */
function dump(content: KvContent): Record<string, string> {
  const all: Record<string, string> = {};
  for (const key of content.index.sorted.from('')) {
    const cell = content.index.find(key)!;
    all[key] =
      `${cell.version} ${cell.expiresAtMs} ${cell.run.bytes.subarray(cell.at, cell.at + cell.sizeBytes).toString('base64')}`;
  }
  return all;
}

for (let seed = 1; seed <= 6; seed++) {
  test(`random transactions come out as a map's, seed ${seed}`, async () => {
    const rng = new Random(seed);
    const disk = new KvDisk(12 * 256);
    await disk.backup.build(disk);
    let kv = await openKv(disk);
    const model = new Map<string, string>();
    const asked: Array<Promise<void>> = [];
    const key = (): string => `k${rng.below(200)}`;
    for (let i = 0; i < 4000; i++) {
      const choice = rng.below(20);
      if (choice < 12) {
        const name = key();
        const value = String.fromCharCode(65 + rng.below(26)).repeat(
          rng.below(4) === 0 ? rng.below(12_000) : rng.below(60),
        );
        const previous = model.get(name) ?? null;
        model.set(name, value);
        asked.push(
          execute(kv, only(put(name, value))).then(({ error, result }) => {
            assert.is(error, null);
            const told = result!.results[0]!.value;
            assert.is(told && Buffer.from(told).toString('latin1'), previous);
          }),
        );
      } else if (choice < 15) {
        const name = key();
        const was = model.delete(name);
        asked.push(execute(kv, only(del(name))).then(({ result }) => assert.is(result!.results[0]!.existed, was)));
      } else if (choice < 18) {
        const name = key();
        const value = model.get(name) ?? null;
        // Nothing of what comes behind it may be seen, or else it was: so only once all is quiet.
        if (rng.below(4) === 0) {
          await disk.settle();
          const read = get(kv, name);
          await disk.settle();
          assert.is(await read, value);
        }
      } else if (choice === 18 && rng.below(20) === 0) {
        await disk.settle();
        disk.lose();
        kv = await openKv(disk);
      }
      for (let steps = rng.below(4); steps > 0; steps--) {
        if (rng.below(2) === 0) disk.turn();
        if (rng.below(3) > 0) disk.commit();
        if (rng.below(3) > 0) disk.apply(rng.below(4));
        if (rng.below(5) === 0) kv.tick();
        await Promise.resolve();
      }
    }
    await disk.settle();
    kv.tick();
    await disk.settle();
    await Promise.all(asked);
    assert.equal([...disk.content.index.sorted.from('')], [...model.keys()].sort());
    for (const [name, value] of model) {
      const read = get(kv, name);
      await disk.settle();
      assert.is(await read, value);
    }
    assert.ok(disk.zeroed > 0, 'segments were cleaned');
    // Whoever followed, and whoever reads it all from the blocks, comes to the same.
    const anew = new KvContent(disk.blocks);
    await anew.build(disk);
    assert.equal(dump(disk.backup), dump(disk.content));
    assert.equal(dump(anew), dump(disk.content));
    assert.is(anew.index.liveBytes, disk.content.index.liveBytes);
    assert.equal([...anew.index.segments.live], [...disk.content.index.segments.live]);
  });
}

test.run();
