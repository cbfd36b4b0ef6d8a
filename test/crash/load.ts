/**
 * Clients that write, and know what must be there: a shadow copy of each lane, compared at each read. Writes are whole
 * blocks, 100 bytes at odd offsets, and ranges across the boundary of two blocks, in turn.
 *
 * A second kind of writer repeats nothing: what it was not answered is old or new, as a whole, and stays so.
 */
import * as assert from 'uvu/assert';
import { type Volume, connect } from '../../src/client/index.ts';
import { Random } from '../support/random.ts';

const BLOCK = 4096;
const LANES = 4;
const LANE_BYTES = 256 * 1024;
/** Blocks behind the lanes, for writers that repeat nothing. */
const SHOT_BASE = LANES * LANE_BYTES;
const SHOT_BYTES = 3 * BLOCK;
const SHOTS = 16;
const SCATTERED_BASE = 10 * 1024 * 1024;
const SCATTERED_BYTES = 5 * 1024 * 1024;
const SCATTERED_AT_ONCE = 96;
const PATIENCE_MS = 60_000;
/** Between two operations of a lane while nobody waits for more of them: the nodes need the processor for their faults. */
const UNHURRIED_MS = 6;

export function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** Where a write goes, by turns: aligned, 100 bytes at an odd offset, over a boundary. */
function rangeOf(turn: number, random: Random, space: number): { at: number; length: number } {
  const blocks = space / BLOCK;
  if (turn % 3 === 0) {
    const count = 1 + random.below(Math.min(4, blocks - 1));
    return { at: random.below(blocks - count) * BLOCK, length: count * BLOCK };
  }
  if (turn % 3 === 1) return { at: 1 + 2 * random.below((space - 102) / 2), length: 100 };
  const boundary = (1 + random.below(blocks - 2)) * BLOCK;
  const before = 1 + random.below(BLOCK - 1);
  return { at: boundary - before, length: before + 1 + random.below(BLOCK - 1) };
}

export class Load {
  operations = 0;
  /** The longest that one write has waited, since it was set to 0. */
  longestWaitMs = 0;
  private stopped = false;
  private readonly volume: Volume;
  private readonly shadows: Uint8Array[] = Array.from({ length: LANES }, () => new Uint8Array(LANE_BYTES));
  private readonly writing: Map<number, number> = new Map();
  /** What each lane is doing, and how many wait for all of them to do nothing. */
  private readonly turns: Promise<void>[] = [];
  private checks = 0;
  /** How many wait for more operations. */
  private hurried = 0;
  private readonly lanes: Promise<unknown>;
  private spoilt = false;

  constructor(volume: Volume) {
    this.volume = volume;
    this.lanes = Promise.all(this.shadows.map((shadow, lane) => this.run(shadow, lane)));
    this.lanes.catch(() => {});
  }

  /** From now on a copy is wrong: the test must notice. */
  spoil(): void {
    this.spoilt = true;
  }

  private async run(shadow: Uint8Array, lane: number): Promise<void> {
    const random = new Random(lane + 1);
    for (let turn = 0; !this.stopped; turn++) {
      if (this.hurried === 0) await pause(UNHURRIED_MS);
      while (this.checks > 0) await pause(1);
      this.turns[lane] = this.turn(turn, shadow, lane, random);
      await this.turns[lane];
      this.operations++;
    }
  }

  private async turn(turn: number, shadow: Uint8Array, lane: number, random: Random): Promise<void> {
    const base = lane * LANE_BYTES;
    const { at, length } = rangeOf(turn, random, LANE_BYTES);
    if (random.chance(0.7)) {
      const bytes = random.bytes(length);
      this.writing.set(lane, performance.now());
      await this.volume.write(base + at, bytes);
      this.waited(lane);
      shadow.set(bytes, at);
      if (this.spoilt) shadow[at]! ^= 1;
    } else {
      const bytes = await this.volume.read(base + at, length);
      assert.is(Buffer.compare(bytes, shadow.subarray(at, at + length)), 0, `lane ${lane}: ${length} bytes at ${at}`);
    }
  }

  private waited(lane: number): void {
    this.longestWaitMs = Math.max(this.longestWaitMs, performance.now() - this.writing.get(lane)!);
    this.writing.delete(lane);
  }

  /** Waits until so many more operations are answered. @throws what a client met, or that nothing was answered */
  async more(count: number): Promise<void> {
    const goal = this.operations + count;
    const endMs = performance.now() + PATIENCE_MS;
    this.hurried++;
    try {
      while (this.operations < goal) {
        await Promise.race([this.lanes, pause(5)]);
        if (performance.now() > endMs)
          throw new Error(`clients hang: ${goal - this.operations} of ${count} are missing`);
      }
    } finally {
      this.hurried--;
    }
  }

