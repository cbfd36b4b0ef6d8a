/** One seeded run of a cluster: clients, faults, and the checks afterwards. */
import { ALL_RULES, DEFAULT_TIMES, type Rules } from '../../src/replication/rules.ts';
import { Client, HABITS, type Habits } from './client.ts';
import { Cluster } from './cluster.ts';
import { unleashFaults } from './faults.ts';
import { commonContent, differing, marksDiffer, unrest } from './final-checks.ts';
import { Histories } from './histories.ts';
import { SCENARIOS, type Scenario } from './scenarios.ts';
import { World } from './world.ts';

const FAULTS_MS = 6000;
const HEAL_MS = 12_000;
const END_MS = 16_000;
/** How long a cluster that has lost its power may need to be whole again, and then to tell everybody what is committed. */
const AGAIN_MS = 20_000;
const REST_MS = 1500;
/** A volume of several runs of a reintegration, with more blocks than the barrier is raised for. */
const SMALL_BLOCKS = 24;
export const LARGE_BLOCKS = 600;

export interface SimulationResult {
  /** What was violated; null: nothing. */
  wrong: string | null;
  log: readonly string[];
  operations: number;
  failovers: number;
  /** Reintegrations that copied the whole volume. */
  fullCopies: number;
}

export interface SimulationOptions {
  nodes?: number;
  rules?: Partial<Rules>;
  /** Suspicion comes right after the promise has run out, and messages may be late by as much. */
  tight?: boolean;
  /** 600 blocks instead of 24. */
  large?: boolean;
  /** Only faults of that kind. */
  only?: Scenario;
}

export async function simulate(seed: number, options: SimulationOptions = {}): Promise<SimulationResult> {
  const world = new World(seed);
  const { random } = world;
  const names = ['a', 'b', 'c', 'd', 'e'].slice(0, options.nodes ?? 2);
  const scenario = options.only === undefined ? null : SCENARIOS[options.only];
  const large = options.large ?? scenario?.large ?? false;
  const blocks = large ? LARGE_BLOCKS : SMALL_BLOCKS;
  const cluster = await Cluster.make(world, names, blocks, { ...ALL_RULES, ...options.rules });
  const habits: Habits = { ...HABITS };
  cluster.slowNetwork = random.chance(0.3);
  cluster.diskMs = random.chance(0.3) ? 8 : 1.5;
  if (random.chance(0.5)) Object.assign(habits, { hotBlocks: 4, thinkMs: 4 });
  if (large) Object.assign(habits, { anywhereShare: 0.6, longShare: 0.5, maxBlocks: random.chance(0.5) ? 16 : 64 });
  // Some are slower than others: a source that is behind its target, a target that is behind its source.
  if (random.chance(0.2)) for (const node of cluster.nodes) if (random.chance(0.4)) node.slowness = 8;
  if (options.tight === true) {
    cluster.times = { ...DEFAULT_TIMES, suspicionMs: DEFAULT_TIMES.promiseMs + 10 };
    cluster.slowNetwork = true;
    cluster.lateMs = 450;
  }
  const mix = { untilMs: FAULTS_MS, diskFaults: random.chance(0.3), rot: random.chance(0.06) };
  scenario?.prepare(cluster, habits);
  const histories = new Histories(blocks);
  const reading: Habits = { ...habits, writeShare: 0, markShare: 0 };
  const clients = Array.from({ length: scenario?.clients ?? 3 }, (_, i) => {
    return new Client(cluster, i < (scenario?.writers ?? Infinity) ? habits : reading, histories, BigInt(i + 1));
  });
  const result = (wrong: string | null): SimulationResult => ({
    wrong,
    log: world.log,
    operations: clients.reduce((sum, { answered }) => sum + answered, 0),
    failovers: cluster.register.current.epoch,
    fullCopies: cluster.fullCopies,
  });
  const whole = (): string | null => {
    const { inSync } = cluster.register.current;
    if (inSync.length !== names.length) return `after the faults only ${inSync.join(' ')} are in sync`;
    return cluster.primary === undefined ? 'after the faults nobody serves' : null;
  };
  try {
    for (const node of cluster.nodes) node.boot();
    for (const client of clients) client.start();
    if (scenario === null) unleashFaults(cluster, mix);
    else scenario.unleash(cluster, FAULTS_MS);
    await world.run(FAULTS_MS + 500);
    // Faults are over: everybody comes back.
    cluster.peace();
    await world.run(FAULTS_MS + 3500);
    for (const node of cluster.nodes) node.boot();
    for (const client of clients) client.stopAtMs = HEAL_MS;
    await world.run(END_MS);
    if (cluster.wrong !== null) return result(cluster.wrong);
    const seen = histories.check();
    if (seen !== null) return result(seen);
    // Where a block has rotted, who has it cannot be a source of it, and may wait for ever.
    const rotten = cluster.nodes.some((node) => node.rotten.size > 0);
    const rest = rotten ? null : (whole() ?? (clients.every(({ idle }) => idle) ? null : 'a client waits for ever'));
    if (rest !== null) return result(rest);
    if (rotten && whole() !== null) return result(null);
    const before = await commonContent(cluster);
    if (typeof before === 'string') return result(before);
    const unruly = rotten ? null : (unrest(cluster, histories) ?? marksDiffer(cluster));
    if (unruly !== null) return result(unruly);
    // All lose their power at once, and what was acknowledged is there afterwards.
    for (const node of cluster.nodes) node.crash(true);
    for (const node of cluster.nodes) node.boot();
    for (const untilMs = world.nowMs + AGAIN_MS; world.nowMs < untilMs && whole() !== null;) {
      await world.run(world.nowMs + 200);
    }
    await world.run(world.nowMs + REST_MS);
    if (cluster.wrong !== null) return result(cluster.wrong);
    if (rotten) return result(null);
    const again = whole() ?? unrest(cluster, histories) ?? marksDiffer(cluster);
    if (again !== null) return result(`all over again: ${again}`);
    const after = await commonContent(cluster);
    if (typeof after === 'string') return result(`all over again: ${after}`);
    const changed = differing(before, after);
    return result(changed === null ? null : `all over again: ${changed}`);
  } catch (error) {
    return result(error instanceof Error ? (error.stack ?? error.message) : String(error));
  }
}
