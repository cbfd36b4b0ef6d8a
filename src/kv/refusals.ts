/** Why a primary does not execute a transaction, or does not know what became of it. Pure. */
import { HoldfastError } from '../base/errors.ts';

export function tooLarge(bytes: number, limitBytes: number): HoldfastError | null {
  if (bytes <= limitBytes) return null;
  const detail = `with its headers and its answer it takes ${bytes} bytes, the limit is ${limitBytes}`;
  return new HoldfastError('TOO_LARGE', { operation: 'execute', detail, remedy: 'make it of fewer steps' });
}

/** Nobody can ask again what became of it. */
export function unknown(error: HoldfastError): HoldfastError {
  return new HoldfastError('OUTCOME_UNKNOWN', { operation: 'execute', detail: error.message });
}

export function full(volume: string, liveBytes: number, sizeBytes: number): HoldfastError {
  return new HoldfastError('NO_SPACE', {
    operation: 'execute',
    volume,
    detail: `keys and values take ${liveBytes} of ${sizeBytes} bytes`,
    remedy: 'delete keys, or make it larger: holdfast volume grow',
  });
}
