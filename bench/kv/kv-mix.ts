/**
 * Mixes of operations on keys, and which key each operation takes: uniform, zipfian, or the workloads A to F as YCSB
 * publishes them (Cooper et al., Benchmarking Cloud Serving Systems with YCSB, 2010, and its workload files): zipfian with
 * 0.99, latest for D, scans of 1 to 100 keys for E, read-modify-write for F.
 *
 * Guarantees: everything follows from the seed; shares add up to 1; a key that is drawn is there if the load put keys 0 to
 * n - 1 and inserts were answered, also while inserts are under way.
 */
import { Random, ZipfRanks, scatterer } from '../load/workload.ts';

export const MIX_KINDS = ['read', 'update', 'insert', 'scan', 'readModifyWrite'] as const;
export type MixKind = (typeof MIX_KINDS)[number];
export type Shares = Readonly<Partial<Record<MixKind, number>>>;
export type Distribution = 'uniform' | 'zipf' | 'latest';

export const ZIPF_THETA = 0.99;
export const MAX_SCAN_KEYS = 100;

export const YCSB: Readonly<Record<string, { shares: Shares; distribution: Distribution }>> = {
  a: { shares: { read: 0.5, update: 0.5 }, distribution: 'zipf' },
  b: { shares: { read: 0.95, update: 0.05 }, distribution: 'zipf' },
  c: { shares: { read: 1 }, distribution: 'zipf' },
  d: { shares: { read: 0.95, insert: 0.05 }, distribution: 'latest' },
  e: { shares: { scan: 0.95, insert: 0.05 }, distribution: 'zipf' },
  f: { shares: { read: 0.5, readModifyWrite: 0.5 }, distribution: 'zipf' },
};

/** What the generator is asked for, on a line of stdin. */
export interface MixRequest {
  url: string;
  clients: number;
  /** One of them is given: how long, or how many operations of all clients together. */
  seconds: number | null;
  operations: number | null;
  /** A published workload, by its letter; else the next two count. */
  ycsb: string | null;
  shares: Shares;
  distribution: Distribution;
  keys: number;
  valueBytes: number;
  prefix: string;
  reads: 'primary' | 'any';
  /** Put keys 0 to `keys` - 1 before. */
  load: boolean;
  /** Delete all keys of this form afterwards. */
  clean: boolean;
  seed: number;
  /** So long it runs before anything counts. Default: not at all. */
  warmSeconds?: number;
}

/** Of one kind, or of several together. Microseconds. */
export interface MixLatency {
  count: number;
  meanUs: number;
  p50Us: number;
  p95Us: number;
  p99Us: number;
  p999Us: number;
  maxUs: number;
}

/** Its last line. */
export interface MixResult {
  event: 'result';
  /** From the first request to the last answer. */
  seconds: number;
  operations: number;
  opsPerSecond: number;
  /** Reads and scans; updates, inserts and read-modify-writes. Operations that failed are not among them. */
  reads: MixLatency;
  writes: MixLatency;
  kinds: Partial<Record<MixKind, MixLatency>>;
  errors: number;
  firstError: string | null;
  /** Reads of keys that were absent: answered, and counted among the reads. */
  absent: number;
  loaded: { keys: number; seconds: number } | null;
  cleaned: number | null;
}

const DIGITS = 16;

export const keyOfMix = (prefix: string, index: number): string =>
  `${prefix}key-${String(index).padStart(DIGITS, '0')}`;

/** Whether a key is one that a bench with this prefix may have put. */
export function isKeyOfMix(prefix: string, key: string): boolean {
  const head = `${prefix}key-`;
  return key.startsWith(head) && new RegExp(`^\\d{${DIGITS}}$`).test(key.slice(head.length));
}

/** Keys that are there: 0 to `count` - 1. An insert counts when it and all before it are answered. */
export class KeyCount {
  private acknowledged: number;
  private next: number;
  private readonly early = new Set<number>();

  constructor(count: number) {
    this.acknowledged = count;
    this.next = count;
  }

  get count(): number {
    return this.acknowledged;
  }

  /** @returns the key to insert */
  begin(): number {
    return this.next++;
  }

  /** Also of one that failed: later ones would wait for it for ever. */
  end(index: number): void {
    this.early.add(index);
    while (this.early.delete(this.acknowledged)) this.acknowledged++;
  }
}

/** Which keys one client takes, and what for. */
export class MixDraws {
  private readonly random: Random;
  private readonly shares: ReadonlyArray<readonly [kind: MixKind, upTo: number]>;
  private readonly distribution: Distribution;
  private readonly keys: KeyCount;
  private readonly scatter: (rank: number) => number;
  private readonly loaded: number;
  private ranks: ZipfRanks;
  private ranksOf: number;

  constructor(what: Pick<MixRequest, 'shares' | 'distribution' | 'seed'>, keys: KeyCount, client: number) {
    this.random = new Random(what.seed * 65_537 + client);
    let upTo = 0;
    const given = MIX_KINDS.filter((kind) => (what.shares[kind] ?? 0) > 0);
    this.shares = given.map((kind) => [kind, (upTo += what.shares[kind]!)] as const);
    if (Math.abs(upTo - 1) > 1e-9) throw new RangeError(`shares that add up to ${upTo}`);
    this.distribution = what.distribution;
    this.keys = keys;
    this.loaded = keys.count;
    this.scatter = scatterer(keys.count);
    this.ranks = new ZipfRanks(keys.count, ZIPF_THETA);
    this.ranksOf = keys.count;
  }

  kind(): MixKind {
    const x = this.random.unit();
    return (this.shares.find(([, upTo]) => x < upTo) ?? this.shares.at(-1)!)[0];
  }

  /** Of a key that is there. Popular ones of `zipf` are among those that were loaded, and lie anywhere. */
  key(): number {
    if (this.distribution === 'uniform') return this.random.below(this.keys.count);
    if (this.distribution === 'zipf') return this.scatter(this.ranks.next(this.random) - 1) % this.loaded;
    const { count } = this.keys;
    if (count !== this.ranksOf) [this.ranks, this.ranksOf] = [new ZipfRanks(count, ZIPF_THETA), count];
    return count - this.ranks.next(this.random);
  }

  scanLength(): number {
    return 1 + this.random.below(MAX_SCAN_KEYS);
  }
}
