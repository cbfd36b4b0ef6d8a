/**
 * One look at the cluster for all who ask at about the same time: it connects to every node.
 *
 * Guarantees: at most one look is under way, and none begins within `leastMs` of the one before; everyone gets the newest.
 */
import { asHoldfastError } from '../base/errors.ts';

/** Milliseconds of the wall clock, with what was seen, or why nothing was. */
export type Look = { atMs: number; view: object } | { atMs: number; error: string };

export class SharedLook {
  private readonly look: () => Promise<object>;
  private readonly leastMs: number;
  private beganMs = -Infinity;
  private newest: Promise<Look> | null = null;
  private underWay = false;

  constructor(look: () => Promise<object>, leastMs: number) {
    this.look = look;
    this.leastMs = leastMs;
  }

  /** Never rejects. */
  get(): Promise<Look> {
    const nowMs = performance.now();
    if (this.newest !== null && (this.underWay || nowMs - this.beganMs < this.leastMs)) return this.newest;
    this.beganMs = nowMs;
    this.underWay = true;
    this.newest = this.look()
      .then(
        (view): Look => ({ atMs: Date.now(), view }),
        (error: unknown): Look => ({ atMs: Date.now(), error: asHoldfastError(error).message }),
      )
      .finally(() => (this.underWay = false));
    return this.newest;
  }
}
