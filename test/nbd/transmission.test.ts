/** Requests: what is performed, what is refused and with which error, in the order of the checks. */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { WAIT } from '../../src/nbd/transmission.ts';
import {
  DEMO,
  Recorder,
  type Sent,
  exportsOf,
  hex,
  infoOption,
  option,
  request,
  transmitting,
  u32,
} from '../support/nbd-client.ts';

const SIZE = DEMO.sizeBytes;
const [READ, WRITE, DISC, FLUSH, TRIM, CACHE, WRITE_ZEROES, BLOCK_STATUS] = [0, 1, 2, 3, 4, 5, 6, 7] as const;
const [FUA, NO_HOLE, DF, REQ_ONE, FAST_ZERO] = [1, 2, 4, 8, 16] as const;
const [EPERM, EINVAL, ENOSPC, EOVERFLOW, ESHUTDOWN] = [1, 22, 28, 75, 108] as const;
const MAX = 32 * 1024 * 1024;

/** The error of the only simple reply, after checking its form. */
function simpleError(recorder: Recorder, bytes: Buffer): number {
  assert.is(bytes.length, 16);
  assert.is(bytes.readUInt32BE(0), 0x67446698);
  assert.is(bytes.readBigUInt64BE(8), 0xfedcba9876543210n);
  assert.is(recorder.end, null);
  return bytes.readUInt32BE(4);
}

/** Sends a request that is to be refused, sees that the next one is served, and gives the error. */
function refusedWith(recorder: Recorder, sent: Sent): number {
  const before = recorder.seen.length;
  const reply = recorder.push(request({ cookie: 0xfedcba9876543210n, ...sent }));
  assert.is(recorder.seen.length, before);
  assert.is(recorder.push(request({ command: FLUSH, cookie: 9n })).length, 0);
  assert.equal(recorder.seen.pop()!.cookie, 9n);
  return simpleError(recorder, reply);
}

test('a request, field by field', () => {
  const recorder = transmitting();
  recorder.push(hex('25609513 0001 0000 0123456789abcdef 00000000000ffe00 00000200'));
  assert.equal(recorder.seen, [
    { command: READ, flags: FUA, offsetBytes: 0xffe00, lengthBytes: 512, cookie: 0x0123456789abcdefn },
  ]);
});

test('every command is handed on, with the flags that belong to it', () => {
  const recorder = transmitting({ structured: true, contexts: ['base:allocation'] });
  const sent: Sent[] = [
    { command: READ, flags: FUA | DF, offset: 1, length: 512 },
    { command: WRITE, flags: FUA, offset: 4095, payload: hex('0102') },
    { command: FLUSH, flags: FUA },
    { command: TRIM, flags: FUA, offset: 0, length: SIZE },
    { command: CACHE, flags: FUA, offset: 5, length: 1 },
    { command: WRITE_ZEROES, flags: FUA | NO_HOLE | FAST_ZERO, offset: SIZE - 1, length: 1 },
    { command: BLOCK_STATUS, flags: FUA | REQ_ONE, offset: 0, length: SIZE },
  ];
  for (const one of sent) assert.is(recorder.push(request(one)).length, 0);
  assert.equal(
    recorder.seen.map(({ command, flags, offsetBytes, lengthBytes, payload }) => [
      command,
      flags,
      offsetBytes,
      lengthBytes,
      payload,
    ]),
    [
      [READ, 5, 1, 512, undefined],
      [WRITE, 1, 4095, 2, '0102'],
      [FLUSH, 1, 0, 0, undefined],
      [TRIM, 1, 0, SIZE, undefined],
      [CACHE, 1, 5, 1, undefined],
      [WRITE_ZEROES, 19, SIZE - 1, 1, undefined],
      [BLOCK_STATUS, 9, 0, SIZE, undefined],
    ],
  );
});

test('past the end: ENOSPC for writes, EINVAL for the rest', () => {
  const recorder = transmitting({ structured: false });
  for (const offset of [SIZE, SIZE - 1, 1n << 63n, 0xffff_ffff_ffff_ffffn]) {
    assert.is(refusedWith(recorder, { command: WRITE, offset, payload: hex('0000') }), ENOSPC);
    assert.is(refusedWith(recorder, { command: WRITE_ZEROES, offset, length: 2 }), ENOSPC);
    for (const command of [READ, TRIM, CACHE, BLOCK_STATUS]) {
      assert.is(refusedWith(recorder, { command, offset, length: 2 }), EINVAL);
    }
  }
});

