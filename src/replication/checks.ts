/** What a request must be like to be taken at all. Pure. */
import { type ErrorCode, HoldfastError } from '../base/errors.ts';
import { type Position, comparePositions } from '../base/position.ts';
import { BLOCK_BYTES } from '../base/units.ts';
import type { BlockStore } from '../storage/block-store.ts';
import type { Expired, VolumeInfo } from './served-volume.ts';

export interface Asked {
  operation: string;
  offset: number;
  length: number;
  maxBytes: number;
  /** It changes the volume. */
  mutates: boolean;
  /** The volume does not take changes. */
  readOnly: boolean;
  /** Default: as the volume's size. */
  endBytes?: number;
}

/** Why a request is refused without effect; null if it is not. */
export function refusalOf(store: BlockStore, asked: Asked): HoldfastError | null {
  const { operation, offset, length, maxBytes } = asked;
  const where = { operation, offsetBytes: offset, lengthBytes: length, volume: store.name };
  if (store.failed !== null) return store.failed;
  if (!Number.isSafeInteger(offset) || !Number.isSafeInteger(length) || offset < 0 || length < 1) {
    return new HoldfastError('INVALID_ARGUMENT', { ...where, remedy: 'offsets and lengths are whole positive bytes' });
  }
  if (length > maxBytes) return new HoldfastError('TOO_LARGE', { ...where, detail: `the limit is ${maxBytes}` });
  if (offset + length > (asked.endBytes ?? store.sizeBytes)) {
    return new HoldfastError('OUT_OF_RANGE', { ...where, detail: `it has ${store.sizeBytes} bytes` });
  }
  if (asked.mutates && asked.readOnly) {
    const detail = store.health === 'good' ? undefined : `it is ${store.health}: ${store.healthReason}`;
    return new HoldfastError('READ_ONLY', { ...where, detail });
  }
  return null;
}

/** Whether every replica that must have a record has it. */
export function isCommitted(store: BlockStore, record: Position): boolean {
  return comparePositions(record, store.committedPosition) <= 0;
}

/** A mutation that has no place in the log yet. */
export interface Waiting {
  first: number;
  count: number;
  /** A newer connection of its session has attached. */
  revoked: boolean;
  /** Why nothing is taken any more. */
  closing: ErrorCode | null;
  expired: Expired;
}

/** Why it must not get one; null if it may. */
export function dropReasonOf(store: BlockStore, waiting: Waiting): HoldfastError | null {
  if (store.failed !== null) return store.failed;
  const offsetBytes = waiting.first * BLOCK_BYTES;
  const where = { operation: 'write', volume: store.name, offsetBytes, lengthBytes: waiting.count * BLOCK_BYTES };
  if (waiting.revoked) return new HoldfastError('STALE_GENERATION', where);
  if (waiting.closing !== null) return new HoldfastError(waiting.closing, where);
  if (waiting.expired()) {
    return new HoldfastError('DEADLINE', { ...where, detail: 'the server was busy until the deadline' });
  }
  if (!store.outOfSpace) return null;
  const remedy = 'free space there; writing goes on by itself';
  return new HoldfastError('NO_SPACE', { ...where, detail: 'the disk under this sparse volume is full', remedy });
}

/** What is told of a volume. Its position is what is known to be committed. */
export function volumeInfoOf(store: BlockStore, readOnly: boolean): VolumeInfo {
  const { name, volumeId, sizeBytes, epoch, committedPosition: position } = store;
  return { name, volumeId, sizeBytes, readOnly, epoch, position };
}
