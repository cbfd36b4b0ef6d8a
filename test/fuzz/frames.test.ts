/**
 * Bytes that nobody should send. Streams of good frames are damaged in every way that comes to mind; whatever comes,
 * the decoder delivers only frames that were sent whole and unchanged, keeps its limits, and says once that the stream
 * is malformed. A failing case names its seed: HOLDFAST_FUZZ_SEED runs that one alone.
 */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { HoldfastError } from '../../src/base/errors.ts';
import { MAX_IO_BYTES } from '../../src/base/units.ts';
import { FrameDecoder, HEADER_BYTES } from '../../src/protocol/frame.ts';
import * as wire from '../../src/protocol/handshake.ts';
import * as location from '../../src/protocol/location.ts';
import * as marks from '../../src/protocol/marks.ts';
import { MESSAGES, REPLY_BIT } from '../../src/protocol/messages.ts';
import { decodeError, encodeError, encodeFrame, encodeGoodbye, encodeReply } from '../../src/protocol/replies.ts';
import { Random } from '../support/random.ts';

const CASES = 20_000;
const only = process.env['HOLDFAST_FUZZ_SEED'];
const seeds = only === undefined ? Array.from({ length: CASES }, (_, i) => i) : [Number(only)];

const hello = wire.encodeHello({
  minVersion: 1,
  maxVersion: 1,
  features: 1n,
  requiredFeatures: 0n,
  session: 77n,
  generation: 3,
  client: 'fuzz',
});
const helloReply = wire.encodeHelloReply({
  version: 1,
  features: 0n,
  limits: { maxPayloadBytes: MAX_IO_BYTES, maxInFlightBytes: 1 << 20, maxInFlightRequests: 64, sessionWindow: 1024 },
  server: 'fuzzed',
});
const attach = wire.encodeAttach({ volume: 'demo', since: { epoch: 2, seq: 9 }, access: 'any' });
const located = location.encodeLocation({
  volumeId: new Uint8Array(16).fill(9),
  name: 'demo',
  epoch: 2,
  primary: 'n1',
  primaryAddress: '10.0.0.1:7401',
  reads: 'any',
  members: [
    { node: 'n1', clientAddress: '10.0.0.1:7401', inSync: true },
    { node: 'ü', clientAddress: '', inSync: false },
  ],
});
const info = wire.encodeVolumeInfo({
  name: 'demo',
  volumeId: new Uint8Array(16).fill(9),
  sizeBytes: 1 << 20,
  blockBytes: 4096,
  atomicBytes: MAX_IO_BYTES,
  readOnly: false,
  epoch: 2,
  position: { epoch: 2, seq: 10 },
});
const volumes = wire.encodeList([
  { name: 'a', sizeBytes: 4096, readOnly: false },
  { name: 'ü', sizeBytes: 8192, readOnly: true },
]);
const extents = wire.encodeExtents([
  { offsetBytes: 0, lengthBytes: 4096, kind: 'data' },
  { offsetBytes: 4096, lengthBytes: 1, kind: 'hole' },
]);
const error = new HoldfastError('CORRUPT_BLOCK', { offsetBytes: 4096, lengthBytes: 1, detail: 'x', remedy: 'y' });
const block = new Uint8Array(4096).map((_, i) => i * 7);
const request = { requestId: 1, epoch: 2 };
const answered = (m: { number: number }, count = 0) => ({ type: m.number, requestId: 1, offset: 0, count });

