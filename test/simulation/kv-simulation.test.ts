/**
 * The whole cluster with a key-value volume under seeds: nothing is wrong. `npm run simulate -- --kv --seeds N` runs many
 * more; that the checks would notice if a rule were missing is shown by kv-mutations.test.ts, which runs each scenario
 * with all rules too.
 */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { Entry } from '../../src/kv/operations.ts';
import { KvHistories, encodeValue } from './kv-histories.ts';
import { type BlockOp, violation } from './linearizable.ts';
import { simulateKv } from './simulate-kv.ts';
import { usualKv } from './usual.ts';

// deadline: 200 s
const test = suite('kv-simulation');
const SEEDS = 16;
const PER_TEST = 8;

for (let first = 1; first <= SEEDS; first += PER_TEST) {
  test(`seeds ${first} to ${first + PER_TEST - 1}: every key is linearizable, all replicas are equal`, async () => {
    let zeroed = 0;
    for (let seed = first; seed < first + PER_TEST; seed++) {
      const result = await simulateKv(seed, usualKv(seed));
      const { wrong, operations } = result;
      assert.is(wrong, null, `seed ${seed}: ${wrong}; npm run simulate -- --kv --seed ${seed}`);
      assert.ok(operations > 50, `seed ${seed}: only ${operations} operations`);
      zeroed += result.zeroed;
    }
    assert.ok(zeroed > PER_TEST, `only ${zeroed} segments were zeroed`);
  });
}

test('the same seed gives the same run', async () => {
  const [one, two] = [await simulateKv(7), await simulateKv(7)];
  assert.equal(one.log, two.log);
});

test('keys are not read in the midst of an opening group: seeds that went red', async () => {
  for (const seed of [3, 6]) {
    const { wrong } = await simulateKv(seed, { nodes: 2, only: 'forgotten' });
    assert.is(
      wrong,
      null,
      `seed ${seed}: ${wrong}; npm run simulate -- --kv --only forgotten --nodes 2 --seed ${seed}`,
    );
  }
});

// --- the checks themselves --------------------------------------------------------------------------------------------

const op = (kind: BlockOp['kind'], value: number, calledMs: number, answeredMs: number): BlockOp => {
  return { kind, value, calledMs, answeredMs, who: 'test' };
};
const add = (delta: number, sum: number | null, calledMs: number, answeredMs: number): BlockOp => ({
  ...op('change', delta, calledMs, answeredMs),
  adds: true,
  apply: (before) => (sum === null || before + delta === sum ? before + delta : null),
});

test('changes take effect once, on what they found', () => {
  const swap = (from: number, to: number, calledMs: number): BlockOp => ({
    ...op('change', to, calledMs, calledMs + 1),
    found: from,
    apply: (before) => (before === from ? to : null),
  });
  const right: BlockOp[][] = [
    [add(1, 1, 0, 1), add(1, 2, 2, 3), op('read', 2, 4, 5)],
    [add(1, null, 0, Infinity), add(1, 2, 2, 3)],
    [add(1, null, 0, Infinity), add(1, 1, 2, 3), op('read', 2, 4, 5)],
    [op('write', 5, 0, 1), swap(5, 6, 2), op('read', 6, 4, 5)],
    [op('write', 5, 0, Infinity), swap(5, 6, 2), op('read', 6, 4, 5)],
  ];
  const wrong: BlockOp[][] = [
    [add(1, 1, 0, 1), op('read', 2, 4, 5)],
    [add(1, 1, 0, 1), add(1, 1, 2, 3)],
    [add(1, null, 0, Infinity), add(1, 3, 2, 3)],
    [op('write', 5, 0, 1), op('write', 7, 2, 3), swap(5, 6, 4)],
  ];
  for (const history of right) assert.is(violation(history), null, JSON.stringify(history));
  for (const history of wrong) assert.is.not(violation(history), null, JSON.stringify(history));
});

test('a value fades when it may, and does not come back', () => {
  const fades = new Map([[5, 10]]);
  assert.is(violation([op('write', 5, 0, 1), op('read', 5, 20, 21), op('read', 0, 22, 23)], fades), null);
  assert.is.not(violation([op('write', 5, 0, 1), op('read', 0, 2, 3)], fades), null);
  assert.is.not(violation([op('write', 5, 0, 1), op('read', 0, 22, 23), op('read', 5, 24, 25)], fades), null);
});

test('what contradicts what was seen before is noticed', () => {
  const noticed = (look: (histories: KvHistories) => void): boolean => {
    const wrong: string[] = [];
    const histories = new KvHistories((reason) => wrong.push(reason));
    look(histories);
    const found = histories.check();
    return wrong.length > 0 || found !== null;
  };
  const entry = (key: string, id: number, version: number): Entry => {
    return { key, version, value: encodeValue(id, 20), expiresAtMs: null };
  };
  const watched = { name: 'w', prefix: 'r/', ranges: [{ after: 0, upTo: 2 }], told: new Set<string>() };
  const two = [entry('p/0/a', 1, 3), entry('p/0/b', 1, 3)];
  assert.not(noticed((h) => [h.fact('x', 1, 'r/0', 7), h.fact('y', 1, 'r/0', 7)]));
  assert.ok(noticed((h) => [h.fact('x', 1, 'r/0', 7), h.fact('y', 1, 'r/0', 8)]));
  assert.ok(noticed((h) => [h.fact('x', 1, 'r/0', 7), h.fact('y', 2, 'r/0', 7)]));
  assert.ok(noticed((h) => h.saw('x', ['p/0/a', 'p/0/b'], two.slice(1), 0, 1)));
  assert.ok(noticed((h) => h.saw('x', [], [two[0]!, entry('p/0/b', 1, 4)], 0, 1)));
  assert.ok(noticed((h) => [h.watched.push(watched), h.fact('x', 2, 'r/0', 7)]));
  assert.not(noticed((h) => [h.watched.push(watched), h.fact('x', 3, 'r/0', 7)]));
  assert.ok(noticed((h) => [h.tell(watched, 1, 'r/0', 7), h.tell(watched, 1, 'r/0', 7)]));
});

test.run();
