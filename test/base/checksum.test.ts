/** CRC arithmetic against zlib, and the entries of the checksum table. */
import { crc32 } from 'node:zlib';
import fc from 'fast-check';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { ENTRY_LOST, ENTRY_ZERO, combineBlock, crcBlocks, entryOf, volumeSeed } from '../../src/base/checksum.ts';
import { BLOCK_BYTES, MAX_IO_BLOCKS } from '../../src/base/units.ts';
import { Random } from '../support/random.ts';

const word = fc.integer({ min: 0, max: 0xffffffff });

const crcs = suite('checksum: crc');

crcs('combining blocks gives the CRC of the whole', () => {
  const random = new Random(1);
  for (const blocks of [1, 2, 3, 17, MAX_IO_BLOCKS]) {
    const bytes = random.bytes(blocks * BLOCK_BYTES);
    const out = new Uint32Array(blocks + 4).fill(0xabcdef01);
    assert.is(crcBlocks(bytes, out, 2), crc32(bytes), `${blocks} blocks`);
    for (let i = 0; i < blocks; i++) {
      assert.is(out[2 + i], crc32(bytes.subarray(i * BLOCK_BYTES, (i + 1) * BLOCK_BYTES)), `block ${i}`);
    }
    assert.equal([out[0], out[1], out[blocks + 2], out[blocks + 3]], Array(4).fill(0xabcdef01), 'nothing beside them');
  }
});

crcs('combineBlock continues any prefix, of any length', () => {
  const random = new Random(2);
  const block = random.bytes(BLOCK_BYTES);
  for (const length of [0, 1, 5, 4095, 4096, 10_000]) {
    const prefix = random.bytes(length);
    const whole = crc32(Buffer.concat([prefix, block]));
    assert.is(combineBlock(crc32(prefix), crc32(block)), whole, `prefix of ${length}`);
  }
});

crcs('combineBlock of any register value is what zlib computes from it', () => {
  const random = new Random(3);
  const block = random.bytes(BLOCK_BYTES);
  fc.assert(fc.property(word, (crc) => assert.is(combineBlock(crc, crc32(block)), crc32(block, crc))));
  for (const crc of [0, 1, 0x80000000, 0xffffffff]) assert.is(combineBlock(crc, crc32(block)), crc32(block, crc));
});

crcs('a view in the middle of a larger, shared buffer', () => {
  const shared = new Uint8Array(new SharedArrayBuffer(4 * BLOCK_BYTES));
  shared.set(new Random(4).bytes(4 * BLOCK_BYTES));
  const out = new Uint32Array(2);
  const view = shared.subarray(BLOCK_BYTES, 3 * BLOCK_BYTES);
  assert.is(crcBlocks(view, out, 0), crc32(Buffer.from(view)));
});
crcs.run();

const entries = suite('checksum: entries');
const SEED = volumeSeed(new Uint8Array(16).fill(7));

entries('an entry is the CRC of the block continued from seed and block number', () => {
  const block = new Random(5).bytes(BLOCK_BYTES);
  fc.assert(
    fc.property(word, (number) => {
      const start = (SEED ^ number) >>> 0;
      assert.is(entryOf(SEED, number, crc32(block)), crc32(block, start));
    }),
  );
});

entries('other block, other volume, other bytes: another entry', () => {
  const other = volumeSeed(new Uint8Array(16).fill(8));
  fc.assert(
    fc.property(word, word, word, (a, b, crc) => {
      const entry = entryOf(SEED, a, crc);
      if (a !== b) assert.is.not(entryOf(SEED, b, crc), entry);
      assert.is.not(entryOf(other, a, crc), entry);
      assert.is.not(entryOf(SEED, a, (crc ^ 1) >>> 0), entry);
    }),
    { numRuns: 1000 },
  );
});

entries('all blocks of a volume of 256 MiB have different entries for the same bytes', () => {
  const crc = crc32(new Uint8Array(BLOCK_BYTES));
  const seen = new Set<number>();
  for (let block = 0; block < 65_536; block++) seen.add(entryOf(SEED, block, crc));
  assert.is(seen.size, 65_536);
});

const ZEROS = new Uint8Array(BLOCK_BYTES);
/** The block CRC with which this block's entry would be `raw`: the CRC is linear, so what the start value adds is known. */
const crcFor = (block: number, raw: number): number => (raw ^ crc32(ZEROS, (SEED ^ block) >>> 0) ^ crc32(ZEROS)) >>> 0;

entries('the special entries are never computed', () => {
  for (const block of [0, 1, 4096, 0x7fffffff, 0x80000000, 0xffffffff]) {
    // The helper itself is right: an ordinary value comes out as asked for.
    assert.is(entryOf(SEED, block, crcFor(block, 0x12345678)), 0x12345678);
    assert.is(entryOf(SEED, block, crcFor(block, ENTRY_ZERO)), 1);
    assert.is(entryOf(SEED, block, crcFor(block, ENTRY_LOST)), 0xfffffffe);
  }
});

entries('the seed depends on every byte of the volume id', () => {
  const id = new Random(6).bytes(16);
  const seed = volumeSeed(id);
  for (let i = 0; i < 16; i++) {
    const changed = id.slice();
    changed[i]! ^= 1;
    assert.is.not(volumeSeed(changed), seed);
  }
});
entries.run();
