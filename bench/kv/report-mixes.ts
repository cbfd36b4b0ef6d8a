/** Tables and plots of what a mix of operations costs, of faults under it, and of where the time of one operation goes. */
import { barChart } from '../load/svg.ts';
import { median } from '../replicated/measure.ts';
import { spread, table, unique } from '../replicated/report.ts';
import { COURSE_SHARE } from './course-figures.ts';
import { type MixKind, type MixLatency, MIX_KINDS, YCSB } from './kv-mix.ts';
import { CUT_OFF_MS, STOPPED_MS, type Fault, type UnderFault, type Ycsb } from './measure-mix.ts';
import type { Parts, Share } from './share.ts';
import { fsync, ms, whole } from './words.ts';

const percent = (part: number, of: number): string => (of > 0 ? ((100 * part) / of).toFixed(0) : '-');
const us = (value: number): string => (Number.isFinite(value) ? value.toFixed(0) : '-');
const opName = { put: 'PUT', get: 'GET' } as const;
const KIND_NAMES: Readonly<Record<MixKind, string>> = {
  read: 'read',
  update: 'update',
  insert: 'insert',
  scan: 'scan',
  readModifyWrite: 'read-modify-write',
};

// --- where the time goes ------------------------------------------------------------------------------------------------

const casesOf = (all: readonly Share[]): Share[][] => {
  const nameOf = ({ op, replicas, durability }: Share): string => `${op} ${replicas} ${durability}`;
  return unique(all.map(nameOf)).map((name) => all.filter((one) => nameOf(one) === name));
};
const midPart = (own: readonly Share[], value: (parts: Parts) => number): number =>
  median(own.map(({ parts }) => value(parts)));
const replicasName = (replicas: number): string => (replicas === 1 ? 'one replica' : `${replicas} replicas`);

/** Of one durability. */
export function shareTable(all: readonly Share[]): string {
  const rows = casesOf(all).map((own) => {
    const mid = (value: (parts: Parts) => number): number => midPart(own, value);
    const client = mid(({ clientUs }) => clientUs);
    const part = (value: (parts: Parts) => number): string[] => [us(mid(value)), percent(mid(value), client)];
    const theirs = own.map(({ parts }) => parts.backupSyncUs).filter((one) => one !== null);
    const server = mid(({ serverUs }) => serverUs);
    const put = own[0]!.op === 'put';
    return [
      `${opName[own[0]!.op]}, ${replicasName(own[0]!.replicas)}`,
      us(client),
      ...part(({ betweenUs }) => betweenUs),
      ...part(({ serverUs }) => serverUs),
      ...(put
        ? [
            us(mid(({ journalUs }) => journalUs)),
            percent(
              mid(({ journalUs }) => journalUs),
              server,
            ),
          ]
        : ['', '']),
      put ? us(mid(({ restUs }) => restUs)) : '',
      put ? mid(({ journalSyncs }) => journalSyncs).toFixed(2) : '',
      put && theirs.length > 0 ? us(median(theirs)) : '',
    ];
  });
  const head = ['', 'client µs', 'between µs', '%', 'server µs', '%', 'own fdatasync µs', '% of server', 'rest µs'];
  const text = table([...head, 'syncs/PUT', "a backup's fdatasync µs"], rows);
  const alone = (own: readonly Share[] | undefined): number => midPart(own ?? [], ({ serverUs }) => serverUs);
  const puts = casesOf(all).filter(([first]) => first!.op === 'put');
  const [one, more] = [1, 3].map((n) => puts.find(([first]) => first!.replicas === n));
  if (one === undefined || more === undefined) return text;
  const [shorter, longer] = [alone(one), alone(more)];
  const backups = `${us(longer - shorter)} µs, ${percent(longer - shorter, longer)} % of the server's time of a PUT`;
  return `${text}\nBackups, the difference of three replicas to one: ${backups}`;
}

/** As the report's figure 3: shares of a whole. */
export function sharePlot(all: readonly Share[], subtitle: string): string {
  const series = ['between client and server', "server: its journal's fdatasync", 'server: the rest, backups among it'];
  const groups = casesOf(all).map((own) => {
    const { op, replicas, durability } = own[0]!;
    const client = midPart(own, ({ clientUs }) => clientUs);
    const share = (value: (parts: Parts) => number): { y: number } => ({ y: (100 * midPart(own, value)) / client });
    const values = [share((p) => p.betweenUs), share((p) => p.journalUs), share((p) => p.restUs)];
    return { name: `${opName[op]}, ${replicasName(replicas)}, fsync ${fsync(durability)}`, values };
  });
  const { between, balancer } = COURSE_SHARE;
  groups.push({ name: 'course report, PUT, no fsync', values: [{ y: between }, { y: 0 }, { y: balancer }] });
  const what = { title: "Where the time of one client's operation goes", subtitle, yLabel: '% of what the client saw' };
  return barChart({ ...what, yScale: 'linear', stacked: true, series, groups });
}

// --- YCSB -----------------------------------------------------------------------------------------------------------------

function mixName(workload: string): string {
  const { shares, distribution } = YCSB[workload]!;
  const parts = MIX_KINDS.filter((kind) => (shares[kind] ?? 0) > 0);
  return `${parts.map((kind) => `${100 * shares[kind]!} % ${KIND_NAMES[kind]}`).join(', ')}; ${distribution}`;
}

const kindsOf = (own: readonly Ycsb[]): MixKind[] =>
  MIX_KINDS.filter((kind) => own.some(({ result }) => result.kinds[kind] !== undefined));

/** Of the runs that had such an operation. */
const midKind = (
  own: readonly Ycsb[],
  kind: MixKind,
  value: (latency: MixLatency, seconds: number) => number,
): number =>
  median(own.flatMap(({ result: { kinds, seconds } }) => (kinds[kind] ? [value(kinds[kind], seconds)] : [])));

