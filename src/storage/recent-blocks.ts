/**
 * Which blocks of a file were read or written within the last half minute or so: the kernel has them in its page cache
 * still, as good as certainly. Pure.
 *
 * Guarantees: memory is fixed (2 MiB at most). An answer is a guess: above 32 GiB blocks share their bits.
 */
const MAX_BITS = 2 ** 23;
/** Two windows: a block is recent for at least one of them. */
const WINDOW_MS = 20_000;

export class RecentBlocks {
  private readonly bits: number;
  private now: Uint32Array;
  private before: Uint32Array;
  private turnAtMs: number;

  constructor(blocks: number, nowMs: number) {
    this.bits = Math.min(blocks, MAX_BITS);
    this.now = new Uint32Array(Math.ceil(this.bits / 32));
    this.before = new Uint32Array(this.now.length);
    this.turnAtMs = nowMs + WINDOW_MS;
  }

  /** The blocks were read or written just now. */
  touch(first: number, count: number): void {
    for (let block = first; block < first + count; block++) {
      const bit = block % this.bits;
      this.now[bit >>> 5]! |= 1 << (bit & 31);
    }
  }

  has(first: number, count: number, nowMs: number): boolean {
    if (nowMs >= this.turnAtMs) this.turn(nowMs);
    for (let block = first; block < first + count; block++) {
      const bit = block % this.bits;
      if ((((this.now[bit >>> 5]! | this.before[bit >>> 5]!) >>> (bit & 31)) & 1) === 0) return false;
    }
    return true;
  }

  private turn(nowMs: number): void {
    [this.before, this.now] = [this.now, this.before.fill(0)];
    // After a long silence what is left is old too.
    if (nowMs >= this.turnAtMs + WINDOW_MS) this.before.fill(0);
    this.turnAtMs = nowMs + WINDOW_MS;
  }
}