test('a length of 0 is out of range, except for a flush', () => {
  const recorder = transmitting();
  for (const command of [READ, TRIM, CACHE, BLOCK_STATUS]) assert.is(refusedWith(recorder, { command }), EINVAL);
  for (const command of [WRITE, WRITE_ZEROES]) assert.is(refusedWith(recorder, { command }), ENOSPC);
  assert.is(refusedWith(recorder, { command: FLUSH, length: 1 }), EINVAL);
  assert.is(refusedWith(recorder, { command: FLUSH, offset: 1 }), EINVAL);
});

test('read-only comes before everything else', () => {
  const recorder = transmitting({ device: { ...DEMO, readOnly: true } });
  assert.is(refusedWith(recorder, { command: WRITE, flags: 0x8000, offset: SIZE, payload: hex('00') }), EPERM);
  assert.is(refusedWith(recorder, { command: TRIM, length: 1 }), EPERM);
  assert.is(refusedWith(recorder, { command: WRITE_ZEROES, flags: DF, length: 0 }), EPERM);
  assert.is(refusedWith(recorder, { command: READ, length: 0 }), EINVAL);
});

test('unknown commands and flags, flags on the wrong command', () => {
  const recorder = transmitting();
  for (const command of [8, 255, 0xffff]) assert.is(refusedWith(recorder, { command, length: 1 << 30 }), EINVAL);
  for (const flags of [1 << 5, 1 << 15, FUA | (1 << 9)]) {
    assert.is(refusedWith(recorder, { command: READ, flags, length: 1 }), EINVAL);
    assert.is(refusedWith(recorder, { command: WRITE, flags, payload: Buffer.alloc(100_000, 0x25) }), EINVAL);
  }
  const wrong: Array<[command: number, flags: number[]]> = [
    [READ, [NO_HOLE, REQ_ONE, FAST_ZERO]],
    [WRITE, [NO_HOLE, DF, REQ_ONE, FAST_ZERO]],
    [TRIM, [NO_HOLE, DF, REQ_ONE, FAST_ZERO]],
    [CACHE, [NO_HOLE, DF, REQ_ONE, FAST_ZERO]],
    [WRITE_ZEROES, [DF, REQ_ONE]],
  ];
  for (const [command, list] of wrong) {
    for (const flags of list) {
      const payload = command === WRITE ? hex('00') : undefined;
      assert.is(refusedWith(recorder, { command, flags, length: 1, ...(payload ? { payload } : {}) }), EINVAL);
    }
  }
  // Range before flags, as nbdkit has it.
  assert.is(refusedWith(recorder, { command: WRITE, flags: 1 << 15, offset: SIZE, payload: hex('00') }), ENOSPC);
  // DF without structured replies.
  assert.is(refusedWith(recorder, { command: READ, flags: DF, length: 1 }), EINVAL);
});

test('BLOCK_STATUS needs a context', () => {
  assert.is(refusedWith(transmitting(), { command: BLOCK_STATUS, length: 1 }), EINVAL);
  const reply = transmitting({ structured: true }).push(request({ command: BLOCK_STATUS, length: 1 }));
  assert.is(reply.readUInt32BE(20), EINVAL);
});

test('more than 32 MiB: EINVAL, or EOVERFLOW for a structured read; the payload is skipped', () => {
  const device = { ...DEMO, sizeBytes: 1 << 30 };
  const recorder = transmitting({ device });
  assert.is(refusedWith(recorder, { command: READ, length: MAX + 1 }), EINVAL);
  assert.is(recorder.push(request({ command: READ, length: MAX })).length, 0);
  for (const command of [TRIM, CACHE, WRITE_ZEROES]) {
    assert.is(recorder.push(request({ command, length: 1 << 30 })).length, 0);
  }
  const piece = Buffer.alloc(1 << 20);
  const head = request({ command: WRITE, cookie: 0xfedcba9876543210n, length: MAX + (1 << 20) });
  assert.is(recorder.push(head).length, 0);
  assert.ok(recorder.session.unfinished);
  for (let i = 0; i < 32; i++) assert.is(recorder.push(piece).length, 0);
  assert.is(simpleError(recorder, recorder.push(piece)), EINVAL);
  assert.not(recorder.session.unfinished);
  const structured = transmitting({ device, structured: true });
  const reply = structured.push(request({ command: READ, length: MAX + 1 }));
  assert.is(reply.readUInt32BE(20), EOVERFLOW);
});

