/** Writes that are held back for a backup: they wait, in order, reads go on, and it always ends. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { WriteHolds } from '../../src/node/write-holds.ts';
import { type Opened, formatted, opened } from '../support/store-harness.ts';
import { turns } from '../support/unit-tools.ts';
import { until } from '../support/until.ts';

const test = suite('held writes');
const B = 4096;
const filled = (value: number): Uint8Array => new Uint8Array(B).fill(value);

async function fresh(): Promise<{ o: Opened; perform: (op: 'hold-writes' | 'let-writes', fields: object) => object }> {
  const o = await opened(await formatted());
  const holds = new WriteHolds();
  const perform = (op: 'hold-writes' | 'let-writes', fields: object): object =>
    holds.perform(op, { op, ...fields }, { name: 'v', volume: o.volume, kv: null });
  return { o, perform };
}

/** Each by its name when it is settled. */
function noted(order: string[], name: string, work: Promise<void>): Promise<void> {
  return work.then(
    () => void order.push(name),
    (error: { code: string }) => void order.push(`${name}: ${error.code}`),
  );
}

test('writes, zeros and marks wait in their order; reads do not; the position stands still', async () => {
  const { o, perform } = await fresh();
  await o.device.write(0, filled(1));
  const { token } = perform('hold-writes', { ms: 10_000 }) as { token: string };
  const before = o.volume.info().position;
  const order: string[] = [];
  const work = [
    noted(order, 'write', o.device.write(0, filled(2))),
    noted(order, 'unaligned', o.device.write(100, filled(3).subarray(0, 50))),
    noted(order, 'zero', o.device.zero(B, B)),
    noted(
      order,
      'mark',
      new Promise((resolve) => o.volume.mark(null, 0, { action: 'set', name: 'm' }, () => resolve())),
    ),
  ];
  await turns(50);
  assert.equal(await o.device.read(0, B), filled(1));
  assert.equal([order, o.volume.info().position], [[], before]);
  assert.throws(() => perform('hold-writes', { ms: 10 }), /BUSY|busy/);
  assert.equal(perform('let-writes', { token: 'another' }), { wasHeld: false });
  await turns(50);
  assert.equal(order, []);
  assert.equal(perform('let-writes', { token }), { wasHeld: true });
  await Promise.all(work);
  assert.equal([...order].sort(), ['mark', 'unaligned', 'write', 'zero']);
  const seen = await o.device.read(0, B);
  assert.equal([seen[0], seen[100], seen[150]], [2, 3, 2], 'in the order in which they came');
  assert.equal(perform('let-writes', { token }), { wasHeld: false });
  await o.close();
});

test('it ends by itself, and with the time as primary', async () => {
  const { o, perform } = await fresh();
  // The timer alone must not keep this process alive, but something has to.
  const alive = setInterval(() => {}, 1000);
  const order: string[] = [];
  perform('hold-writes', { ms: 30 });
  const first = noted(order, 'first', o.device.write(0, filled(1)));
  await until(() => order.length === 1, 'the hold to end');
  perform('hold-writes', { ms: 10_000 });
  const second = noted(order, 'second', o.device.write(0, filled(2)));
  await turns(20);
  await o.volume.drain();
  await Promise.all([first, second]);
  assert.equal(order, ['first', 'second: SHUTTING_DOWN']);
  clearInterval(alive);
  await o.store.close();
});

test('what is refused', async () => {
  const { o, perform } = await fresh();
  for (const ms of [0, -1, 10_001, 1.5, '5', undefined])
    assert.throws(() => perform('hold-writes', { ms }), /ms is not/);
  const holds = new WriteHolds();
  const hold = (volume: Opened['volume'] | null, kv: object | null) => () =>
    holds.perform('hold-writes', { ms: 5 }, { name: 'v', volume, kv });
  assert.throws(hold(null, null), /not primary/);
  assert.throws(hold(o.volume, {}), /key-value/);
  await o.close();
});

test.run();
