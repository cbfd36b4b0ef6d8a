/**
 * A client of a simulated key-value volume: it calls under a session, one transaction after another, repeats what was not
 * answered as the client library does, reads at the primary and at backups, and notes what it did and saw.
 */
import { HoldfastError } from '../../src/base/errors.ts';
import type {
  Condition,
  Entry,
  Key,
  KvVolume,
  RequestId,
  Step,
  StepResult,
  TransactionResult,
} from '../../src/kv/operations.ts';
import type { HostedKv } from '../../src/node/hosted-kv.ts';
import type { Cluster } from './cluster.ts';
import {
  ACCOUNTS,
  COUNTERS,
  type KvHistories,
  LARGE,
  PAIRS,
  PLAIN,
  SKEW_MS,
  decodeValue,
  encodeValue,
  pairOf,
} from './kv-histories.ts';
import { KvSession, type Patience } from './kv-session.ts';
import type { BlockOp } from './linearizable.ts';

const PLAINLY = { expiry: 'none', when: 'always', previous: false } as const;
const SCAN_LIMIT = 1000;

/** What clients do, in shares of 1. */
export interface KvHabits extends Patience {
  thinkMs: number;
  readShare: number;
  /** Of the reads: at a backup; of several keys, or of a prefix. */
  backupShare: number;
  scanShare: number;
  /** Of the changes: pairs, counters, accounts, large values; the rest are plain keys. */
  pairShare: number;
  countShare: number;
  accountShare: number;
  largeShare: number;
  largeBytes: number;
  /** Of the changes of counters: with a large value. */
  heavyShare: number;
  /** Of the changes of plain keys. */
  deleteShare: number;
  compareShare: number;
  expiryShare: number;
  /** Transactions that cannot be repeated. */
  namelessShare: number;
  roamShare: number;
}

export const KV_HABITS: KvHabits = {
  thinkMs: 24,
  patienceMs: 350,
  patientShare: 0.3,
  readShare: 0.45,
  backupShare: 0.35,
  scanShare: 0.25,
  pairShare: 0.15,
  countShare: 0.15,
  accountShare: 0.1,
  largeShare: 0.25,
  largeBytes: 60_000,
  heavyShare: 0.1,
  deleteShare: 0.2,
  compareShare: 0.3,
  expiryShare: 0.2,
  namelessShare: 0.05,
  lossShare: 0.03,
  abandonShare: 0.1,
  roamShare: 0.02,
};

/** A change of one register: what it does to its history if it happens. */
interface Effect {
  register: Key;
  op: BlockOp;
  /** What the answer says of it. */
  settle: (result: TransactionResult) => void;
}

export class KvClient extends KvSession {
  private readonly habits: KvHabits;
  private readonly histories: KvHistories;
  private request = 0;
  /** What it saw last of each key. */
  private readonly last: Map<Key, number> = new Map();
  answered = 0;
  refused = 0;
  stopAtMs = Infinity;
  idle = false;

  constructor(cluster: Cluster, habits: KvHabits, histories: KvHistories, session: bigint) {
    super(cluster, habits, session, `client ${session}`);
    this.habits = habits;
    this.histories = histories;
  }

  start(): void {
    this.next();
  }

  private next(): void {
    const { world, habits } = this;
    if (world.nowMs >= this.stopAtMs) {
      this.idle = true;
      return;
    }
    world.after(world.random.next() * habits.thinkMs, () => {
      const { random } = world;
      if (random.chance(habits.roamShare)) this.leave();
      if (!random.chance(habits.readShare)) return this.change();
      const backup = random.chance(habits.backupShare);
      if (random.chance(habits.scanShare)) this.scan(backup);
      else this.get(backup);
    });
  }

  // --- changes ---------------------------------------------------------------------------------------------------------

  private change(): void {
    const { random } = this.world;
    const { pairShare, countShare, accountShare, largeShare } = this.habits;
    const roll = random.next();
    if (roll < pairShare) return this.changePair(this.one(PAIRS));
    if (roll < pairShare + countShare) return this.count(this.one(COUNTERS), this.one([1, 10]));
    if (roll < pairShare + countShare + accountShare) return this.transfer();
    if (roll < pairShare + countShare + accountShare + largeShare) return this.changePlain(this.one(LARGE), true);
    this.changePlain(this.one(PLAIN), false);
  }

