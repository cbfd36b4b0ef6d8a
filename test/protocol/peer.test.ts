/** Messages between replicas: what is encoded decodes to the same, however it is cut, within stated bounds. */
import fc from 'fast-check';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { HoldfastError } from '../../src/base/errors.ts';
import { BLOCK_BYTES, MAX_IO_BLOCKS } from '../../src/base/units.ts';
import {
  MAX_PEER_PAYLOAD_BYTES,
  MAX_RUNS,
  MAX_SESSION_PAGES,
  PEER_HEADER_BYTES,
  PEER_MESSAGES,
  PeerFrameDecoder,
  type PeerSender,
  encodePeerHeader,
} from '../../src/protocol/peer-frame.ts';
import {
  type PeerHello,
  decodePeerGoodbye,
  decodePeerHello,
  encodePeerGoodbye,
  encodePeerHello,
  refusalOf,
} from '../../src/protocol/peer-hello.ts';
import { decodePeer, encodePeer, mergeRuns, peerHead, peerPayload } from '../../src/protocol/peer.ts';
import type { PeerMessage } from '../../src/replication/peer-messages.ts';

const record: typeof fc.record = (model: object, constraints = {}) =>
  // Objects without a prototype equal none that the decoder makes.
  fc.record(model as never, { ...constraints, noNullPrototype: true } as never) as never;
const number = fc.maxSafeNat();
const position = record({ epoch: number, seq: number });
const id = fc.uint8Array({ minLength: 16, maxLength: 16 }).map((bytes) => Buffer.from(bytes).toString('hex'));
const text = fc.string({ unit: 'binary', maxLength: 60 });
const runs = fc
  .uniqueArray(fc.integer({ min: 0, max: 2 ** 32 - 1 }), { maxLength: 40 })
  .map((ends) => ends.sort((a, b) => a - b))
  .map((ends) =>
    ends.slice(0, ends.length - (ends.length % 2)).flatMap((n, i) => (i % 2 === 0 ? n : n - ends[i - 1]! + 1)),
  );

const downstream: fc.Arbitrary<PeerMessage> = fc.oneof(
  record({
    type: fc.constant('JOIN' as const),
    epoch: number,
    registerId: id,
    registerVersion: number,
    role: fc.constantFrom('member', 'target'),
  }),
  record({ type: fc.constant('RECORD' as const), bytes: fc.uint8Array({ minLength: 96, maxLength: 700 }) }),
  record({ type: fc.constant('BEAT' as const), n: number, committed: position }),
  record({
    id: number,
    firstBlock: fc.nat(2 ** 31 - 1),
    blockCount: fc.integer({ min: 1, max: 3 }),
    fill: fc.nat(256),
  }).map(({ fill, ...fields }) => {
    const payload = fill === 256 ? null : new Uint8Array(fields.blockCount * BLOCK_BYTES).fill(fill);
    return { type: 'COPY' as const, ...fields, payload };
  }),
  record({ type: fc.constant('BARRIER' as const), position }),
  record({ type: fc.constant('HANDOVER' as const), of: fc.constantFrom('absent', 'mark'), name: text, position, runs }),
  record({ type: fc.constant('RESIGNED' as const), epoch: number }),
  record({ type: fc.constant('GRANT' as const), n: number, ms: fc.nat(), committed: position }),
  record({
    type: fc.constant('FETCH' as const),
    n: number,
    firstBlock: fc.nat(),
    blockCount: fc.integer({ min: 1, max: 65 }),
    content: fc.boolean(),
  }),
  record({
    type: fc.constant('FINISH' as const),
    committed: position,
    sessions: fc.array(fc.uint8Array({ maxLength: 300 }), { maxLength: 4 }),
  }),
);
const upstream: fc.Arbitrary<PeerMessage> = fc.oneof(
  record({
    type: fc.constant('STATUS' as const),
    epoch: number,
    diskId: id,
    state: fc.constantFrom('solo', 'in-sync', 'syncing'),
    base: position,
    last: position,
    suspects: runs,
  }),
  record({ type: fc.constant('REFUSED' as const), epoch: number, reason: text }),
  record({ type: fc.constant('ACK' as const), position }),
  record({ type: fc.constant('ECHO' as const), n: number, promiseMs: fc.nat() }),
  record({ type: fc.constant('ASK' as const), n: number }),
  fc.tuple(number, fc.array(fc.nat(), { maxLength: 3 }), fc.boolean()).map(([n, crcs, content]): PeerMessage => {
    const payload = content && crcs.length > 0 ? new Uint8Array(crcs.length * 4096).fill(n) : null;
    return { type: 'FETCHED', n, crcs, payload };
  }),
  record({ type: fc.constant('MEND' as const), block: number }),
  record({ type: fc.constant('COPY_ACK' as const), id: number }),
  record({ type: fc.constant('FINISHED' as const) }),
);

