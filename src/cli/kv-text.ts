/** Bytes of keys and values as people and as programs read them. */

const isText = (bytes: Buffer, text: string): boolean => Buffer.from(text, 'utf8').equals(bytes);

/** For JSON: as text where it is text, else in base64 under another name. */
export function told(name: string, bytes: Buffer): Record<string, string> {
  const text = bytes.toString('utf8');
  return isText(bytes, text) ? { [name]: text } : { [`${name}Base64`]: bytes.toString('base64') };
}

function escaped(bytes: Buffer, which: RegExp): string {
  return bytes.toString('latin1').replace(which, (one) => `\\x${one.charCodeAt(0).toString(16).padStart(2, '0')}`);
}

/**
 * For people: what does not print is escaped, so that an entry is one line. Text that looks like an escape is escaped as
 * well: what is shown names one key.
 */
export function shown(bytes: Buffer): string {
  const text = bytes.toString('utf8');
  if (isText(bytes, text) && !/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]|\\x/u.test(text)) return text;
  return escaped(bytes, /[^\x20-\x7e]|\\/g);
}

/** As one word of a line. What prints stays as it is; of all else it is only certain that it is one word. */
export function word(bytes: Buffer): string {
  if (bytes.length === 0) return '""';
  const text = bytes.toString('utf8');
  return isText(bytes, text) && !/[\p{Cc}\p{Cf}\s]/u.test(text) ? text : escaped(bytes, /[^\x21-\x7e]/g);
}

/** Waits for whoever reads the output. */
export async function print(text: string): Promise<void> {
  if (!process.stdout.write(text)) await new Promise((resolve) => process.stdout.once('drain', resolve));
}
