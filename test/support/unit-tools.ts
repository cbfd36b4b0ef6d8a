/** Small helpers of the unit ring: callbacks as promises, expected errors, byte comparison. */
import * as assert from 'uvu/assert';
import { type ErrorCode, HoldfastError } from '../../src/base/errors.ts';
import type { Done } from '../../src/replication/served-volume.ts';

/** Expects a HoldfastError of that code from a call or a promise. */
export async function refused(code: ErrorCode, run: () => unknown): Promise<HoldfastError> {
  let result: unknown;
  try {
    result = await run();
  } catch (error) {
    if (!(error instanceof HoldfastError)) throw error;
    assert.is(error.code, code, error.message);
    return error;
  }
  throw new Error(`expected ${code}, got ${String(result)}`);
}

/** A callback API as a promise. */
export function settled(call: (done: Done) => void): Promise<void> {
  return new Promise((resolve, reject) => call((error) => (error === null ? resolve() : reject(error))));
}

export function assertBytes(actual: Uint8Array, expected: Uint8Array, what: string): void {
  if (Buffer.compare(actual, expected) === 0) return;
  const at = actual.findIndex((byte, i) => byte !== expected[i]);
  const where = at < 0 ? `lengths ${actual.length}, ${expected.length}` : `byte ${at}: ${actual[at]}, ${expected[at]}`;
  assert.unreachable(`${what}: not the bytes expected (${where})`);
}

/** So many turns of the event loop: nothing that was ready is left after a few. */
export async function turns(count: number): Promise<void> {
  for (let i = 0; i < count; i++) await new Promise((resolve) => setImmediate(resolve));
}
