import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { Histogram } from '../../bench/load/histogram.ts';
import { Random } from '../../bench/load/workload.ts';

/** The definition, the slow way. */
function exactQuantile(values: number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.max(1, Math.ceil(share * sorted.length)) - 1]!;
}

test('an empty histogram is all zeros', () => {
  assert.equal(new Histogram().summary(), {
    count: 0,
    minUs: 0,
    meanUs: 0,
    p50Us: 0,
    p99Us: 0,
    p999Us: 0,
    maxUs: 0,
  });
});

test('one value is every quantile', () => {
  for (const value of [0, 1, 127, 128, 129, 4095, 2 ** 31, 2 ** 32 - 1, 2 ** 32, 2 ** 32 + 1, 2 ** 40 + 12345]) {
    const histogram = new Histogram();
    histogram.record(value);
    for (const share of [0, 0.5, 0.999, 1]) assert.is(histogram.quantileNs(share), value, `${value} at ${share}`);
    assert.is(histogram.minNs, value);
    assert.is(histogram.maxNs, value);
    assert.is(histogram.meanNs, value);
  }
});

test('quantiles lie at most 1/64 above the true ones and never below, over eleven decades', () => {
  const random = new Random(1);
  const values: number[] = [];
  const histogram = new Histogram();
  for (let i = 0; i < 20_000; i++) {
    const value = Math.floor(2 ** (random.unit() * 42));
    values.push(value);
    histogram.record(value);
  }
  for (const share of [0.001, 0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 0.999, 0.9999, 1]) {
    const exact = exactQuantile(values, share);
    const got = histogram.quantileNs(share);
    assert.ok(got >= exact, `${share}: ${got} is below ${exact}`);
    assert.ok(got <= exact * (1 + 1 / 64), `${share}: ${got} is too far above ${exact}`);
  }
  assert.is(histogram.minNs, Math.min(...values));
  assert.is(histogram.maxNs, Math.max(...values));
  assert.is(histogram.meanNs, values.reduce((sum, v) => sum + v, 0) / values.length);
});

test('merging gives what recording into one gives', () => {
  const random = new Random(2);
  const all = new Histogram();
  const parts = [new Histogram(), new Histogram(), new Histogram()];
  for (let i = 0; i < 3000; i++) {
    const value = Math.floor(2 ** (random.unit() * 36));
    all.record(value);
    parts[i % 2]!.record(value); // the third one stays empty
  }
  const merged = new Histogram();
  for (const part of parts) merged.merge(part);
  assert.equal(merged.summary(), all.summary());
  for (let share = 0; share <= 1; share += 1 / 256) assert.is(merged.quantileNs(share), all.quantileNs(share));
});

test('reset forgets everything', () => {
  const histogram = new Histogram();
  histogram.record(5_000_000);
  histogram.reset();
  assert.equal(histogram.summary(), new Histogram().summary());
  histogram.record(2000);
  assert.is(histogram.summary().p999Us, 2);
});

test('what no bucket holds is kept within bounds', () => {
  const histogram = new Histogram();
  histogram.record(-5);
  histogram.record(0.7);
  histogram.record(2 ** 50);
  assert.is(histogram.count, 3);
  assert.is(histogram.minNs, 0);
  assert.is(histogram.quantileNs(0.5), 0);
  assert.is(histogram.maxNs, 2 ** 50);
  assert.ok(histogram.quantileNs(1) <= 2 ** 50);
});

test.run();
