/**
 * What is measured of one server and of two nodes: bandwidth by clients and operations, mixes of readers and writers, and
 * how long a backup that was away takes to be in sync again.
 *
 * Guarantees: contestants take turns within each round (one server, two nodes, one server ...); every single figure is
 * kept; the parts of a reintegration are told apart by what the nodes logged and when.
 */
import type { Durability } from '../load/children.ts';
import type { Pattern } from '../load/workload.ts';
import type { BenchCluster } from './cluster.ts';
import type { Generator } from './generator.ts';

export type Topology = 'one' | 'two';
export type Graph = 'read' | 'write' | 'mixed';

/** One bar of a bandwidth graph; all rounds of it. */
export interface Bar {
  graph: Graph;
  topology: Topology;
  durability: Durability;
  readers: number;
  writers: number;
  reads: number;
  writes: number;
  mibPerSecond: number[];
  readP99Us: number[];
  writeP99Us: number[];
}

/** One backup that was killed, missed writes, and came back. */
export interface Return {
  durability: Durability;
  pattern: Pattern;
  missedWrites: number;
  distinctBlocks: number;
  /** What the primary found to be dirty when it began; more if the journals differed besides. */
  dirtyBlocks: number;
  /** As the target counted them. */
  copiedBlocks: number;
  /** From the kill until the primary answered the first write alone; null: there was no write. */
  suspicionMs: number | null;
  /** From the start of the process until the primary began: opening the volume, being found, joining. */
  startMs: number;
  reintegrationMs: number;
  round: number;
}

export interface Workload {
  pattern: Pattern;
  alignedShare: number;
  /** Of zipf and uniform addresses alike. */
  spanBytes: number;
  rounds: number;
  seed: number;
}

/** Clients x operations; mixes: (readers, writers) x ratio of reads to writes. */
export interface Grid {
  clients: readonly number[];
  operations: readonly number[];
  mixes: ReadonlyArray<readonly [number, number]>;
  ratios: readonly number[];
  /** Reads and writes of a mix together. */
  mixOperations: number;
}

export function barsOf(grid: Grid, durability: Durability): Bar[] {
  const bars: Bar[] = [];
  const bar = (graph: Graph, readers: number, writers: number, reads: number, writes: number): void => {
    for (const topology of ['one', 'two'] as const) {
      const figures = { mibPerSecond: [], readP99Us: [], writeP99Us: [] };
      bars.push({ graph, topology, durability, readers, writers, reads, writes, ...figures });
    }
  };
  for (const clients of grid.clients) for (const count of grid.operations) bar('read', clients, 0, count, 0);
  for (const clients of grid.clients) for (const count of grid.operations) bar('write', 0, clients, 0, count);
  for (const [readers, writers] of grid.mixes) {
    for (const ratio of grid.ratios) {
      const reads = Math.round((grid.mixOperations * ratio) / (1 + ratio));
      bar('mixed', readers, writers, reads, grid.mixOperations - reads);
    }
  }
  return bars;
}

export async function measureBars(
  bars: readonly Bar[],
  generators: Record<Topology, Generator>,
  workload: Workload,
  measured: (done: number, of: number) => void,
): Promise<void> {
  const { pattern, alignedShare, spanBytes, rounds, seed } = workload;
  // Connections are made and code is warm before anything counts.
  const most = Math.max(...bars.map(({ readers, writers }) => readers + writers));
  const warm = { readers: Math.ceil(most / 2), writers: Math.ceil(most / 2), reads: 4000, writes: 4000 };
  for (const generator of [generators.one, generators.two]) {
    await generator.fill(spanBytes);
    await generator.run({ ...warm, pattern, alignedShare, spanBytes, seed });
  }
  for (let round = 0; round < rounds; round++) {
    for (const [i, bar] of bars.entries()) {
      const { topology, readers, writers, reads, writes } = bar;
      const load = { readers, writers, reads, writes, pattern, alignedShare, spanBytes, seed: seed + round };
      const result = await generators[topology].run(load);
      bar.mibPerSecond.push(result.mibPerSecond);
      if (reads > 0) bar.readP99Us.push(result.read.p99Us);
      if (writes > 0) bar.writeP99Us.push(result.write.p99Us);
      measured(round * bars.length + i + 1, rounds * bars.length);
    }
  }
}

/** Kills the backup, lets it miss so many writes, starts it again, and waits until it is in sync. */
export async function measureReturn(
  cluster: BenchCluster,
  generator: Generator,
  what: { durability: Durability; pattern: Pattern; missedWrites: number; spanBytes: number; round: number },
): Promise<Return> {
  const { durability, pattern, missedWrites, spanBytes, round } = what;
  const { primary, backup } = await cluster.untilInSync();
  const killedMs = Date.now();
  await cluster.kill(backup, 'SIGKILL');
  const isLost = ({ node, peer }: { node: string; peer?: unknown }): boolean => node === primary && peer === backup;
  await cluster.line('a replica is lost', killedMs, isLost);
  // It is out when the first write is answered by the primary alone; that write is one of those that are missed.
  const load = { readers: 0, writers: 1, reads: 0, pattern, alignedShare: 1, spanBytes, seed: round + 1 };
  const first = Math.min(missedWrites, 1);
  await generator.run({ ...load, writes: first });
  const suspicionMs = Date.now() - killedMs;
  const writers = Math.min(64, Math.max(1, missedWrites - first));
  const rest = await generator.run({
    ...load,
    writers,
    writes: missedWrites - first,
    seed: round + 1001,
    continues: true,
  });
  const { startedMs } = await cluster.restart(backup);
  const begun = await cluster.line('reintegration begins', startedMs, isLost);
  const ended = await cluster.line('a replica is in sync again', begun.time, isLost);
  const told = await cluster.line('everything is here', startedMs, ({ node }) => node === backup);
  return {
    durability,
    pattern,
    missedWrites,
    distinctBlocks: rest.distinctBlocks,
    dirtyBlocks: Number(begun['dirtyBlocks']),
    copiedBlocks: Number(told['copiedBlocks']),
    suspicionMs: missedWrites === 0 ? null : suspicionMs,
    startMs: begun.time - startedMs,
    reintegrationMs: ended.time - begun.time,
    round,
  };
}

export const median = (values: readonly number[]): number => {
  const sorted = [...values].sort((a, b) => a - b);
  if (sorted.length === 0) return Number.NaN;
  const middle = Math.floor(sorted.length / 2);
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
};
