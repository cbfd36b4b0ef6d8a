/**
 * What a volume may be called, and that none shrinks: by itself, so that a command that only asks nodes need not load the
 * store for it. Pure.
 */
import { HoldfastError } from '../base/errors.ts';
import { formatBytes } from '../base/units.ts';
import { MAX_NAME_BYTES } from './superblock.ts';

/** @throws HoldfastError INVALID_ARGUMENT */
export function checkVolumeName(name: string): string {
  if (/^[A-Za-z0-9][A-Za-z0-9._-]*$/.test(name) && name.length <= MAX_NAME_BYTES) return name;
  throw new HoldfastError('INVALID_ARGUMENT', {
    operation: 'name volume',
    detail: `"${name}" is no volume name`,
    remedy: `use letters, digits, ".", "_" and "-", at most ${MAX_NAME_BYTES}, beginning with a letter or digit`,
  });
}

/** Why no volume shrinks. */
export function smaller(volume: string, sizeBytes: number, toBytes: number): HoldfastError {
  return new HoldfastError('INVALID_ARGUMENT', {
    operation: 'grow',
    volume,
    detail: `it has ${formatBytes(sizeBytes)} (${sizeBytes} bytes), and ${formatBytes(toBytes)} (${toBytes}) is less: volumes do not shrink`,
    remedy: 'make a smaller volume, and copy what is to be kept',
  });
}
