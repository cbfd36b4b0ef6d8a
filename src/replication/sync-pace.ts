/**
 * How fast a reintegration may copy: as it is told while nobody else wants the volume, less while clients do, but never
 * less than a floor, so that it always ends. Pure.
 */
import { MiB } from '../base/units.ts';

/** Bytes per second. */
export interface SyncRates {
  /** At most. */
  most: number;
  /** At most, while clients read and write. */
  busy: number;
}

export const DEFAULT_SYNC_RATES: SyncRates = { most: Infinity, busy: 24 * MiB };
/** Whatever is asked for. */
export const FLOOR_BYTES_PER_SECOND: number = 4 * MiB;
/** What was not used is saved up to so much. */
const BURST_SECONDS = 0.05;
const LEAST_BURST_BYTES: number = MiB / 4;
/** Clients are there if they asked for something within so long. */
const BUSY_MS = 100;

export class SyncPace {
  private readonly rates: SyncRates;
  private readonly now: () => number;
  /** Requests of clients so far. */
  private readonly requests: () => number;
  private seen: number;
  private changedAtMs = -Infinity;
  private atMs: number;
  private saved: number = LEAST_BURST_BYTES;

  constructor(rates: SyncRates, now: () => number, requests: () => number) {
    this.rates = rates;
    this.now = now;
    this.requests = requests;
    this.seen = requests();
    this.atMs = now();
  }

  private get rate(): number {
    const nowMs = this.now();
    const requests = this.requests();
    if (requests !== this.seen) this.changedAtMs = nowMs;
    this.seen = requests;
    const { most, busy } = this.rates;
    const rate = nowMs - this.changedAtMs < BUSY_MS ? Math.min(most, busy) : most;
    return Math.max(FLOOR_BYTES_PER_SECOND, rate);
  }

  /** Whether so many bytes may be copied now; then they count. Else: at a later tick. */
  take(bytes: number): boolean {
    const { rate } = this;
    const nowMs = this.now();
    if (rate === Infinity) {
      this.atMs = nowMs;
      return true;
    }
    const burst = Math.max(LEAST_BURST_BYTES, rate * BURST_SECONDS);
    this.saved = Math.min(burst, this.saved + ((nowMs - this.atMs) / 1000) * rate);
    this.atMs = nowMs;
    if (this.saved <= 0) return false;
    // It may go below zero, so that a run larger than what is saved gets its turn: the next one waits for it.
    this.saved -= bytes;
    return true;
  }
}
