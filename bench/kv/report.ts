/** Tables, plots and files of a bench of the key-value volume. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Durability } from '../load/children.ts';
import { describeEnvironment, type Environment } from '../load/environment.ts';
import { barChart, lineChart } from '../load/svg.ts';
import { median } from '../replicated/measure.ts';
import { spread, table, unique, writePlots } from '../replicated/report.ts';
import { COURSE_LATENCY, COURSE_MANY, COURSE_ONE } from './course-figures.ts';
import type { KvResult } from './kv-load.ts';
import {
  KINDS,
  VICTIMS,
  type ManyClients,
  type OneClient,
  type Recovery,
  type StartUp,
  type Victim,
} from './measure.ts';
import type { UnderFault, Ycsb } from './measure-mix.ts';
import {
  faultsPlot,
  faultsTable,
  sharePlot,
  shareTable,
  ycsbLatencyPlot,
  ycsbRatePlot,
  ycsbTable,
} from './report-mixes.ts';
import type { Share } from './share.ts';
import { fsync, ms, whole } from './words.ts';

export interface KvReport {
  environment: Environment;
  settings: { awakeUs: string; [name: string]: unknown };
  one: OneClient[];
  clients: ManyClients[];
  recovery: Recovery[];
  startup: StartUp[];
  share: Share[];
  ycsb: Ycsb[];
  faults: UnderFault[];
}

const COURSE = 'course report';
const OPS = ['put', 'get'] as const;

const named = (victim: Victim): string => (victim === 'nobody' ? 'nobody killed' : `${victim} killed`);
const durabilitiesOf = ({ one, clients, recovery, startup, share, ycsb, faults }: KvReport): Durability[] =>
  unique(
    [...one, ...clients, ...recovery, ...startup, ...share, ...ycsb, ...faults].map(({ durability }) => durability),
  );

/** Of everything that counts them. */
function failedOf({ one, clients, share, ycsb, faults }: KvReport): Array<{ count: number; first: string | null }> {
  const results = [...one.flatMap(({ put, get }) => [put, get]), ...[...clients, ...share].map(({ result }) => result)];
  return [
    ...results.map(({ failures, firstFailure }) => ({ count: failures, first: firstFailure })),
    ...ycsb.map(({ workload, result: { errors, absent, firstError } }) => {
      const absence = absent > 0 ? `YCSB ${workload}: ${absent} reads found no key` : null;
      return { count: errors + absent, first: firstError ?? absence };
    }),
    ...faults.map(({ failed, firstFailure }) => ({ count: failed, first: firstFailure })),
  ];
}

export const failuresOf = (report: KvReport): number => failedOf(report).reduce((sum, { count }) => sum + count, 0);

export function tablesOf(report: KvReport): string {
  const out = [`${describeEnvironment(report.environment)}; HOLDFAST_AWAKE_US: ${report.settings.awakeUs}`];
  for (const durability of durabilitiesOf(report)) {
    const own = <T extends { durability: Durability }>(all: readonly T[]): T[] =>
      all.filter((one) => one.durability === durability);
    const where = `fsync ${fsync(durability)}`;
    if (own(report.one).length > 0) {
      for (const op of OPS) out.push('', `One client, ${op.toUpperCase()}, ${where}`, oneTable(own(report.one), op));
    }
    if (own(report.clients).length > 0) out.push('', `Clients, ${where}`, manyTable(own(report.clients)));
    if (own(report.recovery).length > 0) {
      const title = 'A backup is killed, misses PUTs and is started; milliseconds since its start';
      out.push('', `${title}; ${where}`, recoveryTable(own(report.recovery)));
    }
    if (own(report.startup).length > 0) {
      const title = 'Everything is killed and started; milliseconds since the start';
      out.push('', `${title}; ${where}`, startTable(own(report.startup)));
    }
    if (own(report.share).length > 0) {
      const [{ keys }] = own(report.share) as [Share];
      const title = `Where the time of one client's operation goes, ${keys} keys, means`;
      out.push('', `${title}, ${where}`, shareTable(own(report.share)));
    }
    if (own(report.ycsb).length > 0) {
      const [{ clients }] = own(report.ycsb) as [Ycsb];
      out.push('', `YCSB, ${clients} clients, ${where}`, ycsbTable(own(report.ycsb)));
    }
    if (own(report.faults).length > 0) {
      const [{ clients }] = own(report.faults) as [UnderFault];
      out.push('', `${clients} clients, half PUTs, half GETs, under faults, ${where}`, faultsTable(own(report.faults)));
    }
  }
  const failures = failuresOf(report);
  out.push('', `${failures} operations failed${failures === 0 ? '' : `: ${firstOf(report)}`}`);
  return `${out.join('\n')}\n`;
}

