/**
 * Tokens and what they permit: a file of lines `NAME ROLE VOLUMES SHA256`, comments behind `#`. The secrets are not in it.
 *
 * Guarantees: a token is looked for in the same time whether it is there, nearly there or not; a file with a line that is
 * not right is refused as a whole, with the line; new content is in force without a restart, bad content never; no text
 * holds a token or its hash.
 */
import { createHash, randomBytes, timingSafeEqual } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { HoldfastError, asHoldfastError } from '../base/errors.ts';
import type { Log } from './server.ts';
import { WatchedFiles } from './watched-files.ts';

export const ROLES = ['admin', 'read-write', 'read'] as const;
export type Role = (typeof ROLES)[number];

/** What a token permits. */
export interface Grant {
  name: string;
  role: Role;
  /** Names of volumes; null: all. */
  volumes: readonly string[] | null;
}

export interface Token extends Grant {
  /** SHA-256 of the secret, 64 hexadecimal digits. */
  hash: string;
}

const MAX_TOKENS = 4096;
const MAX_FILE_BYTES = 4 * 1024 * 1024;
const SECRET_BYTES = 32;
const PREFIX = 'hf_';
const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/;
const OPERATION = 'read the tokens';

export function newSecret(): string {
  return PREFIX + randomBytes(SECRET_BYTES).toString('base64url');
}

export function hashOf(secret: string): string {
  return createHash('sha256').update(secret).digest('hex');
}

function refused(
  detail: string,
  remedy = 'write NAME ROLE VOLUMES SHA256, as holdfast token create does',
): HoldfastError {
  return new HoldfastError('INVALID_ARGUMENT', { operation: OPERATION, detail, remedy });
}

/** @throws HoldfastError INVALID_ARGUMENT */
export function roleOf(text: string): Role {
  const role = ROLES.find((one) => one === text);
  if (role !== undefined) return role;
  throw refused(`"${text}" is no role`, `write ${ROLES.join(', ')}`);
}

/** `*`, or names with commas between them. @throws HoldfastError INVALID_ARGUMENT */
export function volumesOf(text: string): readonly string[] | null {
  if (text === '*') return null;
  const volumes = text.split(',');
  if (volumes.every((name) => /^[A-Za-z0-9][A-Za-z0-9._-]*$/.test(name))) return volumes;
  throw refused(`"${text}" is no list of volumes`, 'write names with commas between them, or *');
}

/** @throws HoldfastError INVALID_ARGUMENT */
export function checkTokenName(name: string): string {
  if (NAME.test(name)) return name;
  throw refused(`"${name}" is no name of a token`, 'use up to 63 letters, digits, ".", "_" and "-"');
}

export function lineOf({ name, role, volumes, hash }: Token): string {
  return `${name} ${role} ${volumes === null ? '*' : volumes.join(',')} ${hash}\n`;
}

/** @throws HoldfastError INVALID_ARGUMENT, with the line and without what may be a secret */
export function parseTokens(file: string, text: string): Token[] {
  const tokens: Token[] = [];
  if (text.length > MAX_FILE_BYTES) throw refused(`${file} has more than ${MAX_FILE_BYTES} characters`);
  text.split('\n').forEach((untrimmed, index) => {
    const line = untrimmed.trim();
    if (line === '' || line.startsWith('#')) return;
    const fields = line.split(/\s+/);
    try {
      if (fields.length !== 4) throw refused(`${fields.length} fields instead of 4`);
      const [name, role, volumes, hash] = fields as [string, string, string, string];
      if (!/^[0-9a-f]{64}$/.test(hash)) throw refused('the last field is no SHA-256 in hexadecimal digits');
      if (tokens.some((one) => one.name === name)) throw refused('a second token of that name', 'remove one of them');
      tokens.push({ name: checkTokenName(name), role: roleOf(role), volumes: volumesOf(volumes), hash });
    } catch (error) {
      const { detail, remedy } = (error as HoldfastError).details;
      throw refused(`${file}, line ${index + 1}: ${detail}`, remedy);
    }
  });
  if (tokens.length > MAX_TOKENS) throw refused(`${file} has more than ${MAX_TOKENS} tokens`);
  return tokens;
}

/** @throws HoldfastError INVALID_ARGUMENT, ACCESS, IO_ERROR */
export async function readTokens(file: string): Promise<Token[]> {
  let text: string;
  try {
    text = await readFile(file, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') {
      throw refused(
        `${file}: there is no such file`,
        `make one: holdfast token create NAME --role admin --tokens FILE`,
      );
    }
    throw asHoldfastError(error, { operation: OPERATION, remedy: 'let the user that runs this program read the file' });
  }
  return parseTokens(file, text);
}

/** The tokens that are in force. */
export class Tokens {
  private list: ReadonlyArray<{ token: Token; hash: Buffer }>;
  private readonly watched: WatchedFiles;
  private readonly listeners: Set<() => void> = new Set();

  private constructor(file: string, tokens: readonly Token[], log: Log) {
    this.list = withHashes(tokens);
    const load = async (): Promise<void> => {
      this.list = withHashes(await readTokens(file));
      for (const changed of this.listeners) changed();
    };
    this.watched = new WatchedFiles('tokens', [file], load, log);
  }

  /** @throws HoldfastError INVALID_ARGUMENT, ACCESS, IO_ERROR */
  static async load(file: string, log: Log): Promise<Tokens> {
    return new Tokens(file, await readTokens(file), log);
  }

  /** @returns what the token permits; null: there is none like it */
  find(secret: string): Grant | null {
    const hash = createHash('sha256').update(secret).digest();
    let found: Token | null = null;
    // All of them, always.
    for (const one of this.list) if (timingSafeEqual(one.hash, hash)) found = one.token;
    return found;
  }

  /** Whether what was granted once still is, just so. */
  holds(grant: Grant): boolean {
    return this.list.some(({ token }) => lineOf(token) === lineOf(grant as Token));
  }

  /** @param changed called after new ones are in force. @returns what ends that */
  listen(changed: () => void): () => void {
    this.listeners.add(changed);
    return () => void this.listeners.delete(changed);
  }

  reload(): Promise<void> {
    return this.watched.reload();
  }

  close(): void {
    this.watched.close();
  }
}

function withHashes(tokens: readonly Token[]): Array<{ token: Token; hash: Buffer }> {
  return tokens.map((token) => ({ token, hash: Buffer.from(token.hash, 'hex') }));
}
