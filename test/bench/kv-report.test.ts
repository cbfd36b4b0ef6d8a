/** The tables, plots and ratios of the key-value benches, of figures that are made up here. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { KvResult } from '../../bench/kv/kv-load.ts';
import { KINDS, VICTIMS } from '../../bench/kv/measure.ts';
import { type PeerLine, peersTable, ratiosOf } from '../../bench/kv/peers-table.ts';
import { type KvReport, failuresOf, plotsOf, tablesOf } from '../../bench/kv/report.ts';

const test = suite('key-value report');

function result(opsPerSecond: number, failures = 0): KvResult {
  const latency = { count: 1, minUs: 100, meanUs: 2000, p50Us: 1500, p99Us: 4000, p999Us: 5000, maxUs: 9000 };
  const curve: Array<[number, number]> = [
    [1, 0.5],
    [4, 0.99],
    [777, 1],
  ];
  const firstFailure = failures > 0 ? 'put key-1: it broke' : null;
  const wallMs = 1000;
  return { wallMs, operations: 1, opsPerSecond, failures, firstFailure, latency, generatorCpuPercent: 12, curve };
}

function report(failures = 0): KvReport {
  const environment = {
    date: '2026-11-23T00:00:00Z',
    node: 'v20',
    kernel: '6',
    cpu: 'x',
    cpus: 2,
    memory: '1 GiB',
    fileSystem: 'ext4',
  };
  const durability = 'always' as const;
  const victims = VICTIMS.flatMap((victim) =>
    [500, 700, 600].map((rate, round) => {
      const put = result(rate, round === 0 && victim === 'primary' ? failures : 0);
      return { durability, keys: 10_000, valueBytes: 11, victim, put, get: result(4000), round };
    }),
  );
  const clients = KINDS.map((kind) => ({ durability, clients: 10, kind, result: result(3333), round: 0 }));
  const recovery = [0, 1000].map((missedPuts) => ({
    durability,
    missedPuts,
    begunMs: 500,
    inSyncMs: 600 + missedPuts,
    answersMs: 650 + missedPuts,
    copiedBlocks: 7,
    round: 0,
  }));
  const start = { listeningMs: 1500, servedMs: 2200, firstGetMs: 2345, readKeysMs: 99 };
  const startup = [{ durability, keys: 1_000_000, valueBytes: 100, ...start, round: 0 }];
  return { environment, settings: { awakeUs: 'default' }, one: victims, clients, recovery, startup };
}

test('a table has the median of the rounds, and the figures of the course beside it', () => {
  const text = tablesOf(report());
  assert.match(text, /10000 keys, nobody killed +│ +600 │ +1\.50 │ +4\.00 │/);
  assert.match(text, /course report, plain +│ +366 │/);
  assert.match(text, /course report, two killed +│ +842 │/);
  assert.match(text, /│ +1850 \/ 6230 │/);
  assert.match(text, /│ 1000 +│ +500 │ +1600 │ +1650 │ +1100 │/);
  assert.match(text, /│ 1000000 │ +100 │ +1500 │ +2200 │ +2345 │/);
  assert.match(text, /^0 operations failed$/m);
});

test('an operation that failed is counted, and the first is told', () => {
  const broken = report(3);
  assert.is(failuresOf(broken), 3);
  assert.match(tablesOf(broken), /^3 operations failed: put key-1: it broke$/m);
});

test('there is a plot of each graph; curves end at the 99th percentile', () => {
  const plots = plotsOf(report());
  const of = (name: string): string[] => [`${name}-put`, `${name}-get`];
  const names = [...of('latency'), ...of('rate'), 'clients-put-rate', 'clients-get-rate'];
  names.push('clients-put-latency', 'clients-get-latency');
  assert.equal([...plots.keys()].sort(), [...names.map((name) => `${name}-fsync-on`), 'recovery', 'startup'].sort());
  const curve = plots.get('latency-put-fsync-on')!;
  assert.match(curve, /class="line s0"/);
  assert.not.match(curve, /777/);
  assert.match(plots.get('clients-put-rate-fsync-on')!, /course report/);
});

function line(peer: string, workload: string, iops: number, more: Partial<PeerLine> = {}): PeerLine {
  return { peer, workload, clients: 16, iops, p50_us: 1000, p99_us: 2000, gen_cpu_pct: 5, ...more };
}

test('ratios are of medians; set is put; what was not measured is no ratio', () => {
  const lines = [
    ...[100, 300, 200].map((rate) => line('etcd', 'put-4096B', rate)),
    ...[900, 1100, 1000].map((rate) => line('recoverkv', 'set-4096B', rate)),
    line('redis wait 2', 'set-4096B', 2000),
    line('recoverkv', 'get-4096B', 5),
  ];
  const put = ratiosOf(lines).filter(({ op, whose }) => op === 'put' && whose === 'recoverkv');
  const of = (name: string): number => put.find(({ other }) => other === name)!.ratio;
  assert.is(of('etcd'), 5);
  assert.is(of('redis wait 2'), 0.5);
  assert.is(Number.isNaN(of('etcd, node client')), true);
  const text = peersTable(lines);
  assert.match(text, /PUT: recoverkv \/ etcd +│ +16 │ 1000 │ +200 │ +5\.00 │ +5 │ +reached │/);
  assert.match(text, /PUT: recoverkv \/ redis wait 2 +│ +16 │ 1000 │ +2000 │ +0\.50 │ +1 │ FALLS SHORT │/);
  assert.match(text, /GET: recoverkv \/ etcd +│ +16 │ +5 │ +NaN │ +- │ +5 │ FALLS SHORT │/);
});

test('a case that failed and a WAIT that came short are said', () => {
  const text = peersTable([
    line('etcd', 'put-4096B', 1, { error: 'it ended with 3' }),
    line('redis wait 2', 'set-4096B', 1, { short_waits: 4 }),
  ]);
  assert.match(text, /^FAILED: etcd: it ended with 3$/m);
  assert.match(text, /^4 times WAIT was answered by fewer/m);
});

test.run();
