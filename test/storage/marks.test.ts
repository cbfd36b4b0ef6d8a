/** Marks: every block that was written behind one is in it, whatever crashes, and checkpoints, come in between. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { HoldfastError } from '../../src/base/errors.ts';
import { BLOCK_BYTES } from '../../src/base/units.ts';
import { MAX_MARKS, decodeMarkChange, type MarkChange } from '../../src/storage/marks.ts';
import type { PrimaryVolume } from '../../src/replication/primary-volume.ts';
import { Random } from '../support/random.ts';
import { SMALL, formatted, newArena, opened, reborn } from '../support/store-harness.ts';
import { type Image, crashImage } from '../support/simulated-disk.ts';

const test = suite('marks');
const BLOCKS = SMALL.sizeBytes / BLOCK_BYTES;

function change(volume: PrimaryVolume, action: MarkChange['action'], name: string): Promise<void> {
  return new Promise((resolve, reject) =>
    volume.mark(null, 0, { action, name }, (error) => (error === null ? resolve() : reject(error))),
  );
}

const codeOf = (work: Promise<void>): Promise<string> =>
  work.then(
    () => 'done',
    (error: HoldfastError) => error.code,
  );

const copyOf = (image: Image): Image => ({
  data: image.data.slice(),
  journal: image.journal.slice(),
  meta: image.meta.slice(),
});

/** Blocks that a mark counts as changed. */
function changed(volume: PrimaryVolume, name: string): Set<number> {
  const blocks = new Set<number>();
  for (const run of volume.changes(name, 0, SMALL.sizeBytes, 100_000)) {
    if (!run.changed) continue;
    for (let at = run.offsetBytes; at < run.offsetBytes + run.lengthBytes; at += BLOCK_BYTES)
      blocks.add(at / BLOCK_BYTES);
  }
  return blocks;
}

test('what is written behind a mark is in it, what was written before is not', async () => {
  const o = await opened(await formatted());
  const { device, volume } = o;
  await device.write(0, new Uint8Array(3 * BLOCK_BYTES).fill(1));
  await change(volume, 'set', 'monday');
  assert.equal([...changed(volume, 'monday')], []);
  await device.write(5 * BLOCK_BYTES, new Uint8Array(BLOCK_BYTES).fill(2));
  await device.write(9 * BLOCK_BYTES - 1, new Uint8Array(2).fill(3));
  await device.zero(20 * BLOCK_BYTES, 2 * BLOCK_BYTES);
  await change(volume, 'set', 'tuesday');
  await device.trim(0, BLOCK_BYTES);
  assert.equal([...changed(volume, 'monday')], [0, 5, 8, 9, 20, 21]);
  assert.equal([...changed(volume, 'tuesday')], [0]);
  assert.equal(
    volume.marks().map(({ name, dirtyBlocks }) => [name, dirtyBlocks]),
    [
      ['monday', 6],
      ['tuesday', 1],
    ],
  );
  // Clipped to what was asked, and in pieces.
  assert.equal(volume.changes('monday', 5 * BLOCK_BYTES + 10, BLOCK_BYTES, 10), [
    { offsetBytes: 5 * BLOCK_BYTES + 10, lengthBytes: BLOCK_BYTES - 10, changed: true },
    { offsetBytes: 6 * BLOCK_BYTES, lengthBytes: 10, changed: false },
  ]);
  assert.is(volume.changes('monday', 0, SMALL.sizeBytes, 2).length, 2);
  assert.equal(volume.changes('never set', 0, 8192, 9), [{ offsetBytes: 0, lengthBytes: 8192, changed: true }]);
  await o.close();
});

