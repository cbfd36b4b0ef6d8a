/**
 * The source's side of one reintegration: the dirty bitmap drives it. Pure.
 *
 * Bulk passes copy runs of dirty blocks while clients go on writing; a barrier follows when few are left: from then on
 * the target gets every record, and each block that is still dirty is visited once more.
 *
 * Guarantees: only committed content is copied; a bit is cleared by the target's durable acknowledgment of the copy, or
 * of a record that covers the block, and only if the block was not written since; the finish comes when no bit is set,
 * no copy is under way, and everything before the barrier is committed.
 */
import { ORIGIN, type Position, comparePositions } from '../base/position.ts';
import { BLOCK_BYTES, MAX_IO_BLOCKS } from '../base/units.ts';
import type { Arena, Slot } from '../storage/arena.ts';
import type { BlockStore } from '../storage/block-store.ts';
import type { DirtyBitmap } from '../storage/dirty-bitmap.ts';
import { isControl } from '../storage/record.ts';
import type { CrashPoint } from './crash-points.ts';
import type { PeerLink, Runs } from './peer-messages.ts';
import type { PrimaryVolume } from './primary-volume.ts';
import type { Rules } from './rules.ts';
import type { LogRecord } from './store.ts';
import type { SyncPace } from './sync-pace.ts';

const RUN_BLOCKS = MAX_IO_BLOCKS - 1;
/** Copies that are read or not acknowledged: so many, of so many blocks in all. */
const WINDOW_RUNS = 64;
const WINDOW_BLOCKS = 1024;
/** A source whose blocks cannot be read tries again after so long. */
const UNREADABLE_MS = 10_000;
/** The barrier is raised when so few blocks are dirty, or when clients have made so many more dirty (decision 13). */
const BARRIER_BLOCKS = 256;

export interface SyncSourceParts {
  store: BlockStore;
  arena: Arena;
  volume: PrimaryVolume;
  link: PeerLink;
  /** `node/diskId` of the target. */
  peer: string;
  rules: Rules;
  pace: SyncPace;
  /** Other absent members, whose bitmaps are handed over. */
  others: () => string[];
  /** From the next record on the target must acknowledge. */
  raised: (s0: Position) => void;
  /** The source cannot read what it should copy. */
  failed: (reason: string, againMs: number) => void;
  reached: (point: CrashPoint) => void;
  /** How it gets on, to be logged. */
  step?: (step: 'pass' | 'barrier' | 'finish') => void;
}

/** Passes beyond that are not told one by one. */
const TOLD_PASSES = 16;

/**
 * Makes the bitmap of a target say all that it may lack.
 * @param status what it says of itself
 * @returns false if there is no bitmap left for it
 */
export function prepareBitmap(
  store: BlockStore,
  peer: string,
  status: { base: Position; suspects: Runs },
  targetSuspects: boolean,
): boolean {
  const fresh = store.peers.of(peer) === null;
  if (fresh && !store.peers.begin(peer, ORIGIN)) return false;
  const known = store.peers.of(peer)!;
  // Nobody has noted what was written before a bitmap began.
  if (fresh || comparePositions(known.completeAfter, status.base) > 0) known.bitmap.setAll();
  if (targetSuspects) known.bitmap.setRuns(status.suspects);
  known.tracking = true;
  return true;
}

interface Copy {
  first: number;
  count: number;
  /** Blocks that were written since the copy was read. */
  touched: Set<number>;
}

/** How far it is, for `status`. */
export interface SyncProgress {
  phase: 'bulk' | 'barrier' | 'finishing';
  pass: number;
  dirtyBlocks: number;
  copiedBlocks: number;
}

export class SyncSource {
  private readonly o: SyncSourceParts;
  private readonly bitmap: DirtyBitmap;
  private readonly copies: Map<number, Copy> = new Map();
  /** Blocks that records behind the barrier cover, and the position that the target must have acknowledged. */
  private readonly covered: Map<number, Position> = new Map();
  private nextId = 1;
  private cursor = 0;
  private pass = 1;
  private phase: SyncProgress['phase'] = 'bulk';
  private s0: Position = { epoch: 0, seq: 0 };
  private copiedBlocks = 0;
  /** Blocks that are read one by one, and those that cannot be read. */
  private readonly single: Set<number> = new Set();
  private readonly unreadable: Set<number> = new Set();
  private lastReason = '';
  private over = false;
  private waiting = false;
  /** Copies that a test lets the records overtake. */
  private late: Array<() => void> = [];
  /** Blocks of the copies. */
  private readonly copying: Set<number> = new Set();
  private readonly dirtyAtStart: number;
  /** Blocks whose copy was acknowledged. */
  private arrivedBlocks = 0;

  constructor(parts: SyncSourceParts) {
    this.o = parts;
    this.bitmap = parts.store.peers.of(parts.peer)!.bitmap;
    // Behind the volume's end there is nothing, whatever room this disk has: the target may have less.
    this.bitmap.clearFrom(parts.store.blocks);
    this.dirtyAtStart = this.bitmap.count;
  }

