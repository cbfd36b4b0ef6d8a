/**
 * Counts what the clients of a mix complete: latencies for each kind of operation, over all and over the last second.
 *
 * Guarantees: an operation that failed counts as an error and in no latency; the figures of all kinds together are those of
 * their histograms merged, not means of percentiles.
 */
import { Histogram } from '../load/histogram.ts';
import { type MixKind, type MixLatency, MIX_KINDS } from './kv-mix.ts';

const READS: readonly MixKind[] = ['read', 'scan'];
const WRITES: readonly MixKind[] = ['update', 'insert', 'readModifyWrite'];

/** Of the time since the last look. */
export interface MixSecond {
  event: 'second';
  atSeconds: number;
  opsPerSecond: number;
  readP99Us: number;
  writeP99Us: number;
  errors: number;
}

export class MixTally {
  private readonly all = new Map(MIX_KINDS.map((kind) => [kind, new Histogram()]));
  private readonly recent = { reads: new Histogram(), writes: new Histogram() };
  private errors_ = 0;
  private firstError_: string | null = null;
  absent = 0;

  completed(kind: MixKind, tookMs: number): void {
    const ns = tookMs * 1e6;
    this.all.get(kind)!.record(ns);
    (READS.includes(kind) ? this.recent.reads : this.recent.writes).record(ns);
  }

  failed(why: string): void {
    this.errors_++;
    this.firstError_ ??= why;
  }

  get errors(): number {
    return this.errors_;
  }
  get firstError(): string | null {
    return this.firstError_;
  }
  get operations(): number {
    let count = 0;
    for (const histogram of this.all.values()) count += histogram.count;
    return count;
  }

  /** @param sinceMs how long ago the look before was */
  second(atSeconds: number, sinceMs: number): MixSecond {
    const { reads, writes } = this.recent;
    const told: MixSecond = {
      event: 'second',
      atSeconds,
      opsPerSecond: ((reads.count + writes.count) * 1000) / sinceMs,
      readP99Us: us(reads.quantileNs(0.99)),
      writeP99Us: us(writes.quantileNs(0.99)),
      errors: this.errors_,
    };
    reads.reset();
    writes.reset();
    return told;
  }

  latencies(): { reads: MixLatency; writes: MixLatency; kinds: Partial<Record<MixKind, MixLatency>> } {
    const together = (kinds: readonly MixKind[]): MixLatency => {
      const merged = new Histogram();
      for (const kind of kinds) merged.merge(this.all.get(kind)!);
      return latencyOf(merged);
    };
    const kinds: Partial<Record<MixKind, MixLatency>> = {};
    for (const [kind, histogram] of this.all) if (histogram.count > 0) kinds[kind] = latencyOf(histogram);
    return { reads: together(READS), writes: together(WRITES), kinds };
  }
}

/** With one decimal. */
const us = (ns: number): number => Math.round(ns / 100) / 10;

function latencyOf(histogram: Histogram): MixLatency {
  const { count, meanUs, p50Us, p99Us, p999Us, maxUs } = histogram.summary();
  return { count, meanUs, p50Us, p95Us: us(histogram.quantileNs(0.95)), p99Us, p999Us, maxUs };
}
