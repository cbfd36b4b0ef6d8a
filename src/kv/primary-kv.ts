/**
 * A key-value volume as its primary serves it, over a replicated log of batches. Pure.
 *
 * Transactions are worked out in the order in which they come, against the newest state, committed or not; those of one
 * turn, and those that come while batches are under way, go into one batch. They are answered when that is committed.
 *
 * Guarantees: a transaction is in one batch, whole, and a batch is one record; nothing is read that is not committed: a
 * key with a change that is not waits for it; a transaction with an id is executed at most once; memory for what waits is
 * bounded (BUSY beyond it); behind a batch that the log refuses nothing is executed; a full volume takes no more
 * (NO_SPACE), and still deletes; when it has grown, the next transaction finds the new room.
 */
import { HoldfastError } from '../base/errors.ts';
import { BLOCK_BYTES } from '../base/units.ts';
import {
  ANSWER,
  BATCH_HEADER_BYTES,
  DELETE,
  EMPTY,
  MAX_BATCH_BYTES,
  type NewItem,
  PUT,
  blocksOf,
  encodeBatch,
  itemBytes,
} from './batch.ts';
import { BySession } from './by-session.ts';
import { Cleaner } from './cleaner.ts';
import type { BlockChange, KvContent } from './content.ts';
import { Expiries } from './expiries.ts';
import { Forgetting } from './forgetting.ts';
import { valueOf } from './index-of-keys.ts';
import type {
  Entry,
  Key,
  KvDone,
  KvInfo,
  KvLimits,
  KvVolume,
  RequestId,
  ScanPage,
  ScanRequest,
  Transaction,
  TransactionResult,
  WatchPage,
  WatchRequest,
} from './operations.ts';
import { decodeResult, encodeResult } from './codec.ts';
import type { Encode, KvLog, LogDone } from './log.ts';
import { entryOf, scanIndex } from './reads.ts';
import { ALL_KV_RULES, type KvRules } from './rules.ts';
import { SEGMENT_BLOCKS, Segments } from './segments.ts';
import { full, tooLarge, unknown } from './refusals.ts';
import { type Present, refusalOf, work } from './transaction.ts';
import { Watchers } from './watchers.ts';

export type Describe = () => Omit<KvInfo, 'version' | 'keys' | 'liveBytes' | 'usedBytes' | 'limits'>;

/** Batches that are written and not committed. More would hold fewer transactions each. */
const MAX_UNDER_WAY = 2;
/** Of transactions that wait for their batch. */
const MAX_WAITING_BYTES = 32 * 2 ** 20;
/** An answer longer than that is not kept for a repetition. */
const MAX_KEPT_ANSWER_BYTES = 16_384;
/** Keys that expire in one transaction. */
const MAX_EXPIRED = 256;

/** A batch that is not applied. */
interface Batch {
  items: NewItem[];
  bytes: number;
  /** Of its oldest transaction. */
  version: number;
  keys: Key[];
  /** Called when it is committed. */
  done: LogDone[];
  committed: boolean;
}

/** A transaction with an id, until it is found in the index. */
interface Unanswered {
  waiting: Array<KvDone<TransactionResult>>;
  /** Null: not committed. */
  result: TransactionResult | null;
}

/** A key as it is once everything under way is committed. */
interface Ahead {
  present: Present | null;
  version: number;
}

