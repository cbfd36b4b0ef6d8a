/**
 * The NBD session under the clients that people have: libnbd's tools and qemu's, over TCP and a Unix socket, on a volume
 * in memory. And next to a real nbdkit: the same requests give the same errors.
 */
import { spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { type Socket, connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { MemoryDisk } from '../support/memory-device.ts';
import { contextOption, infoOption, option, request, u32 } from '../support/nbd-client.ts';
import { NbdTestServer, type ServedExport } from '../support/nbd-server.ts';
import { Random } from '../support/random.ts';
import { until } from '../support/until.ts';

const test = suite('real NBD clients');
const MiB = 1024 * 1024;
const SIZE = 16 * MiB;
const missing = ['nbdinfo', 'nbdcopy', 'qemu-img', 'qemu-io'].filter(
  (tool) => spawnSync(tool, ['--version']).error !== undefined,
);
const nbdkitMissing = spawnSync('nbdkit', ['--version']).error !== undefined;

interface Result {
  code: number | null;
  stdout: string;
  stderr: string;
}

/** Not spawnSync: the server runs in this process. */
function run(command: string, args: string[]): Promise<Result> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    const result: Result = { code: null, stdout: '', stderr: '' };
    child.stdout.on('data', (bytes) => (result.stdout += String(bytes)));
    child.stderr.on('data', (bytes) => (result.stderr += String(bytes)));
    child.once('error', reject);
    child.once('close', (code) => resolve({ ...result, code }));
  });
}

async function succeeds(command: string, args: string[]): Promise<string> {
  const { code, stdout, stderr } = await run(command, args);
  assert.is(code, 0, `${command} ${args.join(' ')}: ${stderr}`);
  return stdout;
}

const folder = mkdtempSync(join(tmpdir(), 'holdfast-nbd-'));
const demo: ServedExport = {
  name: 'demo',
  description: 'a disk in memory',
  sizeBytes: SIZE,
  readOnly: false,
  marks: ['monday'],
  disk: new MemoryDisk(SIZE),
};
const readOnly: ServedExport = { name: 'ro', sizeBytes: SIZE, readOnly: true, disk: new MemoryDisk(SIZE) };
const server = new NbdTestServer([demo, readOnly]);
const unix = new NbdTestServer([demo]);
const unixPath = join(folder, 'nbd.sock');
let port = 0;
let uri = '';

test.before(async () => {
  port = await server.listen();
  uri = `nbd://127.0.0.1:${port}`;
  await unix.listen(unixPath);
});
test.after(async () => {
  await server.close();
  await unix.close();
  rmSync(folder, { recursive: true });
});

/** An image with data, zeros and more data, so that a copy meets holes. */
function makeImage(path: string, seed: number): Buffer {
  const random = new Random(seed);
  const bytes = Buffer.alloc(SIZE);
  bytes.set(random.bytes(3 * MiB + 513), 4097);
  bytes.set(random.bytes(MiB), 12 * MiB);
  writeFileSync(path, bytes);
  return bytes;
}

const libnbdTests = (): void => {
  test('nbdinfo', async () => {
    const { exports } = JSON.parse(await succeeds('nbdinfo', ['--json', `${uri}/demo`]));
    assert.is(exports.length, 1);
    const [told] = exports;
    assert.is(told['export-name'], 'demo');
    assert.is(told['description'], 'a disk in memory');
    assert.is(told['export-size'], SIZE);
    assert.equal(told['contexts'], ['base:allocation', 'qemu:dirty-bitmap:monday']);
    assert.is(told['is_read_only'], false);
    for (const can of ['df', 'cache', 'fast_zero', 'flush', 'fua', 'multi_conn', 'trim', 'zero']) {
      assert.is(told[`can_${can}`], true, can);
    }
    assert.equal([told['block_size_minimum'], told['block_size_preferred']], [1, 4096]);
    assert.is(told['block_size_maximum'], 32 * MiB);
    const list = JSON.parse(await succeeds('nbdinfo', ['--list', '--json', uri]));
    assert.equal(
      list.exports.map((each: Record<string, unknown>) => [each['export-name'], each['is_read_only']]),
      [
        ['demo', false],
        ['ro', true],
      ],
    );
    assert.is((await run('nbdinfo', [`${uri}/nobody`])).code === 0, false);
  });

  test('nbdcopy up and down, four connections, and the map', async () => {
    const image = join(folder, 'image');
    const bytes = makeImage(image, 1);
    await succeeds('nbdcopy', ['--connections=4', image, `${uri}/demo`]);
    assert.ok(bytes.equals(demo.disk.bytes));
    const copy = join(folder, 'copy');
    await succeeds('nbdcopy', ['--connections=4', `nbd+unix:///demo?socket=${unixPath}`, copy]);
    assert.ok(bytes.equals(readFileSync(copy)));
    const map: Array<{ offset: number; length: number; type: number }> = JSON.parse(
      await succeeds('nbdinfo', ['--map', '--json', `${uri}/demo`]),
    );
    assert.is(
      map.reduce((sum, { length }) => sum + length, 0),
      SIZE,
    );
    assert.ok(map.some(({ type }) => type === 0) && map.some(({ type }) => type === 3));
    for (const { offset, length, type } of map) {
      if (type === 3) assert.ok(bytes.subarray(offset, offset + length).every((byte) => byte === 0));
    }
  });

  test('the map of a mark', async () => {
    demo.changed = [
      { offsetBytes: 8192, lengthBytes: 4096 },
      { offsetBytes: MiB, lengthBytes: MiB },
    ];
    const text = await succeeds('nbdinfo', ['--map=qemu:dirty-bitmap:monday', '--json', `${uri}/demo`]);
    const map: Array<{ offset: number; length: number; type: number }> = JSON.parse(text);
    assert.equal(
      map.map(({ offset, length, type }) => [offset, length, type]),
      [
        [0, 8192, 0],
        [8192, 4096, 1],
        [12288, MiB - 12288, 0],
        [MiB, MiB, 1],
        [2 * MiB, SIZE - 2 * MiB, 0],
      ],
    );
  });
};

