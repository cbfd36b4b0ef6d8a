/**
 * Where the time of one client's PUT and GET goes: what the primary counted of its own (the metrics of a node) beside what
 * the client saw, over the same operations.
 *
 * Guarantees: means, of differences around a load, so that what was before does not count; the parts add up to what the
 * client saw. The server's part is from the request taken from its frame to the answer handed to the connection; the rest
 * is "between": the client library, both event loops, the sockets.
 */
import type { Durability } from '../load/children.ts';
import { type BenchCluster, VOLUME } from '../replicated/cluster.ts';
import type { KvGenerator } from './measure.ts';
import type { KvLoad, KvResult } from './kv-load.ts';

/** Sums of seconds and how many, as a node has counted them since it was started. */
export interface Counted {
  read: [seconds: number, count: number];
  write: [seconds: number, count: number];
  journal: [seconds: number, count: number];
}

/** Microseconds an operation, means. */
export interface Parts {
  clientUs: number;
  betweenUs: number;
  serverUs: number;
  /** Of the server's, the fdatasync of its journal. It runs beside the sending to the backups. */
  journalUs: number;
  /** The rest of the server's: waiting for the backups beyond that, and its own work. */
  restUs: number;
  /** How many times the primary's journal was synced for an operation. */
  journalSyncs: number;
  /** What an fdatasync of a journal takes at a backup; null: there is none, or it made none. */
  backupSyncUs: number | null;
  /** As the server counted them. */
  operations: number;
}

export interface Share {
  durability: Durability;
  replicas: number;
  keys: number;
  op: 'put' | 'get';
  parts: Parts;
  result: KvResult;
  round: number;
}

/** @throws Error if the page does not have it */
function sample(page: string, name: string, labels: Record<string, string>): number {
  const wanted = Object.entries(labels).map(([label, value]) => `${label}="${value}"`);
  for (const line of page.split('\n')) {
    if (line.startsWith(`${name}{`) && wanted.every((one) => line.includes(one)))
      return Number(line.slice(line.lastIndexOf(' ') + 1));
  }
  throw new Error(`no ${name} of ${wanted.join(', ')} among the metrics`);
}

/** @param page in Prometheus's text format */
export function countedOf(page: string, volume: string): Counted {
  const of = (name: string, labels: Record<string, string>): [number, number] => [
    sample(page, `${name}_sum`, { volume, ...labels }),
    sample(page, `${name}_count`, { volume, ...labels }),
  ];
  return {
    read: of('holdfast_operation_duration_seconds', { op: 'read' }),
    write: of('holdfast_operation_duration_seconds', { op: 'write' }),
    journal: of('holdfast_fsync_duration_seconds', { file: 'journal' }),
  };
}

type Pair = { before: Counted; after: Counted };

function since({ before, after }: Pair, what: keyof Counted): [us: number, count: number] {
  return [(after[what][0] - before[what][0]) * 1e6, after[what][1] - before[what][1]];
}

/** @param clientUs the mean of what the client saw */
export function partsOf(op: 'put' | 'get', clientUs: number, primary: Pair, backups: readonly Pair[]): Parts {
  const [allUs, operations] = since(primary, op === 'put' ? 'write' : 'read');
  if (operations === 0) throw new Error(`the primary counted no ${op.toUpperCase()}`);
  const serverUs = Math.min(allUs / operations, clientUs);
  const [syncUs, syncs] = since(primary, 'journal');
  // Whoever reads waits for no sync; what the node syncs meanwhile is its own.
  const journalUs = op === 'put' ? Math.min(syncUs / operations, serverUs) : 0;
  const theirs = backups.map((pair) => since(pair, 'journal'));
  const theirSyncs = theirs.reduce((sum, [, count]) => sum + count, 0);
  return {
    clientUs,
    betweenUs: clientUs - serverUs,
    serverUs,
    journalUs,
    restUs: serverUs - journalUs,
    journalSyncs: syncs / operations,
    backupSyncUs: theirSyncs === 0 ? null : theirs.reduce((sum, [us]) => sum + us, 0) / theirSyncs,
    operations,
  };
}

/** As many PUTs as keys, then as many GETs, by one client; nobody is killed. */
export async function measureShare(
  cluster: BenchCluster,
  generator: KvGenerator,
  what: Pick<Share, 'durability' | 'replicas' | 'keys' | 'round'>,
  valueBytes: number,
): Promise<Share[]> {
  const shares: Share[] = [];
  const { primary, backups } = await cluster.untilInSync();
  const look = (): Promise<Counted[]> =>
    Promise.all([primary, ...backups].map(async (name) => countedOf(await cluster.metrics(name), VOLUME)));
  for (const op of ['put', 'get'] as const) {
    const before = await look();
    const load: KvLoad = { op, clients: 1, reads: 'primary', keys: what.keys, valueBytes, seconds: null, seed: 1 };
    const result = await generator.run(load);
    const after = await look();
    const [own, ...others] = before.map((one, i) => ({ before: one, after: after[i]! }));
    shares.push({ ...what, op, parts: partsOf(op, result.latency.meanUs, own!, others), result });
  }
  return shares;
}
