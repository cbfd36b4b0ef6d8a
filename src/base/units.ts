/**
 * Sizes, their spelling, and the one place where long operations are cut.
 *
 * Guarantees: every part that `split` returns lies within one 256 KiB window of the volume, or is a whole number of
 * blocks for zeroes; the parts cover the range exactly, in order, without overlap.
 */
import { HoldfastError } from './errors.ts';

export const BLOCK_BYTES = 4096;
export const KiB = 1024;
export const MiB = 1024 * KiB;
export const GiB = 1024 * MiB;
export const TiB = 1024 * GiB;

/** A write of at most this many bytes inside one window of this size is atomic, and one record. */
export const MAX_IO_BYTES = 256 * KiB;
/** An unaligned operation of MAX_IO_BYTES touches one block more. */
export const MAX_IO_BLOCKS = MAX_IO_BYTES / BLOCK_BYTES + 1;
/** A zero or trim request covers at most this many bytes: it bounds the work of one turn of the event loop. */
export const MAX_ZERO_BYTES = 32 * MiB;
/** Block numbers are unsigned 32-bit numbers, so this is the largest volume: 16 TiB. */
export const MAX_VOLUME_BYTES = 16 * TiB;

/** One part of a split operation, in bytes of the volume. */
export interface Part {
  offsetBytes: number;
  lengthBytes: number;
}

/**
 * Cuts [offset, offset+length) for reads and writes. A range of at most 256 KiB stays whole only when it lies in one
 * window or is not longer than 256 KiB; a longer one is cut at multiples of 256 KiB. Source: storage design, "Record".
 */
export function split(offsetBytes: number, lengthBytes: number): Part[] {
  if (lengthBytes <= MAX_IO_BYTES) return lengthBytes === 0 ? [] : [{ offsetBytes, lengthBytes }];
  return cutAtMultiples(offsetBytes, lengthBytes, MAX_IO_BYTES);
}

/**
 * Cuts a zero or trim. Up to 256 KiB stays whole (one atomic record). A longer one has unaligned edges cut off at
 * multiples of 256 KiB and its middle at multiples of 32 MiB.
 */
export function splitZero(offsetBytes: number, lengthBytes: number): Part[] {
  if (lengthBytes <= MAX_IO_BYTES) return lengthBytes === 0 ? [] : [{ offsetBytes, lengthBytes }];
  const parts: Part[] = [];
  const end = offsetBytes + lengthBytes;
  let at = offsetBytes;
  if (at % BLOCK_BYTES !== 0) {
    const cut = Math.ceil(at / MAX_IO_BYTES) * MAX_IO_BYTES;
    parts.push({ offsetBytes: at, lengthBytes: Math.min(cut, end) - at });
    at = Math.min(cut, end);
  }
  const middleEnd = end % BLOCK_BYTES === 0 ? end : Math.floor(end / MAX_IO_BYTES) * MAX_IO_BYTES;
  if (middleEnd > at) {
    parts.push(...cutAtMultiples(at, middleEnd - at, MAX_ZERO_BYTES));
    at = middleEnd;
  }
  if (end > at) parts.push({ offsetBytes: at, lengthBytes: end - at });
  return parts;
}

function cutAtMultiples(offsetBytes: number, lengthBytes: number, windowBytes: number): Part[] {
  const parts: Part[] = [];
  const end = offsetBytes + lengthBytes;
  for (let at = offsetBytes; at < end;) {
    const cut = Math.min((Math.floor(at / windowBytes) + 1) * windowBytes, end);
    parts.push({ offsetBytes: at, lengthBytes: cut - at });
    at = cut;
  }
  return parts;
}

const SUFFIX: Record<string, number> = { '': 1, b: 1, k: KiB, m: MiB, g: GiB, t: TiB };

/**
 * Parses `1GiB`, `512M`, `64k`, `4096`. Units are powers of 1024 (`GB` is refused: it is ambiguous).
 * @throws HoldfastError INVALID_ARGUMENT
 */
export function parseSize(text: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*([bkmgt]?)(ib)?$/i.exec(text.trim());
  const bytes = match ? Number(match[1]) * SUFFIX[match[2]!.toLowerCase()]! : NaN;
  if (!Number.isSafeInteger(bytes) || (match![3] && /^b?$/i.test(match![2]!))) {
    throw new HoldfastError('INVALID_ARGUMENT', {
      operation: 'parse size',
      detail: `"${text}" is not a size`,
      remedy: 'write a whole number of bytes, or a number with KiB, MiB, GiB or TiB, e.g. 64MiB',
    });
  }
  return bytes;
}

/** `1.5 GiB`, `4 KiB`, `17 B`. */
export function formatBytes(bytes: number): string {
  for (const [unit, name] of [
    [TiB, 'TiB'],
    [GiB, 'GiB'],
    [MiB, 'MiB'],
    [KiB, 'KiB'],
  ] as const) {
    if (bytes >= unit) return `${Number((bytes / unit).toFixed(bytes % unit === 0 ? 0 : 1))} ${name}`;
  }
  return `${bytes} B`;
}
