/**
 * `holdfast kv bench`: load on a key-value volume through the client library, from a process of its own, each client with
 * one operation in flight.
 *
 * Guarantees: it says that it overwrites keys, and which, before it does; only keys that a bench has named are touched, or
 * deleted with --clean; the generator ends with this process. Ends with 1 if an operation failed.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { type Command, Option } from 'commander';
import { type ErrorCode, ERRORS, HoldfastError } from '../base/errors.ts';
import { type Run, wholeNumber } from './kv-store.ts';
import { printJson, printTable } from './output.ts';

const MAX_CLIENTS = 1024;
const MAX_KEYS = 2 ** 31 - 1;
const MAX_VALUE_BYTES = 196_608;
/** The key's own form is appended. */
const MAX_PREFIX_BYTES = 1024;
const SIGNALS = { SIGINT: 130, SIGTERM: 143, SIGHUP: 129 } as const;

interface Flags {
  clients: string;
  seconds?: string;
  operations?: string;
  readPercent?: string;
  keys: string;
  valueBytes?: string;
  distribution?: 'uniform' | 'zipf';
  prefix: string;
  load?: boolean;
  clean?: boolean;
  ycsb?: string;
  reads: 'primary' | 'any';
  json?: boolean;
}

/** Of bench/kv/kv-mix.ts, as far as it is shown. */
interface Latency {
  count: number;
  p50Us: number;
  p95Us: number;
  p99Us: number;
  p999Us: number;
  maxUs: number;
}

interface Result {
  seconds: number;
  operations: number;
  opsPerSecond: number;
  reads: Latency;
  writes: Latency;
  kinds: Record<string, Latency>;
  errors: number;
  firstError: string | null;
  absent: number;
  loaded: { keys: number; seconds: number } | null;
  cleaned: number | null;
}

type Told =
  | ({ event: 'result' } & Result)
  | { event: 'loaded'; keys: number; seconds: number }
  | { event: 'second'; atSeconds: number; opsPerSecond: number; readP99Us: number; writeP99Us: number; errors: number }
  | { event: 'failed'; error: { code: string; message: string } };

interface Request {
  url: string;
  clients: number;
  seconds: number | null;
  operations: number | null;
  ycsb: string | null;
  shares: { read: number; update: number };
  distribution: string;
  keys: number;
  valueBytes: number;
  prefix: string;
  reads: string;
  load: boolean;
  clean: boolean;
  seed: number;
}

const refusal = (detail: string): HoldfastError =>
  new HoldfastError('INVALID_ARGUMENT', { operation: 'kv bench', detail });

/** What bench/kv/mix-generator.ts is asked for. @throws HoldfastError INVALID_ARGUMENT */
function requestOf(url: string, flags: Flags): Request {
  const { ycsb, prefix, reads } = flags;
  const given = (flag: string, text: string | undefined, least: number, most: number): number | null =>
    text === undefined ? null : wholeNumber(flag, text, least, most);
  if (flags.seconds !== undefined && flags.operations !== undefined) throw refusal('both --seconds and --operations');
  if (ycsb !== undefined && (flags.readPercent !== undefined || flags.distribution !== undefined)) {
    throw refusal('--ycsb says what is read and written, and which keys: leave out --read-percent and --distribution');
  }
  const bytes = Buffer.byteLength(prefix);
  if (bytes < 1 || bytes > MAX_PREFIX_BYTES) throw refusal(`a prefix of ${bytes} bytes, not 1 to ${MAX_PREFIX_BYTES}`);
  const operations = given('--operations', flags.operations, 1, Number.MAX_SAFE_INTEGER);
  const read = (given('--read-percent', flags.readPercent, 0, 100) ?? 50) / 100;
  return {
    url,
    clients: wholeNumber('--clients', flags.clients, 1, MAX_CLIENTS),
    seconds: operations === null ? (given('--seconds', flags.seconds, 1, 86_400) ?? 10) : null,
    operations,
    ycsb: ycsb ?? null,
    shares: { read, update: 1 - read },
    distribution: flags.distribution ?? 'uniform',
    keys: wholeNumber('--keys', flags.keys, 1, MAX_KEYS),
    valueBytes: given('--value-bytes', flags.valueBytes, 0, MAX_VALUE_BYTES) ?? (ycsb === undefined ? 100 : 1000),
    prefix,
    reads,
    load: flags.load ?? false,
    clean: flags.clean ?? false,
    seed: 1,
  };
}

/** @throws HoldfastError UNSUPPORTED */
function generator(): string {
  const script = fileURLToPath(new URL('../../bench/kv/mix-generator.js', import.meta.url));
  if (existsSync(script)) return script;
  throw new HoldfastError('UNSUPPORTED', {
    operation: 'kv bench',
    detail: 'the load generator is not installed',
    remedy: 'run it from a clone of the repository, after npm run build',
  });
}

/** It ends at the end of its stdin, however this process ends. */
function start(): ChildProcess {
  const child = spawn(process.execPath, [generator()], { stdio: ['pipe', 'pipe', 'inherit'] });
  // Told by its exit.
  child.stdin!.on('error', () => {});
  for (const [signal, code] of Object.entries(SIGNALS)) {
    process.once(signal, () => {
      child.kill('SIGKILL');
      process.exit(code);
    });
  }
  return child;
}