  private op(kind: BlockOp['kind'], value: number): BlockOp {
    return { kind, value, calledMs: this.world.nowMs, answeredMs: Infinity, who: this.name };
  }

  private bytes(large: boolean): number {
    const { random } = this.world;
    if (large) return random.below(this.habits.largeBytes);
    return random.chance(0.1) ? random.below(20_000) : random.below(300);
  }

  private changePlain(key: Key, large: boolean): void {
    const { world, habits, histories } = this;
    const { random } = world;
    if (random.chance(habits.deleteShare)) return this.delete(key);
    const value = histories.value();
    const bytes = encodeValue(value, this.bytes(large));
    const before = this.last.get(key);
    if (before !== undefined && random.chance(habits.compareShare)) return this.compare(key, before, value, bytes);
    const when = random.chance(0.2) ? 'absent' : 'always';
    const previous = when === 'absent' || random.chance(0.5);
    const afterMs = random.chance(habits.expiryShare) ? 20 + random.below(1000) : null;
    if (afterMs !== null) histories.fades.set(value, world.nowMs + afterMs - SKEW_MS);
    const expiry = afterMs === null ? 'none' : { afterMs };
    const op = this.op('write', value);
    this.execute(
      [],
      [{ type: 'put', key, value: bytes, expiry, when, previous }],
      [
        {
          register: key,
          op,
          settle: ({ version, results: [result] }) => {
            const found = foundBy(key, result!);
            if (!result!.done) {
              if (found === null) this.cluster.fail(`${this.name}: ${key} was not put, and is not there`);
              return becomes(op, 'read', found ?? 0);
            }
            if (previous) finds(op, found ?? 0, value);
            histories.fact(this.name, version, key, value);
          },
        },
      ],
    );
  }

  private delete(key: Key): void {
    const op = this.op('write', 0);
    this.execute(
      [],
      [{ type: 'delete', key, previous: true }],
      [
        {
          register: key,
          op,
          settle: ({ version, results: [result] }) => {
            const found = foundBy(key, result!);
            if (result!.done !== (found !== null)) this.cluster.fail(`${this.name}: ${key} deleted: ${result!.done}`);
            if (!result!.done) becomes(op, 'read', 0);
            else {
              finds(op, found ?? 0, 0);
              this.histories.fact(this.name, version, key, 0);
            }
          },
        },
      ],
    );
  }

  /** By the value that it saw last, or by its version. */
  private compare(key: Key, before: number, value: number, bytes: Uint8Array): void {
    const { histories } = this;
    const version = before === 0 ? 0 : histories.versionOf(before);
    const byVersion = version !== null && this.world.random.chance(0.5);
    if (!byVersion && before !== 0) return this.compareValue(key, before, value, bytes);
    const condition: Condition = byVersion ? { key, is: 'version', version } : { key, is: 'absent' };
    this.swap(key, condition, before, value, bytes);
  }

  private compareValue(key: Key, before: number, value: number, bytes: Uint8Array): void {
    const seen = this.seenBytes.get(key);
    if (seen === undefined || decodeValue(key, seen) !== before) return this.next();
    this.swap(key, { key, is: 'value', value: seen }, before, value, bytes);
  }

  /** Of plain keys that it saw last. */
  private readonly seenBytes: Map<Key, Uint8Array> = new Map();

  private swap(key: Key, condition: Condition, before: number, value: number, bytes: Uint8Array): void {
    const op = this.op('change', value);
    op.apply = (found) => (found === before ? value : null);
    this.execute(
      [condition],
      [{ type: 'put', key, value: bytes, ...PLAINLY }],
      [
        {
          register: key,
          op,
          settle: ({ applied, version }) => {
            if (applied) {
              finds(op, before, value);
              this.histories.fact(this.name, version, key, value);
            } else {
              op.apply = (found) => (found === before ? null : found);
              op.refusal = true;
            }
          },
        },
      ],
    );
  }