function streamOf(messages: readonly PeerMessage[]): Buffer {
  return Buffer.concat(
    messages.flatMap((message, i) => {
      const payload = encodePeer(message);
      return [peerHead(payload, i), payload.content];
    }),
  );
}

function decode(
  stream: Uint8Array,
  accepts: Exclude<PeerSender, 'both'>,
  nextSize: () => number,
): { got: PeerMessage[]; errors: HoldfastError[]; decoder: PeerFrameDecoder } {
  const got: PeerMessage[] = [];
  const errors: HoldfastError[] = [];
  const decoder = new PeerFrameDecoder({
    onFrame: (type, payload) => {
      assert.is(errors.length, 0, 'a frame after the stream was malformed');
      got.push(decodePeer(type, payload));
    },
    onMalformed: (error) => void errors.push(error),
  });
  decoder.accepts = accepts;
  for (let at = 0; at < stream.length;) {
    // The chunk is spoilt afterwards: nothing may refer to it any more.
    const chunk = Uint8Array.from(stream.subarray(at, at + nextSize()));
    at += chunk.length;
    decoder.push(chunk);
    chunk.fill(0xaa);
  }
  return { got, errors, decoder };
}

const whole = (): number => 1 << 24;

for (const [from, messages] of [
  ['primary', downstream],
  ['replica', upstream],
] as const) {
  test(`what the ${from} says comes out the same, however the stream is cut`, () => {
    const sizes = fc.infiniteStream(fc.oneof(fc.integer({ min: 1, max: 30 }), fc.integer({ min: 1, max: 9000 })));
    const property = fc.property(fc.array(messages, { maxLength: 12 }), sizes, (list, cuts) => {
      const { got, errors, decoder } = decode(streamOf(list), from, () => cuts.next().value);
      assert.equal(errors, []);
      assert.equal(got, list);
      assert.not(decoder.midFrame);
    });
    fc.assert(property, { numRuns: 300 });
  });
}

test('byte by byte', () => {
  const list: PeerMessage[] = [
    { type: 'BEAT', n: 1, committed: { epoch: 2, seq: 3 } },
    { type: 'RECORD', bytes: Uint8Array.from({ length: 200 }, (_, i) => i) },
    { type: 'HANDOVER', of: 'mark', name: 'mönday', position: { epoch: 1, seq: 1 }, runs: [0, 5, 7, 1] },
  ];
  assert.equal(decode(streamOf(list), 'primary', () => 1).got, list);
});

test('a record of the largest size and an EPOCH record of all session pages fit; more does not', () => {
  const bytes = new Uint8Array(384 + MAX_IO_BLOCKS * BLOCK_BYTES).fill(7);
  assert.equal(decode(streamOf([{ type: 'RECORD', bytes }]), 'primary', () => 65_536).got, [{ type: 'RECORD', bytes }]);
  const { errors } = decode(streamOf([{ type: 'RECORD', bytes: new Uint8Array(bytes.length + 1) }]), 'primary', whole);
  assert.equal(
    errors.map((e) => e.code),
    ['TOO_LARGE'],
  );
  const sessions = Array.from({ length: MAX_SESSION_PAGES }, () => new Uint8Array(BLOCK_BYTES));
  const finish: PeerMessage = { type: 'FINISH', committed: { epoch: 1, seq: 1 }, sessions };
  assert.equal(decode(streamOf([finish]), 'primary', () => 10_000).got, [finish]);
  assert.throws(() => encodePeer({ ...finish, sessions: [...sessions, sessions[0]!] }), /pages of sessions/);
});

test('record bytes are not copied on the way out', () => {
  const bytes = new Uint8Array(new SharedArrayBuffer(4096));
  assert.is(encodePeer({ type: 'RECORD', bytes }).content, bytes);
  const payload = bytes.subarray(0, BLOCK_BYTES);
  assert.is(encodePeer({ type: 'COPY', id: 1, firstBlock: 0, blockCount: 1, payload }).content, payload);
});

test('every type stays below 1 MiB, and is refused outside of its bounds before anything is allocated', () => {
  for (const [name, { from, payload }] of Object.entries(PEER_MESSAGES)) {
    assert.ok(payload[1] <= MAX_PEER_PAYLOAD_BYTES, name);
    const sender = from === 'both' ? 'primary' : from;
    for (const [length, code] of [
      [payload[0] - 1, 'BAD_FRAME'],
      [payload[1] + 1, 'TOO_LARGE'],
    ] as const) {
      const header = new Uint8Array(PEER_HEADER_BYTES);
      encodePeerHeader(header, name as keyof typeof PEER_MESSAGES, 0, length, 0);
      // Below nothing: the length field wraps around to 19, less than the header.
      const { got, errors, decoder } = decode(header, sender, whole);
      assert.equal(got, []);
      assert.equal(
        errors.map((e) => e.code),
        [code],
        `${name} ${length}`,
      );
      assert.not(decoder.midFrame);
    }
  }
});

