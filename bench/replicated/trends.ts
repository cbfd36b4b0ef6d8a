/**
 * Whether the figures go where those of other replicated block stores go: more clients, more bandwidth; more operations,
 * hardly less of it; reading brings more than writing; more missed writes, a longer reintegration. Pure.
 *
 * Guarantees: each verdict says which figures it is of; a graph that was not measured has no verdict.
 */
import { type Bar, type Graph, type Return, type Topology, median } from './measure.ts';

export interface Trend {
  what: string;
  holds: boolean;
  figures: string;
}

/** From one number of clients to the next, so much less counts as noise. */
const NOISE = 0.95;
/** From the fewest operations to the most. */
const LITTLE_LOSS = 0.8;
/** Clients up to which bandwidth is asked to grow; beyond, two cores are busy and it may level out. */
const GROWS_TO = 8;
/** A reintegration may be so much shorter than one with fewer missed blocks: its least parts are timers of 20 ms. */
const SHORTER_MS = 25;

const one = (value: number): string => value.toFixed(1);
const unique = (values: readonly number[]): number[] => [...new Set(values)].sort((a, b) => a - b);
const meanOf = (bars: readonly Bar[]): number =>
  bars.reduce((sum, { mibPerSecond }) => sum + median(mibPerSecond), 0) / bars.length;
const clientsOf = ({ readers, writers }: Bar): number => readers + writers;
const operationsOf = ({ reads, writes }: Bar): number => reads + writes;

export function nameOf(topology: Topology, durability: string): string {
  return `${topology === 'one' ? 'one server' : 'two nodes'}, fsync ${durability === 'always' ? 'on' : 'off'}`;
}

export function trendsOf(bars: readonly Bar[], returns: readonly Return[]): Trend[] {
  const trends: Trend[] = [];
  for (const durability of ['always', 'none'] as const) {
    for (const topology of ['one', 'two'] as const) {
      const own = bars.filter((bar) => bar.topology === topology && bar.durability === durability);
      const where = nameOf(topology, durability);
      for (const graph of ['read', 'write'] as const) trends.push(...ofClients(own, graph, where));
      trends.push(...ofReading(own, where));
    }
  }
  for (const durability of ['always', 'none'] as const) {
    for (const pattern of ['zipf', 'uniform'] as const) {
      const own = returns.filter((one_) => one_.durability === durability && one_.pattern === pattern);
      trends.push(...ofReturns(own, `${pattern}, fsync ${durability === 'always' ? 'on' : 'off'}`));
    }
  }
  return trends;
}

function ofClients(bars: readonly Bar[], graph: Graph, where: string): Trend[] {
  const own = bars.filter((bar) => bar.graph === graph);
  const clients = unique(own.map(clientsOf));
  const counts = unique(own.map(operationsOf));
  if (clients.length < 2) return [];
  const rates = clients.map((n) => meanOf(own.filter((bar) => clientsOf(bar) === n)));
  const asked = rates.filter((_, i) => clients[i]! <= GROWS_TO);
  const grows = asked.every((rate, i) => i === 0 || rate >= asked[i - 1]! * NOISE) && asked.at(-1)! > asked[0]!;
  const trends = [
    {
      what: `${graph} bandwidth grows with clients up to ${GROWS_TO} (${where})`,
      holds: grows,
      figures: clients.map((n, i) => `${n}: ${one(rates[i]!)}`).join(', ') + ' MiB/s',
    },
  ];
  if (counts.length < 2) return trends;
  const few = meanOf(own.filter((bar) => operationsOf(bar) === counts[0]));
  const many = meanOf(own.filter((bar) => operationsOf(bar) === counts.at(-1)));
  trends.push({
    what: `${graph} bandwidth loses little with more operations (${where})`,
    holds: many >= few * LITTLE_LOSS,
    figures: `${counts[0]}: ${one(few)}, ${counts.at(-1)}: ${one(many)} MiB/s`,
  });
  return trends;
}

function ofReading(bars: readonly Bar[], where: string): Trend[] {
  const trends: Trend[] = [];
  const [reads, writes] = (['read', 'write'] as const).map((graph) => bars.filter((bar) => bar.graph === graph));
  if (reads!.length > 0 && writes!.length > 0) {
    const [read, write] = [meanOf(reads!), meanOf(writes!)];
    trends.push({
      what: `reading has more bandwidth than writing (${where})`,
      holds: read > write,
      figures: `${one(read)} and ${one(write)} MiB/s`,
    });
  }
  const mixed = bars.filter((bar) => bar.graph === 'mixed');
  const share = ({ reads: r, writes: w }: Bar): number => r / (r + w);
  const heavy = mixed.filter((bar) => bar.readers > bar.writers);
  const light = mixed.filter((bar) => bar.readers < bar.writers);
  if (heavy.length === 0 || light.length === 0) return trends;
  const most = heavy.reduce((a, b) => (share(b) > share(a) ? b : a));
  const least = light.reduce((a, b) => (share(b) < share(a) ? b : a));
  const [read, write] = [median(most.mibPerSecond), median(least.mibPerSecond)];
  trends.push({
    what: `a mix of mostly reads has more bandwidth than one of mostly writes (${where})`,
    holds: read > write,
    figures:
      `${most.readers}R-${most.writers}W ${one(read)} MiB/s with ${most.reads}:${most.writes} operations, ` +
      `${least.readers}R-${least.writers}W ${one(write)} with ${least.reads}:${least.writes}`,
  });
  return trends;
}

function ofReturns(returns: readonly Return[], where: string): Trend[] {
  const missed = unique(returns.map(({ missedWrites }) => missedWrites));
  if (missed.length < 2) return [];
  const times = missed.map((n) =>
    median(returns.filter(({ missedWrites }) => missedWrites === n).map(({ reintegrationMs }) => reintegrationMs)),
  );
  const grows = times.every((ms, i) => i === 0 || ms >= times[i - 1]! - SHORTER_MS) && times.at(-1)! > times[0]!;
  return [
    {
      what: `a reintegration takes longer the more writes were missed (${where})`,
      holds: grows,
      figures: missed.map((n, i) => `${n}: ${one(times[i]!)}`).join(', ') + ' ms',
    },
  ];
}
