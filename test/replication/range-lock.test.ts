/** Order on overlapping blocks, against a naive model with random completion order. */
import fc from 'fast-check';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { type Operation, RangeLock } from '../../src/replication/range-lock.ts';
import { Random } from '../support/random.ts';

const locks = suite('range lock');

interface Item {
  id: number;
  kind: 'read' | 'write';
  first: number;
  count: number;
  operation: Operation<number> | null;
  runs: number;
  unheld: boolean;
  finished: boolean;
}

const overlap = (a: Item, b: Item): boolean => a.first < b.first + b.count && b.first < a.first + a.count;
const conflict = (a: Item, b: Item): boolean => (a.kind === 'write' || b.kind === 'write') && overlap(a, b);

/** One run: operations are taken, let go and finished in an order drawn from the seed. */
function simulate(seed: number, blocks: number, total: number): void {
  const random = new Random(seed);
  const lock = new RangeLock<number>();
  const items: Item[] = [];
  const running = (): Item[] => items.filter((i) => i.runs > 0 && !i.finished);
  const started = (item: Item): void => {
    item.runs++;
    assert.is(item.runs, 1, 'run is called once');
    if (item.kind === 'write') assert.ok(item.unheld, 'a write waits until it is let go');
    for (const other of running()) {
      if (other !== item) assert.not.ok(conflict(other, item), `${other.id} and ${item.id} at once`);
    }
    for (const earlier of items) {
      if (earlier.id >= item.id) break;
      if (conflict(earlier, item)) assert.ok(earlier.finished, `${item.id} ran before ${earlier.id}`);
    }
  };
  const finish = (item: Item): void => {
    item.finished = true;
    lock.finish(item.operation!);
  };
  const newest = (block: number): number | null => {
    const writes = items.filter(
      (i) => i.kind === 'write' && !i.finished && i.first <= block && block < i.first + i.count,
    );
    return writes.at(-1)?.id ?? null;
  };
  while (items.length < total || items.some((i) => !i.finished)) {
    const held = items.filter((i) => i.kind === 'write' && !i.unheld);
    const active = running();
    if (items.length < total && (random.chance(0.5) || (held.length === 0 && active.length === 0))) {
      const first = random.below(blocks);
      const count = 1 + random.below(Math.min(8, blocks - first));
      const kind = random.chance(0.5) ? 'read' : 'write';
      const item: Item = {
        id: items.length,
        kind,
        first,
        count,
        operation: null,
        runs: 0,
        unheld: false,
        finished: false,
      };
      items.push(item);
      const run = (): void => started(item);
      item.operation = kind === 'read' ? lock.read(first, count, run) : lock.write(first, count, item.id, run);
    } else if (held.length > 0 && (random.chance(0.5) || active.length === 0)) {
      const item = held[random.below(held.length)]!;
      item.unheld = true;
      lock.unhold(item.operation!);
    } else {
      assert.ok(active.length > 0, 'somebody can always go on: no deadlock');
      finish(active[random.below(active.length)]!);
    }
    // Nothing that could run is kept waiting.
    for (const item of items) {
      if (item.runs > 0 || (item.kind === 'write' && !item.unheld)) continue;
      const blocked = items.some((other) => other.id < item.id && !other.finished && conflict(other, item));
      assert.ok(blocked, `${item.id} waits for nobody`);
    }
    const block = random.below(blocks);
    assert.is(lock.newestWrite(block), newest(block), `newest write of block ${block}`);
  }
  assert.is(lock.busyBlocks, 0, 'nothing is left behind');
}

locks('random operations in random order: order, exclusion, no needless waiting, no deadlock', () => {
  fc.assert(
    fc.property(fc.nat(), fc.integer({ min: 1, max: 24 }), (seed, blocks) => simulate(seed, blocks, 60)),
    { numRuns: 60 },
  );
});

/** A lock and a diary of what ran. */
function diary(): { lock: RangeLock<string>; ran: string[]; note: (name: string) => () => void } {
  const ran: string[] = [];
  return { lock: new RangeLock(), ran, note: (name) => () => void ran.push(name) };
}

locks('readers share; a read that nothing blocks runs before `read` returns', () => {
  const { lock, ran, note } = diary();
  const a = lock.read(0, 4, note('a'));
  const b = lock.read(2, 4, note('b'));
  assert.equal(ran, ['a', 'b']);
  lock.finish(a);
  lock.finish(b);
  assert.is(lock.busyBlocks, 0);
});

locks('a write waits for the reads before it, and the reads after it wait for it', () => {
  const { lock, ran, note } = diary();
  const before = lock.read(0, 1, note('before'));
  const write = lock.write(0, 8, 'w', note('write'));
  const after = lock.read(7, 1, note('after'));
  const beside = lock.read(8, 1, note('beside'));
  lock.unhold(write);
  assert.equal(ran, ['before', 'beside']);
  lock.finish(before);
  assert.equal(ran, ['before', 'beside', 'write']);
  lock.finish(write);
  assert.equal(ran, ['before', 'beside', 'write', 'after']);
  for (const operation of [after, beside]) lock.finish(operation);
  assert.is(lock.busyBlocks, 0);
});

locks('writes run in the order they were taken, though let go in another', () => {
  const { lock, ran, note } = diary();
  const a = lock.write(0, 2, 'a', note('a'));
  const b = lock.write(1, 2, 'b', note('b'));
  const c = lock.write(2, 2, 'c', note('c'));
  lock.unhold(c);
  lock.unhold(b);
  assert.equal(ran, []);
  lock.unhold(a);
  assert.equal(ran, ['a']);
  lock.finish(a);
  assert.equal(ran, ['a', 'b']);
  lock.finish(b);
  assert.equal(ran, ['a', 'b', 'c']);
  lock.finish(c);
  assert.is(lock.busyBlocks, 0);
});

locks('the newest write is the last one taken, until it is finished; older ones do not come back', () => {
  const { lock, note } = diary();
  const a = lock.write(0, 4, 'a', note('a'));
  const b = lock.write(2, 1, 'b', note('b'));
  assert.equal(
    [0, 2, 3, 4].map((block) => lock.newestWrite(block)),
    ['a', 'b', 'a', null],
  );
  lock.unhold(a);
  lock.finish(a);
  assert.equal(
    [0, 2, 3].map((block) => lock.newestWrite(block)),
    [null, 'b', null],
  );
  lock.unhold(b);
  lock.finish(b);
  assert.is(lock.newestWrite(2), null);
});

locks('an operation that finishes another from inside its run', () => {
  const { lock, ran, note } = diary();
  const first = lock.read(0, 1, note('first'));
  const write = lock.write(0, 1, 'w', () => {
    ran.push('w');
    lock.finish(write);
  });
  const last = lock.read(0, 1, note('last'));
  lock.unhold(write);
  lock.finish(first);
  assert.equal(ran, ['first', 'w', 'last']);
  lock.finish(last);
  assert.is(lock.busyBlocks, 0);
});

locks('a write finished without having run (it was abandoned) lets those behind it go on', () => {
  const { lock, ran, note } = diary();
  const write = lock.write(0, 4, 'w', note('w'));
  const read = lock.read(1, 1, note('r'));
  lock.finish(write);
  assert.equal(ran, ['r']);
  lock.finish(read);
  assert.is(lock.busyBlocks, 0);
});
locks.run();
