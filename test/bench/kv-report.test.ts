/** The tables, plots and ratios of the key-value benches, of figures that are made up here. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { KvResult } from '../../bench/kv/kv-load.ts';
import { KINDS, VICTIMS } from '../../bench/kv/measure.ts';
import { type PeerLine, peersTable, ratiosOf } from '../../bench/kv/peers-table.ts';
import { FAULTS, type UnderFault, WORKLOADS, type Ycsb } from '../../bench/kv/measure-mix.ts';
import type { MixLatency } from '../../bench/kv/kv-mix.ts';
import { type Share, countedOf, partsOf } from '../../bench/kv/share.ts';
import { mergedReports } from '../../bench/kv/draw.ts';
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
  const more = { share: shares(), ycsb: workloads(), faults: underFaults() };
  return { environment, settings: { awakeUs: 'default' }, one: victims, clients, recovery, startup, ...more };
}

/** Medians: of 1000 µs of a PUT 250 between, 600 with three replicas the rest of the server's 750. */
function shares(): Share[] {
  return ([1, 3] as const).flatMap((replicas) =>
    (['put', 'get'] as const).flatMap((op) =>
      [0, -50, 70].map((more, round) => {
        const serverUs = op === 'get' ? 20 : replicas === 3 ? 750 : 300;
        const journalUs = op === 'get' ? 0 : 150;
        const parts = {
          clientUs: 1000 + more,
          betweenUs: 1000 - serverUs + more,
          serverUs,
          journalUs,
          restUs: serverUs - journalUs,
          journalSyncs: op === 'get' ? 0 : 1,
          backupSyncUs: replicas === 1 ? null : 222,
          operations: 10_000,
        };
        return { durability: 'always' as const, replicas, keys: 10_000, op, parts, result: result(1000), round };
      }),
    ),
  );
}

function latency(count: number, p99Us: number): MixLatency {
  return { count, meanUs: 500, p50Us: 400, p95Us: 800, p99Us, p999Us: 2 * p99Us, maxUs: 3 * p99Us };
}

function workloads(): Ycsb[] {
  return WORKLOADS.map((workload) => {
    const none = latency(0, 0);
    const kinds =
      workload === 'e' ? { scan: latency(9500, 3000), insert: latency(500, 7000) } : { read: latency(100, 900) };
    const result = {
      event: 'result' as const,
      seconds: 5,
      operations: 10_000,
      opsPerSecond: 2000,
      reads: none,
      writes: none,
      kinds,
      errors: 0,
      firstError: null,
      absent: 0,
      loaded: null,
      cleaned: null,
    };
    return { durability: 'always', workload, clients: 16, result, round: 0 };
  });
}

