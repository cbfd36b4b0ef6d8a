/**
 * What clients of a key-value volume did and saw: one history per register, which is a key, or two keys that are always
 * written together; what each version of a key was seen to be; and what watchers were told.
 *
 * Values are numbers: those that clients write name one write each, 0 is a key that is not there, counters and accounts
 * are what they are.
 */
import type { Entry, Key } from '../../src/kv/operations.ts';
import { type BlockOp, seenIn, violation } from './linearizable.ts';

const ID_BYTES = 10;
/** Registers: plain keys, keys with large values, pairs of keys, counters, accounts. */
export const PLAIN: readonly Key[] = Array.from({ length: 6 }, (_, i) => `r/${i}`);
export const LARGE: readonly Key[] = Array.from({ length: 24 }, (_, i) => `f/${String(i).padStart(2, '0')}`);
export const PAIRS: readonly Key[] = ['p/0', 'p/1'];
export const COUNTERS: readonly Key[] = ['n/0', 'n/1'];
export const ACCOUNTS: readonly Key[] = ['c/0', 'c/1', 'c/2', 'c/3'];
/** Between two clocks at most. */
export const SKEW_MS = 120;

export const pairOf = (register: Key): [Key, Key] => [`${register}/a`, `${register}/b`];
export const registerOf = (key: Key): Key => (key.startsWith('p/') ? key.slice(0, 3) : key);
/** What a register consists of. */
export const keysOf = (register: Key): Key[] => (register.startsWith('p/') ? pairOf(register) : [register]);
const isNumber = (key: Key): boolean => key.startsWith('n/') || key.startsWith('c/');

export function encodeValue(id: number, bytes: number): Uint8Array {
  const value = new Uint8Array(Math.max(ID_BYTES, bytes)).fill(id % 251);
  value.set(Buffer.from(String(id).padStart(ID_BYTES, '0'), 'latin1'));
  return value;
}

const TORN = Number.MIN_SAFE_INTEGER;

/** @returns `TORN` if it is */
export function decodeValue(key: Key, value: Uint8Array): number {
  const bytes = Buffer.from(value.buffer, value.byteOffset, value.length);
  if (isNumber(key)) return Number(bytes.toString('latin1'));
  const id = Number(bytes.toString('latin1', 0, ID_BYTES));
  // All of the rest is one byte: each is as the one before.
  const rest = bytes.subarray(ID_BYTES);
  const whole = rest.length === 0 || (rest[0] === id % 251 && rest.subarray(1).equals(rest.subarray(0, -1)));
  return whole ? id : TORN;
}

/** What a watcher was told: all changes of versions in these ranges. */
export interface Watched {
  name: string;
  prefix: Key;
  ranges: Array<{ after: number; upTo: number }>;
  told: Set<string>;
}

const nameOf = (version: number, key: Key): string => `${version} ${key}`;

export class KvHistories {
  readonly registers: Map<Key, BlockOp[]> = new Map();
  /** From when on values may expire. */
  readonly fades: Map<number, number> = new Map();
  readonly watched: Watched[] = [];
  /** Of the newest change that a client knows of. */
  newest = 0;
  private readonly fail: (reason: string) => void;
  /** What key had which value at which version. */
  private readonly facts: Map<string, { version: number; key: Key; value: number }> = new Map();
  private readonly versions: Map<number, number> = new Map();
  private nextValue = 1;

  constructor(fail: (reason: string) => void) {
    this.fail = fail;
  }

  value(): number {
    return this.nextValue++;
  }

  of(register: Key): BlockOp[] {
    let ops = this.registers.get(register);
    if (ops === undefined) this.registers.set(register, (ops = []));
    return ops;
  }

  /** It is known to have had no effect. */
  drop(register: Key, op: BlockOp): void {
    const ops = this.of(register);
    ops.splice(ops.indexOf(op), 1);
  }

  /** A key was seen to be that since that version. A version of a key is one thing for ever. */
  fact(who: string, version: number, key: Key, value: number): void {
    const name = nameOf(version, key);
    const known = this.facts.get(name);
    if (known === undefined) this.facts.set(name, { version, key, value });
    else if (known.value !== value) {
      this.fail(`${who}: ${key} is ${value} at version ${version}, and was ${known.value}`);
    }
    // Each write writes another value: one that is there at two versions was executed twice.
    if (value > 0 && !isNumber(key)) {
      const was = this.versions.get(value) ?? version;
      if (was !== version) this.fail(`${who}: ${key} became ${value} at version ${was}, and again at ${version}`);
      this.versions.set(value, version);
    }
    if (value === TORN || Number.isNaN(value)) this.fail(`${who}: ${key} is torn at version ${version}`);
    this.newest = Math.max(this.newest, version);
  }