const firstOf = (report: KvReport): string => failedOf(report).find(({ first }) => first !== null)?.first ?? '';

const midOf = (results: readonly KvResult[], value: (result: KvResult) => number): number => median(results.map(value));

function oneTable(all: readonly OneClient[], op: 'put' | 'get'): string {
  const rows = unique(all.map(({ keys }) => keys)).flatMap((keys) => [
    ...VICTIMS.flatMap((victim) => {
      const own = all.filter((one) => one.keys === keys && one.victim === victim).map((one) => one[op]);
      if (own.length === 0) return [];
      const us = (value: (result: KvResult) => number): string => ms(midOf(own, value));
      return [
        [
          `${keys} keys, ${named(victim)}`,
          whole(midOf(own, ({ opsPerSecond }) => opsPerSecond)),
          us(({ latency }) => latency.p50Us),
          us(({ latency }) => latency.p99Us),
          us(({ latency }) => latency.p999Us),
          us(({ latency }) => latency.maxUs),
          String(own.reduce((sum, { failures }) => sum + failures, 0)),
          whole(midOf(own, ({ generatorCpuPercent }) => generatorCpuPercent)),
        ],
      ];
    }),
    ...courseRows(keys, op),
  ]);
  return table(['', 'per second', 'p50 ms', 'p99 ms', 'p99.9 ms', 'max ms', 'failed', 'generator CPU %'], rows);
}

function courseRows(keys: number, op: 'put' | 'get'): string[][] {
  const course = COURSE_ONE.get(keys);
  if (course === undefined) return [];
  const { p50, p98 } = COURSE_LATENCY[op];
  const latency = [String(p50), `${p98} (p98)`];
  return [
    [`${COURSE}, plain`, String(course[op][0]), ...latency, '', '', '', ''],
    [`${COURSE}, two killed`, String(course[op][1]), '', '', '', '', '', ''],
  ];
}

function manyTable(all: readonly ManyClients[]): string {
  const head = KINDS.flatMap((kind) => [`${kind.toUpperCase()}/s`, 'mean ms', 'p99 ms', 'gen. CPU %']);
  const rows = unique(all.map(({ clients }) => clients)).map((clients) => {
    const course = COURSE_MANY.get(clients);
    return [
      String(clients),
      ...KINDS.flatMap((kind) => {
        const own = all.filter((one) => one.clients === clients && one.kind === kind).map(({ result }) => result);
        const mid = (value: (result: KvResult) => number): number => midOf(own, value);
        const mean = ms(mid(({ latency }) => latency.meanUs));
        const rate = whole(mid(({ opsPerSecond }) => opsPerSecond));
        const cpu = whole(mid(({ generatorCpuPercent }) => generatorCpuPercent));
        return [rate, mean, ms(mid(({ latency }) => latency.p99Us)), cpu];
      }),
      course === undefined ? '' : `${course.put} / ${course.get}`,
    ];
  });
  return table(['clients', ...head, `${COURSE} PUT / GET`], rows);
}

function recoveryTable(all: readonly Recovery[]): string {
  const rows = unique(all.map(({ missedPuts }) => missedPuts)).map((missed) => {
    const own = all.filter(({ missedPuts }) => missedPuts === missed);
    const mid = (value: (one: Recovery) => number): string => whole(median(own.map(value)));
    const times = [mid((one) => one.begunMs), mid((one) => one.inSyncMs), mid((one) => one.answersMs)];
    return [String(missed), ...times, mid((one) => one.inSyncMs - one.begunMs), mid((one) => one.copiedBlocks)];
  });
  return table(['PUTs missed', 'begun', 'in sync', 'answers GETs', 'begun to in sync', 'blocks copied'], rows);
}

