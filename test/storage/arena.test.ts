/** The arena: slots never overlap, never grow, and whoever waits is served in turn. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { BLOCK_BYTES, MAX_IO_BLOCKS, MiB } from '../../src/base/units.ts';
import { Arena, HEADER_ROOM_BYTES, type Slot } from '../../src/storage/arena.ts';
import { Random } from '../support/random.ts';

const CLASS_PAGES = [1, 2, 16, MAX_IO_BLOCKS];

function takeAll(arena: Arena, pages: number): Slot[] {
  const slots: Slot[] = [];
  for (let slot = arena.take(pages); slot !== null; slot = arena.take(pages)) slots.push(slot);
  return slots;
}

const arenas = suite('arena');

arenas('all slots together lie in the arena, page-aligned, and no two overlap', () => {
  const arena = new Arena(8 * MiB);
  const slots = CLASS_PAGES.flatMap((pages) => takeAll(arena, pages));
  const ranges = slots.map((s) => [s.bytes.byteOffset, s.bytes.byteOffset + s.bytes.length] as const);
  ranges.sort((a, b) => a[0] - b[0]);
  for (let i = 1; i < ranges.length; i++) assert.ok(ranges[i]![0] >= ranges[i - 1]![1], `slot ${i}`);
  assert.ok(ranges.at(-1)![1] <= arena.sizeBytes);
  assert.is(arena.memory.byteLength, arena.sizeBytes);
  for (const slot of slots) {
    assert.is(slot.bytes.buffer, arena.memory);
    assert.is(slot.payload.byteOffset % BLOCK_BYTES, 0);
    assert.is(slot.payload.byteOffset, slot.bytes.byteOffset + HEADER_ROOM_BYTES);
    assert.is(slot.payload.length, slot.pages * BLOCK_BYTES);
    assert.ok(slot.crcs.length >= slot.pages, 'a checksum for each block');
    assert.ok(slot.crcs.byteOffset + slot.crcs.byteLength <= slot.payload.byteOffset);
  }
});

arenas('a slot is at least as large as asked for', () => {
  const arena = new Arena(8 * MiB);
  for (let pages = 1; pages <= MAX_IO_BLOCKS; pages++) {
    const slot = arena.take(pages)!;
    assert.ok(slot.pages >= pages);
    arena.release(slot);
  }
  assert.throws(() => arena.take(MAX_IO_BLOCKS + 1), /no slot holds/);
  assert.is(arena.slotsInUse, 0);
});

arenas('a class that is empty is refused, the others go on', () => {
  const arena = new Arena(8 * MiB);
  const held = takeAll(arena, 1);
  assert.is(arena.take(1), null);
  assert.is(arena.freeShare(1), 0);
  assert.is(arena.freeShare(2), 1);
  assert.ok(arena.take(2));
  assert.is(arena.slotsInUse, held.length + 1);
  arena.release(held[0]!);
  assert.is(arena.freeShare(1), 1 / held.length);
  assert.is(arena.take(1), held[0]);
});

arenas('waiters are called first come first served, one for each slot of their class', () => {
  const arena = new Arena(8 * MiB);
  const held = takeAll(arena, 16);
  const calls: string[] = [];
  const wait = (name: string): void =>
    arena.whenFree(10, () => {
      calls.push(name);
      assert.ok(arena.take(10), 'the slot is there for whoever was called');
    });
  for (const name of ['a', 'b', 'c']) wait(name);
  const other = arena.take(1)!;
  arena.release(other);
  assert.equal(calls, [], 'a slot of another class is none for them');
  arena.release(held[0]!);
  assert.equal(calls, ['a']);
  arena.release(held[1]!);
  arena.release(held[2]!);
  assert.equal(calls, ['a', 'b', 'c']);
  arena.release(held[3]!);
  assert.equal(calls, ['a', 'b', 'c'], 'each is called once');
});

arenas('releasing twice is a programming error, and does not double the slot', () => {
  const arena = new Arena(8 * MiB);
  const slot = arena.take(1)!;
  arena.release(slot);
  assert.throws(() => arena.release(slot), /released twice/);
  const all = takeAll(arena, 1);
  assert.is(new Set(all).size, all.length);
});

arenas('random taking and releasing loses nothing', () => {
  const random = new Random(1);
  const arena = new Arena(8 * MiB);
  const before = CLASS_PAGES.map((pages) => {
    const all = takeAll(arena, pages);
    for (const slot of all) arena.release(slot);
    return all.length;
  });
  const held = new Set<Slot>();
  for (let i = 0; i < 5000; i++) {
    if (random.chance(0.6)) {
      const slot = arena.take(1 + random.below(MAX_IO_BLOCKS));
      if (slot === null) continue;
      assert.not.ok(held.has(slot), 'nobody else has it');
      held.add(slot);
    } else if (held.size > 0) {
      const slot = [...held][random.below(held.size)]!;
      held.delete(slot);
      arena.release(slot);
    }
    assert.is(arena.slotsInUse, held.size);
  }
  for (const slot of held) arena.release(slot);
  assert.equal(
    CLASS_PAGES.map((pages) => takeAll(arena, pages).length),
    before,
  );
});

arenas('an arena too small for its classes is refused', () => {
  assert.throws(() => new Arena(64 * 1024), /too small/);
});
arenas.run();
