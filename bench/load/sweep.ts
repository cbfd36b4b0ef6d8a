/**
 * The sweep: clients x depth, sizes, patterns, alignment, mixes, fsync on and off, against servers that it starts
 * itself. Every cell is one run of a generator in its own process.
 *
 * Guarantees: the volume is written in full before anything is measured (blocks never written are read without I/O,
 * which would flatter the reads); a cell with an error ends the sweep; servers are stopped by pid and the volumes
 * removed, whatever happens.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { Command, Option } from 'commander';
import { KiB, MiB } from '../../src/base/units.ts';
import { runForJson, startHoldfast, type Durability, type Server } from './children.ts';
import { describeEnvironment, environmentOf, environmentWarning } from './environment.ts';
import { number, size, type LoadResult } from './load-options.ts';
import { grouped, writeReport, type Line } from './report.ts';
import type { Operation, Pattern } from './workload.ts';

interface Cell {
  section: string;
  form: Line['form'];
  label: string;
  durability: Durability;
  generator: 'raw' | 'client';
  op: Operation;
  clients: number;
  depth: number;
  blockBytes: number;
  pattern: Pattern;
  unaligned: boolean;
}

const POWERS = [1, 2, 4, 8, 16, 32, 64];

const cell = (section: string, label: string, changes: Partial<Cell>): Cell => ({
  section,
  form: 'bars',
  label,
  durability: 'always',
  generator: 'raw',
  op: 'read',
  clients: 16,
  depth: 4,
  blockBytes: 4 * KiB,
  pattern: 'uniform',
  unaligned: false,
  ...changes,
});

/** Sections by their short names, as `--only` takes them. */
const SECTIONS: Record<string, () => Cell[]> = {
  reads: () => matrix('Random 4 KiB reads', 'read', POWERS, POWERS),
  writes: () => matrix('Durable random 4 KiB writes', 'write', POWERS, POWERS),
  mixes: () => matrix('Random 4 KiB, 70 % reads', 'mix', POWERS, [1, 4, 16, 64]),
  sizes: () =>
    (['read', 'write'] as const).flatMap((op) =>
      (['uniform', 'sequential'] as const).flatMap((pattern) =>
        [4, 16, 64, 256].map((kib) =>
          cell('Sizes', `${kib} KiB ${pattern === 'uniform' ? 'random' : 'seq.'}`, {
            op,
            pattern,
            blockBytes: kib * KiB,
          }),
        ),
      ),
    ),
  alignment: () =>
    (['read', 'write', 'mix'] as const).flatMap((op) =>
      [false, true].map((unaligned) => cell('Alignment', unaligned ? 'unaligned' : 'aligned', { op, unaligned })),
    ),
  patterns: () =>
    (['read', 'write', 'mix'] as const).flatMap((op) =>
      (['uniform', 'zipf', 'sequential'] as const).map((pattern) => cell('Patterns', pattern, { op, pattern })),
    ),
  durability: () =>
    (['always', 'none'] as const).flatMap((durability) =>
      [1, 16, 64].map((clients) =>
        cell('Durability', `${clients} x 1, fsync ${durability === 'always' ? 'on' : 'off'}`, {
          op: 'write',
          durability,
          clients,
          depth: 1,
        }),
      ),
    ),
  client: () =>
    (['raw', 'client'] as const).flatMap((generator) =>
      (['read', 'write'] as const).map((op) =>
        cell('Client library', generator === 'raw' ? 'raw generator' : 'client library', { op, generator, depth: 16 }),
      ),
    ),
};

function matrix(section: string, op: Operation, clients: number[], depths: number[]): Cell[] {
  return depths.flatMap((depth) =>
    clients.map((n) => cell(section, `${n} x ${depth}`, { form: 'matrix', op, clients: n, depth })),
  );
}

/** A few cells that touch every kind of work, for a quick look that all of it runs. */
function smokeCells(): Cell[] {
  return [
    ...matrix('Random 4 KiB reads', 'read', [1, 16], [1, 16]),
    ...matrix('Durable random 4 KiB writes', 'write', [1, 16], [1]),
    cell('Others', 'zipf', { op: 'mix', pattern: 'zipf' }),
    cell('Others', 'unaligned', { op: 'write', unaligned: true }),
    cell('Others', 'client library', { op: 'read', generator: 'client' }),
    cell('Others', 'fsync off', { op: 'write', durability: 'none' }),
  ];
}

interface SweepOptions {
  smoke: boolean;
  only?: string[] | undefined;
  seconds: number;
  warmup: number;
  size: number;
  span: number;
  dir: string;
  out: string;
  seed: string;
}

