/**
 * What is where, as descriptors of metadata contexts: `base:allocation` from the extents of a device,
 * `qemu:dirty-bitmap:NAME` from runs of changed and unchanged bytes.
 *
 * Guarantees: at least one descriptor, none of length 0, consecutive from the request's offset on and never past its
 * end; neighbours of one status are merged; with REQ_ONE exactly one descriptor. What the runs leave open at the front
 * is reported with the status that is always safe to report.
 */
import type { ChangedExtent, Extent } from '../base/device.ts';
import { put32 } from './big-endian.ts';
import { ALLOCATION, CHUNKS, COMMAND_FLAGS, DIRTY, MAX_DESCRIPTORS } from './constants.ts';
import { CHUNK_HEADER_BYTES, encodeChunkHeader } from './replies.ts';
import type { NbdRequest } from './transmission.ts';

/** A run of bytes of the export with one status; the bits are the context's. */
export interface StatusRun {
  offsetBytes: number;
  lengthBytes: number;
  status: number;
}

/** Runs in ascending order, not overlapping, and what holds where no run says otherwise. */
export interface Status {
  readonly runs: readonly StatusRun[];
  readonly safe: number;
}

/** Never-written and zeroed blocks: hole, and reads as zeros. Allocated data has status 0, which is always safe. */
export function allocationStatus(extents: readonly Extent[]): Status {
  const runs = extents.map(({ offsetBytes, lengthBytes, kind }) => ({
    offsetBytes,
    lengthBytes,
    status: kind === 'hole' ? ALLOCATION.HOLE | ALLOCATION.ZERO : 0,
  }));
  return { runs, safe: 0 };
}

/** A backup copies what is dirty, so what nobody knows is dirty. */
export function dirtyStatus(changes: readonly ChangedExtent[]): Status {
  const runs = changes.map(({ offsetBytes, lengthBytes, changed }) => ({
    offsetBytes,
    lengthBytes,
    status: changed ? DIRTY : 0,
  }));
  return { runs, safe: DIRTY };
}

/**
 * The descriptors of a BLOCK_STATUS request; they may cover less than was asked.
 * @returns lengths in bytes and statuses, alternating
 */
export function descriptorsOf(
  request: Pick<NbdRequest, 'offsetBytes' | 'lengthBytes' | 'flags'>,
  { runs, safe }: Status,
  limit = MAX_DESCRIPTORS,
): number[] {
  const most = (request.flags & COMMAND_FLAGS.REQ_ONE) !== 0 ? 1 : limit;
  const end = request.offsetBytes + request.lengthBytes;
  const descriptors: number[] = [];
  /** @returns false if there is no room for another one */
  const add = (lengthBytes: number, status: number): boolean => {
    if (descriptors.length > 0 && descriptors.at(-1) === status) {
      descriptors[descriptors.length - 2]! += lengthBytes;
      return true;
    }
    if (descriptors.length === 2 * most) return false;
    descriptors.push(lengthBytes, status);
    return true;
  };
  let at = request.offsetBytes;
  for (const run of runs) {
    const runEnd = Math.min(end, run.offsetBytes + run.lengthBytes);
    if (runEnd <= at) continue;
    if (run.offsetBytes >= end) break;
    if (run.offsetBytes > at) {
      if (!add(run.offsetBytes - at, safe)) return descriptors;
      at = run.offsetBytes;
    }
    if (!add(runEnd - at, run.status)) return descriptors;
    at = runEnd;
  }
  if (descriptors.length === 0) descriptors.push(request.lengthBytes, safe);
  return descriptors;
}

/**
 * A chunk of type BLOCK_STATUS. A reply has one for each selected context, the last one with `done`.
 * @returns bytes of its own
 */
export function encodeBlockStatus(request: NbdRequest, contextId: number, status: Status, done: boolean): Uint8Array {
  const descriptors = descriptorsOf(request, status);
  const payloadBytes = 4 + 4 * descriptors.length;
  const bytes = new Uint8Array(CHUNK_HEADER_BYTES + payloadBytes);
  encodeChunkHeader(bytes, 0, request, CHUNKS.BLOCK_STATUS, payloadBytes, done);
  put32(bytes, CHUNK_HEADER_BYTES, contextId);
  let at = CHUNK_HEADER_BYTES + 4;
  for (const value of descriptors) {
    put32(bytes, at, value);
    at += 4;
  }
  return bytes;
}
