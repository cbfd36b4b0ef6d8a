/** Cutting of long operations, sizes as text. */
import fc from 'fast-check';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import {
  BLOCK_BYTES,
  GiB,
  KiB,
  MAX_IO_BLOCKS,
  MAX_IO_BYTES,
  MAX_VOLUME_BYTES,
  MAX_ZERO_BYTES,
  MiB,
  type Part,
  TiB,
  formatBytes,
  parseSize,
  split,
  splitZero,
} from '../../src/base/units.ts';
import { refused } from '../support/unit-tools.ts';

/** Offsets near the edges of blocks, windows and zero windows, anywhere in the largest volume. */
const offsets = fc
  .tuple(
    fc.integer({ min: 0, max: 600_000 }),
    fc.constantFrom(BLOCK_BYTES, MAX_IO_BYTES, MAX_ZERO_BYTES, 1),
    fc.integer({ min: -2, max: 2 }),
  )
  .map(([n, unit, delta]) => Math.max(0, n * unit + delta));
const lengths = fc.oneof(
  fc.integer({ min: 0, max: 3 * MAX_IO_BYTES }),
  fc
    .tuple(
      fc.integer({ min: 0, max: 300 }),
      fc.constantFrom(BLOCK_BYTES, MAX_IO_BYTES),
      fc.integer({ min: -1, max: 1 }),
    )
    .map(([n, unit, delta]) => Math.max(0, n * unit + delta)),
  fc.integer({ min: MAX_ZERO_BYTES - 2, max: 4 * MAX_ZERO_BYTES }),
);

function assertCovers(parts: Part[], offset: number, length: number): void {
  let at = offset;
  for (const part of parts) {
    assert.is(part.offsetBytes, at, 'each part begins where the one before it ends');
    assert.ok(part.lengthBytes > 0, 'no part is empty');
    at += part.lengthBytes;
  }
  assert.is(at, offset + length, 'the parts end where the range ends');
}

const blocksOf = (part: Part): number =>
  Math.ceil((part.offsetBytes + part.lengthBytes) / BLOCK_BYTES) - Math.floor(part.offsetBytes / BLOCK_BYTES);

const cutting = suite('units: split');

cutting('parts cover the range exactly and each fits a record', () => {
  fc.assert(
    fc.property(offsets, lengths, (offset, length) => {
      const parts = split(offset, length);
      assertCovers(parts, offset, length);
      for (const part of parts) {
        assert.ok(part.lengthBytes <= MAX_IO_BYTES);
        assert.ok(blocksOf(part) <= MAX_IO_BLOCKS, 'a slot holds it');
      }
    }),
    { numRuns: 1000 },
  );
});

cutting('up to 256 KiB stays whole at any alignment', () => {
  for (const offset of [0, 1, BLOCK_BYTES - 1, MAX_IO_BYTES - 1, MAX_IO_BYTES, 5 * MAX_IO_BYTES + 77]) {
    for (const length of [1, BLOCK_BYTES, MAX_IO_BYTES - 1, MAX_IO_BYTES]) {
      assert.equal(split(offset, length), [{ offsetBytes: offset, lengthBytes: length }]);
      assert.equal(splitZero(offset, length), [{ offsetBytes: offset, lengthBytes: length }]);
    }
  }
});

cutting('longer ones are cut at every multiple of 256 KiB, and only there', () => {
  fc.assert(
    fc.property(offsets, fc.integer({ min: MAX_IO_BYTES + 1, max: 5 * MAX_IO_BYTES }), (offset, length) => {
      const cuts = split(offset, length)
        .slice(1)
        .map((part) => part.offsetBytes);
      const expected: number[] = [];
      for (let at = (Math.floor(offset / MAX_IO_BYTES) + 1) * MAX_IO_BYTES; at < offset + length; at += MAX_IO_BYTES) {
        expected.push(at);
      }
      assert.equal(cuts, expected);
    }),
  );
});

cutting('nothing gives no parts', () => {
  assert.equal(split(12345, 0), []);
  assert.equal(splitZero(12345, 0), []);
});

