/**
 * What a connection (ours, NBD) needs of a volume that this node serves: the hot path, by callbacks and arena slots.
 * A group of one and a replicated group implement it alike.
 *
 * Guarantees: every callback is called exactly once, never before the call returns; a mutation's callback without an
 * error means durable on every replica that must have it. Ranges are checked by the implementation, which answers
 * OUT_OF_RANGE, INVALID_ARGUMENT, READ_ONLY without effect.
 */
import type { HoldfastError } from '../base/errors.ts';
import type { ChangedExtent, Extent } from '../base/device.ts';
import type { Position } from '../base/position.ts';
import type { Slot } from '../storage/arena.ts';
import type { Mark, MarkChange } from '../storage/marks.ts';

/** A session's attachment to a volume, made by `attach`, ended by a later attach of the same session or by `detach`. */
export interface Attachment {
  readonly session: bigint;
  readonly generation: number;
}

export interface VolumeInfo {
  name: string;
  /** 16 bytes. */
  volumeId: Uint8Array;
  sizeBytes: number;
  readOnly: boolean;
  epoch: number;
  /** The last position that is committed; a new session notes it (see `attach`). */
  position: Position;
}

/** `crc`: unseeded CRC-32 of the payload that was read, where the read was of whole blocks, else -1. */
export type ReadDone = (error: HoldfastError | null, crc: number) => void;
export type Done = (error: HoldfastError | null) => void;
/** Whether the caller's deadline has passed: a mutation that has no place in the log by then is answered DEADLINE. */
export type Expired = () => boolean;

export interface ServedVolume {
  info(): VolumeInfo;

  /**
   * Fences a session: refuses a generation that is not above the newest (STALE_GENERATION), revokes the older
   * attachment (`revoked` of that one is called at once), drops its requests that have no place in the log yet, waits
   * for those that have, and answers with an attachment. `since` is the position that the session was given when it
   * first attached, null if it attaches for the first time: where the session table no longer knows the session
   * although it may have acted since, the answer is OUTCOME_UNKNOWN.
   */
  attach(
    session: bigint,
    generation: number,
    since: Position | null,
    revoked: () => void,
    done: (error: HoldfastError | null, attachment: Attachment | null) => void,
  ): void;
  /** The connection of that attachment is gone: its requests without a place in the log are dropped. */
  detach(attachment: Attachment): void;

  /** Reads into `slot.payload` from byte `offsetBytes % 4096` on. At most 256 KiB. The slot stays the caller's. */
  read(offsetBytes: number, lengthBytes: number, slot: Slot, done: ReadDone): void;

  /**
   * Writes `lengthBytes` (1 to 256 KiB) that lie in `slot.payload` from byte `offsetBytes % 4096` on. The slot is the
   * volume's from now on: it releases it. `slot.crcs` holds the unseeded CRC of each block if `crcsKnown`.
   */
  write(
    attachment: Attachment | null,
    request: number,
    offsetBytes: number,
    lengthBytes: number,
    slot: Slot,
    crcsKnown: boolean,
    done: Done,
    expired?: Expired,
  ): void;
  /** At most 256 KiB at any alignment, or at most 32 MiB of whole blocks. */
  zero(
    attachment: Attachment | null,
    request: number,
    offsetBytes: number,
    lengthBytes: number,
    done: Done,
    expired?: Expired,
  ): void;
  /** At most 32 MiB; only whole blocks inside the range take effect. */
  trim(
    attachment: Attachment | null,
    request: number,
    offsetBytes: number,
    lengthBytes: number,
    done: Done,
    expired?: Expired,
  ): void;
  /** Waits for what was called before it. */
  flush(done: Done): void;
  /**
   * Calls back once what follows in the same turn may be answered: `extents`, `marks` and `changes` are reads, which a
   * primary answers only while it has the right to. They throw BUSY without it.
   */
  whenReadable(done: Done): void;
  /** At most `limit` extents; the range may be covered only in part, never empty. Synchronous: from the tables. */
  extents(offsetBytes: number, lengthBytes: number, limit: number): Extent[];

  /** Sets or deletes a mark, durably. EXISTS, INVALID_ARGUMENT, TOO_MANY without effect. */
  mark(attachment: Attachment | null, request: number, change: MarkChange, done: Done): void;
  /** Oldest first. */
  marks(): Mark[];
  /** As `extents`: what changed since a mark. A mark that is not there (any more): everything did. */
  changes(mark: string, offsetBytes: number, lengthBytes: number, limit: number): ChangedExtent[];
}
