/** What it costs to count one operation: into the buckets alone, with the clock, and around a call of a volume. */
import { Buckets } from '../../src/base/buckets.ts';
import { VolumeMeter } from '../../src/base/meters.ts';
import { MeasuredVolume } from '../../src/node/measured-volume.ts';
import type { ServedVolume } from '../../src/replication/served-volume.ts';
import type { Slot } from '../../src/storage/arena.ts';
import { microSuite } from './suite.ts';

const TIMES = 1000;
const buckets = new Buckets();
/** Answers at once, and does nothing else. */
const bare = { read: (_offset, _length, _slot, done) => done(null, 0) } as Pick<ServedVolume, 'read'> as ServedVolume;
const measured = new MeasuredVolume(bare, new VolumeMeter());
const slot = {} as Slot;
let answered = 0;
const done = (): void => void answered++;
let last = 0;

const times = (work: (i: number) => void) => (): void => {
  for (let i = 0; i < TIMES; i++) work(i);
};

await microSuite('meters', [
  { name: 'a number into its bucket', run: times((i) => buckets.record(i * 7)), things: TIMES },
  { name: 'the clock', run: times(() => void (last += performance.now())), things: TIMES },
  { name: 'a call of a volume', run: times((i) => bare.read(i, 4096, slot, done)), things: TIMES },
  { name: 'the same, counted and timed', run: times((i) => measured.read(i, 4096, slot, done)), things: TIMES },
]);
process.exitCode = answered > 0 && Number.isFinite(last) ? 0 : 1;
