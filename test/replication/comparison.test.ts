/** Replicas compared while clients write: no false alarm, nothing left out, and a difference is found. */
import * as assert from 'uvu/assert';
import { suite } from 'uvu';
import { BLOCK_BYTES } from '../../src/base/units.ts';
import { Comparison, type ComparisonProgress } from '../../src/replication/comparison.ts';
import { repairOf } from '../../src/replication/mender.ts';
import type { SimNode } from '../simulation/sim-node.ts';
import { BLOCKS, type Group, group, onDisk, repaired, rot, until, write } from '../support/sim-group.ts';

const test = suite('comparison of replicas');

function compare({ world, primary }: Group, fromBlock = 0, bytesPerSecond = Infinity): Comparison {
  return new Comparison({
    store: primary.store!,
    arena: primary.disk!.arena,
    volume: primary.volume!,
    exchange: primary.replica!.primary!.exchange,
    fromBlock,
    bytesPerSecond,
    now: () => world.nowMs,
    later: (run, ms) => world.after(ms, run),
  });
}

const ended = async ({ world }: Group, { progress }: Comparison): Promise<ComparisonProgress> => {
  await until(world, 'the comparison is over', () => progress.state !== 'running', 60_000);
  return progress;
};

/** Writes to random blocks, one after the other, until it is told to end. */
function keepWriting(all: Group, seed: number): () => Promise<number> {
  let over = false;
  let written = 0;
  let random = seed;
  const work = (async () => {
    while (!over) {
      random = (random * 48_271) % 2_147_483_647;
      const offset = random % ((BLOCKS - 2) * BLOCK_BYTES);
      assert.is(await write(all, offset, 1 + (random % (2 * BLOCK_BYTES)), random & 255), null);
      written++;
    }
    return written;
  })();
  return () => {
    over = true;
    return work;
  };
}

/** As a fault of ours would: the block holds something else, and its checksum is right. */
async function falsify({ world }: Group, node: SimNode, block: number, value: number): Promise<void> {
  const slot = node.disk!.arena.take(1)!;
  slot.payload.fill(value, 0, BLOCK_BYTES);
  const record = repairOf(block, slot);
  node.store!.append(record);
  await world.run(world.nowMs + 50);
  let applied = false;
  node.store!.apply(record, () => (applied = true));
  await until(world, 'it lies there', () => applied);
  node.disk!.arena.release(slot);
}

for (const names of [
  ['a', 'b'],
  ['a', 'b', 'c'],
]) {
  test(`equal replicas are told to be equal under writes, ${names.length} members`, async () => {
    let written = 0;
    for (let seed = 1; seed <= 20; seed++) {
      const all = await group(names, seed);
      const stops = [1, 2, 3].map((n) => keepWriting(all, seed * 10 + n));
      try {
        for (let pass = 0; pass < 3; pass++) {
          const { state, nodes, differentBlocks, doneBytes, totalBytes, throughBlock } = await ended(all, compare(all));
          assert.equal([state, differentBlocks], ['done', 0], `seed ${seed}`);
          assert.is(nodes.length, names.length - 1);
          assert.equal([doneBytes, totalBytes, throughBlock], [BLOCKS * BLOCK_BYTES, BLOCKS * BLOCK_BYTES, BLOCKS]);
        }
      } finally {
        for (const stop of stops) written += await stop();
      }
    }
    assert.ok(written > 300, `${written} writes`);
  });
}

test('what differs is found, and told with its member; a stretch is compared by itself', async () => {
  const all = await group(['a', 'b', 'c']);
  const [one, other] = all.backups;
  await falsify(all, one!, 17, 200);
  await falsify(all, other!, 17, 201);
  await falsify(all, other!, 40, 202);
  const { state, differentBlocks, differences, skippedBlocks } = await ended(all, compare(all, 16));
  assert.equal([state, skippedBlocks], ['done', 0]);
  assert.is(differentBlocks, differences.length);
  const found = differences.map(({ node, block }) => `${node} ${block}`).sort();
  assert.equal(found, [`${one!.name} 17`, `${other!.name} 17`, `${other!.name} 40`].sort());
  assert.is((await ended(all, compare(all, 41))).differentBlocks, 0);
});

test('what has rotted is mended on either side, and is no difference', async () => {
  const all = await group(['a', 'b']);
  rot(all.primary, 9);
  rot(all.backups[0]!, 30);
  rot(all.backups[0]!, 31);
  const { state, differentBlocks, skippedBlocks } = await ended(all, compare(all));
  assert.equal([state, differentBlocks, skippedBlocks], ['done', 0, 0]);
  assert.is(repaired(all.primary), 1);
  assert.equal([onDisk(all.backups[0]!, 30), onDisk(all.backups[0]!, 31)], [31, 32]);
});

test('rotten everywhere: counted as not compared', async () => {
  const all = await group(['a', 'b']);
  for (const node of all.cluster.nodes) rot(node, 12);
  const { state, differentBlocks, skippedBlocks } = await ended(all, compare(all));
  assert.equal([state, differentBlocks, skippedBlocks], ['done', 0, 1]);
});

test('a member that is lost ends it: nothing is called equal that was not looked at', async () => {
  const all = await group(['a', 'b']);
  const comparison = compare(all, 0, 64 * BLOCK_BYTES);
  all.backups[0]!.crash(true);
  const { state, reason, throughBlock } = await ended(all, comparison);
  assert.equal([state, reason], ['ended', `${all.backups[0]!.name} is in sync no longer`]);
  assert.ok(throughBlock < BLOCKS);
  assert.is((await ended(all, compare(all))).reason, 'there is no other replica in sync');
});

test.run();