const qemuTests = (): void => {
  test('qemu-img convert and compare', async () => {
    const image = join(folder, 'raw');
    const bytes = makeImage(image, 2);
    const target = ['-n', '-f', 'raw', '-O', 'raw', image, `${uri}/demo`];
    await succeeds('qemu-img', ['convert', ...target]);
    assert.ok(bytes.equals(demo.disk.bytes));
    await succeeds('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', image, `nbd+unix:///demo?socket=${unixPath}`]);
    demo.disk.bytes[5 * MiB]! ^= 1;
    demo.disk.write(5 * MiB, Uint8Array.of(9));
    assert.is((await run('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', image, `${uri}/demo`])).code, 1);
  });

  test('qemu-io: patterns at odd offsets, zeroes, discard, FUA, flush', async () => {
    const commands = [
      'write -P 0x11 0 1M',
      'write -P 0x22 1 511',
      'write -f -P 0x33 4095 2',
      'write -P 0x44 262143 262146',
      'read -P 0x22 1 511',
      'read -P 0x33 4095 2',
      'read -P 0x11 4097 100',
      'read -P 0x44 262143 262146',
      'write -z -u 8192 65536',
      'read -P 0 8192 65536',
      'write -z 100001 3',
      'read -P 0 100001 3',
      'discard 1M 1M',
      'flush',
      `read -P 0 1M 4k`,
    ];
    const args = ['-f', 'raw', ...commands.flatMap((command) => ['-c', command]), `${uri}/demo`];
    const output = await succeeds('qemu-io', args);
    assert.not.match(output, /verification failed|error|failed/i);
    assert.is(demo.disk.bytes[4096], 0x33);
    const refused = await run('qemu-io', ['-f', 'raw', '-c', 'write 0 512', `${uri}/ro`]);
    assert.match(refused.stdout + refused.stderr, /read.?only|permission denied/i);
    // What qemu knows of a read-only export it does not even send.
    assert.ok(readOnly.disk.bytes.subarray(0, 512).every((byte) => byte === 0));
  });
};

type Target = { path: string } | { port: number; host: string };

/** Tries until somebody listens: a socket's file is there a little earlier. */
async function connected(target: Target): Promise<Socket> {
  let socket: Socket | null = null;
  let trying = false;
  await until(() => {
    if (trying || socket !== null) return socket !== null;
    trying = true;
    const attempt = connect(target);
    attempt.once('connect', () => (socket = attempt));
    attempt.once('error', () => (trying = false));
    return false;
  }, 'the server to listen');
  return socket!;
}

