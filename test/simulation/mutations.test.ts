/**
 * The simulation notices when a rule of the core is missing: each is switched off, and seeds are tried until one goes
 * red; with all rules the same seed is green.
 *
 * Two rules save copying and no data: `handOver`, where the copying is noticed, and `voidAtFinish`, where blocks are left
 * suspect when all is at rest. The old records themselves cannot come back, whatever the finish does: a target settles
 * before its first copy, so they are applied by then, and the tail has passed them.
 *
 * Two have a double, so no run can miss them, and they are not here: `refuseOldEpoch` (the register's version that goes
 * with the promise, and streams that are closed when another primary comes), and `holdForConfig` (a bitmap that a new
 * primary begins is complete only from what it knows to be committed, so a member that lacks something before that gets
 * everything). `fenceStreams` switches off two halves at once, each of which is enough: an older stream is closed, and what
 * comes on it is dropped.
 */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { ALL_RULES, type Rules } from '../../src/replication/rules.ts';
import { type Scenario, SCENARIOS } from './scenarios.ts';
import { type SimulationOptions, type SimulationResult, simulate } from './simulate.ts';

// deadline: 400 s
const test = suite('mutations');

/** How each is caught, and from which seed on it is tried (of those that go red a short one). */
const MUTATIONS: Array<[rule: keyof Rules, from: number, options: SimulationOptions]> = [
  ['casBeforeAck', 40, { nodes: 2, only: 'target falls' }],
  ['promoteInSyncOnly', 43, { nodes: 2 }],
  ['newEpoch', 43, { nodes: 2 }],
  ['redirty', 17, { nodes: 3 }],
  ['copyCommitted', 6, { nodes: 2 }],
  ['reconcile', 29, { nodes: 3, only: 'given up' }],
  ['needPromise', 17, { nodes: 2, only: 'isolation' }],
  ['startUpWait', 17, { nodes: 2, only: 'restarts' }],
  ['rightFromSending', 12, { nodes: 2, only: 'late echoes' }],
  ['noPromiseWhileSeeking', 1, { nodes: 2, only: 'late promotion' }],
  ['clearOnAck', 42, { nodes: 2, only: 'target falls' }],
  ['drainCopies', 15, { nodes: 2, only: 'slow source' }],
  ['drainRecords', 30, { nodes: 3, only: 'slow third' }],
  ['targetSuspects', 43, { nodes: 2, only: 'given up' }],
  ['handOver', 23, { nodes: 3, only: 'two absent' }],
  ['readsWait', 27, { nodes: 2 }],
  ['sessionsOnce', 22, { nodes: 2 }],
  ['boundGrants', 42, { nodes: 3 }],
  ['reportSuspects', 2, { nodes: 2, only: 'given up' }],
  ['wholeGroups', 16, { nodes: 2, only: 'half a group' }],
  ['replayWholeGroups', 4, { nodes: 2, only: 'half a group' }],
  // Records and copies of an older stream at the follower; acknowledgments of one at the source.
  ['fenceStreams', 29, { nodes: 3, only: 'old streams' }],
  ['fenceStreams', 37, { nodes: 2, only: 'old answers' }],
  ['suspectAtSettle', 27, { nodes: 2, only: 'back without' }],
  ['suspectAtOpen', 17, { nodes: 2, only: 'given up' }],
  ['voidAtFinish', 43, { nodes: 2 }],
  ['copiesInOrder', 39, { nodes: 2 }],
  ['journalFirst', 43, { nodes: 2 }],
  ['commitFirst', 44, { nodes: 2, only: 'back without' }],
];
/** Rules without a run that notices; see above. */
const DOUBLED: ReadonlyArray<keyof Rules> = ['refuseOldEpoch', 'holdForConfig'];
const SEEDS = 60;

/** What is to be noticed where something lesser may be noticed too. */
const SIGNS: Partial<Record<keyof Rules, RegExp>> = {
  commitFirst: /read .* cannot be/,
  journalFirst: /has spoiled a block/,
  voidAtFinish: /suspect blocks left/,
};

/** What was noticed; null: nothing. */
function noticed(rule: keyof Rules, { wrong, fullCopies }: SimulationResult): string | null {
  if (wrong !== null) return wrong;
  return rule === 'handOver' && fullCopies > 0 ? `${fullCopies} full copies` : null;
}

for (const [rule, from, options] of MUTATIONS) {
  test(`without ${rule} something goes wrong${options.only === undefined ? '' : `: ${options.only}`}`, async () => {
    for (let seed = from; seed < from + SEEDS; seed++) {
      const seen = noticed(rule, await simulate(seed, { ...options, rules: { [rule]: false } }));
      if (seen === null || SIGNS[rule]?.test(seen) === false) continue;
      const sound = noticed(rule, await simulate(seed, options));
      return assert.is(sound, null, `with all rules, seed ${seed}, ${JSON.stringify(options)}: ${sound}`);
    }
    assert.unreachable(`${SEEDS} seeds without ${rule}, and nothing was noticed`);
  });
}

test('each kind of faults has run, with a rule less and with all rules', () => {
  const run = new Set(MUTATIONS.map(([, , { only }]) => only));
  assert.equal(
    Object.keys(SCENARIOS).filter((one) => !run.has(one as Scenario)),
    [],
  );
});

test('each rule is either missed when it is missing, or known to have a double', () => {
  const known = [...new Set([...MUTATIONS.map(([rule]) => rule), ...DOUBLED])].sort();
  assert.equal(known, Object.keys(ALL_RULES).sort());
});

test.run();
