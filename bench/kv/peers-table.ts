/**
 * Ratios of RecoverKV to etcd and Redis from the lines of JSON of one run of `bench/kv-peers.sh`: medians of the rounds.
 *
 * Guarantees: a case that failed, or that a contestant did not run, is said and not left out; a WAIT that fewer replicas
 * answered than were asked for is said.
 */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { median } from '../replicated/measure.ts';
import { table, unique } from '../replicated/report.ts';

/** As `respload` and `etcdload` print it. */
export interface PeerLine {
  peer: string;
  /** `put-4096B`. */
  workload: string;
  clients: number;
  iops: number;
  p50_us: number;
  p99_us: number;
  /** Processor time of all servers of the peer. */
  srv_us_per_op?: number;
  gen_cpu_pct: number;
  short_waits?: number;
  dev_flushes_per_op?: number;
  error?: string;
}

export interface Ratio {
  op: 'put' | 'get';
  clients: number;
  whose: string;
  other: string;
  ours: number;
  theirs: number;
  ratio: number;
  /** Null: beside it only for comparison. */
  asked: number | null;
}

/** Who is compared with whom, and how many times as fast it is asked to be. */
const PAIRS: ReadonlyArray<{ whose: string; other: string; put: number | null; get: number | null }> = [
  { whose: 'recoverkv', other: 'etcd', put: 5, get: 5 },
  { whose: 'recoverkv', other: 'etcd, node client', put: null, get: null },
  { whose: 'recoverkv, node client', other: 'etcd, node client', put: null, get: null },
  { whose: 'recoverkv', other: 'redis wait 2', put: 1, get: null },
];

/** `set` and `put` are the same. */
const opOf = ({ workload }: PeerLine): 'put' | 'get' => (/^(set|put)/.test(workload) ? 'put' : 'get');
const good = (lines: readonly PeerLine[]): PeerLine[] => lines.filter(({ error }) => error === undefined);

export function ratiosOf(lines: readonly PeerLine[]): Ratio[] {
  const ratios: Ratio[] = [];
  const all = good(lines);
  for (const op of ['put', 'get'] as const) {
    for (const clients of unique(all.map((line) => line.clients)).sort((a, b) => a - b)) {
      const rate = (peer: string): number =>
        median(all.filter((l) => opOf(l) === op && l.clients === clients && l.peer === peer).map(({ iops }) => iops));
      for (const { whose, other, [op]: asked } of PAIRS) {
        const [ours, theirs] = [rate(whose), rate(other)];
        ratios.push({ op, clients, whose, other, ours, theirs, ratio: ours / theirs, asked });
      }
    }
  }
  return ratios;
}

export function peersTable(lines: readonly PeerLine[]): string {
  const head = [
    '',
    'clients',
    'per second',
    'lowest',
    'highest',
    'p50 ms',
    'p99 ms',
    'servers µs/op',
    'flushes/op',
    'generator CPU %',
  ];
  const all = good(lines);
  const cases = unique(all.map((line) => `${opOf(line)} ${line.clients} ${line.peer}`));
  const rows = cases.map((name) => {
    const own = all.filter((line) => `${opOf(line)} ${line.clients} ${line.peer}` === name);
    const mid = (value: (line: PeerLine) => number | undefined, digits: number, unit = 1): string => {
      const values = own.map(value).filter((one) => one !== undefined);
      return values.length === 0 ? '' : (median(values) / unit).toFixed(digits);
    };
    return [
      `${opOf(own[0]!).toUpperCase()} ${own[0]!.peer}`,
      String(own[0]!.clients),
      mid(({ iops }) => iops, 0),
      // How far the rounds lie apart.
      Math.min(...own.map(({ iops }) => iops)).toFixed(0),
      Math.max(...own.map(({ iops }) => iops)).toFixed(0),
      mid((line) => line.p50_us, 2, 1000),
      mid((line) => line.p99_us, 2, 1000),
      mid((line) => line.srv_us_per_op, 0),
      mid((line) => line.dev_flushes_per_op, 2),
      mid((line) => line.gen_cpu_pct, 0),
    ];
  });
  const verdicts = ratiosOf(lines).map(({ op, clients, whose, other, ours, theirs, ratio, asked }) => [
    `${op.toUpperCase()}: ${whose} / ${other}`,
    String(clients),
    ours.toFixed(0),
    theirs.toFixed(0),
    Number.isFinite(ratio) ? ratio.toFixed(2) : '-',
    asked === null ? '' : String(asked),
    asked === null ? '' : ratio >= asked ? 'reached' : 'FALLS SHORT',
  ]);
  const out = [table(head, rows), '', table(['', 'clients', 'this', 'other', 'ratio', 'asked', ''], verdicts)];
  for (const { peer, error } of lines.filter((line) => line.error !== undefined)) out.push(`FAILED: ${peer}: ${error}`);
  const short = lines.reduce((sum, line) => sum + (line.short_waits ?? 0), 0);
  if (short > 0) out.push(`${short} times WAIT was answered by fewer replicas than asked for`);
  return `${out.join('\n')}\n`;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const path = process.argv[2];
  if (path === undefined) {
    process.stderr.write('usage: node dist/bench/kv/peers-table.js RESULTS.jsonl\n');
    process.exit(2);
  }
  const lines = readFileSync(path, 'utf8').trim().split('\n');
  process.stdout.write(peersTable(lines.map((line) => JSON.parse(line) as PeerLine)));
}