/** Of one durability. */
export function ycsbTable(all: readonly Ycsb[]): string {
  const rows = unique(all.map(({ workload }) => workload)).flatMap((workload) => {
    const own = all.filter((one) => one.workload === workload);
    const failed = own.reduce((sum, { result }) => sum + result.errors + result.absent, 0);
    const rate = whole(median(own.map(({ result }) => result.opsPerSecond)));
    return kindsOf(own).map((kind, i) => {
      const mid = (value: (latency: MixLatency, seconds: number) => number): number => midKind(own, kind, value);
      return [
        i === 0 ? `${workload.toUpperCase()}: ${mixName(workload)}` : '',
        i === 0 ? rate : '',
        KIND_NAMES[kind],
        whole(mid(({ count }, seconds) => count / seconds)),
        ...(['p50Us', 'p99Us', 'p999Us', 'maxUs'] as const).map((name) => ms(mid((latency) => latency[name]))),
        i === 0 ? String(failed) : '',
      ];
    });
  });
  return table(['', 'all/s', 'operation', 'per second', 'p50 ms', 'p99 ms', 'p99.9 ms', 'max ms', 'failed'], rows);
}

export function ycsbRatePlot(all: readonly Ycsb[], subtitle: string): string {
  const durabilities = unique(all.map(({ durability }) => durability));
  const groups = unique(all.map(({ workload }) => workload)).map((workload) => ({
    name: `${workload.toUpperCase()}: ${mixName(workload).replace(/;.*/, '')}`,
    values: durabilities.map((durability) => {
      const own = all.filter((one) => one.workload === workload && one.durability === durability);
      return own.length === 0 ? null : spread(own.map(({ result }) => result.opsPerSecond));
    }),
  }));
  const series = durabilities.map((durability) => `fsync ${fsync(durability)}`);
  const title = `YCSB A to F, ${unique(all.map(({ clients }) => clients)).join(', ')} clients: rate`;
  return barChart({ title, subtitle, yLabel: 'operations/s', yScale: 'linear', series, groups });
}

/** Of one durability. */
export function ycsbLatencyPlot(all: readonly Ycsb[], where: string, subtitle: string): string {
  const groups = unique(all.map(({ workload }) => workload)).flatMap((workload) => {
    const own = all.filter((one) => one.workload === workload);
    return kindsOf(own).map((kind) => ({
      name: `${workload.toUpperCase()} ${KIND_NAMES[kind]}`,
      values: (['p50Us', 'p99Us'] as const).map((name) => ({ y: midKind(own, kind, (one) => one[name]) / 1000 })),
    }));
  });
  const title = `YCSB A to F, ${where}: latency`;
  return barChart({ title, subtitle, yLabel: 'ms', yScale: 'log', series: ['p50', 'p99'], groups });
}

// --- faults -----------------------------------------------------------------------------------------------------------------

const FAULT_NAMES: Readonly<Record<Fault, string>> = {
  undisturbed: 'undisturbed',
  'backup stopped': `a backup stopped for ${STOPPED_MS / 1000} s`,
  'backup cut off': `a backup cut off for ${CUT_OFF_MS / 1000} s`,
  'primary killed': 'the primary killed, and back',
};
const TAIL = ['p50Us', 'p99Us', 'p999Us', 'maxUs'] as const;

/** Of one durability. The maximum is the highest of all rounds. */
export function faultsTable(all: readonly UnderFault[]): string {
  const rows = unique(all.map(({ fault }) => fault)).map((fault) => {
    const own = all.filter((one) => one.fault === fault);
    const tail = (of: 'reads' | 'writes'): string[] =>
      TAIL.map((name) => {
        const values = own.map((one) => one[of][name]);
        return ms(name === 'maxUs' ? Math.max(...values) : median(values));
      });
    const back = own.map(({ backMs }) => backMs).filter((one) => one !== null);
    return [
      FAULT_NAMES[fault],
      whole(median(own.map(({ opsPerSecond }) => opsPerSecond))),
      whole(Math.min(...own.map(({ slowestSecond }) => slowestSecond))),
      ...tail('writes'),
      ...tail('reads'),
      String(own.reduce((sum, { failed }) => sum + failed, 0)),
      back.length === 0 ? '' : whole(median(back)),
    ];
  });
  const head = (op: string): string[] => [`${op} p50 ms`, 'p99', 'p99.9', 'max'];
  return table(
    ['', 'per second', 'slowest second', ...head('PUT'), ...head('GET'), 'failed', 'in sync again after ms'],
    rows,
  );
}

/** Of one durability. */
export function faultsPlot(all: readonly UnderFault[], where: string, subtitle: string): string {
  const parts = (['writes', 'reads'] as const).flatMap((of) =>
    (['p99Us', 'p999Us', 'maxUs'] as const).map((name) => ({ of, name })),
  );
  const names = { p99Us: 'p99', p999Us: 'p99.9', maxUs: 'max' } as const;
  const groups = unique(all.map(({ fault }) => fault)).map((fault) => ({
    name: FAULT_NAMES[fault],
    values: parts.map(({ of, name }) =>
      spread(all.filter((one) => one.fault === fault).map((one) => one[of][name] / 1000)),
    ),
  }));
  const series = parts.map(({ of, name }) => `${of === 'writes' ? 'PUT' : 'GET'} ${names[name]}`);
  const title = `${unique(all.map(({ clients }) => clients)).join(', ')} clients, half PUTs, under faults, ${where}: tail`;
  return barChart({ title, subtitle, yLabel: 'ms', yScale: 'log', series, groups });
}