function startTable(all: readonly StartUp[]): string {
  const rows = unique(all.map(({ keys }) => keys)).map((keys) => {
    const own = all.filter((one) => one.keys === keys);
    const mid = (value: (one: StartUp) => number): string => whole(median(own.map(value)));
    const times = [mid((one) => one.listeningMs), mid((one) => one.servedMs), mid((one) => one.firstGetMs)];
    return [String(keys), String(own[0]!.valueBytes), ...times, mid((one) => one.readKeysMs)];
  });
  return table(['keys', 'value bytes', 'all listen', 'served', 'first GET', 'of it reading the keys'], rows);
}

// --- plots --------------------------------------------------------------------------------------------------------------

/** Beyond it a curve of latencies is a line along the top; the tables say how far it goes. */
const CURVE_TO = 0.99;

/** @returns plots as SVG, by file name */
export function plotsOf(report: KvReport): Map<string, string> {
  const subtitle = describeEnvironment(report.environment);
  const plots = new Map<string, string>();
  for (const durability of durabilitiesOf(report)) {
    const own = <T extends { durability: Durability }>(all: readonly T[]): T[] =>
      all.filter((one) => one.durability === durability);
    const where = `fsync ${fsync(durability)}`;
    const add = (name: string, svg: string): void => void plots.set(`${name}-fsync-${fsync(durability)}`, svg);
    for (const op of own(report.one).length > 0 ? OPS : []) {
      const title = `${op.toUpperCase()} by one client, ${where}`;
      add(`latency-${op}`, curves(own(report.one), op, `${title}: latency`, subtitle));
      add(`rate-${op}`, rateBars(own(report.one), op, `${title}: rate`, subtitle));
    }
    if (own(report.clients).length > 0) {
      const rate = ({ opsPerSecond }: KvResult): number => opsPerSecond;
      const mean = ({ latency }: KvResult): number => latency.meanUs / 1000;
      // PUTs and GETs are too far apart for one scale.
      for (const op of OPS) {
        const all = own(report.clients).filter(({ kind }) => kind.startsWith(op));
        const points = [...COURSE_MANY].map(([clients, figures]) => ({ x: clients, y: figures[op] }));
        const course = [{ name: COURSE, points }];
        const title = `${op.toUpperCase()} by clients, ${where}`;
        add(`clients-${op}-rate`, manyLines(all, rate, [`${title}: rate`, subtitle, 'operations/s'], course));
        add(`clients-${op}-latency`, manyLines(all, mean, [`${title}: mean latency`, subtitle, 'ms'], []));
      }
    }
    if (own(report.ycsb).length > 0) add('ycsb-latency', ycsbLatencyPlot(own(report.ycsb), where, subtitle));
    if (own(report.faults).length > 0) add('faults', faultsPlot(own(report.faults), where, subtitle));
  }
  if (report.share.length > 0) plots.set('share', sharePlot(report.share, subtitle));
  if (report.ycsb.length > 0) plots.set('ycsb-rate', ycsbRatePlot(report.ycsb, subtitle));
  if (report.recovery.length > 0) plots.set('recovery', recoveryLines(report.recovery, subtitle));
  if (report.startup.length > 0) plots.set('startup', startBars(report.startup, subtitle));
  return plots;
}

function curves(all: readonly OneClient[], op: 'put' | 'get', title: string, subtitle: string): string {
  const plain = all.filter(({ victim, round }) => victim === 'nobody' && round === 0);
  const series = plain.map((one) => ({
    name: `${one.keys} keys`,
    points: one[op].curve.filter(([, share]) => share <= CURVE_TO).map(([x, y]) => ({ x, y })),
  }));
  const axes = { xLabel: 'ms', yLabel: 'share answered within', xScale: 'linear', yScale: 'linear' } as const;
  return lineChart({ title, subtitle, ...axes, marks: false, series });
}

