/**
 * A monotonic clock that notices when it stood still. While a machine is suspended (or a virtual one is frozen) the
 * monotonic clock does not run, but what others promised to this node runs out. The wall clock runs on, or is set right
 * at the end of it: where the two drift apart by a jump, rights are void.
 *
 * Guarantees: `slept` is called before a reading is given that follows such a jump. A wall clock that somebody sets
 * costs a moment's rights and nothing else.
 */

/** Slewing clocks drift by 0.05 %, this is looked at several times a second. */
const JUMP_MS = 100;

export class LivingClock {
  private readonly slept: () => void;
  private apartMs: number;

  constructor(slept: () => void) {
    this.slept = slept;
    this.apartMs = Date.now() - performance.now();
  }

  /** Milliseconds. */
  now(): number {
    const nowMs = performance.now();
    const apartMs = Date.now() - nowMs;
    const jumped = Math.abs(apartMs - this.apartMs) > JUMP_MS;
    this.apartMs = apartMs;
    if (jumped) this.slept();
    return nowMs;
  }
}
