/** Sessions that are forgotten: what they did is never taken for new, whatever became of the batches that told of it. */
import * as assert from 'uvu/assert';
import { suite } from 'uvu';
import { KvContent } from '../../src/kv/content.ts';
import type { RequestId, Step } from '../../src/kv/operations.ts';
import type { PrimaryKv } from '../../src/kv/primary-kv.ts';
import { BATCH_HEADER_BYTES, type NewAnswer, encodeBatch, itemBytes } from '../../src/kv/batch.ts';
import type { Run } from '../../src/kv/index-of-keys.ts';
import { MAX_SESSIONS, SessionAnswers } from '../../src/kv/session-answers.ts';
import { KvDisk, openKv } from '../support/kv-disk.ts';
import { Random } from '../support/random.ts';

const test = suite('sessions');

const put = (key: string, lengthBytes: number): Step => {
  return {
    type: 'put',
    key,
    value: new Uint8Array(lengthBytes).fill(7),
    expiry: 'none',
    when: 'always',
    previous: false,
  };
};
const drop = (key: string): Step => ({ type: 'delete', key, previous: false });
const count = (key: string): Step => ({ type: 'add', key, delta: 1n });

/** @returns what was counted up to, or the error's code */
function execute(kv: PrimaryKv, id: RequestId | null, ...steps: Step[]): Promise<string> {
  return new Promise((resolve) =>
    kv.execute({ conditions: [], steps }, id, (error, result) => {
      if (error !== null) return resolve(error.code);
      resolve(Buffer.from(result!.results[0]!.value ?? []).toString());
    }),
  );
}

const idOf = (session: number, request: number, since = 0): RequestId => {
  return { session: BigInt(session), request, floor: request, since };
};

async function after(disk: KvDisk, answer: Promise<string>): Promise<string> {
  await disk.settle();
  return await answer;
}

/** Session 1 counts; then it is forgotten, and what it was answered is erased. */
async function forgotten(disk: KvDisk): Promise<void> {
  const kv = await openKv(disk);
  assert.is(await after(disk, execute(kv, idOf(1, 1), count('n'))), '1');
  const fillers = Array.from({ length: 11 }, (_, i) => `filler ${i}`);
  for (const filler of fillers) await after(disk, execute(kv, null, put(filler, 100_000)));
  await after(disk, execute(kv, idOf(2, 1), put('other', 1)));
  // In the second segment: nothing in the first counts any more. The batch that makes it so is the last one.
  await after(disk, execute(kv, idOf(3, 1), put('other', 1), drop('n'), ...fillers.map(drop)));
  for (let i = 0; i < 5; i++) {
    kv.tick();
    await disk.settle();
  }
  assert.ok(disk.zeroed > 0, 'the first segment is zeroed');
  disk.lose();
}

test('a session that the last batch made forgotten is forgotten after a restart', async () => {
  const disk = new KvDisk(4096, { sessions: 2 });
  await forgotten(disk);
  const kv = await openKv(disk);
  assert.is(await after(disk, execute(kv, idOf(1, 1), count('n'))), 'OUTCOME_UNKNOWN');
});

test('that is because the batch tells it: else the request would be executed twice', async () => {
  const disk = new KvDisk(4096, { sessions: 2, tellForgotten: false });
  await forgotten(disk);
  const kv = await openKv(disk);
  assert.is(await after(disk, execute(kv, idOf(1, 1), count('n'))), '1');
});

