/** Defects of RecoverKV that show in one process: one test each, by name. The others are in test/cluster. */
import * as assert from 'uvu/assert';
import { suite } from 'uvu';
import type { HoldfastError } from '../../src/base/errors.ts';
import { KvContent } from '../../src/kv/content.ts';
import type { Step, Transaction, TransactionResult } from '../../src/kv/operations.ts';
import { PrimaryKv } from '../../src/kv/primary-kv.ts';
import { VolumeKvLog } from '../../src/node/kv-log.ts';
import { HostedKv } from '../../src/node/hosted-kv.ts';
import { KvDisk, LIMITS, openKv } from '../support/kv-disk.ts';
import { Random } from '../support/random.ts';
import { crashImage } from '../support/simulated-disk.ts';
import { formatted, opened, reborn } from '../support/store-harness.ts';
import { until } from '../support/until.ts';

const test = suite('key-value regressions, in one process');

const bytes = (text: string): Uint8Array => Buffer.from(text, 'latin1');
const put = (key: string, value: string): Step => ({
  type: 'put',
  key,
  value: bytes(value),
  expiry: 'none',
  when: 'always',
  previous: true,
});
const only = (...steps: Step[]): Transaction => ({ conditions: [], steps });

interface Answer {
  error: HoldfastError | null;
  result: TransactionResult | null;
}

const execute = (kv: PrimaryKv, transaction: Transaction): Promise<Answer> =>
  new Promise((resolve) => kv.execute(transaction, null, (error, result) => resolve({ error, result })));

const textOf = (content: KvContent, key: string): string | null => {
  const cell = content.index.find(key);
  return cell && cell.run.bytes.toString('latin1', cell.at + 24 + key.length, cell.at + cell.sizeBytes);
};

test('R-1: versions go on where they were after a restart, and the newer value wins', async () => {
  const disk = new KvDisk(2048);
  const before = execute(await openKv(disk), only(put('k', 'old')));
  await disk.settle();
  const { version } = (await before).result!;
  const after = execute(await openKv(disk), only(put('k', 'new')));
  await disk.settle();
  assert.ok((await after).result!.version > version);
  assert.is(textOf(disk.content, 'k'), 'new');
  const anew = new KvContent(disk.blocks);
  await anew.build(disk);
  assert.is(textOf(anew, 'k'), 'new');
});

test('R-1: they do so also when everything was deleted, and cleaned away', async () => {
  const disk = new KvDisk(2048);
  let kv = await openKv(disk);
  const run = async (step: Step): Promise<number> => {
    const answer = execute(kv, only(step));
    await disk.settle();
    return (await answer).result!.version;
  };
  const keys = ['a', 'b', 'c', 'd', 'e'];
  // One segment, full to the last block; the deletions come into the next.
  for (let i = 0; i < 10; i++) await run(put(keys[i % 5]!, 'x'.repeat(100_000)));
  for (let i = 0; i < 6; i++) await run(put('z', 'x'));
  let version = 0;
  for (const key of [...keys, 'z']) version = await run({ type: 'delete', key, previous: false });
  for (let restart = 0; restart < 3; restart++) {
    disk.lose();
    kv = await openKv(disk);
    for (let i = 0; i < 5; i++) {
      kv.tick();
      await disk.settle();
    }
  }
  assert.ok(disk.content.index.usedBlocks < 64, 'the old segment is zeroed');
  assert.is(await run(put('a', 'new')), version + 1);
});

test('R-5: a PUT that was not written is no PUT: an error, and nobody reads it', async () => {
  const disk = new KvDisk(2048);
  const kv = new PrimaryKv(
    {
      ...disk.log,
      write: (_first, _bytes, _encode, done) =>
        queueMicrotask(() => done({ code: 'POISONED', message: 'no' } as HoldfastError)),
    },
    await built(disk),
    LIMITS,
    () => ({ volume: 'v', role: 'primary', state: 'in-sync', epoch: 1, sizeBytes: 0, expiring: 0, durable: true }),
  );
  const answer = execute(kv, only(put('k', 'v')));
  await disk.settle();
  assert.is((await answer).error?.code, 'OUTCOME_UNKNOWN');
  assert.is(disk.content.index.keys, 0);
});

async function built(disk: KvDisk): Promise<KvContent> {
  await disk.content.build(disk);
  return disk.content;
}

test('R-6: key and log change together: a crash at any moment leaves all of a transaction or nothing', async () => {
  for (let cut = 0; cut < 40; cut++) {
    const random = new Random(cut);
    const disk = new KvDisk(2048);
    const kv = await openKv(disk);
    for (let i = 0; i < 8; i++) void execute(kv, only(put('left', String(i)), put('right', String(i))));
    for (let step = 0; step < cut; step++) {
      disk.turn();
      if (random.chance(0.6)) disk.commit();
      if (random.chance(0.6)) disk.apply(random.below(3));
      await Promise.resolve();
    }
    disk.lose();
    const anew = new KvContent(disk.blocks);
    await anew.build(disk);
    assert.is(textOf(anew, 'left'), textOf(anew, 'right'));
  }
});

