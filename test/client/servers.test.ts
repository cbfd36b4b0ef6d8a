/** Which servers a client knows of, and in which order it tries them. */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { formatAddress } from '../../src/client/address.ts';
import { backoffMs, mostDelayMs } from '../../src/client/retry.ts';
import { Servers } from '../../src/client/servers.ts';
import { MAX_MEMBERS, type VolumeLocation } from '../../src/protocol/location.ts';

const ID = new Uint8Array(16).fill(1);

function location(epoch: number, primary: number, members = [1, 2, 3]): VolumeLocation {
  return {
    volumeId: ID,
    name: 'v',
    epoch,
    primary: primary === 0 ? '' : `n${primary}`,
    primaryAddress: primary === 0 ? '' : `n${primary}:${primary}`,
    reads: 'primary',
    members: members.map((n) => ({ node: `n${n}`, clientAddress: `n${n}:${n}`, inSync: true })),
  };
}

const start = (): Servers => new Servers([{ host: 'n2', port: 2 }]);
const order = (servers: Servers): string[] => servers.inOrder().map(formatAddress);

test('the address alone, until more is told', () => {
  assert.equal(order(start()), ['n2:2']);
  assert.equal(order(new Servers([1, 1, 2].map((port) => ({ host: 'a', port })))), ['a:1', 'a:2']);
});

test('the primary first, then those of the address, then the others, each once', () => {
  const servers = start();
  assert.ok(servers.learn(location(5, 3)));
  assert.equal(order(servers), ['n3:3', 'n2:2', 'n1:1']);
  assert.ok(servers.learn(location(6, 2)));
  assert.equal(order(servers), ['n2:2', 'n1:1', 'n3:3']);
});

test('an older epoch and another volume are not believed', () => {
  const servers = start();
  servers.learn(location(5, 3));
  assert.not(servers.learn(location(4, 1)));
  servers.volumeId = ID;
  assert.not(servers.learn({ ...location(9, 1), volumeId: new Uint8Array(16) }));
  assert.is(order(servers)[0], 'n3:3');
});

test('of one epoch the last word counts, but who does not know the primary does not unsay it', () => {
  const servers = start();
  servers.learn(location(5, 3));
  assert.ok(servers.learn(location(5, 0, [1, 3])));
  assert.equal(order(servers), ['n3:3', 'n2:2', 'n1:1']);
  assert.is(servers.location!.primary, 'n3');
  // A later epoch without a primary: the earlier one's is none any more.
  servers.learn(location(6, 0));
  assert.is(servers.location!.primary, '');
  assert.is(order(servers)[0], 'n2:2');
});

test('what is remembered is bounded by one location, addresses that are none are left out', () => {
  const servers = start();
  for (let epoch = 1; epoch < 100; epoch++) {
    servers.learn(
      location(
        epoch,
        0,
        Array.from({ length: MAX_MEMBERS }, (_, i) => 10 * epoch + i),
      ),
    );
  }
  assert.is(order(servers).length, MAX_MEMBERS + 1);
  const odd = location(200, 0);
  odd.members.push({ node: 'x', clientAddress: '', inSync: true }, { node: 'y', clientAddress: 'a:b:c', inSync: true });
  servers.learn(odd);
  assert.equal(order(servers), ['n2:2', 'n1:1', 'n3:3']);
});

test('the primary is found among the members if its address is not given', () => {
  const servers = start();
  servers.learn({ ...location(5, 3), primaryAddress: '' });
  assert.is(order(servers)[0], 'n3:3');
});

test('it has moved when a later epoch names another address', () => {
  const servers = start();
  assert.not(servers.hasMoved(0, 'n1:1'));
  servers.learn(location(5, 3));
  assert.ok(servers.hasMoved(4, 'n1:1'));
  assert.not(servers.hasMoved(5, 'n1:1'));
  assert.not(servers.hasMoved(4, 'n3:3'));
  servers.learn(location(6, 0));
  assert.not(servers.hasMoved(5, 'n1:1'));
});

test('while a take-over may be under way pauses stay short, then they grow', () => {
  const longest = (servers: number, troubleMs: number): number =>
    Math.max(...Array.from({ length: 20 }, (_, n) => backoffMs(n, 0.999, mostDelayMs(servers, troubleMs))));
  assert.ok(longest(2, 1000) < 400);
  assert.ok(longest(2, 20_000) > 1900);
  assert.ok(longest(1, 1000) > 1900);
});

test.run();
