/**
 * One server against two nodes, fsync on and off, in one run: bandwidth by clients and operations, mixes of readers and
 * writers, and reintegration by missed writes. `npm run bench:replicated`, or `holdfast bench replicated`.
 *
 * Guarantees: all processes are ended by their pid and all volumes removed, whatever happens; an error of any operation
 * ends the run; what was measured before it is kept. `fsync off` is `--durability none` on every volume.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { Command, Option } from 'commander';
import { BLOCK_BYTES, MiB } from '../../src/base/units.ts';
import { type Durability, type Server, startHoldfast } from '../load/children.ts';
import { describeEnvironment, environmentOf, environmentWarning } from '../load/environment.ts';
import { number, size } from '../load/load-options.ts';
import type { Pattern } from '../load/workload.ts';
import { BenchCluster } from './cluster.ts';
import { Generator } from './generator.ts';
import { type Bar, type Grid, type Return, barsOf, measureBars, measureReturn } from './measure.ts';
import { writeReport } from './report.ts';
import { trendsOf } from './trends.ts';

/** The hot part of the volume, in blocks: 8 MB, as in the figures that these graphs are compared with. */
const SPAN_BLOCKS = 2000;

interface Options {
  smoke: boolean;
  only?: Array<'bandwidth' | 'reintegration'>;
  rounds: number;
  pattern: 'zipf' | 'uniform';
  alignedRatio: number;
  missed: string;
  durability?: Durability[];
  size: number;
  dir: string;
  out: string;
  seed: number;
  json: boolean;
}

const GRID: Grid = {
  clients: [1, 2, 4, 8, 16, 32, 64],
  operations: [1000, 2000, 2500, 3333, 4000],
  mixes: [
    [1, 1],
    [1, 4],
    [4, 1],
  ],
  ratios: [4, 2, 1, 0.5],
  mixOperations: 5000,
};
const SMOKE_GRID: Grid = {
  clients: [1, 8],
  operations: [200, 400],
  mixes: [
    [1, 4],
    [4, 1],
  ],
  ratios: [4, 0.5],
  mixOperations: 500,
};

async function run(options: Options): Promise<void> {
  const say = (text: string): void => void (options.json ? process.stderr : process.stdout).write(text);
  const environment = environmentOf(options.dir);
  say(`${describeEnvironment(environment)}\n`);
  const warning = environmentWarning(environment);
  if (warning !== null) process.stderr.write(`warning: ${warning}\n`);
  const work = mkdtempSync(join(options.dir, 'holdfast-bench-'));
  process.on('exit', () => rmSync(work, { recursive: true, force: true }));
  const bars: Bar[] = [];
  const returns: Return[] = [];
  try {
    for (const durability of options.durability ?? (['always', 'none'] as const)) {
      say(`\nfsync ${durability === 'always' ? 'on' : 'off'}\n`);
      const dir = join(work, durability);
      const cluster = await BenchCluster.start(join(dir, 'two'), options.size, durability);
      const two = new Generator(cluster.url);
      if (options.only?.includes('bandwidth') ?? true) {
        const server = await startHoldfast({ dir: join(dir, 'one'), sizeBytes: options.size, durability });
        bars.push(...(await bandwidth(server, two, durability, options, say)));
        await server.stop();
      }
      if (options.only?.includes('reintegration') ?? true) {
        for await (const one of reintegrations(cluster, two, durability, options)) {
          returns.push(one);
          const { pattern, missedWrites, distinctBlocks, reintegrationMs, suspicionMs, startMs } = one;
          say(
            `reintegration, ${pattern}: ${missedWrites} writes missed (${distinctBlocks} blocks): ${reintegrationMs} ms; ` +
              `before it: until alone ${suspicionMs ?? '-'} ms, start of the process ${startMs} ms\n`,
          );
        }
      }
      await two.close();
      await cluster.stop();
    }
  } finally {
    const { smoke: _smoke, json: _json, dir: _dir, out: _out, ...settings } = options;
    const report = { environment, settings, bars, returns, trends: trendsOf(bars, returns) };
    const tables = writeReport(report, options.out);
    say(`\n${tables}\nresults and plots are in ${options.out}\n`);
    if (options.json) process.stdout.write(`${JSON.stringify(report)}\n`);
  }
}

async function bandwidth(
  server: Server,
  two: Generator,
  durability: Durability,
  options: Options,
  say: (text: string) => void,
): Promise<Bar[]> {
  const one = new Generator(server.url);
  const bars = barsOf(options.smoke ? SMOKE_GRID : GRID, durability);
  const { pattern, alignedRatio: alignedShare, rounds, seed } = options;
  let tenth = 0;
  const workload = { pattern, alignedShare, spanBytes: SPAN_BLOCKS * BLOCK_BYTES, rounds, seed };
  await measureBars(bars, { one, two }, workload, (done, of) => {
    if (Math.floor((done * 10) / of) === tenth) return;
    tenth = Math.floor((done * 10) / of);
    say(`bandwidth: ${tenth * 10} %\n`);
  });
  await one.close();
  return bars;
}

async function* reintegrations(
  cluster: BenchCluster,
  generator: Generator,
  durability: Durability,
  options: Options,
): AsyncGenerator<Return> {
  const counts = options.missed.split(',').map(Number);
  const spans: Array<[Pattern, number]> = [
    ['zipf', SPAN_BLOCKS * BLOCK_BYTES],
    ['uniform', options.size],
  ];
  for (let round = 0; round < options.rounds; round++) {
    for (const [pattern, spanBytes] of spans) {
      for (const missedWrites of counts) {
        yield await measureReturn(cluster, generator, { durability, pattern, missedWrites, spanBytes, round });
      }
    }
  }
}

const options = new Command('replicated')
  .description('one server against two nodes: bandwidth, mixes, reintegration; writes tables and plots')
  .option('--smoke', 'few and short cells, to see that everything runs; no figures to quote', false)
  .addOption(new Option('--only <what...>', 'only these').choices(['bandwidth', 'reintegration']))
  .option('--rounds <n>', 'each cell so many times, in turns', number(1, 100), 3)
  .addOption(
    new Option('--pattern <pattern>', 'addresses of the bandwidth').choices(['zipf', 'uniform']).default('zipf'),
  )
  .option('--aligned-ratio <n>', 'share of aligned offsets, e.g. 1 or 0.5', number(0, 1), 1)
  .option('--missed <counts>', 'writes that the backup misses', '0,10,100,1000,10000,100000')
  .addOption(new Option('--durability <mode...>', 'only these').choices(['always', 'none']))
  .option('--size <size>', 'of each volume', size, 512 * MiB)
  .option('--dir <path>', 'folder in which the volumes are made; its disk is what is measured', 'bench/out')
  .option('--out <path>', 'folder for results and plots', 'bench/out/replicated')
  .option('--seed <n>', 'of addresses and bytes', number(0, 2 ** 31 - 1), 1)
  .option('--json', 'print the results as one line of JSON', false)
  .parse()
  .opts<Options>();

if (options.smoke) {
  Object.assign(options, { rounds: 1, missed: '0,100', size: 64 * MiB, durability: options.durability ?? ['always'] });
  if (options.out === 'bench/out/replicated') options.out = 'bench/out/smoke-replicated';
}
await run(options);
