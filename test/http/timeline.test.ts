/** A node's timeline: its bounds, what gets into it from the log, and the phases of a failover. */
import * as assert from 'uvu/assert';
import { suite } from 'uvu';
import { SharedLook } from '../../src/http/shared-look.ts';
import { Happenings, KINDS } from '../../src/node/happenings.ts';
import { KEPT, Timeline } from '../../src/node/timeline.ts';
import { toldEvents } from '../../src/node/told-events.ts';

const test = suite('timeline');

test('the newest are kept, numbered, and told page by page', () => {
  const timeline = new Timeline('a', () => 7);
  const heard: number[] = [];
  const end = timeline.listen(({ id }) => heard.push(id));
  for (let i = 1; i <= KEPT + 500; i++)
    timeline.add('disk', 'isolated', 'x'.repeat(1000), { i, reason: 'y'.repeat(i) });
  end();
  timeline.add('', 'node-started', 'not heard');
  assert.is(heard.length, KEPT + 500);
  const all = timeline.after(0);
  assert.is(all.length, KEPT);
  assert.equal([all[0]!.id, all.at(-1)!.id, timeline.newest], [502, 1501, 1501]);
  assert.is(all[0]!.text.length, 300);
  assert.equal(all.at(-2)!.fields, { cut: true });
  assert.equal(
    timeline.after(1499, 1).map(({ id }) => id),
    [1500],
  );
  assert.equal(timeline.after(1501), []);
  assert.equal(timeline.after(9999), []);
  assert.equal(
    timeline.counts().map(({ kind, count }) => [kind, count]),
    [
      ['isolated', KEPT + 500],
      ['node-started', 1],
    ],
  );
  const found: number[] = [];
  for (let after = 0, pages = 0; after < timeline.newest; pages++) {
    const told = toldEvents({ node: 'a', bootId: 'b', timeline }, after);
    assert.ok(JSON.stringify(told).length < 64 * 1024 && pages < 100);
    found.push(...told.events.map(({ id }) => id));
    after = told.events.at(-1)!.id;
  }
  assert.equal(
    found,
    all.map(({ id }) => id),
  );
});

/** What the log of a replica says, at a time. */
function story(lines: Array<[number, string, object]>): Array<Record<string, unknown>> {
  const timeline = new Timeline('b');
  let nowMs = 0;
  const happenings = new Happenings(timeline, () => nowMs);
  for (const [atMs, message, fields] of lines) {
    nowMs = atMs;
    happenings.note(message, { volume: 'disk', ...fields });
  }
  for (const { kind } of timeline.after(0)) assert.ok((KINDS as readonly string[]).includes(kind), kind);
  return timeline
    .after(0)
    .filter(({ kind }) => kind === 'failover')
    .map(({ fields }) => fields);
}

const seek = (was: string, silentMs: number): object => ({ epoch: 2, version: 5, inSync: ['b'], was, silentMs });

test('a primary dies: its stream ends at once', () => {
  const [failover, ...others] = story([
    [1000, 'a stream ended', { node: 'a', reason: 'it is gone' }],
    [1000, 'a stream ended', { node: 'c', reason: 'it is gone' }],
    [1400, 'seeking promotion', seek('a', 450)],
    [1450, 'promotion is won', { epoch: 2 }],
    [1530, 'the epoch is open', { epoch: 2, inSync: ['b'] }],
  ]);
  const phases = { lastHeardMs: 50, suspectedMs: 400, registerMs: 50, openMs: 80, total: 580 };
  assert.equal(failover, { epoch: 2, from: 'a', resigned: false, phases });
  assert.equal(others, []);
});

test('a primary is silent: the follower ends the stream; the first attempt has no answer', () => {
  const [failover] = story([
    [1800, 'the stream of the primary ends', { from: 'a', reason: 'nothing was heard for 800 ms' }],
    [1801, 'a stream ended', { node: 'a', reason: 'closed' }],
    [1850, 'seeking promotion', seek('a', 850)],
    [2350, 'seeking promotion', seek('a', 1350)],
    [2400, 'promotion is won', { epoch: 2 }],
    [2500, 'the epoch is open', { epoch: 2, inSync: ['b'] }],
  ]);
  const phases = { lastHeardMs: 800, suspectedMs: 50, registerMs: 550, openMs: 100, total: 1500 };
  assert.equal(failover!['phases'], phases);
});

test('a primary resigns; a first start is no failover; an attempt of long ago is none of this one', () => {
  const [handed, ...more] = story([
    [100, 'seeking promotion', seek('', 100)],
    [110, 'promotion is won', {}],
    [120, 'the epoch is open', { epoch: 1, inSync: ['a', 'b'] }],
    [130, 'the tenure is over', { epoch: 1, reason: 'a later epoch' }],
    [1000, 'the stream of the primary ends', { from: 'a', reason: 'it has resigned' }],
    [1005, 'seeking promotion', seek('a', Infinity)],
    [1015, 'promotion is won', {}],
    [1035, 'the epoch is open', { epoch: 3, inSync: ['b'] }],
    [2000, 'the tenure is over', { epoch: 3, reason: 'a later epoch' }],
    // It was asked for, and somebody else won; much later that one is lost.
    [3000, 'seeking promotion', seek('c', 800)],
    [9000, 'a stream ended', { node: 'c', reason: 'it is gone' }],
    [9300, 'seeking promotion', seek('c', 310)],
    [9310, 'promotion is won', {}],
    [9320, 'the epoch is open', { epoch: 5, inSync: ['b'] }],
  ]);
  const phases = { lastHeardMs: null, suspectedMs: 5, registerMs: 10, openMs: 20, total: 35 };
  assert.equal(handed, { epoch: 3, from: 'a', resigned: true, phases });
  const later = { lastHeardMs: 10, suspectedMs: 300, registerMs: 10, openMs: 10, total: 330 };
  assert.equal(
    more.map((one) => one['phases']),
    [later],
  );
});

test('all who ask at the same time share one look; one that fails is told', async () => {
  let looks = 0;
  let settle: Array<{ resolve: (view: object) => void; reject: (error: Error) => void }> = [];
  const look = new SharedLook(() => {
    looks++;
    return new Promise((resolve, reject) => settle.push({ resolve, reject }));
  }, 0);
  const asked = [look.get(), look.get(), look.get()];
  assert.is(looks, 1);
  settle[0]!.resolve({ verdict: 'safe' });
  const got = await Promise.all(asked);
  assert.ok(got.every((one) => 'view' in one && one === got[0]));
  const next = look.get();
  assert.is(looks, 2);
  settle[1]!.reject(new Error('gone'));
  const failed = await next;
  assert.ok('error' in failed && failed.error.includes('gone'));
  settle = [];
  const seldom = new SharedLook(async () => ({ n: ++looks }), 1e9);
  const [first, second] = [await seldom.get(), await seldom.get()];
  assert.is(first, second);
});

test.run();
