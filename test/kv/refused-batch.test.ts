/**
 * The log refuses a batch, as that of a primary that hands over does, or that of a sparse volume whose disk is full: what
 * was worked out behind it has not happened, and nobody is told that it has.
 */
import * as assert from 'uvu/assert';
import { suite } from 'uvu';
import { HoldfastError } from '../../src/base/errors.ts';
import { MiB } from '../../src/base/units.ts';
import type { Condition, KvVolume, Step, TransactionResult } from '../../src/kv/operations.ts';
import { HostedKv } from '../../src/node/hosted-kv.ts';
import { KvDisk, openKv } from '../support/kv-disk.ts';
import { formatted, opened } from '../support/store-harness.ts';
import { until } from '../support/until.ts';

const test = suite('a batch that the log refuses');

interface Answer {
  error: HoldfastError | null;
  result: TransactionResult | null;
}

const put = (key: string, value: string): Step => ({
  type: 'put',
  key,
  value: Buffer.from(value),
  expiry: 'none',
  when: 'always',
  previous: true,
});

const execute = (kv: KvVolume, step: Step, conditions: Condition[] = []): Promise<Answer> =>
  new Promise((resolve) =>
    kv.execute({ conditions, steps: [step] }, null, (error, result) => resolve({ error, result })),
  );

const get = (kv: KvVolume, key: string): Promise<string | null> =>
  new Promise((resolve, reject) =>
    kv.get([key], (error, found) => {
      if (error !== null) reject(error);
      const value = found?.[0]?.value ?? null;
      resolve(value && Buffer.from(value).toString());
    }),
  );

test('nothing that it would have changed is seen by what changes nothing, and nothing is executed behind it', async () => {
  const disk = new KvDisk(4096);
  const kv = await openKv(disk);
  const write = disk.log.write.bind(disk.log);
  const ask = async (answer: Promise<Answer>): Promise<Answer> => {
    await disk.settle();
    return answer;
  };
  assert.is((await ask(execute(kv, put('k', 'old')))).error, null);
  // It has still the right to read, until it has handed over.
  disk.log.write = (_first, _bytes, _encode, done) =>
    queueMicrotask(() => done(new HoldfastError('NOT_PRIMARY', { operation: 'write' })));
  const refused = execute(kv, put('k', 'new'));
  const swap = (): Promise<Answer> => execute(kv, { ...put('k', 'newer'), when: 'absent' } as Step);
  const behind = swap();
  await disk.settle();
  assert.is((await refused).error?.code, 'OUTCOME_UNKNOWN');
  assert.is((await behind).error?.code, 'NOT_PRIMARY');
  assert.is((await ask(swap())).error?.code, 'NOT_PRIMARY', 'it has seen what did not happen');
  disk.log.write = write;
  assert.is((await ask(execute(kv, { type: 'add', key: 'n', delta: 1n }))).error?.code, 'NOT_PRIMARY');
  const read = get(kv, 'k');
  await disk.settle();
  assert.is(await read, 'old');
});

test('a sparse volume whose disk was full takes changes again, and knows what there is', async () => {
  const disk = await formatted({ sizeBytes: 8 * MiB, journalBytes: 4 * MiB }, 1, true);
  const { store, volume } = await opened(disk);
  const kv = new HostedKv({
    store,
    arena: disk.arena,
    available: false,
    nowMs: () => performance.now(),
    wallMs: () => Date.now(),
    soon: (run) => void setImmediate(run),
    follows: () => false,
    serve: () => {},
    unserve: () => {},
    log: () => {},
  });
  kv.setPrimary(volume);
  await until(() => kv.current !== null, 'the volume to be served');
  const add: Step = { type: 'add', key: 'n', delta: 1n };
  assert.is((await execute(kv.current!, add)).error, null);
  const write = disk.write.bind(disk);
  disk.write = (file, from, at, done) => {
    if (file !== 'data') return write(file, from, at, done);
    setImmediate(() => done(new HoldfastError('NO_SPACE', { operation: 'write of data' })));
  };
  assert.is((await execute(kv.current!, add)).error, null, 'it is in the journal');
  await until(() => store.outOfSpace, 'the disk to be found full');
  assert.is((await execute(kv.current!, add)).error?.code, 'OUTCOME_UNKNOWN');
  assert.is((await execute(kv.current!, add)).error?.code, 'NO_SPACE');
  kv.tick();
  assert.is((await execute(kv.current!, add)).error?.code, 'NO_SPACE');
  disk.write = write;
  store.retryParked();
  await until(() => {
    kv.tick();
    return !store.outOfSpace && kv.current !== null;
  }, 'space');
  let answer = await execute(kv.current!, add);
  while (answer.error?.code === 'NO_SPACE') {
    await new Promise((resolve) => setImmediate(resolve));
    kv.tick();
    answer = await execute(kv.current!, add);
  }
  assert.is(answer.error, null);
  assert.is(await get(kv.current!, 'n'), '3', 'two before it was full, and one after');
  kv.close();
});

test.run();
