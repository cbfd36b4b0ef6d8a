/**
 * TypeScript with its comments blanked out, for rules that look at code only.
 *
 * Guarantees: every other character keeps its line and column. Strings, nested templates and regular expressions are
 * passed over, so that nothing in them is taken for a comment.
 */

/** After these a slash begins a regular expression; after anything else it divides. */
const BEFORE_REGEX = /(?:^|[(,=:[!&|?{};~+\-*%^<>]|\b(?:return|typeof|case|in|of|yield|await))\s*$/;
const BLOCK_COMMENT = /\/\*[\s\S]*?(?:\*\/|$)/y;
const LINE_COMMENT = /\/\/[^\n]*/y;
const STRING = /'(?:\\[\s\S]|[^'\\\n])*'?|"(?:\\[\s\S]|[^"\\\n])*"?/y;
const REGEX = /\/(?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\[\n])+\/[a-z]*/y;
const TEMPLATE_TEXT = /(?:\\[\s\S]|\$(?!\{)|[^`\\$])*(`|\$\{|$)/y;

export function withoutComments(text: string): string {
  let out = '';
  let at = 0;
  /** Braces open in the substitution of each template that we are in. */
  const templates: number[] = [];
  const take = (pattern: RegExp): string | null => {
    pattern.lastIndex = at;
    const match = pattern.exec(text);
    if (match === null) return null;
    at = pattern.lastIndex;
    return match[0];
  };
  const takeTemplateText = (): void => {
    const rest = take(TEMPLATE_TEXT) ?? '';
    out += rest;
    if (rest.endsWith('${')) templates.push(0);
  };
  while (at < text.length) {
    const comment = take(BLOCK_COMMENT) ?? take(LINE_COMMENT);
    if (comment !== null) {
      out += comment.replace(/[^\n]/g, ' ');
      continue;
    }
    const literal = take(STRING) ?? (text[at] === '/' && BEFORE_REGEX.test(out.slice(-40)) ? take(REGEX) : null);
    if (literal !== null) {
      out += literal;
      continue;
    }
    const char = text[at++]!;
    out += char;
    const depth = templates.length - 1;
    if (char === '`') takeTemplateText();
    else if (char === '{' && depth >= 0) templates[depth]!++;
    else if (char === '}' && depth >= 0 && templates[depth]!-- === 0) {
      templates.pop();
      takeTemplateText();
    }
  }
  return out;
}
