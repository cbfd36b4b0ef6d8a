/** `holdfast token`: makes, lists and removes the tokens of a file; and the options by which commands take them. */
import { appendFile, chmod, open, rename, stat } from 'node:fs/promises';
import type { Command } from 'commander';
import { HoldfastError, asHoldfastError } from '../base/errors.ts';
import type { Log } from '../node/server.ts';
import {
  type Token,
  Tokens,
  checkTokenName,
  hashOf,
  lineOf,
  newSecret,
  parseTokens,
  readTokens,
  roleOf,
  volumesOf,
} from '../node/tokens.ts';
import { printJson, printTable } from './output.ts';
import { onHangUp } from './tls-flags.ts';

const OWNER_ONLY = 0o600;

export interface TokensFlag {
  tokens?: string;
}

export function addTokensOption(command: Command): Command {
  return command.option('--tokens <file>', 'clients must give a token of that file (holdfast token create)');
}

/** @throws HoldfastError INVALID_ARGUMENT, ACCESS, IO_ERROR */
export async function tokensOf({ tokens: file }: TokensFlag, log: Log): Promise<Tokens | null> {
  if (file === undefined) return null;
  const tokens = await Tokens.load(file, log);
  onHangUp(() => tokens.reload());
  return tokens;
}

async function exists(file: string): Promise<boolean> {
  return stat(file).then(
    () => true,
    () => false,
  );
}

/** In place of the old content as a whole, with its owner's rights only. */
async function replace(file: string, text: string): Promise<void> {
  const made = `${file}.new-${process.pid}`;
  const handle = await open(made, 'wx', OWNER_ONLY);
  try {
    await handle.writeFile(text);
    await handle.sync();
  } finally {
    await handle.close();
  }
  const old = await stat(file);
  await chmod(made, old.mode & 0o777);
  await rename(made, file);
}

interface CreateFlags {
  role: string;
  volume: string;
  tokens: string;
  json?: boolean;
}

async function create(name: string, flags: CreateFlags): Promise<void> {
  const secret = newSecret();
  const volumes = volumesOf(flags.volume);
  const token: Token = { name: checkTokenName(name), role: roleOf(flags.role), volumes, hash: hashOf(secret) };
  const before = (await exists(flags.tokens)) ? await readTokens(flags.tokens) : [];
  if (before.some((one) => one.name === name)) {
    const detail = `the token "${name}" is in ${flags.tokens} already`;
    throw new HoldfastError('EXISTS', {
      operation: 'create a token',
      detail,
      remedy: 'take another name, or remove it',
    });
  }
  // What would not be read again is not written.
  parseTokens(flags.tokens, [...before, token].map(lineOf).join(''));
  try {
    // A line that somebody has left without its end stays a line.
    await appendFile(flags.tokens, before.length === 0 ? lineOf(token) : `\n${lineOf(token)}`, { mode: OWNER_ONLY });
  } catch (error) {
    throw asHoldfastError(error, { operation: 'create a token' });
  }
  if (flags.json) return printJson({ name, role: token.role, volumes: volumes ?? '*', token: secret });
  process.stderr.write(`token "${name}" (${token.role}); it is shown this once and kept nowhere:\n`);
  process.stdout.write(`${secret}\n`);
}

async function remove(name: string, { tokens: file }: TokensFlag & { tokens: string }): Promise<void> {
  const all = await readTokens(file);
  const left = all.filter((one) => one.name !== name);
  if (left.length === all.length) {
    const detail = `there is no token "${name}" in ${file}`;
    throw new HoldfastError('INVALID_ARGUMENT', { operation: 'remove a token', detail, remedy: 'see: token list' });
  }
  try {
    await replace(file, left.map(lineOf).join(''));
  } catch (error) {
    throw asHoldfastError(error, { operation: 'remove a token' });
  }
  process.stdout.write(`removed "${name}"; servers take it no more within 5 s, and end its connections\n`);
}

async function listTokens({ tokens: file, json }: { tokens: string; json?: boolean }): Promise<void> {
  const all = (await readTokens(file)).map(({ name, role, volumes }) => ({ name, role, volumes: volumes ?? '*' }));
  if (json) return printJson({ tokens: all });
  printTable(
    ['name', 'role', 'volumes'],
    all.map(({ name, role, volumes }) => [name, role, Array.isArray(volumes) ? volumes.join(',') : '*']),
  );
}

export function addTokenCommand(
  program: Command,
  run: (work: () => Promise<void>, json?: boolean) => Promise<void>,
): void {
  const token = program.command('token').description('tokens of clients, in a file that nodes read (--tokens)');
  const of = (command: Command): Command =>
    command.requiredOption('--tokens <file>', 'the file, made if it is not there');
  of(token.command('create <name>'))
    .description('makes a token, prints it once, and adds its hash to the file')
    .requiredOption('--role <role>', 'admin | read-write | read')
    .option('--volume <names>', 'which volumes, with commas between them; *: all', '*')
    .option('--json', 'print JSON')
    .addHelpText('after', '\nExample:\n  holdfast token create backup --role read --volume vm1,vm2 --tokens ./tokens')
    .action((name: string, flags: CreateFlags) => run(() => create(name, flags), flags.json));
  of(token.command('list'))
    .description('names, roles and volumes; no secrets, they are not in the file')
    .option('--json', 'print JSON')
    .action((flags: { tokens: string; json?: boolean }) => run(() => listTokens(flags), flags.json));
  of(token.command('remove <name>'))
    .description('takes a token out; its connections are ended')
    .action((name: string, flags: { tokens: string }) => run(() => remove(name, flags)));
}