const CORPUS = {
  server: [
    encodeFrame({ type: MESSAGES.HELLO.number, requestId: 1 }, hello),
    encodeFrame({ type: MESSAGES.ATTACH.number, requestId: 2 }, attach),
    encodeFrame({ type: MESSAGES.WRITE.number, ...request, count: 4096 }, block),
    encodeFrame({ type: MESSAGES.WRITE.number, ...request, offset: 3, count: 1 }, Uint8Array.of(0)),
    encodeFrame({ type: MESSAGES.READ.number, ...request, offset: 2 ** 44, count: 0xffff_ffff }),
    encodeFrame({ type: MESSAGES.FLUSH.number, ...request }),
    encodeFrame({ type: MESSAGES.ZERO.number, ...request, deadlineMs: 5, count: 4096 }),
    encodeFrame({ type: MESSAGES.EXTENTS.number, ...request, count: 4096 }, wire.encodeExtentsRequest(4)),
    encodeFrame({ type: MESSAGES.INFO.number, ...request }, wire.encodeInfo('demo')),
    encodeFrame({ type: MESSAGES.LIST.number, ...request }),
    encodeFrame({ type: MESSAGES.PING.number, ...request }),
    encodeFrame({ type: MESSAGES.LOCATE.number, requestId: 3 }, location.encodeLocate('demo')),
  ],
  client: [
    encodeReply(answered(MESSAGES.HELLO), 0, helloReply),
    encodeReply(answered(MESSAGES.ATTACH), 2, info),
    encodeReply(answered(MESSAGES.LIST), 2, volumes),
    encodeReply(answered(MESSAGES.LOCATE), 0, located),
    encodeReply(answered(MESSAGES.READ, 4096), 2, block),
    encodeReply(answered(MESSAGES.READ, 0), 2),
    encodeReply(answered(MESSAGES.WRITE), 2),
    encodeReply(answered(MESSAGES.EXTENTS, 4097), 2, extents),
    encodeFrame({ type: MESSAGES.READ.number | REPLY_BIT, ...request, status: error.status }, encodeError(error)),
    encodeGoodbye(error),
  ],
};

/** What one decoder does with a stream that comes in pieces. */
function decode(role: 'server' | 'client', stream: Uint8Array, random: Random) {
  const delivered: string[] = [];
  const errors: HoldfastError[] = [];
  let largest = 0;
  const decoder = new FrameDecoder(
    {
      onHeader: (h) => {
        largest = Math.max(largest, h.payloadBytes);
        return null;
      },
      onFrame: (h, payload) => {
        assert.is(errors.length, 0, 'a frame after the stream was malformed');
        const { type, status, deadlineMs, requestId, epoch, offset, count } = h;
        const fields = { type: role === 'client' ? type | REPLY_BIT : type, status, deadlineMs, requestId, epoch };
        delivered.push(Buffer.from(encodeFrame({ ...fields, offset, count }, payload)).toString('latin1'));
      },
      onMalformed: (e) => void errors.push(e),
    },
    role,
  );
  for (let at = 0; at < stream.length;) {
    const size = random.chance(0.5) ? 1 + random.below(100) : 1 + random.below(9000);
    at += decoder.push(stream.subarray(at, at + size));
  }
  return { delivered, errors, largest, midFrame: decoder.midFrame };
}

/** @returns the damaged stream, and up to which byte it is as it was */
function damage(good: Buffer, starts: number[], random: Random): { stream: Buffer; intactBytes: number } {
  const stream = Buffer.from(good);
  // Half of the time where it hurts: in a header.
  const at = random.chance(0.5)
    ? Math.min(stream.length - 1, starts[random.below(starts.length)]! + random.below(HEADER_BYTES))
    : random.below(stream.length);
  const cut = (n: number): Buffer => Buffer.concat([stream.subarray(0, at), stream.subarray(at + n)]);
  const insert = (bytes: Uint8Array): Buffer => Buffer.concat([stream.subarray(0, at), bytes, stream.subarray(at)]);
  switch (random.below(7)) {
    case 0:
      stream[at]! ^= 1 << random.below(8);
      return { stream, intactBytes: at };
    case 1:
      stream[at] = [0, 1, 0x7f, 0x80, 0xff][random.below(5)]!;
      return { stream, intactBytes: at };
    case 2:
      stream.fill(random.below(256), at, Math.min(stream.length, at + 1 + random.below(200)));
      return { stream, intactBytes: at };
    case 3:
      return { stream: cut(1 + random.below(100)), intactBytes: at };
    case 4:
      return { stream: insert(random.bytes(1 + random.below(100))), intactBytes: at };
    case 5: {
      const from = starts[random.below(starts.length)]!;
      return { stream: insert(good.subarray(from, from + 1 + random.below(300))), intactBytes: at };
    }
    default:
      return { stream: stream.subarray(0, at), intactBytes: at };
  }
}

