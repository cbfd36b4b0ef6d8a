/**
 * What one writer and many readers of a register may be told: registers with version numbers that only grow. Pure.
 *
 * A read may be answered with anything from what was acknowledged, or read by anybody, before it was asked, to what was
 * asked for last before it was answered. Anything else is stale, lost, or made up.
 */
export class Versions {
  /** Answered reads and writes. */
  answered = 0;
  private readonly begun: Float64Array;
  private readonly known: Float64Array;

  constructor(count: number) {
    this.begun = new Float64Array(count);
    this.known = new Float64Array(count);
  }

  get count(): number {
    return this.begun.length;
  }

  /** Whether something of it was acknowledged or read. */
  isKnown(register: number): boolean {
    return this.known[register]! > 0;
  }

  /** The next version of a register; its only writer calls `wrote` with it before it begins another. */
  next(register: number): number {
    return ++this.begun[register]!;
  }

  wrote(register: number, version: number): void {
    this.answered++;
    this.known[register] = Math.max(this.known[register]!, version);
  }

  /** @returns a function to be called with what was read. It returns what is wrong about it, or null */
  reads(register: number): (version: number) => string | null {
    const least = this.known[register]!;
    return (version) => {
      this.answered++;
      const most = this.begun[register]!;
      if (!(version >= least && version <= most))
        return `register ${register}: version ${version} was read, ${least} was known before, ${most} is the newest`;
      this.known[register] = Math.max(this.known[register]!, version);
      return null;
    };
  }
}
