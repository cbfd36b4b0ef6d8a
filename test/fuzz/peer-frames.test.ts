/**
 * Bytes that no replica should send. Streams of good frames are damaged in every way that comes to mind; whatever comes,
 * the decoder delivers only messages that were sent whole, unchanged and in their place, keeps its limits, and says once
 * that the stream is malformed. A failing case names its seed: HOLDFAST_FUZZ_SEED runs that one alone.
 */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { HoldfastError } from '../../src/base/errors.ts';
import {
  MAX_PEER_PAYLOAD_BYTES,
  PEER_HEADER_BYTES,
  PEER_MESSAGES,
  PeerFrameDecoder,
  type PeerFrameType,
  type PeerMessageName,
} from '../../src/protocol/peer-frame.ts';
import {
  decodePeerGoodbye,
  decodePeerHello,
  encodePeerGoodbye,
  encodePeerHello,
} from '../../src/protocol/peer-hello.ts';
import { type PeerPayload, decodePeer, encodePeer, peerHead, peerPayload } from '../../src/protocol/peer.ts';
import type { PeerMessage } from '../../src/replication/peer-messages.ts';
import { Random } from '../support/random.ts';

const CASES = 10_000;
const only = process.env['HOLDFAST_FUZZ_SEED'];
const seeds = only === undefined ? Array.from({ length: CASES }, (_, i) => i) : [Number(only)];

const at = { epoch: 3, seq: 77 };
const id = 'c5'.repeat(16);
const block = new Uint8Array(4096).map((_, i) => i * 7);
const messages: Record<'primary' | 'replica', PeerMessage[]> = {
  primary: [
    { type: 'JOIN', epoch: 3, registerId: id, registerVersion: 9, role: 'target' },
    { type: 'RECORD', bytes: block.subarray(0, 96) },
    { type: 'RECORD', bytes: block },
    { type: 'BEAT', n: 12, committed: at },
    { type: 'COPY', id: 4, firstBlock: 100, blockCount: 1, payload: block },
    { type: 'COPY', id: 5, firstBlock: 100, blockCount: 64, payload: null },
    { type: 'BARRIER', position: at },
    { type: 'HANDOVER', of: 'mark', name: 'monday', position: at, runs: [0, 5, 9, 100, 2 ** 32 - 1, 1] },
    { type: 'RESIGNED', epoch: 3 },
    { type: 'FINISH', committed: at, sessions: [block, block.subarray(0, 9)] },
  ],
  replica: [
    { type: 'STATUS', epoch: 3, diskId: id, state: 'syncing', base: at, last: at, suspects: [7, 1, 9, 3] },
    { type: 'REFUSED', epoch: 3, reason: 'it is über' },
    { type: 'ACK', position: at },
    { type: 'ECHO', n: 12, promiseMs: 500 },
    { type: 'COPY_ACK', id: 4 },
    { type: 'FINISHED' },
  ],
};
const hello = encodePeerHello({
  minVersion: 1,
  maxVersion: 1,
  volumeId: id,
  registerId: id,
  streamId: id,
  volume: 'demo',
  from: 'a',
  to: 'b',
  bootId: 'boot',
});
const goodbye = encodePeerGoodbye(new HoldfastError('DEADLINE', { detail: 'x', remedy: 'y' }));

const CORPUS: Record<'hello' | 'primary' | 'replica', PeerPayload[]> = {
  hello: [peerPayload('HELLO', hello), peerPayload('GOODBYE', goodbye)],
  primary: messages.primary.map(encodePeer),
  replica: messages.replica.map(encodePeer),
};

const asFrame = (payload: PeerPayload, number: number): Buffer =>
  Buffer.concat([peerHead(payload, number), payload.content]);
const identity = (name: string, payload: Uint8Array): string => name + Buffer.from(payload).toString('latin1');

/** What one decoder does with a stream that comes in pieces. */
function decode(accepts: 'hello' | 'primary' | 'replica', stream: Uint8Array, random: Random) {
  const delivered: string[] = [];
  const errors: HoldfastError[] = [];
  const decoder = new PeerFrameDecoder({
    onFrame: (type, payload) => {
      assert.is(errors.length, 0, 'a frame after the stream was malformed');
      assert.ok(payload.length <= MAX_PEER_PAYLOAD_BYTES);
      delivered.push(identity(type.name, payload));
      if (accepts !== 'hello' && type.name !== 'GOODBYE') decodePeer(type, payload);
    },
    onMalformed: (e) => void errors.push(e),
  });
  decoder.accepts = accepts;
  for (let from = 0; from < stream.length;) {
    const size = random.chance(0.5) ? 1 + random.below(40) : 1 + random.below(9000);
    // Spoilt afterwards: nothing may refer to it.
    const chunk = Uint8Array.from(stream.subarray(from, from + size));
    from += chunk.length;
    decoder.push(chunk);
    chunk.fill(0x55);
  }
  return { delivered, errors, midFrame: decoder.midFrame };
}

