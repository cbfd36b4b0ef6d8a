/** What `holdfast status` says of a replica. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { MemberView } from '../../src/cli/cluster-status.ts';
import { detailOf, formatSpan, remedyOf, scrubText, whyOf } from '../../src/cli/status-lines.ts';

const test = suite('status lines');
const MiB = 1024 * 1024;

const member = (change: Partial<MemberView> = {}): MemberView => ({
  node: 'b',
  role: 'backup',
  state: 'in-sync',
  mode: null,
  keys: null,
  last: '1.5',
  dirtyBytes: null,
  sync: null,
  waits: null,
  reason: null,
  remedy: null,
  scrub: null,
  repairedBlocks: 0,
  ...change,
});
const sync = { phase: 'copy', pass: 1, copiedBytes: 0, leftBytes: 200 * MiB, bytesPerSecond: MiB };

test('spans', () => {
  assert.equal([0, 1, 59_000, 200_000, 7_500_000].map(formatSpan), ['0 s', '1 s', '59 s', '3 min 20 s', '2 h 5 min']);
});

test('a reintegration says until when, in its line and in the first one', () => {
  const syncing = member({ state: 'syncing', sync });
  assert.is(detailOf(syncing), 'copy, pass 1, 200 MiB left, 1 MiB/s, 3 min 20 s left');
  assert.is(whyOf(syncing), 'b is syncing, about 3 min 20 s left');
  const still = member({ state: 'syncing', sync: { ...sync, bytesPerSecond: 0 } });
  assert.is(detailOf(still), 'copy, pass 1, 200 MiB left, 0 B/s');
  assert.is(whyOf(still), 'b is syncing');
});

test('scrub and what was repaired', () => {
  const counts = { passes: 2, doneBytes: 43, totalBytes: 100, foundBlocks: 0, lastFoundBlocks: 0, bytesPerSecond: 9 };
  const scrub = { ...counts, measuredBytesPerSecond: null };
  assert.is(detailOf(member({ scrub })), 'scrub 43 % of pass 3');
  const measured = { ...scrub, measuredBytesPerSecond: 2 * MiB };
  assert.is(detailOf(member({ scrub: measured })), 'scrub 43 % of pass 3 at 2 MiB/s');
  assert.is(scrubText({ scrub, repairedBlocks: 1 }), 'scrub 43 % of pass 3, 1 block repaired');
  assert.is(
    detailOf(member({ scrub: { ...scrub, foundBlocks: 2 }, repairedBlocks: 3 })),
    'scrub 43 % of pass 3, 2 bad blocks met in it, 3 blocks repaired',
  );
  assert.is(detailOf(member()), '');
});

test('a bad replica names the command, where another one is in sync, and while it is not being copied', () => {
  const bad = member({ state: 'poisoned' });
  const good = member({ node: 'a' });
  assert.is(remedyOf('vm1', bad, [good, bad]), 'holdfast volume replace vm1 b');
  assert.is(remedyOf('vm1', bad, [member({ node: 'a', state: 'stale' }), bad]), null);
  assert.is(remedyOf('vm1', member({ state: 'damaged', sync }), [good]), null);
  assert.is(remedyOf('vm1', member({ state: 'stale' }), [good]), null);
  const shown = member({ state: 'poisoned', reason: 'fdatasync failed', remedy: 'holdfast volume replace vm1 b' });
  assert.is(detailOf(shown), 'fdatasync failed. to replace it: holdfast volume replace vm1 b');
});

test.run();
