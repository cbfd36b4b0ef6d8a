/** Any fragmentation of a stream of frames, and any moment of WAIT, gives the same frames. */
import fc from 'fast-check';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { FrameDecoder, type FrameHeader, WAIT } from '../../src/protocol/frame.ts';
import { MESSAGES } from '../../src/protocol/messages.ts';
import { encodeFrame } from '../../src/protocol/replies.ts';

interface Sent {
  type: number;
  requestId: number;
  epoch: number;
  offset: number;
  count: number;
  payload: Uint8Array | null;
}

const number = fc.maxSafeNat();
const header = fc.record({ requestId: number, epoch: number, offset: number });
const sent: fc.Arbitrary<Sent> = fc.oneof(
  fc
    .tuple(header, fc.uint8Array({ minLength: 1, maxLength: 300 }))
    .map(([h, payload]) => ({ ...h, type: MESSAGES.WRITE.number, count: payload.length, payload })),
  fc
    .tuple(header, fc.nat(0xffff_ffff), fc.constantFrom(MESSAGES.READ, MESSAGES.ZERO, MESSAGES.PING, MESSAGES.FLUSH))
    .map(([h, count, message]) => ({ ...h, type: message.number, count, payload: null })),
  fc
    .tuple(header, fc.uint8Array({ minLength: 1, maxLength: 100 }))
    .map(([h, payload]) => ({ ...h, type: MESSAGES.HELLO.number, count: 0, payload })),
);

function encode({ payload, ...fields }: Sent): Uint8Array {
  return encodeFrame(fields, payload);
}

test('any fragmentation gives the same frames', () => {
  const property = fc.property(
    fc.array(sent, { maxLength: 12 }),
    fc.infiniteStream(fc.integer({ min: 1, max: 150 })),
    fc.infiniteStream(fc.boolean()),
    (list, sizes, waits) => {
      const got: Sent[] = [];
      const decoder = new FrameDecoder(
        {
          onHeader: (h: FrameHeader) => (waits.next().value ? WAIT : new Uint8Array(h.payloadBytes)),
          onFrame: ({ type, requestId, epoch, offset, count }, payload) =>
            void got.push({ type, requestId, epoch, offset, count, payload }),
          onMalformed: (error) => {
            throw error;
          },
        },
        'server',
      );
      const stream = Buffer.concat(list.map(encode));
      for (let at = 0; at < stream.length;) {
        // The chunk is spoilt afterwards: nothing may refer to it any more.
        const chunk = Uint8Array.from(stream.subarray(at, at + sizes.next().value));
        const consumed = decoder.push(chunk);
        at += consumed;
        chunk.fill(0xaa);
      }
      assert.equal(got, list);
      assert.not(decoder.midFrame);
    },
  );
  fc.assert(property, { numRuns: 300 });
});

test('a frame byte by byte', () => {
  const payload = Uint8Array.from({ length: 70 }, (_, i) => i);
  const bytes = encodeFrame({ type: MESSAGES.WRITE.number, requestId: 1, count: 70 }, payload);
  const got: Uint8Array[] = [];
  const decoder = new FrameDecoder(
    { onHeader: () => null, onFrame: (_h, p) => void got.push(p!), onMalformed: (e) => assert.unreachable(e.message) },
    'server',
  );
  for (const byte of bytes) assert.is(decoder.push(Uint8Array.of(byte)), 1);
  assert.equal(got, [payload]);
});

test.run();