/** Sends a request of each kind at once, and tells what was asked and the error number of the answer. */
async function errorsFrom(target: Target, structured: boolean, allFlags: readonly number[]): Promise<string[]> {
  const socket = await connected(target);
  let bytes = Buffer.alloc(0);
  let closed = false;
  socket.on('data', (chunk) => (bytes = Buffer.concat([bytes, chunk])));
  socket.on('error', () => (closed = true));
  socket.on('close', () => (closed = true));
  const received = async (count: number): Promise<void> =>
    until(() => bytes.length >= count || closed, `${count} bytes of a reply`);
  const ended = async (number: number): Promise<void> => {
    // The final reply of an option: ACK with no data.
    const ack = Buffer.concat([Buffer.from('0003e889045565a9', 'hex'), u32(number), u32(1), u32(0)]);
    await until(() => bytes.includes(ack) || closed, `the reply to option ${number}`);
    bytes = Buffer.alloc(0);
  };
  await received(18);
  socket.write(u32(3));
  bytes = Buffer.alloc(0);
  if (structured) {
    socket.write(option(8));
    await ended(8);
    socket.write(contextOption(10, '', 'base:allocation'));
    await ended(10);
  }
  socket.write(infoOption(7, ''));
  await ended(7);
  const asked: Array<{ what: string; command: number; length: number }> = [];
  const stream: Buffer[] = [];
  for (const command of [0, 1, 3, 4, 5, 6, 7, 8]) {
    for (const flags of allFlags) {
      for (const [offset, length] of [
        [0, 1],
        [0, 0],
        [MiB, 1],
        [MiB - 1, 2],
        [MiB + 1, 0],
        [0xffff_ffff_ffff_ffffn, 1],
      ] as const) {
        const payload = command === 1 ? { payload: Buffer.alloc(length) } : {};
        stream.push(request({ command, flags, offset, length, cookie: BigInt(asked.length), ...payload }));
        asked.push({ what: `command ${command} flags ${flags} offset ${offset} length ${length}`, command, length });
      }
    }
  }
  socket.write(Buffer.concat([...stream, request({ command: 2 })]));
  await until(() => closed, 'the end of the connection');
  const errors: string[] = asked.map(({ what }) => `${what}: no answer`);
  for (let at = 0; at < bytes.length;) {
    const simple = bytes.readUInt32BE(at) === 0x67446698;
    const cookie = Number(bytes.readBigUInt64BE(at + 8));
    const { what, command, length } = asked[cookie]!;
    const failed = simple ? bytes.readUInt32BE(at + 4) !== 0 : bytes.readUInt16BE(at + 6) >= 0x8000;
    const error = simple ? bytes.readUInt32BE(at + 4) : failed ? bytes.readUInt32BE(at + 20) : 0;
    if (simple) at += 16 + (command === 0 && !failed ? length : 0);
    else {
      assert.is(bytes.readUInt32BE(at), 0x668e33ef);
      assert.is(bytes.readUInt16BE(at + 4), 1, 'one chunk');
      at += 20 + bytes.readUInt32BE(at + 16);
    }
    assert.is(errors[cookie], `${what}: no answer`);
    errors[cookie] = `${what}: error ${error}`;
  }
  return errors;
}

const nbdkitTests = (): void => {
  test('the same errors as nbdkit, for every command, flag and range', async () => {
    for (const mode of [{ readOnly: false }, { readOnly: true }]) {
      const path = join(folder, `nbdkit-${mode.readOnly}.sock`);
      // It reports each refusal on stderr, and waits for whoever does not read that.
      const kit = spawn('nbdkit', ['-f', ...(mode.readOnly ? ['-r'] : []), '-U', path, 'memory', '1M'], {
        stdio: 'ignore',
      });
      const ours = new NbdTestServer([{ name: 'x', sizeBytes: MiB, ...mode, disk: new MemoryDisk(MiB) }]);
      try {
        const ourPort = await ours.listen();
        const noFua = [0, 2, 4, 8, 16, 32, 18, 0x8000];
        // nbdkit knows no FUA on a read-only export; we accept it on every command, as the specification asks.
        const flags = mode.readOnly ? noFua : [...noFua, 1, 3, 17, 0x8001];
        for (const structured of [false, true]) {
          // nbdkit sometimes answers a whole connection with ESHUTDOWN (108): there is nothing to compare with then.
          let theirs = await errorsFrom({ path }, structured, flags);
          for (let again = 0; again < 20 && theirs.some((line) => line.endsWith('error 108')); again++) {
            theirs = await errorsFrom({ path }, structured, flags);
          }
          assert.ok(new Set(theirs.map((line) => line.split(': ')[1])).size >= 3);
          assert.equal(await errorsFrom({ port: ourPort, host: '127.0.0.1' }, structured, flags), theirs);
        }
        assert.equal(ours.failures, []);
      } finally {
        const gone = new Promise((resolve) => kit.once('close', resolve));
        kit.kill('SIGKILL');
        await gone;
        await ours.close();
      }
    }
  });
};

if (missing.length > 0) process.stdout.write(`# skip: not installed: ${missing.join(', ')}\n`);
else {
  libnbdTests();
  qemuTests();
}
if (nbdkitMissing) process.stdout.write('# skip: nbdkit is not installed\n');
else nbdkitTests();

test('no session of the clients above ended in another way than they asked', () => {
  assert.equal(server.failures, []);
  assert.equal(unix.failures, []);
  if (missing.length === 0) assert.ok(server.connections > 8);
});

test.run();
