/**
 * The whole cluster under seeds: nothing is wrong. `npm run simulate -- --seeds N` runs many more; that the checks would
 * notice if a rule were missing is shown by mutations.test.ts, which runs each kind of faults by itself too.
 */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { type BlockOp, violation } from './linearizable.ts';
import { simulate } from './simulate.ts';
import { usual } from './usual.ts';

// deadline: 400 s
const test = suite('simulation');
const SEEDS = 20;
const PER_TEST = 10;

for (let first = 1; first <= SEEDS; first += PER_TEST) {
  test(`seeds ${first} to ${first + PER_TEST - 1}: nothing is lost, all replicas are equal`, async () => {
    for (let seed = first; seed < first + PER_TEST; seed++) {
      const { wrong, operations } = await simulate(seed, usual(seed));
      assert.is(wrong, null, `seed ${seed}: ${wrong}; npm run simulate -- --seed ${seed}`);
      assert.ok(operations > 50, `seed ${seed}: only ${operations} operations`);
    }
  });
}

test('the same seed gives the same run', async () => {
  const [one, two] = [await simulate(7), await simulate(7)];
  assert.equal(one.log, two.log);
});

test('late messages, and a suspicion that comes right behind the promise', async () => {
  for (let seed = 1; seed <= 6; seed++) {
    const { wrong } = await simulate(seed, { nodes: 2 + (seed % 2), tight: true });
    assert.is(wrong, null, `seed ${seed}: ${wrong}; npm run simulate -- --tight --seed ${seed}`);
  }
});

const op = (kind: BlockOp['kind'], value: number, calledMs: number, answeredMs: number): BlockOp => ({
  kind,
  value,
  calledMs,
  answeredMs,
  who: 'c',
});

test('the checker knows right from wrong', () => {
  const right: BlockOp[][] = [
    [op('read', 0, 0, 1), op('write', 1, 2, 3), op('read', 1, 4, 5)],
    [op('write', 1, 0, 9), op('read', 0, 1, 2), op('read', 1, 3, 4), op('write', 2, 0, Infinity), op('read', 2, 5, 6)],
    [op('write', 1, 0, 1), op('write', 2, 2, Infinity), op('read', 1, 3, 4), op('read', 2, 5, 6)],
    [op('write', 1, 0, 5), op('write', 2, 0, 5), op('read', 2, 6, 7)],
    [
      op('write', 1, 0, 1),
      op('write', 0, 2, 3),
      op('read', 0, 4, 5),
      op('write', 2, 6, 7),
      op('write', 0, 6, Infinity),
    ],
    [op('write', 1, 0, 1), op('write', 0, 2, Infinity), op('write', 2, 4, 5), op('read', 2, 6, 7), op('read', 0, 8, 9)],
  ];
  const wrong: BlockOp[][] = [
    [op('write', 1, 0, 1), op('read', 0, 2, 3)],
    [op('write', 1, 0, 1), op('write', 2, 2, 3), op('read', 1, 4, 5)],
    [op('write', 1, 0, 1), op('write', 2, 2, Infinity), op('read', 2, 3, 4), op('read', 1, 5, 6)],
    [op('read', 7, 0, 1)],
    [op('read', 1, 0, 1), op('write', 1, 2, 3)],
    [op('write', 1, 0, 1), op('write', 0, 2, 3), op('write', 2, 4, 5), op('read', 0, 6, 7)],
    [op('write', 1, 0, 9), op('read', 1, 1, 2), op('write', 2, 3, 4), op('read', 1, 5, 6)],
  ];
  for (const history of right) assert.is(violation(history), null);
  for (const history of wrong) assert.is.not(violation(history), null, JSON.stringify(history));
});

test.run();
