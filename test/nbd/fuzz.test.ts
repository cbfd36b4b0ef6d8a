/**
 * Bytes that nobody should send. Whatever comes, a session never throws, hands on valid requests only, asks for no more
 * room than a payload needs, answers each refused request once, and either stays in step or ends. A failing case names
 * its seed: HOLDFAST_FUZZ_SEED runs that one alone.
 */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { NbdRequest } from '../../src/nbd/transmission.ts';
import {
  DEMO,
  Recorder,
  contextOption,
  exportsOf,
  infoOption,
  option,
  optionReplies,
  request,
  transmitting,
  u32,
} from '../support/nbd-client.ts';
import { Random } from '../support/random.ts';

const CASES = 10_000;
const only = process.env['HOLDFAST_FUZZ_SEED'];
const seeds = only === undefined ? Array.from({ length: CASES }, (_, i) => i) : [Number(only)];
const MARKED = { ...DEMO, marks: ['a', 'ü'] };
const READ_ONLY = { ...DEMO, name: 'ro', readOnly: true };

const OPTIONS = [
  option(3),
  option(5),
  option(8),
  option(11),
  infoOption(6, 'demo', 0, 1, 2, 3),
  infoOption(6, '', 3),
  infoOption(7, 'ro'),
  contextOption(9, 'demo'),
  contextOption(9, '', 'base:', 'qemu:'),
  contextOption(10, 'demo', 'base:allocation', 'qemu:dirty-bitmap:a'),
];
const ENDINGS = [infoOption(7, 'demo', 3), option(1, Buffer.from('ro')), option(1), option(2)];
const REQUESTS = [
  request({ command: 0, flags: 4, offset: 512, length: 4096 }),
  request({ command: 1, flags: 1, offset: 4095, payload: Buffer.alloc(600, 7) }),
  request({ command: 1, offset: DEMO.sizeBytes, payload: Buffer.alloc(30, 7) }),
  request({ command: 3 }),
  request({ command: 4, length: 1 << 20 }),
  request({ command: 5, length: 1 }),
  request({ command: 6, flags: 18, length: 65_536 }),
  request({ command: 7, flags: 8, length: 65_536 }),
  request({ command: 2 }),
];

function damage(random: Random, stream: Buffer): Buffer {
  const bytes = Buffer.from(stream);
  const changes = 1 + random.below(4);
  for (let i = 0; i < changes && bytes.length > 0; i++) {
    const at = random.below(bytes.length);
    const kind = random.below(6);
    if (kind === 0) bytes[at]! ^= 1 << random.below(8);
    else if (kind === 1) bytes[at] = random.below(256);
    else if (kind === 2) bytes.fill(0xff, at, Math.min(bytes.length, at + 1 + random.below(8)));
    else if (kind === 3) bytes.fill(0, at, Math.min(bytes.length, at + 1 + random.below(8)));
    else if (kind === 4)
      return Buffer.concat([bytes.subarray(0, at), random.bytes(1 + random.below(40)), bytes.subarray(at)]);
    else
      return Buffer.concat([bytes.subarray(0, at), bytes.subarray(Math.min(bytes.length, at + 1 + random.below(30)))]);
  }
  return bytes;
}

function pushInPieces(random: Random, recorder: Recorder, stream: Buffer): void {
  for (let at = 0; at < stream.length;) {
    const step = 1 + random.below(random.chance(0.5) ? 30 : 2000);
    const chunk = Uint8Array.from(stream.subarray(at, at + step));
    assert.is(recorder.session.push(chunk), chunk.length);
    at += step;
    if (recorder.session.state === 'starting-tls' && random.chance(0.7)) recorder.session.tlsUp();
  }
}

/** A recorder that watches what it is asked. */
class Watcher extends Recorder {
  override onPayload(r: NbdRequest, doneBytes: number): Uint8Array {
    this.check(r);
    assert.is(r.command, 1);
    assert.ok(doneBytes < r.lengthBytes);
    return new Uint8Array(Math.min(4096, r.lengthBytes - doneBytes));
  }
  override onRequest(r: NbdRequest): void {
    this.check(r);
    assert.ok([0, 3, 4, 5, 6, 7].includes(r.command));
    super.onRequest(r);
  }
  private check(r: NbdRequest): void {
    const { export: device, structuredReplies, contexts } = this.agreed!;
    assert.is(this.end, null);
    assert.ok(r.offsetBytes + r.lengthBytes <= device.sizeBytes);
    assert.ok(r.command === 3 || r.lengthBytes > 0);
    assert.not(device.readOnly && [1, 4, 6].includes(r.command));
    assert.ok(r.flags < 32);
    assert.not((r.flags & 4) !== 0 && !structuredReplies);
    assert.not(r.command === 7 && contexts.length === 0);
  }
}

