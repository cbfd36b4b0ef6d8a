/**
 * Performs the cells of one stage on its nodes, and keeps what they give.
 *
 * Guarantees: nodes are warm before anything is measured on them; each cell's figures are in the report when it is over.
 */
import type { BenchCluster } from '../replicated/cluster.ts';
import { type KvGenerator, measureMany, measureOne, measureRecovery, measureStartUp } from './measure.ts';
import { measureUnderFault, measureYcsb } from './measure-mix.ts';
import type { Cell } from './plan.ts';
import type { KvReport } from './report.ts';
import { measureShare } from './share.ts';
import { ms, whole } from './words.ts';

export interface CellOptions {
  keys: readonly number[];
  shareKeys: number;
  valueBytes: number;
  startValueBytes: number;
  seconds: number;
  warmSeconds: number;
  ycsbKeys: number;
  ycsbValueBytes: number;
  ycsbClients: number;
  ycsbSeconds: number;
  faultSeconds: number;
}

const WARM_CLIENTS = 40;
/** Of a value under faults, as `holdfast kv bench` has them. */
const FAULT_VALUE_BYTES = 100;

type Of<S extends Cell['section']> = Extract<Cell, { section: S }>;

export class Cells {
  private readonly cluster: BenchCluster;
  private readonly generator: KvGenerator;
  private readonly options: CellOptions;
  private readonly report: KvReport;
  private readonly begun: Set<Cell['section']> = new Set();
  private filled = 0;

  constructor(cluster: BenchCluster, generator: KvGenerator, options: CellOptions, report: KvReport) {
    this.cluster = cluster;
    this.generator = generator;
    this.options = options;
    this.report = report;
  }

  /** @returns its figures in a line. @throws Error if it could not be measured */
  async perform(cell: Cell): Promise<string> {
    const first = !this.begun.has(cell.section);
    this.begun.add(cell.section);
    switch (cell.section) {
      case 'share':
        return this.share(cell);
      case 'ycsb':
        return this.ycsb(cell, first);
      case 'one':
        return this.one(cell);
      case 'clients':
        return this.many(cell, first);
      case 'recovery':
        return this.recovery(cell);
      case 'faults':
        return this.underFault(cell, first);
      case 'startup':
        return this.startUp(cell);
    }
  }

  /** A node that was started a moment ago is slower by half until its code is compiled: that is not what is compared. */
  private async warm(): Promise<void> {
    await this.cluster.untilInSync();
    const { keys, valueBytes, warmSeconds: seconds } = this.options;
    const load = { clients: WARM_CLIENTS, reads: 'primary', keys: keys[0]!, valueBytes, seconds, seed: 9 } as const;
    await this.generator.fill(0, load.keys, valueBytes);
    for (const op of ['put', 'get'] as const) {
      const { failures, firstFailure } = await this.generator.run({ ...load, op });
      if (failures > 0) throw new Error(`${failures} operations failed with all nodes there: ${firstFailure}`);
    }
  }

  private async share({ durability, replicas, round }: Of<'share'>): Promise<string> {
    const { shareKeys: keys, valueBytes } = this.options;
    await this.warm();
    const what = { durability, replicas, keys, round };
    const shares = await measureShare(this.cluster, this.generator, what, valueBytes);
    this.report.share.push(...shares);
    const told = shares.map(({ op, parts: { clientUs, betweenUs, journalUs, restUs } }) => {
      const server = op === 'put' ? `, journal ${ms(journalUs)}, rest of the server` : ', server';
      return `${op.toUpperCase()} ${ms(clientUs)} ms: between ${ms(betweenUs)}${server} ${ms(restUs)}`;
    });
    return `where the time goes, ${replicas} replica${replicas === 1 ? '' : 's'}: ${told.join('; ')}`;
  }

  private async ycsb({ durability, workload, round }: Of<'ycsb'>, first: boolean): Promise<string> {
    const { ycsbKeys: keys, ycsbValueBytes: valueBytes, ycsbSeconds: seconds, ycsbClients: clients } = this.options;
    if (first) await this.warm();
    const what = { durability, workload, clients, round };
    const ycsb = await measureYcsb(this.cluster, what, { keys, valueBytes, seconds });
    this.report.ycsb.push(ycsb);
    const { opsPerSecond, kinds, errors, absent } = ycsb.result;
    const told = Object.entries(kinds).map(
      ([kind, { p50Us, p99Us }]) => `${kind} p50 ${ms(p50Us)}, p99 ${ms(p99Us)} ms`,
    );
    return `YCSB ${workload.toUpperCase()}: ${whole(opsPerSecond)}/s, ${told.join('; ')}; ${errors + absent} failed`;
  }

