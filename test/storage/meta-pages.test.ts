/** Shadow pages: a crash anywhere inside a commit leaves exactly the old pages or exactly the new ones. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { HoldfastError } from '../../src/base/errors.ts';
import { GiB, MiB } from '../../src/base/units.ts';
import type { Arena } from '../../src/storage/arena.ts';
import { type Layout, PAGE_BYTES, PAGES_PER_GROUP, layoutOf, pagePosition } from '../../src/storage/layout.ts';
import { MetaPages, readSuperblocks } from '../../src/storage/meta-pages.ts';
import type { Superblock } from '../../src/storage/superblock.ts';
import { START, VOLUME_ID, superblockAt } from '../support/journal-harness.ts';
import { Random } from '../support/random.ts';
import { newArena } from '../support/store-harness.ts';
import { type Image, SimulatedDisk, crashImage } from '../support/simulated-disk.ts';

const ARENA: Arena = newArena();
const SMALL: Layout = layoutOf(512 * MiB, 4 * MiB);
/** More tracked pages than one map page holds. */
const WIDE: Layout = layoutOf(66 * GiB, 4 * MiB);

const superblockOf = (layout: Layout, sequence: number): Superblock => ({
  ...superblockAt(START),
  sequence,
  sizeBytes: layout.sizeBytes,
  journalBytes: layout.journalBytes,
});
const blank = (layout: Layout): Image => SimulatedDisk.blank({ data: 0, journal: 0, meta: layout.metaBytes });
const copyOf = (image: Image): Image => ({ ...image, meta: image.meta.slice() });

/** The content of a page in a generation: the generation in every word. */
const fillWith =
  (generation: number) =>
  (page: number, body: Uint8Array): void =>
    void new Uint32Array(body.buffer, body.byteOffset, body.length / 4).fill(generation * 65_536 + page);

/** What a page should say: the generation it was last written in. */
type Model = Map<number, number>;

interface OpenedMeta {
  sequence: number;
  meta: MetaPages;
}

/** Opens as the store does: the newest superblock whose map is right. */
async function open(disk: SimulatedDisk, layout: Layout): Promise<OpenedMeta | null> {
  const found = await readSuperblocks(disk, (s) => layoutOf(s.sizeBytes, s.journalBytes), disk.files.meta.length);
  for (const { superblock, slot } of found.candidates) {
    const meta = await MetaPages.open(disk, layout, superblock, slot);
    if (meta !== null) return { sequence: superblock.sequence, meta };
  }
  return null;
}

/** Reads all pages. @returns per page its generation, or null where it does not verify */
async function contentOf(meta: MetaPages, layout: Layout): Promise<Map<number, number | null>> {
  const content = new Map<number, number | null>();
  await meta.load(0, layout.trackedPages, (page, body) => {
    if (body === null) return void content.set(page, null);
    const words = new Uint32Array(body.buffer, body.byteOffset, body.length / 4);
    const generation = Math.floor((words[0]! - page) / 65_536);
    assert.ok(
      words.every((word) => word === generation * 65_536 + page),
      `page ${page} is of one piece`,
    );
    content.set(page, generation);
  });
  return content;
}

async function assertHolds(
  disk: SimulatedDisk,
  layout: Layout,
  models: Map<number, Model>,
  what: string,
): Promise<number> {
  const opened = await open(disk, layout);
  assert.ok(opened !== null, `${what}: a superblock is there`);
  const model = models.get(opened.sequence);
  assert.ok(model !== undefined, `${what}: sequence ${opened.sequence} may not be seen`);
  assert.equal(
    [...(await contentOf(opened.meta, layout))],
    [...model].sort((a, b) => a[0] - b[0]),
    what,
  );
  for (let page = 0; page < layout.trackedPages; page++) assert.is(opened.meta.has(page), model.has(page));
  opened.meta.close();
  return opened.sequence;
}

/** Pages around the edges of groups, and a few anywhere, ascending. */
function somePages(random: Random, layout: Layout): number[] {
  const pages = new Set<number>();
  for (let run = 0; run < 3; run++) {
    let page = random.chance(0.5) ? PAGES_PER_GROUP - 3 : random.below(layout.trackedPages);
    for (let n = 1 + random.below(6); n > 0 && page < layout.trackedPages; n--) pages.add(page++);
  }
  return [...pages].sort((a, b) => a - b);
}

const crash = suite('meta pages: crash');

