/** The verdicts on a bench's figures, each with figures for which it holds and figures for which it does not. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { type Bar, type Return, barsOf } from '../../bench/replicated/measure.ts';
import { trendsOf } from '../../bench/replicated/trends.ts';

const test = suite('trends');
const GRID = {
  clients: [1, 2, 4, 8],
  operations: [1000, 4000],
  mixes: [
    [1, 4],
    [4, 1],
  ] as const,
  ratios: [4, 0.5],
  mixOperations: 5000,
};

/** Bars of which each is as fast as `rate` says. */
function measured(rate: (bar: Bar) => number): Bar[] {
  const bars = barsOf(GRID, 'always').filter(({ topology }) => topology === 'two');
  for (const bar of bars) bar.mibPerSecond.push(rate(bar));
  return bars;
}

const good = (bar: Bar): number => (bar.readers + bar.writers) * (bar.reads >= bar.writes ? 10 : 5);
const failing = (bars: Bar[]): string[] =>
  trendsOf(bars, [])
    .filter(({ holds }) => !holds)
    .map(({ what }) => what);

test('a grid has all its cells, on one server and on two nodes', () => {
  const bars = barsOf(GRID, 'none');
  assert.is(bars.length, 2 * (8 + 8 + 4));
  const mixed = bars.filter(({ graph }) => graph === 'mixed');
  assert.ok(mixed.every(({ reads, writes }) => reads + writes === 5000));
  assert.ok(mixed.some(({ reads, writes }) => reads === 4000 && writes === 1000));
});

test('all of them hold where all is as expected', () => {
  const trends = trendsOf(measured(good), []);
  assert.is(trends.length, 6);
  assert.ok(trends.every(({ holds }) => holds));
});

test('more clients and less bandwidth', () => {
  const bars = measured((bar) => (bar.writers === 4 && bar.readers === 0 ? 1 : good(bar)));
  assert.equal(failing(bars), ['write bandwidth grows with clients up to 8 (two nodes, fsync on)']);
});

test('more operations and much less bandwidth', () => {
  const bars = measured((bar) => (bar.reads === 4000 && bar.writers === 0 ? good(bar) / 2 : good(bar)));
  assert.equal(failing(bars), ['read bandwidth loses little with more operations (two nodes, fsync on)']);
});

test('writing that is faster than reading', () => {
  const bars = measured((bar) => (bar.readers + bar.writers) * (bar.reads >= bar.writes ? 5 : 10));
  assert.is(failing(bars).length, 2);
});

const back = (missedWrites: number, reintegrationMs: number): Return => ({
  durability: 'none',
  pattern: 'zipf',
  missedWrites,
  distinctBlocks: missedWrites,
  dirtyBlocks: missedWrites,
  copiedBlocks: missedWrites,
  suspicionMs: 1,
  startMs: 1,
  reintegrationMs,
  round: 0,
});

test('a reintegration grows with what was missed, timers aside', () => {
  const verdict = (...ms: number[]): boolean[] =>
    trendsOf(
      [],
      ms.map((one, i) => back(10 ** i, one)),
    ).map(({ holds }) => holds);
  assert.equal(verdict(30, 20, 60), [true]);
  assert.equal(verdict(30, 90, 40), [false]);
  assert.equal(verdict(30, 30, 30), [false]);
  assert.equal(verdict(30), []);
});

test.run();