function rateBars(all: readonly OneClient[], op: 'put' | 'get', title: string, subtitle: string): string {
  const series = [...VICTIMS.map(named), `${COURSE}, plain`, `${COURSE}, two killed`];
  const groups = unique(all.map(({ keys }) => keys)).map((keys) => {
    const ours = VICTIMS.map((victim) => {
      const own = all.filter((one) => one.keys === keys && one.victim === victim);
      return own.length === 0 ? null : spread(own.map((one) => one[op].opsPerSecond));
    });
    const course = COURSE_ONE.get(keys)?.[op];
    return { name: `${keys} keys`, values: [...ours, ...[0, 1].map((i) => (course ? { y: course[i]! } : null))] };
  });
  return barChart({ title, subtitle, yLabel: 'operations/s', yScale: 'linear', series, groups });
}

function manyLines(
  all: readonly ManyClients[],
  value: (result: KvResult) => number,
  [title, subtitle, yLabel]: [string, string, string],
  more: Array<{ name: string; points: Array<{ x: number; y: number }> }>,
): string {
  const series = unique(all.map(({ kind }) => kind)).map((kind) => ({
    name: kind,
    points: unique(all.map(({ clients }) => clients)).map((clients) => {
      const own = all.filter((one) => one.kind === kind && one.clients === clients);
      return { x: clients, ...spread(own.map(({ result }) => value(result))) };
    }),
  }));
  const axes = { xLabel: 'clients', yLabel, xScale: 'linear', yScale: 'linear' } as const;
  return lineChart({ title, subtitle, ...axes, series: [...series, ...more] });
}

function recoveryLines(all: readonly Recovery[], subtitle: string): string {
  const parts = [
    ['in sync', ({ inSyncMs }: Recovery) => inSyncMs],
    ['answers GETs', ({ answersMs }: Recovery) => answersMs],
  ] as const;
  const series = unique(all.map(({ durability }) => durability)).flatMap((durability) =>
    parts.map(([name, value]) => ({
      name: `${name}, fsync ${fsync(durability)}`,
      points: unique(all.map(({ missedPuts }) => missedPuts)).map((missed) => ({
        // A logarithmic axis has no 0: it is drawn where 1 would be.
        x: Math.max(1, missed),
        ...spread(all.filter((one) => one.durability === durability && one.missedPuts === missed).map(value)),
      })),
    })),
  );
  const axes = {
    xLabel: 'PUTs missed (0 at 1)',
    yLabel: 'ms since its start',
    xScale: 'log',
    yScale: 'linear',
  } as const;
  return lineChart({ title: 'A replica that was away comes back', subtitle, ...axes, series });
}

function startBars(all: readonly StartUp[], subtitle: string): string {
  const parts = [
    ['all listen', ({ listeningMs }: StartUp) => listeningMs],
    ['served', ({ servedMs }: StartUp) => servedMs],
    ['first GET', ({ firstGetMs }: StartUp) => firstGetMs],
  ] as const;
  const nameOf = ({ keys, durability }: StartUp): string => `${keys} keys, fsync ${fsync(durability)}`;
  const groups = unique(all.map(nameOf)).map((name) => ({
    name,
    values: parts.map(([, value]) => spread(all.filter((one) => nameOf(one) === name).map(value))),
  }));
  const axes = { yLabel: 'ms since the start', yScale: 'linear', series: parts.map(([name]) => name) } as const;
  return barChart({ title: 'Everything killed and started', subtitle, ...axes, series: [...axes.series], groups });
}

/**
 * `results.json`, `tables.txt`, an SVG of each graph, and a PNG beside it where `rsvg-convert` is installed.
 * @param plots null, or another folder for the SVGs, as `kv-NAME.svg`
 */
export function writeKvReport(report: KvReport, folder: string, plots: string | null): string {
  mkdirSync(folder, { recursive: true });
  const tables = tablesOf(report);
  writeFileSync(join(folder, 'results.json'), `${JSON.stringify(report, null, 1)}\n`);
  writeFileSync(join(folder, 'tables.txt'), tables);
  const made = plotsOf(report);
  writePlots(made, folder);
  if (plots === null) return tables;
  mkdirSync(plots, { recursive: true });
  for (const [name, svg] of made) writeFileSync(join(plots, `kv-${name}.svg`), svg);
  return tables;
}
