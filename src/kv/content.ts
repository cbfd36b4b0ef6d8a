/**
 * A replica's key-value content: the index of what is applied, and which keys have something that is appended and not
 * applied yet. It follows the block store under it record by record, whatever this replica's role is. Pure.
 *
 * Guarantees: while it is `valid` it says what the blocks say up to some place in the log, so several keys are seen as they
 * were at one moment: what is applied before something older is, shows when that is; what tears batches apart (copies of a
 * reintegration, the group of records that opens an epoch at a backup) makes it invalid, until it is built anew from the
 * blocks; a build takes in what is applied meanwhile.
 */
import type { HoldfastError } from '../base/errors.ts';
import { ANSWER, MAX_BATCH_BLOCKS, decodeHeader, eachItem, keyAt } from './batch.ts';
import { History } from './history.ts';
import { type Change, KvIndex } from './index-of-keys.ts';
import type { Key } from './operations.ts';
import { ALL_KV_RULES, type KvRules } from './rules.ts';
import { BLOCK_BYTES } from '../base/units.ts';

/** New content of a run of blocks; null: zeros. */
export interface BlockChange {
  first: number;
  blocks: number;
  bytes: Uint8Array | null;
}

/** Reads the applied blocks. */
export interface BlockReader {
  readonly blocks: number;
  /** End of the holes from `block` on, at most `limit`; `block` itself if it is none. */
  holesEnd(block: number, limit: number): number;
  /** At most 64 blocks; the bytes are the reader's after `done` returned. */
  read(first: number, count: number, done: (error: HoldfastError | null, bytes: Uint8Array) => void): void;
}

interface Pending {
  keys: Key[];
  /** Called when it shows. */
  waiters: Array<() => void>;
  /** It is applied, and something older is not: what is kept so is in the journal still, which bounds it. */
  early: { change: BlockChange; effect: boolean } | null;
}

export class KvContent {
  readonly history: History = new History();
  readonly index: KvIndex;
  /** What was appended, by whatever stands for it, in order. */
  private readonly pending: Map<object, Pending> = new Map();
  private readonly newestOf: Map<Key, Pending> = new Map();
  private state: 'invalid' | 'building' | 'valid' = 'invalid';
  /** Blocks that were applied since a build began; null: there is none. */
  private touched: Set<number> | null = null;
  private builds = 0;
  /** Sessions up to that version are forgotten, or are about to be. */
  private forgetting = 0;
  /** Calls when a change has been applied. For a primary. */
  onApplied: ((change: BlockChange) => void) | null = null;
  private readonly rules: KvRules;

  /** @param roomBlocks what the disk has room for */
  constructor(roomBlocks: number, rules: KvRules = ALL_KV_RULES) {
    this.rules = rules;
    this.index = new KvIndex(roomBlocks, { changed: (changes) => this.changed(changes) }, rules.sessions);
  }

  private changed(changes: Change[]): void {
    // What a build finds comes in no order; it is not news.
    if (this.state === 'valid') this.history.add(changes);
  }

  get valid(): boolean {
    return this.state === 'valid';
  }

  /** @param token names it until `applied` */
  appended(token: object, change: BlockChange): void {
    // What is built waits for all of it.
    const keys = this.state === 'invalid' ? [] : this.index.headsIn(change.first, change.blocks);
    const pending: Pending = { keys, waiters: [], early: null };
    if (change.bytes !== null && this.state !== 'invalid') collectKeys(change, keys);
    this.pending.set(token, pending);
    for (const key of keys) this.newestOf.set(key, pending);
  }

  private settle(token: object, pending: Pending): void {
    this.pending.delete(token);
    for (const key of pending.keys) if (this.newestOf.get(key) === pending) this.newestOf.delete(key);
    for (const wake of pending.waiters.splice(0)) wake();
  }

  /** @param effect false: it came to nothing */
  applied(token: object, change: BlockChange, effect: boolean): void {
    const pending = this.pending.get(token);
    const isOldest = pending === undefined || this.pending.keys().next().value === token;
    if (!isOldest && this.state !== 'invalid') {
      pending.early = { change: { ...change, bytes: change.bytes && new Uint8Array(change.bytes) }, effect };
      return;
    }
    this.show(token, change, effect);
    // What that leads to may apply and append more.
    for (let [next] = this.pending; next !== undefined && next[1].early !== null; [next] = this.pending) {
      const { early } = next[1];
      next[1].early = null;
      this.show(next[0], early.change, early.effect);
    }
  }

