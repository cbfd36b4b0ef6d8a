/** Checksums: the plain one, one per block of a large payload, and the entry of the table that follows from it. */
import { combineBlock, crc32, crcBlocks, entryOf, volumeSeed } from '../../src/base/checksum.ts';
import { BLOCK_BYTES, KiB } from '../../src/base/units.ts';
import { Random } from '../load/workload.ts';
import { microSuite } from './suite.ts';

const random = new Random(1);
const block = new Uint8Array(BLOCK_BYTES);
const large = new Uint8Array(256 * KiB);
random.fill(block);
random.fill(large);
const crcs = new Uint32Array(large.length / BLOCK_BYTES);
const seed = volumeSeed(block.subarray(0, 16));
const crc = crc32(block);
let number = 0;
// What is computed is stored here, or the compiler would be free to leave it out.
let sink = 0;

await microSuite('checksum', [
  { name: 'crc32, 4 KiB', run: () => (sink ^= crc32(block)), bytes: block.length },
  { name: 'crc32, 256 KiB', run: () => (sink ^= crc32(large)), bytes: large.length },
  { name: 'crcBlocks, 256 KiB', run: () => (sink ^= crcBlocks(large, crcs, 0)), bytes: large.length },
  { name: 'combineBlock', run: () => (sink = combineBlock(sink, crc)) },
  { name: 'entryOf', run: () => (sink ^= entryOf(seed, number++ >>> 0, crc)) },
]);
process.exitCode = Number.isInteger(sink) ? 0 : 1;