  get progress(): SyncProgress {
    const { phase, pass, copiedBlocks } = this;
    return { phase, pass, copiedBlocks, dirtyBlocks: this.bitmap.count };
  }

  /** Behind the barrier the target gets every record. */
  get getsRecords(): boolean {
    return this.phase !== 'bulk';
  }

  start(): void {
    this.o.reached('source:begin');
    this.pump();
  }

  stop(): void {
    this.over = true;
    for (const go of this.late.splice(0)) go();
    this.copies.clear();
    this.copying.clear();
  }

  private pump(): void {
    while (!this.over && this.phase !== 'finishing' && this.hasWindow) {
      const run = this.nextRun();
      if (run === null) break;
      const slot = this.o.arena.take(run.count);
      if (slot === null) return this.waitForMemory(run.count);
      if (!this.o.pace.take(run.count * BLOCK_BYTES)) return this.o.arena.release(slot);
      this.cursor = run.first + run.count;
      this.copy(run.first, run.count, slot);
    }
    this.advance();
  }

  private get hasWindow(): boolean {
    // What is under way ends before the barrier: nothing more is begun then.
    if (this.phase === 'bulk' && this.shouldRaise) return false;
    return this.copies.size < WINDOW_RUNS && this.copying.size < WINDOW_BLOCKS;
  }

  private waitForMemory(blocks: number): void {
    if (this.waiting) return;
    this.waiting = true;
    this.o.arena.whenFree(blocks, () => {
      this.waiting = false;
      this.pump();
    });
  }

  /** The next dirty run that is not being copied; wraps around once per pass. */
  private nextRun(): { first: number; count: number } | null {
    for (let wrapped = false; ;) {
      const run = this.bitmap.nextRun(this.cursor, RUN_BLOCKS);
      if (run === null) {
        if (wrapped || this.cursor === 0) return null;
        // What is under way may be dirty again when it is acknowledged: a pass ends with its last copy.
        if (this.copies.size > 0) return null;
        wrapped = true;
        this.cursor = 0;
        if (++this.pass <= TOLD_PASSES) this.o.step?.('pass');
        if (this.phase === 'bulk' && this.shouldRaise) return null;
        continue;
      }
      let { first } = run;
      const end = run.first + run.count;
      while (first < end && this.isBusy(first)) first++;
      let next = first;
      while (next < end && !this.isBusy(next) && (next === first || !this.single.has(next))) next++;
      if (this.single.has(first)) next = Math.min(next, first + 1);
      if (next > first) return { first, count: next - first };
      this.cursor = end;
    }
  }

  private isBusy(block: number): boolean {
    if (this.covered.has(block) || this.unreadable.has(block)) return true;
    return this.copying.has(block);
  }

  /** A copy is over, one way or the other. */
  private end(id: number): Copy | null {
    const copy = this.copies.get(id);
    if (copy === undefined) return null;
    this.copies.delete(id);
    for (let block = copy.first; block < copy.first + copy.count; block++) this.copying.delete(block);
    return copy;
  }

  private get shouldRaise(): boolean {
    // Marks are handed over with the barrier: a change of them that is under way would reach the target in neither way.
    const { marks, settledPosition } = this.o.store;
    if (comparePositions(marks.changedAt, settledPosition) > 0) return false;
    if (this.bitmap.count <= BARRIER_BLOCKS) return true;
    // What is written during a bulk pass has to be copied once more; behind the barrier its record is enough.
    return this.arrivedBlocks + this.bitmap.count - this.dirtyAtStart > BARRIER_BLOCKS;
  }

  private copy(first: number, count: number, slot: Slot): void {
    const id = this.nextId++;
    const copy: Copy = { first, count, touched: new Set() };
    this.copies.set(id, copy);
    for (let block = first; block < first + count; block++) this.copying.add(block);
    const read = (error: Error | null): void => {
      if (this.over || error !== null) {
        this.o.arena.release(slot);
        if (!this.over) this.cannotRead(id, copy, error!.message);
        return;
      }
      if (this.phase !== 'bulk' && copy.touched.size > 0 && this.o.rules.redirty) {
        // A record that is ahead of this copy on the stream must not be overwritten by it: what is left is read anew.
        this.o.arena.release(slot);
        this.end(id);
        this.cursor = Math.min(this.cursor, first);
        return this.pump();
      }
      this.send(id, copy, slot);
    };
    if (this.o.rules.copyCommitted) this.o.volume.copyOut(first, count, slot, read);
    else this.o.store.readBlocks(first, count, slot, read);
  }

  /** Each block of the run by itself, so that one that is rotten costs none of the others. */
  private cannotRead(id: number, { first, count }: Copy, reason: string): void {
    this.end(id);
    for (let block = first; block < first + count; block++) (count > 1 ? this.single : this.unreadable).add(block);
    if (count === 1) this.single.delete(first);
    this.lastReason = reason;
    this.cursor = Math.min(this.cursor, first);
    this.pump();
  }

