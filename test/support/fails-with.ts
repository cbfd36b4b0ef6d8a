/** What must be refused. */
import * as assert from 'uvu/assert';
import { HoldfastError } from '../../src/base/errors.ts';

/** @returns the error, for more to be asked of it */
export async function failsWith(work: Promise<unknown>, code: string, says?: RegExp): Promise<HoldfastError> {
  let error: unknown = null;
  try {
    await work;
  } catch (thrown) {
    error = thrown;
  }
  assert.ok(error !== null, `it did not fail; expected ${code}`);
  if (!(error instanceof HoldfastError)) throw error;
  assert.is(error.code, code, error.message);
  if (says !== undefined) assert.match(error.message, says);
  return error;
}
