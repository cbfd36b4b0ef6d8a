/** Replies and descriptors, against bytes written by hand from the specification. */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { ERRORS, type ErrorCode, HoldfastError } from '../../src/base/errors.ts';
import { allocationStatus, descriptorsOf, dirtyStatus, encodeBlockStatus } from '../../src/nbd/block-status.ts';
import { encodeText } from '../../src/nbd/big-endian.ts';
import {
  MAX_REPLY_HEADER_BYTES,
  Replies,
  encodeChunkHeader,
  encodeErrorChunk,
  encodeOffsetData,
  encodeOffsetHole,
  encodeSimpleReply,
  nbdErrorOf,
} from '../../src/nbd/replies.ts';
import { hex } from '../support/nbd-client.ts';

const COOKIE = { cookieHigh: 0xfedcba98, cookieLow: 0x76543210 };
const READ = 0;
const WRITE = 1;
const TRIM = 4;
const WRITE_ZEROES = 6;
const DF = 4;
const REQ_ONE = 8;
const FAST_ZERO = 16;

/** What an encoder writes at place 3 of memory that was not zero. */
function written(lengthBytes: number, encode: (into: Uint8Array, at: number) => unknown): Buffer {
  const memory = Buffer.alloc(lengthBytes + 6, 0x5a);
  encode(memory, 3);
  assert.equal(memory.subarray(0, 3), hex('5a5a5a'));
  assert.equal(memory.subarray(-3), hex('5a5a5a'));
  return memory.subarray(3, -3);
}

test('simple replies', () => {
  assert.equal(
    written(16, (into, at) => encodeSimpleReply(into, at, COOKIE, 0)),
    hex('67446698 00000000 fedcba9876543210'),
  );
  assert.equal(
    written(16, (into, at) => encodeSimpleReply(into, at, COOKIE, 108)),
    hex('67446698 0000006c fedcba9876543210'),
  );
});

test('chunks', () => {
  assert.equal(
    written(20, (into, at) => encodeChunkHeader(into, at, COOKIE, 0, 0, true)),
    hex('668e33ef 0001 0000 fedcba9876543210 00000000'),
  );
  assert.equal(
    written(28, (into, at) => encodeOffsetData(into, at, COOKIE, 0x0010_2030_4050_60, 4096, false)),
    hex('668e33ef 0000 0001 fedcba9876543210 00001008 0000102030405060'),
  );
  assert.equal(
    written(32, (into, at) => encodeOffsetHole(into, at, COOKIE, 2 ** 53 - 1, 0xffffffff, true)),
    hex('668e33ef 0001 0002 fedcba9876543210 0000000c 001fffffffffffff ffffffff'),
  );
});

test('error chunks, without and with an offset', () => {
  assert.equal(
    Buffer.from(encodeErrorChunk(COOKIE, 22, 'né')),
    hex('668e33ef 0001 8001 fedcba9876543210 00000009 00000016 0003 6ec3a9'),
  );
  assert.equal(
    Buffer.from(encodeErrorChunk(COOKIE, 5, '', 4096)),
    hex('668e33ef 0001 8002 fedcba9876543210 0000000e 00000005 0000 0000000000001000'),
  );
  const long = Buffer.from(encodeErrorChunk(COOKIE, 5, 'é'.repeat(5000)));
  assert.is(long.readUInt16BE(24), 4096);
  assert.is(long.length, 20 + 6 + 4096);
});

test('text is cut at a character', () => {
  assert.equal(Buffer.from(encodeText('aé', 2)), Buffer.from('a'));
  assert.equal(Buffer.from(encodeText('aé', 3)), Buffer.from('aé'));
  assert.equal(Buffer.from(encodeText('a😀b', 4)), Buffer.from('a'));
});

test('the form that was agreed on', () => {
  const simple = new Replies(false);
  const structured = new Replies(true);
  const memory = Buffer.alloc(MAX_REPLY_HEADER_BYTES);
  assert.is(simple.read(memory, 0, COOKIE, 4096, 512), 16);
  assert.equal(memory.subarray(0, 16), hex('67446698 00000000 fedcba9876543210'));
  assert.is(structured.read(memory, 0, COOKIE, 4096, 512), 28);
  assert.equal(memory, hex('668e33ef 0001 0001 fedcba9876543210 00000208 0000000000001000'));
  for (const replies of [simple, structured]) {
    assert.is(replies.done(memory, 0, COOKIE), 16);
    assert.equal(memory.subarray(0, 16), hex('67446698 00000000 fedcba9876543210'));
  }
  assert.equal(Buffer.from(simple.error(COOKIE, 28, 'full')), hex('67446698 0000001c fedcba9876543210'));
  assert.equal(
    Buffer.from(structured.error(COOKIE, 28, 'full')),
    hex('668e33ef 0001 8001 fedcba9876543210 0000000a 0000001c 0004 66756c6c'),
  );
});

