/**
 * A key-value volume on three nodes, fsync on and off: latencies and rates of one client by the number of keys, with servers
 * that fail and without; rates by clients; recovery by PUTs missed; start-up by keys. `npm run bench:kv`.
 *
 * Guarantees: all processes are ended by their pid and all volumes removed, whatever happens; what was measured before an
 * error is kept; an operation that fails is counted, and makes the exit code 1. `fsync off` is `--durability none`.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { Command, Option } from 'commander';
import { GiB, MiB } from '../../src/base/units.ts';
import type { Durability } from '../load/children.ts';
import { describeEnvironment, environmentOf, environmentWarning } from '../load/environment.ts';
import { number, size } from '../load/load-options.ts';
import { BenchCluster } from '../replicated/cluster.ts';
import {
  KINDS,
  KvGenerator,
  THREE,
  VICTIMS,
  measureMany,
  measureOne,
  measureRecovery,
  measureStartUp,
} from './measure.ts';
import { type KvReport, failuresOf, fsync, writeKvReport } from './report.ts';

const SECTIONS = ['one', 'clients', 'recovery', 'startup'] as const;

interface Options {
  smoke: boolean;
  only?: Array<(typeof SECTIONS)[number]>;
  rounds: number;
  keys: string;
  clients: string;
  seconds: number;
  warmSeconds: number;
  missed: string;
  startKeys: string;
  valueBytes: number;
  startValueBytes: number;
  durability?: Durability[];
  size: number;
  dir: string;
  out: string;
  json: boolean;
}

const WARM_CLIENTS = 40;

type Say = (text: string) => void;
const numbers = (list: string): number[] => list.split(',').map(Number);

async function run(options: Options): Promise<void> {
  const say: Say = (text) => void (options.json ? process.stderr : process.stdout).write(text);
  const environment = environmentOf(options.dir);
  const awakeUs = process.env['HOLDFAST_AWAKE_US'] ?? 'default';
  say(`${describeEnvironment(environment)}; HOLDFAST_AWAKE_US: ${awakeUs}\n`);
  const warning = environmentWarning(environment);
  if (warning !== null) process.stderr.write(`warning: ${warning}\n`);
  const work = mkdtempSync(join(options.dir, 'holdfast-bench-'));
  process.on('exit', () => rmSync(work, { recursive: true, force: true }));
  const { smoke: _smoke, json: _json, dir: _dir, out: _out, ...chosen } = options;
  const settings = { ...chosen, awakeUs, generator: 'client library, one process' };
  const report: KvReport = { environment, settings, one: [], clients: [], recovery: [], startup: [] };
  const wanted = (section: (typeof SECTIONS)[number]): boolean => options.only?.includes(section) ?? true;
  try {
    for (const durability of options.durability ?? (['always', 'none'] as const)) {
      say(`\nfsync ${fsync(durability)}\n`);
      if (wanted('one') || wanted('clients') || wanted('recovery')) {
        await withCluster(join(work, durability), durability, options, async (cluster, generator) => {
          if (wanted('one')) await oneClient(cluster, generator, durability, options, report, say);
          if (wanted('clients')) await manyClients(cluster, generator, durability, options, report, say);
          if (wanted('recovery')) await recoveries(cluster, generator, durability, options, report, say);
        });
      }
      if (!wanted('startup')) continue;
      await withCluster(join(work, `${durability}-startup`), durability, options, (cluster, generator) =>
        startUps(cluster, generator, durability, options, report, say),
      );
    }
  } finally {
    const tables = writeKvReport(report, options.out);
    say(`\n${tables}\nresults and plots are in ${options.out}\n`);
    if (options.json) process.stdout.write(`${JSON.stringify(report)}\n`);
    if (failuresOf(report) > 0) process.exitCode = 1;
  }
}

async function withCluster(
  dir: string,
  durability: Durability,
  { size: sizeBytes }: Options,
  work: (cluster: BenchCluster, generator: KvGenerator) => Promise<void>,
): Promise<void> {
  const cluster = await BenchCluster.start(dir, sizeBytes, durability, { nodes: THREE, kind: 'kv' });
  const generator = new KvGenerator(cluster.kvUrl);
  await work(cluster, generator);
  await generator.close();
  await cluster.stop();
  rmSync(dir, { recursive: true });
}

/** A node that was started a moment ago is slower by half until its code is compiled: that is not what is compared. */
async function warm(
  cluster: BenchCluster,
  generator: KvGenerator,
  { keys, valueBytes, warmSeconds: seconds }: Options,
): Promise<void> {
  await cluster.untilInSync();
  const load = {
    clients: WARM_CLIENTS,
    reads: 'primary',
    keys: numbers(keys)[0]!,
    valueBytes,
    seconds,
    seed: 9,
  } as const;
  await generator.fill(0, load.keys, valueBytes);
  for (const op of ['put', 'get'] as const) {
    const { failures, firstFailure } = await generator.run({ ...load, op });
    if (failures > 0) throw new Error(`${failures} operations failed with all nodes there: ${firstFailure}`);
  }
}