  private async one({ durability, keys, victim, round }: Of<'one'>): Promise<string> {
    const { valueBytes } = this.options;
    await this.warm();
    const one = await measureOne(this.cluster, this.generator, { durability, keys, valueBytes, victim, round });
    this.report.one.push(one);
    const { put, get } = one;
    return (
      `one client, ${keys} keys, ${victim} killed: PUT ${whole(put.opsPerSecond)}/s (p50 ${put.latency.p50Us} µs, ` +
      `max ${put.latency.maxUs}), GET ${whole(get.opsPerSecond)}/s (p50 ${get.latency.p50Us}, ` +
      `max ${get.latency.maxUs}); ${put.failures + get.failures} failed`
    );
  }

  private async many({ durability, clients, kind, round }: Of<'clients'>, first: boolean): Promise<string> {
    const { keys, valueBytes, seconds } = this.options;
    const load = { keys: Math.max(...keys), valueBytes, seconds };
    if (first) {
      await this.warm();
      await this.generator.fill(0, load.keys, valueBytes);
    }
    const many = await measureMany(this.generator, { durability, clients, kind, round }, load);
    this.report.clients.push(many);
    const { opsPerSecond, latency, failures, generatorCpuPercent } = many.result;
    return (
      `${clients} clients, ${kind}: ${whole(opsPerSecond)}/s, p50 ${latency.p50Us} µs, p99 ${latency.p99Us} µs, ` +
      `generator ${whole(generatorCpuPercent)} % of a core; ${failures} failed`
    );
  }

  private async recovery({ durability, missedPuts, round }: Of<'recovery'>): Promise<string> {
    const { keys, valueBytes } = this.options;
    const load = { keys: Math.max(...keys), valueBytes };
    const one = await measureRecovery(this.cluster, this.generator, { durability, missedPuts, round }, load);
    this.report.recovery.push(one);
    const { begunMs, inSyncMs, answersMs, copiedBlocks } = one;
    return (
      `recovery, ${missedPuts} PUTs missed: begun after ${begunMs} ms, in sync after ${inSyncMs} ms, answers GETs after ` +
      `${answersMs} ms; ${copiedBlocks} blocks copied`
    );
  }

  private async underFault({ durability, fault, round }: Of<'faults'>, first: boolean): Promise<string> {
    const { ycsbKeys: keys, ycsbClients: clients, faultSeconds: seconds } = this.options;
    // One that was killed in the round before runs code that is not compiled yet.
    if (first || fault === 'undisturbed') await this.warm();
    const load = { keys, valueBytes: FAULT_VALUE_BYTES, seconds };
    const one = await measureUnderFault(this.cluster, { durability, fault, clients, round }, load);
    this.report.faults.push(one);
    const of = ({ p50Us, p99Us, p999Us, maxUs }: typeof one.reads): string =>
      `p50 ${ms(p50Us)}, p99 ${ms(p99Us)}, p99.9 ${ms(p999Us)}, max ${ms(maxUs)} ms`;
    return `${fault}: ${whole(one.opsPerSecond)}/s, PUT ${of(one.writes)}, GET ${of(one.reads)}; ${one.failed} failed`;
  }

  private async startUp({ durability, keys, round }: Of<'startup'>): Promise<string> {
    const { startValueBytes: valueBytes } = this.options;
    if (keys > this.filled) await this.generator.fill(this.filled, keys, valueBytes);
    this.filled = Math.max(this.filled, keys);
    const one = await measureStartUp(this.cluster, { durability, keys, valueBytes, round });
    this.report.startup.push(one);
    const { listeningMs, servedMs, firstGetMs, readKeysMs } = one;
    return (
      `start with ${keys} keys: listening after ${listeningMs} ms, served after ${servedMs} ms, first GET after ` +
      `${firstGetMs} ms (reading the keys took ${whole(readKeysMs)} ms)`
    );
  }
}
