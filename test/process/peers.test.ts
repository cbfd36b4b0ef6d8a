/**
 * Streams between replicas over real sockets: order, ends, refusals with a reason, and those that are silent, flood or
 * talk nonsense. With a second process: peer-kill.test.ts.
 */
import { once } from 'node:events';
import { type Server, type Socket, connect, createServer } from 'node:net';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { parseAddress } from '../../src/node/listen.ts';
import type { PeerStream } from '../../src/node/peer-link.ts';
import type { PeerLimits } from '../../src/node/peer-server.ts';
import { PEER_HEADER_BYTES, PeerFrameDecoder } from '../../src/protocol/peer-frame.ts';
import { type PeerHello, decodePeerGoodbye, encodePeerHello } from '../../src/protocol/peer-hello.ts';
import { peerHead, peerPayload } from '../../src/protocol/peer.ts';
import type { PeerMessage } from '../../src/replication/peer-messages.ts';
import { PeerNode, REGISTER_ID, VOLUME_ID, Witness, fillRecord, linked, recordIndex } from '../support/peer-node.ts';
import { Random } from '../support/random.ts';
import { until } from '../support/until.ts';

const nodes: PeerNode[] = [];
const sockets: Socket[] = [];
const servers: Server[] = [];

test.after.each(async () => {
  await Promise.all(nodes.splice(0).map(({ network }) => network.close()));
  for (const socket of sockets.splice(0)) socket.destroy();
  for (const server of servers.splice(0)) server.close();
});

async function start(name: string, witness = new Witness(), limits: Partial<PeerLimits> = {}): Promise<PeerNode> {
  const node = await PeerNode.start(name, witness, limits);
  nodes.push(node);
  return node;
}

// --- between two networks -----------------------------------------------------------------------------------------------

test('what is sent comes in order, also of one turn, from shared memory, both ways', async () => {
  const [a, b] = [await start('a'), await start('b')];
  const link = await linked(a, 'b', b.address);
  assert.is(link.node, 'b');
  const memory = new Uint8Array(new SharedArrayBuffer(300_000));
  const at = { epoch: 1, seq: 2 };
  const sent: PeerMessage[] = [{ type: 'JOIN', epoch: 1, registerId: REGISTER_ID, registerVersion: 1, role: 'member' }];
  const random = new Random(5);
  for (let i = 0, from = 0; i < 300; i++, from += 900) {
    const bytes = memory.subarray(from, from + 96 + random.below(800));
    fillRecord(bytes, i);
    sent.push({ type: 'RECORD', bytes }, { type: 'BEAT', n: i, committed: at });
  }
  const order: number[] = [];
  sent.forEach((message, i) => link.send(message, () => order.push(i)));
  assert.equal(order, [], 'not within the call');
  await until(() => b.witness.got.length === sent.length, 'all messages');
  assert.equal(
    b.witness.messages,
    sent.map((m) => (m.type === 'RECORD' ? { ...m, bytes: Uint8Array.from(m.bytes) } : m)),
  );
  await until(() => order.length === sent.length, 'all sent');
  assert.equal(
    order,
    sent.map((_, i) => i),
  );
  const back = b.witness.got[0]!.link;
  assert.is(back.node, 'a');
  back.send({ type: 'ACK', position: at });
  back.send({ type: 'FINISHED' });
  await until(() => a.witness.got.length === 2, 'the answers');
  assert.equal(a.witness.messages, [{ type: 'ACK', position: at }, { type: 'FINISHED' }]);
  assert.is((link as PeerStream).queuedBytes, 0);
});

test("record bytes that arrive are the receiver's own", async () => {
  const [a, b] = [await start('a'), await start('b')];
  const link = await linked(a, 'b', b.address);
  const memory = new Uint8Array(8192);
  for (let i = 0; i < 200; i++) {
    const bytes = memory.slice(0, 96 + i * 31);
    fillRecord(bytes, i);
    link.send({ type: 'RECORD', bytes });
  }
  await until(() => b.witness.got.length === 200, 'all records');
  assert.equal(
    b.witness.messages.map((m) => m.type === 'RECORD' && recordIndex(m.bytes)),
    Array.from({ length: 200 }, (_, i) => i),
  );
});

