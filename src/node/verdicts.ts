/**
 * One line of log for each handshake that was let in or refused.
 *
 * Guarantees: at most BURST lines at once and one a second besides, so that callers cannot fill the disk; what was left
 * out is counted, and the next line says how many.
 */
import type { Log } from './server.ts';

const BURST = 20;
const LINE_MS = 1000;

export class Verdicts {
  private readonly log: Log;
  private left = BURST;
  private filledMs = performance.now();
  private suppressed = 0;

  constructor(log: Log) {
    this.log = log;
  }

  tell(level: 'info' | 'warn', message: string, fields: object): void {
    const nowMs = performance.now();
    const lines = Math.floor((nowMs - this.filledMs) / LINE_MS);
    if (lines > 0) {
      this.left = Math.min(BURST, this.left + lines);
      this.filledMs += lines * LINE_MS;
    }
    if (this.left === 0) {
      this.suppressed++;
      return;
    }
    this.left--;
    const { suppressed } = this;
    this.suppressed = 0;
    this.log(level, message, suppressed === 0 ? fields : { ...fields, suppressed });
  }
}