for (const role of ['server', 'client'] as const) {
  test(`${role}: a damaged stream delivers what was sent, then at most one error`, () => {
    const known = new Set(CORPUS[role].map((f) => Buffer.from(f).toString('latin1')));
    let malformed = 0;
    for (const seed of seeds) {
      const random = new Random(seed);
      const frames = Array.from(
        { length: 1 + random.below(6) },
        () => CORPUS[role][random.below(CORPUS[role].length)]!,
      );
      const starts: number[] = [];
      let end = 0;
      for (const frame of frames) {
        starts.push(end);
        end += frame.length;
      }
      const { stream, intactBytes } = damage(Buffer.concat(frames), starts, random);
      const got = decode(role, stream, random);
      const where = `seed ${seed}`;
      assert.ok(got.errors.length <= 1, where);
      malformed += got.errors.length;
      for (const e of got.errors) assert.ok(['BAD_FRAME', 'TOO_LARGE', 'WRONG_VERSION'].includes(e.code), where);
      assert.ok(got.largest <= MAX_IO_BYTES, where);
      for (const frame of got.delivered) assert.ok(known.has(frame), `${where}: a frame that was never sent`);
      const intact = frames.filter((frame, i) => starts[i]! + frame.length <= intactBytes);
      assert.equal(
        got.delivered.slice(0, intact.length).map((f) => f.length),
        intact.map((f) => f.length),
        where,
      );
    }
    // Else the damage is none, and the test proves nothing.
    if (only === undefined) assert.ok(malformed > CASES / 2, `${malformed} streams were malformed`);
  });
}

test('garbage is malformed at its first header', () => {
  for (const seed of seeds.slice(0, 2000)) {
    const random = new Random(seed);
    const got = decode('server', random.bytes(HEADER_BYTES + random.below(2000)), random);
    assert.is(got.errors.length, 1, `seed ${seed}`);
    assert.equal(got.delivered, []);
    assert.not(got.midFrame);
  }
});

const marked = marks.encodeMarks([{ name: 'monday', position: { epoch: 2, seq: 9 }, dirtyBlocks: 5 }]);
const changed = [
  { offsetBytes: 0, lengthBytes: 4096, changed: true },
  { offsetBytes: 4096, lengthBytes: 8192, changed: false },
];

const DECODERS: Array<[string, Uint8Array, (bytes: Uint8Array) => unknown]> = [
  ['HELLO', hello, wire.decodeHello],
  ['reply to HELLO', helloReply, wire.decodeHelloReply],
  ['ATTACH', attach, wire.decodeAttach],
  ['volume information', info, wire.decodeVolumeInfo],
  ['reply to LIST', volumes, wire.decodeList],
  ['LOCATE', location.encodeLocate('demo'), location.decodeLocate],
  ['reply to LOCATE', located, location.decodeLocation],
  ['MARK', marks.encodeMark({ action: 'set', name: 'monday' }), marks.decodeMark],
  ['reply to MARKS', marked, marks.decodeMarks],
  ['CHANGES', marks.encodeChangesRequest(10, 'monday'), marks.decodeChangesRequest],
  ['reply to CHANGES', marks.encodeChanges(changed), (bytes) => marks.decodeChanges(bytes, 0)],
  ['reply to EXTENTS', extents, (bytes) => wire.decodeExtents(bytes, 0)],
  ['error', encodeError(error), (bytes) => decodeError(11, bytes)],
];

for (const [what, good, decodePayload] of DECODERS) {
  test(`a damaged ${what} decodes to something or is a bad frame`, () => {
    let refused = 0;
    for (const seed of seeds.slice(0, 3000)) {
      const random = new Random(seed);
      const bytes = damage(Buffer.from(good), [0], random).stream;
      try {
        decodePayload(bytes);
      } catch (e) {
        refused++;
        const code = e instanceof HoldfastError ? e.code : String(e);
        // A limit of 0 is well-formed, and refused all the same.
        const other = what === 'CHANGES' && code === 'INVALID_ARGUMENT';
        assert.ok(code === 'BAD_FRAME' || other, `seed ${seed}: ${code}`);
      }
    }
    if (only === undefined) assert.ok(refused > 100, `${refused} were refused`);
  });
}

test.run();
