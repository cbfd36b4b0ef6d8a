/** What reads of a replica wait for, where records are applied in another order than they were appended. */
import * as assert from 'uvu/assert';
import { suite } from 'uvu';
import { BLOCK_BYTES } from '../../src/base/units.ts';
import { BATCH_HEADER_BYTES, DELETE, EMPTY, type NewItem, PUT, encodeBatch, itemBytes } from '../../src/kv/batch.ts';
import { type BlockChange, type BlockReader, KvContent } from '../../src/kv/content.ts';

const test = suite('kv content');

const BLOCKS = 2048;
const SEGMENT = 256;
const READER: BlockReader = {
  blocks: BLOCKS,
  holesEnd: (_block, limit) => limit,
  read: (_first, count, done) => queueMicrotask(() => done(null, new Uint8Array(count * BLOCK_BYTES))),
};

/** A batch of one entry of key `k`, or another; null: its deletion. */
function batch(first: number, kind: 'new' | 'moved', version: number, value: string | null, key = 'k'): BlockChange {
  const common = { key, version, expiresAtMs: 0 };
  const item: NewItem =
    value === null
      ? { kind: DELETE, value: EMPTY, ...common }
      : { kind: PUT, value: Buffer.from(value, 'latin1'), ...common };
  const bytes = Buffer.alloc(BLOCK_BYTES);
  encodeBatch(bytes.subarray(0, BATCH_HEADER_BYTES + itemBytes(item)), kind, [item], 0);
  return { first, blocks: 1, bytes };
}

const zeros = (first: number): BlockChange => ({ first, blocks: SEGMENT, bytes: null });

/** With `k` = old in its first segment. */
async function withOld(): Promise<KvContent> {
  const content = new KvContent(BLOCKS);
  await content.build(READER);
  const old = batch(0, 'new', 1, 'old');
  content.appended(old, old);
  content.applied(old, old, true);
  return content;
}

const textOf = ({ index }: KvContent): string | null => {
  const cell = index.find('k');
  return cell && cell.run.bytes.toString('latin1', cell.at + 25, cell.at + cell.sizeBytes);
};

test('a key whose segment is zeroed before the batch is there that it was moved to is waited for', async () => {
  const content = await withOld();
  const [moved, zeroed] = [batch(SEGMENT, 'moved', 1, 'old'), zeros(0)];
  for (const change of [moved, zeroed]) content.appended(change, change);
  const seen: Array<string | null> = [];
  content.whenApplied(['k'], () => seen.push(textOf(content)));
  content.applied(zeroed, zeroed, true);
  content.whenApplied(['k'], () => seen.push(textOf(content)));
  content.whenApplied(null, () => seen.push(textOf(content)));
  assert.equal(seen, []);
  content.applied(moved, moved, true);
  assert.equal(seen, ['old', 'old', 'old']);
  assert.not(content.isBehind(['k']));
});

test('a newer change of a key is waited for also when zeros of where it was are applied first', async () => {
  const content = await withOld();
  const [deleted, moved, zeroed] = [
    batch(SEGMENT, 'new', 2, null),
    batch(SEGMENT + 1, 'moved', 1, 'old'),
    zeros(0),
  ] as const;
  for (const change of [deleted, moved, zeroed]) content.appended(change, change);
  content.applied(moved, moved, true);
  content.applied(zeroed, zeroed, true);
  const seen: Array<string | null> = [];
  content.whenApplied(['k'], () => seen.push(textOf(content)));
  assert.equal(seen, []);
  content.applied(deleted, deleted, true);
  assert.equal(seen, [null]);
});

test('of several keys one moment is seen, in whatever order the changes are applied', async () => {
  const content = await withOld();
  const [before, first, second] = [
    batch(SEGMENT, 'new', 2, 'x', 'other'),
    batch(SEGMENT + 1, 'new', 3, 'one'),
    batch(SEGMENT + 2, 'new', 4, 'two', 'j'),
  ] as const;
  const seen: Array<[k: string | null, j: boolean]> = [];
  const look = (): number => seen.push([textOf(content), content.index.find('j') !== null]);
  content.appended(before, before);
  content.whenApplied(null, look);
  content.appended(first, first);
  content.appended(second, second);
  content.applied(second, second, true);
  // Whose memory it is uses it for something else.
  second.bytes!.fill(0);
  content.applied(before, before, true);
  assert.equal(seen, [['old', false]], 'not the second without the first');
  content.whenApplied(['j'], look);
  content.applied(first, first, true);
  assert.equal(seen[1], ['one', true]);
});

test('what was appended before the keys were read is waited for', async () => {
  const content = new KvContent(BLOCKS);
  const late = batch(0, 'new', 1, 'late');
  content.appended(late, late);
  const built = content.build(READER);
  for (let i = 0; i < 200; i++) await Promise.resolve();
  assert.not(content.valid);
  content.applied(late, late, true);
  assert.ok(await built);
  assert.is(textOf(content), 'late');
});

test('the same when they have to be read once more', async () => {
  const content = await withOld();
  const late = batch(SEGMENT, 'new', 2, 'late');
  content.appended(late, late);
  let woken = false;
  content.whenApplied(['k'], () => (woken = true));
  content.invalidate();
  assert.ok(woken, 'who reads is told');
  const built = content.build(READER);
  for (let i = 0; i < 200; i++) await Promise.resolve();
  assert.not(content.valid);
  content.applied(late, late, true);
  assert.ok(await built);
  assert.is(textOf(content), 'late');
});

test.run();
