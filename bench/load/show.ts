/**
 * The two comparisons that the store is held to, each within one run, because figures of different runs of one machine
 * differ more than the things compared:
 *
 * - Durable 4 KiB random writes: 64 clients against 1 client (at least 5 times) and against the bare loop (at least
 *   half), sustained, checkpoints included; and no write waits longer than a bound while a checkpoint runs.
 * - Cached 4 KiB random reads, 16 clients x depth 16: against a server that makes a piscina task of every request (at
 *   least 4 times), driven by the same generator; the client library's own figure beside it.
 *
 * Guarantees: the contestants take turns (A B C A B C ...), verdicts are on medians, every single figure is kept.
 */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Command, Option } from 'commander';
import Table from 'cli-table3';
import { KiB, MiB } from '../../src/base/units.ts';
import { freePort, runForJson, startHoldfast, startServer, type Server } from './children.ts';
import { describeEnvironment, environmentOf, environmentWarning, type Environment } from './environment.ts';
import { number, size, type LoadResult } from './load-options.ts';
import { grouped } from './report.ts';
import { barChart, lineChart } from './svg.ts';

interface Run {
  contestant: string;
  round: number;
  opsPerSecond: number;
  p50Us: number;
  p99Us: number;
  maxUs: number;
  perSecond: number[];
}

interface Verdict {
  what: string;
  value: number;
  unit: string;
  atLeast?: number;
  atMost?: number;
  passes: boolean;
}

interface ShowOptions {
  only?: 'writes' | 'reads' | undefined;
  writeSeconds: number;
  singleSeconds: number;
  readSeconds: number;
  writeRounds: number;
  readRounds: number;
  warmup: number;
  size: number;
  readSpan: number;
  stallBoundMs: number;
  dir: string;
  out: string;
  assert: boolean;
}

const RAW = 'bench/load/raw-generator.js';
const SINGLE = '1 client';
const MANY = '64 clients';
const BARE = 'bare loop';
const RING = 'holdfast';
const LIBRARY = 'holdfast, client library';
const TASKS = 'piscina task per request';
/** As far as a task per request can be helped by handing a thread many of them at once; not part of a verdict. */
const TASKS_AT_ONCE = 64;
const TUNED_TASKS = `the same, ${TASKS_AT_ONCE} tasks at once per thread`;

async function writes(options: ShowOptions, work: string): Promise<{ runs: Run[]; verdicts: Verdict[] }> {
  const runs: Run[] = [];
  const dir = join(work, 'writes');
  const journalBytes = Math.min(Math.max(Math.floor(options.size / 8), 128 * MiB), 1024 * MiB);
  const holdfast = async (contestant: string, round: number, clients: number, seconds: number): Promise<void> => {
    const server = await startHoldfast({ dir, sizeBytes: options.size, durability: 'always' });
    try {
      const args = ['--url', server.url, '--op', 'write', '--clients', String(clients), '--depth', '1'];
      args.push('--seconds', String(seconds), '--warmup', String(options.warmup), '--seed', String(round + 1));
      note(runs, contestant, round, await runForJson<LoadResult>(RAW, args));
    } finally {
      await server.stop();
    }
  };
  await filled(dir, options.size, options.size);
  for (let round = 0; round < options.writeRounds; round++) {
    await holdfast(SINGLE, round, 1, options.singleSeconds);
    await holdfast(MANY, round, 64, options.writeSeconds);
    const args = ['--dir', join(work, 'bare'), '--data', String(options.size), '--journal', String(journalBytes)];
    args.push('--seconds', String(options.writeSeconds), '--warmup', String(options.warmup));
    const bare = await runForJson<Omit<LoadResult, 'latency'> & { batchLatency: LoadResult['latency'] }>(
      'bench/load/yardstick-bare-loop.js',
      [...args, '--batch', '64', '--seed', String(round + 1)],
    );
    note(runs, BARE, round, { ...bare, latency: bare.batchLatency });
  }
  const many = medianRate(runs, MANY);
  const stallMs = Math.max(...runs.filter((r) => r.contestant === MANY).map((r) => r.maxUs)) / 1000;
  return {
    runs,
    verdicts: [
      ratio('durable 4 KiB random writes, 64 clients : 1 client', many / medianRate(runs, SINGLE), 5),
      ratio('durable 4 KiB random writes, 64 clients : bare loop', many / medianRate(runs, BARE), 0.5),
      {
        what: 'longest durable write with 64 clients, checkpoints included',
        value: stallMs,
        unit: 'ms',
        atMost: options.stallBoundMs,
        passes: stallMs <= options.stallBoundMs,
      },
    ],
  };
}

