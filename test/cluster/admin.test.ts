/**
 * What a node is asked and told by ADMIN: a primary hands over while its process goes on, and those that were attached to
 * it are cut off; requests that make no sense are refused one by one; a server that is no node knows none.
 */
// deadline: 200 s
import { connect as connectSocket } from 'node:net';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { nodeStatus } from '../../src/cli/cluster.ts';
import { admin } from '../../src/client/admin.ts';
import { MESSAGES } from '../../src/protocol/messages.ts';
import { TestCluster } from '../support/cluster.ts';
import { infoOption, u32 } from '../support/nbd-client.ts';
import { RawClient } from '../support/raw-client.ts';
import { ServerProcess, temporaryFolder } from '../support/server-process.ts';

const OPT_GO = 7;
const test = suite('ADMIN');

async function withCluster(work: (cluster: TestCluster) => Promise<void>): Promise<void> {
  const cluster = await TestCluster.start(['a', 'b']);
  try {
    await cluster.create('v', '16MiB', 2);
    await cluster.untilSafe();
    await work(cluster);
  } catch (error) {
    console.log(cluster.log().split('\n').slice(-80).join('\n'));
    throw error;
  } finally {
    await cluster.stop();
  }
}

const codeOf = (work: Promise<unknown>): Promise<string> =>
  work.then(
    () => 'done',
    (error: { code: string; message: string }) => `${error.code}: ${error.message}`,
  );

/** An NBD client that is past its handshake; resolves when the server has ended the connection. */
async function nbdAttached(uri: string, name: string): Promise<{ ended: Promise<void> }> {
  const port = Number(uri.split(':').at(-1));
  const socket = connectSocket({ port, host: '127.0.0.1' });
  const ended = new Promise<void>((resolve) => socket.once('close', () => resolve()));
  socket.on('error', () => {});
  let bytes = 0;
  let greeted = false;
  await new Promise<void>((resolve) => {
    socket.on('data', (chunk: Buffer) => {
      bytes += chunk.length;
      if (!greeted && bytes >= 18) {
        greeted = true;
        bytes = 0;
        socket.write(Buffer.concat([u32(3), infoOption(OPT_GO, name)]));
      } else if (bytes >= 20 + 12 + 20) resolve();
    });
  });
  return { ended };
}

test('resign: the clients of that volume are cut off, another one is primary, the replica comes back', () =>
  withCluster(async (cluster) => {
    const primary = await cluster.primary('v');
    const { address, running } = cluster.slot(primary);
    const port = Number(address.split(':').at(-1));
    const attached = await RawClient.attached(port, 7n, 1, null, 'v');
    const idle = await RawClient.connect(port);
    await idle.hello(0n, 0);
    const nbd = await nbdAttached(running!.info.nbd!, 'v');
    assert.equal(await admin(address, { op: 'resign', volume: 'v' }, { timeoutMs: 20_000 }), { resigned: true });
    await attached.closed;
    await nbd.ended;
    assert.is((await idle.ask({ type: MESSAGES.PING.number })).error, null, 'who is attached to nothing stays');
    idle.close();
    const refused = await codeOf(RawClient.attached(port, 8n, 1, null, 'v'));
    assert.match(refused, /^NOT_PRIMARY/);
    await cluster.untilSafe();
    assert.is.not(await cluster.primary('v'), primary);
    const { replicas } = await nodeStatus(address);
    assert.is(replicas[0]!.role, 'following');
    assert.equal(await admin(address, { op: 'resign', volume: 'v' }), { resigned: false });
    assert.match(await codeOf(RawClient.attached(port, 9n, 1, null, 'v')), /NOT_PRIMARY.*the primary is . at 127/);
  }));

test('requests that make no sense are refused, and a member is not deleted', () =>
  withCluster(async (cluster) => {
    // Without --replicas too: a name without a slash is no folder where there is a cluster.
    assert.match(
      await cluster.must('volume', 'create', 'w', '--size', '8MiB', '--allow-sparse'),
      /^created w .* on a, b\n/,
    );
    const { address } = cluster.slot('a');
    const { replicas } = await nodeStatus(address);
    const { volumeId } = replicas[0]!;
    const create = { op: 'create-replica', volumeId: 'ab'.repeat(16), name: 'w', sizeBytes: 4096, state: 'in-sync' };
    const bad: Array<[object, RegExp]> = [
      [{ op: 'nonsense' }, /UNSUPPORTED/],
      [{ op: 7 }, /op is not a text/],
      [{ ...create, volumeId: '../../etc' }, /volumeId is not 32 hex/],
      [{ ...create, name: '../w' }, /no volume name/],
      [{ ...create, sizeBytes: 4097 }, /sizeBytes is not a multiple/],
      [{ ...create, sizeBytes: -1 }, /sizeBytes is not a whole/],
      [{ ...create, state: 'solo' }, /state is not one of/],
      [{ ...create, sparse: 'yes' }, /sparse is not true or false/],
      [{ op: 'delete-replica', volumeId }, /BUSY.*as a member/],
      [{ op: 'promote', volumeId: '00'.repeat(16) }, /NO_SUCH_VOLUME/],
      [{ op: 'status', from: -1 }, /from is not a whole/],
      [{ op: 'adopt', dir: join(cluster.dir, 'nowhere'), name: 'n' }, /NOT_A_VOLUME/],
    ];
    for (const [request, expected] of bad) {
      assert.match(await codeOf(admin(address, request as { op: string })), expected, JSON.stringify(request));
    }
    assert.equal(await admin(address, { op: 'delete-replica', volumeId: 'cd'.repeat(16) }), { deleted: false });
    await cluster.untilSafe();
  }));

test('a server that is no node of a cluster says so', async () => {
  const server = await ServerProcess.start(join(temporaryFolder(), 'vol'), ['--size', '1MiB']);
  assert.match(await codeOf(admin(server.info.listen, { op: 'status' })), /UNSUPPORTED/);
  await server.kill('SIGTERM');
});

test.run();