for (const seed of [1, 2, 3]) {
  crash(`at every event of a few commits, seed ${seed}`, async () => {
    const random = new Random(seed);
    const disk = new SimulatedDisk(blank(SMALL), seed, ARENA);
    let meta = MetaPages.fresh(disk, SMALL, VOLUME_ID);
    await meta.commit(superblockOf(SMALL, 1), [], () => {});
    const start = copyOf(disk.files);
    disk.recording = true;
    const models = new Map<number, Model>([[1, new Map()]]);
    /** Events after which a commit was reported done. */
    const doneAt = [0];
    for (let sequence = 2; sequence <= 8; sequence++) {
      const model: Model = new Map(models.get(sequence - 1));
      const pages = sequence === 5 ? [] : somePages(random, SMALL);
      for (const page of pages) model.set(page, sequence);
      models.set(sequence, model);
      await meta.commit(superblockOf(SMALL, sequence), pages, fillWith(sequence));
      doneAt.push(disk.events.length);
      if (sequence === 4) {
        meta.close();
        meta = (await open(disk, SMALL))!.meta;
      }
    }
    meta.close();
    const seen = new Set<number>();
    for (let prefix = 0; prefix <= disk.events.length; prefix++) {
      for (let variant = 0; variant < 3; variant++) {
        const image = crashImage(start, disk.events, prefix, random);
        const after = new SimulatedDisk(image, 1, ARENA);
        const finished = doneAt.filter((at) => at <= prefix).length;
        const allowed = new Map([...models].filter(([s]) => s === finished || s === finished + 1));
        const what = `seed ${seed}, ${prefix} of ${disk.events.length} events`;
        seen.add(await assertHolds(after, SMALL, allowed, what));
      }
    }
    assert.is(seen.size, 8, 'every state was met');
    assert.is(ARENA.slotsInUse, 0);
  });
}
crash.run();

const damage = suite('meta pages: damage');

/** Three commits: pages 0 to 9 in generation 2, 0 to 4 in generation 3. */
async function threeCommits(
  layout: Layout,
  wide: number[] = [],
): Promise<{ disk: SimulatedDisk; models: Map<number, Model> }> {
  const disk = new SimulatedDisk(blank(layout), 1, ARENA);
  const meta = MetaPages.fresh(disk, layout, VOLUME_ID);
  await meta.commit(superblockOf(layout, 1), [], () => {});
  const ten = [...Array(10).keys(), ...wide];
  const five = [...Array(5).keys(), ...wide.slice(0, 1)];
  await meta.commit(superblockOf(layout, 2), ten, fillWith(2));
  await meta.commit(superblockOf(layout, 3), five, fillWith(3));
  meta.close();
  const second: Model = new Map(ten.map((page) => [page, 2]));
  const third: Model = new Map(second);
  for (const page of five) third.set(page, 3);
  return {
    disk,
    models: new Map([
      [2, second],
      [3, third],
    ]),
  };
}

for (const [name, layout, wide] of [
  ['one map page', SMALL, []],
  ['several map pages', WIDE, [16_255, 16_256, 16_300]],
] as const) {
  damage(`${name}: either superblock slot torn in turn, the other one counts`, async () => {
    const { disk, models } = await threeCommits(layout, [...wide]);
    assert.is(layout.mapPages, wide.length === 0 ? 1 : 2);
    assert.is(await assertHolds(disk, layout, models, 'whole'), 3);
    const slotOf = new Map<number, number>();
    const found = await readSuperblocks(disk, () => layout, disk.files.meta.length);
    for (const { superblock, slot } of found.candidates) slotOf.set(superblock.sequence, slot);
    assert.equal([...slotOf.keys()], [3, 2], 'newest first');
    for (const [torn, left] of [
      [3, 2],
      [2, 3],
    ] as const) {
      const first = slotOf.get(torn)! * layout.superblockSlotBytes;
      // The superblock's own page, and each page of its map.
      for (let page = 0; page <= layout.mapPages; page++) {
        const at = first + page * PAGE_BYTES + 200;
        disk.files.meta[at]! ^= 8;
        assert.is(await assertHolds(disk, layout, models, `slot of ${torn}, page ${page}`), left);
        disk.files.meta[at]! ^= 8;
      }
      // Half of it is what was there before: zeros.
      const half = disk.files.meta.slice(first, first + 512);
      disk.files.meta.fill(0, first, first + 512);
      assert.is(await assertHolds(disk, layout, models, `slot of ${torn}, first sector`), left);
      disk.files.meta.set(half, first);
    }
    assert.is(await assertHolds(disk, layout, models, 'whole again'), 3);
  });
}