test('several volumes share a port: HELLO tells which is meant', async () => {
  const [a, b] = [await start('a'), await start('b')];
  const other = 'ab'.repeat(16);
  const [there, here] = [new Witness('other', other), new Witness('other', other)];
  b.network.join(there);
  const port = a.network.join(here);
  assert.throws(() => a.network.join(new Witness('other', other)), /EEXIST/);
  const link = await linked(a, 'b', b.address);
  port.connect('b', b.address);
  await until(() => here.links.length === 1, 'the second stream');
  link.send({ type: 'RESIGNED', epoch: 1 });
  here.links[0]!.send({ type: 'RESIGNED', epoch: 2 });
  await until(() => b.witness.got.length === 1 && there.got.length === 1, 'a message for each');
  assert.equal(b.witness.messages, [{ type: 'RESIGNED', epoch: 1 }]);
  assert.equal(there.messages, [{ type: 'RESIGNED', epoch: 2 }]);
  // One volume leaves; its stream ends, the other one's goes on.
  port.leave();
  await until(() => there.ends.length === 1, 'the end of one');
  link.send({ type: 'RESIGNED', epoch: 3 });
  await until(() => b.witness.got.length === 2, 'a message of the other');
  assert.equal([b.witness.ends, here.ends], [[], []]);
});

test('close: what was sent before it may come, nothing is delivered after it, and only the other end is told', async () => {
  const [a, b] = [await start('a'), await start('b')];
  const link = await linked(a, 'b', b.address);
  let sent = 0;
  const bytes = new Uint8Array(200_000);
  link.send({ type: 'RESIGNED', epoch: 1 });
  for (let i = 0; i < 200; i++) link.send({ type: 'RECORD', bytes }, () => sent++);
  link.close();
  link.send({ type: 'RECORD', bytes }, () => sent++);
  link.close();
  await until(() => b.witness.ends.length === 1 && sent === 201, 'the end');
  assert.equal(b.witness.messages[0], { type: 'RESIGNED', epoch: 1 });
  assert.is(b.witness.ends[0]!.node, 'a');
  assert.is(b.witness.ends[0]!.link, b.witness.got[0]!.link);
  assert.equal(a.witness.ends, []);
  // The end that was called closes within a callback: the rest of what has come is not delivered.
  b.witness.got.length = 0;
  let delivered = 0;
  b.witness.onMessage = (from) => {
    delivered++;
    from.close();
  };
  const again = await linked(a, 'b', b.address);
  for (let n = 0; n < 100; n++) again.send({ type: 'RESIGNED', epoch: n });
  await until(() => a.witness.ends.length === 1, 'the other end');
  assert.is(delivered, 1);
  assert.is(a.witness.ends[0]!.link, again);
  assert.is(b.witness.ends.length, 1);
  await until(() => a.network.streamCount + b.network.streamCount === 0, 'nothing left');
});

test('a network that closes lets out what was sent', async () => {
  const [a, b] = [await start('a'), await start('b')];
  const link = await linked(a, 'b', b.address);
  const bytes = new Uint8Array(200_000);
  for (let i = 0; i < 50; i++) link.send({ type: 'RECORD', bytes });
  link.send({ type: 'RESIGNED', epoch: 7 });
  await a.network.close();
  await until(() => b.witness.ends.length === 1, 'the end');
  assert.is(b.witness.got.length, 51);
  assert.equal(b.witness.messages.at(-1), { type: 'RESIGNED', epoch: 7 });
});

test('of the streams of one node the newest counts', async () => {
  const [a, b] = [await start('a'), await start('b')];
  const first = await linked(a, 'b', b.address);
  first.send({ type: 'RESIGNED', epoch: 1 });
  await until(() => b.witness.got.length === 1, 'the first stream');
  const twin = await PeerNode.start('a');
  nodes.push(twin);
  await linked(twin, 'b', b.address);
  await until(() => a.witness.ends.length === 1 && b.witness.ends.length === 1, 'the end of the older one');
  assert.is(b.witness.ends[0]!.link, b.witness.got[0]!.link);
  assert.is(a.witness.ends[0]!.link, first);
  assert.equal(twin.witness.ends, []);
});