function underFaults(): UnderFault[] {
  return FAULTS.flatMap((fault) =>
    [1000, 3000, 2000].map((p99Us, round) => ({
      durability: 'always' as const,
      fault,
      clients: 16,
      opsPerSecond: 5000 + round,
      slowestSecond: 4000 - round,
      reads: latency(10, 300),
      writes: latency(10, p99Us),
      failed: 0,
      firstFailure: null,
      backMs: fault === 'primary killed' ? 1234 : null,
      round,
    })),
  );
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

test('a read that found no key, and an operation that failed under a fault, count', () => {
  const broken = report();
  broken.ycsb[0]!.result.absent = 2;
  broken.faults[0]!.failed = 1;
  broken.share[0]!.result.failures = 4;
  assert.is(failuresOf(broken), 7);
  assert.match(tablesOf(broken), /^7 operations failed: YCSB a: 2 reads found no key$/m);
});

test('where the time goes: parts of what the client saw, and what backups cost', () => {
  const text = tablesOf(report());
  assert.match(text, /PUT, 3 replicas +│ +1000 │ +250 │ +25 │ +750 │ +75 │ +150 │ +20 │ +600 │ +1\.00 │ +222 │/);
  assert.match(text, /GET, 3 replicas +│ +1000 │ +980 │ +98 │ +20 │ +2 │ +│/);
  assert.match(text, /^Backups, the difference of three replicas to one: 450 µs, 60 % of the server's time of a PUT$/m);
});

test('YCSB: each kind of operation of a workload; under faults: the median of the rounds, and the highest maximum', () => {
  const text = tablesOf(report());
  assert.match(
    text,
    /E: 5 % insert, 95 % scan; zipf +│ +2000 │ +insert │ +100 │ +0\.40 │ +7\.00 │ +14\.00 │ +21\.00 │ +0 │/,
  );
  assert.match(text, /│ +scan │ +1900 │ +0\.40 │ +3\.00 │/);
  const row = /a backup stopped for 1 s +│ +5001 │ +3998 │ +0\.40 │ +2\.00 │ +4\.00 │ +9\.00 │ +0\.40 │ +0\.30 │/;
  assert.match(text, row);
  assert.match(text, /the primary killed, and back .*│ +0 │ +1234 │/);
});

function page(sums: { read: number; write: number; journal: number }, counts: typeof sums): string {
  const lines = ['# TYPE holdfast_operation_duration_seconds histogram'];
  for (const op of ['read', 'write'] as const) {
    const name = 'holdfast_operation_duration_seconds';
    lines.push(`${name}_bucket{le="0.000016",volume="bench",op="${op}"} 7`);
    lines.push(`${name}_sum{volume="other",op="${op}"} 99`, `${name}_sum{volume="bench",op="${op}"} ${sums[op]}`);
    lines.push(`${name}_count{volume="other",op="${op}"} 99`, `${name}_count{volume="bench",op="${op}"} ${counts[op]}`);
  }
  for (const file of ['other', 'journal']) {
    const [sum, count] = file === 'journal' ? [sums.journal, counts.journal] : [99, 99];
    lines.push(`holdfast_fsync_duration_seconds_sum{volume="bench",file="${file}"} ${sum}`);
    lines.push(`holdfast_fsync_duration_seconds_count{volume="bench",file="${file}"} ${count}`);
  }
  return `${lines.join('\n')}\n`;
}

test('the parts are of differences: what the nodes had counted before does not matter', () => {
  const of = (read: number, write: number, journal: number, n: number): ReturnType<typeof countedOf> =>
    countedOf(page({ read, write, journal }, { read: n, write: n, journal: n }), 'bench');
  const primary = { before: of(1, 50, 30, 1000), after: of(1.5, 50.75, 30.25, 2000) };
  const backups = [
    { before: of(0, 0, 10, 1000), after: of(0, 0, 10.4, 2000) },
    { before: of(0, 0, 10, 1000), after: of(0, 0, 10.2, 2000) },
  ];
  const put = partsOf('put', 1000, primary, backups);
  const rounded = Object.fromEntries(Object.entries(put).map(([name, value]) => [name, Math.round(Number(value))]));
  const expected = { clientUs: 1000, betweenUs: 250, serverUs: 750, journalUs: 250, restUs: 500, journalSyncs: 1 };
  assert.equal(rounded, { ...expected, backupSyncUs: 300, operations: 1000 });
  const get = partsOf('get', 800, primary, []);
  assert.equal(
    [get.serverUs, get.journalUs, get.restUs, get.backupSyncUs].map(Number).map(Math.round),
    [500, 0, 500, 0],
  );
  assert.throws(() => partsOf('get', 800, { before: primary.before, after: primary.before }, []), /counted no GET/);
  assert.throws(() => countedOf(page({ read: 1, write: 1, journal: 1 }, primary.after as never), 'absent'), /absent/);
});

test('parts of a run are drawn as one; what both have are rounds of it; other machines are refused', () => {
  const nothing = { one: [], clients: [], recovery: [], startup: [], share: [], ycsb: [], faults: [] };
  const all = report();
  const parts = Object.keys(nothing).map((name) => ({ ...all, ...nothing, [name]: all[name as keyof typeof nothing] }));
  const merged = mergedReports(parts);
  assert.is(tablesOf(merged), tablesOf(all));
  assert.equal(plotsOf(merged), plotsOf(all));
  const faster = report();
  for (const { result } of faster.clients) result.opsPerSecond = 4333;
  assert.match(tablesOf(mergedReports([all, faster])), /│ 10 +│ +3833 │/);
  const other = { ...report(), environment: { ...all.environment, cpus: 64 } };
  assert.throws(() => mergedReports([all, other]), /not of one machine/);
});

test('there is a plot of each graph; curves end at the 99th percentile', () => {
  const plots = plotsOf(report());
  const of = (name: string): string[] => [`${name}-put`, `${name}-get`];
  const names = [...of('latency'), ...of('rate'), 'clients-put-rate', 'clients-get-rate'];
  names.push('clients-put-latency', 'clients-get-latency');
  names.push('ycsb-latency', 'faults');
  const whole = ['recovery', 'startup', 'share', 'ycsb-rate'];
  assert.equal([...plots.keys()].sort(), [...names.map((name) => `${name}-fsync-on`), ...whole].sort());
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
  assert.match(text, /PUT recoverkv +│ +16 │ +1000 │ +900 │ +1100 │ +1\.00 │/);
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
