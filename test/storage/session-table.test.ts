/** The session table: windows, floors, eviction, and what it says when it no longer knows. */
import fc from 'fast-check';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { Position } from '../../src/base/position.ts';
import { MAX_SESSIONS, PAGE_BODY_BYTES, SESSION_PAGES, SESSION_WINDOW } from '../../src/storage/layout.ts';
import { SessionTable } from '../../src/storage/session-table.ts';

const W = SESSION_WINDOW;
const at = (seq: number, epoch = 1): Position => ({ epoch, seq });

const windows = suite('session table: window');

windows('one window as a set with a floor', () => {
  const request = fc.oneof(
    fc.integer({ min: 1, max: 40 }),
    fc.tuple(fc.integer({ min: 0, max: 5 }), fc.integer({ min: -33, max: 33 })).map(([n, d]) => Math.max(1, n * W + d)),
    fc.integer({ min: 1, max: 6 * W }),
  );
  fc.assert(
    fc.property(fc.array(request, { maxLength: 60 }), fc.array(request, { maxLength: 20 }), (noted, asked) => {
      const table = new SessionTable();
      const seen = new Set<number>();
      let highest = 0;
      noted.forEach((n, i) => {
        table.note(7n, n, at(i + 1));
        seen.add(n);
        highest = Math.max(highest, n);
      });
      const floor = Math.max(0, highest - W);
      for (const n of [...noted, ...asked, floor, floor + 1, highest, highest + 1]) {
        if (n < 1) continue;
        const expected = n <= floor ? 'unknown' : seen.has(n) ? 'done' : 'new';
        assert.is(table.lookUp(7n, n), noted.length === 0 ? 'new' : expected, `request ${n}, floor ${floor}`);
      }
    }),
    { numRuns: 500 },
  );
});

windows('edges: the window is exactly 1 024 requests wide', () => {
  const table = new SessionTable();
  table.note(1n, 1, at(1));
  table.note(1n, W, at(2));
  assert.is(table.lookUp(1n, 1), 'done');
  assert.is(table.lookUp(1n, 2), 'new');
  assert.is(table.lookUp(1n, W + 1), 'new', 'above the window nothing was ever done');
  table.note(1n, W + 1, at(3));
  assert.is(table.lookUp(1n, 1), 'unknown', 'below the floor it cannot know');
  assert.is(table.lookUp(1n, 2), 'new');
  assert.is(table.lookUp(1n, W), 'done');
  table.note(1n, 2 * W + 1, at(4));
  assert.is(table.lookUp(1n, W + 1), 'unknown');
  assert.is(table.lookUp(1n, W + 2), 'new');
  assert.is(table.lookUp(1n, 2 * W + 1), 'done');
});

windows('a jump over more than a window leaves nothing of the old one', () => {
  for (const jump of [2 * W, 2 * W + 1, 10 * W + 5, 2 ** 40 + 3]) {
    const table = new SessionTable();
    for (let n = 1; n <= W; n++) table.note(1n, n, at(n));
    table.note(1n, jump, at(2 * W));
    for (let n = jump - W + 1; n < jump; n++) assert.is(table.lookUp(1n, n), 'new', `${n} after ${jump}`);
    assert.is(table.lookUp(1n, jump), 'done');
    assert.is(table.lookUp(1n, jump - W), 'unknown');
  }
});

windows('noting again, or what is below the floor, changes nothing', () => {
  const table = new SessionTable();
  table.note(1n, 5, at(1));
  table.note(1n, 3 * W, at(2));
  const before = table.encode();
  table.note(1n, 5, at(2));
  table.note(1n, 3 * W, at(2));
  assert.equal(table.encode(), before);
});

windows('sessions do not see each other; session 0 is none', () => {
  const table = new SessionTable();
  table.note(1n, 9, at(1));
  table.note(2n ** 64n - 1n, 9, at(2));
  table.note(0n, 9, at(3));
  assert.is(table.size, 2);
  assert.is(table.lookUp(2n, 9), 'new');
  assert.is(table.lookUp(2n ** 64n - 1n, 9), 'done');
});
windows.run();

const eviction = suite('session table: eviction');

/** Sessions 1..count, each with request 1 at position seq = its number. */
function filled(count: number): SessionTable {
  const table = new SessionTable();
  for (let n = 1; n <= count; n++) table.note(BigInt(n), 1, at(n));
  return table;
}

eviction('the session whose last record is oldest is forgotten', () => {
  const table = filled(MAX_SESSIONS);
  table.note(1n, 2, at(2000));
  table.note(9999n, 1, at(2001));
  assert.is(table.size, MAX_SESSIONS);
  assert.is(table.lookUp(1n, 1), 'done', 'it was used again, so it stays');
  assert.is(table.lookUp(2n, 1), 'new', 'the oldest is gone');
  assert.is(table.lookUp(3n, 1), 'done');
});

