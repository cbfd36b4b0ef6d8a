/** What bad input gets, from a real server process: an answer that says what is wrong, and nobody else is touched. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { HEADER_BYTES } from '../../src/protocol/frame.ts';
import { MESSAGES } from '../../src/protocol/messages.ts';
import { encodeFrame } from '../../src/protocol/replies.ts';
import { RawClient } from '../support/raw-client.ts';
import { ServerProcess, holdfast, temporaryFolder } from '../support/server-process.ts';
import { mkdirSync, writeFileSync } from 'node:fs';
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';

const MiB = 1024 * 1024;
const SIZE = 16 * MiB;
const test = suite('bad input');
const dir = join(temporaryFolder(), 'vol');
let server: ServerProcess;
/** A well-behaved client that must notice nothing of all this. */
let witness: RawClient;
let witnessed = 0;

test.before(async () => {
  server = await ServerProcess.start(dir, ['--size', '16MiB']);
  witness = await RawClient.attached(server.port, 1n, 1);
});
test.after.each(async () => {
  const reply = await witness.write(++witnessed, 8192, Uint8Array.of(witnessed));
  assert.is(reply.error, null, 'the witness goes on');
  assert.is((await witness.read(8192, 1)).payload![0], witnessed);
});
test.after(async () => {
  witness.close();
  assert.equal(await server.kill('SIGTERM'), { code: 0, signal: null });
});

test('ranges: past the end, empty, too large', async () => {
  const c = await RawClient.attached(server.port, 2n, 1);
  const code = async (fields: { type: number; offset: number; count: number }): Promise<string | undefined> =>
    (await c.ask({ requestId: next++, ...fields })).error?.code;
  let next = 1;
  const { READ, ZERO, TRIM, EXTENTS } = MESSAGES;
  assert.is(await code({ type: READ.number, offset: SIZE, count: 1 }), 'OUT_OF_RANGE');
  assert.is(await code({ type: READ.number, offset: SIZE - 1, count: 2 }), 'OUT_OF_RANGE');
  assert.is(await code({ type: READ.number, offset: 0, count: 0 }), 'INVALID_ARGUMENT');
  assert.is(await code({ type: READ.number, offset: 0, count: 256 * 1024 + 1 }), 'TOO_LARGE');
  assert.is(await code({ type: READ.number, offset: 2 ** 53 - 1, count: 4096 }), 'OUT_OF_RANGE');
  assert.is(await code({ type: ZERO.number, offset: SIZE - 4096, count: 8192 }), 'OUT_OF_RANGE');
  assert.is(await code({ type: ZERO.number, offset: 1, count: 256 * 1024 + 1 }), 'TOO_LARGE');
  assert.is(await code({ type: TRIM.number, offset: SIZE, count: 1 }), 'OUT_OF_RANGE');
  const past = await c.write(next++, SIZE - 2, new Uint8Array(4));
  assert.is(past.error?.code, 'OUT_OF_RANGE');
  assert.match(past.error!.message, /16777216 bytes/);
  const extents = await c.ask({ type: EXTENTS.number, offset: SIZE, count: 1 }, Uint8Array.of(1, 0, 0, 0));
  assert.is(extents.error?.code, 'OUT_OF_RANGE');
  // Unaligned is no error.
  assert.is((await c.write(next++, 4095, Uint8Array.of(1, 2, 3))).error, null);
  assert.equal([...(await c.read(4094, 5)).payload!], [0, 1, 2, 3, 0]);
  c.close();
});

test('unknown volume, not attached, wrong epoch', async () => {
  const c = await RawClient.connect(server.port);
  assert.is((await c.hello(3n, 1)).error, null);
  assert.is((await c.read(0, 4096)).error?.code, 'NOT_ATTACHED');
  assert.is((await c.write(1, 0, new Uint8Array(4096))).error?.code, 'NOT_ATTACHED');
  const unknown = await c.attach('nope', null);
  assert.is(unknown.error?.code, 'NO_SUCH_VOLUME');
  assert.match(unknown.error!.message, /vol/);
  assert.is((await c.attach('vol', null)).error, null);
  c.epoch = 99;
  assert.is((await c.read(0, 4096)).error?.code, 'WRONG_EPOCH');
  c.close();
});

test('wrong version: told which one the server speaks, then closed', async () => {
  const c = await RawClient.connect(server.port);
  const reply = await c.hello(4n, 1, [7, 9]);
  assert.is(reply.error?.code, 'WRONG_VERSION');
  assert.match(reply.error!.message, /7 to 9.*version 1/);
  await c.closed;
});

/** Sends bytes as they are; resolves with the reason that the server closed the connection for. */
async function refused(bytes: Uint8Array, introduce = true): Promise<string | undefined> {
  const c = introduce
    ? await RawClient.attached(server.port, BigInt(1000 + ++sessions), 1)
    : await RawClient.connect(server.port);
  c.socket.write(bytes);
  await c.closed;
  return c.goodbye?.code;
}
let sessions = 0;

