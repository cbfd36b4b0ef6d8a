/**
 * The replicated log under a key-value volume: batches become writes of whole blocks of the volume that this node is
 * primary of.
 *
 * Guarantees: they get their places in the log in the order of the calls, also while one of them waits for memory.
 */
import { BLOCK_BYTES } from '../base/units.ts';
import type { Encode, KvLog, LogDone } from '../kv/log.ts';
import { ALL_KV_RULES, type KvRules } from '../kv/rules.ts';
import type { PrimaryVolume } from '../replication/primary-volume.ts';
import type { Arena, Slot } from '../storage/arena.ts';

interface Waiting {
  first: number;
  lengthBytes: number;
  encode: Encode;
  done: LogDone;
}

/** What it needs of the machine. */
export interface KvClock {
  /** Wall clock, ms since 1970. */
  wallMs(): number;
  /** Calls at the end of this turn. */
  soon(run: () => void): void;
}

export class VolumeKvLog implements KvLog {
  private readonly volume: PrimaryVolume;
  private readonly arena: Arena;
  private readonly clock: KvClock;
  private readonly rules: KvRules;
  /** In order. */
  private readonly waiting: Waiting[] = [];
  private asked = false;

  constructor(volume: PrimaryVolume, arena: Arena, clock: KvClock, rules: KvRules = ALL_KV_RULES) {
    this.volume = volume;
    this.arena = arena;
    this.clock = clock;
    this.rules = rules;
  }

  get blocks(): number {
    return Math.floor(this.volume.info().sizeBytes / BLOCK_BYTES);
  }

  write(first: number, lengthBytes: number, encode: Encode, done: LogDone): void {
    this.waiting.push({ first, lengthBytes, encode, done });
    if (!this.asked || !this.rules.keepOrder) this.pump();
  }

  private pump(): void {
    for (;;) {
      if (this.waiting.length === 0) return;
      let at = 0;
      let slot = this.slotFor(at);
      // Whoever is small enough overtakes.
      while (slot === null && !this.rules.keepOrder && ++at < this.waiting.length) slot = this.slotFor(at);
      if (slot === null) {
        if (this.asked) return;
        this.asked = true;
        return this.arena.whenFree(this.blocksOf(0), () => {
          this.asked = false;
          this.pump();
        });
      }
      const [{ first, lengthBytes, encode, done }] = this.waiting.splice(at, 1) as [Waiting];
      const blocks = Math.ceil(lengthBytes / BLOCK_BYTES);
      const { buffer, byteOffset } = slot.payload;
      // Where it is to lie: no memory in between that the garbage collector would have to give back.
      encode(Buffer.from(buffer, byteOffset, lengthBytes));
      slot.payload.fill(0, lengthBytes, blocks * BLOCK_BYTES);
      this.volume.write(null, 0, first * BLOCK_BYTES, blocks * BLOCK_BYTES, slot, false, done);
    }
  }

  private blocksOf(at: number): number {
    return Math.ceil(this.waiting[at]!.lengthBytes / BLOCK_BYTES);
  }

  private slotFor(at: number): Slot | null {
    return this.arena.take(this.blocksOf(at));
  }

  zero(first: number, count: number, done: LogDone): void {
    this.volume.trim(null, 0, first * BLOCK_BYTES, count * BLOCK_BYTES, done);
  }

  rightToRead(done: LogDone): void {
    this.volume.whenReadable(done);
  }

  now(): number {
    return this.clock.wallMs();
  }

  soon(run: () => void): void {
    this.clock.soon(run);
  }
}
