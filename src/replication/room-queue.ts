/** Mutations that wait for room in the journal, in order. Pure. */

/** Does what it waits for, if it can now. @returns whether it has, or wants to no longer */
export type Attempt = () => boolean;

export class RoomQueue {
  private waiting: Attempt[] = [];
  /** Attempts that need room have none as long as this is set: for a backup's last pass. They look at it themselves. */
  private heldBack = false;

  get isHeld(): boolean {
    return this.heldBack;
  }

  hold(): void {
    this.heldBack = true;
  }

  release(): void {
    this.heldBack = false;
    this.again();
  }

  get isEmpty(): boolean {
    return this.waiting.length === 0;
  }

  /** Runs now if nobody waits and there is room, else in turn. @returns whether it ran */
  run(attempt: Attempt): boolean {
    if (this.isEmpty && attempt()) return true;
    this.waiting.push(attempt);
    return false;
  }

  /** There may be room again. */
  again(): void {
    let served = 0;
    while (served < this.waiting.length && this.waiting[served]!()) served++;
    this.waiting.splice(0, served);
  }
}
