/**
 * A submission and a completion ring in shared memory between the main thread and long-lived workers.
 *
 * Guarantees: an entry is claimed by exactly one worker (compare-exchange on the head); a completion is never lost:
 * whoever goes to sleep looks at the ring once more after saying so; capacity is fixed, a full ring queues on the main
 * thread in order. A task per request was measured ten times slower than this.
 */
import assert from 'node:assert/strict';

export const OPS = { STOP: 0, READ: 1, READ_VERIFIED: 2, WRITE: 3, SYNC: 4, ZERO: 5, PUNCH: 6 } as const;

/** Words of an entry. Positions and lengths that may pass 4 GiB are float64 pairs. */
export const ENTRY_WORDS = 16;
export const WORD = {
  OP: 0,
  FD: 1,
  /** Iovecs of a write, and how many of them go to the first position. */
  IOVECS: 2,
  SPLIT: 3,
  /** float64 at words 4-5, 6-7, 8-9. */
  POSITION: 4,
  SECOND_POSITION: 6,
  LENGTH: 8,
  /** Offset in the arena of the buffer, and of the checksum words (READ_VERIFIED). */
  BUFFER: 10,
  CRCS: 11,
  SEED: 12,
  /** 1: fdatasync after the write. */
  SYNC: 13,
  /** Out: 0 or an errno; a value (CRC, or the first bad block's index). */
  ERRNO: 14,
  VALUE: 15,
} as const;

/** A block did not match its checksum: an errno that no system call returns. */
export const ERRNO_CORRUPT = 100_000;
/** The file ended before the transfer did. */
export const ERRNO_SHORT = 100_001;

/** Control words, each on a cache line of its own (16 words). */
export const CONTROL = { HEAD: 0, TAIL: 16, WAKE: 32, SLEEPERS: 48, COMPLETED: 64, MAIN_SLEEPS: 80 } as const;
const CONTROL_WORDS = 96;

/** Words (float64) of what a worker says of itself. */
export const BUSY = { OPERATIONS: 0, MS: 1, WORDS: 2 } as const;

/** What a worker needs to see the same ring. */
export interface RingMemory {
  control: SharedArrayBuffer;
  entries: SharedArrayBuffer;
  submissions: SharedArrayBuffer;
  completions: SharedArrayBuffer;
  iovecs: SharedArrayBuffer;
  iovecsPerEntry: number;
  capacity: number;
}

export function makeRingMemory(capacity: number, iovecsPerEntry: number): RingMemory {
  assert((capacity & (capacity - 1)) === 0, 'the capacity is a power of two');
  return {
    control: new SharedArrayBuffer(CONTROL_WORDS * 4),
    entries: new SharedArrayBuffer(capacity * ENTRY_WORDS * 4),
    submissions: new SharedArrayBuffer(capacity * 4),
    completions: new SharedArrayBuffer(capacity * 4),
    iovecs: new SharedArrayBuffer(capacity * iovecsPerEntry * 8),
    iovecsPerEntry,
    capacity,
  };
}

/** Both sides' view of a ring. */
export class RingViews {
  readonly control: Int32Array;
  readonly words: Int32Array;
  readonly unsigned: Uint32Array;
  readonly floats: Float64Array;
  readonly submissions: Int32Array;
  readonly completions: Int32Array;
  /** Pairs (offset in the arena, length). */
  readonly iovecs: Uint32Array;
  readonly iovecsPerEntry: number;
  readonly mask: number;

  constructor(memory: RingMemory) {
    this.control = new Int32Array(memory.control);
    this.words = new Int32Array(memory.entries);
    this.unsigned = new Uint32Array(memory.entries);
    this.floats = new Float64Array(memory.entries);
    this.submissions = new Int32Array(memory.submissions);
    this.completions = new Int32Array(memory.completions);
    this.iovecs = new Uint32Array(memory.iovecs);
    this.iovecsPerEntry = memory.iovecsPerEntry;
    this.mask = memory.capacity - 1;
  }
}

