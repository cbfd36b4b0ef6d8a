/**
 * fio's own NBD engine on a real server process: four jobs of depth 32 read and write side by side, in blocks of 512
 * bytes to 128 KiB of which hardly one is aligned, and each block carries its own checksum. What fio saw answered is
 * read back by it, at once and after a SIGKILL of the server.
 */
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { ServerProcess, temporaryFolder } from '../support/server-process.ts';

const test = suite('fio');
const MiB = 1024 * 1024;
const JOBS = 4;
const JOB_MIB = 48;
const SECTOR = 512;

interface Result {
  code: number | null;
  stdout: string;
  stderr: string;
}

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

interface Report {
  jobs: Array<{
    error: number;
    read: { total_ios: number; io_bytes: number };
    write: { total_ios: number; io_bytes: number };
    sync: { total_ios: number };
  }>;
}

interface FioResult extends Result {
  report: string;
}

/** The same options give the same offsets and lengths again, which is what `--verify_only` counts on. */
async function fio(uri: string, extra: string[] = []): Promise<FioResult> {
  const job = ['--name=mixed', '--ioengine=nbd', `--uri=${uri}`, `--numjobs=${JOBS}`, '--iodepth=32', '--rw=randrw'];
  const ranges = [`--size=${JOB_MIB}m`, `--offset_increment=${JOB_MIB}m`, '--randseed=11'];
  const blocks = ['--bsrange=512-128k', '--blockalign=512', '--fsync=64'];
  const verify = ['--verify=crc32c', '--do_verify=1', '--verify_fatal=1', '--verify_state_save=0'];
  // Its engine prints to the standard output, so the report goes elsewhere.
  const path = join(temporaryFolder(), 'report');
  const report = ['--output-format=json', `--output=${path}`];
  const result = await run('fio', [...job, ...ranges, ...blocks, ...verify, ...report, ...extra]);
  return { ...result, report: existsSync(path) ? readFileSync(path, 'utf8') : '' };
}

function assertGood(result: FioResult): Report['jobs'] {
  assert.is(result.code, 0, result.stderr);
  const { jobs } = JSON.parse(result.report) as Report;
  assert.is(jobs.length, JOBS);
  for (const { error } of jobs) assert.is(error, 0);
  return jobs;
}

const missing = ['fio', 'nbdcopy', 'qemu-io'].filter((tool) => spawnSync(tool, ['--version']).error !== undefined);
const hasEngine = (): boolean => /^\s*nbd$/m.test(spawnSync('fio', ['--enghelp'], { encoding: 'utf8' }).stdout);

if (missing.length > 0) process.stdout.write(`# skip: not installed: ${missing.join(', ')}\n`);
else if (!hasEngine()) process.stdout.write('# skip: this fio was built without its NBD engine\n');
else {
  const started: ServerProcess[] = [];
  const serve = async (dir: string, args: string[]): Promise<ServerProcess> => {
    const server = await ServerProcess.start(dir, args);
    started.push(server);
    return server;
  };
  test.after(async () => {
    for (const server of started) await server.kill();
  });
  const nbdOf = (server: ServerProcess): string => (server.info as unknown as { nbd: string }).nbd;

  test('four jobs over TCP verify, and again after kill -9; a flipped byte is found', async () => {
    const folder = temporaryFolder();
    const dir = join(folder, 'vol');
    let server = await serve(dir, ['--size', `${JOBS * JOB_MIB}MiB`, '--nbd', '127.0.0.1:0']);
    const jobs = assertGood(await fio(`${nbdOf(server)}/vol`));
    for (const { read, write, sync } of jobs) {
      // All of its range, a part of it written; and what was written, read to verify it.
      assert.is(read.io_bytes, JOB_MIB * MiB);
      assert.ok(write.io_bytes > 8 * MiB && write.total_ios > 100 && sync.total_ios > 1);
    }
    await server.kill();

    server = await serve(dir, ['--nbd', '127.0.0.1:0']);
    const uri = `${nbdOf(server)}/vol`;
    assertGood(await fio(uri, ['--verify_only=1']));

    const copy = join(folder, 'copy');
    assert.is((await run('nbdcopy', [uri, copy])).code, 0);
    const bytes = readFileSync(copy);
    // A sector that fio wrote, in the range of the third job: the volume was zeros, and fio writes noise.
    let at = 2.5 * JOB_MIB * MiB;
    while (bytes.subarray(at, at + SECTOR).filter((byte) => byte !== 0).length < SECTOR / 2) at += SECTOR;
    at += 300;
    const flip = ['-f', 'raw', '-c', `write -P ${bytes[at]! ^ 1} ${at} 1`, uri];
    assert.is((await run('qemu-io', flip)).code, 0);
    const found = await fio(uri, ['--verify_only=1']);
    assert.is.not(found.code, 0, 'fio passes over a flipped byte');
    assert.match(found.stderr + found.stdout, /crc32c: verify failed/);
    const back = ['-f', 'raw', '-c', `write -P ${bytes[at]!} ${at} 1`, uri];
    assert.is((await run('qemu-io', back)).code, 0);
    assertGood(await fio(uri, ['--verify_only=1']));
    assert.is((await server.kill('SIGTERM')).code, 0);
  });

  test('four jobs over a Unix socket, verified while they write', async () => {
    const folder = temporaryFolder();
    const path = join(folder, 'nbd.sock');
    const size = `${JOBS * JOB_MIB}MiB`;
    const server = await serve(join(folder, 'vol'), ['--size', size, '--nbd', `unix:${path}`]);
    assertGood(await fio(`nbd+unix:///vol?socket=${path}`, ['--verify_backlog=64']));
    assert.is((await server.kill('SIGTERM')).code, 0);
  });
  test.run();
}