damage('commits go on from the slot that was left, and the torn one is written next', async () => {
  for (const slot of [0, 1]) {
    const { disk, models } = await threeCommits(SMALL);
    disk.files.meta[slot * SMALL.superblockSlotBytes + 100]! ^= 1;
    const { sequence, meta } = (await open(disk, SMALL))!;
    const model: Model = new Map(models.get(sequence));
    model.set(7, 9);
    await meta.commit(superblockOf(SMALL, 9), [7], fillWith(9));
    meta.close();
    const after = new Map([...models, [9, model]] as Array<[number, Model]>);
    assert.is(await assertHolds(disk, SMALL, after, `slot ${slot}`), 9);
    const found = await readSuperblocks(disk, () => SMALL, disk.files.meta.length);
    assert.equal(
      found.candidates.map((c) => c.superblock.sequence),
      [9, sequence],
    );
  }
});

damage('both slots torn: no superblock, no exception', async () => {
  const { disk } = await threeCommits(SMALL);
  for (const slot of [0, 1]) disk.files.meta[slot * SMALL.superblockSlotBytes + 100]! ^= 1;
  assert.is(await open(disk, SMALL), null);
  assert.is(ARENA.slotsInUse, 0);
});

damage('a page that rotted, was lost, or is another’s is handed out as damaged; its neighbours are not', async () => {
  const { disk } = await threeCommits(SMALL);
  // Pages 5 to 9 were written once: first slot. Pages 0 to 4 twice: second slot.
  const at = (page: number): number => pagePosition(SMALL, page, page < 5 ? 1 : 0);
  const whole = disk.files.meta.slice();
  const cases: Array<[string, number, (meta: Uint8Array) => void]> = [
    ['rotten', 3, (meta) => void (meta[at(3) + 999]! ^= 1)],
    ['rotten in its header', 3, (meta) => void (meta[at(3) + 5]! ^= 1)],
    ['all zeros', 8, (meta) => void meta.fill(0, at(8), at(8) + PAGE_BYTES)],
    ['misdirected', 2, (meta) => void meta.copyWithin(at(2), at(1), at(1) + PAGE_BYTES)],
  ];
  for (const [what, page, spoil] of cases) {
    disk.files.meta.set(whole);
    spoil(disk.files.meta);
    const { meta } = (await open(disk, SMALL))!;
    const content = await contentOf(meta, SMALL);
    for (const [number, generation] of content) {
      assert.is(generation, number === page ? null : number < 5 ? 3 : 2, `${what}: page ${number}`);
    }
    assert.is(content.size, 10);
    meta.close();
  }
});

damage('pages of another volume do not verify', async () => {
  const { disk } = await threeCommits(SMALL);
  const other = { ...superblockOf(SMALL, 3), volumeId: new Uint8Array(16).fill(9) };
  assert.is(await MetaPages.open(disk, SMALL, other, 0), null);
  assert.is(await MetaPages.open(disk, SMALL, other, 1), null);
});

damage('a failing write or sync fails the commit, and what was there is still there', async () => {
  for (const kind of ['write', 'sync'] as const) {
    for (let n = 1; ; n++) {
      const { disk, models } = await threeCommits(SMALL);
      const { meta } = (await open(disk, SMALL))!;
      disk.fault = { kind, n, code: 'IO_ERROR' };
      const error = await meta.commit(superblockOf(SMALL, 4), [1, 8], fillWith(4)).then(
        () => null,
        (e: unknown) => e,
      );
      meta.close();
      if (disk.faultsFired === 0) {
        assert.is(error, null);
        assert.ok(n > (kind === 'write' ? 4 : 2), 'the loop met every operation');
        break;
      }
      assert.ok(error instanceof HoldfastError);
      // What the last sync failed for may be there or not.
      const fourth: Model = new Map(models.get(3));
      for (const page of [1, 8]) fourth.set(page, 4);
      const allowed = new Map([
        [3, models.get(3)!],
        [4, fourth],
      ]);
      const sequence = await assertHolds(disk, SMALL, allowed, `${kind} ${n}`);
      if (kind === 'write' || n === 1) assert.is(sequence, 3);
    }
  }
});
damage.run();
