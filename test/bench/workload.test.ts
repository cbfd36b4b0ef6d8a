import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { BLOCK_BYTES, MiB, TiB } from '../../src/base/units.ts';
import {
  mixer,
  offsets,
  operationsPerPass,
  PATTERNS,
  Random,
  scatterer,
  ZipfRanks,
  type OffsetOptions,
} from '../../bench/load/workload.ts';

const base: OffsetOptions = {
  pattern: 'uniform',
  spanBytes: 4 * MiB,
  ioBytes: BLOCK_BYTES,
  unaligned: false,
  theta: 0.99,
  index: 0,
  clients: 1,
};

test('a seed names a stream; neighbouring seeds give different ones', () => {
  const stream = (seed: number): number[] => {
    const random = new Random(seed);
    return Array.from({ length: 50 }, () => random.uint32());
  };
  assert.equal(stream(7), stream(7));
  const firsts = new Set(Array.from({ length: 1000 }, (_, seed) => stream(seed).slice(0, 2).join()));
  assert.is(firsts.size, 1000);
});

test('random numbers are spread evenly', () => {
  const random = new Random(3);
  const buckets = Array.from({ length: 64 }, () => 0);
  const draws = 64_000;
  for (let i = 0; i < draws; i++) buckets[random.below(64)]!++;
  // Chi-square with 63 degrees of freedom: 120 is beyond the 99.99th percentile. The seed is fixed, so this is no dice.
  const chiSquare = buckets.reduce((sum, n) => sum + (n - 1000) ** 2 / 1000, 0);
  assert.ok(chiSquare < 120, String(chiSquare));
  const bytes = new Uint8Array(65536);
  random.fill(bytes);
  assert.is(new Set(bytes).size, 256);
});

test('every offset leaves room for the operation, aligned exactly when asked', () => {
  for (const pattern of PATTERNS) {
    for (const ioBytes of [512, BLOCK_BYTES, 3 * BLOCK_BYTES, 65536]) {
      for (const unaligned of [false, true]) {
        for (const index of [0, 3]) {
          const spanBytes = 1 * MiB + 4096;
          const next = offsets(
            { ...base, pattern, ioBytes, unaligned, spanBytes, index, clients: 4 },
            new Random(index + 1),
          );
          for (let i = 0; i < 2000; i++) {
            const offset = next();
            assert.ok(Number.isInteger(offset) && offset >= 0, `${offset}`);
            assert.ok(offset + ioBytes <= spanBytes, `${pattern} ${ioBytes} ${offset}`);
            if (ioBytes % BLOCK_BYTES === 0) assert.is(offset % BLOCK_BYTES !== 0, unaligned);
          }
        }
      }
    }
  }
});

test('sequential clients cover the span exactly once per pass, then begin again', () => {
  for (const clients of [1, 3, 7]) {
    const seen = new Map<number, number>();
    for (let index = 0; index < clients; index++) {
      const options = { ...base, pattern: 'sequential' as const, index, clients };
      const next = offsets(options, new Random(1));
      const pass = operationsPerPass(options);
      const first: number[] = [];
      for (let i = 0; i < pass; i++) first.push(next());
      for (const offset of first) seen.set(offset, (seen.get(offset) ?? 0) + 1);
      assert.equal(
        first,
        first.map((_, i) => first[0]! + i * BLOCK_BYTES),
      );
      assert.is(next(), first[0]);
    }
    assert.is(seen.size, (4 * MiB) / BLOCK_BYTES);
    assert.ok([...seen.values()].every((n) => n === 1));
  }
});

test('a span that has no room for every client is refused', () => {
  assert.throws(() => offsets({ ...base, spanBytes: 8192, clients: 3 }, new Random(1)), /too small/);
  assert.throws(() => offsets({ ...base, spanBytes: 4096, unaligned: true }, new Random(1)), /too small/);
});

test('zipf ranks have the frequencies of the definition', () => {
  for (const theta of [0, 0.5, 0.99, 1, 1.2]) {
    const n = 1000;
    const draws = 200_000;
    const ranks = new ZipfRanks(n, theta);
    const random = new Random(11);
    const counts = Array.from({ length: n + 1 }, () => 0);
    for (let i = 0; i < draws; i++) counts[ranks.next(random)]!++;
    assert.is(counts[0], 0);
    let zeta = 0;
    for (let k = 1; k <= n; k++) zeta += k ** -theta;
    let chiSquare = 0;
    let cells = 0;
    for (let k = 1; k <= n; k++) {
      const expected = (draws * k ** -theta) / zeta;
      if (expected < 5) continue;
      chiSquare += (counts[k]! - expected) ** 2 / expected;
      cells++;
    }
    // Five standard deviations of a chi-square with that many degrees of freedom; the seed is fixed.
    assert.ok(chiSquare < cells + 5 * Math.sqrt(2 * cells), `theta ${theta}: ${chiSquare} over ${cells} cells`);
  }
});

test('zipf works over a volume of 16 TiB and stays in range', () => {
  const options = { ...base, pattern: 'zipf' as const, spanBytes: 16 * TiB };
  const next = offsets(options, new Random(5));
  const counts = new Map<number, number>();
  for (let i = 0; i < 20_000; i++) {
    const offset = next();
    assert.ok(offset + BLOCK_BYTES <= options.spanBytes);
    counts.set(offset, (counts.get(offset) ?? 0) + 1);
  }
  // zeta(2^32, 0.99) is about 25.4: the hottest block gets one access in 25, and it is not block 0.
  const hottest = [...counts].sort((a, b) => b[1] - a[1])[0]!;
  assert.ok(hottest[1] > 600 && hottest[1] < 1000, String(hottest[1]));
  assert.is.not(hottest[0], 0);
});

test('scattering is a bijection, also for multiples of its factor, and parts neighbours', () => {
  for (const n of [1, 2, 3, 1000, 4096, 1_299_709]) {
    const strew = scatterer(n);
    const seen = new Uint8Array(n);
    for (let rank = 0; rank < n; rank++) {
      const block = strew(rank);
      assert.ok(block >= 0 && block < n);
      if (seen[block] !== 0) assert.unreachable(`block ${block} of ${n} is named twice`);
      seen[block] = 1;
    }
  }
  const strew = scatterer(2 ** 32);
  assert.ok(Math.abs(strew(1) - strew(0)) > 1000);
});

test('a mix keeps its percentage', () => {
  assert.is(mixer('read', 0, new Random(1))(), false);
  assert.is(mixer('write', 100, new Random(1))(), true);
  const next = mixer('mix', 70, new Random(9));
  let writes = 0;
  for (let i = 0; i < 10_000; i++) if (next()) writes++;
  assert.ok(writes > 2800 && writes < 3200, String(writes));
});

test.run();
