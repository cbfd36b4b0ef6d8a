/**
 * A key-value volume on nodes of this machine, fsync on and off: where the time of an operation goes; the workloads of YCSB;
 * latencies and rates of one client by the number of keys, with servers that fail and without; rates by clients; recovery by
 * PUTs missed; the tail under faults; start-up by keys. `npm run bench:kv`.
 *
 * Guarantees: all processes are ended by their pid and all volumes removed, whatever happens; what was measured before an
 * error is kept; an operation that fails is counted, and makes the exit code 1; how long it will take is said before, and
 * with each cell. `fsync off` is `--durability none`.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { Command, Option } from 'commander';
import { GiB, MiB } from '../../src/base/units.ts';
import type { Durability } from '../load/children.ts';
import { describeEnvironment, environmentOf, environmentWarning } from '../load/environment.ts';
import { number, size } from '../load/load-options.ts';
import { BenchCluster, type ClusterOptions } from '../replicated/cluster.ts';
import { type CellOptions, Cells } from './cells.ts';
import { KvGenerator, THREE } from './measure.ts';
import { WORKLOADS } from './measure-mix.ts';
import { type Cell, Progress, SECTIONS, type Section, type Stage, planOf, stagesOf } from './plan.ts';
import { type KvReport, failuresOf, writeKvReport } from './report.ts';
import { fsync } from './words.ts';

interface Options extends Omit<CellOptions, 'keys'> {
  smoke: boolean;
  only?: Section[];
  rounds: number;
  keys: string;
  clients: string;
  missed: string;
  startKeys: string;
  workloads: string;
  durability?: Durability[];
  size: number;
  dir: string;
  out: string;
  plots?: string;
  json: boolean;
}

const DURABILITIES = ['always', 'none'] as const;
const NODES: Readonly<Record<Stage, ClusterOptions>> = {
  'one node': { nodes: ['a'], http: true },
  'with metrics': { nodes: THREE, http: true },
  'three nodes': { nodes: THREE },
  'with faults': { nodes: THREE, faults: true },
  'start-up': { nodes: THREE },
};

type Say = (text: string) => void;
const numbers = (list: string): number[] => list.split(',').map(Number);

function planned(options: Options): Cell[] {
  const workloads = WORKLOADS.filter((workload) => options.workloads.split(',').includes(workload));
  return planOf({
    ...options,
    durabilities: options.durability ?? DURABILITIES,
    keys: numbers(options.keys),
    clients: numbers(options.clients),
    missed: numbers(options.missed),
    startKeys: numbers(options.startKeys),
    workloads,
  });
}

async function run(options: Options): Promise<void> {
  const say: Say = (text) => void (options.json ? process.stderr : process.stdout).write(text);
  const environment = environmentOf(options.dir);
  const awakeUs = process.env['HOLDFAST_AWAKE_US'] ?? 'default';
  say(`${describeEnvironment(environment)}; HOLDFAST_AWAKE_US: ${awakeUs}\n`);
  const warning = environmentWarning(environment);
  if (warning !== null) process.stderr.write(`warning: ${warning}\n`);
  const work = mkdtempSync(join(options.dir, 'holdfast-bench-'));
  process.on('exit', () => rmSync(work, { recursive: true, force: true }));
  const { smoke: _smoke, json: _json, dir: _dir, out: _out, plots: _plots, ...chosen } = options;
  const settings = { ...chosen, awakeUs, generator: 'client library, one process' };
  const none = { one: [], clients: [], recovery: [], startup: [], share: [], ycsb: [], faults: [] };
  const report: KvReport = { environment, settings, ...none };
  const cells = planned(options);
  const progress = new Progress(cells, () => performance.now());
  say(`${progress.plan()}\n`);
  try {
    for (const [i, stage] of stagesOf(cells).entries()) {
      await perform(stage, join(work, String(i)), options, report, (line) => say(`${progress.done()} ${line}\n`), say);
    }
  } finally {
    const tables = writeKvReport(report, options.out, options.plots ?? null);
    say(`\n${tables}\nresults and plots are in ${options.out}\n`);
    if (options.json) process.stdout.write(`${JSON.stringify(report)}\n`);
    if (failuresOf(report) > 0) process.exitCode = 1;
  }
}

/** All cells that share a cluster. */
async function perform(
  cells: readonly Cell[],
  dir: string,
  options: Options,
  report: KvReport,
  done: (line: string) => void,
  say: Say,
): Promise<void> {
  const { stage, durability } = cells[0]!;
  say(`\nfsync ${fsync(durability)}, ${stage}\n`);
  const cluster = await BenchCluster.start(dir, options.size, durability, { ...NODES[stage], kind: 'kv' });
  const generator = new KvGenerator(cluster.kvUrl);
  const of = new Cells(cluster, generator, { ...options, keys: numbers(options.keys) }, report);
  for (const cell of cells) done(await of.perform(cell));
  await generator.close();
  await cluster.stop();
  rmSync(dir, { recursive: true });
}

