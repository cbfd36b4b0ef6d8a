/**
 * The simulation notices when a rule of the core is missing: each is switched off, and seeds are tried until one goes
 * red; with all rules the same seed is green. Two rules are told apart here: `handOver` saves copying and no data, so
 * what is noticed is the copying. Two have a double, so no run can miss them, and they are not here: `refuseOldEpoch` (the
 * register's version that goes with the promise, and streams that are closed when another primary comes), and
 * `holdForConfig` (a bitmap that a new primary begins is complete only from what it knows to be committed, so a member that
 * lacks something before that gets everything).
 */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { ALL_RULES, type Rules } from '../../src/replication/rules.ts';
import { type SimulationOptions, type SimulationResult, simulate } from './simulate.ts';

// deadline: 400 s
const test = suite('mutations');

/** How each is caught, and from which seed on it is tried (the first that was seen to go red lies close). */
const MUTATIONS: Array<[rule: keyof Rules, from: number, options: SimulationOptions]> = [
  ['casBeforeAck', 12, { nodes: 2, only: 'target falls' }],
  ['promoteInSyncOnly', 1, { nodes: 2 }],
  ['newEpoch', 1, { nodes: 2 }],
  ['redirty', 3, { nodes: 3 }],
  ['copyCommitted', 2, { nodes: 2 }],
  ['reconcile', 19, { nodes: 3, only: 'given up' }],
  ['needPromise', 1, { nodes: 2, only: 'isolation' }],
  ['startUpWait', 2, { nodes: 2, only: 'restarts' }],
  ['rightFromSending', 3, { nodes: 2, only: 'late echoes' }],
  ['noPromiseWhileSeeking', 1, { nodes: 2, only: 'late promotion' }],
  ['clearOnAck', 3, { nodes: 2, only: 'target falls' }],
  ['drainCopies', 1, { nodes: 2, only: 'slow source' }],
  ['drainRecords', 14, { nodes: 3, only: 'slow third' }],
  ['targetSuspects', 1, { nodes: 2, only: 'given up' }],
  ['handOver', 1, { nodes: 3, only: 'two absent' }],
  ['readsWait', 1, { nodes: 2 }],
  ['sessionsOnce', 1, { nodes: 2 }],
  ['boundGrants', 30, { nodes: 3 }],
  ['reportSuspects', 1, { nodes: 2, only: 'given up' }],
];
/** Rules without a run that notices; see above. */
const DOUBLED: ReadonlyArray<keyof Rules> = ['refuseOldEpoch', 'holdForConfig'];
const SEEDS = 60;

/** What was noticed; null: nothing. */
function noticed(rule: keyof Rules, { wrong, fullCopies }: SimulationResult): string | null {
  if (wrong !== null) return wrong;
  return rule === 'handOver' && fullCopies > 0 ? `${fullCopies} full copies` : null;
}

for (const [rule, from, options] of MUTATIONS) {
  test(`without ${rule} something goes wrong`, async () => {
    for (let seed = from; seed < from + SEEDS; seed++) {
      if (noticed(rule, await simulate(seed, { ...options, rules: { [rule]: false } })) === null) continue;
      const sound = noticed(rule, await simulate(seed, options));
      return assert.is(sound, null, `with all rules, seed ${seed}, ${JSON.stringify(options)}: ${sound}`);
    }
    assert.unreachable(`${SEEDS} seeds without ${rule}, and nothing was noticed`);
  });
}

test('each rule is either missed when it is missing, or known to have a double', () => {
  const known = [...MUTATIONS.map(([rule]) => rule), ...DOUBLED].sort();
  assert.equal(known, Object.keys(ALL_RULES).sort());
});

test.run();
