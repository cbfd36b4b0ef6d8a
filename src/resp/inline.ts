/**
 * The words of an inline command, as somebody types it: separated by spaces, in double quotes with escapes, in single
 * quotes without. The rules are those of Redis.
 */
const SPACES = new Set([0x20, 0x09, 0x0a, 0x0b, 0x0c, 0x0d]);
const DOUBLE = 0x22;
const SINGLE = 0x27;
const BACKSLASH = 0x5c;
const ESCAPES = new Map<number, number>([
  [0x6e, 0x0a], // n
  [0x72, 0x0d], // r
  [0x74, 0x09], // t
  [0x62, 0x08], // b
  [0x61, 0x07], // a
]);

const hex = (byte: number): number => {
  const digit = byte >= 0x30 && byte <= 0x39 ? byte - 0x30 : (byte | 0x20) - 0x57;
  return digit >= 0 && digit <= 15 && (byte <= 0x39 || digit >= 10) ? digit : -1;
};

/** @returns null: a quote is not closed, or does not end its word */
export function splitWords(line: Buffer): Buffer[] | null {
  const words: Buffer[] = [];
  const end = line.includes(0) ? line.indexOf(0) : line.length;
  let at = 0;
  for (;;) {
    while (at < end && SPACES.has(line[at]!)) at++;
    if (at >= end) return words;
    const word = Buffer.allocUnsafe(end - at);
    let length = 0;
    let quote = 0;
    for (;;) {
      if (at >= end) {
        if (quote !== 0) return null;
        break;
      }
      const byte = line[at]!;
      if (quote === 0) {
        if (SPACES.has(byte)) break;
        if (byte === DOUBLE || byte === SINGLE) quote = byte;
        else word[length++] = byte;
        at++;
        continue;
      }
      if (byte === quote) {
        if (at + 1 < end && !SPACES.has(line[at + 1]!)) return null;
        at++;
        break;
      }
      if (byte === BACKSLASH && at + 1 < end) {
        const next = line[at + 1]!;
        if (quote === SINGLE && next === SINGLE) {
          word[length++] = SINGLE;
          at += 2;
          continue;
        }
        if (quote === DOUBLE) {
          const high = at + 3 < end && next === 0x78 ? hex(line[at + 2]!) : -1;
          const low = high < 0 ? -1 : hex(line[at + 3]!);
          word[length++] = low < 0 ? (ESCAPES.get(next) ?? next) : high * 16 + low;
          at += low < 0 ? 2 : 4;
          continue;
        }
      }
      word[length++] = byte;
      at++;
    }
    words.push(word.subarray(0, length));
  }
}
