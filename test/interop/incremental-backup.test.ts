/** Incremental backup with existing NBD clients: a mark, one per cent written, only the dirty extents copied. */
import { execFile, execFileSync, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { closeSync, openSync, readFileSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { Random } from '../support/random.ts';
import { ServerProcess, temporaryFolder } from '../support/server-process.ts';

const test = suite('incremental backup');
const MiB = 1024 * 1024;
const SIZE = 64 * MiB;
const sha256 = (path: string): string => createHash('sha256').update(readFileSync(path)).digest('hex');
const run = promisify(execFile);
const CLI = new URL('../../src/cli/main.js', import.meta.url).pathname;

interface Dirty {
  offset: number;
  length: number;
  type: number;
}

const missing = ['nbdinfo', 'nbdcopy', 'qemu-io', 'qemu-img'].filter((name) => spawnSync(name, ['--version']).error);
if (missing.length > 0) process.stdout.write(`# skip: not installed: ${missing.join(', ')}\n`);
else {
  test('mark, write 1 %, copy the dirty extents, compare; the server is killed in between', async () => {
    const folder = temporaryFolder();
    const random = new Random(7);
    const [image, backup, piece, whole] = ['image', 'backup', 'piece', 'whole'].map((name) => join(folder, name));
    const start = (): Promise<ServerProcess> =>
      ServerProcess.start(join(folder, 'vol'), ['--size', '64MiB', '--nbd', '127.0.0.1:0']);
    const uriOf = (server: ServerProcess): string => `${(server.info as unknown as { nbd: string }).nbd}/vol`;
    const mark = async (server: ServerProcess, ...args: string[]): Promise<string> =>
      (await run(process.execPath, [CLI, 'volume', 'mark', server.url, ...args])).stdout;
    let server = await start();
    writeFileSync(image!, random.bytes(SIZE));
    await run('nbdcopy', [image!, uriOf(server)]);
    await mark(server, 'full');
    await run('nbdcopy', [uriOf(server), backup!]);
    assert.is(sha256(backup!), sha256(image!));

    // One per cent, at any alignment, half of it before the server dies, half behind.
    const writes = async (count: number): Promise<void> => {
      const commands = Array.from({ length: count }, () => {
        const length = 512 + random.below(16_384);
        return ['-c', `write -P ${random.below(256)} ${random.below(SIZE - length)} ${length}`];
      });
      const { stdout } = await run('qemu-io', ['-f', 'raw', ...commands.flat(), uriOf(server)]);
      assert.not.match(stdout, /failed/);
    };
    await writes(40);
    await server.kill();
    server = await start();
    await writes(40);
    await mark(server, 'second');

    const map = await run('nbdinfo', ['--map=qemu:dirty-bitmap:full', '--json', uriOf(server)]);
    const extents = JSON.parse(map.stdout) as Dirty[];
    const dirty = extents.filter(({ type }) => type === 1);
    const dirtyBytes = dirty.reduce((sum, { length }) => sum + length, 0);
    assert.is(
      extents.reduce((sum, { length }) => sum + length, 0),
      SIZE,
    );
    assert.ok(dirty.length > 30 && dirtyBytes < SIZE / 32, `${dirty.length} extents, ${dirtyBytes} bytes`);

    await run('nbdcopy', [uriOf(server), whole!]);
    assert.is.not(sha256(backup!), sha256(whole!));
    const { hostname: host, port } = new URL(uriOf(server).replace('nbd:', 'http:'));
    const target = openSync(backup!, 'r+');
    for (const { offset, length } of dirty) {
      const source =
        `driver=raw,offset=${offset},size=${length},file.driver=nbd,` +
        `file.server.type=inet,file.server.host=${host},file.server.port=${port},file.export=vol`;
      execFileSync('qemu-img', ['convert', '-O', 'raw', '--image-opts', source, piece!]);
      writeSync(target, readFileSync(piece!), 0, length, offset);
    }
    closeSync(target);
    assert.is(sha256(backup!), sha256(whole!), 'the backup is the volume again');

    // Behind the second mark nothing was written; the first one is not needed any more.
    const second = await run('nbdinfo', ['--map=qemu:dirty-bitmap:second', '--json', uriOf(server)]);
    assert.equal(
      (JSON.parse(second.stdout) as Dirty[]).map(({ type }) => type),
      [0],
    );
    assert.match(await mark(server, 'full', '--delete'), /full: deleted/);
    const listed = JSON.parse(await mark(server, '--json')) as { marks: Array<{ name: string; dirtyBytes: number }> };
    assert.equal(
      listed.marks.map(({ name, dirtyBytes: bytes }) => [name, bytes]),
      [['second', 0]],
    );
    const again = await run(process.execPath, [CLI, 'volume', 'mark', server.url, 'second']).catch(
      (error: { stderr: string }) => error,
    );
    assert.match(again.stderr, /EEXIST.*delete it first/s);
    assert.is((await server.kill('SIGTERM')).code, 0);
  });
  test.run();
}
