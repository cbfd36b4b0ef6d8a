/**
 * The order between FLUSH and the WRITEs of a connection that still wait for memory: the volume does not know of those,
 * so a flush waits until they were handed over to it.
 */
export class HandOver {
  /** Request ids of the WRITEs that wait. */
  private readonly waiting: Set<number> = new Set();
  private flushes: Array<{ writes: Set<number>; run: () => void }> = [];

  wait(requestId: number): void {
    this.waiting.add(requestId);
  }

  /** The write was handed to the volume, or answered without it. */
  done(requestId: number): void {
    if (!this.waiting.delete(requestId)) return;
    this.flushes = this.flushes.filter(({ writes, run }) => {
      writes.delete(requestId);
      if (writes.size > 0) return true;
      run();
      return false;
    });
  }

  /** Runs when every write that waits now is handed over. */
  after(run: () => void): void {
    if (this.waiting.size === 0) run();
    else this.flushes.push({ writes: new Set(this.waiting), run });
  }
}
