/**
 * Mixes of operations on a key-value volume on three nodes: the workloads of YCSB, and one mix while nodes are stopped, cut
 * off and killed. Both are the load of `holdfast kv bench`.
 *
 * Guarantees: a read that finds no key counts as failed: all keys were put before; a fault begins a second after the first
 * request; before and after each load all nodes are in sync.
 */
import { createInterface } from 'node:readline';
import { type Durability, start } from '../load/children.ts';
import type { BenchCluster } from '../replicated/cluster.ts';
import type { MixLatency, MixRequest, MixResult } from './kv-mix.ts';
import type { MixSecond } from './mix-tally.ts';

export const WORKLOADS = ['a', 'b', 'c', 'd', 'e', 'f'] as const;
export type Workload = (typeof WORKLOADS)[number];

export interface Ycsb {
  durability: Durability;
  workload: Workload;
  clients: number;
  result: MixResult;
  round: number;
}

export const FAULTS = ['undisturbed', 'backup stopped', 'backup cut off', 'primary killed'] as const;
export type Fault = (typeof FAULTS)[number];

export interface UnderFault {
  durability: Durability;
  fault: Fault;
  clients: number;
  opsPerSecond: number;
  /** The lowest rate of a whole second. */
  slowestSecond: number;
  reads: MixLatency;
  writes: MixLatency;
  failed: number;
  firstFailure: string | null;
  /** From the beginning of the fault until the replica was in sync again; null: it was never out. */
  backMs: number | null;
  round: number;
}

export const STOPPED_MS = 1000;
export const CUT_OFF_MS = 2000;
/** Of the load: connections are open and code is warm before anything counts. */
const WARM_SECONDS = 0.5;

type Told = MixResult | MixSecond | { event: 'loaded' } | { event: 'failed'; error: { message: string } };

/** One load in a process of its own. @throws Error if it could not be made */
async function runMix(request: MixRequest, second: (told: MixSecond) => void = () => {}): Promise<MixResult> {
  const { child, exited, stderr } = start('bench/kv/mix-generator.js', [], 'pipe');
  // Told by its exit.
  child.stdin!.on('error', () => {});
  child.stdin!.write(`${JSON.stringify(request)}\n`);
  let result: MixResult | null = null;
  for await (const line of createInterface({ input: child.stdout! })) {
    const told = JSON.parse(line) as Told;
    if (told.event === 'result') result = told;
    else if (told.event === 'second') second(told);
    else if (told.event === 'failed') throw new Error(told.error.message);
  }
  const status = await exited;
  if (result === null) throw new Error(`the generator ended with ${status}\n${stderr()}`);
  return result;
}

const PLAIN = { operations: null, reads: 'primary', seed: 1, warmSeconds: WARM_SECONDS } as const;

export async function measureYcsb(
  cluster: BenchCluster,
  what: Omit<Ycsb, 'result'>,
  load: Pick<MixRequest, 'keys' | 'valueBytes' | 'seconds'>,
): Promise<Ycsb> {
  await cluster.untilInSync();
  const { workload, clients } = what;
  const result = await runMix({
    ...PLAIN,
    ...load,
    url: cluster.kvUrl,
    clients,
    ycsb: workload,
    // As the workload says.
    shares: {},
    distribution: 'zipf',
    prefix: 'ycsb/',
    // Each begins with the same keys.
    load: true,
    clean: true,
  });
  return { ...what, result };
}

/** Until the node that it is about may come back. */
async function disturb(
  cluster: BenchCluster,
  fault: Fault,
  { primary, backup, backups }: { primary: string; backup: string; backups: string[] },
): Promise<void> {
  switch (fault) {
    case 'undisturbed':
      return;
    case 'backup stopped':
      cluster.signal(backup, 'SIGSTOP');
      await new Promise((resolve) => setTimeout(resolve, STOPPED_MS));
      return cluster.signal(backup, 'SIGCONT');
    case 'backup cut off': {
      const from = [primary, ...backups.filter((name) => name !== backup), 'coordinator'];
      return cluster.fault(backup, { kind: 'partition', from, way: 'both', forMs: CUT_OFF_MS });
    }
    case 'primary killed':
      await cluster.kill(primary, 'SIGKILL');
      await cluster.restart(primary);
  }
}

/** Half PUTs, half GETs, while something fails. */
export async function measureUnderFault(
  cluster: BenchCluster,
  what: Pick<UnderFault, 'durability' | 'fault' | 'clients' | 'round'>,
  load: Pick<MixRequest, 'keys' | 'valueBytes' | 'seconds'>,
): Promise<UnderFault> {
  const members = await cluster.untilInSync();
  const { fault, clients } = what;
  const rates: number[] = [];
  let failing: Promise<void> = Promise.resolve();
  let begunMs = 0;
  const request: MixRequest = {
    ...PLAIN,
    ...load,
    url: cluster.kvUrl,
    clients,
    ycsb: null,
    shares: { read: 0.5, update: 0.5 },
    distribution: 'uniform',
    prefix: 'faults/',
    load: true,
    clean: false,
  };
  const result = await runMix(request, ({ opsPerSecond }) => {
    if (rates.push(opsPerSecond) > 1) return;
    begunMs = Date.now();
    failing = disturb(cluster, fault, members);
    // Told below; the load goes on meanwhile.
    failing.catch(() => {});
  });
  await failing;
  if (begunMs === 0) throw new Error(`a load of ${load.seconds} s is too short for a fault`);
  await cluster.untilInSync();
  const about = fault === 'primary killed' ? members.primary : members.backup;
  const back = cluster.lines.find(
    ({ msg, time, peer }) => msg === 'a replica is in sync again' && time >= begunMs && peer === about,
  );
  const { opsPerSecond, reads, writes, errors, absent, firstError } = result;
  return {
    ...what,
    opsPerSecond,
    slowestSecond: Math.min(...rates),
    reads,
    writes,
    failed: errors + absent,
    firstFailure: firstError ?? (absent > 0 ? `${absent} reads found no key` : null),
    backMs: back === undefined ? null : back.time - begunMs,
  };
}
