/**
 * Files: all that the store asks of an operating system, with completions as events. The worker ring is one
 * implementation, a simulated disk the other, so recovery and checkpoint run the same code under fault injection.
 *
 * Guarantees every implementation gives: a completion comes exactly once, in a later turn, in any order; a transfer is
 * whole or an error (short ones are completed by the implementation); nothing is retried after a failed sync.
 */
import type { HoldfastError } from '../base/errors.ts';
import type { Arena } from './arena.ts';

export type FileName = 'data' | 'journal' | 'meta';

export type IoDone = (error: HoldfastError | null) => void;

/** One verified read: see `readVerified`. Reused memory: `crcs` is shared with the worker that verifies. */
export interface VerifiedRead {
  /** Whole blocks, arena memory. */
  into: Uint8Array;
  /** In: the expected checksum entry of each block. Out: the unseeded CRC of each block. */
  crcs: Uint32Array;
  firstBlock: number;
  seed: number;
}

/** Where a journal write goes: `parts[0..splitAt)` at the first position, the rest at the second (the ring's start). */
export interface JournalWrite {
  parts: Uint8Array[];
  positionBytes: number;
  splitAt: number;
  secondPositionBytes: number;
  /** fdatasync after it. */
  sync: boolean;
  /** How many are in the batch, to be counted. */
  records?: number;
}

export interface Files {
  /** Buffers given to these calls lie in this arena. */
  readonly arena: Arena;
  read(file: FileName, into: Uint8Array, positionBytes: number, done: IoDone): void;
  /**
   * Reads whole blocks of `data`, fills blocks whose entry is ENTRY_ZERO with zeros, verifies the others (a mismatch
   * is read once more). `done` gets the unseeded CRC of all of it; CORRUPT_BLOCK carries the offset of the first bad one.
   */
  readVerified(read: VerifiedRead, done: (error: HoldfastError | null, crc: number) => void): void;
  write(file: FileName, from: Uint8Array, positionBytes: number, done: IoDone): void;
  writeJournal(write: JournalWrite, done: IoDone): void;
  /** fdatasync. */
  sync(file: FileName, done: IoDone): void;
  /** Makes a range of `data` zeros, by a hole where `punch`, else by writing. */
  zero(positionBytes: number, lengthBytes: number, punch: boolean, done: IoDone): void;
}

/** A Files call as a promise, for the paths that are not hot: open, recovery, checkpoint. */
export function io(call: (done: IoDone) => void): Promise<void> {
  return new Promise((resolve, reject) => call((error) => (error ? reject(error) : resolve())));
}
