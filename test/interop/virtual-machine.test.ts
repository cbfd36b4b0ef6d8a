/**
 * A virtual machine with a volume as its disk. The machine is killed while it writes, then the server under it, then
 * the server under a machine that waits for it: each time the journal of ext4 makes the file system clean, and every
 * file that the guest reported after its fsync is there with its checksum.
 */
import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdirSync, readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { ServerProcess, temporaryFolder } from '../support/server-process.ts';
import { VirtualMachine, makeGuest, whyNoMachine } from '../support/virtual-machine.ts';

// Four boots under emulation take 25 s here; nobody knows how long on a machine that does much else.
// deadline: 400 s
const test = suite('a virtual machine');
const BLOCK = 4096;
const FILES = 40;
const env = { ...process.env, PATH: `${process.env['PATH']}:/sbin:/usr/sbin` };

/** Runs a tool beside this process, which must go on reading what the server prints. */
function run(name: string, args: string[]): Promise<{ code: number | null; output: string }> {
  return new Promise((resolve, reject) => {
    const child = spawn(name, args, { stdio: ['ignore', 'pipe', 'pipe'], env });
    let output = '';
    for (const stream of [child.stdout, child.stderr])
      stream.on('data', (chunk: Buffer) => (output += chunk.toString()));
    child.once('error', reject);
    child.once('close', (code) => resolve({ code, output }));
  });
}

async function succeeds(name: string, args: string[]): Promise<string> {
  const { code, output } = await run(name, args);
  assert.is(code, 0, `${name} ${args.join(' ')}: ${output}`);
  return output;
}

/** Names that are not there, or with another checksum. */
function lost(kept: ReadonlyMap<string, string>, found: ReadonlyMap<string, string>): string[] {
  return [...kept].filter(([name, sum]) => found.get(name) !== sum).map(([name]) => name);
}

const missing = ['nbdcopy', 'qemu-io', 'debugfs'].filter(
  (name) => spawnSync(name, ['-V'], { env }).error !== undefined,
);
const why = missing.length > 0 ? `not installed: ${missing.join(', ')}` : whyNoMachine();
if (why !== null) process.stdout.write(`# skip: ${why}\n`);
else {
  const folder = temporaryFolder();
  const dir = join(folder, 'vol');
  const guest = makeGuest(folder);
  /** Files by name with their checksums, as the guest reported them after the fsync. */
  const kept = new Map<string, string>();

  let server: ServerProcess;
  let machine: VirtualMachine;
  const started: Array<{ kill: () => Promise<unknown> }> = [];

  /** Gives the port of the export. */
  const serve = async (args: string[], nbd = '127.0.0.1:0'): Promise<number> => {
    server = await ServerProcess.start(dir, ['--nbd', nbd, ...args]);
    started.push(server);
    return Number(new URL((server.info as unknown as { nbd: string }).nbd).port);
  };
  const boot = (port: number, settings: Record<string, string>, reconnectSeconds = 0): VirtualMachine => {
    const booted = new VirtualMachine(guest, { port, exportName: 'vol', reconnectSeconds }, settings);
    started.push(booted);
    return booted;
  };
  /** Lets the machine write until so many of its files are safe. */
  const writes = (machine: VirtualMachine, files: number): Promise<void> =>
    machine.until(() => machine.said('kept').length >= files, `${files} files`);
  const remember = (machine: VirtualMachine): void => {
    for (const [name, sum] of machine.said('kept')) kept.set(name!, sum!);
  };
  /** What the guest found when it booted from a disk that was in use. */
  const assertWhole = async (machine: VirtualMachine): Promise<void> => {
    await machine.until(() => machine.said('mounted').length > 0, 'mounted disk');
    assert.match(machine.console, /recovering journal/, 'the machine was not killed while it wrote');
    // 1: e2fsck mended what it mends unasked, such as counts that ext4 does not journal.
    assert.ok(['0', '1'].includes(machine.said('preened')[0]![0]!), machine.console);
    assert.not.match(machine.console, /INCONSISTENCY/);
    assert.equal(machine.said('checked'), [['0']], machine.console);
    const found = new Map(machine.said('has').map(([name, sum]) => [name!, sum!]));
    assert.equal(lost(kept, found), [], 'files that were reported as synced');
  };

  test.after(async () => {
    for (const one of started) await one.kill();
  });

  test('the machine is killed, the server is killed, the server comes back under a machine that waits', async () => {
    let port = await serve(['--size', '256MiB']);
    machine = boot(port, { FORMAT: 'yes', WRITE: 'a' });
    await writes(machine, FILES);
    await machine.kill();
    remember(machine);

    machine = boot(port, { WRITE: 'b' });
    await assertWhole(machine);
    await writes(machine, FILES);
    await server.kill();
    await machine.until(() => /I\/O error, dev vda/.test(machine.console), 'I/O error of the disk');
    await machine.kill();
    remember(machine);

    port = await serve([]);
    machine = boot(port, { WRITE: 'c' }, 120);
    await assertWhole(machine);
    await writes(machine, FILES);
    await server.kill();
    await serve([], `127.0.0.1:${port}`);
    const before = machine.said('kept').length;
    await writes(machine, before + FILES);
    assert.not.match(machine.console, /I\/O error/);
    await machine.kill();
    remember(machine);

    machine = boot(port, {});
    await assertWhole(machine);
    await machine.until(() => machine.said('done').length > 0, 'orderly end');
    await machine.exited;
    assert.ok(kept.size >= 4 * FILES, `${kept.size} files`);

    // Read by others: the image over NBD, the file system without mounting it.
    const uri = `nbd://127.0.0.1:${port}/vol`;
    const image = join(folder, 'image');
    const filesOnDisk = async (copied: string): Promise<Map<string, string>> => {
      await succeeds('nbdcopy', [uri, image]);
      await succeeds('e2fsck', ['-fn', image]);
      mkdirSync(copied);
      await succeeds('debugfs', ['-R', `rdump /kept ${copied}`, image]);
      const names = readdirSync(join(copied, 'kept'));
      const sum = (name: string): string =>
        createHash('sha256')
          .update(readFileSync(join(copied, 'kept', name)))
          .digest('hex');
      return new Map(names.map((name) => [name, sum(name)]));
    };
    assert.equal(lost(kept, await filesOnDisk(join(folder, 'copy'))), []);

    // And the control: one byte of one file.
    const blocks = await succeeds('debugfs', ['-R', 'blocks /kept/b-7', image]);
    const at = Number(/^\d+/m.exec(blocks)![0]) * BLOCK;
    const other = readFileSync(image)[at]! ^ 1;
    await succeeds('qemu-io', ['-f', 'raw', '-c', `write -P ${other} ${at} 1`, uri]);
    assert.equal(lost(kept, await filesOnDisk(join(folder, 'second-copy'))), ['b-7']);
    assert.is((await server.kill('SIGTERM')).code, 0);
  });
  test.run();
}