test('one clear error, and nothing after it', () => {
  const beat: PeerMessage = { type: 'BEAT', n: 1, committed: { epoch: 2, seq: 3 } };
  const three = streamOf([beat, beat, beat]);
  const frame = three.length / 3;
  const spoil = (change: (stream: Buffer) => void, says: RegExp, code = 'BAD_FRAME'): void => {
    const stream = Buffer.from(three);
    change(stream.subarray(frame));
    for (const size of [1, 7, frame, whole()]) {
      const { got, errors } = decode(stream, 'primary', () => size);
      assert.equal(got, [beat]);
      assert.is(errors.length, 1);
      assert.is(errors[0]!.code, code);
      assert.match(errors[0]!.message, says);
    }
  };
  const sealed = (stream: Buffer, name: keyof typeof PEER_MESSAGES, number: number): void =>
    encodePeerHeader(stream, name, number, 24, stream.readUInt32LE(12));
  spoil((s) => s.writeUInt16LE(0x4648, 4), /not the protocol between replicas/);
  spoil((s) => s.writeUInt8(2, 6), /version 2/, 'WRONG_VERSION');
  spoil((s) => s.writeUInt8(200, 7), /header does not match its CRC/);
  spoil((s) => s.writeUInt8(200, PEER_HEADER_BYTES), /payload does not match its CRC/);
  spoil((s) => sealed(s, 'BEAT', 2), /frame 2 where 1 must come/);
  spoil((s) => sealed(s, 'BEAT', 0), /frame 0 where 1 must come/);
  spoil((s) => sealed(s, 'HELLO', 1), /HELLO from the primary/);
  spoil((s) => sealed(s, 'ACK', 1), /ACK from the primary/);
});

test('before HELLO nothing else is taken', () => {
  const { got, errors } = decode(streamOf([{ type: 'FINISHED' }]), 'hello', whole);
  assert.equal(got, []);
  assert.match(errors[0]!.message, /FINISHED before HELLO/);
});

test('a payload that does not decode is malformed', () => {
  const bad = (name: keyof typeof PEER_MESSAGES, fields: Uint8Array, says: RegExp): void => {
    const stream = peerHead(peerPayload(name, fields), 0);
    const { got, errors } = decode(stream, PEER_MESSAGES[name].from as 'primary', whole);
    assert.equal(got, []);
    assert.match(errors[0]!.message, says);
    assert.is(errors[0]!.code, 'BAD_FRAME');
  };
  bad('BEAT', new Uint8Array(24).fill(0xff), /above 2\^53/);
  bad('JOIN', new Uint8Array(33).fill(2, 32), /2 where 0 to 1/);
  const copy = new Uint8Array(24);
  bad('COPY', copy, /0 of them/);
  copy[16] = 3;
  copy[20] = 1;
  bad('COPY', copy, /0 bytes of content for 3 blocks/);
  const status = new Uint8Array(61 + 16);
  status[57] = 2;
  status.set([5, 0, 0, 0, 6, 0, 0, 0, 6, 0, 0, 0, 9, 0, 0, 0], 61);
  bad('STATUS', status, /from 6 to 9 behind block 7/);
  status[57] = 3;
  bad('STATUS', status, /3 runs in 16 bytes/);
});

test('runs that do not fit are merged into longer ones: nothing is lost, neighbours go first', () => {
  const property = fc.property(runs, fc.integer({ min: 1, max: 10 }), (list, limit) => {
    const merged = mergeRuns(list, limit);
    assert.ok(merged.length <= 2 * Math.max(limit, 0));
    if (list.length <= 2 * limit) return assert.is(merged, list);
    for (let i = 0; i < list.length; i += 2) {
      const [first, end] = [list[i]!, list[i]! + list[i + 1]!];
      const within = merged.some((at, j) => j % 2 === 0 && at <= first && end <= at + merged[j + 1]!);
      assert.ok(within, `${first} to ${end}`);
    }
    // No block outside of first and last.
    assert.is(merged[0], list[0]);
    assert.is(merged.at(-2)! + merged.at(-1)!, list.at(-2)! + list.at(-1)!);
  });
  fc.assert(property, { numRuns: 500 });
  assert.equal(mergeRuns([0, 1, 2, 1, 100, 1, 200, 1], 3), [0, 3, 100, 1, 200, 1]);
});