  private send(id: number, { first, count }: Copy, slot: Slot): void {
    let hole = true;
    for (let block = first; hole && block < first + count; block++) hole = this.o.store.isHole(block);
    const payload = hole ? null : slot.payload.subarray(0, count * BLOCK_BYTES);
    this.copiedBlocks += count;
    if (!this.o.rules.clearOnAck) for (let block = first; block < first + count; block++) this.bitmap.clear(block);
    const go = (): void => {
      this.o.link.send({ type: 'COPY', id, firstBlock: first, blockCount: count, payload }, () => {
        this.o.arena.release(slot);
      });
      this.o.reached('source:copy');
    };
    if (this.o.rules.copiesInOrder) go();
    else this.late.push(go);
  }

  acknowledged(id: number): void {
    if (this.over) return;
    const copy = this.end(id);
    if (copy === null) return;
    this.arrivedBlocks += copy.count;
    for (let block = copy.first; block < copy.first + copy.count; block++) {
      if (!copy.touched.has(block) || !this.o.rules.redirty) this.bitmap.clear(block);
    }
    this.pump();
  }

  /** The primary appended a record; behind the barrier it goes to the target too. */
  appended(record: LogRecord): void {
    if (this.over || isControl(record.kind)) return;
    const end = record.firstBlock + record.blockCount;
    for (const copy of this.copies.values()) {
      const from = Math.max(copy.first, record.firstBlock);
      for (let block = from; block < Math.min(end, copy.first + copy.count); block++) copy.touched.add(block);
    }
    if (this.phase === 'bulk') return;
    const position = { epoch: record.epoch, seq: record.seq };
    for (let block = record.firstBlock; block < end; block++) {
      if (this.bitmap.has(block)) this.covered.set(block, position);
    }
  }

  /** The target has everything up to here, durably. */
  targetHas(position: Position): void {
    for (const [block, needed] of this.covered) {
      if (comparePositions(needed, position) > 0) continue;
      this.covered.delete(block);
      this.bitmap.clear(block);
    }
    this.advance();
  }

  /** To be called every 20 ms or so. */
  tick(): void {
    for (const go of this.late.splice(0)) go();
    this.pump();
  }

  /** Something was committed, or a copy is over: the next phase may begin. */
  advance(): void {
    if (this.over) return;
    if (this.phase === 'bulk' && this.copies.size === 0 && this.shouldRaise) this.raise();
    if (this.phase === 'bulk' && this.copies.size === 0 && this.bitmap.count > 0) return this.pumpAgain();
    if (this.stuck()) return;
    if (this.phase !== 'barrier') return;
    const { drainCopies, drainRecords } = this.o.rules;
    if (drainCopies && (this.copies.size > 0 || this.bitmap.count > 0)) return;
    if (!drainCopies && this.nextRun() !== null) return;
    // Applied, not only committed: the session table has what is applied.
    if (drainRecords && comparePositions(this.o.store.settledPosition, this.s0) < 0) return;
    this.phase = 'finishing';
    const committed = this.o.store.committedPosition;
    this.o.link.send({ type: 'FINISH', committed, sessions: this.o.store.sessions.encode() });
    this.o.reached('source:finish');
    this.o.step?.('finish');
  }

  /** Nothing is left but blocks that cannot be read here: the target cannot be in sync without them. */
  private stuck(): boolean {
    for (const block of this.unreadable) if (!this.bitmap.has(block)) this.unreadable.delete(block);
    if (this.unreadable.size === 0 || this.copies.size > 0 || this.bitmap.count > this.unreadable.size) return false;
    this.o.failed(`${this.unreadable.size} block(s) cannot be read here: ${this.lastReason}`, UNREADABLE_MS);
    return true;
  }

  private pumpAgain(): void {
    if (this.nextRun() !== null) this.pump();
  }

  private raise(): void {
    const { store, link, rules, peer } = this.o;
    this.phase = 'barrier';
    this.cursor = 0;
    this.s0 = store.lastPosition;
    link.send({ type: 'BARRIER', position: this.s0 });
    store.peers.track(peer, false);
    this.o.raised(this.s0);
    this.o.step?.('barrier');
    if (rules.handOver) {
      for (const other of this.o.others()) {
        const known = store.peers.of(other);
        if (known === null || other === peer) continue;
        const runs = known.bitmap.runs();
        link.send({ type: 'HANDOVER', of: 'absent', name: other, position: known.completeAfter, runs });
      }
    }
    for (const { name, position } of store.marks.list()) {
      const runs = store.marks.bitmap(name)!.runs();
      link.send({ type: 'HANDOVER', of: 'mark', name, position, runs });
    }
    this.o.reached('source:barrier');
    this.pump();
  }
}