async function sweep(options: SweepOptions): Promise<void> {
  const cells = options.smoke
    ? smokeCells()
    : Object.entries(SECTIONS).flatMap(([name, make]) => ((options.only?.includes(name) ?? true) ? make() : []));
  const environment = environmentOf(options.dir);
  process.stdout.write(`${describeEnvironment(environment)}\n`);
  const warning = environmentWarning(environment);
  if (warning !== null) process.stderr.write(`warning: ${warning}\n`);

  const work = mkdtempSync(join(options.dir, 'holdfast-bench-'));
  const lines: Line[] = [];
  let server: Server | null = null;
  let durability: Durability | null = null;
  const cleanUp = (): void => rmSync(work, { recursive: true, force: true });
  process.on('exit', cleanUp);
  try {
    // Cells that need the same server run one after the other; within that, the order of the sections stays.
    const order = [...cells].sort((a, b) => a.durability.localeCompare(b.durability));
    for (const [i, c] of order.entries()) {
      if (durability !== c.durability) {
        await server?.stop();
        const first = durability === null;
        server = await startHoldfast({
          dir: join(work, 'volume'),
          sizeBytes: options.size,
          durability: c.durability,
        });
        durability = c.durability;
        if (first) await fill(server.url, options);
      }
      const line = await measure(server!.url, c, options);
      lines.push(line);
      const { p50Us, p99Us } = line.latency;
      process.stdout.write(
        `${i + 1}/${order.length} ${c.section}: ${c.op} ${c.label}: ${grouped(line.opsPerSecond)}/s, ` +
          `p50 ${grouped(p50Us)} µs, p99 ${grouped(p99Us)} µs\n`,
      );
    }
    await server?.stop();
    server = null;
  } finally {
    // What was measured is kept, also when a later cell failed.
    if (lines.length > 0) process.stdout.write(`\n${writeReport(lines, environment, options.out)}\n`);
    await server?.stop().catch((error: Error) => process.stderr.write(`${error.message}\n`));
    cleanUp();
  }
  process.stdout.write(`results and plots are in ${options.out}\n`);
}

function fill(url: string, options: SweepOptions): Promise<LoadResult> {
  const args = ['--url', url, '--fill', '--block-bytes', String(256 * KiB), '--clients', '2', '--depth', '4'];
  return runForJson<LoadResult>('bench/load/raw-generator.js', [...args, '--span-bytes', String(options.span)]);
}

async function measure(url: string, c: Cell, options: SweepOptions): Promise<Line> {
  const args = ['--url', url, '--op', c.op, '--block-bytes', String(c.blockBytes), '--pattern', c.pattern];
  args.push('--clients', String(c.clients), '--depth', String(c.depth), '--seed', options.seed);
  args.push('--seconds', String(options.seconds), '--warmup', String(options.warmup));
  args.push('--span-bytes', String(options.span), ...(c.unaligned ? ['--unaligned'] : []));
  const result = await runForJson<LoadResult>(`bench/load/${c.generator}-generator.js`, args);
  const { section, form, label } = c;
  return { section, form, label, durability: c.durability, ...result };
}

const options = new Command('sweep')
  .description('runs the load benches and writes results.jsonl, tables.txt and SVG plots')
  .option('--smoke', 'a few short cells on a small volume, about 10 seconds in all', false)
  .addOption(new Option('--only <sections...>', 'only these sections').choices(Object.keys(SECTIONS)))
  .option('--seconds <n>', 'time to measure each cell', number(0.05, 3600), 3)
  .option('--warmup <n>', 'time before measuring, in seconds', number(0, 3600), 1)
  .option('--size <size>', 'size of the volume', size, 1024 * MiB)
  .option('--span <size>', 'how much of it to use; it should fit into memory', size, 512 * MiB)
  .option('--dir <path>', 'folder in which the volumes are made; its disk is what is measured', 'bench/out')
  .option('--out <path>', 'folder for results and plots', 'bench/out/sweep')
  .option('--seed <n>', 'seed of offsets and bytes', '1')
  .addHelpText(
    'after',
    '\nExamples:\n  node dist/bench/load/sweep.js --smoke\n' +
      '  node dist/bench/load/sweep.js --only writes durability --seconds 10 --dir /mnt/disk',
  )
  .parse()
  .opts<SweepOptions>();

if (options.smoke) {
  Object.assign(options, { seconds: 0.4, warmup: 0.1, size: 128 * MiB, span: 32 * MiB });
  if (options.out === 'bench/out/sweep') options.out = 'bench/out/smoke';
}
if (options.span > options.size) options.span = options.size;
await sweep(options);