// --- refusals -----------------------------------------------------------------------------------------------------------

test('refused with a reason, once: wrong node, wrong volume, wrong register, nobody there, no address', async () => {
  const b = await start('b');
  const c = await start('c', new Witness('demo', VOLUME_ID, 'e3'.repeat(16)));
  const d = await start('d', new Witness('demo', 'd4'.repeat(16)));
  const free = await start('free');
  await free.network.close();
  const cases: Array<[string, string | null, RegExp]> = [
    ['x', b.address, /a called x and reached b/],
    ['c', c.address, /a belongs to register e2e2.*, c to e3e3/],
    ['d', d.address, /a has demo as d1d1.*, d has demo as d4d4/],
    ['free', free.address, /ECONNREFUSED/],
    ['none', null, /no address/],
    ['bad', 'nonsense', /is no address/],
  ];
  for (const [node, address, says] of cases) {
    const a = await start('a');
    a.port.connect(node, address);
    assert.equal(a.witness.ends, [], 'not within the call');
    await until(() => a.witness.ends.length > 0, `the refusal of ${node}`);
    await until(() => a.network.streamCount === 0, 'its end');
    assert.equal(a.witness.ends, [{ node, link: null }]);
    assert.equal(a.witness.links, []);
    assert.is(a.log.length, 1);
    assert.match(a.log[0]!, says);
    await a.network.close();
  }
  for (const { witness, network } of [b, c, d]) {
    await until(() => network.streamCount === 0, 'the end of what was refused');
    assert.equal([witness.ends, witness.got], [[], []]);
  }
  // Whoever belongs to no register yet is taken.
  const fresh = await start('a', new Witness('demo', VOLUME_ID, '00'.repeat(16)));
  await linked(fresh, 'b', b.address);
});

test('asking twice while a stream is being opened gives one stream; another address replaces it', async () => {
  const [a, b] = [await start('a'), await start('b')];
  a.port.connect('b', b.address);
  a.port.connect('b', b.address);
  await until(() => a.witness.links.length === 1, 'a stream');
  a.port.connect('b', await silentServer());
  a.port.connect('b', b.address);
  await until(() => a.witness.links.length === 2, 'another stream');
  a.witness.links[1]!.send({ type: 'RESIGNED', epoch: 9 });
  await until(() => b.witness.got.length === 1, 'a message');
  assert.equal(a.witness.links.length, 2);
  assert.ok(
    a.witness.ends.every(({ link }) => link === a.witness.links[0]),
    'only the first stream ended',
  );
});

/** It takes connections and says nothing. */
async function silentServer(): Promise<string> {
  const server = createServer((socket) => sockets.push(socket.on('error', () => {})));
  servers.push(server);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return `127.0.0.1:${(server.address() as { port: number }).port}`;
}

// --- those that do not speak the protocol ----------------------------------------------------------------------------------

/** A bare socket at a node's port. */
async function bare(node: PeerNode): Promise<{ socket: Socket; said: string[]; closed: Promise<unknown> }> {
  const socket = connect(parseAddress(node.address));
  sockets.push(socket);
  socket.on('error', () => {});
  const closed = once(socket, 'close');
  const said: string[] = [];
  const decoder = new PeerFrameDecoder({
    onFrame: (type, payload) => {
      said.push(type.name === 'GOODBYE' ? decodePeerGoodbye(payload).message : type.name);
      decoder.accepts = 'replica';
    },
    onMalformed: (error) => said.push(error.message),
  });
  socket.on('data', (chunk: Buffer) => decoder.push(chunk));
  await once(socket, 'connect');
  return { socket, said, closed };
}

const hello = (change: Partial<PeerHello> = {}): Uint8Array =>
  peerHead(
    peerPayload(
      'HELLO',
      encodePeerHello({
        minVersion: 1,
        maxVersion: 1,
        volumeId: VOLUME_ID,
        registerId: REGISTER_ID,
        streamId: '77'.repeat(16),
        volume: 'demo',
        from: 'bare',
        to: 'b',
        bootId: 'none',
        ...change,
      }),
    ),
    0,
  );

