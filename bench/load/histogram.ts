/**
 * A histogram of durations: log-linear buckets in one typed array, so that recording is a few integer operations and
 * allocates nothing.
 *
 * Guarantees: a quantile is never below the true one and at most 1/64 (1.6 %) above it; min, max, mean and count are
 * exact (whole nanoseconds); merging two histograms gives the same result as recording everything into one.
 */

/** Buckets per power of two. The first 2 * HALF values have a bucket each. */
const HALF = 64;
/** Durations up to 2^43 ns (2.4 hours) are told apart; longer ones fall into the last bucket. */
const LARGEST_EXPONENT = 42;
const BUCKETS = HALF * (LARGEST_EXPONENT - 6 + 2);

export interface LatencySummary {
  count: number;
  minUs: number;
  meanUs: number;
  p50Us: number;
  p99Us: number;
  p999Us: number;
  maxUs: number;
}

export class Histogram {
  private readonly counts = new Float64Array(BUCKETS);
  private count_ = 0;
  private sum = 0;
  private min_ = Infinity;
  private max_ = 0;

  /** Records one duration, in nanoseconds; fractions are cut off, a negative one counts as 0. */
  record(durationNs: number): void {
    const value = durationNs > 0 ? Math.floor(durationNs) : 0;
    this.counts[bucketOf(value)]!++;
    this.count_++;
    this.sum += value;
    if (value < this.min_) this.min_ = value;
    if (value > this.max_) this.max_ = value;
  }

  merge(other: Histogram): void {
    for (let i = 0; i < BUCKETS; i++) this.counts[i]! += other.counts[i]!;
    this.count_ += other.count_;
    this.sum += other.sum;
    this.min_ = Math.min(this.min_, other.min_);
    this.max_ = Math.max(this.max_, other.max_);
  }

  reset(): void {
    this.counts.fill(0);
    this.count_ = 0;
    this.sum = 0;
    this.min_ = Infinity;
    this.max_ = 0;
  }

  get count(): number {
    return this.count_;
  }
  /** Nanoseconds; 0 when nothing was recorded. */
  get minNs(): number {
    return this.count_ === 0 ? 0 : this.min_;
  }
  get maxNs(): number {
    return this.max_;
  }
  get meanNs(): number {
    return this.count_ === 0 ? 0 : this.sum / this.count_;
  }

  /**
   * The smallest duration that at least `share` (0 to 1) of all recorded ones do not exceed, as the upper edge of its
   * bucket, in nanoseconds; 0 when nothing was recorded.
   */
  quantileNs(share: number): number {
    if (this.count_ === 0) return 0;
    const rank = Math.max(1, Math.ceil(share * this.count_));
    let seen = 0;
    for (let i = 0; i < BUCKETS; i++) {
      seen += this.counts[i]!;
      if (seen >= rank) return Math.min(upperEdgeOf(i), this.max_);
    }
    return this.max_;
  }

  /** What the reports print, in microseconds with one decimal. */
  summary(): LatencySummary {
    const us = (ns: number): number => Math.round(ns / 100) / 10;
    return {
      count: this.count_,
      minUs: us(this.minNs),
      meanUs: us(this.meanNs),
      p50Us: us(this.quantileNs(0.5)),
      p99Us: us(this.quantileNs(0.99)),
      p999Us: us(this.quantileNs(0.999)),
      maxUs: us(this.max_),
    };
  }
}

function bucketOf(value: number): number {
  if (value < 2 * HALF) return value;
  // Beyond 32 bits clz32 does not reach; such durations (4 s and longer) are rare, so the detour costs nothing.
  const exponent =
    value < 2 ** 32 ? 31 - Math.clz32(value) : Math.min(63 - Math.clz32(Math.floor(value / 2 ** 32)), LARGEST_EXPONENT);
  const step = 2 ** (exponent - 6);
  return HALF * (exponent - 6) + Math.min(Math.floor(value / step), 2 * HALF - 1);
}

/** The largest whole value of the bucket. */
function upperEdgeOf(bucket: number): number {
  if (bucket < 2 * HALF) return bucket;
  const exponent = Math.floor(bucket / HALF) + 5;
  const step = 2 ** (exponent - 6);
  return (bucket - HALF * (exponent - 6) + 1) * step - 1;
}
