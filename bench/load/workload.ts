/**
 * What a load consists of: which offsets, which operations, which bytes. Everything follows from the seed, so a run
 * can be repeated exactly.
 *
 * Guarantees: every offset that a generator returns leaves room for a whole operation within the span; the zipf
 * distribution is exact for any number of blocks (no table, no approximated ranks); a rank always names the same
 * block, and different ranks name different blocks.
 */
import { BLOCK_BYTES } from '../../src/base/units.ts';

export type Pattern = 'uniform' | 'zipf' | 'sequential';
export type Operation = 'read' | 'write' | 'mix';

export const PATTERNS: readonly Pattern[] = ['uniform', 'zipf', 'sequential'];
export const OPERATIONS: readonly Operation[] = ['read', 'write', 'mix'];

/** A small fast generator of pseudo-random numbers (xorshift128, period 2^128 - 1). Not for secrets. */
export class Random {
  private a: number;
  private b: number;
  private c: number;
  private d: number;

  constructor(seed: number) {
    // The four words come from a counter through a mixer, so that neighbouring seeds give unrelated streams.
    let state = seed | 0;
    const word = (): number => {
      state = (state + 0x9e3779b9) | 0;
      let z = state;
      z = Math.imul(z ^ (z >>> 16), 0x85ebca6b);
      z = Math.imul(z ^ (z >>> 13), 0xc2b2ae35);
      return z ^ (z >>> 16);
    };
    this.a = word();
    this.b = word();
    this.c = word();
    this.d = word() | 1; // all zeros is the one state that never changes
  }

  /** A whole number from 0 to 2^32 - 1. */
  uint32(): number {
    let t = this.a;
    t ^= t << 11;
    t ^= t >>> 8;
    this.a = this.b;
    this.b = this.c;
    this.c = this.d;
    this.d = this.d ^ (this.d >>> 19) ^ t;
    return this.d >>> 0;
  }

  /** 0 <= x < 1, with 53 random bits. */
  unit(): number {
    return ((this.uint32() >>> 5) * 67108864 + (this.uint32() >>> 6)) / 9007199254740992;
  }

  /** A whole number from 0 to `limit` - 1; `limit` at most 2^53. */
  below(limit: number): number {
    return Math.floor(this.unit() * limit);
  }

  fill(bytes: Uint8Array): void {
    for (let i = 0; i < bytes.length; i++) bytes[i] = this.uint32() >>> 24;
  }
}

/**
 * Ranks 1 to n with P(k) proportional to k^-theta, drawn by rejection-inversion (Hörmann and Derflinger, 1996): exact
 * for any n in constant memory, with fewer than two draws on average.
 */
export class ZipfRanks {
  private readonly n: number;
  private readonly theta: number;
  private readonly low: number;
  private readonly high: number;
  private readonly cut: number;

  /** `theta`: at least 0 (0 is uniform); 0.99 is what YCSB uses. */
  constructor(n: number, theta: number) {
    if (!(n >= 1) || !(theta >= 0)) throw new RangeError(`no zipf distribution over ${n} ranks with theta ${theta}`);
    this.n = n;
    this.theta = theta;
    this.low = this.integral(1.5) - 1;
    this.high = this.integral(n + 0.5);
    this.cut = 2 - this.inverse(this.integral(2.5) - this.weight(2));
  }

  private weight(x: number): number {
    return x ** -this.theta;
  }
  private integral(x: number): number {
    const power = 1 - this.theta;
    return Math.abs(power) < 1e-12 ? Math.log(x) : (x ** power - 1) / power;
  }
  private inverse(y: number): number {
    const power = 1 - this.theta;
    return Math.abs(power) < 1e-12 ? Math.exp(y) : Math.max(1 + y * power, 0) ** (1 / power);
  }

  next(random: Random): number {
    for (;;) {
      const u = this.high + random.unit() * (this.low - this.high);
      const x = this.inverse(u);
      const k = Math.min(Math.max(Math.round(x), 1), this.n);
      if (k - x <= this.cut || u >= this.integral(k + 0.5) - this.weight(k)) return k;
    }
  }
}

/** Strews ranks 0 to n-1 over blocks 0 to n-1, so that hot blocks are no neighbours: a bijection. n at most 2^32. */
export function scatterer(n: number): (rank: number) => number {
  // Below 2^21, so that the product with a 32-bit block number stays exact. A prime: only its multiples need another.
  let factor = 1_299_709;
  while (commonDivisor(factor, n) !== 1) factor++;
  const shift = Math.floor(n / 3);
  return (rank) => (rank * factor + shift) % n;
}

function commonDivisor(a: number, b: number): number {
  while (b !== 0) [a, b] = [b, a % b];
  return a;
}

export interface OffsetOptions {
  pattern: Pattern;
  /** Bytes of the volume that are used, from 0 on. */
  spanBytes: number;
  /** Length of one operation. */
  ioBytes: number;
  /** Offsets that are no multiples of the block size (random and sequential patterns alike). */
  unaligned: boolean;
  /** Skew of zipf. */
  theta: number;
  /** This generator's share of a sequential run: client `index` of `clients` covers its own part of the span. */
  index: number;
  clients: number;
}

/** @returns a function that gives the next offset, in bytes */
export function offsets(options: OffsetOptions, random: Random): () => number {
  const { pattern, spanBytes, ioBytes, unaligned } = options;
  // Unaligned operations keep one block of room, in which they are shifted.
  const places = Math.floor((spanBytes - (unaligned ? BLOCK_BYTES : 0)) / ioBytes);
  if (places < options.clients) {
    throw new RangeError(`a span of ${spanBytes} bytes is too small for ${options.clients} clients x ${ioBytes} bytes`);
  }
  const shift = (): number => (unaligned ? 1 + random.below(BLOCK_BYTES - 1) : 0);
  if (pattern === 'sequential') {
    const first = Math.floor((places * options.index) / options.clients);
    const end = Math.floor((places * (options.index + 1)) / options.clients);
    const fixedShift = shift(); // one shift for the whole run, or it would not be sequential
    let place = first;
    return () => {
      const offset = place * ioBytes + fixedShift;
      place = place + 1 === end ? first : place + 1;
      return offset;
    };
  }
  if (pattern === 'zipf') {
    const ranks = new ZipfRanks(places, options.theta);
    const strew = scatterer(places);
    return () => strew(ranks.next(random) - 1) * ioBytes + shift();
  }
  return () => random.below(places) * ioBytes + shift();
}

/** Operations of one client before a sequential run has covered its part once. */
export function operationsPerPass(options: Pick<OffsetOptions, 'spanBytes' | 'ioBytes' | 'index' | 'clients'>): number {
  const places = Math.floor(options.spanBytes / options.ioBytes);
  return (
    Math.floor((places * (options.index + 1)) / options.clients) -
    Math.floor((places * options.index) / options.clients)
  );
}

/** @returns a function that says whether the next operation is a write */
export function mixer(operation: Operation, readPercent: number, random: Random): () => boolean {
  if (operation !== 'mix') return () => operation === 'write';
  return () => random.unit() * 100 >= readPercent;
}
