/**
 * ReplicatedStore: what the replication core needs of anything that it replicates. The layer above assigns positions,
 * marks blocks, decides what is committed and when a record may be applied, and acknowledges; the store makes records
 * durable, applies them and reads. The steps are separate from the first day, so that a group of one and a group of
 * five are the same store.
 *
 * Guarantees every store gives: records become durable in the order in which they were appended; `durable` names the
 * last position of an unbroken prefix; nothing but `apply` of a durable, committed record changes what `read` sees
 * (I9); after a failed write or sync nothing is acknowledged any more (`failed`).
 */
import type { HoldfastError } from '../base/errors.ts';
import type { Position } from '../base/position.ts';
import type { Slot } from '../storage/arena.ts';
import type { RecordFields } from '../storage/record.ts';

/** A record on its way from append to apply. The slot belongs to the record until the layer above releases it. */
export interface LogRecord extends RecordFields {
  slot: Slot;
  /** Who uses the slot: whoever applies it, and each peer's socket. The last one releases it. */
  users: number;
  /** The encoded record, header and payload, in the slot: set when it is appended. It is what travels to peers. */
  bytes?: Uint8Array;
  /** CRC of these, once somebody has asked for it. */
  bytesCrc?: number;
  /** Unseeded CRC of the payload, 0 without one. `slot.crcs` holds that of each block. */
  payloadCrc: number;
}

/** Rules that tests switch off to see that they would notice (see rules.ts); the product always runs with all of them. */
export interface StoreRules {
  /** The records that open an epoch are applied together with its EPOCH record, or not at all. */
  wholeGroups: boolean;
  /** ... by a recovery too. */
  replayWholeGroups: boolean;
  /** What is not known to be committed is suspect before the tail passes it (I8): at a change of role, */
  suspectAtSettle: boolean;
  /** ... and when a store is opened. */
  suspectAtOpen: boolean;
  /** `data` changes only by records that are durable in the journal (I9). */
  journalFirst: boolean;
  /** ... and known to be committed. */
  commitFirst: boolean;
}

export interface StoreEvents {
  /** Everything up to this position is durable here. */
  durable(position: Position): void;
  /** A record without a position is durable here. */
  localDurable?(record: LogRecord): void;
  /** Records may be appended again after `hasRoom` said no. */
  room(): void;
  /** A read met a block that does not match its checksum; whoever read it was told before. */
  corrupt?(block: number): void;
  /** The store is poisoned: it stops for good. Called once. */
  failed(error: HoldfastError): void;
}

/** Follows what becomes of the blocks, for what is derived from them: a key-value volume's index. */
export interface ContentObserver {
  /** About blocks. `opening`: of an epoch whose EPOCH record is not here yet, so that it may come to nothing. */
  appended(record: LogRecord, opening: boolean): void;
  /** Later, for each of them. `effect`: the blocks are now as the record says; it did not come to nothing. */
  applied(record: LogRecord, effect: boolean): void;
}

export interface ReplicatedStore {
  readonly sizeBytes: number;
  readonly blocks: number;
  /** What there is room for: more than `blocks` while the volume grows. */
  readonly capacityBlocks: number;
  /** The epoch of this opening. */
  readonly epoch: number;
  /** Last appended position. */
  readonly lastPosition: Position;
  /** Whether a client's record with so many payload blocks may be appended now. */
  hasRoom(payloadBlocks: number): boolean;
  /** Keeps room for a record that will be appended later, or not (`unreserve`). To be called after `hasRoom` said yes. */
  reserve(payloadBlocks: number): void;
  unreserve(payloadBlocks: number): void;
  /** Its position must be the successor of `lastPosition`. */
  append(record: LogRecord): void;
  /** What is committed: only such records may be applied, and the tail passes no other. */
  commit(position: Position): void;
  /** Applies a committed record. The caller keeps overlapping records in order and readers of its blocks away. */
  apply(record: LogRecord, done: (error: HoldfastError | null) => void): void;
  /** Reads whole blocks into the front of the slot's payload, verified. `crc`: unseeded, of all of it. */
  readBlocks(first: number, count: number, slot: Slot, done: (error: HoldfastError | null, crc: number) => void): void;
}
