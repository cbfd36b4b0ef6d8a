/**
 * Compares the replicas of a volume with the primary's, online, block by block. Pure.
 *
 * Guarantees: no false alarm: a run of blocks is compared at one place in the log, where everything that was sent about
 * it before is applied on both sides and nothing after; no block is left out in silence: what changes too often, cannot
 * be read, or is on a member that went away is counted; a bounded number of runs is under way.
 */
import { BLOCK_BYTES } from '../base/units.ts';
import type { Arena } from '../storage/arena.ts';
import type { BlockStore } from '../storage/block-store.ts';
import type { BlockExchange, Fetched } from './block-exchange.ts';
import type { PrimaryVolume } from './primary-volume.ts';

const RUN_BLOCKS = 64;
const RUNS_UNDER_WAY = 4;
/** A run that changes is tried again so often, then block by block as often. */
const TRIES = 20;
/** Differences that are told one by one. */
const MAX_TOLD = 100;

export interface ComparisonProgress {
  /** `ended`: before it was through, see `reason`. */
  state: 'running' | 'done' | 'ended';
  /** Members that are compared with the primary. */
  nodes: string[];
  doneBytes: number;
  totalBytes: number;
  /** All blocks below it are compared, or counted as skipped. */
  throughBlock: number;
  /** Of all members together. */
  differentBlocks: number;
  /** They could not be compared. */
  skippedBlocks: number;
  differences: Array<{ node: string; block: number }>;
  reason: string | null;
}

export interface ComparisonParts {
  store: BlockStore;
  arena: Arena;
  volume: PrimaryVolume;
  exchange: BlockExchange;
  fromBlock: number;
  /** At most, on average. */
  bytesPerSecond: number;
  /** Milliseconds of a steady clock. */
  now(): number;
  /** Calls back after so many milliseconds. */
  later(run: () => void, ms: number): void;
}

/** Pause before a run that changed is looked at again. */
const AGAIN_MS = 5;

export class Comparison {
  readonly progress: ComparisonProgress;
  private readonly o: ComparisonParts;
  private readonly startedMs: number;
  private at: number;
  /** First blocks of the runs under way. */
  private readonly underWay: Set<number> = new Set();
  private pausing = false;

  constructor(parts: ComparisonParts) {
    this.o = parts;
    this.at = parts.fromBlock;
    this.startedMs = parts.now();
    this.progress = {
      state: 'running',
      nodes: parts.exchange.nodes,
      doneBytes: 0,
      totalBytes: Math.max(0, parts.store.blocks - parts.fromBlock) * BLOCK_BYTES,
      throughBlock: parts.fromBlock,
      differentBlocks: 0,
      skippedBlocks: 0,
      differences: [],
      reason: null,
    };
    if (this.progress.nodes.length === 0) this.end('there is no other replica in sync');
    else this.pump();
  }

  private pump(): void {
    const { blocks } = this.o.store;
    while (this.running && this.underWay.size < RUNS_UNDER_WAY && this.at < blocks && !this.pausing) {
      const aheadMs = (this.progress.doneBytes * 1000) / this.o.bytesPerSecond - (this.o.now() - this.startedMs);
      if (aheadMs > AGAIN_MS) {
        this.pausing = true;
        return this.o.later(
          () => {
            this.pausing = false;
            this.pump();
          },
          Math.min(1000, aheadMs),
        );
      }
      const first = this.at;
      const count = Math.min(RUN_BLOCKS, blocks - first);
      this.at += count;
      this.underWay.add(first);
      this.compare(first, count, TRIES, () => {
        this.underWay.delete(first);
        this.progress.doneBytes += count * BLOCK_BYTES;
        this.progress.throughBlock = Math.min(this.at, ...this.underWay);
        this.pump();
      });
    }
    if (this.running && this.underWay.size === 0 && this.at >= blocks) this.progress.state = 'done';
  }

  private get running(): boolean {
    return this.progress.state === 'running';
  }

  /** The tenure, or a member, is gone, or nobody wants to know any more. */
  end(reason: string): void {
    if (!this.running) return;
    this.progress.state = 'ended';
    this.progress.reason = reason;
  }

  private compare(first: number, count: number, triesLeft: number, done: () => void): void {
    // What is not compared is not counted as done.
    if (!this.running) return;
    const { arena, volume, exchange } = this.o;
    const { nodes } = this.progress;
    const again = (): void => this.again(first, count, triesLeft, done);
    const slot = arena.take(count);
    if (slot === null) return this.o.later(() => this.compare(first, count, triesLeft, done), AGAIN_MS);
    const theirs = new Map<string, Fetched>();
    let own: readonly number[] | null | undefined;
    const settle = (): void => {
      if (own === undefined || theirs.size < nodes.length) return;
      if (own === null || [...theirs.values()].includes(null)) return again();
      for (const [node, fetched] of theirs) this.judge(first, own, fetched!.crcs, node);
      done();
    };
    // In the turn in which the blocks stand still here: what is sent to the members later changes them later.
    const ask = (): void => {
      for (const node of nodes) {
        exchange.ask(node, { first, count, content: false }, (fetched) => {
          theirs.set(node, fetched?.crcs.length === count ? fetched : null);
          settle();
        });
      }
    };
    volume.reads.readStill(first, count, slot, ask, (error, still) => {
      const crcs = error === null ? [...slot.crcs.subarray(0, count)] : null;
      arena.release(slot);
      if (!still) return again();
      const known = (): void => {
        own = crcs;
        settle();
      };
      // As a read of clients would: what does not match its checksum is mended, if somebody has it.
      if (error?.code !== 'CORRUPT_BLOCK' || !volume.reads.mend(error, known)) known();
    });
  }

  /** It changed meanwhile, or somebody could not read it: once more, a little later; in the end block by block. */
  private again(first: number, count: number, triesLeft: number, done: () => void): void {
    const lost = this.progress.nodes.find((node) => !this.o.exchange.nodes.includes(node));
    if (lost !== undefined) return this.end(`${lost} is in sync no longer`);
    if (triesLeft > 0) return this.o.later(() => this.compare(first, count, triesLeft - 1, done), AGAIN_MS);
    if (count === 1) {
      this.progress.skippedBlocks++;
      return done();
    }
    const one = (block: number): void => {
      if (block === first + count) done();
      else this.compare(block, 1, TRIES, () => one(block + 1));
    };
    one(first);
  }

  private judge(first: number, own: readonly number[], theirs: readonly number[], node: string): void {
    for (let i = 0; i < own.length; i++) {
      if (own[i] === theirs[i]) continue;
      this.progress.differentBlocks++;
      if (this.progress.differences.length < MAX_TOLD) this.progress.differences.push({ node, block: first + i });
    }
  }
}
