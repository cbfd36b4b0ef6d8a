/**
 * What an NBD connection needs of the volume behind it, be it a volume of this node or one that the client library
 * reaches: the two implementations share the connection, the port and the session.
 *
 * Guarantees every implementation gives: each callback is called exactly once, never before the call returns; ranges
 * were checked by the session; a mutation without an error is durable.
 */
import type { ChangedExtent, Extent } from '../base/device.ts';
import type { HoldfastError } from '../base/errors.ts';
import type { NbdExport } from '../nbd/exports.ts';
import type { Done } from '../replication/served-volume.ts';

/** Memory for a part of a WRITE that is being received: the device's, until `write` or `drop` takes it back. */
export interface Room {
  readonly bytes: Uint8Array;
}

/** `pieces` are the bytes in order, valid until `release` is called, once. Null with an error. */
export type ReadPieces = (error: HoldfastError | null, pieces: readonly Uint8Array[], release: () => void) => void;

export interface NbdDevice {
  /** As it is now: marks come and go. */
  readonly export: NbdExport;
  /** Room for exactly `lengthBytes` (at most 256 KiB), to be written at `offsetBytes`. */
  room(offsetBytes: number, lengthBytes: number): Room;
  drop(room: Room): void;
  /** Writes what was received, and takes the room. */
  write(room: Room, offsetBytes: number, done: Done): void;
  /** At most 32 MiB. */
  read(offsetBytes: number, lengthBytes: number, done: ReadPieces): void;
  zero(offsetBytes: number, lengthBytes: number, done: Done): void;
  trim(offsetBytes: number, lengthBytes: number, done: Done): void;
  flush(done: Done): void;
  /** What is a hole; at most `limit` extents, which may cover the range only in part. */
  allocation(offsetBytes: number, lengthBytes: number, limit: number): Promise<readonly Extent[]>;
  /** What changed since a mark; as `allocation`. */
  changes(mark: string, offsetBytes: number, lengthBytes: number, limit: number): Promise<readonly ChangedExtent[]>;
}
