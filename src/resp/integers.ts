/** Integers as Redis reads them: decimal, 64 bits, no spaces, no plus, no leading zeros. */

export const MAX_INT64 = 0x7fff_ffff_ffff_ffffn;
export const MIN_INT64: bigint = -MAX_INT64 - 1n;
const FORM = /^(?:0|-?[1-9][0-9]{0,18})$/;

/** @returns null: it is none */
export function parseInt64(bytes: Buffer): bigint | null {
  if (bytes.length === 0 || bytes.length > 20) return null;
  const text = bytes.toString('latin1');
  if (!FORM.test(text)) return null;
  const value = BigInt(text);
  return value > MAX_INT64 || value < MIN_INT64 ? null : value;
}

/** A count or length in the head of a request: almost always a few digits. @returns null: it is none */
export function parseLength(bytes: Buffer, from: number): number | null {
  const digits = bytes.length - from;
  if (digits >= 1 && digits <= 9 && (bytes[from] !== 0x30 || digits === 1)) {
    let value = 0;
    let at = from;
    for (; at < bytes.length; at++) {
      const digit = bytes[at]! - 0x30;
      if (digit < 0 || digit > 9) break;
      value = value * 10 + digit;
    }
    if (at === bytes.length) return value;
  }
  const long = parseInt64(bytes.subarray(from));
  return long === null ? null : Number(long);
}