test('malformed frames close their connection with a reason', async () => {
  const { READ, WRITE, HELLO } = MESSAGES;
  const good = (): Uint8Array => encodeFrame({ type: READ.number, requestId: 9, count: 4096, epoch: 1 });
  const changed = (at: number, value: number): Uint8Array => {
    const frame = good();
    frame[at] = value;
    return frame;
  };
  assert.is(await refused(new TextEncoder().encode('GET / HTTP/1.1\r\n'.repeat(20))), 'BAD_FRAME', 'garbage');
  assert.is(await refused(changed(16, 77)), 'BAD_FRAME', 'header CRC');
  assert.is(await refused(changed(6, 9)), 'WRONG_VERSION', 'frame version');
  assert.is(await refused(encodeFrame({ type: 99, requestId: 1 })), 'BAD_FRAME', 'unknown type');
  assert.is(
    await refused(encodeFrame({ type: WRITE.number, requestId: 1, count: MiB }, new Uint8Array(MiB))),
    'TOO_LARGE',
  );
  const torn = encodeFrame({ type: WRITE.number, requestId: 1, count: 4096, epoch: 1 }, new Uint8Array(4096).fill(3));
  torn[HEADER_BYTES + 100]! ^= 1;
  assert.is(await refused(torn), 'BAD_FRAME', 'payload CRC');
  assert.is(await refused(good(), false), 'BAD_FRAME', 'no HELLO first');
  assert.is(
    await refused(encodeFrame({ type: HELLO.number, requestId: 1 }, new Uint8Array(3)), false),
    'BAD_FRAME',
    'short HELLO',
  );
});

test('several clients that send far more than the limits at once get every answer', async () => {
  // The limits are reached in the middle of chunks; what a paused connection keeps must be its own.
  const clients = await Promise.all(
    Array.from({ length: 6 }, (_, i) => RawClient.attached(server.port, BigInt(3000 + i), 1)),
  );
  await Promise.all(
    clients.map(async (c, i) => {
      const replies = await Promise.all(
        Array.from({ length: 700 }, (_, n) => c.read(4096 * ((n * 7 + i) % 4000), 32_768)),
      );
      assert.ok(replies.every((reply) => reply.error === null && reply.payload!.length === 32_768));
      assert.is(c.goodbye, null);
    }),
  );
  for (const c of clients) c.close();
});

test('sockets that are read through data events serve the same', async () => {
  const plain = await ServerProcess.start(join(temporaryFolder(), 'plain'), ['--size', '8MiB'], {
    HOLDFAST_USER_BUFFER: 'off',
  });
  const c = await RawClient.attached(plain.port, 1n, 1);
  assert.is((await c.write(1, 5, new Uint8Array(200_000).fill(9))).error, null);
  assert.is((await c.read(0, 200_006)).payload![200_004], 9);
  c.socket.write(new TextEncoder().encode('garbage'.repeat(20)));
  await c.closed;
  assert.is(c.goodbye?.code, 'BAD_FRAME');
  assert.is((await plain.kill('SIGTERM')).code, 0);
});

test('half a frame, then gone: no effect (C-21)', async () => {
  const c = await RawClient.attached(server.port, 5n, 1);
  assert.is((await c.write(1, 0, new Uint8Array(4096).fill(1))).error, null);
  const frame = encodeFrame(
    { type: MESSAGES.WRITE.number, requestId: 2, count: 65536, epoch: c.epoch },
    new Uint8Array(65536).fill(2),
  );
  c.socket.write(frame.subarray(0, 30_000));
  await new Promise((resolve) => setTimeout(resolve, 50));
  c.close();
  const after = await RawClient.attached(server.port, 6n, 1);
  assert.is((await after.read(0, 1)).payload![0], 1);
  after.close();
});

test('a hundred half-open connections, a flood and a reader that stops hold nobody up', async () => {
  const halfOpen = await Promise.all(Array.from({ length: 100 }, () => RawClient.connect(server.port)));
  for (const c of halfOpen) c.socket.write(Uint8Array.of(64, 0, 0));
  const deaf = await RawClient.attached(server.port, 7n, 1);
  deaf.socket.pause();
  const asked = 3000;
  for (let i = 0; i < asked; i++) {
    deaf.send({
      type: MESSAGES.READ.number,
      requestId: 2 ** 52 + 10_000 + i,
      offset: 0,
      count: 256 * 1024,
      epoch: deaf.epoch,
    });
  }
  const partial = await Promise.all(
    Array.from({ length: 200 }, (_, i) => RawClient.attached(server.port, BigInt(2000 + i), 1)),
  );
  const frame = encodeFrame(
    { type: MESSAGES.WRITE.number, requestId: 1, count: 256 * 1024, epoch: deaf.epoch },
    new Uint8Array(256 * 1024),
  );
  for (const c of partial) c.socket.write(frame.subarray(0, 1000));
  for (let i = 0; i < 50; i++) {
    assert.is((await witness.write(++witnessed, 8192, Uint8Array.of(witnessed))).error, null);
    assert.is((await witness.read(0, 256 * 1024)).error, null);
  }
  const rss = Number(/VmRSS:\s+(\d+)/.exec(await readProc(server.child.pid!))![1]);
  assert.ok(rss < 500 * 1024, `memory stays bounded: ${rss} KiB`);
  for (const c of [...halfOpen, deaf, ...partial]) c.close();
});