async function oneClient(
  cluster: BenchCluster,
  generator: KvGenerator,
  durability: Durability,
  options: Options,
  report: KvReport,
  say: Say,
): Promise<void> {
  const { rounds, keys, valueBytes } = options;
  const counts = numbers(keys);
  for (let round = 0; round < rounds; round++) {
    for (const count of counts) {
      for (const victim of VICTIMS) {
        await warm(cluster, generator, options);
        const one = await measureOne(cluster, generator, { durability, keys: count, valueBytes, victim, round });
        report.one.push(one);
        const { put, get } = one;
        say(
          `one client, ${count} keys, ${victim} killed: PUT ${Math.round(put.opsPerSecond)}/s (p50 ${put.latency.p50Us} µs, ` +
            `max ${put.latency.maxUs}), GET ${Math.round(get.opsPerSecond)}/s (p50 ${get.latency.p50Us}, ` +
            `max ${get.latency.maxUs}); ${put.failures + get.failures} failed\n`,
        );
      }
    }
  }
}

async function manyClients(
  cluster: BenchCluster,
  generator: KvGenerator,
  durability: Durability,
  options: Options,
  report: KvReport,
  say: Say,
): Promise<void> {
  const { rounds, clients, keys, valueBytes, seconds } = options;
  await warm(cluster, generator, options);
  const load = { keys: Math.max(...numbers(keys)), valueBytes, seconds };
  await generator.fill(0, load.keys, valueBytes);
  for (let round = 0; round < rounds; round++) {
    for (const count of numbers(clients)) {
      for (const kind of KINDS) {
        const many = await measureMany(generator, { durability, clients: count, kind, round }, load);
        report.clients.push(many);
        const { opsPerSecond, latency, failures, generatorCpuPercent } = many.result;
        say(
          `${count} clients, ${kind}: ${Math.round(opsPerSecond)}/s, p50 ${latency.p50Us} µs, p99 ${latency.p99Us} µs, ` +
            `generator ${Math.round(generatorCpuPercent)} % of a core; ${failures} failed\n`,
        );
      }
    }
  }
}

async function recoveries(
  cluster: BenchCluster,
  generator: KvGenerator,
  durability: Durability,
  { rounds, missed, keys, valueBytes }: Options,
  report: KvReport,
  say: Say,
): Promise<void> {
  const load = { keys: Math.max(...numbers(keys)), valueBytes };
  for (let round = 0; round < rounds; round++) {
    for (const missedPuts of numbers(missed)) {
      const one = await measureRecovery(cluster, generator, { durability, missedPuts, round }, load);
      report.recovery.push(one);
      const { begunMs, inSyncMs, answersMs, copiedBlocks } = one;
      say(
        `recovery, ${missedPuts} PUTs missed: begun after ${begunMs} ms, in sync after ${inSyncMs} ms, answers GETs after ` +
          `${answersMs} ms; ${copiedBlocks} blocks copied\n`,
      );
    }
  }
}

async function startUps(
  cluster: BenchCluster,
  generator: KvGenerator,
  durability: Durability,
  { rounds, startKeys, startValueBytes: valueBytes }: Options,
  report: KvReport,
  say: Say,
): Promise<void> {
  let filled = 0;
  for (const keys of numbers(startKeys).sort((a, b) => a - b)) {
    await generator.fill(filled, keys, valueBytes);
    filled = keys;
    for (let round = 0; round < rounds; round++) {
      const one = await measureStartUp(cluster, { durability, keys, valueBytes, round });
      report.startup.push(one);
      const { listeningMs, servedMs, firstGetMs, readKeysMs } = one;
      say(
        `start with ${keys} keys: listening after ${listeningMs} ms, served after ${servedMs} ms, first GET after ` +
          `${firstGetMs} ms (reading the keys took ${Math.round(readKeysMs)} ms)\n`,
      );
    }
  }
}

const DEFAULT_OUT = 'bench/out/kv';
const options = new Command('kv')
  .description('a key-value volume on three nodes: one client, many, recovery, start-up; writes tables and plots')
  .option('--smoke', 'few and short cells, to see that everything runs; no figures to quote', false)
  .addOption(new Option('--only <what...>', 'only these').choices([...SECTIONS]))
  .option('--rounds <n>', 'each cell so many times, in turns', number(1, 100), 1)
  .option('--keys <counts>', 'as many PUTs, then GETs, by one client', '10000,20000,50000,100000')
  .option('--clients <counts>', 'at once', '1,10,15,20,25,30,40,100')
  .option('--seconds <n>', 'for each number of clients', number(0.1, 600), 5)
  .option('--warm-seconds <n>', 'PUTs, and GETs, of 40 clients before nodes are measured', number(0.1, 60), 2)
  .option('--missed <counts>', 'PUTs that a backup misses', '0,100,1000,10000,50000')
  .option('--start-keys <counts>', 'keys there when everything is started', '100000,1000000')
  .option('--value-bytes <n>', 'of a value; keys have 20', size, 11)
  .option('--start-value-bytes <n>', 'of a value, for the start', size, 100)
  .addOption(new Option('--durability <mode...>', 'only these').choices(['always', 'none']))
  .option('--size <size>', 'of each replica, preallocated', size, GiB)
  .option('--dir <path>', 'folder in which the volumes are made; its disk is what is measured', 'bench/out')
  .option('--out <path>', 'folder for results and plots', DEFAULT_OUT)
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
  };
  Object.assign(options, { ...short, size: 64 * MiB, durability: options.durability ?? ['always'] });
  if (options.out === DEFAULT_OUT) options.out = 'bench/out/smoke-kv';
}
await run(options);
