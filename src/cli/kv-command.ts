/** `holdfast kv get | put | del | scan | watch`: a key-value volume from the command line. */
import type { Command } from 'commander';
import { HoldfastError } from '../base/errors.ts';
import type { KvEntry } from '../client/index.ts';
import { addKvBenchCommand } from './kv-bench.ts';
import { addKvFileCommands } from './kv-files.ts';
import { addKvShellCommand } from './kv-shell.ts';
import { type ReadFlags, type Run, addReadFlags, readsOf, wholeNumber, withStore } from './kv-store.ts';
import { print, shown, told } from './kv-text.ts';
import { printJson } from './output.ts';

/** The largest request of the client library. */
const MAX_STDIN_BYTES = 1024 * 1024;

interface Flags extends ReadFlags {
  base64?: boolean;
  json?: boolean;
  previous?: boolean;
  ifAbsent?: boolean;
  ifPresent?: boolean;
  ifVersion?: string;
  ttlMs?: string;
  prefix?: string;
  from?: string;
  end?: string;
  limit?: string;
  keysOnly?: boolean;
  after?: string;
}

/** A key or a value as it was typed. @throws HoldfastError INVALID_ARGUMENT */
function typed(text: string, flags: Flags): Buffer {
  if (flags.base64 !== true) return Buffer.from(text, 'utf8');
  if (/^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/.test(text)) return Buffer.from(text, 'base64');
  throw new HoldfastError('INVALID_ARGUMENT', { operation: 'kv', detail: `"${text}" is no base64` });
}

function entryFields({ key, value, version, expiresAtMs, stale }: KvEntry): object {
  return { ...told('key', key), ...told('value', value), version, expiresAtMs, ...(stale && { stale }) };
}

async function get(url: string, key: string, flags: Flags): Promise<void> {
  await withStore(url, readsOf(flags), async (store) => {
    const entry = await store.get(typed(key, flags));
    if (entry === null) process.exitCode = 1;
    if (flags.json) printJson(entry === null ? { found: false } : { found: true, ...entryFields(entry) });
    else if (entry !== null) process.stdout.write(flags.base64 ? `${entry.value.toString('base64')}\n` : entry.value);
    if (entry?.stale && !flags.json) process.stderr.write('stale: nobody vouches for it\n');
  });
}

/** Not more than a volume could take. @throws HoldfastError TOO_LARGE */
async function stdin(): Promise<Buffer> {
  const parts: Buffer[] = [];
  let bytes = 0;
  for await (const part of process.stdin as AsyncIterable<Buffer>) {
    parts.push(part);
    bytes += part.length;
    if (bytes <= MAX_STDIN_BYTES) continue;
    const detail = `more than ${MAX_STDIN_BYTES} bytes on stdin; a value may have 196608`;
    throw new HoldfastError('TOO_LARGE', { operation: 'put', detail, remedy: 'cut it into several keys' });
  }
  return Buffer.concat(parts);
}

function conditionOf(flags: Flags): 'absent' | 'present' | { version: number } | undefined {
  const given = [flags.ifAbsent, flags.ifPresent, flags.ifVersion].filter((one) => one !== undefined).length;
  if (given > 1) {
    const detail = 'more than one of --if-absent, --if-present and --if-version';
    throw new HoldfastError('INVALID_ARGUMENT', { operation: 'kv', detail });
  }
  if (flags.ifVersion !== undefined) return { version: wholeNumber('--if-version', flags.ifVersion) };
  return flags.ifAbsent ? 'absent' : flags.ifPresent ? 'present' : undefined;
}

async function put(url: string, key: string, value: string | undefined, flags: Flags): Promise<void> {
  const bytes = value === undefined ? await stdin() : typed(value, flags);
  const ttlMs = flags.ttlMs === undefined ? undefined : wholeNumber('--ttl-ms', flags.ttlMs);
  await withStore(url, {}, async (store) => {
    const options = { if: conditionOf(flags), ttlMs, previous: flags.previous };
    const { applied, version, existed, previous } = await store.put(typed(key, flags), bytes, options);
    if (!applied) process.exitCode = 1;
    const before = previous === null ? {} : told('previous', previous);
    // Where the condition did not hold nobody said whether the key is there.
    if (flags.json) printJson({ applied, version, ...(applied && { existed }), ...before });
    else if (!applied) process.stderr.write('not done: the condition does not hold\n');
    else if (previous !== null) process.stdout.write(previous);
  });
}

async function del(url: string, keys: string[], flags: Flags): Promise<void> {
  await withStore(url, {}, async (store) => {
    const transaction = store.transaction();
    for (const key of keys) transaction.delete(typed(key, flags));
    const { version, results } = await transaction.commit();
    const deleted = results.filter(({ done }) => done).length;
    if (deleted === 0) process.exitCode = 1;
    if (flags.json) printJson({ deleted, version });
    else process.stderr.write(`${deleted} of ${keys.length} deleted\n`);
  });
}

