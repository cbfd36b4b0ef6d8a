/**
 * The replicated log under a key-value volume: batches become writes of whole blocks of the volume that this node is
 * primary of.
 *
 * Guarantees: they get their places in the log in the order of the calls, also while one of them waits for memory.
 */
import { BLOCK_BYTES } from '../base/units.ts';
import type { KvLog, LogDone } from '../kv/primary-kv.ts';
import type { PrimaryVolume } from '../replication/primary-volume.ts';
import type { Arena } from '../storage/arena.ts';

interface Waiting {
  first: number;
  batch: Buffer;
  done: LogDone;
}

export class VolumeKvLog implements KvLog {
  private readonly volume: PrimaryVolume;
  private readonly arena: Arena;
  /** In order. */
  private readonly waiting: Waiting[] = [];
  private asked = false;

  constructor(volume: PrimaryVolume, arena: Arena) {
    this.volume = volume;
    this.arena = arena;
  }

  write(first: number, batch: Buffer, done: LogDone): void {
    this.waiting.push({ first, batch, done });
    if (!this.asked) this.pump();
  }

  private pump(): void {
    for (;;) {
      const next = this.waiting[0];
      if (next === undefined) return;
      const blocks = Math.ceil(next.batch.length / BLOCK_BYTES);
      const slot = this.arena.take(blocks);
      if (slot === null) {
        this.asked = true;
        return this.arena.whenFree(blocks, () => {
          this.asked = false;
          this.pump();
        });
      }
      this.waiting.shift();
      const { first, batch, done } = next;
      slot.payload.set(batch);
      slot.payload.fill(0, batch.length, blocks * BLOCK_BYTES);
      this.volume.write(null, 0, first * BLOCK_BYTES, blocks * BLOCK_BYTES, slot, false, done);
    }
  }

  zero(first: number, count: number, done: LogDone): void {
    this.volume.trim(null, 0, first * BLOCK_BYTES, count * BLOCK_BYTES, done);
  }

  rightToRead(done: LogDone): void {
    this.volume.whenReadable(done);
  }

  now(): number {
    return Date.now();
  }

  soon(run: () => void): void {
    setImmediate(run);
  }
}
