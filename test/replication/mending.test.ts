/** Blocks that rot under a running group: nobody reads them wrong, nobody is refused them, and they are mended. */
import * as assert from 'uvu/assert';
import { suite } from 'uvu';
import { BLOCK_BYTES } from '../../src/base/units.ts';
import { counted, group, onDisk, read, repaired, rot, until, write } from '../support/sim-group.ts';

const test = suite('mending of rotten blocks');

for (const names of [
  ['a', 'b'],
  ['a', 'b', 'c'],
]) {
  test(`the primary reads right, and mends its disk, ${names.length} members`, async () => {
    const all = await group(names);
    const { primary, world } = all;
    for (const block of [7, 9, 10]) rot(primary, block);
    const [one, other] = await Promise.all([read(all, primary, 4, 16), read(all, primary, 9, 1)]);
    assert.equal([one, other], [counted(4, 16), [10]]);
    assert.equal([repaired(primary), onDisk(primary, 7), onDisk(primary, 9), onDisk(primary, 10)], [3, 8, 10, 11]);
    // It is in the journal too: what is mended stays so.
    primary.crash(true);
    await until(world, 'another one serves', () => all.backups.some(({ volume }) => volume !== null), 9000);
    primary.boot();
    await until(world, 'all in sync', () => all.cluster.register.current.inSync.length === names.length, 20_000);
    await until(world, 'it may read', () => primary.backup !== null || primary.volume !== null);
    assert.equal(await read(all, primary, 4, 16), counted(4, 16));
  });
}

test('a backup that meets one gets it from the primary; its reader may ask the primary', async () => {
  const all = await group(['a', 'b']);
  const [backup] = all.backups;
  rot(backup!, 30);
  assert.is(await read(all, backup!, 28, 4), 'CORRUPT_BLOCK');
  await until(all.world, 'mended', () => repaired(backup!) === 1);
  assert.equal(await read(all, backup!, 28, 4), counted(28, 4));
  assert.is(onDisk(backup!, 30), 31);
  assert.is(backup!.replica!.counters.copiedBlocks, 0, 'it counted as reintegration');
});

test('an unaligned write completes its edges with what is right', async () => {
  const all = await group(['a', 'b']);
  const { primary } = all;
  rot(primary, 20);
  rot(primary, 22);
  assert.is(await write(all, 20 * BLOCK_BYTES + 2000, 2 * BLOCK_BYTES, 200), null);
  assert.equal(await read(all, primary, 20, 3), [21, 200, 200]);
  assert.is(onDisk(primary, 20), 21);
  for (const node of all.backups) assert.equal(await read(all, node, 20, 3), [21, 200, 200]);
});

test('what is written over a rotten block meanwhile stays; nothing old comes back', async () => {
  for (let seed = 1; seed <= 30; seed++) {
    const all = await group(['a', 'b'], seed);
    const { primary, backups } = all;
    const [backup] = backups;
    rot(primary, 5);
    rot(backup!, 5);
    rot(backup!, 6);
    const work = [
      read(all, primary, 4, 4),
      read(all, backup!, 5, 2),
      write(all, 5 * BLOCK_BYTES, BLOCK_BYTES, 150),
      write(all, 6 * BLOCK_BYTES + 100, 1, 77),
    ];
    const [first] = await Promise.all(work);
    // Both copies were rotten until it was overwritten: there was nothing to be read before.
    if (typeof first !== 'string') assert.ok([6, 150].includes(first![1] as number));
    else assert.is(first, 'CORRUPT_BLOCK');
    assert.equal(await read(all, primary, 5, 2), [150, 7]);
    await until(all.world, 'mended', () => onDisk(backup!, 6) === 7 && onDisk(backup!, 5) === 150);
    assert.equal(await read(all, backup!, 5, 2), [150, 7]);
  }
});

test('rotten everywhere: an error for that block alone, until it is overwritten', async () => {
  const all = await group(['a', 'b']);
  const { primary, cluster } = all;
  for (const node of cluster.nodes) rot(node, 40);
  assert.is(await read(all, primary, 40, 1), 'CORRUPT_BLOCK');
  assert.equal(await read(all, primary, 41, 4), counted(41, 4));
  assert.is(await write(all, 40 * BLOCK_BYTES, BLOCK_BYTES, 9), null);
  assert.equal(await read(all, primary, 40, 1), [9]);
});

test('a member that falls silent while it is asked holds a read up no longer than until it is out', async () => {
  const all = await group(['a', 'b', 'c']);
  const { primary, backups } = all;
  rot(primary, 3);
  for (const backup of backups) backup.pause(60_000);
  const answer = await new Promise<number[] | string>((resolve) => void read(all, primary, 3, 1).then(resolve));
  assert.is(answer, 'CORRUPT_BLOCK', 'nobody is there to ask');
  assert.equal(await read(all, primary, 4, 1), [5]);
});

test.run();