/** @returns the damaged stream, and up to which byte it is as it was */
function damage(good: Buffer, starts: number[], random: Random): { stream: Buffer; intactBytes: number } {
  const stream = Buffer.from(good);
  // Half of the time where it hurts: in a header.
  const where = random.chance(0.5)
    ? Math.min(stream.length - 1, starts[random.below(starts.length)]! + random.below(PEER_HEADER_BYTES))
    : random.below(stream.length);
  const insert = (bytes: Uint8Array): Buffer =>
    Buffer.concat([stream.subarray(0, where), bytes, stream.subarray(where)]);
  switch (random.below(8)) {
    case 0:
      stream[where]! ^= 1 << random.below(8);
      return { stream, intactBytes: where };
    case 1:
      stream[where] = [0, 1, 0x7f, 0x80, 0xff][random.below(5)]!;
      return { stream, intactBytes: where };
    case 2:
      stream.fill(random.below(256), where, Math.min(stream.length, where + 1 + random.below(200)));
      return { stream, intactBytes: where };
    case 3:
      return {
        stream: Buffer.concat([stream.subarray(0, where), stream.subarray(where + 1 + random.below(100))]),
        intactBytes: where,
      };
    case 4:
      return { stream: insert(random.bytes(1 + random.below(100))), intactBytes: where };
    case 5: {
      // A frame once more, whole: only its number tells.
      const i = random.below(starts.length);
      const [from, to] = [starts[i]!, starts[i + 1] ?? good.length];
      return { stream: Buffer.concat([good.subarray(0, to), good.subarray(from)]), intactBytes: to };
    }
    case 6: {
      const i = random.below(starts.length);
      const [from, to] = [starts[i]!, starts[i + 1] ?? good.length];
      return { stream: Buffer.concat([good.subarray(0, from), good.subarray(to)]), intactBytes: from };
    }
    default:
      return { stream: stream.subarray(0, where), intactBytes: where };
  }
}

for (const accepts of ['hello', 'primary', 'replica'] as const) {
  test(`${accepts}: a damaged stream delivers a beginning of what was sent, then at most one error`, () => {
    let malformed = 0;
    for (const seed of seeds) {
      const random = new Random(seed);
      const sent = Array.from(
        { length: 1 + random.below(6) },
        () => CORPUS[accepts][random.below(CORPUS[accepts].length)]!,
      );
      const frames = sent.map(asFrame);
      const starts: number[] = [];
      let end = 0;
      for (const frame of frames) {
        starts.push(end);
        end += frame.length;
      }
      const { stream, intactBytes } = damage(Buffer.concat(frames), starts, random);
      const got = decode(accepts, stream, random);
      const where = `seed ${seed}`;
      assert.ok(got.errors.length <= 1, where);
      malformed += got.errors.length;
      for (const e of got.errors) assert.ok(['BAD_FRAME', 'TOO_LARGE', 'WRONG_VERSION'].includes(e.code), where);
      // In order, nothing left out, nothing twice: a prefix.
      const all = sent.map(({ name, fields, content }) => identity(name, Buffer.concat([fields, content])));
      assert.equal(got.delivered, all.slice(0, got.delivered.length), where);
      const intact = frames.filter((frame, i) => starts[i]! + frame.length <= intactBytes).length;
      assert.ok(got.delivered.length >= intact, where);
    }
    // Else the damage is none, and the test proves nothing.
    if (only === undefined) assert.ok(malformed > CASES / 2, `${malformed} streams were malformed`);
  });
}

test('garbage is malformed at its first header', () => {
  for (const seed of seeds.slice(0, 2000)) {
    const random = new Random(seed);
    const got = decode('primary', random.bytes(PEER_HEADER_BYTES + random.below(2000)), random);
    assert.is(got.errors.length, 1, `seed ${seed}`);
    assert.equal(got.delivered, []);
    assert.not(got.midFrame);
  }
});

const typeOf = (name: PeerMessageName): PeerFrameType => ({ ...PEER_MESSAGES[name], name });
const DECODERS: Array<[string, Uint8Array, (bytes: Uint8Array) => unknown]> = [
  ['HELLO', hello, decodePeerHello],
  ['GOODBYE', goodbye, decodePeerGoodbye],
  ...[...CORPUS.primary, ...CORPUS.replica]
    .filter(({ name, fields }) => name !== 'RECORD' && fields.length > 0)
    .map(({ name, fields, content }): [string, Uint8Array, (bytes: Uint8Array) => unknown] => [
      name,
      Buffer.concat([fields, content]),
      (bytes) => decodePeer(typeOf(name), bytes),
    ]),
];

for (const [what, good, decodePayload] of DECODERS) {
  test(`a damaged ${what} of ${good.length} bytes decodes to something or is a bad frame`, () => {
    let refused = 0;
    for (const seed of seeds.slice(0, 1000)) {
      const random = new Random(seed);
      try {
        decodePayload(Uint8Array.from(damage(Buffer.from(good), [0], random).stream));
      } catch (e) {
        refused++;
        assert.is(e instanceof HoldfastError ? e.code : String(e), 'BAD_FRAME', `seed ${seed}`);
      }
    }
    if (only === undefined) assert.ok(refused > 100, `${refused} were refused`);
  });
}

test.run();
