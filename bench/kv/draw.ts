/**
 * Tables and plots of runs of `npm run bench:kv` that were made in parts, as if they were one:
 * `node dist/bench/kv/draw.js RESULTS.json... --out FOLDER [--plots docs/plots]`.
 *
 * Guarantees: nothing is left out; what is in several runs counts as further rounds. It is said to have been measured where
 * the first of them was: parts of different machines are refused.
 */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { Command } from 'commander';
import { type KvReport, writeKvReport } from './report.ts';

/** @param reports at least one. @throws Error if they are not of one machine */
export function mergedReports(reports: readonly KvReport[]): KvReport {
  const first = reports[0]!;
  const machine = ({ environment: { date: _date, ...rest } }: KvReport): string => JSON.stringify(rest);
  if (reports.some((one) => machine(one) !== machine(first)))
    throw new Error(`not of one machine: ${reports.map(machine).join(', ')}`);
  return {
    environment: first.environment,
    settings: {
      ...first.settings,
      parts: reports.map(({ environment, settings }) => ({ ...settings, ...environment })),
    },
    one: reports.flatMap(({ one }) => one),
    clients: reports.flatMap(({ clients }) => clients),
    recovery: reports.flatMap(({ recovery }) => recovery),
    startup: reports.flatMap(({ startup }) => startup),
    share: reports.flatMap(({ share }) => share),
    ycsb: reports.flatMap(({ ycsb }) => ycsb),
    faults: reports.flatMap(({ faults }) => faults),
  };
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const program = new Command('draw')
    .argument('<results...>', 'results.json of each part')
    .requiredOption('--out <path>', 'folder for results and plots of all')
    .option('--plots <path>', 'write the plots there too, as kv-NAME.svg')
    .parse();
  const { out, plots } = program.opts<{ out: string; plots?: string }>();
  const parts = program.args.map((path) => JSON.parse(readFileSync(path, 'utf8')) as KvReport);
  process.stdout.write(writeKvReport(mergedReports(parts), out, plots ?? null));
}