export class PrimaryKv implements KvVolume {
  private readonly log: KvLog;
  private readonly content: KvContent;
  private readonly limits: KvLimits;
  private readonly describe: Describe;
  private readonly segments: Segments;
  private readonly cleaner: Cleaner;
  private readonly forgetting: Forgetting;
  private readonly expiries = new Expiries();
  private readonly watchers: Watchers;
  private readonly ahead: Map<Key, Ahead> = new Map();
  private version: number;
  private open: Batch | null = null;
  /** Closed, to be written. */
  private readonly waiting: Batch[] = [];
  private waitingBytes = 0;
  /** Written, not applied, by first block. */
  private readonly written: Map<number, Batch> = new Map();
  /** Written last. */
  private lastWritten: Batch | null = null;
  /** Moved entries, written and not applied. */
  private readonly moved: Map<number, LogDone> = new Map();
  private underWay = 0;
  private flushing = false;
  private readonly unanswered: BySession<Unanswered> = new BySession();
  private over: HoldfastError | null = null;
  /** The log refused a batch: what was worked out behind it is void. */
  private voided: HoldfastError | null = null;
  private readonly rules: KvRules;
  /** The newest version when it began. */
  private readonly foundVersion: number;

  /** @param content valid; followed from now on */
  constructor(log: KvLog, content: KvContent, limits: KvLimits, describe: Describe, rules: KvRules = ALL_KV_RULES) {
    const { index } = content;
    this.rules = rules;
    this.foundVersion = index.version;
    this.log = log;
    this.content = content;
    this.limits = limits;
    this.describe = describe;
    this.version = index.version;
    this.forgetting = new Forgetting(index, rules, this.unanswered.sessions);
    this.segments = new Segments(index.segments, log.blocks);
    for (const { key, expiresAtMs } of index.expiring.values()) this.expiries.add(key, expiresAtMs);
    const upTo = (): number => (rules.watchWhole ? this.visible : this.version);
    this.watchers = new Watchers(content.history, upTo, log);
    this.cleaner = new Cleaner({
      index,
      segments: this.segments,
      rules,
      write: (items, bytes, done) => this.writeMoved(items, bytes, done),
      zero: (first, count, done) => log.zero(first, count, done),
    });
    content.onApplied = (change) => this.applied(change);
  }

  // --- reading ----------------------------------------------------------------------------------------------------------

  /** Changes of versions up to this one are applied. */
  private get visible(): number {
    let oldest = this.open?.version ?? this.version + 1;
    for (const { version } of this.waiting) oldest = Math.min(oldest, version);
    for (const { version } of this.written.values()) oldest = Math.min(oldest, version);
    return oldest - 1;
  }

  info(): KvInfo {
    const { index } = this.content;
    return {
      ...this.describe(),
      version: this.visible,
      keys: index.keys,
      liveBytes: index.liveBytes,
      usedBytes: index.usedBlocks * BLOCK_BYTES,
      limits: this.limits,
    };
  }

  /** What is computed once nothing under way concerns these keys (null: any), and answered with the right to. */
  private read<T>(keys: readonly Key[] | null, compute: () => T, done: KvDone<T>): void {
    const { over } = this;
    if (over !== null) return queueMicrotask(() => done(over, null));
    const answer = (): void => {
      if (this.over !== null) return done(this.over, null);
      const result = compute();
      this.log.rightToRead((error) => done(error, error === null ? result : null));
    };
    const applied: LogDone = (error) => (error === null ? this.content.whenApplied(keys, answer) : done(error, null));
    const concerned = this.rules.readsWait && (keys === null || keys.some((key) => this.ahead.has(key)));
    const batch = concerned ? this.lastUncommitted : null;
    // What is not appended yet is not known to the content.
    if (batch === null) this.content.whenApplied(keys, () => queueMicrotask(answer));
    else batch.done.push(applied);
  }

  private get lastUncommitted(): Batch | null {
    const last = this.open ?? this.waiting.at(-1) ?? this.lastWritten;
    return last === null || last.committed ? null : last;
  }

  get(keys: Key[], done: KvDone<Array<Entry | null>>): void {
    this.read(keys, () => keys.map((key) => (this.seemsExpired(key) ? null : entryOf(this.content.index, key))), done);
  }

  /** Only where the rule says that keys expire by themselves. */
  private seemsExpired(key: Key): boolean {
    if (this.rules.logExpiry) return false;
    const expiresAtMs = this.newest(key)?.expiresAtMs ?? 0;
    return expiresAtMs !== 0 && expiresAtMs <= this.log.now();
  }

