/**
 * What is measured of a key-value volume on three nodes: one client, with all servers and with servers that fail; many
 * clients; how long a replica that was away takes to come back; how long everything takes to start.
 *
 * Guarantees: every single figure is kept; a run that lost an operation says how many and which was the first; the parts of
 * a recovery are told apart by what the nodes logged and when.
 */
import { connectKv } from '../../src/client/index.ts';
import { Asked } from '../load/asked.ts';
import type { Durability } from '../load/children.ts';
import type { BenchCluster } from '../replicated/cluster.ts';
import { type KvLoad, type KvResult, keyOf } from './kv-load.ts';

/** Who is killed at the first quarter of the PUTs, and of the GETs, and started again at once. */
export type Victim = 'nobody' | 'backup' | 'primary';
export const VICTIMS = ['nobody', 'backup', 'primary'] as const;

export interface OneClient {
  durability: Durability;
  keys: number;
  valueBytes: number;
  victim: Victim;
  put: KvResult;
  get: KvResult;
  round: number;
}

/** `get any`: answered by any replica in sync; `get`: by the primary. */
export type Kind = 'put' | 'get' | 'get any';
export const KINDS = ['put', 'get', 'get any'] as const;

export interface ManyClients {
  durability: Durability;
  clients: number;
  kind: Kind;
  result: KvResult;
  round: number;
}

/** One backup that was killed, missed PUTs, and came back. Times in milliseconds since its process was started. */
export interface Recovery {
  durability: Durability;
  missedPuts: number;
  /** Until the primary begins to bring it in. */
  begunMs: number;
  inSyncMs: number;
  /** Until it answers GETs itself. */
  answersMs: number;
  copiedBlocks: number;
  round: number;
}

/** All processes killed and started. Times in milliseconds since the first was started. */
export interface StartUp {
  durability: Durability;
  keys: number;
  valueBytes: number;
  listeningMs: number;
  /** Until a primary says that it answers. */
  servedMs: number;
  /** Until the first GET is answered, of a client that has been trying to connect all the time. */
  firstGetMs: number;
  /** The longest time in which a node read its keys; part of the above, at the primary. */
  readKeysMs: number;
  round: number;
}

export const THREE = ['a', 'b', 'c'];
const RECOVERY_CLIENTS = 64;
const PATIENCE_MS = 120_000;
const POLL_MS = 10;
const WARM_SECONDS = 0.5;

export class KvGenerator {
  private readonly asked: Asked;

  constructor(url: string) {
    this.asked = new Asked('bench/kv/kv-generator.js', [url]);
  }

  run(load: KvLoad, told?: () => void): Promise<KvResult> {
    return this.asked.ask(load, told);
  }

  async fill(from: number, to: number, valueBytes: number): Promise<void> {
    await this.asked.ask({ fill: { from, to, valueBytes } });
  }

  close(): Promise<void> {
    return this.asked.close();
  }
}

/** As many PUTs as keys, then as many GETs, by one client. */
export async function measureOne(
  cluster: BenchCluster,
  generator: KvGenerator,
  what: Pick<OneClient, 'durability' | 'keys' | 'valueBytes' | 'victim' | 'round'>,
): Promise<OneClient> {
  const { keys, valueBytes, victim } = what;
  const phase = async (op: 'put' | 'get'): Promise<KvResult> => {
    const { primary, backup } = await cluster.untilInSync();
    const load: KvLoad = { op, clients: 1, reads: 'primary', keys, valueBytes, seconds: null, curve: true, seed: 1 };
    if (victim === 'nobody') return generator.run(load);
    const name = victim === 'primary' ? primary : backup;
    let failing: Promise<unknown> = Promise.resolve();
    const result = await generator.run({ ...load, tellAt: Math.ceil(keys / 4) }, () => {
      failing = cluster.kill(name, 'SIGKILL').then(() => cluster.restart(name));
      // Told below; the load goes on meanwhile.
      failing.catch(() => {});
    });
    await failing;
    return result;
  };
  const put = await phase('put');
  const get = await phase('get');
  await cluster.untilInSync();
  return { ...what, put, get };
}