test('damaged sessions', () => {
  let agreed = 0;
  let ended = 0;
  for (const seed of seeds) {
    const random = new Random(seed);
    const pick = (from: Buffer[]): Buffer => from[random.below(from.length)]!;
    const several = (from: Buffer[], most: number): Buffer[] =>
      Array.from({ length: random.below(most + 1) }, () => pick(from));
    const stream = Buffer.concat([
      u32(random.below(4)),
      ...several(OPTIONS, 5),
      pick(ENDINGS),
      ...several(REQUESTS, 8),
    ]);
    const policy = (['off', 'allow', 'require'] as const)[random.below(3)]!;
    const recorder = new Watcher(exportsOf(MARKED, READ_ONLY), policy);
    try {
      const damaged = damage(random, stream);
      pushInPieces(random, recorder, damaged);
      // All that can be told about two exports, for each option, and a refusal for each request.
      assert.ok(recorder.take().length < 1000 * (2 + damaged.length / 16));
      const { end } = recorder;
      recorder.session.push(request({ command: 3 }));
      if (end !== null) assert.is(recorder.end, end);
    } catch (error) {
      throw new Error(`HOLDFAST_FUZZ_SEED=${seed}: ${String(error)}`, { cause: error });
    }
    if (recorder.agreed !== null) agreed++;
    if (recorder.end !== null) ended++;
  }
  if (only !== undefined) return;
  // The damage must leave something to look at.
  assert.ok(agreed > CASES / 10 && ended > CASES / 10 && ended < CASES, `${agreed} ${ended}`);
});

test('random options of the right form are each answered, in order', () => {
  for (const seed of seeds.slice(0, 2000)) {
    const random = new Random(seed);
    const recorder = new Recorder(exportsOf(MARKED, READ_ONLY));
    recorder.push(u32(3));
    const numbers = Array.from({ length: 1 + random.below(20) }, () => [3, 6, 8, 9, 10, 11, 200][random.below(7)]!);
    const list = numbers.map((number) => {
      const pattern = OPTIONS[random.below(OPTIONS.length)]!.subarray(16);
      return option(number, random.chance(0.5) ? damage(random, pattern) : random.bytes(random.below(200)));
    });
    pushInPieces(random, recorder, Buffer.concat(list));
    const last = optionReplies(recorder.take()).filter(({ type }) => type === 1 || type > 0x80000000);
    const answered = last.map((reply) => reply.option);
    assert.equal(answered, numbers, `HOLDFAST_FUZZ_SEED=${seed}`);
    assert.is(recorder.end, null);
  }
});

test('random requests of the right form are each performed or refused once, in order', () => {
  for (const seed of seeds.slice(0, 2000)) {
    const random = new Random(seed);
    const recorder = transmitting({ device: random.chance(0.8) ? MARKED : READ_ONLY });
    recorder.take();
    const answers: bigint[] = [];
    recorder.onRequest = (r) => void answers.push(BigInt(r.cookieLow));
    recorder.onPayloadPart = (r) => void answers.push(BigInt(r.cookieLow));
    recorder.send = (bytes) => {
      assert.is(bytes.length, 16);
      answers.push(Buffer.from(bytes).readBigUInt64BE(8));
    };
    const count = 1 + random.below(20);
    const list = Array.from({ length: count }, (_, i) => {
      const command = [0, 1, 1, 3, 4, 5, 6, 7, 8, 0xffff][random.below(10)]!;
      const flags = random.chance(0.6) ? 0 : random.below(65_536);
      const offset = random.chance(0.8) ? random.below(DEMO.sizeBytes) : BigInt(random.below(65_536)) << 48n;
      const length = random.below(5000);
      const cookie = BigInt(i);
      if (command === 1) return request({ command, flags, offset, cookie, payload: new Uint8Array(length) });
      return request({ command, flags, offset, cookie, length });
    });
    pushInPieces(random, recorder, Buffer.concat(list));
    assert.equal(
      answers,
      list.map((_, i) => BigInt(i)),
      `HOLDFAST_FUZZ_SEED=${seed}`,
    );
    assert.is(recorder.end, null);
  }
});

test.run();
