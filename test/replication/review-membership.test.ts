/** What a second review found: a register that goes back. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { Membership } from '../../src/replication/membership.ts';
import type { GroupRegister } from '../../src/replication/group-register.ts';

const test = suite('replication: second review, membership');

test('R10: a refusal that teaches nothing new is not answered by asking again at once', () => {
  const register: GroupRegister = {
    registerId: '5a',
    version: 50,
    epoch: 7,
    primary: 'a',
    inSync: ['a', 'b'],
    members: ['a', 'b'].map((node) => ({ node, diskId: '1' })),
  };
  let asked = 0;
  // The register was restored from a backup, or made anew: its version is lower.
  const restored = { ...register, version: 3 };
  const m: Membership = new Membership(register, {
    compareAndSet: () => {
      asked++;
      if (asked < 1000) queueMicrotask(() => m.settled({ outcome: 'refused', register: restored }, 10, 200));
    },
    changed: () => {},
    deposed: () => {},
  });
  m.remove('b', 0);
  return new Promise<void>((resolve) =>
    setTimeout(() => {
      resolve();
    }, 20),
  ).then(() => assert.ok(asked < 5, `it was asked ${asked} times in no time`));
});

test.run();
