/**
 * What a node did since it was last asked, by volume: rates, and quantiles of times.
 *
 * Guarantees: what is counted belongs to the time between two calls, and nothing is counted twice; a volume that came
 * meanwhile begins at its beginning.
 */
import { type IntervalHistogram, monitorEventLoopDelay } from 'node:perf_hooks';
import { Buckets } from '../base/buckets.ts';
import type { HostedVolume } from '../node/hosted-volume.ts';

interface Timed {
  perSecond: number;
  p50Us: number | null;
  p99Us: number | null;
}
export interface VolumeRates {
  volume: string;
  volumeId: string;
  kind: string;
  role: string;
  reads: Timed & { bytesPerSecond: number };
  writes: Timed & { bytesPerSecond: number };
  fsync: Timed;
  journalBytes: number;
  journalUsedBytes: number;
  inFlight: number;
}
export interface Rates {
  atMs: number;
  node: string;
  volumes: VolumeRates[];
  eventLoopDelayP99Us: number;
  rssBytes: number;
}

interface Before {
  reads: Buckets;
  writes: Buckets;
  syncs: Buckets;
  readBytes: number;
  writtenBytes: number;
}

const RESOLUTION_MS = 10;
const SHARES = [0.5, 0.99];

/** Of the node, that of which it tells. */
export interface Counted {
  readonly node: string;
  readonly hosted: ReadonlyMap<string, HostedVolume>;
}

export class RateSampler {
  private readonly node: Counted;
  private before: Map<string, Before> = new Map();
  private sinceMs = performance.now();
  private readonly delay: IntervalHistogram = monitorEventLoopDelay({ resolution: RESOLUTION_MS });

  constructor(node: Counted) {
    this.node = node;
    this.delay.enable();
    this.take();
  }

  /** What was done since the last call. */
  take(): Rates {
    const nowMs = performance.now();
    const seconds = Math.max(0.001, (nowMs - this.sinceMs) / 1000);
    this.sinceMs = nowMs;
    const before = this.before;
    this.before = new Map();
    const volumes = [...this.node.hosted.values()].map((hosted) => {
      const known = before.get(hosted.volumeId) ?? nothing();
      this.before.set(hosted.volumeId, known);
      return ratesOf(hosted, known, seconds);
    });
    // What it measures is the time between two of its own ticks.
    const lateNs = Math.max(0, this.delay.percentile(99) - RESOLUTION_MS * 1e6);
    const eventLoopDelayP99Us = Number.isFinite(lateNs) ? Math.round(lateNs / 1000) : 0;
    this.delay.reset();
    const rssBytes = process.memoryUsage.rss();
    return { atMs: Date.now(), node: this.node.node, volumes, eventLoopDelayP99Us, rssBytes };
  }

  close(): void {
    this.delay.disable();
  }
}

function nothing(): Before {
  return { reads: new Buckets(), writes: new Buckets(), syncs: new Buckets(), readBytes: 0, writtenBytes: 0 };
}

const round = (value: number): number => Math.round(value * 10) / 10;

function timed(now: Buckets, before: Buckets, seconds: number): Timed {
  const perSecond = round((now.count - before.count) / seconds);
  const [p50Us = null, p99Us = null] = now.since(before, SHARES) ?? [];
  return { perSecond, p50Us, p99Us };
}

function ratesOf(hosted: HostedVolume, before: Before, seconds: number): VolumeRates {
  const { read, write } = hosted.meter.operations;
  const bytesPerSecond = (now: number, then: number): number => Math.round((now - then) / seconds);
  const counters = hosted.store.counters();
  const rates = {
    volume: hosted.name,
    volumeId: hosted.volumeId,
    kind: hosted.store.kind,
    role: hosted.role,
    reads: {
      ...timed(read.latency, before.reads, seconds),
      bytesPerSecond: bytesPerSecond(read.bytes, before.readBytes),
    },
    writes: {
      ...timed(write.latency, before.writes, seconds),
      bytesPerSecond: bytesPerSecond(write.bytes, before.writtenBytes),
    },
    fsync: timed(hosted.disk.journalSyncs, before.syncs, seconds),
    journalBytes: counters['journalSizeBytes']!,
    journalUsedBytes: counters['journalUsedBytes']!,
    inFlight: hosted.meter.inFlight,
  };
  before.readBytes = read.bytes;
  before.writtenBytes = write.bytes;
  return rates;
}