test('silence, half a HELLO, a wrong version and garbage end with a reason; the volume hears nothing', async () => {
  const b = await start('b', new Witness(), { handshakeMs: 300 });
  const good = await linked(await start('a'), 'b', b.address);
  for (const [bytes, says] of [
    [new Uint8Array(0), /no HELLO from .* within 300 ms/],
    [hello().subarray(0, 30), /no HELLO from .* within 300 ms/],
    [hello({ minVersion: 5, maxVersion: 6 }), /bare speaks 5 to 6, b 1 to 1/],
    [hello({ to: 'q' }), /bare called q and reached b/],
    [hello({ volume: 'gone', volumeId: '01'.repeat(16) }), /b has no replica of gone/],
    [Buffer.from('GET / HTTP/1.1\r\nHost: example.org\r\n\r\n'), /not the protocol between replicas/],
    [new Random(3).bytes(200_000), /not the protocol between replicas/],
  ] as const) {
    const { socket, said, closed } = await bare(b);
    socket.write(bytes);
    await closed;
    assert.is(said.length, 1);
    assert.match(said[0]!, says);
  }
  assert.equal([b.witness.ends, b.witness.got], [[], []]);
  good.send({ type: 'RESIGNED', epoch: 1 });
  await until(() => b.witness.got.length === 1, 'the good stream');
});

test('many that say nothing keep nobody out', async () => {
  const b = await start('b', new Witness(), { maxUnknown: 4, handshakeMs: 60_000 });
  const silent = await Promise.all(Array.from({ length: 40 }, () => bare(b)));
  const a = await start('a');
  await linked(a, 'b', b.address);
  await Promise.all(silent.slice(0, 30).map(({ closed }) => closed));
  await until(() => b.network.streamCount <= 5, 'no more than the limit');
});

test('more streams than the limit are turned away', async () => {
  const b = await start('b', new Witness(), { maxStreams: 2 });
  await bare(b);
  await bare(b);
  const a = await start('a');
  a.port.connect('b', b.address);
  await until(() => a.witness.ends.length === 1, 'the refusal');
  assert.equal(a.witness.ends, [{ node: 'b', link: null }]);
});

test('a called node that says nothing is given up', async () => {
  const a = await start('a', new Witness(), { handshakeMs: 300 });
  a.port.connect('b', await silentServer());
  await until(() => a.witness.ends.length === 1, 'the end of the attempt');
  assert.equal(a.witness.ends, [{ node: 'b', link: null }]);
  assert.match(a.log[0]!, /no HELLO from .* within 300 ms/);
});

test('garbage on an open stream ends it: once, with a reason, and nothing behind it is delivered', async () => {
  const b = await start('b');
  const { socket, said, closed } = await bare(b);
  const beat = (number: number): Uint8Array =>
    peerHead(peerPayload('RESIGNED', Uint8Array.of(number, 0, 0, 0, 0, 0, 0, 0)), number);
  socket.write(Buffer.concat([hello(), beat(1), new Uint8Array(PEER_HEADER_BYTES), beat(2), beat(3)]));
  await closed;
  assert.is(said[0], 'HELLO');
  assert.match(said[1]!, /not the protocol between replicas/);
  assert.equal(b.witness.messages, [{ type: 'RESIGNED', epoch: 1 }]);
  await until(() => b.witness.ends.length === 1, 'the end');
  assert.equal(b.witness.ends[0], { node: 'bare', link: b.witness.got[0]!.link });
});

test('a stream on which a frame was begun and not finished ends', async () => {
  const b = await start('b', new Witness(), { stallMs: 500 });
  const { socket, said, closed } = await bare(b);
  socket.write(Buffer.concat([hello(), new Uint8Array(3)]));
  await closed;
  assert.match(said.at(-1)!, /stopped within a frame/);
  await until(() => b.witness.ends.length === 1, 'the end');
});

test.run();
