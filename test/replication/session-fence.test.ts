/** Sessions and generations: who may act, and what whoever attaches may rely on. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { HoldfastError } from '../../src/base/errors.ts';
import { type Position, comparePositions } from '../../src/base/position.ts';
import type { Attachment } from '../../src/replication/served-volume.ts';
import { SessionFence, type SessionSource, type FencedAttachment } from '../../src/replication/session-fence.ts';
import { turns } from '../support/unit-tools.ts';

/** A store that is told what to say. */
class Source implements SessionSource {
  readonly name = 'v';
  settledPosition: Position = { epoch: 1, seq: 0 };
  failed: HoldfastError | null = null;
  readonly done = new Set<string>();
  floor = 0;
  forgottenUpTo: Position = { epoch: 0, seq: 0 };
  readonly sessions = {
    lookUp: (session: bigint, request: number): 'done' | 'new' | 'unknown' =>
      request <= this.floor ? 'unknown' : this.done.has(`${session}/${request}`) ? 'done' : 'new',
    vouchesFor: (_session: bigint, since: Position): boolean => comparePositions(since, this.forgottenUpTo) >= 0,
  };
}

interface Attempt {
  error: HoldfastError | null;
  attachment: Attachment | null;
  answers: number;
  revoked: number;
}

/** Attaches and keeps what was heard of it. */
function attach(fence: SessionFence, session: bigint, generation: number, since: Position | null = null): Attempt {
  const attempt: Attempt = { error: null, attachment: null, answers: 0, revoked: 0 };
  let returned = false;
  fence.attach(
    session,
    generation,
    since,
    () => void attempt.revoked++,
    (error, attachment) => {
      assert.ok(returned, 'never answered before the call returns');
      Object.assign(attempt, { error, attachment });
      attempt.answers++;
    },
  );
  returned = true;
  return attempt;
}

/** The session's record was appended at that position. */
const wrote = (attempt: Attempt, seq: number): void => {
  (attempt.attachment as FencedAttachment).last = { epoch: 1, seq };
};

const fences = suite('session fence');

fences('a first attach is answered with an attachment of its session and generation', async () => {
  const fence = new SessionFence(new Source());
  const a = attach(fence, 5n, 1);
  await turns(1);
  assert.is(a.answers, 1);
  assert.is(a.error, null);
  assert.is(a.attachment!.session, 5n);
  assert.is(a.attachment!.generation, 1);
  assert.not.ok(fence.isRevoked(a.attachment!));
  assert.is(fence.lookUp(a.attachment, 1), 'new');
});

fences('a newer generation revokes the older at once; the older one is told once and acts no more', async () => {
  const source = new Source();
  const fence = new SessionFence(source);
  const a = attach(fence, 5n, 1);
  await turns(1);
  const b = attach(fence, 5n, 2);
  assert.is(a.revoked, 1, 'before the newer one is answered');
  assert.is((fence.lookUp(a.attachment, 1) as HoldfastError).code, 'STALE_GENERATION');
  source.done.add('5/1');
  assert.is((fence.lookUp(a.attachment, 1) as HoldfastError).code, 'STALE_GENERATION', 'not even what was done');
  await turns(1);
  assert.is(b.error, null);
  assert.is(fence.lookUp(b.attachment, 1), null, 'what was done is answered');
  fence.detach(a.attachment!);
  assert.not.ok(fence.isRevoked(b.attachment!), 'the end of the older connection touches nobody');
  assert.is(a.revoked, 1);
});

fences('equal and lower generations are refused, also after the connection ended', async () => {
  const fence = new SessionFence(new Source());
  const a = attach(fence, 5n, 3);
  await turns(1);
  for (const generation of [3, 2, 0, -1]) {
    const b = attach(fence, 5n, generation);
    await turns(1);
    assert.is(b.error!.code, 'STALE_GENERATION');
    assert.is(b.attachment, null);
  }
  assert.is(a.revoked, 0);
  fence.detach(a.attachment!);
  const late = attach(fence, 5n, 3);
  await turns(1);
  assert.is(late.error!.code, 'STALE_GENERATION');
  const next = attach(fence, 5n, 4);
  await turns(1);
  assert.is(next.error, null);
  assert.is(a.revoked, 0, 'whoever left is not told');
});

fences('an attach waits until what the older one appended is settled', async () => {
  const source = new Source();
  const fence = new SessionFence(source);
  const a = attach(fence, 5n, 1);
  await turns(1);
  wrote(a, 10);
  const b = attach(fence, 5n, 2);
  await turns(3);
  assert.is(b.answers, 0);
  source.settledPosition = { epoch: 1, seq: 9 };
  fence.settled();
  await turns(1);
  assert.is(b.answers, 0, 'one record short');
  source.settledPosition = { epoch: 1, seq: 10 };
  fence.settled();
  await turns(1);
  assert.is(b.answers, 1);
  assert.is(b.error, null);
  fence.settled();
  assert.is(b.answers, 1, 'once');
});

