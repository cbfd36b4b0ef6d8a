import fc from 'fast-check';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { ERRORS, type ErrorCode, HoldfastError } from '../../src/base/errors.ts';
import { FrameDecoder, type FrameHeader } from '../../src/protocol/frame.ts';
import { MAX_ERROR_BYTES, MESSAGES } from '../../src/protocol/messages.ts';
import { decodeError, encodeError, encodeErrorReply, encodeGoodbye, encodeReply } from '../../src/protocol/replies.ts';

function only(frame: Uint8Array): { header: FrameHeader; payload: Uint8Array | null } {
  const got: Array<{ header: FrameHeader; payload: Uint8Array | null }> = [];
  const decoder = new FrameDecoder(
    {
      onHeader: () => null,
      onFrame: (header, payload) => void got.push({ header: { ...header }, payload }),
      onMalformed: (error) => assert.unreachable(error.message),
    },
    'client',
  );
  decoder.push(frame);
  assert.is(got.length, 1);
  return got[0]!;
}

test('every code travels with its offset, length, detail and remedy', () => {
  for (const code of Object.keys(ERRORS) as ErrorCode[]) {
    const error = new HoldfastError(code, { offsetBytes: 2 ** 43, lengthBytes: 0, detail: 'so', remedy: 'this' });
    const got = decodeError(error.status, encodeError(error), { operation: 'READ', peer: 'h:1' });
    assert.is(got.code, code);
    const { offsetBytes, lengthBytes, detail, remedy, operation, peer } = got.details;
    assert.equal(
      [offsetBytes, lengthBytes, detail, remedy, operation, peer],
      [2 ** 43, 0, 'so', 'this', 'READ', 'h:1'],
    );
  }
});

test('whatever the texts are, the payload keeps its limit and decodes', () => {
  const text = fc.string({ unit: 'binary', maxLength: 3000, size: 'max' });
  fc.assert(
    fc.property(text, text, fc.double(), (detail, remedy, offsetBytes) => {
      const error = new HoldfastError('IO_ERROR', { operation: 'x', detail, remedy, offsetBytes });
      const bytes = encodeError(error);
      assert.ok(bytes.length <= MAX_ERROR_BYTES);
      assert.is(decodeError(error.status, bytes).code, 'IO_ERROR');
    }),
    { numRuns: 30, endOnFailure: true },
  );
});

test('a status that this side does not know is an I/O error with the text of the other side', () => {
  const bytes = encodeError(new HoldfastError('BUSY', { detail: 'for once' }));
  const error = decodeError(999, bytes);
  assert.is(error.code, 'IO_ERROR');
  assert.match(error.message, 'status 999');
  assert.match(error.message, 'for once');
});

test('an error payload of any bytes decodes or is a bad frame', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 100 }), (bytes) => {
      try {
        decodeError(11, bytes);
      } catch (error) {
        assert.is((error as HoldfastError).code, 'BAD_FRAME');
      }
    }),
    { numRuns: 300 },
  );
});

test('replies repeat what they answer', () => {
  const request = { type: MESSAGES.READ.number, requestId: 5, offset: 8192, count: 3 };
  const good = only(encodeReply(request, 2, Uint8Array.of(1, 2, 3)));
  assert.equal([good.header.type, good.header.requestId, good.header.epoch], [MESSAGES.READ.number, 5, 2]);
  assert.equal(good.payload, Uint8Array.of(1, 2, 3));
  const bad = only(encodeErrorReply(request, 2, new HoldfastError('CORRUPT_BLOCK', { detail: 'block 2' })));
  assert.is(bad.header.status, ERRORS.CORRUPT_BLOCK.status);
  assert.is(decodeError(bad.header.status, bad.payload).details.detail, 'block 2');
  const bye = only(encodeGoodbye(new HoldfastError('SHUTTING_DOWN')));
  assert.equal(
    [bye.header.type, bye.header.status, bye.header.requestId],
    [MESSAGES.GOODBYE.number, ERRORS.SHUTTING_DOWN.status, 0],
  );
});

test.run();