test('a payload too long to be skipped, and bytes that are no request, end the connection', () => {
  for (const bytes of [
    request({ command: WRITE, length: 64 * 1024 * 1024 + 1 }),
    Buffer.alloc(28),
    request({ command: READ, length: 1 }).fill(0xff, 0, 4),
    Buffer.concat([request({ command: READ, length: 1 }), hex('00'), request({ command: READ, length: 1 })]),
  ]) {
    const recorder = transmitting();
    recorder.push(bytes);
    assert.is(recorder.end!.soft, false);
    assert.is(recorder.session.push(request({ command: FLUSH })), 28);
    assert.ok(recorder.seen.length <= 1);
  }
});

test('a refused request is answered in the form that was agreed on', () => {
  const reply = transmitting({ structured: true }).push(
    request({ command: WRITE, cookie: 7n, offset: SIZE, length: 0 }),
  );
  const message = 'a length of 0';
  assert.equal(
    reply,
    Buffer.concat([
      hex('668e33ef 0001 8001 0000000000000007'),
      u32(6 + message.length),
      hex('0000001c 000d'),
      Buffer.from(message),
    ]),
  );
});

test('DISC ends softly; what follows is ignored', () => {
  const recorder = transmitting();
  recorder.push(Buffer.concat([request({ command: READ, length: 1 }), request({ command: DISC }), Buffer.alloc(99)]));
  assert.is(recorder.seen.length, 1);
  assert.is(recorder.end!.soft, true);
  assert.is(recorder.session.state, 'ended');
  // Some clients set fields that should be 0.
  const sloppy = transmitting();
  sloppy.push(request({ command: DISC, flags: 0xffff, offset: 1, length: 5 }));
  assert.is(sloppy.end!.soft, true);
});

test('a write is taken in parts of the size that the sink likes, and waits for room', () => {
  const recorder = transmitting();
  let free = 0;
  recorder.room = (rest) => (free-- > 0 ? new Uint8Array(Math.min(rest, 3)) : WAIT);
  const stream = request({ command: WRITE, payload: hex('00010203040506') });
  assert.is(recorder.session.push(stream), 28);
  assert.ok(recorder.session.unfinished);
  free = 2;
  assert.is(recorder.session.push(stream, 28), 34);
  assert.is(recorder.seen.length, 0);
  free = 1;
  assert.is(recorder.session.push(stream, 34), 35);
  assert.is(recorder.seen[0]!.payload, '00010203040506');
  assert.not(recorder.session.unfinished);
});

test('pause holds back what follows; close ends it', () => {
  const recorder = transmitting();
  const two = Buffer.concat([request({ command: FLUSH, cookie: 1n }), request({ command: FLUSH, cookie: 2n })]);
  recorder.onRequest = function (r) {
    this.seen.push({ ...r, cookie: BigInt(r.cookieLow) });
    this.session.pause();
  };
  assert.is(recorder.session.push(two), 28);
  assert.is(recorder.session.push(two, 28), 56);
  assert.is(recorder.seen.length, 2);
  recorder.session.close();
  assert.is(recorder.session.push(two), 56);
  assert.is(recorder.seen.length, 2);
  assert.is(recorder.end, null);
});

test('a client that does not wait: the whole session in one chunk', () => {
  const recorder = new Recorder(exportsOf(DEMO));
  const reads = [request({ command: READ, length: 1 }), request({ command: READ, length: 2 })];
  recorder.push(Buffer.concat([u32(3), option(8), infoOption(7, 'demo'), ...reads, request({ command: DISC })]));
  assert.equal(
    recorder.seen.map((seen) => seen.lengthBytes),
    [1, 2],
  );
  assert.is(recorder.end!.soft, true);
});

test('a server that shuts down refuses what begins from then on', () => {
  const recorder = transmitting();
  recorder.push(request({ command: WRITE, payload: hex('0102') }).subarray(0, 29));
  recorder.session.shutDown();
  recorder.push(hex('02'));
  assert.is(recorder.seen.length, 1);
  for (const sent of [{ command: READ, length: 1 }, { command: WRITE, payload: hex('00') }, { command: 99 }]) {
    const reply = recorder.push(request({ cookie: 0xfedcba9876543210n, ...sent }));
    assert.is(simpleError(recorder, reply), ESHUTDOWN);
  }
  assert.is(recorder.seen.length, 1);
});

test.run();
