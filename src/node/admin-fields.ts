/**
 * The fields of ADMIN requests, checked by hand.
 *
 * Guarantees: what is returned has the type and the bounds that are named; a refusal names the field.
 */
import { HoldfastError } from '../base/errors.ts';
import { BLOCK_BYTES, MAX_VOLUME_BYTES } from '../base/units.ts';

export type Fields = Record<string, unknown>;

const MAX_TEXT = 4096;

function wrong(field: string, what: string): HoldfastError {
  return new HoldfastError('INVALID_ARGUMENT', { operation: 'ADMIN', detail: `${field} is not ${what}` });
}

export function textField(fields: Fields, field: string): string {
  const value = fields[field];
  if (typeof value === 'string' && value.length >= 1 && value.length <= MAX_TEXT) return value;
  throw wrong(field, `a text of 1 to ${MAX_TEXT} characters`);
}

/** 32 hexadecimal digits. */
export function idField(fields: Fields, field: string): string {
  const value = fields[field];
  if (typeof value === 'string' && /^[0-9a-f]{32}$/.test(value)) return value;
  throw wrong(field, '32 hexadecimal digits');
}

export function countField(fields: Fields, field: string, least: number, most: number): number {
  const value = fields[field];
  if (Number.isSafeInteger(value) && (value as number) >= least && (value as number) <= most) return value as number;
  throw wrong(field, `a whole number from ${least} to ${most}`);
}

export function sizeField(fields: Fields, field: string): number {
  const bytes = countField(fields, field, BLOCK_BYTES, MAX_VOLUME_BYTES);
  if (bytes % BLOCK_BYTES === 0) return bytes;
  throw wrong(field, 'a multiple of 4096');
}

export function flagField(fields: Fields, field: string, fallback: boolean): boolean {
  const value = fields[field] ?? fallback;
  if (typeof value === 'boolean') return value;
  throw wrong(field, 'true or false');
}

export function choiceField<T extends string>(fields: Fields, field: string, choices: readonly T[]): T {
  const value = fields[field];
  if (choices.includes(value as T)) return value as T;
  throw wrong(field, `one of ${choices.join(', ')}`);
}
