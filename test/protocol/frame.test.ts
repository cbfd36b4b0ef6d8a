import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { crc32 } from 'node:zlib';
import type { HoldfastError } from '../../src/base/errors.ts';
import { MAX_IO_BYTES } from '../../src/base/units.ts';
import { encodeHeader, FrameDecoder, type FrameHeader, HEADER_BYTES, WAIT } from '../../src/protocol/frame.ts';
import { headerCrc } from '../../src/protocol/header-crc.ts';
import { MESSAGES, REPLY_BIT } from '../../src/protocol/messages.ts';
import { encodeFrame } from '../../src/protocol/replies.ts';

const frames = suite('frame');

/** A write of 5 bytes at 4097, epoch 3, request 7, deadline 250 ms, byte by byte as docs/protocol.md has it. */
const WRITE_HEX = [
  '45000000', // length: 69
  '4846', // magic
  '01', // version
  '11', // WRITE
  '0000', // flags
  '0000', // status
  'fa000000', // deadline
  '0700000000000000', // request
  '0300000000000000', // epoch
  '0110000000000000', // offset
  '05000000', // count
  '000000000000000000000000', // reserved
  '86a61036', // CRC of "hello"
].join('');

function write(): Buffer {
  const header = Buffer.from(WRITE_HEX, 'hex');
  const crc = Buffer.alloc(4);
  crc.writeUInt32LE(crc32(header));
  return Buffer.concat([header, crc, Buffer.from('hello')]);
}

interface Seen {
  decoder: FrameDecoder;
  frames: Array<{ header: FrameHeader; payload: string | null }>;
  errors: HoldfastError[];
}

function decoder(role: 'server' | 'client' = 'server'): Seen {
  const seen: Omit<Seen, 'decoder'> = { frames: [], errors: [] };
  const sink = {
    onHeader: () => null,
    onFrame: (header: FrameHeader, payload: Uint8Array | null) =>
      void seen.frames.push({
        header: { ...header },
        payload: payload === null ? null : Buffer.from(payload).toString(),
      }),
    onMalformed: (error: HoldfastError) => void seen.errors.push(error),
  };
  return { ...seen, decoder: new FrameDecoder(sink, role) };
}

/** Changes the header of a good frame and makes its CRC fit again. */
function altered(frame: Buffer, change: (header: Buffer) => void): Buffer {
  const copy = Buffer.from(frame);
  change(copy);
  copy.writeUInt32LE(crc32(copy.subarray(0, 60)), 60);
  return copy;
}

frames('a header is encoded as it is documented', () => {
  const into = new Uint8Array(HEADER_BYTES + 2).fill(0xee);
  encodeHeader(into, 1, {
    type: MESSAGES.WRITE.number,
    payloadBytes: 5,
    deadlineMs: 250,
    requestId: 7,
    epoch: 3,
    offset: 4097,
    count: 5,
    payloadCrc: crc32(Buffer.from('hello')),
  });
  assert.is(Buffer.from(into.subarray(1, 61)).toString('hex'), WRITE_HEX);
  assert.is(Buffer.from(into.buffer, 61, 4).readUInt32LE(), crc32(Buffer.from(WRITE_HEX, 'hex')));
  assert.is(into[0], 0xee);
  assert.is(into[HEADER_BYTES + 1], 0xee);
});

frames('the header CRC is that of zlib', () => {
  for (let i = 0; i < 500; i++) {
    const bytes = crypto.getRandomValues(new Uint8Array(80));
    const at = i % 20;
    assert.is(headerCrc(bytes, at), crc32(bytes.subarray(at, at + 60)));
  }
});

frames('a documented frame is decoded', () => {
  const seen = decoder();
  assert.is(seen.decoder.push(write()), 69);
  assert.equal(seen.errors, []);
  assert.is(seen.frames.length, 1);
  assert.is(seen.frames[0]!.payload, 'hello');
  const { header } = seen.frames[0]!;
  assert.is(header.type, MESSAGES.WRITE.number);
  assert.is(header.deadlineMs, 250);
  assert.is(header.requestId, 7);
  assert.is(header.epoch, 3);
  assert.is(header.offset, 4097);
  assert.is(header.count, 5);
  assert.not(seen.decoder.midFrame);
});

