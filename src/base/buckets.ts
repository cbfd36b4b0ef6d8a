/**
 * Counts of whole numbers (microseconds, records) in log-linear buckets: what the hot path records into, and metrics are
 * made of when somebody asks. Pure.
 *
 * Guarantees: to record is a few integer operations and allocates nothing; count and sum are exact; a quantile is at most
 * 1/16 above the true one; how many were below a power of two is exact.
 */

/** Buckets per power of two; the first 2 * HALF numbers have a bucket each. */
const HALF = 16;
const LOG_HALF = 4;
/** Numbers up to 2^31 are told apart: 36 minutes in microseconds. */
const LARGEST_EXPONENT = 30;
const BUCKETS = HALF * (LARGEST_EXPONENT - LOG_HALF + 2);
const LARGEST = 2 ** (LARGEST_EXPONENT + 1) - 1;

export class Buckets {
  count = 0;
  sum = 0;
  private readonly counts = new Float64Array(BUCKETS);

  /** Fractions are cut off, what is negative counts as 0. */
  record(value: number): void {
    const whole = value > 0 ? (value < LARGEST ? value | 0 : LARGEST) : 0;
    this.counts[bucketOf(whole)]!++;
    this.count++;
    this.sum += whole;
  }

  /** How many recorded numbers were below a power of two. */
  below(exponent: number): number {
    const end = exponent > LARGEST_EXPONENT ? BUCKETS : bucketOf(2 ** exponent);
    let sum = 0;
    for (let i = 0; i < end; i++) sum += this.counts[i]!;
    return sum;
  }

  /**
   * Takes over the present counts. @returns what was recorded since `before` did the same, as `share`s of it: the upper
   * edge of the bucket; null when there was nothing
   */
  since(before: Buckets, shares: readonly number[]): number[] | null {
    const total = this.count - before.count;
    const found: number[] = [];
    let seen = 0;
    for (let i = 0; i < BUCKETS; i++) {
      seen += this.counts[i]! - before.counts[i]!;
      while (found.length < shares.length && total > 0 && seen >= Math.max(1, Math.ceil(shares[found.length]! * total)))
        found.push(upperEdgeOf(i));
    }
    before.counts.set(this.counts);
    before.count = this.count;
    before.sum = this.sum;
    return total === 0 ? null : found;
  }
}

function bucketOf(value: number): number {
  if (value < 2 * HALF) return value;
  const exponent = 31 - Math.clz32(value);
  return HALF * (exponent - LOG_HALF) + (value >>> (exponent - LOG_HALF));
}

/** The largest whole number of the bucket. */
function upperEdgeOf(bucket: number): number {
  if (bucket < 2 * HALF) return bucket;
  const exponent = Math.floor(bucket / HALF) + LOG_HALF - 1;
  const step = 2 ** (exponent - LOG_HALF);
  return (bucket - HALF * (exponent - LOG_HALF) + 1) * step - 1;
}
