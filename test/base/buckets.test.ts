/** Log-linear buckets, against the numbers themselves. */
import * as assert from 'uvu/assert';
import { suite } from 'uvu';
import { Buckets } from '../../src/base/buckets.ts';
import { Random } from '../support/random.ts';

const test = suite('buckets');
const SHARES = [0, 0.01, 0.5, 0.9, 0.99, 0.999, 1];

function numbers(seed: number, count: number, exponent: number): number[] {
  const random = new Random(seed);
  return Array.from({ length: count }, () => Math.floor(2 ** (random.next() * exponent)) - 1);
}

test('count, sum, and how many are below a power of two are exact', () => {
  const buckets = new Buckets();
  const all = numbers(1, 20_000, 31);
  for (const one of all) buckets.record(one);
  assert.is(buckets.count, all.length);
  assert.is(
    buckets.sum,
    all.reduce((sum, one) => sum + one, 0),
  );
  for (let exponent = 0; exponent <= 31; exponent++) {
    assert.is(buckets.below(exponent), all.filter((one) => one < 2 ** exponent).length, `below 2^${exponent}`);
  }
});

test('a quantile is at most 1/16 above the true one, of what came since', () => {
  const [buckets, before] = [new Buckets(), new Buckets()];
  assert.is(buckets.since(before, SHARES), null);
  for (const [seed, exponent] of [
    [2, 4],
    [3, 12],
    [4, 31],
  ] as const) {
    const all = numbers(seed, 5000, exponent).sort((one, other) => one - other);
    for (const one of all) buckets.record(one);
    const found = buckets.since(before, SHARES)!;
    SHARES.forEach((share, i) => {
      const truth = all[Math.max(1, Math.ceil(share * all.length)) - 1]!;
      assert.ok(found[i]! >= truth && found[i]! <= truth * (1 + 1 / 16), `${share}: ${found[i]} for ${truth}`);
    });
    assert.is(buckets.since(before, SHARES), null);
  }
});

test('what is no whole number of its range finds its place', () => {
  const buckets = new Buckets();
  for (const odd of [-5, -0.1, NaN, 0.9]) buckets.record(odd);
  assert.equal([buckets.count, buckets.sum, buckets.below(0)], [4, 0, 4]);
  for (const large of [2 ** 31, 1e15, Infinity]) buckets.record(large);
  assert.equal([buckets.count, buckets.below(30), buckets.below(31)], [7, 4, 7]);
  assert.equal(buckets.since(new Buckets(), [1]), [2 ** 31 - 1]);
});

test.run();
