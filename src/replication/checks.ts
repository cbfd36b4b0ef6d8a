/** What a request must be like to be taken at all. Pure. */
import { HoldfastError } from '../base/errors.ts';
import type { BlockStore } from '../storage/block-store.ts';

export interface Asked {
  operation: string;
  offset: number;
  length: number;
  maxBytes: number;
  /** It changes the volume. */
  mutates: boolean;
  /** The volume does not take changes. */
  readOnly: boolean;
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
  if (offset + length > store.sizeBytes) {
    return new HoldfastError('OUT_OF_RANGE', { ...where, detail: `it has ${store.sizeBytes} bytes` });
  }
  if (asked.mutates && asked.readOnly) {
    const detail = store.health === 'good' ? undefined : `it is ${store.health}: ${store.healthReason}`;
    return new HoldfastError('READ_ONLY', { ...where, detail });
  }
  return null;
}
