/** Any fragmentation of a session's bytes, and any moment of WAIT, gives the same replies and the same requests. */
import fc from 'fast-check';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { WAIT } from '../../src/nbd/transmission.ts';
import { DEMO, Recorder, contextOption, exportsOf, infoOption, option, request, u32 } from '../support/nbd-client.ts';

const anyOption = fc.oneof(
  fc.constantFrom(option(3), option(8), infoOption(6, 'demo', 1, 2, 3), infoOption(7, 'other')),
  fc.constantFrom(contextOption(9, 'demo'), contextOption(10, 'demo', 'base:allocation'), option(10)),
  fc.tuple(fc.integer({ min: 8, max: 99 }), fc.uint8Array({ maxLength: 60 })).map(([n, data]) => option(n, data)),
  fc.constant(option(99, Buffer.alloc(65_540))),
);
const place = fc.record({
  flags: fc.constantFrom(0, 0, 0, 1, 4, 8, 64),
  cookie: fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }),
  offset: fc.oneof(fc.nat(DEMO.sizeBytes), fc.bigInt({ min: 0n, max: (1n << 64n) - 1n })),
});
const anyRequest = fc.oneof(
  fc
    .tuple(place, fc.constantFrom(0, 3, 4, 5, 6, 7, 8), fc.nat(70_000))
    .map(([p, command, length]) => request({ ...p, command, length })),
  fc.tuple(place, fc.uint8Array({ maxLength: 300 })).map(([p, payload]) => request({ ...p, command: 1, payload })),
);
const ending = fc.constantFrom(Buffer.alloc(0), request({ command: 2 }), Buffer.from('garbage'.repeat(9)));

function outcome(recorder: Recorder): object {
  const { seen, end, agreed } = recorder;
  return { sent: recorder.take().toString('hex'), seen, end, agreed, state: recorder.session.state };
}

test('any fragmentation gives the same session', () => {
  const property = fc.property(
    fc.array(anyOption, { maxLength: 6 }),
    fc.array(anyRequest, { maxLength: 12 }),
    ending,
    fc.infiniteStream(fc.oneof(fc.integer({ min: 1, max: 40 }), fc.integer({ min: 1, max: 9000 }))),
    fc.infiniteStream(fc.integer({ min: 0, max: 90 })),
    (options, requests, last, sizes, rooms) => {
      const stream = Buffer.concat([u32(3), ...options, infoOption(7, ''), ...requests, last]);
      const whole = new Recorder(exportsOf(DEMO));
      assert.is(whole.session.push(Uint8Array.from(stream)), stream.length);
      const cut = new Recorder(exportsOf(DEMO));
      cut.room = (rest) => {
        const room = Math.min(rest, rooms.next().value);
        return room === 0 ? WAIT : new Uint8Array(room);
      };
      for (let at = 0; at < stream.length;) {
        // The chunk is spoilt afterwards: nothing may refer to it any more.
        const chunk = Uint8Array.from(stream.subarray(at, at + sizes.next().value));
        const consumed = cut.session.push(chunk);
        at += consumed;
        chunk.fill(0xaa);
      }
      assert.equal(outcome(cut), outcome(whole));
    },
  );
  fc.assert(property, { numRuns: 300 });
});

test('byte by byte', () => {
  const stream = Buffer.concat([
    u32(1),
    option(8),
    contextOption(10, '', 'base:allocation'),
    infoOption(7, 'demo', 3),
    request({ command: 1, payload: Buffer.alloc(50, 7), cookie: 5n }),
    request({ command: 7, flags: 8, length: 4096, cookie: 6n }),
    request({ command: 2 }),
  ]);
  const recorder = new Recorder(exportsOf(DEMO));
  for (const byte of stream) assert.is(recorder.session.push(Uint8Array.of(byte)), 1);
  assert.equal(
    recorder.seen.map(({ command, cookie }) => [command, cookie]),
    [
      [1, 5n],
      [7, 6n],
    ],
  );
  assert.is(recorder.seen[0]!.payload, '07'.repeat(50));
  assert.is(recorder.end!.soft, true);
});

test.run();