  private changePair(register: Key): void {
    const deletes = this.world.random.chance(0.15);
    const value = deletes ? 0 : this.histories.value();
    const op = this.op('write', value);
    const [a, b] = pairOf(register);
    const bytes = encodeValue(value, this.bytes(false));
    const step = (key: Key): Step =>
      deletes
        ? { type: 'delete', key, previous: true }
        : { type: 'put', key, value: bytes, expiry: 'none', when: 'always', previous: true };
    this.execute(
      [],
      [step(a), step(b)],
      [
        {
          register,
          op,
          settle: ({ version, results: [one, two] }) => {
            const found = foundBy(a, one!) ?? 0;
            const other = foundBy(b, two!) ?? 0;
            if (found !== other) this.cluster.fail(`${this.name}: ${register} was torn: ${found} and ${other}`);
            if (!one!.done) becomes(op, 'read', 0);
            else {
              finds(op, found, value);
              for (const key of [a, b]) this.histories.fact(this.name, version, key, value);
            }
          },
        },
      ],
    );
  }

  private adding(key: Key, delta: number, at: number): { step: Step; effect: Effect } {
    const op = this.op('change', delta);
    op.adds = true;
    op.apply = (before) => before + delta;
    const settle = ({ version, results }: TransactionResult): void => {
      const sum = decodeValue(key, results[at]!.value!);
      op.apply = (before) => (before + delta === sum ? sum : null);
      op.found = sum - delta;
      this.histories.fact(this.name, version, key, sum);
    };
    return { step: { type: 'add', key, delta: BigInt(delta) }, effect: { register: key, op, settle } };
  }

  /** Some with much else in the same transaction. */
  private count(key: Key, delta: number): void {
    const { step, effect } = this.adding(key, delta, 0);
    if (!this.world.random.chance(this.habits.heavyShare)) return this.execute([], [step], [effect]);
    const large = this.one(LARGE);
    const value = this.histories.value();
    const op = this.op('write', value);
    const settle = ({ version }: TransactionResult): void => this.histories.fact(this.name, version, large, value);
    this.execute(
      [],
      [step, { type: 'put', key: large, value: encodeValue(value, this.bytes(true)), ...PLAINLY }],
      [effect, { register: large, op, settle }],
    );
  }

  private transfer(): void {
    const from = this.world.random.below(ACCOUNTS.length);
    const to = (from + 1 + this.world.random.below(ACCOUNTS.length - 1)) % ACCOUNTS.length;
    const amount = this.one([1, 5]);
    const [less, more] = [this.adding(ACCOUNTS[from]!, -amount, 0), this.adding(ACCOUNTS[to]!, amount, 1)];
    this.execute([], [less.step, more.step], [less.effect, more.effect]);
  }

  private execute(conditions: Condition[], steps: Step[], effects: Effect[]): void {
    const { world, habits, histories } = this;
    const { random } = world;
    const nameless = random.chance(habits.namelessShare);
    const request = ++this.request;
    // Some are told late what was received.
    const floor = Math.max(1, request - (random.chance(0.3) ? random.below(4) : 0));
    const { session } = this;
    const known = histories.newest;
    let tries = 0;
    for (const { register, op } of effects) histories.of(register).push(op);
    this.mutates = !nameless;
    const lost = (): void => {
      this.newSession();
      this.request = 0;
      this.next();
    };
    this.attempt<TransactionResult>(
      (kv, since, done) => {
        // Without a name it is sent once.
        if (nameless && tries > 0) return done(new HoldfastError('OUTCOME_UNKNOWN'), null);
        tries++;
        const id: RequestId | null = nameless ? null : { session, request, floor, since: since(floor === request) };
        kv.execute({ conditions, steps }, id, done);
      },
      (error, result) => {
        this.mutates = false;
        if (error?.code === 'OUTCOME_UNKNOWN') return lost();
        if (error !== null) {
          this.refused++;
          const expected = error.code === 'NO_SPACE' || error.code === 'POISONED';
          if (!expected) this.cluster.fail(`${this.name}: ${error.message}`);
          // Who refuses what was sent before may not be primary any more.
          if (tries > 1 || error.code !== 'NO_SPACE') return lost();
          for (const { register, op } of effects) histories.drop(register, op);
          return this.next();
        }
        this.answered++;
        if (result!.applied && result!.results.some(({ done }) => done) && result!.version <= known) {
          this.cluster.fail(`${this.name}: version ${result!.version} comes behind ${known}, which was known before`);
        }
        for (const { op, settle } of effects) {
          op.answeredMs = world.nowMs;
          settle(result!);
        }
        this.next();
      },
      lost,
    );
  }