async function scan(url: string, flags: Flags): Promise<void> {
  const text = (one: string | undefined): Buffer | undefined => (one === undefined ? undefined : typed(one, flags));
  const range = { prefix: text(flags.prefix), from: text(flags.from), end: text(flags.end) };
  const limit = flags.limit === undefined ? undefined : wholeNumber('--limit', flags.limit);
  let stale = 0;
  await withStore(url, readsOf(flags), async (store) => {
    for await (const entry of store.scan({ ...range, limit, keysOnly: flags.keysOnly })) {
      if (entry.stale) stale++;
      const { key, value, version } = entry;
      const fields = { ...told('key', key), version, ...(entry.stale && { stale: true }) };
      if (flags.json) await print(`${JSON.stringify(flags.keysOnly ? fields : entryFields(entry))}\n`);
      else await print(flags.keysOnly ? `${shown(key)}\n` : `${shown(key)}\t${shown(value)}\n`);
    }
  });
  if (stale > 0 && !flags.json) process.stderr.write(`stale: nobody vouches for ${stale} of them\n`);
}

async function watch(url: string, flags: Flags): Promise<void> {
  const abort = new AbortController();
  let open = false;
  const end = (): void => {
    abort.abort();
    // Nobody waits for a cluster that is not there.
    if (!open) process.exit();
  };
  process.once('SIGINT', end);
  process.once('SIGTERM', end);
  const after = flags.after === undefined ? undefined : wholeNumber('--after', flags.after);
  await withStore(url, { retryMs: Infinity }, async (store) => {
    open = true;
    const prefix = flags.prefix === undefined ? undefined : typed(flags.prefix, flags);
    try {
      for await (const { type, key, value, version } of store.watch({ prefix, after, signal: abort.signal })) {
        const fields = { type, ...told('key', key), ...(value === null ? {} : told('value', value)), version };
        if (flags.json) await print(`${JSON.stringify(fields)}\n`);
        else await print(`${version}\t${type}\t${shown(key)}${value === null ? '' : `\t${shown(value)}`}\n`);
      }
    } catch (error) {
      if (!abort.signal.aborted) throw error;
    }
  });
}

export function addKvCommand(program: Command, run: Run): void {
  const kv = program
    .command('kv')
    .description('keys and values of a volume of kind kv')
    .addHelpText(
      'after',
      '\nVOLUME is holdfast-kv://host:port[,host:port...]/name; any node that knows it will do.\n' +
        'Examples:\n' +
        '  holdfast kv put holdfast-kv://127.0.0.1:7401/keys greeting hello\n' +
        '  holdfast kv get holdfast-kv://127.0.0.1:7401/keys greeting\n' +
        '  holdfast kv scan holdfast-kv://127.0.0.1:7401/keys --prefix user/\n' +
        '  holdfast kv export holdfast-kv://127.0.0.1:7401/keys keys.jsonl',
    );
  const sub = (name: string, text: string): Command =>
    kv
      .command(name)
      .description(text)
      .option('--base64', 'keys and values on the command line are in base64')
      .option('--json', 'print JSON');
  addReadFlags(sub('get <volume> <key>', 'the value to stdout as it is; ends with 1 if the key is absent')).action(
    (url: string, key: string, flags: Flags) => run(() => get(url, key, flags), flags.json),
  );
  sub('put <volume> <key> [value]', 'done means durable on every replica in sync; without VALUE it is read from stdin')
    .option('--if-absent', 'else nothing is done, and it ends with 1')
    .option('--if-present')
    .option('--if-version <n>')
    .option('--ttl-ms <ms>', 'the key goes away by itself')
    .option('--previous', 'print the value that was there')
    .action((url: string, key: string, value: string | undefined, flags: Flags) =>
      run(() => put(url, key, value, flags), flags.json),
    );
  sub('del <volume> <keys...>', 'all of them at once; ends with 1 if none was there').action(
    (url: string, keys: string[], flags: Flags) => run(() => del(url, keys, flags), flags.json),
  );
  addReadFlags(sub('scan <volume>', 'keys in the order of their bytes, a line each'))
    .option('--prefix <p>')
    .option('--from <key>', 'the first one at or after it')
    .option('--end <key>', 'before it')
    .option('--limit <n>', 'at most so many')
    .option('--keys-only')
    .action((url: string, flags: Flags) => run(() => scan(url, flags), flags.json));
  sub('watch <volume>', 'changes as they come, until it is interrupted')
    .option('--prefix <p>')
    .option('--after <version>', 'changes of later versions; default: from now on')
    .action((url: string, flags: Flags) => run(() => watch(url, flags), flags.json));
  addKvShellCommand(kv, run);
  addKvFileCommands(kv, run);
  addKvBenchCommand(kv, run);
}
