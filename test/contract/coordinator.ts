/** What every Coordinator must do. `open` gives another client of the same coordinator. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { Coordinator, NextRegister, Register } from '../../src/coordination/register.ts';
import { newRegister } from '../support/coordinators.ts';
import { until } from '../support/until.ts';
import { rejectsWith } from './block-device.ts';

/** The register that `changes` makes of it. */
export function next(register: Register, changes: Partial<NextRegister> = {}): NextRegister {
  const { version: _, ...rest } = register;
  return { ...rest, by: { ...rest.by, n: rest.by.n + 1 }, ...changes };
}

/** Registers and runs the suite. `done` is called at its end. */
export function coordinatorContract(name: string, open: () => Coordinator, done: () => Promise<void>): void {
  const contract = suite(`Coordinator: ${name}`);
  contract.after(done);
  const on = (title: string, body: (a: Coordinator, b: Coordinator) => Promise<void>): void =>
    contract(title, async () => {
      const [a, b] = [open(), open()];
      try {
        await body(a, b);
      } finally {
        await a.close();
        await b.close();
      }
    });

  on('a register is made, and read by others as it was made', async (a, b) => {
    const wanted = newRegister();
    assert.is(await b.read(wanted.volumeId), null);
    const made = await a.create(wanted);
    assert.match(made.registerId, /^[0-9a-f]{32}$/);
    assert.equal(made, { ...wanted, registerId: made.registerId, version: 1 });
    assert.equal(await b.read(wanted.volumeId), made);
  });

  on('one register per volume, and one volume per name', async (a, b) => {
    const first = await a.create(newRegister());
    await rejectsWith('EXISTS', () => b.create(newRegister({ volumeId: first.volumeId })));
    await rejectsWith('EXISTS', () => b.create(newRegister({ volume: first.volume })));
    assert.equal(await a.read(first.volumeId), first);
  });

  on('of many that make one at the same time, one does', async (a, b) => {
    const wanted = newRegister();
    const all = await Promise.allSettled([a, b, a, b, a, b].map((client) => client.create(wanted)));
    const made = all.filter((each) => each.status === 'fulfilled');
    assert.is(made.length, 1);
    assert.equal(await b.read(wanted.volumeId), made[0]!.value);
  });

  on('a change takes effect on the version that was meant, and on no other', async (a, b) => {
    const first = await a.create(newRegister());
    const change = { epoch: 1, primary: 'a' };
    const { outcome, register } = await a.compareAndSet(1, next(first, change));
    assert.is(outcome, 'done');
    assert.equal(register, { ...next(first, change), version: 2 });
    assert.equal(await b.read(first.volumeId), register);
    for (const version of [1, 3, 1000]) {
      const late = await b.compareAndSet(version, next(first, { epoch: 5, primary: 'b', inSync: ['b'] }));
      assert.equal(late, { outcome: 'refused', register });
    }
    assert.equal(await a.read(first.volumeId), register);
  });

  on('the unchanged content is a change too', async (a) => {
    const first = await a.create(newRegister());
    const { outcome, register } = await a.compareAndSet(1, next(first, { by: first.by }));
    assert.is(outcome, 'done');
    assert.equal(register, { ...first, version: 2 });
    assert.is((await a.compareAndSet(1, next(first))).outcome, 'refused');
  });

  on('of concurrent changes of one version exactly one wins, round after round', async (a, b) => {
    let current = await a.create(newRegister());
    for (let round = 0; round < 20; round++) {
      const results = await Promise.all(
        [a, b, a, b, a, b].map((client, i) =>
          client.compareAndSet(
            current.version,
            next(current, {
              epoch: current.epoch + 1,
              primary: i % 2 === 0 ? 'a' : 'b',
              by: { node: i % 2 === 0 ? 'a' : 'b', bootId: `boot-${i}`, n: round },
            }),
          ),
        ),
      );
      const winners = results.filter(({ outcome }) => outcome === 'done');
      assert.is(winners.length, 1);
      for (const { register } of results) assert.equal(register, winners[0]!.register);
      assert.is(winners[0]!.register.version, current.version + 1);
      current = winners[0]!.register;
    }
    assert.equal(await b.read(current.volumeId), current);
  });

  on('changes that no node has reason to make are refused with a reason', async (a) => {
    const first = await a.create(newRegister());
    const { register } = await a.compareAndSet(1, next(first, { epoch: 3, primary: 'a' }));
    for (const wrong of [
      { epoch: 2 },
      { sizeBytes: first.sizeBytes - 4096 },
      { primary: 'b' },
      { volume: `${first.volume}-renamed` },
      { epoch: 4, primary: 'c' },
      { epoch: 4, primary: 'b', inSync: ['a'] },
      { inSync: [] },
      { inSync: ['a', 'a'] },
      { members: [] },
    ]) {
      await rejectsWith('INVALID_ARGUMENT', () => a.compareAndSet(2, next(register, wrong)), JSON.stringify(wrong));
    }
    await rejectsWith('NO_SUCH_VOLUME', () => a.compareAndSet(2, next(register, { volumeId: 'f'.repeat(32) })));
    await rejectsWith('INVALID_ARGUMENT', () => a.read('no id'));
    assert.equal(await a.read(first.volumeId), register);
  });

  on('a removed register is gone, and its name free', async (a, b) => {
    const first = await a.create(newRegister());
    await rejectsWith('BUSY', () => b.remove(first.volumeId, 2));
    assert.equal(await a.read(first.volumeId), first);
    await b.remove(first.volumeId, 1);
    assert.is(await a.read(first.volumeId), null);
    await rejectsWith('NO_SUCH_VOLUME', () => a.remove(first.volumeId, 1));
    await rejectsWith('NO_SUCH_VOLUME', () => a.compareAndSet(1, next(first)));
    const again = await a.create(newRegister({ volume: first.volume, volumeId: first.volumeId }));
    assert.is(again.version, 1);
    assert.is.not(again.registerId, first.registerId);
    assert.equal(await b.read(first.volumeId), again);
  });

  on('a change that is meant for the register before is refused by the one that came after', async (a, b) => {
    const first = await a.create(newRegister());
    await a.remove(first.volumeId, 1);
    const again = await b.create(newRegister({ volumeId: first.volumeId }));
    assert.equal(await a.compareAndSet(1, next(first)), { outcome: 'refused', register: again });
  });

  on('all registers are listed', async (a, b) => {
    const made = await Promise.all(Array.from({ length: 20 }, () => a.create(newRegister())));
    const listed = await b.list();
    for (const register of made) {
      assert.equal(
        listed.find(({ volumeId }) => volumeId === register.volumeId),
        register,
      );
    }
    assert.is(new Set(listed.map(({ volumeId }) => volumeId)).size, listed.length);
  });

  on('a watch tells the present state, each version once and in order, and the newest one', async (a, b) => {
    const wanted = newRegister();
    const [early, late]: Register[][] = [[], []];
    a.watch(wanted.volumeId, (register) => early.push(register));
    let current = await b.create(wanted);
    await until(() => early.length === 1, 'the new register');
    for (let n = 0; n < 10; n++) current = (await b.compareAndSet(current.version, next(current))).register;
    const watch = a.watch(wanted.volumeId, (register) => late.push(register));
    for (let n = 0; n < 10; n++) current = (await b.compareAndSet(current.version, next(current))).register;
    for (const told of [early, late]) {
      await until(() => told.at(-1)?.version === current.version, 'the newest version');
      assert.equal(told.at(-1), current);
      const versions = told.map(({ version }) => version);
      assert.equal(
        versions,
        [...new Set(versions)].sort((x, y) => x - y),
      );
    }
    watch.close();
    watch.close();
    const lateCount = late.length;
    const { version } = (await b.compareAndSet(current.version, next(current))).register;
    await until(() => early.at(-1)?.version === version, 'the last version');
    assert.is(late.length, lateCount);
  });

  on('a watch tells of a register that was removed and made again', async (a, b) => {
    const told: Register[] = [];
    const first = await b.create(newRegister());
    a.watch(first.volumeId, (register) => told.push(register));
    await until(() => told.length === 1, 'the first');
    await b.remove(first.volumeId, 1);
    const again = await b.create(newRegister({ volumeId: first.volumeId }));
    await until(() => told.at(-1)?.registerId === again.registerId, 'the second');
  });

  on('nodes say that they are there', async (a, b) => {
    const info = { node: 'n1', address: '10.0.0.1:7441', clientAddress: '[::1]:7401', freeBytes: 5 };
    await a.announce({ ...info, node: 'n2' });
    await a.announce({ ...info, freeBytes: 7 });
    await b.announce({ ...info, freeBytes: 9 });
    const nodes = await b.nodes();
    assert.equal(
      nodes.map(({ seenAgoMs: _, ...rest }) => rest),
      [
        { ...info, freeBytes: 9 },
        { ...info, node: 'n2' },
      ],
    );
    for (const { seenAgoMs } of nodes) assert.ok(Number.isInteger(seenAgoMs) && seenAgoMs >= 0);
    await rejectsWith('INVALID_ARGUMENT', () => a.announce({ ...info, address: 'nowhere' }));
  });

  on('a closed client answers nothing more', async (a, b) => {
    const first = await b.create(newRegister());
    const watch = a.watch(first.volumeId, () => assert.unreachable('told after close'));
    await a.close();
    await rejectsWith('CLOSED', () => a.read(first.volumeId));
    await rejectsWith('CLOSED', () => a.compareAndSet(1, next(first)));
    watch.close();
    assert.equal(await b.read(first.volumeId), first);
  });

  contract.run();
}
