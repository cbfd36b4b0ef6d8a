/**
 * The simulation of a key-value volume notices when a rule of it is missing: each is switched off, and seeds are tried
 * until one goes red; with all rules the same seed is green.
 */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { ALL_KV_RULES, type KvRules } from '../../src/kv/rules.ts';
import { type KvSimulationOptions, simulateKv } from './simulate-kv.ts';

// deadline: 200 s
const test = suite('kv-mutations');

/** How each is caught, and from which seed on it is tried (of those that go red a short one). */
const MUTATIONS: Array<[rule: keyof KvRules, from: number, options: KvSimulationOptions]> = [
  ['readsWait', 13, { nodes: 2 }],
  ['answersStay', 6, { nodes: 2, only: 'failovers' }],
  ['zeroDeadOnly', 24, { nodes: 2 }],
  ['keepNewest', 24, { nodes: 2, only: 'emptied' }],
  ['zeroBeforeReuse', 13, { nodes: 2, only: 'full' }],
  ['rebuildAfterCopies', 6, { nodes: 2 }],
  ['rebuildAfterOpening', 6, { nodes: 2, only: 'forgotten' }],
  ['readBehindEnd', 4, { nodes: 2, only: 'grown' }],
  ['keepOrder', 6, { nodes: 2, only: 'scarce memory' }],
  ['readsUnderGrant', 24, { nodes: 2, only: 'cut backups' }],
  ['watchWhole', 13, { nodes: 2 }],
  ['watchKept', 24, { nodes: 2, only: 'failovers' }],
  ['logExpiry', 6, { nodes: 2 }],
  ['tellForgotten', 6, { nodes: 2, only: 'many sessions' }],
];
const SEEDS = 30;

/** What is to be noticed where something lesser is noticed first: without its deletion a key stays. */
const SIGNS: Partial<Record<keyof KvRules, RegExp>> = { logExpiry: /cannot be/ };

for (const [rule, from, options] of MUTATIONS) {
  test(`without ${rule} something goes wrong${options.only === undefined ? '' : `: ${options.only}`}`, async () => {
    for (let seed = from; seed < from + SEEDS; seed++) {
      const { wrong } = await simulateKv(seed, { ...options, rules: { [rule]: false } });
      if (wrong === null || SIGNS[rule]?.test(wrong) === false) continue;
      const sound = await simulateKv(seed, options);
      return assert.is(sound.wrong, null, `with all rules, seed ${seed}, ${JSON.stringify(options)}: ${sound.wrong}`);
    }
    assert.unreachable(`${SEEDS} seeds without ${rule}, and nothing was noticed`);
  });
}

test('each rule is missed when it is missing', () => {
  const known = [...new Set(MUTATIONS.map(([rule]) => rule))].sort();
  const rules = Object.entries(ALL_KV_RULES).flatMap(([rule, on]) => (on === true ? [rule] : []));
  assert.equal(known, rules.sort());
});

test.run();
