/**
 * How long the event loop stays awake after I/O, by how much its thread has to wait for a core. Pure.
 *
 * Guarantees: the long time where there is a core to spare, the short one within a window where there is not; the long one
 * is tried again later and later, so that the trials cost little.
 */

/** Looked at so often. */
export const WINDOW_MS = 100;
/** Share of the time that the thread was ready to run and had no core. Measured: 2 to 11 % with a core to spare. */
const CROWDED = 0.15;
const ROOMY = 0.12;
const FIRST_TRIAL_MS = 1000;
const LAST_TRIAL_MS = 64_000;

export class AwakeTime {
  /** In force. */
  ms: number;
  private readonly longMs: number;
  private readonly shortMs: number;
  private last: { atMs: number; waitedMs: number } | null = null;
  private trialMs = FIRST_TRIAL_MS;
  /** Since when there has been room. */
  private roomyMs: number | null = null;
  /** When the long time came into force. */
  private longSinceMs = -Infinity;

  constructor(longMs: number, shortMs: number) {
    this.longMs = longMs;
    this.shortMs = Math.min(longMs, shortMs);
    this.ms = longMs;
  }

  /** Whether it is time to look. */
  isDue(nowMs: number): boolean {
    return this.last === null || nowMs - this.last.atMs >= WINDOW_MS;
  }

  /** @param waitedMs how long the thread has been ready and had no core, since it began */
  look(nowMs: number, waitedMs: number): void {
    const { last } = this;
    this.last = { atMs: nowMs, waitedMs };
    // It slept meanwhile: that says nothing.
    if (last === null || nowMs - last.atMs > 3 * WINDOW_MS) return;
    const share = (waitedMs - last.waitedMs) / (nowMs - last.atMs);
    if (this.ms === this.longMs) {
      if (share < CROWDED) {
        if (nowMs - this.longSinceMs > LAST_TRIAL_MS) this.trialMs = FIRST_TRIAL_MS;
        return;
      }
      this.ms = this.shortMs;
      this.roomyMs = null;
      return;
    }
    if (share > ROOMY) this.roomyMs = null;
    else this.roomyMs ??= nowMs;
    if (this.roomyMs === null || nowMs - this.roomyMs < this.trialMs) return;
    this.trialMs = Math.min(LAST_TRIAL_MS, 2 * this.trialMs);
    this.ms = this.longMs;
    this.longSinceMs = nowMs;
  }
}
