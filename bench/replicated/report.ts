/** Tables, plots and files of a bench of two nodes. */
import { spawnSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import Table from 'cli-table3';
import { describeEnvironment, type Environment } from '../load/environment.ts';
import { barChart, lineChart, type BarChart } from '../load/svg.ts';
import { type Bar, type Return, median } from './measure.ts';
import { type Trend, nameOf } from './trends.ts';

export interface Report {
  environment: Environment;
  settings: object;
  bars: Bar[];
  returns: Return[];
  trends: Trend[];
}

const one = (value: number): string => (Number.isFinite(value) ? value.toFixed(1) : '-');
export const unique = <T>(values: readonly T[]): T[] => [...new Set(values)];

export function table(head: string[], rows: string[][]): string {
  const made = new Table({
    head,
    style: { head: [], border: [], compact: true },
    colAligns: head.map((_, i) => (i === 0 ? 'left' : 'right')),
  });
  made.push(...rows);
  return made.toString();
}

/** What tells the groups of a graph apart, and what the bars of a group. */
const groupOf = (bar: Bar): string =>
  bar.graph === 'mixed' ? `${bar.readers}R-${bar.writers}W` : `${bar.readers + bar.writers} clients`;
const seriesOf = (bar: Bar): string =>
  bar.graph === 'mixed' ? `R:W ${Number((bar.reads / bar.writes).toFixed(2))}` : `${bar.reads + bar.writes} operations`;

export function tablesOf(report: Report): string {
  const out: string[] = [describeEnvironment(report.environment)];
  for (const [graph, own] of graphsOf(report.bars)) {
    const series = unique(own.map(seriesOf));
    const rows = unique(own.map(groupOf)).map((group) => [
      group,
      ...series.map((name) => {
        const bar = own.find((b) => groupOf(b) === group && seriesOf(b) === name);
        return bar === undefined ? '' : one(median(bar.mibPerSecond));
      }),
    ]);
    out.push('', `${graph}, MiB/s`, table(['', ...series], rows));
  }
  if (report.returns.length > 0) {
    const head = ['missed writes', 'distinct blocks', 'dirty blocks', 'copied blocks', 'reintegration ms'];
    head.push('suspicion ms', 'start ms');
    for (const [name, own] of seriesOfReturns(report.returns)) {
      const rows = unique(own.map(({ missedWrites }) => missedWrites)).map((missed) => {
        const all = own.filter(({ missedWrites }) => missedWrites === missed);
        const mid = (value: (r: Return) => number): number => median(all.map(value));
        const blocks = [mid((r) => r.distinctBlocks), mid((r) => r.dirtyBlocks), mid((r) => r.copiedBlocks)];
        const times = [mid((r) => r.reintegrationMs), mid((r) => r.suspicionMs ?? Number.NaN), mid((r) => r.startMs)];
        return [String(missed), ...blocks.map((n) => String(Math.round(n))), ...times.map(one)];
      });
      out.push('', `A backup is killed, misses writes and comes back: ${name}`, table(head, rows));
    }
  }
  out.push('', 'Trends');
  for (const { what, holds, figures } of report.trends) {
    out.push(`${holds ? 'holds         ' : 'DOES NOT HOLD '} ${what}: ${figures}`);
  }
  return `${out.join('\n')}\n`;
}

/** A title for each graph: what, on what, with or without fsync. */
function graphsOf(bars: readonly Bar[]): Array<[string, Bar[]]> {
  const titles = { read: 'Reads', write: 'Writes', mixed: 'Readers and writers' };
  const titleOf = (bar: Bar): string => `${titles[bar.graph]}, ${nameOf(bar.topology, bar.durability)}`;
  return unique(bars.map(titleOf)).map((title) => [title, bars.filter((bar) => titleOf(bar) === title)]);
}

function seriesOfReturns(returns: readonly Return[]): Array<[string, Return[]]> {
  const nameOfReturn = ({ pattern, durability }: Return): string =>
    `${pattern}, fsync ${durability === 'always' ? 'on' : 'off'}`;
  return unique(returns.map(nameOfReturn)).map((name) => [name, returns.filter((r) => nameOfReturn(r) === name)]);
}

export function spread(values: readonly number[]): { y: number; low: number; high: number } {
  return { y: median(values), low: Math.min(...values), high: Math.max(...values) };
}

/** @returns plots as SVG, by file name */
function plotsOf(report: Report): Map<string, string> {
  const subtitle = describeEnvironment(report.environment);
  const plots = new Map<string, string>();
  for (const [title, own] of graphsOf(report.bars)) {
    const series = unique(own.map(seriesOf));
    const chart: BarChart = {
      title: `${title}: bandwidth`,
      subtitle,
      yLabel: 'MiB/s',
      yScale: 'linear',
      series,
      groups: unique(own.map(groupOf)).map((group) => ({
        name: group,
        values: series.map((name) => {
          const bar = own.find((b) => groupOf(b) === group && seriesOf(b) === name);
          return bar === undefined ? null : spread(bar.mibPerSecond);
        }),
      })),
    };
    plots.set(title.toLowerCase().replace(/[^a-z0-9]+/g, '-'), barChart(chart));
  }
  if (report.returns.length === 0) return plots;
  const series = seriesOfReturns(report.returns).map(([name, own]) => ({
    name,
    points: unique(own.map(({ missedWrites }) => missedWrites)).map((missed) => ({
      // A logarithmic axis has no 0: it is drawn where 1 would be.
      x: Math.max(1, missed),
      ...spread(own.filter((r) => r.missedWrites === missed).map((r) => Math.max(0.5, r.reintegrationMs))),
    })),
  }));
  const axes = { xLabel: 'writes missed (0 at 1)', yLabel: 'ms', xScale: 'log', yScale: 'log' } as const;
  plots.set('reintegration', lineChart({ title: 'Reintegration time', subtitle, ...axes, series }));
  return plots;
}

/** `results.json`, `tables.txt`, an SVG of each graph, and a PNG beside it where `rsvg-convert` is installed. */
export function writeReport(report: Report, folder: string): string {
  mkdirSync(folder, { recursive: true });
  const tables = tablesOf(report);
  writeFileSync(join(folder, 'results.json'), `${JSON.stringify(report, null, 1)}\n`);
  writeFileSync(join(folder, 'tables.txt'), tables);
  writePlots(plotsOf(report), folder);
  return tables;
}

export function writePlots(plots: ReadonlyMap<string, string>, folder: string): void {
  for (const [name, svg] of plots) {
    const file = join(folder, `${name}.svg`);
    writeFileSync(file, svg);
    spawnSync('rsvg-convert', ['--zoom', '1.5', '--output', join(folder, `${name}.png`), file], { stdio: 'ignore' });
  }
}
