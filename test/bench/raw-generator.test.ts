import { spawn } from 'node:child_process';
import { createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { fileURLToPath } from 'node:url';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { HoldfastError } from '../../src/base/errors.ts';
import { BLOCK_BYTES, MAX_IO_BYTES, MiB } from '../../src/base/units.ts';
import { FrameDecoder } from '../../src/protocol/frame.ts';
import { encodeHelloReply, encodeVolumeInfo } from '../../src/protocol/handshake.ts';
import { MESSAGES } from '../../src/protocol/messages.ts';
import { encodeErrorReply, encodeReply, type Answered } from '../../src/protocol/replies.ts';
import { loadCommand, parseVolumeUrl, type LoadOptions, type LoadResult } from '../../bench/load/load-options.ts';
import { RawConnection } from '../../bench/load/raw-connection.ts';
import { FrameSet } from '../../bench/load/raw-frames.ts';
import { Tally } from '../../bench/load/tally.ts';

const SIZE_BYTES = 4 * MiB;
const EPOCH = 7;

interface Seen {
  id: number;
  type: number;
  epoch: number;
  offset: number;
  count: number;
  payloadBytes: number;
}

interface Behaviour {
  /** What becomes of the n-th request (from 0). */
  answer?: (request: Answered, n: number) => Uint8Array | 'hang up';
  /** So many requests of a connection must be there before the first is answered. */
  awaitFirst?: number;
  /** The first request is answered only when so many have come. */
  holdFirstUntil?: number;
  /** Answers leave in pieces of so many bytes. */
  pieceBytes?: number;
}

const ok = (request: Answered): Uint8Array =>
  encodeReply(request, EPOCH, request.type === MESSAGES.READ.number ? new Uint8Array(request.count) : null);

/** A server with no volume behind it, and the requests that it was sent. */
class Fake {
  readonly seen: Seen[] = [];
  mostInFlight = 0;
  repeatedIds = 0;
  connections = 0;
  private readonly server: Server;
  private readonly behaviour: Behaviour;

  constructor(behaviour: Behaviour) {
    this.behaviour = behaviour;
    this.server = createServer((socket) => this.serve(socket));
  }

  async listen(): Promise<string> {
    await new Promise<void>((resolve) => this.server.listen(0, '127.0.0.1', resolve));
    return `holdfast://127.0.0.1:${(this.server.address() as AddressInfo).port}/v`;
  }

  close(): void {
    this.server.close();
  }

  private serve(socket: Socket): void {
    this.connections++;
    const inFlight = new Set<number>();
    let waiting: Array<{ id: number; bytes: Uint8Array }> = [];
    const { answer = ok, awaitFirst = 1, holdFirstUntil = 0, pieceBytes } = this.behaviour;
    let arrived = 0;
    const send = (bytes: Uint8Array): void => {
      for (let at = 0; at < bytes.length; at += pieceBytes ?? bytes.length) {
        socket.write(bytes.subarray(at, at + (pieceBytes ?? bytes.length)));
      }
    };
    const decoder = new FrameDecoder(
      {
        onHeader: () => null,
        onFrame: (h, payload) => {
          if (h.type === MESSAGES.HELLO.number) {
            const limits = {
              maxPayloadBytes: MAX_IO_BYTES,
              maxInFlightBytes: MiB,
              maxInFlightRequests: 64,
              sessionWindow: 1024,
            };
            return send(encodeReply(h, EPOCH, encodeHelloReply({ version: 1, features: 0n, limits, server: 'fake' })));
          }
          if (h.type === MESSAGES.ATTACH.number) {
            const position = { epoch: EPOCH, seq: 0 };
            const [blockBytes, atomicBytes] = [BLOCK_BYTES, MAX_IO_BYTES];
            const info = { name: 'v', volumeId: new Uint8Array(16), sizeBytes: SIZE_BYTES, blockBytes, atomicBytes };
            return send(encodeReply(h, EPOCH, encodeVolumeInfo({ ...info, readOnly: false, epoch: EPOCH, position })));
          }
          if (inFlight.has(h.requestId)) this.repeatedIds++;
          inFlight.add(h.requestId);
          this.mostInFlight = Math.max(this.mostInFlight, inFlight.size);
          const n = this.seen.length;
          const { type, epoch, offset, count } = h;
          this.seen.push({ id: h.requestId, type, epoch, offset, count, payloadBytes: payload?.length ?? 0 });
          const bytes = answer({ type, offset, count, requestId: h.requestId }, n);
          if (bytes === 'hang up') return socket.destroy();
          waiting.push({ id: h.requestId, bytes });
          arrived++;
        },
        onMalformed: (error) => socket.destroy(error),
      },
      'server',
    );
    socket.setNoDelay(true);
    socket.on('error', () => socket.destroy());
    socket.on('data', (chunk) => {
      decoder.push(chunk);
      if (arrived < awaitFirst || socket.destroyed) return;
      // What came together is answered together, the last one first.
      const hold = arrived < holdFirstUntil ? this.seen[0]!.id : -1;
      const leaving = waiting.filter((w) => w.id !== hold).reverse();
      waiting = waiting.filter((w) => w.id === hold);
      for (const { id } of leaving) inFlight.delete(id);
      send(Buffer.concat(leaving.map((w) => w.bytes)));
    });
  }
}

async function generate(
  behaviour: Behaviour,
  args: string[],
): Promise<{ fake: Fake; status: number | null; result: LoadResult; stderr: string }> {
  const fake = new Fake(behaviour);
  const url = await fake.listen();
  const script = fileURLToPath(new URL('../../bench/load/raw-generator.js', import.meta.url));
  const all = [script, '--url', url, '--seconds', '0.3', '--warmup', '0', ...args];
  const child = spawn(process.execPath, all, { stdio: ['ignore', 'pipe', 'pipe'] });
  let stdout = '';
  let stderr = '';
  child.stdout.on('data', (text) => (stdout += text));
  child.stderr.on('data', (text) => (stderr += text));
  const status = await new Promise<number | null>((resolve) => child.once('close', resolve));
  fake.close();
  return { fake, status, result: (stdout === '' ? {} : JSON.parse(stdout)) as LoadResult, stderr };
}

test('keeps the depth on every connection, whatever the order and fragmentation of the replies', async () => {
  const load = ['--op', 'mix', '--clients', '3', '--depth', '4'];
  const { fake, status, result, stderr } = await generate({ awaitFirst: 4, pieceBytes: 1000 }, load);
  assert.is(status, 0, stderr);
  assert.is(fake.connections, 3);
  assert.is(fake.mostInFlight, 4);
  assert.is(fake.repeatedIds, 0);
  assert.ok(result.ops > 0 && result.ops <= fake.seen.length, `${result.ops} of ${fake.seen.length}`);
  assert.is(result.errors, 0);
  assert.is(result.latency.count, result.ops);
  const reads = fake.seen.filter((s) => s.type === MESSAGES.READ.number);
  const writes = fake.seen.filter((s) => s.type === MESSAGES.WRITE.number);
  assert.is(reads.length + writes.length, fake.seen.length);
  assert.ok(reads.length > 0 && writes.length > 0, `${reads.length} reads, ${writes.length} writes`);
  for (const s of fake.seen) {
    assert.is(s.epoch, EPOCH);
    assert.is(s.count, BLOCK_BYTES);
    assert.is(s.offset % BLOCK_BYTES, 0);
    assert.ok(s.offset + s.count <= SIZE_BYTES);
  }
  for (const s of writes) assert.is(s.payloadBytes, BLOCK_BYTES);
});

test('a header that comes byte by byte is put together', async () => {
  const { status, result, stderr } = await generate({ pieceBytes: 1 }, ['--op', 'write', '--depth', '2']);
  assert.is(status, 0, stderr);
  assert.ok(result.ops > 0);
});

test('encoded requests are used again, but never while they are in flight', async () => {
  // The very first request is answered last of all: every round has to pass it over.
  const fake = new Fake({ holdFirstUntil: 200 });
  const { host, port, volume } = parseVolumeUrl(await fake.listen());
  const command = loadCommand('test', '').parse(['--url', 'x', '--op', 'mix', '--depth', '4'], { from: 'user' });
  const load = { ...command.opts<LoadOptions>(), seconds: 3600, warmup: 0 };
  const connection = await RawConnection.open(host, port, volume);
  assert.is(connection.volume.sizeBytes, SIZE_BYTES);
  const frames = new FrameSet({ load, spanBytes: SIZE_BYTES, epoch: EPOCH, index: 0, count: 6, limit: 300 });
  const tally = new Tally(load, performance.now());
  await connection.run(frames, load.depth, tally);
  connection.close();
  fake.close();
  assert.is(tally.firstError, null);
  assert.is(fake.seen.length, 300);
  assert.is(fake.repeatedIds, 0);
  assert.is(fake.mostInFlight, 4);
  assert.is(new Set(fake.seen.map((s) => s.id)).size, 6);
  // An id always means the same request.
  assert.is(new Set(fake.seen.map((s) => `${s.id} ${s.type} ${s.offset}`)).size, 6);
});

test('a fill writes every byte of the span once and stops', async () => {
  const load = ['--fill', '--block-bytes', '64KiB', '--clients', '3', '--depth', '5'];
  const { fake, status, result, stderr } = await generate({}, load);
  assert.is(status, 0, stderr);
  assert.is(result.ops, SIZE_BYTES / 65536);
  assert.equal(
    fake.seen.map((s) => s.offset).sort((a, b) => a - b),
    Array.from({ length: SIZE_BYTES / 65536 }, (_, i) => i * 65536),
  );
  for (const s of fake.seen) assert.is(s.payloadBytes, 65536);
});

test('one refused request in a run is counted, named, and fails the run', async () => {
  const refuse = (request: Answered, n: number): Uint8Array =>
    n === 5 ? encodeErrorReply(request, EPOCH, new HoldfastError('CORRUPT_BLOCK', { offsetBytes: 4096 })) : ok(request);
  const { status, result, stderr } = await generate({ answer: refuse }, ['--depth', '2']);
  assert.is(status, 1);
  assert.is(result.errors, 1);
  assert.match(stderr, /READ: CORRUPT_BLOCK/);
});

test('replies that cannot be right end the run', async () => {
  const wrong: Array<[string, (request: Answered) => Uint8Array | 'hang up', RegExp]> = [
    ['another id', (r) => ok({ ...r, requestId: r.requestId + 1 }), /no request in flight/],
    ['another type', (r) => ok({ ...r, type: MESSAGES.WRITE.number }), /other kind of request/],
    ['a short payload', (r) => encodeReply(r, EPOCH, new Uint8Array(100)), /payload of 100 bytes/],
    ['no frame', () => new Uint8Array(64), /no frame of the protocol/],
    ['the same reply twice', (r) => Buffer.concat([ok(r), ok(r)]), /no request in flight/],
    ['the end', () => 'hang up', /connection was lost/],
  ];
  for (const [name, answer, message] of wrong) {
    const { status, stderr } = await generate({ answer: (request, n) => (n < 3 ? ok(request) : answer(request)) }, []);
    assert.is(status, 1, name);
    assert.match(stderr, message, name);
  }
});

test('wrong options are refused before anything is opened', async () => {
  for (const args of [
    ['--op', 'erase'],
    ['--clients', '0'],
    ['--depth', 'x'],
    ['--block-bytes', '512KiB'],
    ['--pattern', 'gauss'],
  ]) {
    const { fake, status } = await generate({}, args);
    assert.ok(status !== 0, args.join(' '));
    assert.is(fake.connections, 0, args.join(' '));
  }
});

test.run();