  scan(request: ScanRequest, done: KvDone<ScanPage>): void {
    this.read(null, () => scanIndex(this.content.index, request), done);
  }

  size(done: KvDone<number>): void {
    this.read(null, () => this.content.index.keys, done);
  }

  watch(request: WatchRequest, done: KvDone<WatchPage>): void {
    const { over } = this;
    if (over !== null) return queueMicrotask(() => done(over, null));
    this.watchers.watch(request, done);
  }

  // --- executing --------------------------------------------------------------------------------------------------------

  execute(transaction: Transaction, id: RequestId | null, done: KvDone<TransactionResult>): void {
    const refusal = this.over ?? this.voided ?? refusalOf(transaction, this.limits) ?? this.busy();
    if (refusal !== null) return queueMicrotask(() => done(refusal, null));
    if (id !== null && this.repeated(id, done)) return;
    const version = this.version + 1;
    const outcome = work(transaction, (key) => this.newest(key), version, this.log.now());
    const result: TransactionResult = {
      applied: outcome.applied,
      version: outcome.changes.size > 0 ? version : this.version,
      results: outcome.results,
    };
    if (outcome.changes.size === 0) return this.answerRead(result, done);
    const items: NewItem[] = [];
    for (const [key, present] of outcome.changes) items.push(itemOf(key, present, version));
    if (id !== null) items.push(this.answerOf(id, result));
    let bytes = 0;
    for (const item of items) bytes += itemBytes(item);
    const large = tooLarge(bytes + BATCH_HEADER_BYTES, MAX_BATCH_BYTES);
    if (large !== null) return queueMicrotask(() => done(large, null));
    const noSpace = this.noSpace(
      bytes,
      [...outcome.changes.values()].every((present) => present === null),
    );
    if (noSpace !== null) return queueMicrotask(() => done(noSpace, null));
    const batch = this.batchFor(bytes);
    batch.items.push(...items);
    batch.bytes += bytes;
    for (const [key, present] of outcome.changes) {
      batch.keys.push(key);
      this.ahead.set(key, { present, version });
      if (present !== null && present.expiresAtMs !== 0) this.expiries.add(key, present.expiresAtMs);
    }
    this.version = version;
    if (batch.version === 0) batch.version = version;
    if (id === null) batch.done.push((error) => done(error && unknown(error), error === null ? result : null));
    else this.noteId(id, done, batch, result);
    this.flushSoon();
  }

  private busy(): HoldfastError | null {
    if (this.waitingBytes < MAX_WAITING_BYTES) return null;
    return new HoldfastError('BUSY', { operation: 'execute', detail: 'too much waits to be written' });
  }

  private newest(key: Key): Present | null {
    const ahead = this.ahead.get(key);
    if (ahead !== undefined) return ahead.present;
    const cell = this.content.index.find(key);
    return cell && { value: valueOf(cell), version: cell.version, expiresAtMs: cell.expiresAtMs };
  }

  /** It changes nothing, but it has seen what may not be committed yet. */
  private answerRead(result: TransactionResult, done: KvDone<TransactionResult>): void {
    const answer: LogDone = (error) => {
      if (error !== null) return done(error, null);
      this.log.rightToRead((refused) => done(refused, refused === null ? result : null));
    };
    const batch = this.lastUncommitted;
    if (batch === null) queueMicrotask(() => answer(this.over));
    else batch.done.push(answer);
  }