cutting('the end of the largest volume', () => {
  const offset = MAX_VOLUME_BYTES - MAX_IO_BYTES - 1;
  assert.equal(split(offset, MAX_IO_BYTES + 1), [
    { offsetBytes: offset, lengthBytes: 1 },
    { offsetBytes: offset + 1, lengthBytes: MAX_IO_BYTES },
  ]);
});

cutting('zeroes: parts cover, long ones are whole blocks inside one 32 MiB window', () => {
  fc.assert(
    fc.property(offsets, lengths, (offset, length) => {
      const parts = splitZero(offset, length);
      assertCovers(parts, offset, length);
      for (const part of parts) {
        const aligned = part.offsetBytes % BLOCK_BYTES === 0 && part.lengthBytes % BLOCK_BYTES === 0;
        if (!aligned) {
          assert.ok(part.lengthBytes <= MAX_IO_BYTES, 'an unaligned part is one write');
          continue;
        }
        assert.ok(part.lengthBytes <= MAX_ZERO_BYTES);
        if (part.lengthBytes <= MAX_IO_BYTES) continue;
        const last = part.offsetBytes + part.lengthBytes - 1;
        assert.is(Math.floor(part.offsetBytes / MAX_ZERO_BYTES), Math.floor(last / MAX_ZERO_BYTES));
      }
      const unaligned = parts.filter((p) => p.offsetBytes % BLOCK_BYTES !== 0 || p.lengthBytes % BLOCK_BYTES !== 0);
      assert.ok(unaligned.length <= 2, 'only the edges are unaligned');
    }),
    { numRuns: 1000 },
  );
});

cutting('zeroes: an aligned gibibyte is 32 parts, an odd one has two short edges besides', () => {
  assert.is(splitZero(0, GiB).length, 32);
  const odd = splitZero(MAX_ZERO_BYTES - 5, GiB);
  assert.equal(odd[0], { offsetBytes: MAX_ZERO_BYTES - 5, lengthBytes: 5 });
  assert.equal(odd.at(-1), { offsetBytes: MAX_ZERO_BYTES + GiB - MAX_IO_BYTES, lengthBytes: MAX_IO_BYTES - 5 });
});
cutting.run();

const text = suite('units: text');

text('sizes in every spelling', () => {
  const good: Array<[string, number]> = [
    ['0', 0],
    ['4096', 4096],
    ['17b', 17],
    ['17B', 17],
    ['64k', 64 * KiB],
    ['64KiB', 64 * KiB],
    ['64 kib', 64 * KiB],
    [' 512M ', 512 * MiB],
    ['1.5GiB', 1.5 * GiB],
    ['1G', GiB],
    ['0.5t', TiB / 2],
    ['16TiB', 16 * TiB],
    ['007k', 7 * KiB],
  ];
  for (const [given, bytes] of good) assert.is(parseSize(given), bytes, given);
});

text('what is no size is refused, not guessed', async () => {
  const bad = ['', ' ', '-1', '+1', '1e3', '0x10', '1_000', '1,5G', '.5G', '5.', 'G', 'GiB', '1GB', '1MB', '1kb', '1P'];
  bad.push('1iB', '1bib', '1GiBs', '1 G iB', '1G 1', '0.3', '0.0001k', 'NaN', 'Infinity', '１', '1\n2', '8TiBB');
  for (const given of bad) await refused('INVALID_ARGUMENT', () => parseSize(given));
});

text('numbers that a double cannot hold are refused', async () => {
  assert.is(parseSize('9007199254740991'), Number.MAX_SAFE_INTEGER);
  for (const given of ['9007199254740992', '9007199254740993', '8192TiB', `${'9'.repeat(400)}`]) {
    await refused('INVALID_ARGUMENT', () => parseSize(given));
  }
});

text('a formatted size with a whole number parses back', () => {
  for (const bytes of [0, 1, 1023, KiB, 64 * KiB, MiB, 3 * GiB, TiB, 16 * TiB]) {
    assert.is(parseSize(formatBytes(bytes)), bytes);
  }
  assert.is(formatBytes(1536), '1.5 KiB');
  assert.is(formatBytes(1.5 * GiB), '1.5 GiB');
  assert.is(formatBytes(17), '17 B');
});
text.run();