frames('numbers up to 2^53 - 1 pass, larger ones are malformed', () => {
  const most = Number.MAX_SAFE_INTEGER;
  const good = encodeFrame({ type: MESSAGES.READ.number, requestId: most, epoch: most, offset: most, count: 1 });
  const seen = decoder();
  seen.decoder.push(good);
  const { header } = seen.frames[0]!;
  assert.equal([header.requestId, header.epoch, header.offset], [most, most, most]);
  for (const at of [16, 24, 32]) {
    const bad = decoder();
    bad.decoder.push(altered(Buffer.from(good), (h) => h.writeBigUInt64LE(2n ** 53n, at)));
    assert.is(bad.errors[0]?.code, 'BAD_FRAME', `field at ${at}`);
    assert.equal(bad.frames, []);
  }
});

const MALFORMED: Array<[what: string, code: string, change: (header: Buffer) => void]> = [
  ['another magic', 'BAD_FRAME', (h) => h.writeUInt16LE(0x4649, 4)],
  ['another version', 'WRONG_VERSION', (h) => h.writeUInt8(2, 6)],
  ['an unknown type', 'BAD_FRAME', (h) => h.writeUInt8(99, 7)],
  ['a reply sent to a server', 'BAD_FRAME', (h) => h.writeUInt8(MESSAGES.WRITE.number | REPLY_BIT, 7)],
  ['GOODBYE sent to a server', 'BAD_FRAME', (h) => (h.writeUInt8(MESSAGES.GOODBYE.number, 7), h.writeUInt32LE(64, 0))],
  ['flags', 'BAD_FRAME', (h) => h.writeUInt16LE(1, 8)],
  ['a request with a status', 'BAD_FRAME', (h) => h.writeUInt16LE(1, 10)],
  ['reserved bits at 44', 'BAD_FRAME', (h) => h.writeUInt32LE(0x8000_0000, 44)],
  ['reserved bits at 48', 'BAD_FRAME', (h) => h.writeUInt8(1, 48)],
  ['reserved bits at 55', 'BAD_FRAME', (h) => h.writeUInt8(1, 55)],
  ['a length below the header', 'BAD_FRAME', (h) => h.writeUInt32LE(63, 0)],
  ['a length of 0', 'BAD_FRAME', (h) => h.writeUInt32LE(0, 0)],
  ['a length above the limit', 'TOO_LARGE', (h) => h.writeUInt32LE(HEADER_BYTES + MAX_IO_BYTES + 1, 0)],
  ['the greatest length', 'TOO_LARGE', (h) => h.writeUInt32LE(0xffff_ffff, 0)],
  ['a count that is not the payload', 'BAD_FRAME', (h) => h.writeUInt32LE(4, 40)],
  ['a write of nothing', 'BAD_FRAME', (h) => (h.writeUInt32LE(64, 0), h.writeUInt32LE(0, 40), h.writeUInt32LE(0, 56))],
  ['a read with a payload', 'TOO_LARGE', (h) => h.writeUInt8(MESSAGES.READ.number, 7)],
  ['another payload CRC', 'BAD_FRAME', (h) => h.writeUInt32LE(1, 56)],
];

for (const [what, code, change] of MALFORMED) {
  frames(`malformed: ${what}`, () => {
    const seen = decoder();
    const bytes = Buffer.concat([altered(write(), change), write()]);
    assert.is(seen.decoder.push(bytes), bytes.length);
    assert.equal(
      seen.errors.map((e) => e.code),
      [code],
    );
    assert.equal(seen.frames, []);
    assert.is(seen.decoder.push(write()), 69, 'a dead decoder swallows');
    assert.equal(seen.frames, []);
    assert.is(seen.errors.length, 1);
    assert.not(seen.decoder.midFrame);
  });
}

frames('malformed: a header that does not match its CRC', () => {
  const seen = decoder();
  const bytes = write();
  bytes[60]! ^= 1;
  seen.decoder.push(bytes);
  assert.is(seen.errors[0]?.code, 'BAD_FRAME');
});

frames('malformed: a payload CRC without a payload', () => {
  const seen = decoder();
  const ping = Buffer.from(encodeFrame({ type: MESSAGES.PING.number, requestId: 1 }));
  seen.decoder.push(altered(ping, (h) => h.writeUInt32LE(5, 56)));
  assert.is(seen.errors[0]?.code, 'BAD_FRAME');
});

frames('an oversized frame is refused before any of its payload is there', () => {
  const seen = decoder();
  seen.decoder.push(altered(write(), (h) => h.writeUInt32LE(0x4000_0000, 0)).subarray(0, HEADER_BYTES));
  assert.is(seen.errors[0]?.code, 'TOO_LARGE');
});

