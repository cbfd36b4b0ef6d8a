/**
 * Two clusters that reach each other by mistake, with nodes and volumes of the same names: nothing of one gets into the
 * other, and both say so. What tells them apart are the volume's id and the register's, 128 random bits each.
 */
import { connect as connectSocket } from 'node:net';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { connect } from '../../src/client/index.ts';
import { openCoordinator } from '../../src/coordination/open.ts';
import type { Register } from '../../src/coordination/register.ts';
import { type PeerHello, encodePeerHello } from '../../src/protocol/peer-hello.ts';
import { peerHead, peerPayload } from '../../src/protocol/peer.ts';
import { TestCluster } from '../support/cluster.ts';
import { until } from '../support/until.ts';

const test = suite("security, another cluster's node");
let own: TestCluster;
let foreign: TestCluster;

function peerAddress(cluster: TestCluster, name: string): string {
  const { args } = cluster.slot(name);
  return args[args.indexOf('--peer-listen') + 1]!;
}

async function registerOf(cluster: TestCluster): Promise<Register> {
  const coordinator = openCoordinator(cluster.coordinatorUrl);
  const [register] = await coordinator.list();
  await coordinator.close();
  return register!;
}

test.before(async () => {
  own = await TestCluster.start(['a', 'b']);
  foreign = await TestCluster.start(['a', 'b']);
  for (const cluster of [own, foreign]) {
    await cluster.create('v', '8MiB', 2);
    await cluster.untilSafe();
  }
});

test.after(async () => {
  await own.stop();
  await foreign.stop();
});

async function content(cluster: TestCluster): Promise<string> {
  const volume = await connect(cluster.url('v'));
  const bytes = Buffer.from(await volume.read(0, 3)).toString();
  await volume.close();
  return bytes;
}

test('a primary that is sent to the replica of another cluster changes nothing there', async () => {
  const written = await connect(own.url('v'));
  await written.write(0, Buffer.from('own'));
  await written.close();
  const primary = await foreign.primary('v');
  const backup = primary === 'a' ? 'b' : 'a';
  await foreign.kill(backup);
  // Whoever manages the foreign cluster has mixed up the addresses.
  const coordinator = openCoordinator(foreign.coordinatorUrl);
  const clientAddress = foreign.slot(backup).address;
  const wrong = { node: backup, address: peerAddress(own, backup), clientAddress, freeBytes: 1 };
  const stop = setInterval(() => void coordinator.announce(wrong).catch(() => {}), 500);
  try {
    await until(() => own.log().includes('"msg":"refused: a replica"'), 'a line in the log of the one that was called');
    assert.match(own.log(), /another cluster has a volume of that name/);
    await until(() => foreign.log().includes('another cluster has a volume'), 'the reason in the log of the caller');
  } finally {
    clearInterval(stop);
    await coordinator.close();
  }
  const other = await connect(foreign.url('v'));
  await other.write(0, Buffer.from('foe'));
  await other.close();
  assert.is(await content(own), 'own');
  await own.untilSafe();
  await foreign.restart(backup);
  await foreign.untilSafe();
  assert.is(await content(foreign), 'foe');
});

/** What a node says to that HELLO; it says nothing if it takes it, and the caller leaves after HELLO. */
function knock(address: string, hello: PeerHello): Promise<string> {
  return new Promise((resolve) => {
    const [host, port] = address.split(':');
    const socket = connectSocket({ host: host!, port: Number(port) });
    let heard = '';
    socket.setEncoding('latin1');
    socket.on('data', (chunk: string) => {
      heard += chunk;
      socket.end();
    });
    socket.on('error', () => {});
    socket.on('close', () => resolve(heard));
    socket.write(peerHead(peerPayload('HELLO', encodePeerHello(hello)), 0));
  });
}

test('a copied disk whose register is another one', async () => {
  const { volumeId, registerId } = await registerOf(own);
  const primary = await own.primary('v');
  const backup = primary === 'a' ? 'b' : 'a';
  const ids = { volumeId, streamId: '33'.repeat(16) };
  const hello = { minVersion: 1, maxVersion: 1, volume: 'v', from: 'c', to: backup, bootId: 'boot' };
  const there = peerAddress(own, backup);
  const refused = await knock(there, { ...hello, ...ids, registerId: (await registerOf(foreign)).registerId });
  assert.match(refused, /c belongs to register .*another cluster/);
  assert.not.match(await knock(there, { ...hello, ...ids, registerId }), /another cluster/);
  await until(() => own.log().includes('c belongs to register'), 'a line of log');
});

test.run();