async function readProc(pid: number): Promise<string> {
  const { readFile } = await import('node:fs/promises');
  return readFile(`/proc/${pid}/status`, 'utf8');
}

test('sessions: a newer generation takes over, an older one is refused, a repetition is answered once', async () => {
  const first = await RawClient.attached(server.port, 50n, 1);
  const since = first.info!.position;
  assert.is((await first.write(1, 12288, Uint8Array.of(1))).error, null);
  const second = await RawClient.attached(server.port, 50n, 2, since);
  await first.closed;
  assert.is(first.goodbye?.code, 'STALE_GENERATION');
  const other = await RawClient.attached(server.port, 51n, 1);
  assert.is((await other.write(1, 12288, Uint8Array.of(99))).error, null);
  // The repetition must not undo what somebody else wrote since.
  assert.is((await second.write(1, 12288, Uint8Array.of(1))).error, null);
  assert.is((await second.read(12288, 1)).payload![0], 99);
  const late = await RawClient.connect(server.port);
  await late.hello(50n, 1);
  assert.is((await late.attach('', since)).error?.code, 'STALE_GENERATION');
  for (const c of [second, other, late]) c.close();
});

test('a request below the window of its session learns that its outcome is unknown', async () => {
  const c = await RawClient.attached(server.port, 60n, 1);
  assert.is((await c.write(5000, 0, Uint8Array.of(1))).error, null);
  const again = await RawClient.attached(server.port, 60n, 2, c.info!.position);
  assert.is((await again.write(100, 0, Uint8Array.of(1))).error?.code, 'OUTCOME_UNKNOWN');
  assert.is((await again.write(5000, 0, Uint8Array.of(2))).error, null, 'a repetition is answered');
  assert.is((await again.read(0, 1)).payload![0], 1, 'and not executed');
  again.close();
});

test('the command line: full disk, folder in use, no volume, read-only mount', async () => {
  const second = await holdfast(['serve', dir, '--listen', '127.0.0.1:0']);
  assert.is(second.code, 1);
  assert.match(second.stderr, new RegExp(`\\b${server.child.pid}\\b`), 'names the holder');
  const huge = await holdfast(['volume', 'create', join(temporaryFolder(), 'huge'), '--size', '12TiB']);
  assert.is(huge.code, 1);
  assert.match(huge.stderr, /no space left.*are free/);
  const empty = await holdfast(['volume', 'info', temporaryFolder()]);
  assert.is(empty.code, 1);
  assert.match(empty.stderr, /not a Holdfast volume.*volume create/);
  const full = temporaryFolder();
  writeFileSync(join(full, 'precious'), 'x');
  const refusedCreate = await holdfast(['volume', 'create', full, '--size', '16MiB', '--json']);
  assert.is(refusedCreate.code, 1);
  assert.is((JSON.parse(refusedCreate.stdout.toString()) as { error: { code: string } }).error.code, 'EXISTS');
});

const mounts = suite('bad input: mounts');
/** A small or read-only file system in a mount namespace of the test's own. */
function inNamespace(script: string): { status: number | null; output: string } {
  const { status, stdout, stderr } = spawnSync('unshare', ['--mount', 'sh', '-ec', script], { encoding: 'utf8' });
  return { status, output: stdout + stderr };
}
const canMount = inNamespace('mount -t tmpfs none /mnt').status === 0;
if (!canMount)
  process.stdout.write('# skip: no privilege for mount namespaces: full disk and read-only mount not tested\n');
else {
  mounts('a disk that fills while a volume is made leaves nothing behind', () => {
    const cli = `"${process.execPath}" "${MAIN_PATH}"`;
    const result = inNamespace(
      `mount -t tmpfs -o size=200m none /mnt; ${cli} volume create /mnt/v --size 100MiB 2>&1 || true; ls -A /mnt`,
    );
    assert.match(result.output, /no space left/);
    assert.not.match(result.output, /^v$/m);
  });
  mounts('a read-only file system is named as such', () => {
    const base = temporaryFolder();
    mkdirSync(join(base, 'm'));
    const cli = `"${process.execPath}" "${MAIN_PATH}"`;
    const result = inNamespace(
      `mount -t tmpfs -o size=400m none ${base}/m; ${cli} volume create ${base}/m/v --size 16MiB; ` +
        `mount -o remount,ro ${base}/m; ${cli} serve ${base}/m/v --listen 127.0.0.1:0 2>&1 || true; ` +
        `${cli} volume create ${base}/m/w --size 16MiB 2>&1 || true`,
    );
    assert.is(result.output.match(/read-only/g)!.length >= 2, true, result.output);
  });
}
import { MAIN as MAIN_PATH } from '../support/server-process.ts';

test.run();
mounts.run();
