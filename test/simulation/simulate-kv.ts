/** One seeded run of a cluster with a key-value volume: clients, watchers, faults, and the checks afterwards. */
import { ALL_KV_RULES, type KvRules } from '../../src/kv/rules.ts';
import { ALL_RULES } from '../../src/replication/rules.ts';
import { Cluster } from './cluster.ts';
import { unleashFaults } from './faults.ts';
import { commonContent, unrest } from './final-checks.ts';
import { makeRoom, raise } from './growth.ts';
import { Histories } from './histories.ts';
import { type Known, apart, builtFrom, keysWrong, knownBy } from './kv-checks.ts';
import { KV_HABITS, KvClient, type KvHabits } from './kv-client.ts';
import { KvHistories, SKEW_MS, keysOf } from './kv-histories.ts';
import { HEAL_MS, KV_SCENARIOS, type KvScenario, ROOM_BLOCKS, scarceMemory } from './kv-scenarios.ts';
import { KvWatcher } from './kv-watcher.ts';
import type { SimulationResult } from './simulate.ts';
import { World } from './world.ts';

const FAULTS_MS = 3500;
const BACK_MS = 4500;
const END_MS = 11_000;
const AGAIN_MS = 20_000;
const REST_MS = 1500;
/** Six segments, of which clients get three. */
const BLOCKS = 6 * 256;
/** In which a volume that grows is raised to that size; the second has room for no more whole segments than this. */
const GROWN_BLOCKS = [7 * 256 + 100, ROOM_BLOCKS];
const CLIENTS = 4;
/** A block that nobody has any more keeps them from being whole. */
const HINDERED = 'hindered';

export interface KvSimulationOptions {
  nodes?: number;
  rules?: Partial<KvRules>;
  /** Only faults of that kind. */
  only?: KvScenario;
  /** The volume becomes larger, twice. */
  grows?: boolean;
}

export interface KvSimulationResult extends SimulationResult {
  /** Changes for which there was no room. */
  refused: number;
  /** Segments that were zeroed, to be used anew. */
  zeroed: number;
}

