/**
 * Counts what a closed loop completes: warm-up, the measured time, operations per second, latencies.
 *
 * Guarantees: only operations that were completed within the measured time count; the rate is over the time that
 * really passed; `over` turns true once and stays true.
 */
import { Histogram } from './histogram.ts';
import type { LoadOptions, LoadResult } from './load-options.ts';

export class Tally {
  readonly latency = new Histogram();
  private errors = 0;
  private firstError_: string | null = null;
  private readonly options: LoadOptions;
  private readonly measureFromMs: number;
  private readonly endMs: number;
  private startedMs: number;
  private lastMs: number;
  private measuring: boolean;
  private readonly cpuBefore = process.cpuUsage();
  private ops = 0;
  private readonly perSecond: number[] = [];

  /** `nowMs`: the clock of `performance.now()`, as in all calls. */
  constructor(options: LoadOptions, nowMs: number) {
    this.options = options;
    this.measureFromMs = nowMs + options.warmup * 1000;
    this.endMs = options.fill ? Infinity : this.measureFromMs + options.seconds * 1000;
    this.measuring = options.warmup === 0;
    this.startedMs = nowMs;
    this.lastMs = nowMs;
  }

  /** To be called once before the completions of one moment are counted. */
  advance(nowMs: number): void {
    if (!this.measuring && nowMs >= this.measureFromMs) {
      this.measuring = true;
      this.startedMs = nowMs;
    }
    this.lastMs = nowMs;
  }

  /** One operation that was begun at `begunMs` and is complete now. */
  completed(begunMs: number): void {
    if (!this.measuring || this.lastMs > this.endMs) return;
    this.latency.record((this.lastMs - begunMs) * 1e6);
    this.ops++;
    const second = Math.floor((this.lastMs - this.startedMs) / 1000);
    while (this.perSecond.length <= second) this.perSecond.push(0);
    this.perSecond[second]!++;
  }

  /** One operation that was answered with an error. Errors count during the warm-up, too. */
  failed(description: string): void {
    this.errors++;
    this.firstError_ ??= description;
  }

  get firstError(): string | null {
    return this.firstError_;
  }

  get over(): boolean {
    return this.lastMs >= this.endMs;
  }

  result(kind: string, spanBytes: number): LoadResult {
    const { op, readPercent, blockBytes, clients, depth, pattern, theta, unaligned, seed } = this.options;
    const seconds = Math.max(Math.min(this.lastMs, this.endMs) - this.startedMs, 0.001) / 1000;
    const cpu = process.cpuUsage(this.cpuBefore);
    return {
      kind,
      op,
      readPercent,
      blockBytes,
      clients,
      depth,
      pattern,
      theta,
      unaligned,
      spanBytes,
      seed,
      seconds,
      ops: this.ops,
      opsPerSecond: this.ops / seconds,
      mibPerSecond: (this.ops * blockBytes) / 1024 / 1024 / seconds,
      latency: this.latency.summary(),
      perSecond: this.perSecond.slice(0, Math.floor(seconds)),
      cpuSeconds: (cpu.user + cpu.system) / 1e6,
      errors: this.errors,
    };
  }
}
