/**
 * The group of records that opens an epoch: the new primary's own content of all blocks in which the members may differ,
 * closed by the EPOCH record. Pure.
 *
 * Guarantees: a group is planned only if it fits into half of the arena's memory and into the part of the journal that
 * may be uncommitted, on every member, so that it can always be finished; of the volumes that share an arena one at a
 * time fills it with a group, so that two never wait for each other's memory.
 */
import type { HoldfastError } from '../base/errors.ts';
import { BLOCK_BYTES, MAX_IO_BLOCKS } from '../base/units.ts';
import type { Arena, Slot } from '../storage/arena.ts';
import type { BlockStore } from '../storage/block-store.ts';
import { type EpochStart, encodeEpoch, epochBlocks } from '../storage/control.ts';
import type { DirtyBitmap, Run } from '../storage/dirty-bitmap.ts';
import { RECORD_KINDS } from '../storage/record.ts';
import type { PrimaryVolume } from './primary-volume.ts';
import type { Position } from '../base/position.ts';

const RUN_BLOCKS = MAX_IO_BLOCKS - 1;
/** Blocks that nobody asked for are taken along where that makes one run of two: a record costs more than they do. */
const GAP_BLOCKS = 4;
/** More than these are brought to the members by their bitmaps instead. */
const MAX_GROUP_BLOCKS = 4096;

/** @returns the runs of a group, or null if it would be too large */
export function planGroup(union: DirtyBitmap, arena: Arena, maxBytes: number): Run[] | null {
  if (union.count > MAX_GROUP_BLOCKS) return null;
  const runs: Run[] = [];
  for (let at = 0; ;) {
    const next = union.nextRun(at, RUN_BLOCKS);
    if (next === null) break;
    at = next.first + next.count;
    const last = runs.at(-1);
    const joined = last === undefined ? 0 : at - last.first;
    const gap = last === undefined ? 0 : next.first - last.first - last.count;
    if (last !== undefined && gap <= GAP_BLOCKS && joined <= RUN_BLOCKS) last.count = joined;
    else runs.push(next);
  }
  const slots = new Map<number, number>();
  let bytes = 0;
  for (const { count } of runs) {
    const limit = arena.slotsFor(count);
    const used = (slots.get(limit.classIndex) ?? 0) + 1;
    slots.set(limit.classIndex, used);
    bytes += (count + 1) * BLOCK_BYTES;
    if (used > limit.total / 2 || bytes > maxBytes) return null;
  }
  return runs;
}

export interface OpeningParts {
  store: BlockStore;
  arena: Arena;
  volume: PrimaryVolume;
  runs: readonly Run[];
  start: () => Omit<EpochStart, 'sessions' | 'marks'>;
  /** The tenure has ended meanwhile. */
  over: () => boolean;
  /** Resolves when it ends. */
  ended: Promise<void>;
  reached: (point: 'promote:group' | 'promote:epoch') => void;
}

/** Who fills an arena at the moment, and those behind it. */
const turns = new WeakMap<Arena, Promise<unknown>>();

/**
 * Logs the group. @returns the position of its EPOCH record, null if the tenure ended
 * @throws HoldfastError when a block cannot be read
 */
export function logGroup(parts: OpeningParts): Promise<Position | null> {
  const turn = (turns.get(parts.arena) ?? Promise.resolve()).then(() => logAll(parts));
  turns.set(
    parts.arena,
    turn.catch(() => {}),
  );
  return turn;
}

async function logAll(parts: OpeningParts): Promise<Position | null> {
  const { store, arena, volume, runs, start, over, reached } = parts;
  const blocks = runs.reduce((sum, { count }) => sum + count + 1, 0);
  // Everything before is applied: a checkpoint empties the journal.
  if (!over() && !store.hasRoomForPeer(blocks)) await store.checkpoint();
  for (const { first, count } of runs) {
    const slot = await take(parts, count);
    if (slot === null) return null;
    const error = await new Promise<HoldfastError | null>((resolve) =>
      store.readBlocks(first, count, slot, (failure) => resolve(failure)),
    );
    if (over() || error !== null) arena.release(slot);
    if (over()) return null;
    if (error !== null) throw error;
    let hole = true;
    for (let block = first; hole && block < first + count; block++) hole = store.isHole(block);
    volume.log(hole ? RECORD_KINDS.ZERO : RECORD_KINDS.WRITE, first, count, slot, () => {});
  }
  reached('promote:group');
  const marks = store.marks.list().map(({ name, position }) => ({ name, position }));
  const epoch: EpochStart = { ...start(), marks, sessions: store.sessions.encode() };
  const slot = await take(parts, epochBlocks(epoch));
  if (slot === null) return null;
  encodeEpoch(epoch, slot.payload);
  const at = volume.log(RECORD_KINDS.EPOCH, 0, epochBlocks(epoch), slot, () => {});
  reached('promote:epoch');
  return at;
}

async function take({ arena, over, ended }: OpeningParts, pages: number): Promise<Slot | null> {
  while (!over()) {
    const slot = arena.take(pages);
    if (slot !== null) return slot;
    await Promise.race([ended, new Promise<void>((resolve) => arena.whenFree(pages, resolve))]);
  }
  return null;
}