test('a bitmap in pieces on a volume of 16 TiB fits', () => {
  const count = 3 * MAX_RUNS;
  const step = Math.floor(2 ** 32 / count);
  const suspects = Array.from({ length: 2 * count }, (_, i) => (i % 2 === 0 ? (i / 2) * step : 1 + ((i >> 1) % 5)));
  const origin = { epoch: 0, seq: 0 };
  const message: PeerMessage = {
    type: 'STATUS',
    epoch: 1,
    diskId: 'ab'.repeat(16),
    state: 'syncing',
    base: origin,
    last: origin,
    suspects,
  };
  const stream = streamOf([message]);
  assert.ok(stream.length <= PEER_HEADER_BYTES + MAX_PEER_PAYLOAD_BYTES);
  const [got] = decode(stream, 'replica', () => 100_000).got;
  assert.ok(got?.type === 'STATUS');
  const merged = got.suspects;
  assert.is(merged.length, 2 * MAX_RUNS);
  for (let i = 0, j = 0; i < suspects.length; i += 2) {
    while (merged[j]! + merged[j + 1]! <= suspects[i]!) j += 2;
    assert.ok(merged[j]! <= suspects[i]! && suspects[i]! + suspects[i + 1]! <= merged[j]! + merged[j + 1]!, `run ${i}`);
  }
  const all: PeerMessage = { ...message, suspects: [0, 2 ** 32] };
  assert.equal(decode(streamOf([all]), 'replica', whole).got, [all]);
});

const hello: PeerHello = {
  minVersion: 1,
  maxVersion: 1,
  volumeId: '11'.repeat(16),
  registerId: '22'.repeat(16),
  streamId: '33'.repeat(16),
  volume: 'demo',
  from: 'a',
  to: 'b',
  bootId: 'boot-1',
};
const own = {
  volumeId: hello.volumeId,
  registerId: hello.registerId,
  volume: 'demo',
  from: 'b',
  to: null,
  streamId: null,
};

test('HELLO comes out the same; a later version may say more', () => {
  assert.equal(decodePeerHello(encodePeerHello(hello)), hello);
  const later = Buffer.concat([encodePeerHello({ ...hello, maxVersion: 9 }), Uint8Array.of(1, 2, 3)]);
  assert.equal(decodePeerHello(later), { ...hello, maxVersion: 9 });
  assert.throws(() => decodePeerHello(Buffer.concat([encodePeerHello(hello), Uint8Array.of(1)])), /1 bytes too many/);
  assert.throws(() => encodePeerHello({ ...hello, from: 'x'.repeat(256) }), RangeError);
});

test('a HELLO is refused for what is wrong with it, with both sides named', () => {
  const refused = (change: Partial<PeerHello>, code: string, says: RegExp, expected: object = {}): void => {
    const error = refusalOf({ ...own, ...expected }, { ...hello, ...change });
    assert.is(error?.code, code);
    assert.match(error!.message, says);
    assert.ok(error!.details.remedy);
  };
  assert.is(refusalOf(own, hello), null);
  assert.is(refusalOf(own, { ...hello, maxVersion: 7 }), null);
  refused({ minVersion: 2, maxVersion: 3 }, 'WRONG_VERSION', /a speaks 2 to 3, b 1 to 1/);
  refused({ to: 'c' }, 'INVALID_ARGUMENT', /a called c and reached b/);
  refused({ from: 'c' }, 'INVALID_ARGUMENT', /b called a and reached c/, { to: 'a' });
  refused({ from: 'b' }, 'INVALID_ARGUMENT', /reached b/);
  refused({ volumeId: '12'.repeat(16) }, 'NO_SUCH_VOLUME', /as 1212.* as 1111/);
  refused({ registerId: '23'.repeat(16) }, 'INVALID_ARGUMENT', /register 2323.*, b to 2222/);
  refused({}, 'INVALID_ARGUMENT', /another stream/, { streamId: '44'.repeat(16) });
  // Whoever belongs to no register yet may become a member of any.
  assert.is(refusalOf(own, { ...hello, registerId: '00'.repeat(16) }), null);
  assert.is(refusalOf({ ...own, registerId: '00'.repeat(16) }, hello), null);
});

test('GOODBYE carries status, reason and remedy, within its bound', () => {
  const error = new HoldfastError('DEADLINE', { detail: 'late', remedy: 'hurry' });
  const got = decodePeerGoodbye(encodePeerGoodbye(error));
  assert.is(got.code, 'DEADLINE');
  assert.match(got.message, /late. To remedy: hurry/);
  const long = encodePeerGoodbye(new HoldfastError('CONNECTION_LOST', { detail: 'ü'.repeat(5000) }));
  assert.ok(long.length <= PEER_MESSAGES.GOODBYE.payload[1]);
  assert.is(decodePeerGoodbye(long).code, 'IO_ERROR');
});

test.run();