async function reads(options: ShowOptions, work: string): Promise<{ runs: Run[]; verdicts: Verdict[] }> {
  const runs: Run[] = [];
  const dir = join(work, 'reads');
  await filled(dir, options.readSpan, options.readSpan);
  const drive = async (contestant: string, round: number, generator: string, server: Server): Promise<void> => {
    try {
      const args = ['--url', server.url, '--op', 'read', '--clients', '16', '--depth', '16'];
      args.push('--span-bytes', String(options.readSpan), '--seed', String(round + 1));
      args.push('--seconds', String(options.readSeconds), '--warmup', String(options.warmup));
      note(runs, contestant, round, await runForJson<LoadResult>(generator, args));
    } finally {
      await server.stop();
    }
  };
  const holdfast = (): Promise<Server> => startHoldfast({ dir, sizeBytes: options.readSpan, durability: 'always' });
  for (let round = 0; round < options.readRounds; round++) {
    await drive(RING, round, RAW, await holdfast());
    for (const [contestant, atOnce] of [
      [TASKS, 1],
      [TUNED_TASKS, TASKS_AT_ONCE],
    ] as const) {
      const args = ['--dir', join(work, 'tasks'), '--size', String(options.readSpan)];
      args.push('--listen', `127.0.0.1:${await freePort()}`, '--tasks-per-thread', String(atOnce));
      await drive(contestant, round, RAW, await startServer('bench/load/yardstick-task-per-request.js', args, 'bench'));
    }
    await drive(LIBRARY, round, 'bench/load/client-generator.js', await holdfast());
  }
  const ring = medianRate(runs, RING);
  return {
    runs,
    verdicts: [
      ratio('cached 4 KiB random reads 16 x 16, holdfast : task per request', ring / medianRate(runs, TASKS), 4),
    ],
  };
}

/** Makes the volume and writes all of the span: what was never written is read without I/O. */
async function filled(dir: string, sizeBytes: number, spanBytes: number): Promise<void> {
  const server = await startHoldfast({ dir, sizeBytes, durability: 'always' });
  try {
    const args = ['--url', server.url, '--fill', '--block-bytes', String(256 * KiB), '--clients', '2', '--depth', '4'];
    await runForJson(RAW, [...args, '--span-bytes', String(spanBytes)]);
  } finally {
    await server.stop();
  }
}

function note(runs: Run[], contestant: string, round: number, result: LoadResult): void {
  const { p50Us, p99Us, maxUs } = result.latency;
  runs.push({ contestant, round, opsPerSecond: result.opsPerSecond, p50Us, p99Us, maxUs, perSecond: result.perSecond });
  process.stdout.write(
    `round ${round + 1}, ${contestant}: ${grouped(result.opsPerSecond)}/s, p99 ${grouped(p99Us)} µs\n`,
  );
}

function median(values: number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const half = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[half]! : (sorted[half - 1]! + sorted[half]!) / 2;
}

function ratesOf(runs: Run[], contestant: string): number[] {
  return runs.filter((r) => r.contestant === contestant).map((r) => r.opsPerSecond);
}

function medianRate(runs: Run[], contestant: string): number {
  return median(ratesOf(runs, contestant));
}

function ratio(what: string, value: number, atLeast: number): Verdict {
  return { what, value, unit: '', atLeast, passes: value >= atLeast };
}

function tableOf(runs: Run[]): string {
  const head = ['', 'runs', 'median/s', 'lowest/s', 'highest/s', 'slowest second', 'p50 µs', 'p99 µs', 'max µs'];
  const table = new Table({
    head,
    style: { head: [], border: [] },
    colAligns: head.map((_, i) => (i ? 'right' : 'left')),
  });
  for (const contestant of new Set(runs.map((r) => r.contestant))) {
    const own = runs.filter((r) => r.contestant === contestant);
    const rates = own.map((r) => r.opsPerSecond);
    const seconds = own.flatMap((r) => r.perSecond);
    table.push([
      contestant,
      own.length,
      ...[median(rates), Math.min(...rates), Math.max(...rates)].map(grouped),
      seconds.length > 0 ? grouped(Math.min(...seconds)) : '',
      ...[median(own.map((r) => r.p50Us)), median(own.map((r) => r.p99Us)), Math.max(...own.map((r) => r.maxUs))].map(
        grouped,
      ),
    ]);
  }
  return table.toString();
}