test('names, doubles and the limit are refused without effect', async () => {
  const o = await opened(await formatted());
  const { volume } = o;
  await change(volume, 'set', 'm0');
  assert.is(await codeOf(change(volume, 'set', 'm0')), 'EXISTS');
  // Twice at once: the second finds the first, which is not durable yet.
  const both = [change(volume, 'set', 'm1'), change(volume, 'set', 'm1')].map((work) => codeOf(work));
  assert.equal((await Promise.all(both)).sort(), ['EXISTS', 'done']);
  assert.is(await codeOf(change(volume, 'delete', 'nobody')), 'INVALID_ARGUMENT');
  for (let i = 2; i < MAX_MARKS; i++) await change(volume, 'set', `m${i}`);
  assert.is(await codeOf(change(volume, 'set', 'more')), 'TOO_MANY');
  await change(volume, 'delete', 'm3');
  await change(volume, 'set', 'more');
  assert.is(volume.marks().length, MAX_MARKS);
  await o.close();
});

test('a slot that is used again has none of the earlier bits, also from disk', async () => {
  let o = await opened(await formatted());
  await change(o.volume, 'set', 'first');
  await o.device.write(0, new Uint8Array(SMALL.sizeBytes).fill(1));
  await o.store.checkpoint();
  await change(o.volume, 'delete', 'first');
  await o.close();
  o = await opened(reborn(o.disk.files, 2));
  assert.equal(o.volume.marks(), []);
  await change(o.volume, 'set', 'second');
  await o.device.write(7 * BLOCK_BYTES, new Uint8Array(1));
  await o.close();
  o = await opened(reborn(o.disk.files, 3));
  assert.equal([...changed(o.volume, 'second')], [7]);
  await o.close();
});

test('after a power cut at any moment a mark holds every block written behind it', async () => {
  const arena = newArena();
  for (let seed = 1; seed <= 40; seed++) {
    const random = new Random(seed);
    let o = await opened(reborn((await formatted(SMALL, seed)).files, seed, arena));
    /** Per mark that is known to be set: how many writes came before it. Each write is known by its number. */
    const marks = new Map<string, number>();
    let writes = 0;
    const deleted = new Set<string>();
    for (let life = 0; life < 4; life++) {
      const start = copyOf(o.disk.files);
      o.disk.recording = true;
      const work: Array<Promise<unknown>> = [];
      for (let step = 0; step < 30; step++) {
        const roll = random.below(10);
        if (roll === 0) {
          const name = `m${seed}-${life}-${step}`;
          if (marks.size < MAX_MARKS - 2) {
            await change(o.volume, 'set', name);
            marks.set(name, writes);
          }
        } else if (roll === 1 && marks.size > 0) {
          const name = [...marks.keys()][random.below(marks.size)]!;
          marks.delete(name);
          deleted.add(name);
          await change(o.volume, 'delete', name);
        } else if (roll === 2) void o.store.checkpoint().catch(() => {});
        else {
          const first = random.below(BLOCKS - 8);
          const count = 1 + random.below(8);
          const words = new Uint32Array((count * BLOCK_BYTES) / 4).fill(++writes);
          work.push(o.device.write(first * BLOCK_BYTES, new Uint8Array(words.buffer)).catch(() => {}));
        }
        if (random.below(4) === 0) await Promise.all(work.splice(0));
      }
      const { events } = o.disk;
      const image = crashImage(start, events, events.length, random);
      // The machine that was cut off lives on elsewhere, so that it gives its memory back.
      await Promise.all(work);
      await o.close();
      o = await opened(reborn(image, seed * 100 + life, arena));
      const names = new Set(o.volume.marks().map(({ name }) => name));
      for (const name of deleted) assert.is(names.has(name), false, `seed ${seed}: the mark ${name} is back`);
      const content = new Uint32Array((await o.device.read(0, SMALL.sizeBytes)).buffer);
      for (const [name, before] of marks) {
        const now = changed(o.volume, name);
        assert.ok(names.has(name), `seed ${seed}: the mark ${name} is gone`);
        for (let block = 0; block < BLOCKS; block++) {
          const behind = content[(block * BLOCK_BYTES) / 4]! > before;
          assert.ok(now.has(block) || !behind, `seed ${seed}: block ${block} is missing in ${name}`);
        }
      }
    }
    await o.close();
  }
});

test('a payload that is no mark is no mark', () => {
  assert.is(decodeMarkChange(new Uint8Array(4096)), null);
  assert.is(decodeMarkChange(Uint8Array.of(1, 3, 47, 47, 47)), null);
});

test.run();