export async function measureMany(
  generator: KvGenerator,
  what: Omit<ManyClients, 'result'>,
  load: { keys: number; valueBytes: number; seconds: number },
): Promise<ManyClients> {
  const { clients, kind, round } = what;
  const reads = kind === 'get any' ? 'any' : 'primary';
  const op = kind === 'put' ? 'put' : 'get';
  const all: KvLoad = { ...load, op, clients, reads, seed: 1000 * round + clients };
  // Connections are open and code is warm before anything counts.
  await generator.run({ ...all, seconds: Math.min(WARM_SECONDS, load.seconds) });
  const result = await generator.run(all);
  return { ...what, result };
}

/** Kills a backup, lets it miss so many PUTs, starts it again, and waits until it is in sync and answers. */
export async function measureRecovery(
  cluster: BenchCluster,
  generator: KvGenerator,
  what: Pick<Recovery, 'durability' | 'missedPuts' | 'round'>,
  load: { keys: number; valueBytes: number },
): Promise<Recovery> {
  const { missedPuts, round } = what;
  const { primary, backup } = await cluster.untilInSync();
  const killedMs = Date.now();
  await cluster.kill(backup, 'SIGKILL');
  const isOfIt = ({ node, peer }: { node: string; peer?: unknown }): boolean => node === primary && peer === backup;
  await cluster.line('a replica is lost', killedMs, isOfIt);
  if (missedPuts > 0) {
    const clients = Math.min(RECOVERY_CLIENTS, missedPuts);
    const missed = {
      ...load,
      op: 'put',
      clients,
      reads: 'primary',
      seconds: null,
      count: missedPuts,
      seed: round,
    } as const;
    const { failures, firstFailure } = await generator.run(missed);
    if (failures > 0) throw new Error(`${failures} PUTs failed with a backup away: ${firstFailure}`);
  }
  const startedMs = Date.now();
  const [, answeredMs] = await Promise.all([cluster.restart(backup), untilAnswers(cluster, backup)]);
  const begun = await cluster.line('reintegration begins', startedMs, isOfIt);
  const ended = await cluster.line('a replica is in sync again', begun.time, isOfIt);
  const told = await cluster.line('everything is here', startedMs, ({ node }) => node === backup);
  return {
    ...what,
    begunMs: begun.time - startedMs,
    inSyncMs: ended.time - startedMs,
    answersMs: answeredMs - startedMs,
    copiedBlocks: Number(told['copiedBlocks']),
  };
}

/** @param name null: the primary, whoever that is. @returns when it was seen, of the wall clock */
async function untilAnswers(cluster: BenchCluster, name: string | null): Promise<number> {
  const endMs = Date.now() + PATIENCE_MS;
  while (Date.now() < endMs) {
    const all = await cluster.replicas();
    const ours = all.filter(({ node, replica }) => (name === null ? replica.serving : node === name));
    if (ours.some(({ replica }) => replica.kv?.answers === true)) return Date.now();
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
  throw new Error(`${name ?? 'the primary'} does not answer GETs`);
}

/** With `keys` keys there: everything is killed and started, and asked for one of them. */
export async function measureStartUp(
  cluster: BenchCluster,
  what: Pick<StartUp, 'durability' | 'keys' | 'valueBytes' | 'round'>,
): Promise<StartUp> {
  const key = keyOf(what.keys - 1);
  await cluster.untilInSync();
  await cluster.killAll();
  const startedMs = Date.now();
  const starting = Promise.all([cluster.startAll().then(() => Date.now()), untilAnswers(cluster, null)]);
  const kv = await connectKv(cluster.kvUrl, { connectMs: PATIENCE_MS, retryMs: PATIENCE_MS });
  const entry = await kv.get(key);
  const firstGetMs = Date.now() - startedMs;
  await kv.close();
  if (entry === null) throw new Error(`${key} is gone after everything was killed`);
  const [listeningMs, servedMs] = (await starting).map((moment) => moment - startedMs) as [number, number];
  await cluster.untilInSync();
  const loads = (await cluster.replicas()).map(({ replica }) => replica.kv?.loadMs ?? 0);
  return { ...what, listeningMs, servedMs, firstGetMs, readKeysMs: Math.max(...loads) };
}