export type Completion = (errno: number, value: number) => void;
/** Fills an entry: gets the views, the index of the entry's first word and of its first iovec. */
export type Fill = (views: RingViews, word: number, iovec: number) => void;

/** The main thread's side. */
export class IoRing {
  readonly memory: RingMemory;
  readonly views: RingViews;
  private readonly capacity: number;
  private readonly free: Int32Array;
  private freeCount: number;
  private readonly callbacks: Array<Completion | null>;
  private waiting: Array<{ fill: Fill; done: Completion }> = [];
  private submitted = 0;
  private consumed = 0;
  private unannounced = 0;

  constructor(capacity: number, iovecsPerEntry: number) {
    this.memory = makeRingMemory(capacity, iovecsPerEntry);
    this.views = new RingViews(this.memory);
    this.capacity = capacity;
    this.free = Int32Array.from({ length: capacity }, (_, i) => capacity - 1 - i);
    this.freeCount = capacity;
    this.callbacks = Array.from({ length: capacity }, () => null);
    Atomics.store(this.views.control, CONTROL.MAIN_SLEEPS, 1);
  }

  /** Operations that were submitted and not completed, those that wait for an entry included. */
  get inFlight(): number {
    return this.capacity - this.freeCount + this.waiting.length;
  }

  /** Of these, what no worker has taken yet. */
  get queued(): number {
    const { control } = this.views;
    const taken = Atomics.load(control, CONTROL.HEAD);
    return ((Atomics.load(control, CONTROL.TAIL) - taken) | 0) + this.unannounced + this.waiting.length;
  }

  /** Puts an operation into the ring; `announce` makes it visible to the workers. */
  submit(fill: Fill, done: Completion): void {
    if (this.freeCount === 0) {
      // Bounded by the arena: each operation of the hot path holds a slot.
      this.waiting.push({ fill, done });
      return;
    }
    const id = this.free[--this.freeCount]!;
    fill(this.views, id * ENTRY_WORDS, id * this.views.iovecsPerEntry * 2);
    this.callbacks[id] = done;
    this.views.submissions[this.submitted & this.views.mask] = id;
    this.submitted = (this.submitted + 1) | 0;
    this.unannounced++;
  }

  /** Hands everything submitted to the workers and wakes as many as there is work for. */
  announce(): void {
    if (this.unannounced === 0) return;
    const { control } = this.views;
    Atomics.store(control, CONTROL.TAIL, this.submitted);
    if (Atomics.load(control, CONTROL.SLEEPERS) > 0) {
      Atomics.add(control, CONTROL.WAKE, 1);
      Atomics.notify(control, CONTROL.WAKE, this.unannounced);
    }
    this.unannounced = 0;
  }

  /** Runs the callbacks of everything that is complete, and asks for a message about what comes later. @returns how many */
  drain(): number {
    let count = 0;
    for (;;) {
      count += this.look();
      Atomics.store(this.views.control, CONTROL.MAIN_SLEEPS, 1);
      // A worker that completed between the last look and the store saw "awake" and posted nothing: look again.
      if (Atomics.load(this.views.completions, this.consumed & this.views.mask) === 0) return count;
    }
  }

  /** As `drain`, but whoever calls it looks again by itself: no worker posts a message until then. */
  look(): number {
    const { completions, words, unsigned, mask, control } = this.views;
    let count = 0;
    Atomics.store(control, CONTROL.MAIN_SLEEPS, 0);
    for (;;) {
      const at = this.consumed & mask;
      const mark = Atomics.load(completions, at);
      if (mark === 0) return count;
      Atomics.store(completions, at, 0);
      this.consumed = (this.consumed + 1) | 0;
      const id = mark - 1;
      const done = this.callbacks[id]!;
      this.callbacks[id] = null;
      const word = id * ENTRY_WORDS;
      const errno = words[word + WORD.ERRNO]!;
      const value = unsigned[word + WORD.VALUE]!;
      this.free[this.freeCount++] = id;
      const next = this.waiting.length > 0 ? this.waiting.shift() : undefined;
      if (next !== undefined) this.submit(next.fill, next.done);
      count++;
      done(errno, value);
    }
  }
}