function plot(folder: string, name: string, title: string, runs: Run[], where: string): void {
  const contestants = [...new Set(runs.map((r) => r.contestant))];
  const bars = barChart({
    title,
    subtitle: where,
    yLabel: 'operations/s: median, lowest, highest',
    yScale: 'linear',
    series: ['operations/s'],
    groups: contestants.map((contestant) => {
      const rates = ratesOf(runs, contestant);
      return { name: contestant, values: [{ y: median(rates), low: Math.min(...rates), high: Math.max(...rates) }] };
    }),
  });
  writeFileSync(join(folder, `${name}.svg`), bars);
  const lines = lineChart({
    title: `${title}, second by second`,
    subtitle: where,
    xLabel: 'second',
    yLabel: 'operations/s',
    xScale: 'linear',
    yScale: 'linear',
    series: runs
      .filter((r) => r.perSecond.length > 1)
      .map((r) => ({
        name: `${r.contestant} (${r.round + 1})`,
        points: r.perSecond.map((y, i) => ({ x: i + 1, y })),
      })),
  });
  writeFileSync(join(folder, `${name}-by-second.svg`), lines);
}

function report(
  options: ShowOptions,
  environment: Environment,
  results: Array<{ name: string; title: string; runs: Run[] }>,
  verdicts: Verdict[],
): void {
  mkdirSync(options.out, { recursive: true });
  const where = describeEnvironment(environment);
  writeFileSync(
    join(options.out, 'show.json'),
    `${JSON.stringify({ environment, options, results, verdicts }, null, 2)}\n`,
  );
  const text = [where];
  for (const { name, title, runs } of results) {
    plot(options.out, name, title, runs, where);
    text.push('', title, tableOf(runs));
  }
  text.push('');
  for (const v of verdicts) {
    const bound = v.atLeast === undefined ? `at most ${v.atMost}` : `at least ${v.atLeast}`;
    const value = `${Number(v.value.toFixed(2))}${v.unit === '' ? '' : ` ${v.unit}`}`;
    text.push(`${v.passes ? 'pass       ' : 'FALLS SHORT'}  ${v.what}: ${value} (${bound})`);
  }
  writeFileSync(join(options.out, 'show.txt'), `${text.join('\n')}\n`);
  process.stdout.write(`\n${text.join('\n')}\n`);
}

async function show(options: ShowOptions): Promise<boolean> {
  const environment = environmentOf(options.dir);
  const warning = environmentWarning(environment);
  if (warning !== null) process.stderr.write(`warning: ${warning}\n`);
  const work = mkdtempSync(join(options.dir, 'holdfast-show-'));
  const cleanUp = (): void => rmSync(work, { recursive: true, force: true });
  process.on('exit', cleanUp);
  const results: Array<{ name: string; title: string; runs: Run[] }> = [];
  const verdicts: Verdict[] = [];
  if (options.only !== 'writes') {
    const { runs, verdicts: own } = await reads(options, work);
    results.push({ name: 'cached-reads', title: 'Cached 4 KiB random reads, 16 clients x depth 16', runs });
    verdicts.push(...own);
  }
  if (options.only !== 'reads') {
    const { runs, verdicts: own } = await writes(options, work);
    results.push({ name: 'durable-writes', title: 'Durable 4 KiB random writes', runs });
    verdicts.push(...own);
  }
  report(options, environment, results, verdicts);
  return verdicts.every((v) => v.passes);
}

const options = new Command('show')
  .description('durable writes against a bare loop, cached reads against a task per request, in one run')
  .addOption(new Option('--only <part>', 'only one of the two').choices(['writes', 'reads']))
  .option('--write-seconds <n>', 'each run of 64 clients and of the bare loop', number(0.2, 3600), 60)
  .option('--single-seconds <n>', 'each run of 1 client', number(0.2, 3600), 20)
  .option('--read-seconds <n>', 'each run of the reads', number(0.2, 3600), 10)
  .option('--write-rounds <n>', 'how often the writers take turns', number(1, 100), 2)
  .option('--read-rounds <n>', 'how often the readers take turns', number(1, 100), 3)
  .option('--warmup <n>', 'time before measuring, in seconds', number(0, 600), 2)
  .option('--size <size>', 'size of the volume, and of the data file of the bare loop', size, 1024 * MiB)
  .option('--read-span <size>', 'size of what is read; it must fit into memory', size, 256 * MiB)
  .option('--stall-bound-ms <n>', 'longest time that a durable write may take', number(0, 1e6), 500)
  .option('--dir <path>', 'folder in which the files are made; its disk is what is measured', 'bench/out')
  .option('--out <path>', 'folder for results and plots', 'bench/out/show')
  .option('--assert', 'exit with 1 if anything falls short', false)
  .parse()
  .opts<ShowOptions>();

if (!(await show(options)) && options.assert) process.exitCode = 1;