  /** Between two operations of each lane: a read beside a write may be of before it or of after it. */
  async check(): Promise<void> {
    this.checks++;
    try {
      await Promise.all(this.turns);
      for (const [lane, shadow] of this.shadows.entries()) {
        const bytes = await this.volume.read(lane * LANE_BYTES, LANE_BYTES);
        assert.is(Buffer.compare(bytes, shadow), 0, `lane ${lane} as a whole`);
      }
    } finally {
      this.checks--;
    }
  }

  async end(): Promise<void> {
    this.stopped = true;
    await this.lanes;
    await this.check();
  }
}

/** Writers that give up when their connection is lost, each with three blocks of its own. */
export class Shots {
  /** Writes whose outcome was not told, and what became of them. */
  readonly outcomes = { old: 0, new: 0 };
  private readonly url: string;
  private readonly shadows: Uint8Array[] = Array.from({ length: SHOTS }, () => new Uint8Array(SHOT_BYTES));
  private readonly pending: Map<number, Uint8Array> = new Map();
  private readonly random = new Random(77);
  private next = 0;
  private stopping = false;
  private round: Promise<void> = Promise.resolve();

  constructor(url: string) {
    this.url = url;
  }

  begin(): void {
    this.stopping = false;
    this.round = this.shoot();
  }

  private async shoot(): Promise<void> {
    const volume = await connect(this.url, { retryMs: 0, connectMs: 30_000 });
    try {
      while (!this.stopping) {
        const shot = this.next++ % SHOTS;
        if (this.pending.has(shot)) continue;
        const { at, length } = rangeOf(this.next, this.random, SHOT_BYTES + BLOCK);
        const [from, to] = [Math.min(at, SHOT_BYTES - 1), Math.min(at + length, SHOT_BYTES)];
        await this.write(volume, shot, from, this.random.bytes(to - from));
      }
    } catch {
      // Given up, as it was told to.
    } finally {
      await volume.close();
    }
  }

  private async write(volume: Volume, shot: number, at: number, bytes: Uint8Array): Promise<void> {
    const shadow = this.shadows[shot]!;
    const wanted = new Uint8Array(shadow);
    wanted.set(bytes, at);
    this.pending.set(shot, wanted);
    await volume.write(SHOT_BASE + shot * SHOT_BYTES + at, bytes);
    shadow.set(wanted);
    this.pending.delete(shot);
  }

  /** Bytes of a shot's place that somebody else writes, perhaps without an answer. @returns where they go */
  borrow(shot: number, at: number, bytes: Uint8Array): number {
    const wanted = new Uint8Array(this.shadows[shot]!);
    wanted.set(bytes, at);
    this.pending.set(shot, wanted);
    return SHOT_BASE + shot * SHOT_BYTES + at;
  }

  /** Nobody shoots any more. Each unanswered write is old or new, and that is what it is from now on. */
  async settle(volume: Volume): Promise<void> {
    this.stopping = true;
    await this.round;
    for (const [shot, shadow] of this.shadows.entries()) {
      const bytes = await volume.read(SHOT_BASE + shot * SHOT_BYTES, SHOT_BYTES);
      const wanted = this.pending.get(shot);
      this.pending.delete(shot);
      if (Buffer.compare(bytes, shadow) === 0) {
        if (wanted !== undefined) this.outcomes.old++;
        continue;
      }
      assert.ok(wanted !== undefined, `shot ${shot} has changed by itself`);
      assert.is(Buffer.compare(bytes, wanted), 0, `shot ${shot} is neither old nor new as a whole`);
      this.outcomes.new++;
      shadow.set(wanted);
    }
  }
}

/** Blocks that are written while a node is away, and then left alone: what is not brought in stays missing. */
export class Scattered {
  private readonly random = new Random(4096);
  private readonly shadow: Uint8Array = new Uint8Array(SCATTERED_BYTES);
  private next = 0;

  /** Every other block of the next stretch, all at once. */
  async write(volume: Volume): Promise<void> {
    const writes = Array.from({ length: SCATTERED_AT_ONCE }, () => {
      const at = this.next;
      this.next = (at + 2 * BLOCK) % SCATTERED_BYTES;
      const bytes = this.random.bytes(BLOCK);
      return volume.write(SCATTERED_BASE + at, bytes).then(() => this.shadow.set(bytes, at));
    });
    await Promise.all(writes);
  }

  async check(volume: Volume): Promise<void> {
    const bytes = await volume.read(SCATTERED_BASE, SCATTERED_BYTES);
    assert.is(Buffer.compare(bytes, this.shadow), 0, 'a block that was written while a node was away');
  }
}
