/** The bitmap of blocks: setting and clearing bits, and walking a full and an almost empty one. */
import { DirtyBitmap } from '../../src/storage/dirty-bitmap.ts';
import { Random } from '../load/workload.ts';
import { microSuite } from './suite.ts';

/** A volume of 64 GiB. */
const BLOCKS = 16 * 1024 * 1024;
const random = new Random(1);
const places = Uint32Array.from({ length: 65_536 }, () => random.below(BLOCKS));
const scattered = new DirtyBitmap(BLOCKS);
for (const place of places) scattered.set(place);
const sparse = new DirtyBitmap(BLOCKS);
for (let i = 0; i < 16; i++) sparse.set((BLOCKS / 16) * i);
const solid = new DirtyBitmap(BLOCKS);
for (let i = 0; i < 1_000_000; i++) solid.set(i);
const changing = new DirtyBitmap(BLOCKS);
let i = 0;
let sink = 0;

/** Visits every run. @returns how many there are */
function walk(bitmap: DirtyBitmap): number {
  let runs = 0;
  for (let run = bitmap.nextRun(0, 64); run !== null; run = bitmap.nextRun(run.first + run.count, 64)) runs++;
  return runs;
}

await microSuite('bitmap', [
  {
    name: 'set and clear, random',
    run: () => {
      const place = places[i++ & 65_535]!;
      changing.set(place);
      changing.clear(place);
    },
    things: 2,
  },
  { name: 'has, random', run: () => (sink += scattered.has(places[i++ & 65_535]! ^ 1) ? 1 : 0) },
  { name: 'walk 64 GiB, 65 000 scattered bits', run: () => (sink += walk(scattered)), things: walk(scattered) },
  { name: 'walk 64 GiB, 16 bits', run: () => (sink += walk(sparse)), things: walk(sparse) },
  { name: 'walk a run of 1 000 000 bits', run: () => (sink += walk(solid)), things: 1_000_000 },
]);
process.exitCode = Number.isFinite(sink) ? 0 : 1;
