/** What the key-value benches plan to measure, and how long they say that it takes. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { type PlanOptions, Progress, SECTIONS, planOf, roughly, stagesOf } from '../../bench/kv/plan.ts';

const test = suite('key-value bench plan');

const options: PlanOptions = {
  durabilities: ['always', 'none'],
  rounds: 1,
  keys: [10_000, 20_000, 50_000, 100_000],
  clients: [1, 40],
  seconds: 5,
  warmSeconds: 2,
  missed: [0, 100_000],
  startKeys: [1_000_000, 100_000],
  shareKeys: 10_000,
  workloads: ['a', 'b', 'c', 'd', 'e', 'f'],
  ycsbSeconds: 5,
  faultSeconds: 8,
};

test('with fsync off the same is measured as with it on', () => {
  const cells = planOf(options);
  const of = (durability: string): object[] =>
    cells.filter((cell) => cell.durability === durability).map((cell) => ({ ...cell, durability: 'either' }));
  assert.equal(of('always'), of('none'));
  assert.equal([...new Set(cells.map(({ section }) => section))].sort(), [...SECTIONS].sort());
  const one = cells.filter((cell) => cell.section === 'one');
  assert.is(one.length, 2 * 4 * 3);
  const many = cells.filter((cell) => cell.section === 'clients').map(({ kind }) => kind);
  assert.equal(many.slice(0, 3), ['put', 'get', 'get any']);
});

test('rounds take turns, but what has grown stays; cells of one cluster follow one another', () => {
  const cells = planOf({ ...options, durabilities: ['always'], rounds: 2, only: ['share', 'faults', 'startup'] });
  const told = cells.map((cell) => {
    const { section } = cell;
    const what =
      section === 'share' ? cell.replicas : section === 'startup' ? cell.keys : section === 'faults' && cell.fault;
    return `${section} ${what} ${cell.round}`;
  });
  assert.equal(told.slice(0, 4), ['share 1 0', 'share 1 1', 'share 3 0', 'share 3 1']);
  assert.equal(
    told
      .slice(4, 9)
      .map((one) => one.slice(-1))
      .join(''),
    '00001',
  );
  const starts = ['startup 100000 0', 'startup 100000 1', 'startup 1000000 0', 'startup 1000000 1'];
  assert.equal(told.slice(-4), starts);
  assert.equal(
    stagesOf(cells).map((stage) => `${stage[0]!.stage} ${stage.length}`),
    ['one node 2', 'with metrics 2', 'with faults 8', 'start-up 4'],
  );
});

test('what is left shrinks to nothing, and follows the pace of what was done', () => {
  const cells = planOf({ ...options, durabilities: ['always'], only: ['clients', 'recovery'] });
  const estimate = cells.reduce((sum, { estimateSeconds }) => sum + estimateSeconds, 0);
  const left = (pace: number): string[] => {
    let nowMs = 5000;
    const progress = new Progress(cells, () => nowMs);
    assert.match(
      progress.plan(),
      new RegExp(`^${cells.length} cells, fsync on: about ${roughly(estimate)} \\(clients`),
    );
    return cells.map(({ estimateSeconds }) => {
      nowMs += 1000 * pace * estimateSeconds;
      return progress.done();
    });
  };
  const seconds = (told: string): number => Number(/about (\d+) s left/.exec(told)?.[1] ?? 0);
  const [even, slow] = [left(1), left(3)];
  assert.is(even.at(-1), `[${cells.length}/${cells.length}]`);
  const [first, second] = [seconds(even[0]!), seconds(even[1]!)];
  assert.ok(first > second && second > 0, even.join());
  assert.ok(seconds(slow[1]!) > second, slow.join());
  assert.equal([0.2, 99, 120, 3000].map(roughly), ['1 s', '99 s', '2 min', '50 min']);
});

test.run();
