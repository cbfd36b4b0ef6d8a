/** Which operations and which keys a mix draws. */
import * as assert from 'uvu/assert';
import { suite } from 'uvu';
import { KeyCount, MIX_KINDS, MixDraws, YCSB, isKeyOfMix, keyOfMix } from '../../bench/kv/kv-mix.ts';
import { MixTally } from '../../bench/kv/mix-tally.ts';

const test = suite('mixes of key-value operations');

const DRAWS = 50_000;

test('each workload has the shares and the distribution that YCSB publishes', () => {
  const published = {
    a: ['zipf', { read: 0.5, update: 0.5 }],
    b: ['zipf', { read: 0.95, update: 0.05 }],
    c: ['zipf', { read: 1 }],
    d: ['latest', { read: 0.95, insert: 0.05 }],
    e: ['zipf', { scan: 0.95, insert: 0.05 }],
    f: ['zipf', { read: 0.5, readModifyWrite: 0.5 }],
  } as const;
  assert.equal(Object.keys(YCSB), Object.keys(published));
  for (const [letter, [distribution, shares]] of Object.entries(published)) {
    const workload = YCSB[letter]!;
    assert.is(workload.distribution, distribution);
    const draws = new MixDraws({ ...workload, seed: 1 }, new KeyCount(1000), 0);
    const counts = new Map<string, number>();
    for (let i = 0; i < DRAWS; i++) {
      const kind = draws.kind();
      counts.set(kind, (counts.get(kind) ?? 0) + 1);
    }
    for (const kind of MIX_KINDS) {
      const share = (shares as Record<string, number>)[kind] ?? 0;
      assert.ok(Math.abs((counts.get(kind) ?? 0) / DRAWS - share) < 0.01, `${letter}: ${kind} ${counts.get(kind)}`);
    }
  }
  assert.throws(() => new MixDraws({ shares: { read: 0.5 }, distribution: 'uniform', seed: 1 }, new KeyCount(1), 0));
});

/** How often the most popular of 1000 keys are drawn, most popular first. */
function popular(
  distribution: 'uniform' | 'zipf' | 'latest',
  keys = new KeyCount(1000),
): Array<[key: number, share: number]> {
  const draws = new MixDraws({ shares: { read: 1 }, distribution, seed: 1 }, keys, 3);
  const counts = new Map<number, number>();
  for (let i = 0; i < DRAWS; i++) {
    const key = draws.key();
    assert.ok(key >= 0 && key < keys.count && Number.isInteger(key), `key ${key}`);
    counts.set(key, (counts.get(key) ?? 0) + 1);
  }
  return [...counts].sort((a, b) => b[1] - a[1]).map(([key, count]) => [key, count / DRAWS]);
}

test('keys: uniform; zipfian, with the popular ones anywhere; the latest', () => {
  assert.ok(popular('uniform')[0]![1] < 0.003);
  // 1 / the sum of k^-0.99 for k from 1 to 1000.
  const first = 1 / Array.from({ length: 1000 }, (_, i) => (i + 1) ** -0.99).reduce((a, b) => a + b);
  const zipf = popular('zipf');
  assert.ok(Math.abs(zipf[0]![1] - first) < 0.01, `${zipf[0]![1]} instead of ${first}`);
  const hot = zipf.slice(0, 10).map(([key]) => key);
  assert.ok(Math.max(...hot) - Math.min(...hot) > 100, 'the popular keys are neighbours');
  const latest = popular('latest');
  assert.equal(
    latest.slice(0, 3).map(([key]) => key),
    [999, 998, 997],
  );
  assert.ok(Math.abs(latest[0]![1] - first) < 0.01);
  // The last that is known to be there, not one whose insert is under way.
  const keys = new KeyCount(1000);
  assert.equal([keys.begin(), keys.begin(), keys.begin()], [1000, 1001, 1002]);
  keys.end(1001);
  assert.is(keys.count, 1000);
  keys.end(1000);
  assert.is(keys.count, 1002);
  assert.is(popular('latest', keys)[0]![0], 1001);
  const draws = new MixDraws({ shares: { scan: 1 }, distribution: 'zipf', seed: 2 }, keys, 0);
  const lengths = Array.from({ length: 5000 }, () => draws.scanLength());
  assert.equal([Math.min(...lengths), Math.max(...lengths)], [1, 100]);
});

test('clients draw differently, and the same again', () => {
  const of = (client: number): number[] => {
    const draws = new MixDraws({ shares: { read: 1 }, distribution: 'uniform', seed: 9 }, new KeyCount(1e6), client);
    return Array.from({ length: 20 }, () => draws.key());
  };
  assert.equal(of(1), of(1));
  assert.not.equal(of(1), of(2));
});

test('names: what a bench deletes is what it may have put', () => {
  assert.is(keyOfMix('bench/', 12), 'bench/key-0000000000000012');
  assert.ok(isKeyOfMix('bench/', keyOfMix('bench/', 12)));
  for (const other of ['bench/key-12', 'bench/key-0000000000000012x', 'bench/mine', 'key-0000000000000012']) {
    assert.not(isKeyOfMix('bench/', other), other);
  }
});

test('a tally counts what failed as errors, in no latency, and merges kinds', () => {
  const tally = new MixTally();
  for (let i = 1; i <= 100; i++) tally.completed(i % 2 === 0 ? 'read' : 'scan', i);
  tally.completed('insert', 5);
  tally.failed('first');
  tally.failed('second');
  const { reads, writes, kinds } = tally.latencies();
  assert.equal([tally.operations, tally.errors, tally.firstError], [101, 2, 'first']);
  assert.equal([reads.count, writes.count, reads.maxUs, writes.maxUs], [100, 1, 100_000, 5000]);
  assert.ok(reads.p95Us >= 95_000 && reads.p95Us < 97_000, `${reads.p95Us}`);
  assert.equal(Object.keys(kinds), ['read', 'insert', 'scan']);
  const second = tally.second(1, 500);
  assert.equal([second.opsPerSecond, second.errors, second.writeP99Us], [202, 2, 5000]);
  assert.is(tally.second(2, 1000).opsPerSecond, 0);
});

test.run();