test('R-10: any bytes are a key and a value', async () => {
  const disk = new KvDisk(2048);
  const kv = await openKv(disk);
  const all = String.fromCharCode(...Array.from({ length: 256 }, (_, i) => i));
  const answers = [execute(kv, only(put(all, all))), execute(kv, only(put(' (a, "b")', "it's")))];
  await disk.settle();
  for (const answer of answers) assert.is((await answer).error, null);
  const anew = new KvContent(disk.blocks);
  await anew.build(disk);
  assert.is(textOf(anew, all), all);
  assert.is(textOf(anew, ' (a, "b")'), "it's");
});

test('R-18: the log does not grow: what is overwritten a hundred times over fits', async () => {
  const disk = new KvDisk(12 * 256);
  const kv = await openKv(disk);
  const value = 'x'.repeat(60_000);
  for (let i = 0; i < 4000; i++) {
    const answer = execute(kv, only(put(`k${i % 20}`, value)));
    await disk.settle();
    assert.is((await answer).error, null, `PUT ${i}`);
  }
  assert.ok(disk.content.index.usedBlocks <= disk.blocks);
  assert.is(disk.content.index.keys, 20);
});

test('R-19: what is larger than the limits is refused, with the limit, and changes nothing', async () => {
  const disk = new KvDisk(2048);
  const kv = await openKv(disk);
  const large = 'v'.repeat(LIMITS.maxValueBytes);
  const refused = [
    only(put('k'.repeat(LIMITS.maxKeyBytes + 1), 'v')),
    only(put('k', `${large}v`)),
    only(...Array.from({ length: 3 }, (_, i) => put(`k${i}`, large))),
    only(...Array.from({ length: 20_000 }, (_, i) => put(String(i), ''))),
  ].map((transaction) => execute(kv, transaction));
  await disk.settle();
  for (const answer of refused) assert.is((await answer).error?.code, 'TOO_LARGE');
  const taken = execute(kv, only(put('k'.repeat(LIMITS.maxKeyBytes), large)));
  await disk.settle();
  assert.is((await taken).error, null);
  assert.is(disk.content.index.keys, 1);
});

test('R-20: what was acknowledged survives a loss of power, whatever else of the disk does', async () => {
  const size = { sizeBytes: 8 * 2 ** 20, journalBytes: 4 * 2 ** 20 };
  const disk = await formatted(size);
  const { files } = disk;
  const start = { data: files.data.slice(), journal: files.journal.slice(), meta: files.meta.slice() };
  disk.recording = true;
  const first = await opened(disk);
  const kv = hosted(first);
  const acknowledged = new Map<string, string>();
  const puts = Array.from({ length: 60 }, async (_, i) => {
    await until(() => kv.current !== null, 'the volume to be served');
    const [key, value] = [`k${i % 25}`, `value ${i}`];
    const { error } = await execute(kv.current as PrimaryKv, only(put(key, value)));
    if (error === null) acknowledged.set(key, value);
  });
  await Promise.all(puts);
  assert.is(acknowledged.size, 25);
  const { events } = disk;
  for (let seed = 1; seed <= 10; seed++) {
    const again = await opened(reborn(crashImage(start, events, events.length, new Random(seed)), seed, disk.arena));
    const back = hosted(again);
    await until(() => back.current !== null, 'the volume to be served');
    for (const [key, value] of acknowledged) {
      const found = await new Promise<string>((resolve) =>
        back.current!.get([key], (_error, entries) => resolve(Buffer.from(entries![0]!.value!).toString())),
      );
      assert.is(found, value, `seed ${seed}, ${key}`);
    }
    back.close();
    again.disk.dead = true;
  }
  kv.close();
});

const CLOCK = {
  nowMs: () => performance.now(),
  wallMs: () => Date.now(),
  soon: (run: () => void) => void setImmediate(run),
};

/** As a node has it, alone in its group. */
function hosted({ store, volume, disk }: Awaited<ReturnType<typeof opened>>): HostedKv {
  const kv = new HostedKv({
    store,
    arena: disk.arena,
    available: false,
    ...CLOCK,
    follows: () => false,
    serve: () => {},
    unserve: () => {},
    log: () => {},
  });
  kv.setPrimary(volume);
  return kv;
}

test('the log adapter keeps the order of batches while memory is scarce', async () => {
  const disk = await formatted({ sizeBytes: 4 * 2 ** 20, journalBytes: 4 * 2 ** 20 });
  const { volume } = await opened(disk);
  const log = new VolumeKvLog(volume, disk.arena, CLOCK);
  const held = [];
  for (let slot = disk.arena.take(63); slot !== null; slot = disk.arena.take(63)) held.push(slot);
  const order: number[] = [];
  // The first one has to wait; the second, which is small, could go at once.
  for (const [byte, first, blocks] of [
    [1, 0, 63],
    [2, 100, 1],
  ] as const) {
    const encode = (into: Buffer): void => void into.fill(byte);
    log.write(first, blocks * 4096, encode, () => order.push(byte));
  }
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(order, []);
  for (const slot of held) disk.arena.release(slot);
  await until(() => order.length === 2, 'both to be committed');
  assert.equal(order, [1, 2]);
});

test.run();