test('a device error becomes an error that may stand there', () => {
  const as = (code: ErrorCode, command: number, flags = 0): number =>
    nbdErrorOf(new HoldfastError(code), { ...COOKIE, command, flags });
  assert.is(as('OUT_OF_RANGE', WRITE), 28);
  assert.is(as('OUT_OF_RANGE', WRITE_ZEROES), 28);
  assert.is(as('OUT_OF_RANGE', READ), 22);
  assert.is(as('OUT_OF_RANGE', TRIM), 22);
  assert.is(as('READ_ONLY', WRITE), 1);
  assert.is(as('CORRUPT_BLOCK', READ), 5);
  assert.is(as('SHUTTING_DOWN', READ), 108);
  assert.is(as('UNSUPPORTED', WRITE_ZEROES), 22);
  assert.is(as('UNSUPPORTED', WRITE_ZEROES, FAST_ZERO), 95);
  assert.is(as('TOO_LARGE', READ), 22);
  assert.is(as('TOO_LARGE', READ, DF), 75);
  for (const code of Object.keys(ERRORS) as ErrorCode[]) {
    assert.ok([1, 5, 12, 22, 28, 75, 95, 108].includes(as(code, READ)), code);
  }
  const asked = { ...COOKIE, command: READ, flags: 0 };
  const reply = Buffer.from(new Replies(false).failed(asked, new HoldfastError('CORRUPT_BLOCK')));
  assert.equal(reply, hex('67446698 00000005 fedcba9876543210'));
});

const asked = (offsetBytes: number, lengthBytes: number, flags = 0) => ({
  ...COOKIE,
  command: 7,
  flags,
  offsetBytes,
  lengthBytes,
});
const extents = [
  { offsetBytes: 0, lengthBytes: 4096, kind: 'data' as const },
  { offsetBytes: 4096, lengthBytes: 8192, kind: 'hole' as const },
  { offsetBytes: 12288, lengthBytes: 4096, kind: 'data' as const },
];

test('base:allocation', () => {
  assert.equal(
    Buffer.from(encodeBlockStatus(asked(0, 16384), 1, allocationStatus(extents), true)),
    hex(
      '668e33ef 0001 0005 fedcba9876543210 0000001c 00000001',
      '00001000 00000000  00002000 00000003  00001000 00000000',
    ),
  );
  assert.equal(
    Buffer.from(encodeBlockStatus(asked(0, 16384, REQ_ONE), 1, allocationStatus(extents), false)),
    hex('668e33ef 0000 0005 fedcba9876543210 0000000c 00000001 00001000 00000000'),
  );
});

test('descriptors begin and end with the request', () => {
  const status = allocationStatus(extents);
  assert.equal(descriptorsOf(asked(4000, 100), status), [96, 0, 4, 3]);
  assert.equal(descriptorsOf(asked(5000, 100), status), [100, 3]);
  assert.equal(descriptorsOf(asked(5000, 100, REQ_ONE), status), [100, 3]);
  assert.equal(descriptorsOf(asked(4000, 10_000, REQ_ONE), status), [96, 0]);
  // The device told less than was asked: so does the reply.
  assert.equal(descriptorsOf(asked(12288, 99_999), status), [4096, 0]);
});

test('what no run tells of has the safe status, and neighbours are merged', () => {
  assert.equal(descriptorsOf(asked(0, 512), allocationStatus([])), [512, 0]);
  assert.equal(descriptorsOf(asked(0, 512), dirtyStatus([])), [512, 1]);
  const changes = [
    { offsetBytes: 100, lengthBytes: 100, changed: true },
    { offsetBytes: 200, lengthBytes: 100, changed: false },
    { offsetBytes: 300, lengthBytes: 0, changed: true },
    { offsetBytes: 300, lengthBytes: 50, changed: false },
    { offsetBytes: 400, lengthBytes: 50, changed: false },
  ];
  assert.equal(descriptorsOf(asked(0, 1000), dirtyStatus(changes)), [200, 1, 150, 0, 50, 1, 50, 0]);
});

test('a reply has a bounded number of descriptors', () => {
  const many = Array.from({ length: 10 }, (_, i) => ({ offsetBytes: i, lengthBytes: 1, changed: i % 2 === 0 }));
  assert.equal(descriptorsOf(asked(0, 10), dirtyStatus(many), 3), [1, 1, 1, 0, 1, 1]);
});

test.run();