  // --- reads -----------------------------------------------------------------------------------------------------------

  private get(backup: boolean): void {
    const { random } = this.world;
    const keys = random.chance(0.25)
      ? pairOf(this.one(PAIRS))
      : random.chance(0.15)
        ? [...ACCOUNTS]
        : random.chance(0.3)
          ? [this.one(PLAIN), this.one(LARGE), this.one(COUNTERS)]
          : [this.one(random.chance(0.7) ? PLAIN : LARGE)];
    this.read<Array<Entry | null>>(
      backup,
      (kv, done) => kv.get(keys, done),
      (found, calledMs, where) => {
        const present = found.filter((entry) => entry !== null);
        this.saw(keys, present, calledMs, where);
      },
    );
  }

  private scan(backup: boolean): void {
    const prefix = this.one(['r/', 'p/', 'c/', 'n/', 'f/']);
    const all = [...PLAIN, ...LARGE, ...PAIRS.flatMap(pairOf), ...ACCOUNTS, ...COUNTERS];
    this.read<{ entries: Entry[]; next: Key | null }>(
      backup,
      (kv, done) => kv.scan({ prefix, from: '', end: null, limit: SCAN_LIMIT, keysOnly: false }, done),
      ({ entries, next }, calledMs, where) => {
        const asked = all.filter((key) => key.startsWith(prefix) && (next === null || key < next));
        this.saw(asked, entries, calledMs, where);
      },
    );
  }

  private saw(asked: readonly Key[], found: readonly Entry[], calledMs: number, where: string): void {
    const { histories, name } = this;
    this.answered++;
    histories.saw(`${name} at ${where}`, asked, found, calledMs, this.world.nowMs);
    for (const key of asked) {
      this.last.set(key, 0);
      this.seenBytes.delete(key);
    }
    for (const { key, value } of found) {
      this.last.set(key, decodeValue(key, value!));
      if (key.startsWith('r/')) this.seenBytes.set(key, value!.slice());
    }
  }

  private read<T>(
    backup: boolean,
    call: (kv: KvVolume, done: (error: HoldfastError | null, result: T | null) => void) => void,
    saw: (result: T, calledMs: number, where: string) => void,
  ): void {
    const { world } = this;
    const called = world.nowMs;
    const atPrimary = (): void =>
      this.attempt<T>(
        (kv, _since, done) => call(kv, done),
        (error, result) => {
          if (error === null) saw(result!, called, 'the primary');
          else world.note(`${this.name}: a read failed: ${error.message}`);
          this.next();
        },
      );
    const backups = this.cluster.nodes.filter(({ kvReads }) => kvReads !== null);
    if (!backup || backups.length === 0) return atPrimary();
    const node = this.one(backups);
    const served = node.kvReads!;
    const kv: HostedKv | null = node.kv;
    let over = false;
    const elsewhere = (): void => {
      if (over) return;
      over = true;
      atPrimary();
    };
    world.after(this.habits.patienceMs, elsewhere);
    node.receive(() => {
      const volume = kv?.current ?? null;
      if (over || node.kvReads !== served || volume === null) return elsewhere();
      call(volume, (error, result) => {
        if (over || node.kv !== kv) return;
        if (error !== null) {
          this.cluster.met(node, error);
          return elsewhere();
        }
        over = true;
        saw(result!, called, node.name);
        this.next();
      });
    });
  }
}

/** What a step says that the key was; null: it was not there. */
function foundBy(key: Key, { existed, value }: StepResult): number | null {
  return existed && value !== null ? decodeValue(key, value) : null;
}

/** It is known what it found. */
function finds(op: BlockOp, found: number, value: number): void {
  op.kind = 'change';
  op.value = value;
  op.found = found;
  op.apply = (before) => (before === found ? value : null);
}

/** It changed nothing, and says what is there. */
function becomes(op: BlockOp, kind: 'read', value: number): void {
  op.kind = kind;
  op.value = value;
}
