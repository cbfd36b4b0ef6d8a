/**
 * From result lines to what a reader sees: a file of JSON lines, tables, plots. One section of a sweep gives one table
 * and two plots (rate and latency).
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import Table from 'cli-table3';
import type { Durability } from './children.ts';
import { describeEnvironment, type Environment } from './environment.ts';
import type { LoadResult } from './load-options.ts';
import { barChart, lineChart } from './svg.ts';

/** One cell of a sweep. */
export interface Line extends LoadResult {
  section: string;
  /** `matrix`: clients x depth; `bars`: a list of labelled cells. */
  form: 'matrix' | 'bars';
  /** What tells this cell from its neighbours in a section of bars. */
  label: string;
  durability: Durability;
}

/**
 * Writes `results.jsonl`, `tables.txt` and the plots of every section into `folder`.
 * @returns the tables as text
 */
export function writeReport(lines: Line[], environment: Environment, folder: string): string {
  mkdirSync(folder, { recursive: true });
  const records = [{ environment }, ...lines];
  writeFileSync(join(folder, 'results.jsonl'), records.map((r) => `${JSON.stringify(r)}\n`).join(''));
  const where = describeEnvironment(environment);
  const out = [where, ''];
  for (const section of new Set(lines.map((l) => l.section))) {
    const own = lines.filter((l) => l.section === section);
    out.push(section, tableOf(own), '');
    for (const [name, svg] of plotsOf(section, own, where)) {
      writeFileSync(join(folder, `${section.toLowerCase().replace(/[^a-z0-9]+/g, '-')}-${name}.svg`), svg);
    }
  }
  const text = out.join('\n');
  writeFileSync(join(folder, 'tables.txt'), text);
  return text;
}

export function tableOf(lines: Line[]): string {
  const head = [
    '',
    'op',
    'clients',
    'depth',
    'bytes',
    'ops/s',
    'MiB/s',
    'p50 µs',
    'p99 µs',
    'p99.9 µs',
    'max µs',
    'errors',
  ];
  const table = new Table({
    head,
    style: { head: [], border: [], compact: true },
    colAligns: head.map((_, i) => (i < 2 ? 'left' : 'right')),
  });
  for (const l of lines) {
    const { p50Us, p99Us, p999Us, maxUs } = l.latency;
    table.push([
      l.label,
      l.op,
      l.clients,
      l.depth,
      l.blockBytes,
      grouped(l.opsPerSecond),
      l.mibPerSecond.toFixed(1),
      ...[p50Us, p99Us, p999Us, maxUs].map(grouped),
      l.errors,
    ]);
  }
  return table.toString();
}

/** `53 800`. */
export function grouped(value: number): string {
  return Math.round(value)
    .toString()
    .replace(/\B(?=(\d{3})+$)/g, ' ');
}

function plotsOf(section: string, lines: Line[], where: string): Array<[string, string]> {
  if (lines[0]!.form === 'matrix') {
    const depths = [...new Set(lines.map((l) => l.depth))].sort((a, b) => a - b);
    const plot = (what: string, yLabel: string, value: (l: Line) => number): string =>
      lineChart({
        title: `${section}: ${what}`,
        subtitle: where,
        xLabel: 'clients',
        yLabel,
        xScale: 'log',
        yScale: 'log',
        series: depths.map((depth) => ({
          name: `depth ${depth}`,
          points: lines.filter((l) => l.depth === depth).map((l) => ({ x: l.clients, y: value(l) })),
        })),
      });
    return [
      ['rate', plot('rate', 'operations/s', (l) => l.opsPerSecond)],
      ['p99', plot('99th percentile', 'latency, µs', (l) => l.latency.p99Us)],
    ];
  }
  const kinds = [...new Set(lines.map((l) => l.op))];
  const labels = [...new Set(lines.map((l) => l.label))];
  const cell = (label: string, op: string): Line | undefined => lines.find((l) => l.label === label && l.op === op);
  return [
    [
      'rate',
      barChart({
        title: `${section}: rate`,
        subtitle: where,
        yLabel: 'operations/s',
        yScale: 'linear',
        series: kinds,
        groups: labels.map((name) => ({
          name,
          values: kinds.map((op) => {
            const line = cell(name, op);
            return line === undefined ? null : { y: line.opsPerSecond };
          }),
        })),
      }),
    ],
    [
      'latency',
      barChart({
        title: `${section}: latency`,
        subtitle: where,
        yLabel: 'µs',
        yScale: 'log',
        series: ['p50', 'p99', 'p99.9'],
        groups: lines.map((l) => ({
          name: kinds.length > 1 ? `${l.op} ${l.label}` : l.label,
          values: [{ y: l.latency.p50Us }, { y: l.latency.p99Us }, { y: l.latency.p999Us }],
        })),
      }),
    ],
  ];
}

/** Reads a file of JSON lines that `writeReport` made. */
export function readResults(path: string): { environment: Environment; lines: Line[] } {
  const [first, ...rest] = readFileSync(path, 'utf8').trimEnd().split('\n');
  return {
    environment: (JSON.parse(first!) as { environment: Environment }).environment,
    lines: rest.map((text) => JSON.parse(text) as Line),
  };
}

/** `node dist/bench/load/report.js FOLDER`: draws tables and plots again from the results in a folder. */
if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const folder = process.argv[2];
  if (folder === undefined) {
    process.stderr.write('usage: node dist/bench/load/report.js FOLDER\n');
    process.exit(2);
  }
  const { environment, lines } = readResults(join(folder, 'results.jsonl'));
  process.stdout.write(`${writeReport(lines, environment, folder)}\n`);
}
