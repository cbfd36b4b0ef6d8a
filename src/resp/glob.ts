/**
 * Patterns of KEYS, SCAN and CONFIG GET: `*`, `?`, `[a-z]`, `[^a-z]`, and a backslash before what is meant as it is.
 *
 * Guarantees: it never needs more steps than the length of the pattern times that of the text, whatever the pattern.
 */

/** @returns where the next part of the pattern begins, if the one at `at` matches that code unit; else -1 */
function step(pattern: string, at: number, unit: string): number {
  const sign = pattern[at];
  if (sign === '?') return at + 1;
  if (sign === '[') return inBrackets(pattern, at + 1, unit);
  const escaped = sign === '\\' && at + 1 < pattern.length ? at + 1 : at;
  return pattern[escaped] === unit ? escaped + 1 : -1;
}

function inBrackets(pattern: string, from: number, unit: string): number {
  let at = from;
  const not = pattern[at] === '^';
  if (not) at++;
  let found = false;
  for (; at < pattern.length && pattern[at] !== ']'; at++) {
    if (pattern[at] === '\\' && at + 1 < pattern.length) {
      at++;
      if (pattern[at] === unit) found = true;
    } else if (pattern[at + 1] === '-' && at + 2 < pattern.length) {
      const [a, b] = [pattern[at]!, pattern[at + 2]!];
      if ((a <= b ? a : b) <= unit && unit <= (a <= b ? b : a)) found = true;
      at += 2;
    } else if (pattern[at] === unit) found = true;
  }
  // A bracket that is not closed ends with the pattern.
  return found === not ? -1 : Math.min(at + 1, pattern.length);
}

export function globMatches(pattern: string, text: string): boolean {
  let at = 0;
  let textAt = 0;
  let starAt = -1;
  let starText = 0;
  for (;;) {
    if (pattern[at] === '*') {
      starAt = ++at;
      starText = textAt;
      if (at === pattern.length) return true;
      continue;
    }
    if (textAt === text.length) return at === pattern.length;
    const next = at < pattern.length ? step(pattern, at, text[textAt]!) : -1;
    if (next >= 0) {
      at = next;
      textAt++;
    } else if (starAt >= 0) {
      // The last star takes one more; the ones before it need not.
      at = starAt;
      textAt = ++starText;
    } else return false;
  }
}

/** What every text begins with that matches. */
export function literalPrefix(pattern: string): string {
  const end = pattern.search(/[*?[\\]/);
  return end < 0 ? pattern : pattern.slice(0, end);
}
