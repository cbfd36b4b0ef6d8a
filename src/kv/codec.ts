/** Key-value requests and their answers, as bytes: on the wire, and the answers of sessions in batches. Pure. */
import { Reader, Writer } from './bytes.ts';
import type {
  Condition,
  Entry,
  Expiry,
  Key,
  KvInfo,
  RequestId,
  ScanPage,
  ScanRequest,
  Step,
  StepResult,
  Transaction,
  TransactionResult,
  WatchPage,
  WatchRequest,
} from './operations.ts';

const CONDITIONS = ['absent', 'present', 'version', 'value'] as const;
const STEPS = ['get', 'put', 'delete', 'add', 'expire'] as const;
const WHEN = ['always', 'absent', 'present'] as const;
const EXPIRIES = ['none', 'keep', 'at', 'after'] as const;
const PROBLEMS = ['NOT_AN_INTEGER', 'OVERFLOW'] as const;
const OPERATIONS = ['get', 'execute', 'scan', 'size', 'watch', 'info'] as const;

/** What one message of our protocol asks for. */
export type KvRequest =
  | { operation: 'get'; keys: Key[] }
  | { operation: 'execute'; transaction: Transaction; id: RequestId | null }
  | { operation: 'scan'; scan: ScanRequest }
  | { operation: 'size' }
  | { operation: 'watch'; watch: WatchRequest }
  | { operation: 'info' };

export function encodeRequest(request: KvRequest): Buffer {
  const w = new Writer();
  w.u8(OPERATIONS.indexOf(request.operation));
  switch (request.operation) {
    case 'get':
      w.u32(request.keys.length);
      for (const key of request.keys) w.key(key);
      break;
    case 'execute': {
      const { transaction, id } = request;
      w.u8(id === null ? 0 : 1);
      if (id !== null) {
        w.i64(id.session);
        w.number(id.request);
        w.number(id.floor);
        w.number(id.since);
      }
      w.u32(transaction.conditions.length);
      for (const condition of transaction.conditions) putCondition(w, condition);
      w.u32(transaction.steps.length);
      for (const step of transaction.steps) putStep(w, step);
      break;
    }
    case 'scan': {
      const { prefix, from, end, limit, keysOnly } = request.scan;
      w.key(prefix);
      w.key(from);
      w.u8(end === null ? 0 : 1);
      w.key(end ?? '');
      w.u32(limit);
      w.u8(keysOnly ? 1 : 0);
      break;
    }
    case 'watch': {
      const { prefix, after, limit, waitMs } = request.watch;
      w.key(prefix);
      w.number(after);
      w.u32(limit);
      w.u32(waitMs);
      break;
    }
    default:
  }
  return w.end();
}

/** @throws HoldfastError BAD_FRAME */
export function decodeRequest(bytes: Uint8Array): KvRequest {
  const r = new Reader(bytes);
  const request = takeRequest(r);
  r.end();
  return request;
}

function takeRequest(r: Reader): KvRequest {
  const operation = r.one(OPERATIONS);
  switch (operation) {
    case 'get':
      return { operation, keys: list(r, 4, () => r.key()) };
    case 'execute': {
      const hasId = r.u8() === 1;
      const id = hasId ? { session: r.u64(), request: r.number(), floor: r.number(), since: r.number() } : null;
      const conditions = list(r, 5, () => takeCondition(r));
      return { operation, id, transaction: { conditions, steps: list(r, 5, () => takeStep(r)) } };
    }
    case 'scan': {
      const [prefix, from] = [r.key(), r.key()];
      const [hasEnd, end] = [r.u8() === 1, r.key()];
      return { operation, scan: { prefix, from, end: hasEnd ? end : null, limit: r.u32(), keysOnly: r.u8() === 1 } };
    }
    case 'watch':
      return { operation, watch: { prefix: r.key(), after: r.number(), limit: r.u32(), waitMs: r.u32() } };
    default:
      return { operation };
  }
}

function list<T>(r: Reader, leastBytes: number, take: () => T): T[] {
  return Array.from({ length: r.count(leastBytes) }, take);
}

function putCondition(w: Writer, condition: Condition): void {
  w.u8(CONDITIONS.indexOf(condition.is));
  w.key(condition.key);
  if (condition.is === 'version') w.number(condition.version);
  if (condition.is === 'value') w.blob(condition.value);
}

function takeCondition(r: Reader): Condition {
  const is = r.one(CONDITIONS);
  const key = r.key();
  if (is === 'version') return { is, key, version: r.number() };
  return is === 'value' ? { is, key, value: r.blob() } : { is, key };
}

function putExpiry(w: Writer, expiry: Expiry): void {
  const name = typeof expiry === 'string' ? expiry : 'atMs' in expiry ? 'at' : 'after';
  w.u8(EXPIRIES.indexOf(name));
  if (typeof expiry !== 'string') w.number('atMs' in expiry ? expiry.atMs : expiry.afterMs);
}

function takeExpiry(r: Reader): Expiry {
  const name = r.one(EXPIRIES);
  if (name === 'none' || name === 'keep') return name;
  return name === 'at' ? { atMs: r.number() } : { afterMs: r.number() };
}

function putStep(w: Writer, step: Step): void {
  w.u8(STEPS.indexOf(step.type));
  w.key(step.key);
  if (step.type === 'put') {
    w.blob(step.value);
    w.u8(WHEN.indexOf(step.when));
  }
  if (step.type === 'put' || step.type === 'delete') w.u8(step.previous ? 1 : 0);
  if (step.type === 'put' || step.type === 'expire') putExpiry(w, step.expiry);
  if (step.type === 'add') w.i64(step.delta);
}

