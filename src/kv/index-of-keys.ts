/**
 * What the batches of a volume say, in memory: the newest entry of each key, those it took the place of, the answers of
 * sessions, and how much of each batch still counts. Pure.
 *
 * Guarantees: it depends on the batches alone, not on the order in which they came: taking a batch away brings back what
 * it had taken the place of. So it follows a block store through whatever a change of primary does to it.
 */
import { BLOCK_BYTES } from '../base/units.ts';
import { ANSWER, type BatchKind, DELETE, decodeHeader, eachItem, expiryAt, keyAt, valueAt } from './batch.ts';
import { RunTable } from './run-table.ts';
import { SegmentCounts, segmentOf } from './segments.ts';
import { SessionAnswers } from './session-answers.ts';
import { SortedKeys } from './sorted-keys.ts';
import type { Key } from './operations.ts';

/** A batch on disk. */
export interface Run {
  first: number;
  blocks: number;
  kind: BatchKind;
  entries: number;
  bytes: Buffer;
}

/** An entry of a batch. */
export interface Cell {
  readonly key: Key;
  readonly version: number;
  readonly run: Run;
  /** Where it begins in the batch. */
  readonly at: number;
  readonly sizeBytes: number;
  readonly deleted: boolean;
  /** 0: never. */
  readonly expiresAtMs: number;
  /** What it takes the place of, newest first. */
  older: Cell | null;
}

export const valueOf = (cell: Cell): Uint8Array => valueAt(cell.run.bytes, cell.at);

export interface Change {
  version: number;
  key: Key;
  /** Null: deleted. */
  value: Uint8Array | null;
  expiresAtMs: number;
}

export interface IndexEvents {
  /** Changes of a batch that is new, in its order. */
  changed?(changes: Change[]): void;
}

export class KvIndex {
  readonly runs: RunTable = new RunTable();
  readonly answers: SessionAnswers;
  readonly sorted: SortedKeys = new SortedKeys(() => this.presentKeys());
  readonly segments: SegmentCounts;
  /** Entries that expire. */
  readonly expiring: Map<Key, Cell> = new Map();
  /** The most that a batch told of forgotten sessions. */
  told = 0;
  private readonly cells: Map<Key, Cell> = new Map();
  private readonly events: IndexEvents;
  /** Batches come in no order: sessions are not forgotten meanwhile. */
  loading = false;
  private present = 0;
  private newest = 0;
  /** Where that version is from. */
  private newestIn: Run | null = null;
  /** Blocks of all batches. */
  usedBlocks = 0;
  liveBytes = 0;

  /** @param roomBlocks what the disk has room for */
  constructor(roomBlocks: number, events: IndexEvents, maxSessions: number) {
    this.answers = new SessionAnswers((run, bytes) => this.count(run, bytes), maxSessions);
    this.segments = new SegmentCounts(roomBlocks);
    this.events = events;
  }

  /** Of the newest transaction that a batch names. */
  get version(): number {
    return this.newest;
  }
  /** Of the batch that names it; -1: there is none. */
  get newestSegment(): number {
    return this.newestIn === null ? -1 : segmentOf(this.newestIn.first);
  }
  get keys(): number {
    return this.present;
  }

  find(key: Key): Cell | null {
    const cell = this.cells.get(key);
    return cell === undefined || cell.deleted ? null : cell;
  }

  /** Also of a deletion. */
  newestOf(key: Key): Cell | null {
    return this.cells.get(key) ?? null;
  }

  private *presentKeys(): Iterable<Key> {
    for (const cell of this.cells.values()) if (!cell.deleted) yield cell.key;
  }

  /**
   * A run of blocks has new content: batches and zeros.
   * @param bytes of all blocks, copied as far as needed; null: zeros
   */
  write(first: number, blocks: number, bytes: Uint8Array | null): void {
    for (let block = first; block < first + blocks; block++) {
      const run = this.runs.get(block);
      if (run !== undefined) this.remove(run);
    }
    if (bytes !== null) this.load(first, blocks, bytes, () => false);
  }

  /**
   * Takes in what was read.
   * @param known blocks whose batch is known already, from later than the bytes
   * @returns how many blocks were understood: a batch that ends behind them is to be read once more
   */
  load(first: number, blocks: number, bytes: Uint8Array, known: (block: number) => boolean): number {
    const all = Buffer.from(bytes.buffer, bytes.byteOffset, blocks * BLOCK_BYTES);
    let block = 0;
    while (block < blocks) {
      const header = decodeHeader(all.subarray(block * BLOCK_BYTES));
      if (header === null) {
        block++;
        continue;
      }
      if (block + header.blocks > blocks) break;
      if (!known(first + block)) {
        const copy = Buffer.allocUnsafeSlow(header.lengthBytes);
        all.copy(copy, 0, block * BLOCK_BYTES, block * BLOCK_BYTES + header.lengthBytes);
        const { kind, entries, forgotten } = header;
        this.told = Math.max(this.told, forgotten);
        this.insert({ first: first + block, blocks: header.blocks, kind, entries, bytes: copy });
      }
      block += header.blocks;
    }
    return block;
  }