const DEFAULT_OUT = 'bench/out/kv';
const options = new Command('kv')
  .description(
    'a key-value volume on three nodes: one client, many, YCSB, recovery, faults, start-up; writes tables and plots',
  )
  .option('--smoke', 'few and short cells, to see that everything runs; no figures to quote', false)
  .addOption(new Option('--only <what...>', 'only these').choices([...SECTIONS]))
  .option('--rounds <n>', 'each cell so many times, in turns', number(1, 100), 1)
  .option('--keys <counts>', 'as many PUTs, then GETs, by one client', '10000,20000,50000,100000')
  .option('--clients <counts>', 'at once', '1,10,15,20,25,30,40,100')
  .option('--seconds <n>', 'for each number of clients', number(0.1, 600), 5)
  .option('--warm-seconds <n>', 'PUTs, and GETs, of 40 clients before nodes are measured', number(0.1, 60), 2)
  .option('--missed <counts>', 'PUTs that a backup misses', '0,100,1000,10000,50000,100000')
  .option('--start-keys <counts>', 'keys there when everything is started', '100000,1000000')
  .option('--value-bytes <n>', 'of a value; keys have 20', size, 11)
  .option('--start-value-bytes <n>', 'of a value, for the start', size, 100)
  .option('--share-keys <n>', 'PUTs, then GETs, whose time is taken apart', number(1, 1e7), 10_000)
  .option('--workloads <letters>', 'of YCSB', WORKLOADS.join(','))
  .option('--ycsb-keys <n>', 'there before each workload, and under faults', number(1, 1e7), 10_000)
  .option('--ycsb-value-bytes <n>', 'of a value of YCSB', size, 1000)
  .option('--ycsb-clients <n>', 'of each workload, and under faults', number(1, 1024), 16)
  .option('--ycsb-seconds <n>', 'for each workload', number(0.1, 600), 5)
  .option('--fault-seconds <n>', 'for each fault; it begins a second after the load', number(1.5, 600), 8)
  .addOption(new Option('--durability <mode...>', 'only these').choices([...DURABILITIES]))
  .option('--size <size>', 'of each replica, preallocated', size, GiB)
  .option('--dir <path>', 'folder in which the volumes are made; its disk is what is measured', 'bench/out')
  .option('--out <path>', 'folder for results and plots', DEFAULT_OUT)
  .option('--plots <path>', 'write the plots there too, as kv-NAME.svg: docs/plots')
  .option('--json', 'print the results as one line of JSON', false)
  .parse()
  .opts<Options>();

if (options.smoke) {
  const short = {
    rounds: 1,
    keys: '100',
    clients: '1,20',
    seconds: 0.2,
    warmSeconds: 0.1,
    missed: '0,100',
    startKeys: '5000',
    shareKeys: 100,
    workloads: 'a,e',
    ycsbKeys: 500,
    ycsbSeconds: 0.3,
    faultSeconds: 1.5,
  };
  Object.assign(options, { ...short, size: 64 * MiB, durability: options.durability ?? ['always'] });
  if (options.out === DEFAULT_OUT) options.out = 'bench/out/smoke-kv';
}
await run(options);