  private repeated({ session, request, since }: RequestId, done: KvDone<TransactionResult>): boolean {
    const unanswered = this.unanswered.get(session, request);
    if (unanswered !== undefined) {
      const { result } = unanswered;
      if (result === null) unanswered.waiting.push(done);
      else this.log.rightToRead((error) => done(error, error === null ? result : null));
      return true;
    }
    const found = this.forgetting.find(session, request, since);
    if (found === 'new') return false;
    if (!this.rules.answersStay && found !== 'lost' && found.version <= this.foundVersion) return false;
    if (found === 'lost' || found.result.length === 0) {
      const detail =
        found === 'lost'
          ? 'the session, or the request, is no longer known'
          : 'it was executed; its answer was not kept';
      const error = new HoldfastError('OUTCOME_UNKNOWN', { operation: 'execute', detail });
      queueMicrotask(() => done(error, null));
    } else {
      const result = decodeResult(found.result);
      this.log.rightToRead((error) => done(error, error === null ? result : null));
    }
    return true;
  }

  private answerOf({ session, request, floor }: RequestId, result: TransactionResult): NewItem {
    const encoded = encodeResult(result);
    const kept = encoded.length > MAX_KEPT_ANSWER_BYTES ? EMPTY : encoded;
    return { kind: ANSWER, version: result.version, session, request, floor, result: kept };
  }

  private noteId(id: RequestId, done: KvDone<TransactionResult>, batch: Batch, result: TransactionResult): void {
    const unanswered: Unanswered = { waiting: [done], result: null };
    this.unanswered.set(id.session, id.request, unanswered);
    batch.done.push((error) => {
      if (error === null) unanswered.result = result;
      for (const one of unanswered.waiting.splice(0)) one(error, unanswered.result);
    });
  }

  private noSpace(bytes: number, deletes: boolean): HoldfastError | null {
    const { cleaner, segments } = this;
    segments.extend(this.log.blocks);
    const needed = blocksOf(1.3 * (this.waitingBytes + (this.open?.bytes ?? 0) + bytes));
    // What is moved, and deletions, may use what is kept back.
    const reserve = (cleaner.reserve - (deletes ? 2 : 0)) * SEGMENT_BLOCKS;
    if (segments.freeBlocks - needed >= reserve) return null;
    cleaner.refused();
    const sizeBytes = segments.count * SEGMENT_BLOCKS * BLOCK_BYTES;
    return full(this.describe().volume, this.content.index.liveBytes, sizeBytes);
  }

  // --- batches ----------------------------------------------------------------------------------------------------------

  private batchFor(bytes: number): Batch {
    if (this.open !== null && this.open.bytes + bytes > MAX_BATCH_BYTES) this.closeOpen();
    this.open ??= {
      items: [],
      bytes: BATCH_HEADER_BYTES,
      version: 0,
      keys: [],
      done: [],
      committed: false,
    };
    return this.open;
  }

  private closeOpen(): void {
    if (this.open === null) return;
    this.waitingBytes += this.open.bytes;
    this.waiting.push(this.open);
    this.open = null;
  }

  private flushSoon(): void {
    if (this.flushing || this.underWay >= MAX_UNDER_WAY) return;
    this.flushing = true;
    this.log.soon(() => {
      this.flushing = false;
      this.flush();
    });
  }

  private flush(): void {
    while (this.over === null && this.underWay < MAX_UNDER_WAY) {
      if (this.waiting.length === 0) this.closeOpen();
      const batch = this.waiting[0];
      if (batch === undefined) return;
      const first = this.segments.take(blocksOf(batch.bytes));
      // Room was left when it was taken on; now it has to be made.
      if (first === null) return this.cleaner.pump();
      this.waiting.shift();
      this.waitingBytes -= batch.bytes;
      this.writeBatch(batch, first);
    }
  }

  private writeBatch(batch: Batch, first: number): void {
    this.written.set(first, batch);
    this.lastWritten = batch;
    this.underWay++;
    const { items, bytes } = batch;
    const forgotten = this.forgetting.next();
    const encode: Encode = (into) => encodeBatch(into, 'new', items, forgotten);
    this.log.write(first, bytes, encode, (error) => {
      this.underWay--;
      batch.committed = true;
      if (error !== null) this.giveUp(error);
      for (const one of batch.done.splice(0)) one(error);
      this.cleaner.written(blocksOf(bytes));
      this.flush();
    });
  }

