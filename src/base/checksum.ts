/**
 * CRC-32 (IEEE, as zlib), one pass per byte.
 *
 * CRC-32 is linear: crc(a ++ b) follows from crc(a), crc(b) and the length of b, and so does a CRC with another start
 * value. The block checksum that lies on disk is seeded with the volume and the block number, the one on the wire
 * covers the whole payload unseeded; both are computed from the same unseeded CRC per block, so the bytes themselves
 * are read once, whether they come from a socket or from a disk.
 */
import { crc32 } from 'node:zlib';
import { BLOCK_BYTES, MAX_IO_BLOCKS } from './units.ts';

export { crc32 };

/** The CRC register advanced over so many zero bytes, as four tables of 256 (the operator is linear over GF(2)). */
class Advance {
  private readonly t0 = new Uint32Array(256);
  private readonly t1 = new Uint32Array(256);
  private readonly t2 = new Uint32Array(256);
  private readonly t3 = new Uint32Array(256);

  constructor(zeroBytes: number) {
    const matrix = powerOfZeroByte(zeroBytes);
    [this.t0, this.t1, this.t2, this.t3].forEach((table, byte) => {
      for (let value = 0; value < 256; value++) table[value] = apply(matrix, value << (8 * byte));
    });
  }

  of(crc: number): number {
    return this.t0[crc & 255]! ^ this.t1[(crc >>> 8) & 255]! ^ this.t2[(crc >>> 16) & 255]! ^ this.t3[crc >>> 24]!;
  }
}

function apply(matrix: Uint32Array, vector: number): number {
  let sum = 0;
  for (let bit = 0, rest = vector >>> 0; rest !== 0; bit++, rest >>>= 1) if (rest & 1) sum ^= matrix[bit]!;
  return sum >>> 0;
}

function powerOfZeroByte(bytes: number): Uint32Array {
  // One zero bit: shift right, and the reflected polynomial where a one falls out.
  let square = new Uint32Array(32);
  square[0] = 0xedb88320;
  for (let bit = 1; bit < 32; bit++) square[bit] = 2 ** (bit - 1);
  for (let i = 0; i < 3; i++) square = square.map((column) => apply(square, column));
  let result = new Uint32Array(32).map((_, bit) => (1 << bit) >>> 0);
  for (let rest = bytes; rest > 0; rest = Math.floor(rest / 2)) {
    const factor = square;
    if (rest % 2 === 1) result = result.map((column) => apply(factor, column));
    square = square.map((column) => apply(factor, column));
  }
  return result;
}

const OVER_BLOCK = new Advance(BLOCK_BYTES);

/** crc(a ++ block) from crc(a) and crc(block). */
export function combineBlock(crc: number, blockCrc: number): number {
  return (OVER_BLOCK.of(crc) ^ blockCrc) >>> 0;
}

/** CRC of `count` blocks (at least 1) from the CRC of each. */
export function combineBlocks(crcs: Uint32Array, count: number): number {
  let crc = crcs[0]!;
  for (let i = 1; i < count; i++) crc = combineBlock(crc, crcs[i]!);
  return crc;
}

/**
 * Unseeded CRC of each whole block of `bytes` into `out` from `at` on.
 * @returns the CRC of all of `bytes`, as `crc32(bytes)` would give it
 */
export function crcBlocks(bytes: Uint8Array, out: Uint32Array, at: number): number {
  if (bytes.length === BLOCK_BYTES) return (out[at] = crc32(bytes));
  let whole = 0;
  for (let offset = 0, i = at; offset < bytes.length; offset += BLOCK_BYTES, i++) {
    const one = crc32(bytes.subarray(offset, offset + BLOCK_BYTES));
    out[i] = one;
    whole = offset === 0 ? one : combineBlock(whole, one);
  }
  return whole;
}

/** Table entry of a block that was never written or is zeroed: it reads as zeros, whatever lies in the file. */
export const ENTRY_ZERO = 0;
/** Table entry of a block whose checksum was lost with a damaged page: not readable until it is overwritten. */
export const ENTRY_LOST = 0xffffffff;

/** Start value of the block checksums of a volume: from its id, so that another volume's block never verifies. */
export function volumeSeed(volumeId: Uint8Array): number {
  return crc32(volumeId);
}

/**
 * The entry of a block in the checksum table. Different block numbers of one volume always give different entries for
 * the same bytes (the seed is injective and the advance invertible), so a misdirected write is always found.
 */
export function entryOf(seed: number, block: number, blockCrc: number): number {
  const entry = (OVER_BLOCK.of((seed ^ block) >>> 0) ^ blockCrc) >>> 0;
  return entry === ENTRY_ZERO ? 1 : entry === ENTRY_LOST ? 0xfffffffe : entry;
}

function crcsOfZeros(): number[] {
  const one = crc32(new Uint8Array(BLOCK_BYTES));
  const crcs = [crc32(new Uint8Array(0)), one];
  while (crcs.length <= MAX_IO_BLOCKS) crcs.push(combineBlock(crcs.at(-1)!, one));
  return crcs;
}

/** CRC of n blocks of zeros, by n. Combined, since each thread of each process does this when it starts. */
export const CRC_OF_ZEROS: readonly number[] = crcsOfZeros();
