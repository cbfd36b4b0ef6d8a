/** Sessions that are forgotten: what a batch says of it holds when its answers are known. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { NewAnswer } from '../../src/kv/batch.ts';
import type { Run } from '../../src/kv/index-of-keys.ts';
import { MAX_SESSIONS, SessionAnswers } from '../../src/kv/session-answers.ts';
import { Random } from '../support/random.ts';

const test = suite('answers of sessions');
const RUN = {} as Run;

function answerOf(session: bigint, version: number): NewAnswer {
  return { session, request: version, floor: version, version } as NewAnswer;
}

test('a batch foretells what is forgotten through it, and no more than what was there before', () => {
  const random = new Random(5);
  const answers = new SessionAnswers();
  let version = 0;
  let session = 0;
  let forgotten = 0;
  while (session < MAX_SESSIONS + 2000) {
    const count = 1 + random.below(40);
    const newest = version;
    const foretold = answers.forgottenAfter(count);
    assert.ok(foretold <= newest, `${foretold} of ${newest}`);
    for (let i = 0; i < count; i++) {
      // Some are of sessions that are there, the old ones too.
      const again = session > 10 && random.below(3) === 0;
      answers.add(answerOf(BigInt(again ? 1 + random.below(session) : ++session), ++version), RUN, 100);
    }
    answers.forgetOldest();
    assert.ok(answers.forgotten <= foretold, `${answers.forgotten} were forgotten, ${foretold} foretold`);
    forgotten = answers.forgotten;
  }
  assert.ok(forgotten > 1000);
});

test('as long as there is room nothing is foretold', () => {
  const answers = new SessionAnswers();
  for (let n = 1; n <= MAX_SESSIONS - 100; n++) answers.add(answerOf(BigInt(n), n), RUN, 100);
  assert.is(answers.forgottenAfter(50), 0);
  assert.is(answers.forgottenAfter(51), 2);
});

test.run();