function takeStep(r: Reader): Step {
  const type = r.one(STEPS);
  const key = r.key();
  switch (type) {
    case 'put': {
      const [value, when, previous] = [r.blob(), r.one(WHEN), r.u8() === 1];
      return { type, key, value, when, previous, expiry: takeExpiry(r) };
    }
    case 'delete':
      return { type, key, previous: r.u8() === 1 };
    case 'expire':
      return { type, key, expiry: takeExpiry(r) };
    case 'add':
      return { type, key, delta: r.i64() };
    default:
      return { type, key };
  }
}

export function encodeResult({ applied, version, results }: TransactionResult): Buffer {
  const w = new Writer();
  w.u8(applied ? 1 : 0);
  w.number(version);
  w.u32(results.length);
  for (const result of results) putStepResult(w, result);
  return w.end();
}

/** @throws HoldfastError BAD_FRAME */
export function decodeResult(bytes: Uint8Array): TransactionResult {
  const r = new Reader(bytes);
  const result = { applied: r.u8() === 1, version: r.number(), results: list(r, 10, () => takeStepResult(r)) };
  r.end();
  return result;
}

function putStepResult(w: Writer, { done, existed, value, version, expiresAtMs, problem }: StepResult): void {
  w.u8((done ? 1 : 0) | (existed ? 2 : 0) | (value === null ? 0 : 4) | (expiresAtMs === null ? 0 : 8));
  w.u8(problem === undefined ? 0 : 1 + PROBLEMS.indexOf(problem));
  w.number(version);
  if (value !== null) w.blob(value);
  if (expiresAtMs !== null) w.number(expiresAtMs);
}

function takeStepResult(r: Reader): StepResult {
  const flags = r.u8();
  const problem = PROBLEMS[r.u8() - 1];
  const version = r.number();
  return {
    done: (flags & 1) !== 0,
    existed: (flags & 2) !== 0,
    version,
    value: (flags & 4) === 0 ? null : r.blob(),
    expiresAtMs: (flags & 8) === 0 ? null : r.number(),
    ...(problem !== undefined && { problem }),
  };
}

function putEntry(w: Writer, entry: Entry | null): void {
  w.u8(entry === null ? 0 : 1 | (entry.value === null ? 0 : 2) | (entry.expiresAtMs === null ? 0 : 4));
  if (entry === null) return;
  w.key(entry.key);
  w.number(entry.version);
  if (entry.value !== null) w.blob(entry.value);
  if (entry.expiresAtMs !== null) w.number(entry.expiresAtMs);
}

function takeEntry(r: Reader): Entry | null {
  const flags = r.u8();
  if (flags === 0) return null;
  const [key, version] = [r.key(), r.number()];
  const value = (flags & 2) === 0 ? null : r.blob();
  return { key, version, value, expiresAtMs: (flags & 4) === 0 ? null : r.number() };
}

/** Of get, scan and watch; `next`: of a scan, `version`: of a watch. */
function encodeEntries(entries: ReadonlyArray<Entry | null>, next: Key | null, version: number, stale = false): Buffer {
  const w = new Writer();
  w.u8((next === null ? 0 : 1) | (stale ? 2 : 0));
  w.key(next ?? '');
  w.number(version);
  w.u32(entries.length);
  for (const entry of entries) putEntry(w, entry);
  return w.end();
}

function decodeEntries(bytes: Uint8Array): { entries: Array<Entry | null>; next: Key | null; version: number } {
  const r = new Reader(bytes);
  const [hasNext, next, version] = [(r.u8() & 1) !== 0, r.key(), r.number()];
  const entries = list(r, 1, () => takeEntry(r));
  r.end();
  return { entries, next: hasNext ? next : null, version };
}

export const encodeFound = (entries: ReadonlyArray<Entry | null>, stale?: boolean): Buffer =>
  encodeEntries(entries, null, 0, stale);
export const decodeFound = (bytes: Uint8Array): Array<Entry | null> => decodeEntries(bytes).entries;
export const encodePage = ({ entries, next }: ScanPage, stale?: boolean): Buffer =>
  encodeEntries(entries, next, 0, stale);
/** Of the reply to get and scan: nobody vouches for it. */
export const isStale = (bytes: Uint8Array): boolean => (bytes[0]! & 2) !== 0;
export const encodeChanges = ({ changes, version }: WatchPage): Buffer => encodeEntries(changes, null, version);

export function decodePage(bytes: Uint8Array): ScanPage {
  const { entries, next } = decodeEntries(bytes);
  return { entries: entries as Entry[], next };
}

export function decodeChanges(bytes: Uint8Array): WatchPage {
  const { entries, version } = decodeEntries(bytes);
  return { changes: entries as Entry[], version };
}

export function encodeNumber(value: number): Buffer {
  const w = new Writer();
  w.number(value);
  return w.end();
}

export function decodeNumber(bytes: Uint8Array): number {
  const r = new Reader(bytes);
  const value = r.number();
  r.end();
  return value;
}

/** As JSON: it is for people, and may get more fields. */
export const encodeInfo = (info: KvInfo): Buffer => Buffer.from(JSON.stringify(info), 'utf8');
export const decodeInfo = (bytes: Uint8Array): KvInfo => JSON.parse(Buffer.from(bytes).toString('utf8')) as KvInfo;
