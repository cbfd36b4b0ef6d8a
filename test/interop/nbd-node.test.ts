/** `serve --nbd`: real NBD clients on a real server process, over TCP and a Unix socket. */
import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { connect as connectSocket } from 'node:net';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { Random } from '../support/random.ts';
import { ServerProcess, temporaryFolder } from '../support/server-process.ts';

const test = suite('NBD export of a node');
const MiB = 1024 * 1024;
const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

/** Runs a client beside this process, which must go on reading what the server prints. */
function client(name: string, args: string[]): Promise<{ code: number | null; output: string }> {
  return new Promise((resolve, reject) => {
    const child = spawn(name, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    let output = '';
    for (const stream of [child.stdout, child.stderr])
      stream.on('data', (chunk: Buffer) => (output += chunk.toString()));
    child.once('error', reject);
    child.once('close', (code) => resolve({ code, output }));
  });
}

const missing = ['nbdinfo', 'nbdcopy', 'qemu-io'].filter((name) => spawnSync(name, ['--version']).error !== undefined);
if (missing.length > 0) process.stdout.write(`# skip: not installed: ${missing.join(', ')}\n`);
else {
  const serve = async (nbd: string): Promise<{ server: ServerProcess; uri: string; folder: string }> => {
    const folder = temporaryFolder();
    const server = await ServerProcess.start(join(folder, 'vol'), ['--size', '64MiB', '--nbd', nbd]);
    return { server, uri: (server.info as unknown as { nbd: string }).nbd, folder };
  };

  test('nbdcopy up and down with four connections, killed in between, qemu-io at odd offsets', async () => {
    const { server, uri, folder } = await serve('127.0.0.1:0');
    const [image, back] = [join(folder, 'image'), join(folder, 'back')];
    const original = new Uint8Array(64 * MiB);
    original.set(new Random(1).bytes(50 * MiB), 0);
    writeFileSync(image, original);
    for (let round = 0; round < 3; round++) {
      const up = await client('nbdcopy', ['--connections=4', image, `${uri}/vol`]);
      assert.is(up.code, 0, up.output);
    }
    const info = await client('nbdinfo', ['--json', `${uri}/vol`]);
    const [shown] = (JSON.parse(info.output) as { exports: Array<Record<string, unknown>> }).exports;
    assert.is(shown!['export-size'], 64 * MiB);
    assert.is(shown!['can_multi_conn'], true);
    const map = await client('nbdinfo', ['--map', `${uri}/vol`]);
    assert.match(map.output, /data[\s\S]*hole,zero/);
    // What nbdcopy saw answered is durable.
    await server.kill();
    const again = await ServerProcess.start(join(folder, 'vol'), ['--nbd', '127.0.0.1:0']);
    const second = (again.info as unknown as { nbd: string }).nbd;
    const down = await client('nbdcopy', ['--connections=4', `${second}/vol`, back]);
    assert.is(down.code, 0, down.output);
    assert.is(sha256(readFileSync(back)), sha256(original));
    const commands = ['write -P 0x5a 4097 123457', 'read -P 0x5a 4097 123457', 'write -z 8193 300000'];
    commands.push('read -P 0 8193 300000', 'write -P 3 33M 20M', 'read -P 3 33M 20M', 'discard 1M 16M', 'flush');
    const io = await client('qemu-io', ['-f', 'raw', ...commands.flatMap((c) => ['-c', c]), `${second}/vol`]);
    assert.is(io.code, 0, io.output);
    assert.not.match(io.output, /failed|Pattern verification/);
    assert.is((await again.kill('SIGTERM')).code, 0);
  });

  test('a Unix socket; garbage and half handshakes harm nobody', async () => {
    const path = join(temporaryFolder(), 'nbd.sock');
    const { server, uri } = await serve(`unix:${path}`);
    const bad = Array.from({ length: 40 }, (_, i) => {
      const socket = connectSocket(path);
      socket.on('error', () => {});
      socket.write(i % 2 === 0 ? new Random(i).bytes(3000) : new Uint8Array(2));
      return socket;
    });
    const info = await client('nbdinfo', ['--size', uri.replace('://', ':///')]);
    assert.is(info.output.trim(), String(64 * MiB), info.output);
    for (const socket of bad) socket.destroy();
    assert.is((await server.kill('SIGTERM')).code, 0);
  });
  test.run();
}