fences('also after the older connection has ended, and over two takeovers in a row', async () => {
  const source = new Source();
  const fence = new SessionFence(source);
  const a = attach(fence, 5n, 1);
  await turns(1);
  wrote(a, 10);
  fence.detach(a.attachment!);
  const b = attach(fence, 5n, 2);
  const c = attach(fence, 5n, 3);
  await turns(3);
  assert.equal([b.answers, c.answers], [0, 0]);
  source.settledPosition = { epoch: 1, seq: 10 };
  fence.settled();
  await turns(1);
  assert.is(b.error!.code, 'STALE_GENERATION', 'it was overtaken while it waited');
  assert.is(c.error, null);
  assert.equal([b.answers, c.answers], [1, 1]);
});

fences('waiting sessions go on one by one as the position moves', async () => {
  const source = new Source();
  const fence = new SessionFence(source);
  const older = [1n, 2n, 3n].map((session) => attach(fence, session, 1));
  await turns(1);
  older.forEach((attempt, i) => wrote(attempt, 10 * (i + 1)));
  const newer = [1n, 2n, 3n].map((session) => attach(fence, session, 2));
  for (let n = 1; n <= 3; n++) {
    source.settledPosition = { epoch: 1, seq: 10 * n };
    fence.settled();
    await turns(1);
    assert.is(newer.filter((attempt) => attempt.answers === 1).length, n);
  }
});

fences('where the table no longer vouches, the outcome is unknown and nobody is attached', async () => {
  const source = new Source();
  const fence = new SessionFence(source);
  source.forgottenUpTo = { epoch: 1, seq: 100 };
  const lost = attach(fence, 5n, 1, { epoch: 1, seq: 99 });
  const known = attach(fence, 6n, 1, { epoch: 1, seq: 100 });
  const fresh = attach(fence, 7n, 1, null);
  await turns(1);
  assert.is(lost.error!.code, 'OUTCOME_UNKNOWN');
  assert.is(lost.attachment, null);
  assert.equal([known.error, fresh.error], [null, null]);
});

fences('what the table forgets while an attach waits counts too', async () => {
  const source = new Source();
  const fence = new SessionFence(source);
  const a = attach(fence, 5n, 1, { epoch: 1, seq: 0 });
  await turns(1);
  wrote(a, 10);
  const b = attach(fence, 5n, 2, { epoch: 1, seq: 0 });
  source.forgottenUpTo = { epoch: 1, seq: 10 };
  source.settledPosition = { epoch: 1, seq: 10 };
  fence.settled();
  await turns(1);
  assert.is(b.error!.code, 'OUTCOME_UNKNOWN');
});

fences('a store that has failed attaches nobody', async () => {
  const source = new Source();
  const fence = new SessionFence(source);
  source.failed = new HoldfastError('POISONED');
  const a = attach(fence, 5n, 1);
  await turns(1);
  assert.is(a.error!.code, 'POISONED');
});

fences('session 0 is no session', async () => {
  const fence = new SessionFence(new Source());
  const a = attach(fence, 0n, 1);
  await turns(1);
  assert.is(a.error!.code, 'INVALID_ARGUMENT');
});

fences('requests: new, done, below the window, and numbers that are none', async () => {
  const source = new Source();
  const fence = new SessionFence(source);
  assert.is(fence.lookUp(null, 0), 'new', 'without a session there is nothing to look up');
  const attempt = attach(fence, 5n, 1);
  await turns(1);
  const { attachment } = attempt;
  source.done.add('5/8');
  source.floor = 3;
  assert.is(fence.lookUp(attachment, 9), 'new');
  assert.is(fence.lookUp(attachment, 8), null);
  assert.is((fence.lookUp(attachment, 3) as HoldfastError).code, 'OUTCOME_UNKNOWN');
  for (const request of [0, -1]) {
    assert.is((fence.lookUp(attachment, request) as HoldfastError).code, 'INVALID_ARGUMENT');
  }
});

fences('the number of attached sessions is bounded; a takeover needs no new place', async () => {
  const fence = new SessionFence(new Source());
  const all = Array.from({ length: 4096 }, (_, i) => attach(fence, BigInt(i + 1), 1));
  await turns(1);
  assert.ok(all.every((attempt) => attempt.error === null));
  const more = attach(fence, 5000n, 1);
  const takeover = attach(fence, 7n, 2);
  await turns(1);
  assert.is(more.error!.code, 'TOO_MANY');
  assert.is(takeover.error, null);
  fence.detach(all[0]!.attachment!);
  const again = attach(fence, 5000n, 1);
  await turns(1);
  assert.is(again.error, null);
});

fences('generations of sessions without a connection are remembered, the oldest are let go', async () => {
  const fence = new SessionFence(new Source());
  const first = attach(fence, 1n, 9);
  await turns(1);
  fence.detach(first.attachment!);
  for (let n = 2; n <= 4096; n++) {
    const attempt = attach(fence, BigInt(n), 9);
    await turns(1);
    fence.detach(attempt.attachment!);
  }
  const stale = attach(fence, 1n, 9);
  await turns(1);
  assert.is(stale.error!.code, 'STALE_GENERATION');
  const one = attach(fence, 99_999n, 9);
  await turns(1);
  fence.detach(one.attachment!);
  const forgotten = attach(fence, 1n, 9);
  await turns(1);
  assert.is(forgotten.error, null);
});
fences.run();
