/** What the generator of PUTs and GETs is asked for, and what it answers. */
import type { LatencySummary } from '../load/histogram.ts';

export interface KvLoad {
  op: 'put' | 'get';
  clients: number;
  reads: 'primary' | 'any';
  /** As many as there are keys. */
  keys: number;
  valueBytes: number;
  /** Each key once, shared out round robin; or random ones for so many seconds. */
  seconds: number | null;
  /** So many operations of all clients together, instead of one of each key. */
  count?: number;
  /** The event `at` is told when so many operations are answered. */
  tellAt?: number;
  /** Give the curve of the latencies. */
  curve?: boolean;
  seed: number;
}

export interface KvResult {
  wallMs: number;
  operations: number;
  opsPerSecond: number;
  /** Operations that were rejected, and GETs that did not answer what was put. */
  failures: number;
  firstFailure: string | null;
  latency: LatencySummary;
  /** Of the generator, in percent of one core. */
  generatorCpuPercent: number;
  /** Share of operations by the milliseconds within which they were answered. */
  curve: Array<[milliseconds: number, share: number]>;
}

/** 20 bytes. */
export const keyOf = (index: number): string => `key-${String(index).padStart(16, '0')}`;