  /** Of the transaction that wrote it. */
  versionOf(value: number): number | null {
    return this.versions.get(value) ?? null;
  }

  /**
   * One state of the volume was seen.
   * @param asked keys that were looked for
   */
  saw(who: string, asked: readonly Key[], found: readonly Entry[], calledMs: number, answeredMs: number): void {
    const entries = new Map(found.map((entry) => [entry.key, entry]));
    const values = new Map<Key, { value: number; version: number }>();
    let sum = 0;
    let accounts = 0;
    for (const key of new Set([...asked, ...entries.keys()])) {
      const entry = entries.get(key);
      const value = entry === undefined ? 0 : decodeValue(key, entry.value!);
      if (entry !== undefined) this.fact(who, entry.version, key, value);
      if (key.startsWith('c/')) [sum, accounts] = [sum + value, accounts + 1];
      const register = registerOf(key);
      const other = values.get(register);
      const version = entry?.version ?? 0;
      if (other !== undefined && (other.value !== value || other.version !== version)) {
        this.fail(`${who}: ${register} is torn: ${other.value} at ${other.version}, ${value} at ${version}`);
      }
      if (other !== undefined) continue;
      values.set(register, { value, version });
      this.of(register).push({ kind: 'read', value, calledMs, answeredMs, who });
    }
    if (accounts === ACCOUNTS.length && sum !== 0) this.fail(`${who}: the accounts come to ${sum}`);
  }

  /** @returns what is wrong, or null */
  check(): string | null {
    for (const [register, history] of this.registers) {
      const wrong = violation(certain(history), this.fades) ?? this.miscounted(register, history);
      if (wrong !== null) return `${register}: ${wrong}`;
    }
    for (const watched of this.watched) {
      const wrong = this.missed(watched);
      if (wrong !== null) return wrong;
    }
    return null;
  }

  /** The last read of a counter is no less than what was acknowledged, and no more than with all that was not answered. */
  private miscounted(register: Key, history: readonly BlockOp[]): string | null {
    if (!register.startsWith('n/')) return null;
    const last = history.findLast(({ kind }) => kind === 'read');
    if (last === undefined) return null;
    const added = (known: boolean): number =>
      history
        .filter((op) => op.adds === true && op.calledMs < last.answeredMs && (!known || op.answeredMs < last.calledMs))
        .reduce((sum, { value }) => sum + value, 0);
    if (last.value >= added(true) && last.value <= added(false)) return null;
    return `it is ${last.value}, ${added(true)} were added for certain, ${added(false)} at most`;
  }

  private missed({ name, prefix, ranges, told }: Watched): string | null {
    for (const { version, key, value } of this.facts.values()) {
      if (!key.startsWith(prefix) || told.has(nameOf(version, key))) continue;
      const range = ranges.find(({ after, upTo }) => version > after && version <= upTo);
      if (range !== undefined) return `${name} was not told that ${key} is ${value} since version ${version}`;
    }
    return null;
  }

  /** A watcher was told so. */
  tell(watched: Watched, version: number, key: Key, value: number): void {
    const name = nameOf(version, key);
    if (watched.told.has(name)) this.fail(`${watched.name} is told twice that ${key} changed at version ${version}`);
    watched.told.add(name);
    this.fact(watched.name, version, key, value);
  }
}

/**
 * Without refusals that a change of which nobody knows may be the reason of: a change that was never answered, and whose
 * value nobody saw.
 */
function certain(history: readonly BlockOp[]): BlockOp[] {
  const seen = seenIn(history);
  const unseen = history.filter(
    ({ kind, value, answeredMs }) => kind !== 'read' && answeredMs === Infinity && !seen.has(value),
  );
  const since = Math.min(...unseen.map(({ calledMs }) => calledMs), Infinity);
  return history.filter(({ refusal, answeredMs }) => refusal !== true || answeredMs < since);
}
