/**
 * The main job on real input: an ext4 image with files in it is written through the protocol, the server is killed in
 * the middle of a second write, and the image comes back the same, by its hash and by e2fsck.
 */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { cpSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { connect } from '../../src/client/index.ts';
import { Random } from '../support/random.ts';
import { ServerProcess, holdfast, temporaryFolder } from '../support/server-process.ts';

const test = suite('a disk image');
const MiB = 1024 * 1024;
const path = `${process.env['PATH']}:/sbin:/usr/sbin`;
const tool = (name: string, args: string[]): { status: number | null; stdout: string } =>
  spawnSync(name, args, { encoding: 'utf8', env: { ...process.env, PATH: path } });
const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

if (tool('mkfs.ext4', ['-V']).status !== 0) {
  process.stdout.write('# skip: mkfs.ext4 (e2fsprogs) is not installed\n');
} else {
  test('ext4 in, kill -9, ext4 out', async () => {
    const folder = temporaryFolder();
    const content = join(folder, 'content');
    mkdirSync(content);
    cpSync(fileURLToPath(new URL('../../src', import.meta.url)), join(content, 'src'), { recursive: true });
    writeFileSync(join(content, 'noise'), new Random(1).bytes(20 * MiB));
    const image = join(folder, 'disk.img');
    assert.is(tool('mkfs.ext4', ['-q', '-d', content, image, '64M']).status, 0);
    const original = readFileSync(image);
    const dir = join(folder, 'vol');
    let server = await ServerProcess.start(dir, ['--size', '192MiB']);
    const port = server.port;
    const written = await holdfast(['write', server.url, '--offset', '0', '--json'], { input: original });
    assert.is(written.code, 0, written.stderr);
    // The second write goes over old content; the kill comes while it is under way.
    const old = new Random(2).bytes(64 * MiB);
    assert.is((await holdfast(['write', server.url, '--offset', '96MiB'], { input: old })).code, 0);
    const young = new Random(3).bytes(64 * MiB);
    const second = holdfast(['write', server.url, '--offset', '96MiB'], { input: young });
    const watcher = await connect(server.url);
    const mark = 16 * MiB;
    while (Buffer.compare(await watcher.read(96 * MiB + mark, 4096), young.subarray(mark, mark + 4096)) !== 0);
    assert.is((await server.kill()).signal, 'SIGKILL');
    const lost = watcher.close();
    // The client is still trying: hold the server back from its port until the volume was looked at.
    server = await ServerProcess.start(dir);
    const back = await holdfast(['read', server.url, '--offset', '0', '--length', '64MiB']);
    assert.is(sha256(back.stdout), sha256(original));
    const half = (await holdfast(['read', server.url, '--offset', '96MiB', '--length', '64MiB'])).stdout;
    let youngBlocks = 0;
    for (let at = 0; at < half.length; at += 4096) {
      const block = half.subarray(at, at + 4096);
      if (Buffer.compare(block, young.subarray(at, at + 4096)) === 0) youngBlocks++;
      else assert.is(Buffer.compare(block, old.subarray(at, at + 4096)), 0, `block at ${at} is neither old nor new`);
    }
    assert.ok(youngBlocks > 0 && youngBlocks < half.length / 4096, `killed when ${youngBlocks} blocks were new`);
    await lost;
    // Each 256 KiB of it is all new or all old.
    for (let at = 0; at < half.length; at += 256 * 1024) {
      const part = half.subarray(at, at + 256 * 1024);
      const isYoung = Buffer.compare(part, young.subarray(at, at + 256 * 1024)) === 0;
      assert.ok(isYoung || Buffer.compare(part, old.subarray(at, at + 256 * 1024)) === 0, `torn at ${at}`);
    }
    writeFileSync(join(folder, 'back.img'), back.stdout);
    assert.is(tool('e2fsck', ['-fn', join(folder, 'back.img')]).status, 0);
    assert.is((await server.kill('SIGTERM')).code, 0);
    // Where it always was, the server finds the client that kept trying, and that ends its write.
    server = await ServerProcess.start(dir, ['--listen', `127.0.0.1:${port}`]);
    assert.is((await second).code, 0);
    const whole = (await holdfast(['read', server.url, '--offset', '96MiB', '--length', '64MiB'])).stdout;
    assert.is(sha256(whole), sha256(young));
    await server.kill('SIGTERM');
    const check = await holdfast(['volume', 'check', dir, '--flatten']);
    assert.is(check.code, 0, check.stderr);
    // Closed with nothing owed, `data` is the device: any tool can read it.
    assert.is(sha256(readFileSync(join(dir, 'data')).subarray(0, 64 * MiB)), sha256(original));
  });
  test.run();
}