export async function simulateKv(seed: number, options: KvSimulationOptions = {}): Promise<KvSimulationResult> {
  const world = new World(seed);
  const { random } = world;
  const names = ['a', 'b', 'c'].slice(0, options.nodes ?? 2);
  const scenario = options.only === undefined ? null : KV_SCENARIOS[options.only];
  const rules = { ...ALL_KV_RULES, ...scenario?.rules, ...options.rules };
  const cluster = await Cluster.make(world, names, BLOCKS, ALL_RULES, rules);
  cluster.available = seed % 5 === 4;
  const habits: KvHabits = { ...KV_HABITS };
  for (const node of cluster.nodes) node.skewMs = random.next() * SKEW_MS;
  cluster.slowNetwork = random.chance(0.3);
  cluster.diskMs = random.chance(0.3) ? 8 : 1.5;
  if (random.chance(0.3)) Object.assign(habits, { largeShare: 0, thinkMs: 12 });
  if (random.chance(0.2)) for (const node of cluster.nodes) if (random.chance(0.4)) node.slowness = 8;
  scenario?.prepare(cluster, habits);
  if (scenario === null ? options.grows === true : scenario.grows === true) await makeRoom(cluster, ROOM_BLOCKS);
  const histories = new KvHistories((reason) => cluster.fail(reason));
  const clients = Array.from({ length: CLIENTS }, (_, i) => new KvClient(cluster, habits, histories, BigInt(i + 1)));
  const watchers = ['', 'p/'].map((prefix, i) => new KvWatcher(cluster, habits, histories, BigInt(i + 101), prefix));
  const zeroed = countZeroed(cluster);
  const result = (wrong: string | null): KvSimulationResult => ({
    wrong,
    log: world.log,
    operations: clients.reduce((sum, { answered }) => sum + answered, 0),
    failovers: cluster.register.current.epoch,
    fullCopies: cluster.fullCopies,
    refused: clients.reduce((sum, { refused }) => sum + refused, 0),
    zeroed: zeroed(),
  });
  const whole = (): string | null => {
    const { inSync } = cluster.register.current;
    if (inSync.length !== names.length) return `after the faults only ${inSync.join(' ')} are in sync`;
    const lacking = cluster.nodes.find(({ kv }) => (kv?.current ?? null) === null);
    if (lacking !== undefined) return `after the faults ${lacking.name} does not answer`;
    return cluster.nodes.some(({ kvServed }) => kvServed !== null) ? null : 'after the faults nobody is primary';
  };
  // Where a block has rotted, who has it cannot be a source of it, and may wait for ever.
  const rotten = (): boolean => cluster.nodes.some((node) => node.rotten.size > 0);
  /** Whole, at rest, everything everywhere the same. */
  const settled = async (): Promise<Known | string> => {
    const restless =
      whole() ?? ([...clients, ...watchers].every(({ idle }) => idle) ? null : 'a client waits for ever');
    const seen = cluster.wrong ?? histories.check() ?? (rotten() ? null : restless);
    if (seen !== null) return seen;
    if (restless !== null) return HINDERED;
    const content = await commonContent(cluster);
    if (typeof content === 'string') return content;
    const wrong = (rotten() ? null : unrest(cluster, new Histories(0))) ?? (await keysWrong(cluster, content));
    if (wrong !== null) return wrong;
    const known = await builtFrom(content);
    const { version } = known.index;
    if (version < histories.newest) return `the blocks say version ${version}, and ${histories.newest} was seen`;
    // As if a client had read everything.
    const entries = [...known.index.sorted.from('')].map((key) => {
      const cell = known.index.find(key)!;
      const value = cell.run.bytes.subarray(cell.at + 24 + key.length, cell.at + cell.sizeBytes);
      return { key, value, version: cell.version, expiresAtMs: null };
    });
    const all = [...histories.registers.keys()].flatMap(keysOf);
    histories.saw('the end', all, entries, world.nowMs, world.nowMs);
    return cluster.wrong ?? histories.check() ?? knownBy(known);
  };
  try {
    for (const node of cluster.nodes) node.boot();
    for (const one of [...clients, ...watchers]) one.start();
    if (scenario === null) {
      if (options.grows === true)
        for (const blocks of GROWN_BLOCKS) world.after(random.next() * FAULTS_MS, () => raise(cluster, blocks));
      unleashFaults(cluster, { untilMs: FAULTS_MS, diskFaults: random.chance(0.3), rot: seed % 10 === 6 });
      if (random.chance(0.3)) scarceMemory(cluster, FAULTS_MS);
    } else scenario.unleash(cluster, FAULTS_MS);
    await world.run(FAULTS_MS + 500);
    cluster.peace();
    await world.run(BACK_MS);
    for (const node of cluster.nodes) node.boot();
    for (const one of [...clients, ...watchers]) one.stopAtMs = HEAL_MS;
    await world.run(END_MS);
    const before = await settled();
    if (before === HINDERED) return result(null);
    if (typeof before === 'string') return result(before);
    // All lose their power at once, and what was acknowledged is there afterwards.
    for (const node of cluster.nodes) node.crash(true);
    for (const node of cluster.nodes) node.boot();
    for (const untilMs = world.nowMs + AGAIN_MS; world.nowMs < untilMs && whole() !== null;) {
      await world.run(world.nowMs + 200);
    }
    await world.run(world.nowMs + REST_MS);
    const after = await settled();
    if (after === HINDERED) return result(null);
    if (typeof after === 'string') return result(`all over again: ${after}`);
    const changed = apart({ ...before, sums: '' }, { ...after, sums: '' });
    return result(changed === null ? null : `all over again: ${changed}`);
  } catch (error) {
    return result(error instanceof Error ? (error.stack ?? error.message) : String(error));
  }
}

/** @returns what says how many segments the primaries have zeroed so far, those missed that were soon written anew */
function countZeroed(cluster: Cluster): () => number {
  let count = 0;
  let before: number[] = [];
  const look = (): void => {
    const { kv } = cluster.primary ?? { kv: null };
    const now = kv !== null && kv.content.valid ? [...kv.content.index.segments.runs] : [];
    count += now.filter((runs, i) => runs === 0 && (before[i] ?? 0) > 0).length;
    if (now.length > 0) before = now;
    cluster.world.after(100, look);
  };
  look();
  return () => count;
}