  /** Everything older is applied. */
  private show(token: object, change: BlockChange, effect: boolean): void {
    if (this.state !== 'invalid' && effect) {
      for (let i = 0; this.touched !== null && i < change.blocks; i++) this.touched.add(change.first + i);
      this.index.write(change.first, change.blocks, change.bytes);
    }
    const pending = this.pending.get(token);
    if (pending !== undefined) this.settle(token, pending);
    if (this.index.told > this.forgetting) this.forget(this.index.told, this.builds);
    if (effect) this.onApplied?.(change);
  }

  /** A session whose last act is appended and not applied would seem older than it is. */
  private forget(upTo: number, build: number): void {
    this.forgetting = upTo;
    this.whenApplied(null, () => {
      if (this.state === 'valid' && this.builds === build) this.index.forget(upTo);
    });
  }

  /** Whether something of these keys is appended that is not applied. Null: of any key. */
  isBehind(keys: readonly Key[] | null): boolean {
    if (!this.rules.readsWait) return false;
    if (keys === null) return this.pending.size > 0;
    if (this.pending.size === 0) return false;
    return keys.some((key) => this.newestOf.has(key));
  }

  /** Calls once what is appended of these keys by now is applied; in this turn if nothing is. */
  whenApplied(keys: readonly Key[] | null, run: () => void): void {
    if (!this.isBehind(keys)) return run();
    // What is older than a key's newest change cannot be seen any more once that is applied.
    const waited = new Set(keys === null ? this.pending.values() : keys.flatMap((key) => this.newestOf.get(key) ?? []));
    let left = waited.size;
    const wake = (): void => {
      if (--left === 0) run();
    };
    for (const pending of waited) pending.waiters.push(wake);
  }

  invalidate(): void {
    if (this.state === 'invalid') return;
    this.state = 'invalid';
    this.builds++;
    this.touched = null;
    this.index.clear();
    this.forgetting = 0;
    this.history.clear(0);
    this.newestOf.clear();
    // What is applied is in the blocks.
    for (const [token, { early }] of this.pending) if (early !== null) this.settle(token, this.pending.get(token)!);
    // Whoever reads is told so; what is not applied yet stays in mind, for what is built next.
    for (const { waiters } of this.pending.values()) for (const wake of waiters.splice(0)) wake();
  }

  /** Reads all batches. @returns whether it is valid now; not if it was made invalid meanwhile */
  async build(reader: BlockReader): Promise<boolean> {
    this.invalidate();
    this.state = 'building';
    const build = ++this.builds;
    this.index.loading = true;
    const touched = new Set<number>();
    this.touched = touched;
    const known = (block: number): boolean => touched.has(block);
    for (let at = 0; at < reader.blocks;) {
      at = reader.holesEnd(at, reader.blocks);
      if (at >= reader.blocks) break;
      const count = Math.min(MAX_BATCH_BLOCKS + 1, reader.blocks - at);
      const understood = await new Promise<number>((resolve, reject) =>
        reader.read(at, count, (error, bytes) => {
          if (error !== null) return reject(error);
          resolve(this.builds === build ? this.index.load(at, count, bytes, known) : count);
        }),
      );
      if (this.builds !== build) return false;
      // Only the very last batch could be cut short, and none is: it would be damage that a checksum did not show.
      at += Math.max(1, understood);
    }
    // What was appended before its blocks were known here was not looked at for the keys that it takes away.
    await new Promise<void>((resolve) => this.whenApplied(null, resolve));
    if (this.builds !== build) return false;
    this.touched = null;
    this.index.loaded();
    this.history.clear(this.rules.watchKept ? this.index.version : 0);
    this.state = 'valid';
    return true;
  }
}

function collectKeys({ blocks, bytes }: BlockChange, keys: Key[]): void {
  const all = Buffer.from(bytes!.buffer, bytes!.byteOffset, blocks * BLOCK_BYTES);
  for (let block = 0; block < blocks;) {
    const batch = all.subarray(block * BLOCK_BYTES);
    const header = decodeHeader(batch);
    block += header?.blocks ?? 1;
    if (header === null || header.kind === 'moved') continue;
    eachItem(batch, header.entries, (kind, at) => {
      if (kind !== ANSWER) keys.push(keyAt(batch, at));
    });
  }
}