frames('a client takes replies, and error payloads up to their limit only', () => {
  const reply = { type: MESSAGES.WRITE.number | REPLY_BIT, requestId: 1 };
  const fine = decoder('client');
  fine.decoder.push(encodeFrame({ ...reply, status: 11 }, new Uint8Array(4096)));
  assert.is(fine.frames.length, 1);
  const long = decoder('client');
  long.decoder.push(encodeFrame({ ...reply, status: 11 }, new Uint8Array(4097)));
  assert.is(long.errors[0]?.code, 'TOO_LARGE');
  const payload = decoder('client');
  payload.decoder.push(encodeFrame(reply, new Uint8Array(1)));
  assert.is(payload.errors[0]?.code, 'TOO_LARGE');
  const request = decoder('client');
  request.decoder.push(write());
  assert.is(request.errors[0]?.code, 'BAD_FRAME');
  const goodbye = decoder('client');
  goodbye.decoder.push(encodeFrame({ type: MESSAGES.GOODBYE.number | REPLY_BIT, requestId: 0, status: 19 }));
  assert.is(goodbye.frames[0]?.header.status, 19);
  const short = decoder('client');
  short.decoder.push(
    encodeFrame({ type: MESSAGES.READ.number | REPLY_BIT, requestId: 1, count: 4096 }, new Uint8Array(5)),
  );
  assert.is(short.errors[0]?.code, 'BAD_FRAME', 'a READ reply shorter than its count');
});

frames('WAIT leaves the payload to the caller, and the header is asked about again', () => {
  let room = false;
  const asked: number[] = [];
  const got: string[] = [];
  const into = new Uint8Array(5);
  const own = new FrameDecoder(
    {
      onHeader: (h) => (asked.push(h.requestId), room ? into : WAIT),
      onFrame: (_h, payload) => void got.push(payload === into ? Buffer.from(into).toString() : 'a copy'),
      onMalformed: () => assert.unreachable(),
    },
    'server',
  );
  const bytes = write();
  assert.is(own.push(bytes.subarray(0, HEADER_BYTES)), HEADER_BYTES);
  assert.equal(asked, [], 'not asked before there is a byte of payload');
  assert.is(own.push(bytes, HEADER_BYTES), HEADER_BYTES);
  assert.is(own.push(bytes, HEADER_BYTES), HEADER_BYTES);
  assert.ok(own.midFrame);
  room = true;
  assert.is(own.push(bytes, HEADER_BYTES), bytes.length);
  assert.equal(asked, [7, 7, 7]);
  assert.equal(got, ['hello']);
  assert.not(own.midFrame);
});

frames('a sink may pause after a frame, and close within one', () => {
  const ping = encodeFrame({ type: MESSAGES.PING.number, requestId: 1 });
  const three = Buffer.concat([ping, ping, ping]);
  let count = 0;
  const own: FrameDecoder = new FrameDecoder(
    {
      onHeader: () => null,
      onFrame: () => (++count === 1 ? own.pause() : own.close()),
      onMalformed: () => assert.unreachable(),
    },
    'server',
  );
  assert.is(own.push(three), 64);
  assert.is(own.push(three, 64), three.length);
  assert.is(count, 2);
  assert.ok(own.closed);
});

frames('a sink that verifies itself gets the payload as it came', () => {
  const bytes = write();
  bytes[HEADER_BYTES]! ^= 1;
  let got = '';
  const own = new FrameDecoder(
    {
      onHeader: (h) => ((h.verify = false), null),
      onFrame: (_h, payload) => void (got = Buffer.from(payload!).toString()),
      onMalformed: () => assert.unreachable(),
    },
    'server',
  );
  own.push(bytes);
  assert.is(got, 'iello');
});

frames('a destination of another length is a fault of the program', () => {
  const own = new FrameDecoder(
    { onHeader: () => new Uint8Array(4), onFrame: () => {}, onMalformed: () => {} },
    'server',
  );
  assert.throws(() => own.push(write()), /destination/);
});

frames('midFrame tells of bytes that are held', () => {
  const seen = decoder();
  const bytes = write();
  assert.not(seen.decoder.midFrame);
  seen.decoder.push(bytes.subarray(0, 1));
  assert.ok(seen.decoder.midFrame);
  seen.decoder.push(bytes.subarray(1, HEADER_BYTES));
  assert.ok(seen.decoder.midFrame);
  seen.decoder.push(bytes.subarray(HEADER_BYTES, 68));
  assert.ok(seen.decoder.midFrame);
  seen.decoder.push(bytes.subarray(68));
  assert.not(seen.decoder.midFrame);
});

frames.run();