async function ask(request: Request): Promise<Result> {
  const child = start();
  const ended = new Promise<number | string | null>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code, signal) => resolve(code ?? signal));
  });
  // Looked at below, when all that it has printed is read.
  ended.catch(() => {});
  child.stdin!.write(`${JSON.stringify(request)}\n`);
  let result: Result | null = null;
  for await (const line of createInterface({ input: child.stdout! })) {
    const told = JSON.parse(line) as Told;
    if (told.event === 'failed') {
      const code = (Object.hasOwn(ERRORS, told.error.code) ? told.error.code : 'IO_ERROR') as ErrorCode;
      throw new HoldfastError(code, { operation: 'kv bench', detail: told.error.message });
    }
    if (told.event === 'result') result = told;
    else if (told.event === 'loaded')
      process.stderr.write(`${told.keys} keys loaded in ${told.seconds.toFixed(1)} s\n`);
    else {
      const { atSeconds, opsPerSecond, readP99Us, writeP99Us, errors } = told;
      const p99 = `p99 of reads ${milliseconds(readP99Us)}, of writes ${milliseconds(writeP99Us)}`;
      process.stderr.write(`${atSeconds} s: ${Math.round(opsPerSecond)} operations/s, ${p99}, ${errors} errors\n`);
    }
  }
  const status = await ended;
  if (result !== null) return result;
  throw new HoldfastError('IO_ERROR', { operation: 'kv bench', detail: `the generator ended with ${status}` });
}

const milliseconds = (us: number): string => (us === 0 ? '-' : `${(us / 1000).toFixed(us < 10_000 ? 2 : 1)} ms`);

const NAMES: Readonly<Record<string, string>> = {
  read: 'read',
  scan: 'scan',
  update: 'update',
  insert: 'insert',
  readModifyWrite: 'read-modify-write',
};

function show({ seconds, operations, opsPerSecond, reads, writes, kinds, ...rest }: Result): void {
  const { errors, firstError, absent, loaded, cleaned } = rest;
  process.stdout.write(
    `${operations} operations in ${seconds.toFixed(1)} s: ${Math.round(opsPerSecond)} operations/s, ${errors} errors\n`,
  );
  const row = (name: string, one: Latency): string[] => [
    name,
    String(one.count),
    String(Math.round(one.count / seconds)),
    ...[one.p50Us, one.p95Us, one.p99Us, one.p999Us, one.maxUs].map(milliseconds),
  ];
  const rows = [row('reads', reads), row('writes', writes)].filter(([, count]) => count !== '0');
  // Of a workload with two kinds of writes, or reads that are scans, each as well.
  const more = Object.entries(kinds).filter(([kind]) => kind !== 'read' && kind !== 'update');
  if (more.length > 0) rows.push(...Object.entries(kinds).map(([kind, one]) => row(`  ${NAMES[kind] ?? kind}`, one)));
  printTable(['', 'operations', '/s', 'p50', 'p95', 'p99', 'p99.9', 'max'], rows);
  if (absent > 0) {
    const hint = loaded === null ? '; --load puts them first' : '';
    process.stdout.write(`${absent} reads found no key${hint}\n`);
  }
  if (firstError !== null) process.stdout.write(`the first error: ${firstError}\n`);
  if (cleaned !== null) process.stdout.write(`${cleaned} keys deleted\n`);
}

async function bench(url: string, flags: Flags): Promise<void> {
  const request = requestOf(url, flags);
  const { prefix, load } = request;
  const onlyReads = !load && (flags.ycsb === 'c' || flags.readPercent === '100');
  if (!onlyReads || flags.clean) {
    const deleted = flags.clean ? ', and deletes them afterwards' : '';
    const what = onlyReads ? 'deletes' : 'overwrites';
    process.stderr.write(`this ${what} keys of ${url} that begin with ${prefix}key-${onlyReads ? '' : deleted}\n`);
  }
  const result = await ask(request);
  if (result.errors > 0) process.exitCode = 1;
  if (flags.json) printJson(result);
  else show(result);
}

export function addKvBenchCommand(kv: Command, run: Run): void {
  kv.command('bench <volume>')
    .description('load on the volume: operations per second and latencies; overwrites keys under a prefix')
    .option('--clients <n>', 'clients, each with a connection and one operation in flight', '8')
    .option('--seconds <n>', 'how long; default: 10')
    .option('--operations <n>', 'so many of all clients together, instead of --seconds')
    .option('--read-percent <n>', 'share of reads; default: 50')
    .option('--keys <n>', 'how many there are', '10000')
    .option('--value-bytes <n>', 'default: 100; with --ycsb 1000')
    .addOption(new Option('--distribution <name>', 'of the keys; default: uniform').choices(['uniform', 'zipf']))
    .option('--prefix <p>', 'of all keys that are touched', 'bench/')
    .option('--load', 'put all keys first')
    .addOption(new Option('--ycsb <letter>', 'a workload of YCSB').choices(['a', 'b', 'c', 'd', 'e', 'f']))
    .addOption(new Option('--reads <policy>', 'who answers them').choices(['any', 'primary']).default('primary'))
    .option('--clean', 'delete the keys afterwards')
    .option('--json', 'print JSON')
    .addHelpText(
      'after',
      '\nExample:\n  holdfast kv bench holdfast-kv://127.0.0.1:7401/keys --load --ycsb b --clients 40 --seconds 30 --clean',
    )
    .action((url: string, flags: Flags) => run(() => bench(url, flags), flags.json));
}
