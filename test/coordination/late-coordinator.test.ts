/** A coordinator that is late once is not said to be away; one that is away is. */
import { type AddressInfo, type Socket, connect, createServer } from 'node:net';
import { once } from 'node:events';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { openCoordinator } from '../../src/coordination/open.ts';
import { RegisterLink } from '../../src/node/register-link.ts';
import { CoordinatorProcess } from '../support/coordinators.ts';
import { temporaryFolder } from '../support/server-process.ts';
import { until } from '../support/until.ts';

const test = suite('late coordinator');
/** So long that only those are late that are to be. */
const DEADLINE_MS = 1500;

/** In front of a coordinator: takes connections, and leaves the next ones without an answer. */
async function inFront(port: number): Promise<{ url: string; silent: { next: number }; close: () => void }> {
  const silent = { next: 0 };
  const sockets: Set<Socket> = new Set();
  const server = createServer((socket) => {
    sockets.add(socket.on('error', () => {}));
    if (silent.next > 0) {
      silent.next--;
      return void socket.resume();
    }
    const on = connect(port, '127.0.0.1').on('error', () => socket.destroy());
    sockets.add(on);
    socket.pipe(on).pipe(socket);
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const close = (): void => {
    server.close();
    for (const socket of sockets) socket.destroy();
  };
  return { url: `holdfast://127.0.0.1:${(server.address() as AddressInfo).port}`, silent, close };
}

test('a node asks again before it says that the coordinator does not answer', async () => {
  const process = await CoordinatorProcess.start(join(temporaryFolder(), 'coordinator'));
  const front = await inFront(Number(process.address.split(':').at(-1)));
  const quick = openCoordinator(front.url, { deadlineMs: DEADLINE_MS });
  const patient = openCoordinator(process.url);
  const said: string[] = [];
  // Calls, not connections: a call may try a second time in the last millisecond of its deadline.
  let asked = 0;
  const read = quick.read.bind(quick);
  quick.read = (volumeId) => {
    asked++;
    return read(volumeId);
  };
  const log = (message: string): void => void said.push(message);
  const parts = { volumeId: 'ab'.repeat(16), node: 'a', bootId: 'b', quick, patient, learned: () => {}, log };
  const link = new RegisterLink(parts);
  try {
    front.silent.next = 1;
    link.read();
    await until(() => link.absent, 'an answer to the second call');
    assert.is(asked, 2);
    assert.equal(said, []);
    front.silent.next = Infinity;
    link.read();
    await until(() => said.length > 0, 'the node to say so');
    assert.equal(said, ['the coordinator does not answer']);
    assert.is(asked, 4, 'it was asked twice');
    front.silent.next = 0;
    link.read();
    await until(() => said.length > 1, 'an answer');
    assert.equal(said[1], 'the coordinator answers again');
  } finally {
    link.close();
    await Promise.all([quick.close(), patient.close()]);
    front.close();
    await process.kill();
  }
});

test.run();
