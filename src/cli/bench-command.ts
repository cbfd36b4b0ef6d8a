/**
 * `holdfast bench read | write | mixed`: load on a served volume through the client library, from a process of its own.
 * `holdfast bench replicated`: one server against two nodes, with tables and plots. The full sweeps are `npm run bench`
 * in the repository.
 */
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { Command } from 'commander';
import { HoldfastError } from '../base/errors.ts';
import { printFields, printJson } from './output.ts';

interface BenchFlags {
  url: string;
  clients: string;
  depth: string;
  seconds: string;
  blockBytes: string;
  pattern: string;
  unaligned?: boolean;
  readPercent: string;
  json?: boolean;
}

/** What the generator prints; see bench/load/load-options.ts. */
interface GeneratorLine {
  opsPerSecond: number;
  mibPerSecond: number;
  latency: { p50Us: number; p99Us: number; p999Us: number; maxUs: number };
}

/** @throws HoldfastError UNSUPPORTED */
function scriptOf(path: string): string {
  const script = fileURLToPath(new URL(`../../${path}`, import.meta.url));
  if (existsSync(script)) return script;
  throw new HoldfastError('UNSUPPORTED', {
    operation: 'bench',
    detail: 'the load generator is not installed',
    remedy: 'run it from a clone of the repository, after npm run build',
  });
}

/** Takes its own options, prints its own tables. */
async function replicated(args: string[]): Promise<void> {
  const child = spawn(process.execPath, [scriptOf('bench/replicated/run.js'), ...args], { stdio: 'inherit' });
  const code = await new Promise<number | null>((resolve) => child.once('close', resolve));
  if (code !== 0) throw new HoldfastError('IO_ERROR', { operation: 'bench', detail: `the bench ended with ${code}` });
}

async function bench(kind: 'read' | 'write' | 'mix', flags: BenchFlags): Promise<void> {
  const generator = scriptOf('bench/load/client-generator.js');
  if (kind !== 'read' && !flags.json) {
    process.stderr.write(`this overwrites blocks of ${flags.url}\n`);
  }
  const args = ['--url', flags.url, '--op', kind, '--clients', flags.clients, '--depth', flags.depth];
  args.push('--seconds', flags.seconds, '--block-bytes', flags.blockBytes, '--pattern', flags.pattern);
  args.push('--read-percent', flags.readPercent, ...(flags.unaligned ? ['--unaligned'] : []));
  const child = spawn(process.execPath, [generator, ...args], { stdio: ['ignore', 'pipe', 'inherit'] });
  let printed = '';
  child.stdout.on('data', (chunk: Buffer) => (printed += chunk.toString()));
  const code = await new Promise<number | null>((resolve) => child.once('close', resolve));
  if (code !== 0)
    throw new HoldfastError('IO_ERROR', { operation: 'bench', detail: `the generator ended with ${code}` });
  const result = JSON.parse(printed) as GeneratorLine;
  if (flags.json) return printJson(result);
  const { p50Us, p99Us, p999Us, maxUs } = result.latency;
  printFields({
    operations: `${Math.round(result.opsPerSecond)}/s`,
    bandwidth: `${result.mibPerSecond.toFixed(1)} MiB/s`,
    p50: `${p50Us} µs`,
    p99: `${p99Us} µs`,
    'p99.9': `${p999Us} µs`,
    max: `${maxUs} µs`,
  });
}

export function addBenchCommand(
  program: Command,
  run: (work: () => Promise<void>, json?: boolean) => Promise<void>,
): void {
  const parent = program.command('bench').description('load on a served volume: operations per second and latencies');
  const kinds = [
    ['read', 'read', 'random or sequential reads'],
    ['write', 'write', 'durable writes; overwrites the volume'],
    ['mixed', 'mix', 'reads and durable writes; overwrites the volume'],
  ] as const;
  for (const [name, kind, description] of kinds) {
    parent
      .command(name)
      .description(description)
      .requiredOption('--url <url>', 'holdfast://host:port/volume')
      .option('--clients <n>', 'clients, each with a connection', '8')
      .option('--depth <n>', 'operations in flight per client', '1')
      .option('--seconds <n>', 'how long', '5')
      .option('--block-bytes <size>', 'bytes per operation', '4096')
      .option('--pattern <pattern>', 'uniform | zipf | sequential', 'uniform')
      .option('--read-percent <n>', 'share of reads of mixed', '70')
      .option('--unaligned', 'offsets that are no multiples of 4096')
      .option('--json', 'print JSON')
      .addHelpText(
        'after',
        `\nExample:\n  holdfast bench ${name} --url holdfast://127.0.0.1:7401/demo --clients 16 --depth 4`,
      )
      .action((flags: BenchFlags) => run(() => bench(kind, flags), flags.json));
  }
  parent
    .command('replicated')
    .description('one server against two nodes, started here: bandwidth, mixes, reintegration; tables and plots')
    .helpOption(false)
    .allowUnknownOption()
    .argument('[options...]', 'of its own: holdfast bench replicated --help')
    .action((args: string[]) => run(() => replicated(args)));
}
