/**
 * What a key-value volume can be asked, whoever asks: our protocol, the RESP port, the simulator. Callbacks, as in
 * `ServedVolume`: each is called exactly once, never before the call returns.
 *
 * Keys are bytes. Here they are strings of code units 0 to 255 (`latin1`), one for each byte: a map takes them, and
 * their order is the order of the bytes. Values are bytes.
 */
import type { HoldfastError } from '../base/errors.ts';

/** Bytes of a key, one code unit each. */
export type Key = string;

/** Milliseconds of the primary's wall clock. `keep`: what the key has. */
export type Expiry = 'none' | 'keep' | { atMs: number } | { afterMs: number };

/** What must hold for a transaction to have any effect. Versions are those that results name. */
export type Condition =
  | { key: Key; is: 'absent' }
  | { key: Key; is: 'present' }
  | { key: Key; is: 'version'; version: number }
  | { key: Key; is: 'value'; value: Uint8Array };

/** One step of a transaction; it sees the steps before it. */
export type Step =
  | { type: 'get'; key: Key }
  /** `when`: else this step does nothing (`done` is false), the others are not concerned. */
  | {
      type: 'put';
      key: Key;
      value: Uint8Array;
      expiry: Expiry;
      when: 'always' | 'absent' | 'present';
      previous: boolean;
    }
  | { type: 'delete'; key: Key; previous: boolean }
  /** The value as a decimal integer of 64 bits, 0 if absent; `expiry` stays. */
  | { type: 'add'; key: Key; delta: bigint }
  | { type: 'expire'; key: Key; expiry: Expiry };

export interface StepResult {
  /** Whether the step changed something, or for `get`, found something. */
  done: boolean;
  /** Whether the key was there before the step. */
  existed: boolean;
  /** `get`: the value; `put`, `delete` with `previous`: the one before; `add`: the new one. Else null. */
  value: Uint8Array | null;
  /** Of the key before the step, 0 if it was absent; of what a step wrote: the transaction's. */
  version: number;
  /** Of the key before the step; null: never. */
  expiresAtMs: number | null;
  /** `add` only: the step did nothing because of that. */
  problem?: 'NOT_AN_INTEGER' | 'OVERFLOW';
}

export interface Transaction {
  conditions: Condition[];
  steps: Step[];
}

export interface TransactionResult {
  /** False: a condition did not hold, nothing was done, there are no results. */
  applied: boolean;
  /** Grows with every transaction that changes something; of one that did not: the newest. */
  version: number;
  results: StepResult[];
}

export interface Entry {
  key: Key;
  /** Null where only keys were asked for. */
  value: Uint8Array | null;
  version: number;
  expiresAtMs: number | null;
}

export interface ScanRequest {
  prefix: Key;
  /** The first key to be returned is at or after this one. '' for the start. */
  from: Key;
  /** Keys are before this one. Null: no end. */
  end: Key | null;
  /** At most so many. A page ends early, at about 128 KiB. */
  limit: number;
  keysOnly: boolean;
}

export interface ScanPage {
  /** In the order of the keys. One page is one state of the volume; several are not. */
  entries: Entry[];
  /** `from` of the next page. Null: there is none. */
  next: Key | null;
}

export interface KvInfo {
  volume: string;
  role: 'primary' | 'backup';
  /** `in-sync` here is the report's ALIVE, `syncing` its ZOMBIE, anything else DEAD. */
  state: string;
  epoch: number;
  /** Of the newest transaction. */
  version: number;
  keys: number;
  /** Keys that go away by themselves. */
  expiring: number;
  /** This replica makes durable what it acknowledges; not where that was switched off. */
  durable: boolean;
  /** Of keys, values and their headers. */
  liveBytes: number;
  /** On disk. */
  usedBytes: number;
  sizeBytes: number;
  limits: KvLimits;
}

export interface KvLimits {
  maxKeyBytes: number;
  maxValueBytes: number;
  /** Of keys and values of all steps of a transaction. */
  maxTransactionBytes: number;
}

/** Who may repeat a transaction names it so. */
export interface RequestId {
  session: bigint;
  request: number;
  /** The session has the answers of its requests below. */
  floor: number;
  /** The newest version when the session began: one that is not known any more may have acted since. */
  since: number;
}

export interface WatchRequest {
  /** Of keys with this prefix. */
  prefix: Key;
  /** Changes of versions above. */
  after: number;
  /** At most so many; those of one version are not torn apart. */
  limit: number;
  /** Answered without changes after so long. */
  waitMs: number;
}

export interface WatchPage {
  /** In the order of versions. `value` is null where the key was deleted, or has expired. */
  changes: Entry[];
  /** `after` of the next page. */
  version: number;
}

/** `stale`: nobody vouches for it; only of reads, and only where that was chosen. */
export type KvDone<T> = (error: HoldfastError | null, result: T | null, stale?: boolean) => void;

/**
 * A key-value volume as this node serves it. All reads are linearizable.
 *
 * Errors: TOO_LARGE (key, value, transaction), NO_SPACE (the volume is full: it can be read, and keys be deleted),
 * NOT_PRIMARY and BUSY (not answered here, or not now: ask again, elsewhere), OUTCOME_UNKNOWN, OUT_OF_RANGE (`watch`:
 * changes after that version are not kept any more).
 */
export interface KvVolume {
  info(): KvInfo;
  /** In the order of the keys; null: absent. */
  get(keys: Key[], done: KvDone<Array<Entry | null>>): void;
  scan(request: ScanRequest, done: KvDone<ScanPage>): void;
  /** How many keys there are. */
  size(done: KvDone<number>): void;
  /** At the primary only. Waits for changes. */
  watch(request: WatchRequest, done: KvDone<WatchPage>): void;
  /** Atomic, durable on every in-sync replica when it is answered. At most once per `id`, if there is one. */
  execute(transaction: Transaction, id: RequestId | null, done: KvDone<TransactionResult>): void;
}
