/**
 * What `holdfast kv export` writes and `import` reads: a line of JSON for each key, between one that names the format and
 * one with their count and the SHA-256 of all lines before it.
 *
 * Guarantees: the entries of a stream that was cut or changed are not taken for whole: reading them ends with an error, at
 * the first line that is wrong or, at the latest, behind the last entry. What is held is a line.
 */
import { createHash } from 'node:crypto';
import { linesOf } from './lines.ts';

export const FORMAT = 'holdfast-kv-1';
/** The longest value takes a quarter of it. */
const MAX_LINE_BYTES = 1024 * 1024;
const BASE64 = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/;

export interface KvLine {
  key: Buffer;
  value: Buffer;
  /** Wall clock. */
  expiresAtMs: number | undefined;
}

/** Not whole, or none of ours. */
export class BrokenFile extends Error {}

/** Lines of an export, as they go out. */
export class LineWriter {
  private readonly hash = createHash('sha256');
  private count_ = 0;

  get count(): number {
    return this.count_;
  }

  head(volume: string, version: number): string {
    return this.hashed({ format: FORMAT, volume, version });
  }

  entry(key: Buffer, value: Buffer, expiresAtMs: number | null): string {
    this.count_++;
    const expiry = expiresAtMs === null ? {} : { expiresAtMs };
    return this.hashed({ key: key.toString('base64'), value: value.toString('base64'), ...expiry });
  }

  /** Once, behind everything. @param consistent whether the entries are those of one moment */
  end(consistent: boolean): string {
    return `${JSON.stringify({ count: this.count_, consistent, sha256: this.hash.digest('hex') })}\n`;
  }

  private hashed(line: object): string {
    const text = `${JSON.stringify(line)}\n`;
    this.hash.update(text);
    return text;
  }
}

/**
 * @param fuzzy entries of different moments will do
 * @returns the sum that they have, when all are read. @throws BrokenFile
 */
export async function* entriesOf(
  source: AsyncIterable<Buffer>,
  fuzzy: boolean,
): AsyncGenerator<KvLine, string, undefined> {
  const hash = createHash('sha256');
  // The last line is no entry.
  let held: Buffer | null = null;
  let lines = 0;
  for await (const line of linesOf(source, MAX_LINE_BYTES)) {
    lines++;
    if (line === null) throw new BrokenFile(`line ${lines} is too long`);
    if (lines === 1) {
      if (parsed(line, 1)['format'] !== FORMAT) throw new BrokenFile(`it is no ${FORMAT}`);
      hash.update(line).update('\n');
      continue;
    }
    if (held !== null) {
      hash.update(held).update('\n');
      yield entryOf(held, lines - 1);
    }
    held = line;
  }
  if (held === null) throw new BrokenFile('it is empty, or cut off');
  const { count, sha256, consistent } = parsed(held, lines);
  if (typeof count !== 'number' || typeof sha256 !== 'string') throw new BrokenFile('it is cut off');
  if (count !== lines - 2 || sha256 !== hash.digest('hex')) throw new BrokenFile('it was changed, or damaged');
  // Earlier versions did not say.
  if (consistent === false && !fuzzy)
    throw new BrokenFile('its keys are of different moments, and --fuzzy is not given');
  return sha256;
}

function entryOf(line: Buffer, number: number): KvLine {
  const { key, value, expiresAtMs } = parsed(line, number);
  const bytes = (name: string, text: unknown): Buffer => {
    if (typeof text === 'string' && BASE64.test(text)) return Buffer.from(text, 'base64');
    throw new BrokenFile(`line ${number} has no ${name} in base64`);
  };
  if (expiresAtMs === undefined || (Number.isSafeInteger(expiresAtMs) && (expiresAtMs as number) > 0)) {
    return { key: bytes('key', key), value: bytes('value', value), expiresAtMs: expiresAtMs as number | undefined };
  }
  throw new BrokenFile(`line ${number}: expiresAtMs is no time`);
}

function parsed(line: Buffer, number: number): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(line.toString('utf8'));
    if (typeof value === 'object' && value !== null) return value as Record<string, unknown>;
  } catch {
    // Said below.
  }
  throw new BrokenFile(`line ${number} is no object of JSON`);
}
