/** A real server by itself: where it says its volume is, and what an attachment for reading may do. */
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { connect } from '../../src/client/index.ts';
import { encodeAttach } from '../../src/protocol/handshake.ts';
import { decodeLocation, encodeLocate } from '../../src/protocol/location.ts';
import { encodeMark } from '../../src/protocol/marks.ts';
import { MESSAGES } from '../../src/protocol/messages.ts';
import { RawClient } from '../support/raw-client.ts';
import { holdfast, ServerProcess, temporaryFolder } from '../support/server-process.ts';

const test = suite('a node by itself');
let server: ServerProcess;

test.before(async () => {
  server = await ServerProcess.start(join(temporaryFolder(), 'vol'), ['--size', '16MiB']);
});
test.after(async () => {
  assert.equal(await server.kill('SIGTERM'), { code: 0, signal: null });
});

test('LOCATE needs no ATTACH, and names the one member by the address that was dialled', async () => {
  const client = await RawClient.connect(server.port);
  await client.hello(0n, 0);
  for (const name of ['', 'vol']) {
    const reply = await client.ask({ type: MESSAGES.LOCATE.number }, encodeLocate(name));
    const { volumeId, ...rest } = decodeLocation(reply.payload);
    const here = `127.0.0.1:${server.port}`;
    assert.is(volumeId.length, 16);
    assert.equal(rest, {
      name: 'vol',
      epoch: 1,
      primary: 'here',
      primaryAddress: here,
      reads: 'primary',
      members: [{ node: 'here', clientAddress: here, inSync: true }],
    });
  }
  const other = await client.ask({ type: MESSAGES.LOCATE.number }, encodeLocate('other'));
  assert.is(other.error?.code, 'NO_SUCH_VOLUME');
  client.close();
});

test('LOCATE before HELLO, or one that does not decode, ends the connection', async () => {
  for (const hello of [false, true]) {
    const client = await RawClient.connect(server.port);
    if (hello) await client.hello(0n, 0);
    const payload = hello ? Uint8Array.of(9, 0, 1) : encodeLocate('');
    assert.is((await client.ask({ type: MESSAGES.LOCATE.number }, payload)).error?.code, 'CONNECTION_LOST');
    assert.is(client.goodbye?.code, 'BAD_FRAME');
  }
});

test('attached for reading: reads, no mutation, and no session is fenced', async () => {
  const writer = await RawClient.attached(server.port, 77n, 1);
  assert.is((await writer.write(1, 4096, Uint8Array.of(5))).error, null);
  const reader = await RawClient.connect(server.port);
  // The same session and a higher generation: were it an attachment of the session, the writer would be revoked.
  await reader.hello(77n, 2);
  const payload = encodeAttach({ volume: 'vol', since: null, access: 'any' });
  assert.is((await reader.ask({ type: MESSAGES.ATTACH.number }, payload)).error, null);
  reader.epoch = writer.epoch;
  assert.equal([...(await reader.read(4096, 2)).payload!], [5, 0]);
  const { WRITE, ZERO, TRIM, MARK, FLUSH } = MESSAGES;
  const refused = [
    await reader.write(1, 4096, new Uint8Array(4096)),
    await reader.ask({ type: WRITE.number, requestId: 2, offset: 1, count: 1 }, Uint8Array.of(1)),
    await reader.ask({ type: ZERO.number, requestId: 3, offset: 4096, count: 4096 }),
    await reader.ask({ type: TRIM.number, requestId: 4, offset: 4096, count: 4096 }),
    await reader.ask({ type: MARK.number, requestId: 5 }, encodeMark({ action: 'set', name: 'monday' })),
  ];
  for (const reply of refused) assert.is(reply.error?.code, 'READ_ONLY', `type ${reply.type}`);
  assert.is((await reader.ask({ type: FLUSH.number })).error, null);
  assert.equal([...(await reader.read(4096, 2)).payload!], [5, 0]);
  assert.is((await writer.write(2, 4096, Uint8Array.of(6))).error, null);
  // Nothing that a refused WRITE came in is lost: many more than there is memory for.
  for (let i = 0; i < 600; i++) await reader.write(6 + i, 0, new Uint8Array(262_144));
  assert.is((await writer.write(3, 0, new Uint8Array(262_144))).error, null);
  reader.close();
  writer.close();
});

test('every policy of reads works with one node', async () => {
  for (const reads of ['primary', 'any', 'all'] as const) {
    const volume = await connect(server.url, { reads });
    await volume.write(8192, Buffer.from(reads));
    assert.is(Buffer.from(await volume.read(8192, reads.length)).toString(), reads);
    assert.is((await volume.read(0, 3 * 1024 * 1024)).length, 3 * 1024 * 1024);
    await volume.close();
  }
});

test('on the command line', async () => {
  const read = (policy: string): ReturnType<typeof holdfast> =>
    holdfast(['read', server.url, '--offset', '8192', '--length', '3', '--reads', policy]);
  for (const policy of ['primary', 'any', 'all']) assert.is((await read(policy)).stdout.toString(), 'all', policy);
  const odd = await read('some');
  assert.is.not(odd.code, 0);
  assert.match(odd.stderr, 'primary, any or all');
  const gateway = await holdfast(['nbd', server.url, '--listen', '127.0.0.1:0', '--reads', 'all']);
  assert.is.not(gateway.code, 0);
  assert.match(gateway.stderr, 'write primary or any');
});

test.run();
