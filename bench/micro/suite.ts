/**
 * One benny suite with our own output: the JSON is kept, the table and the chart are drawn here (benny's chart needs
 * the network).
 *
 * Every case is a function that benny calls in a loop. What a case needs is made before it is handed over: benny runs
 * a setup two to three times.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import benny from 'benny';
import Table from 'cli-table3';
import { barChart } from '../load/svg.ts';

export interface Case {
  name: string;
  /** One call; where it returns a promise, the call ends when that is settled. */
  run: () => unknown;
  /** Bytes that one call works through, for a rate in MiB/s. */
  bytes?: number;
  /** Things that one call does (frames, bits), for a rate of those. Default 1. */
  things?: number;
}

/** Runs the cases and writes `NAME.json` and `NAME.svg` into the folder in HOLDFAST_BENCH_OUT (else bench/out/micro). */
export async function microSuite(name: string, cases: Case[]): Promise<void> {
  const folder = process.env['HOLDFAST_BENCH_OUT'] ?? join('bench', 'out', 'micro');
  const quick = process.env['HOLDFAST_BENCH_QUICK'] === '1';
  mkdirSync(folder, { recursive: true });
  const time = quick ? { minSamples: 3, maxTime: 0.05, minTime: 0.02 } : { maxTime: 1 };
  const summary = await benny.suite(name, ...cases.map((c) => benny.add(c.name, c.run, time)));
  const results = summary.results.map((result, i) => {
    const { bytes, things = 1 } = cases[i]!;
    return {
      name: result.name,
      callsPerSecond: result.ops,
      marginPercent: result.margin,
      thingsPerSecond: result.ops * things,
      ...(bytes === undefined ? {} : { mibPerSecond: (result.ops * bytes) / 1024 / 1024 }),
      samples: result.samples,
    };
  });
  const json = { name, date: new Date().toISOString(), node: process.version, results };
  writeFileSync(join(folder, `${name}.json`), `${JSON.stringify(json, null, 2)}\n`);
  const chart = barChart({
    title: name,
    subtitle: `Node ${process.version}`,
    yLabel: 'per second',
    yScale: 'log',
    series: results.map((r) => r.name),
    groups: [
      {
        name: 'per second; the whisker is the margin of error',
        values: results.map((r) => {
          const spread = (r.thingsPerSecond * r.marginPercent) / 100;
          return { y: r.thingsPerSecond, low: r.thingsPerSecond - spread, high: r.thingsPerSecond + spread };
        }),
      },
    ],
  });
  writeFileSync(join(folder, `${name}.svg`), chart);
  const table = new Table({
    head: [name, 'calls/s', '± %', 'things/s', 'MiB/s'],
    colAligns: ['left', 'right', 'right', 'right', 'right'],
    style: { head: [], border: [], compact: true },
  });
  for (const r of results) {
    const rounded = [r.callsPerSecond, r.marginPercent, r.thingsPerSecond].map((v) => Number(v.toPrecision(4)));
    table.push([r.name, ...rounded, r.mibPerSecond === undefined ? '' : Math.round(r.mibPerSecond)]);
  }
  process.stdout.write(`${table.toString()}\n`);
}