  private insert(run: Run): void {
    this.runs.set(run);
    this.usedBlocks += run.blocks;
    this.segments.runs[segmentOf(run.first)]!++;
    const changes: Change[] | null = run.kind === 'new' && this.events.changed !== undefined ? [] : null;
    eachItem(run.bytes, run.entries, (kind, at, end, version) => {
      if (version >= this.newest) {
        this.newest = version;
        this.newestIn = run;
      }
      if (kind === ANSWER) {
        this.answers.add(run, at, end - at, this.loading);
        return;
      }
      const key = keyAt(run.bytes, at);
      const deleted = kind === DELETE;
      const expiresAtMs = expiryAt(run.bytes, at);
      this.add({ key, version, run, at, sizeBytes: end - at, deleted, expiresAtMs, older: null });
      changes?.push({ version, key, value: deleted ? null : valueAt(run.bytes, at), expiresAtMs });
    });
    if (changes !== null && changes.length > 0) this.events.changed!(changes);
  }

  /** All batches are known. */
  loaded(): void {
    this.loading = false;
    this.forget(this.told);
  }

  /** Sessions that did nothing after that version: all batches up to one that tells it are known. */
  forget(upTo: number): void {
    if (upTo > this.answers.forgotten) this.answers.forget(upTo);
  }

  private add(cell: Cell): void {
    const head = this.cells.get(cell.key);
    if (head === undefined) return this.setHead(cell, null);
    // Of equal ones, which are copies, the later to come counts: the other is about to go.
    if (cell.version >= head.version) {
      cell.older = head;
      return this.setHead(cell, head);
    }
    let before = head;
    while (before.older !== null && before.older.version > cell.version) before = before.older;
    cell.older = before.older;
    before.older = cell;
    // A deletion with something to delete counts.
    if (before === head && head.deleted && cell.older === null) this.count(head.run, head.sizeBytes);
  }

  private remove(run: Run): void {
    this.runs.delete(run);
    this.usedBlocks -= run.blocks;
    this.segments.runs[segmentOf(run.first)]!--;
    eachItem(run.bytes, run.entries, (kind, at) => {
      if (kind === ANSWER) this.answers.remove(run, at);
      else this.removeCell(keyAt(run.bytes, at), run, at);
    });
  }

  private removeCell(key: Key, run: Run, at: number): void {
    const head = this.cells.get(key);
    if (head === undefined) return;
    if (head.run === run && head.at === at) return this.setHead(head.older, head);
    let before = head;
    while (before.older !== null && !(before.older.run === run && before.older.at === at)) before = before.older;
    if (before.older === null) return;
    before.older = before.older.older;
    if (before === head && head.deleted && head.older === null) this.count(head.run, -head.sizeBytes);
  }

  /** A deletion with nothing to delete counts for nothing. */
  private static counts(cell: Cell): boolean {
    return !cell.deleted || cell.older !== null;
  }

  /** @param was the newest so far, whose `older` is as it was when it counted or not */
  private setHead(cell: Cell | null, was: Cell | null): void {
    if (was !== null) {
      if (KvIndex.counts(was)) this.count(was.run, -was.sizeBytes);
      if (!was.deleted) this.present--;
      if (was.expiresAtMs !== 0) this.expiring.delete(was.key);
    }
    const { key } = (cell ?? was)!;
    if (cell === null) this.cells.delete(key);
    else {
      this.cells.set(key, cell);
      if (KvIndex.counts(cell)) this.count(cell.run, cell.sizeBytes);
      if (!cell.deleted) this.present++;
      if (cell.expiresAtMs !== 0 && !cell.deleted) this.expiring.set(key, cell);
    }
    const isPresent = cell !== null && !cell.deleted;
    const wasPresent = was !== null && !was.deleted;
    if (isPresent && !wasPresent) this.sorted.add(key);
    else if (wasPresent && !isPresent) this.sorted.delete(key);
  }

  private count(run: Run, bytes: number): void {
    this.liveBytes += bytes;
    this.segments.add(run, bytes);
  }

  /** Whether an item of a batch counts. */
  isLive(run: Run, at: number): boolean {
    if (run.bytes[at] === ANSWER) return this.answers.isLive(run, at);
    const head = this.cells.get(keyAt(run.bytes, at));
    return head !== undefined && head.run === run && head.at === at && KvIndex.counts(head);
  }

  /** Keys that a batch that lies there is the newest to say something of. */
  headsIn(first: number, blocks: number): Key[] {
    const keys: Key[] = [];
    for (let block = first; block < first + blocks; block++) {
      const run = this.runs.get(block);
      if (run === undefined) continue;
      eachItem(run.bytes, run.entries, (kind, at) => {
        if (kind === ANSWER) return;
        const key = keyAt(run.bytes, at);
        if (this.cells.get(key)?.run === run) keys.push(key);
      });
    }
    return keys;
  }

  clear(): void {
    this.runs.clear();
    this.cells.clear();
    this.segments.clear();
    this.expiring.clear();
    this.answers.clear();
    this.sorted.clear();
    this.newestIn = null;
    this.present = this.newest = this.usedBlocks = this.liveBytes = this.told = 0;
  }
}