eviction('vouches only for those that cannot be among the forgotten', () => {
  const table = filled(MAX_SESSIONS);
  assert.ok(table.vouchesFor(777777n, at(0, 0)), 'nothing is forgotten yet, so an absent session did nothing');
  table.note(8001n, 1, at(3000));
  table.note(8002n, 1, at(3001));
  // Sessions 1 and 2 are forgotten: their last records are at 1 and 2.
  assert.not.ok(table.vouchesFor(1n, at(0, 0)));
  assert.not.ok(table.vouchesFor(777777n, at(1)));
  assert.ok(table.vouchesFor(777777n, at(2)), 'it came after the last act of all who are forgotten');
  assert.ok(table.vouchesFor(777777n, at(0, 2)), 'a later epoch is later whatever its seq');
  assert.not.ok(table.vouchesFor(777777n, at(5000, 0)), 'an earlier epoch is earlier whatever its seq');
  assert.ok(table.vouchesFor(3n, at(0, 0)), 'whoever is in the table is known');
});

eviction('forgetting never moves the mark back', () => {
  const table = new SessionTable();
  table.note(1n, 1, at(500));
  for (let n = 2; n <= MAX_SESSIONS + 1; n++) table.note(BigInt(n), 1, at(n));
  table.note(5000n, 1, at(3000));
  assert.not.ok(table.vouchesFor(70_077n, at(499)));
  assert.ok(table.vouchesFor(70_077n, at(500)));
});
eviction.run();

const pages = suite('session table: pages');

const padded = (list: Uint8Array[]): Uint8Array[] =>
  list.map((bytes) => {
    // As MetaPages hands it out: inside a page, at byte 32.
    const page = new Uint8Array(new ArrayBuffer(4096), 32, PAGE_BODY_BYTES);
    page.set(bytes);
    return page;
  });

pages('round trip with any number of sessions', () => {
  for (const count of [0, 1, 21, 22, 23, 44, 45, MAX_SESSIONS - 1, MAX_SESSIONS]) {
    const table = filled(count);
    if (count > 0) table.note(1n, 3 * W + 5, at(10_000));
    const bodies = table.encode();
    assert.is(bodies.length, Math.max(1, Math.ceil(count / 22)), `${count} sessions`);
    assert.ok(bodies.length <= SESSION_PAGES && bodies.every((b) => b.length === PAGE_BODY_BYTES));
    const back = SessionTable.decode(padded(bodies), at(99_999, 9));
    assert.is(back.size, count);
    for (let n = 2; n <= count; n++) {
      assert.is(back.lookUp(BigInt(n), 1), 'done');
      assert.is(back.lookUp(BigInt(n), 2), 'new');
    }
    if (count > 0) {
      assert.is(back.lookUp(1n, 3 * W + 5), 'done');
      assert.is(back.lookUp(1n, 2 * W + 5), 'unknown');
    }
    assert.equal(back.encode(), bodies, 'encoding again gives the same bytes');
    assert.ok(back.vouchesFor(123456n, at(0, 0)));
  }
});

pages('order and mark survive: the same session is forgotten next', () => {
  const table = filled(MAX_SESSIONS);
  table.note(1n, 2, at(5000));
  table.note(9001n, 1, at(5001));
  const back = SessionTable.decode(padded(table.encode()), at(1, 9));
  assert.not.ok(back.vouchesFor(2n, at(1)));
  assert.ok(back.vouchesFor(2n, at(2)));
  for (const t of [table, back]) t.note(9002n, 1, at(5002));
  assert.equal(back.encode(), table.encode());
  assert.is(back.lookUp(3n, 1), 'new');
  assert.is(back.lookUp(1n, 2), 'done');
});

pages('every page that counts is needed: without it nothing is known up to the position', () => {
  const bodies = padded(filled(60).encode());
  assert.is(bodies.length, 3);
  const whole = SessionTable.decode(bodies, at(60));
  assert.is(whole.size, 60);
  const broken: Array<Array<Uint8Array | null>> = [
    [null, bodies[1]!, bodies[2]!],
    [bodies[0]!, null, bodies[2]!],
    [bodies[0]!, bodies[1]!, null],
    [bodies[0]!, bodies[1]!],
  ];
  for (const list of broken) {
    const table = SessionTable.decode(list, at(60));
    assert.is(table.size, 0);
    assert.not.ok(table.vouchesFor(1n, at(59)));
    assert.not.ok(table.vouchesFor(777n, at(0, 0)));
    assert.ok(table.vouchesFor(777n, at(60)), 'who came later did nothing before');
  }
});

pages('pages of a larger table that lie behind are not read', () => {
  const small = padded(filled(3).encode());
  const stale = padded(filled(60).encode());
  const table = SessionTable.decode([small[0]!, stale[1]!, null], at(60));
  assert.is(table.size, 3);
  assert.ok(table.vouchesFor(999n, at(0, 0)));
});

pages('no pages at all: a new volume, nothing is forgotten', () => {
  const table = SessionTable.decode([], at(60));
  assert.is(table.size, 0);
  assert.ok(table.vouchesFor(1n, at(0, 0)));
});
pages.run();