test('a request is executed once at most, with few sessions kept, crashes and moved answers', async () => {
  let unknown = 0;
  let repeated = 0;
  for (let seed = 1; seed <= 30; seed++) {
    const random = new Random(seed);
    const disk = new KvDisk(16 * 256, { sessions: 3 });
    let kv = await openKv(disk);
    await disk.backup.build(disk);
    /** Those whose request is not known to be answered. */
    const open = new Map<number, { request: number; since: number; counter: string }>();
    let sessions = 0;
    let requests = 0;
    for (let turn = 0; turn < 120; turn++) {
      if (random.below(12) === 0) {
        disk.lose();
        kv = await openKv(disk);
      }
      if (random.below(3) === 0)
        void execute(kv, null, put(`filler ${random.below(12)}`, 30_000 + random.below(90_000)));
      const again = open.size > 0 && random.below(2) === 0;
      const session = again ? [...open.keys()][random.below(open.size)]! : ++sessions;
      const asked = open.get(session) ?? {
        request: ++requests,
        since: kv.info().version,
        counter: `counter ${requests}`,
      };
      open.set(session, asked);
      const answer = execute(kv, idOf(session, asked.request, asked.since), count(asked.counter));
      for (let step = random.below(6); step > 0; step--) {
        await Promise.resolve();
        disk.turn();
        if (random.below(2) === 0) disk.commit();
        if (random.below(2) === 0) disk.apply(random.below(3));
      }
      if (random.below(3) > 0) continue;
      let answered = false;
      void answer.then(() => (answered = true));
      for (let ticks = 0; !answered && ticks < 50; ticks++) {
        await disk.settle();
        // Room may have to be made first.
        kv.tick();
      }
      assert.ok(answered, `seed ${seed}, turn ${turn}: there is no answer`);
      const said = await answer;
      if (again) repeated++;
      if (said === 'OUTCOME_UNKNOWN') unknown++;
      else assert.is(said, '1', `seed ${seed}, turn ${turn}: session ${session} was answered ${said}`);
      open.delete(session);
      kv.tick();
    }
    await disk.settle();
    const { index } = disk.content;
    for (let request = 1; request <= requests; request++) {
      const cell = index.find(`counter ${request}`);
      const value = cell && cell.run.bytes.toString('latin1', cell.at + 24 + cell.key.length, cell.at + cell.sizeBytes);
      assert.ok(value === null || value === '1', `seed ${seed}: counter ${request} says ${value}`);
    }
    // What follows the blocks knows what is read from them.
    const anew = new KvContent(disk.blocks, disk.rules);
    await anew.build(disk);
    assert.is(index.answers.forgotten, anew.index.answers.forgotten, `seed ${seed}`);
    assert.is(index.liveBytes, anew.index.liveBytes, `seed ${seed}`);
    assert.is(disk.backup.index.liveBytes, anew.index.liveBytes, `seed ${seed}`);
    for (let session = 1; session <= sessions; session++) {
      const known = anew.index.answers.knows(BigInt(session));
      assert.is(disk.backup.index.answers.knows(BigInt(session)), known, `seed ${seed}, session ${session}`);
    }
  }
  assert.ok(unknown > 20 && repeated > 200, `${repeated} were repeated, ${unknown} of all were not known`);
});

test('as long as few enough are there, none is forgotten', async () => {
  const disk = new KvDisk(4096);
  const kv = await openKv(disk);
  const answers = Array.from({ length: MAX_SESSIONS }, (_, i) => execute(kv, idOf(i + 1, 1), count(`n${i}`)));
  await disk.settle();
  await Promise.all(answers);
  assert.is(disk.content.index.answers.forgotten, 0);
  await after(disk, execute(kv, idOf(MAX_SESSIONS + 1, 1), count('one more')));
  await after(disk, execute(kv, idOf(MAX_SESSIONS + 1, 2), count('and again')));
  assert.is(disk.content.index.answers.forgotten, 1);
  assert.not(disk.content.index.answers.knows(1n));
  assert.ok(disk.content.index.answers.knows(2n));
});

test('an answer that arrives when its session is forgotten makes nobody think that he knows the session', () => {
  const counted = new Map<Run, number>();
  const answers = new SessionAnswers((run, bytes) => counted.set(run, (counted.get(run) ?? 0) + bytes), 1);
  const answer: NewAnswer = { kind: 3, session: 1n, request: 2, floor: 1, version: 1, result: new Uint8Array(4) };
  const runOf = (item: NewAnswer): Run => {
    const bytes = Buffer.alloc(BATCH_HEADER_BYTES + itemBytes(item));
    encodeBatch(bytes, 'new', [item], 0);
    return { first: 0, blocks: 1, kind: 'new', entries: 1, bytes };
  };
  const [one, two] = [runOf(answer), runOf({ ...answer, session: 2n, version: 2 })];
  answers.add(two, BATCH_HEADER_BYTES, 44, false);
  answers.forget(1);
  answers.add(one, BATCH_HEADER_BYTES, 44, false);
  assert.equal([counted.get(one), counted.get(two)], [undefined, 44]);
  assert.not(answers.knows(1n));
  assert.is(answers.find(1n, 1, 0), 'lost');
  assert.not(answers.isLive(one, BATCH_HEADER_BYTES));
});

test.run();
