/**
 * CONFIG records on their way into the log: who is absent, who is present again. Pure.
 *
 * Guarantees: memory for as many as the group has members is kept aside, so that one can be logged while writes that wait
 * for it hold all the rest; they are logged in the order in which they were added.
 */
import type { Arena, Slot } from '../storage/arena.ts';
import { type ConfigChange, encodeConfig } from '../storage/control.ts';
import { RECORD_KINDS } from '../storage/record.ts';
import type { Position } from '../base/position.ts';
import type { PrimaryVolume } from './primary-volume.ts';

export class ConfigLog {
  private readonly arena: Arena;
  private readonly volume: PrimaryVolume;
  private readonly count: number;
  private readonly again: () => void;
  private spare: Slot[] = [];
  private queue: ConfigChange[] = [];
  private asked = false;
  private ended = false;

  /** @param again is called when memory has come back */
  constructor(arena: Arena, volume: PrimaryVolume, count: number, again: () => void) {
    this.arena = arena;
    this.volume = volume;
    this.count = count;
    this.again = again;
    this.refill();
  }

  private refill(): void {
    while (!this.ended && this.spare.length < this.count) {
      const slot = this.arena.take(1);
      if (slot === null) {
        if (this.asked) return;
        this.asked = true;
        return this.arena.whenFree(1, () => {
          this.asked = false;
          this.refill();
          if (this.queue.length > 0) this.again();
        });
      }
      this.spare.push(slot);
    }
  }

  /** Something is to be logged that is not. */
  get waiting(): boolean {
    return this.queue.length > 0;
  }

  add(change: ConfigChange): void {
    this.queue.push(change);
  }

  /** Logs what there is memory for. @returns the position of the last record, null if none was logged */
  log(): Position | null {
    let at: Position | null = null;
    while (this.queue.length > 0) {
      const slot = this.spare.pop() ?? this.arena.take(1);
      if (slot === null) break;
      encodeConfig(this.queue.shift()!, slot.payload);
      at = this.volume.log(RECORD_KINDS.CONFIG, 0, 1, slot, () => {});
    }
    this.refill();
    return at;
  }

  end(): void {
    this.ended = true;
    this.queue = [];
    for (const slot of this.spare.splice(0)) this.arena.release(slot);
  }
}
