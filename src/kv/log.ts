/** What a key-value primary needs of the replicated log under it. Types alone. */
import type { HoldfastError } from '../base/errors.ts';

/** Writes a batch into memory that is as long as it was said to be. */
export type Encode = (into: Buffer) => void;
export type LogDone = (error: HoldfastError | null) => void;

/** The replicated log under it: what is written comes into it, and is committed, in the order of the calls. */
export interface KvLog {
  /** What the volume has: it only rises, and what it says is durable. */
  readonly blocks: number;
  /** So many bytes, filled up with zeros. `encode` is called once, when there is memory. Done when it is committed. */
  write(first: number, lengthBytes: number, encode: Encode, done: LogDone): void;
  zero(first: number, count: number, done: LogDone): void;
  /** Calls back once the primary has the right to answer reads, or with an error once it has lost it. */
  rightToRead(done: LogDone): void;
  /** Wall clock. */
  now(): number;
  /** Calls at the end of this turn. */
  soon(run: () => void): void;
}