  /** What waits was worked out behind it. What was written before goes on; reads see what is applied. */
  private giveUp(error: HoldfastError): void {
    this.voided ??= error;
    this.closeOpen();
    for (const batch of this.waiting.splice(0)) for (const one of batch.done.splice(0)) one(error);
    this.waitingBytes = 0;
  }

  /** It is of no more use, for want of space, and nothing of it is under way: another one may begin with what is applied. */
  get spent(): boolean {
    return this.voided?.code === 'NO_SPACE' && this.underWay === 0 && !this.content.isBehind(null);
  }

  private writeMoved(items: NewItem[], bytes: number, done: LogDone): boolean {
    const first = this.over === null ? this.segments.take(blocksOf(bytes)) : null;
    if (first === null) return false;
    this.moved.set(first, done);
    const { forgotten } = this.forgetting;
    this.log.write(
      first,
      bytes,
      (into) => encodeBatch(into, 'moved', items, forgotten),
      () => {},
    );
    return true;
  }

  private applied({ first, bytes }: BlockChange): void {
    // Zeros that begin where a batch is to come do not stand for it.
    if (bytes === null) return this.cleaner.pump();
    const batch = this.written.get(first);
    const moved = this.moved.get(first);
    if (batch !== undefined) {
      this.written.delete(first);
      this.segments.arrived(first);
      for (const item of batch.items) if (item.kind === ANSWER) this.unanswered.delete(item.session, item.request);
      for (const key of batch.keys) {
        const ahead = this.ahead.get(key);
        const applied = this.content.index.newestOf(key)?.version ?? 0;
        if (ahead !== undefined && ahead.version <= applied) this.ahead.delete(key);
      }
      this.watchers.look();
    } else if (moved !== undefined) {
      this.moved.delete(first);
      this.segments.arrived(first);
      moved(null);
    }
    this.cleaner.pump();
    if (this.waiting.length > 0) this.flush();
  }

  // --- time, and the end ------------------------------------------------------------------------------------------------

  /** Every 20 ms or so. */
  tick(): void {
    if (this.over !== null) return;
    this.segments.extend(this.log.blocks);
    const nowMs = this.log.now();
    const steps: Transaction['steps'] = [];
    while (this.rules.logExpiry && steps.length < MAX_EXPIRED && this.waitingBytes === 0) {
      const expiry = this.expiries.due(nowMs);
      if (expiry === null) break;
      const { key } = expiry;
      const present = this.newest(key);
      if (present === null || present.expiresAtMs === 0) continue;
      if (present.expiresAtMs <= nowMs) steps.push({ type: 'delete', key, previous: false });
    }
    // One that fails is found again: by the next primary, or here.
    if (steps.length > 0) {
      this.execute({ conditions: [], steps }, null, (error) => {
        if (error !== null && this.over === null) for (const { key } of steps) this.expiries.add(key, nowMs);
      });
    }
    this.watchers.look();
    this.cleaner.tick();
    this.flush();
  }

  /** It is primary no more. Whoever waits may ask again elsewhere; without an id, what became of it is unknown. */
  end(error: HoldfastError): void {
    if (this.over !== null) return;
    this.over = error;
    this.content.onApplied = null;
    this.cleaner.end();
    const batches = [...this.written.values(), ...this.waiting, ...(this.open === null ? [] : [this.open])];
    for (const batch of batches) for (const one of batch.done.splice(0)) one(error);
    this.waiting.length = 0;
    this.open = null;
    this.watchers.end(error);
  }
}

function itemOf(key: Key, present: Present | null, version: number): NewItem {
  if (present === null) return { kind: DELETE, key, version, expiresAtMs: 0, value: EMPTY };
  return { kind: PUT, key, version, expiresAtMs: present.expiresAtMs, value: present.value };
}
