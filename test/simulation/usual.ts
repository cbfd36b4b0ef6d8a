/** What `npm test` and `npm run simulate` run under a seed: mostly two or three members, some larger groups and volumes. */
import type { SimulationOptions } from './simulate.ts';
import type { KvSimulationOptions } from './simulate-kv.ts';

export function usual(seed: number): SimulationOptions {
  const nodes = seed % 20 === 0 ? 5 : seed % 20 === 10 ? 4 : 2 + (seed % 2);
  return { nodes, large: seed % 9 === 4 };
}

/** The same for a key-value volume. */
export function usualKv(seed: number): KvSimulationOptions {
  return { nodes: 2 + (seed % 2), grows: seed % 4 === 1 };
}
