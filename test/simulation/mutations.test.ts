/**
 * The simulation notices when a rule of the core is missing: each is switched off, and seeds are tried until one goes red.
 * Which rules no seed has caught so far is said in docs/testing.md.
 */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { Rules } from '../../src/replication/rules.ts';
import { type SimulationOptions, simulate } from './simulate.ts';

// deadline: 400 s
const test = suite('mutations');

/** How each is caught, and from which seed on it is tried (the first that was seen to go red lies close). */
const MUTATIONS: Array<[rule: keyof Rules, from: number, options: SimulationOptions]> = [
  ['casBeforeAck', 1, { nodes: 2 }],
  ['promoteInSyncOnly', 1, { nodes: 2 }],
  ['newEpoch', 1, { nodes: 2 }],
  ['redirty', 35, { nodes: 3 }],
  ['copyCommitted', 100, { nodes: 2 }],
  ['reconcile', 1, { nodes: 3, tight: true }],
  ['needPromise', 5, { nodes: 2, only: 'isolation' }],
];
const SEEDS = 60;

for (const [rule, from, options] of MUTATIONS) {
  test(`without ${rule} something goes wrong`, async () => {
    for (let seed = from; seed < from + SEEDS; seed++) {
      if ((await simulate(seed, { ...options, rules: { [rule]: false } })).wrong !== null) return;
    }
    assert.unreachable(`${SEEDS} seeds without ${rule}, and nothing was noticed`);
  });
}

test.run();
