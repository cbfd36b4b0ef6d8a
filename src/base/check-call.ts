/** What every BlockDevice asks of a call before it does anything. */
import { HoldfastError } from './errors.ts';

/** The device as a call meets it. */
export interface Called {
  readonly sizeBytes: number;
  readonly readOnly: boolean;
  /** Name of the volume, for errors. */
  readonly name?: string | undefined;
}

const MUTATIONS: ReadonlySet<string> = new Set(['write', 'zero', 'trim']);

/** @throws HoldfastError CLOSED, INVALID_ARGUMENT, OUT_OF_RANGE, READ_ONLY: refused without effect */
export function checkCall(
  device: Called,
  closed: boolean,
  operation: string,
  offsetBytes: number,
  lengthBytes: number,
): void {
  const where = { operation, offsetBytes, lengthBytes, volume: device.name };
  if (closed) throw new HoldfastError('CLOSED', where);
  if (!Number.isSafeInteger(offsetBytes) || !Number.isSafeInteger(lengthBytes) || offsetBytes < 0 || lengthBytes < 0) {
    throw new HoldfastError('INVALID_ARGUMENT', {
      ...where,
      remedy: 'offsets and lengths are whole bytes, not negative',
    });
  }
  if (offsetBytes + lengthBytes > device.sizeBytes) {
    throw new HoldfastError('OUT_OF_RANGE', { ...where, detail: `the volume has ${device.sizeBytes} bytes` });
  }
  if (device.readOnly && MUTATIONS.has(operation)) throw new HoldfastError('READ_ONLY', where);
}
