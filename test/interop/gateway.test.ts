/** `holdfast nbd`: real NBD clients on a real gateway, in front of a real server that is killed and started again. */
// deadline: 300 s
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { connect } from '../../src/client/index.ts';
import { Random } from '../support/random.ts';
import { GatewayProcess, holdfast, ServerProcess, temporaryFolder } from '../support/server-process.ts';
import { until } from '../support/until.ts';

const test = suite('NBD gateway');
const MiB = 1024 * 1024;
const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

/** An NBD client beside this process; `line` gives it a line of input. */
class Client {
  readonly child: ChildProcess;
  readonly ended: Promise<number | null>;
  output = '';

  constructor(name: string, args: string[]) {
    this.child = spawn(name, args, { stdio: 'pipe' });
    const killChild = (): void => void this.child.kill('SIGKILL');
    process.once('exit', killChild);
    for (const stream of [this.child.stdout!, this.child.stderr!]) {
      stream.on('data', (chunk: Buffer) => (this.output += chunk.toString()));
    }
    this.child.stdin!.on('error', () => {});
    this.ended = new Promise((resolve, reject) => {
      this.child.once('error', reject);
      this.child.once('close', (code) => {
        process.off('exit', killChild);
        resolve(code);
      });
    });
  }

  get running(): boolean {
    return this.child.exitCode === null && this.child.signalCode === null;
  }

  line(text: string): void {
    this.child.stdin!.write(`${text}\n`);
  }

  /** Waits until it printed that. */
  async said(pattern: RegExp): Promise<void> {
    await until(() => pattern.test(this.output), String(pattern)).catch((error: Error) => {
      throw new Error(`${error.message}, in: ${this.output}`, { cause: error });
    });
  }

  /** To the end of its input, and a good one. */
  async finish(): Promise<string> {
    this.child.stdin!.end();
    assert.is(await this.ended, 0, this.output);
    assert.not.match(this.output, /failed|error/i);
    return this.output;
  }
}

const run = (name: string, args: string[]): Promise<string> => new Client(name, args).finish();
const qemuIo = (uri: string, ...commands: string[]): Promise<string> =>
  run('qemu-io', ['-f', 'raw', ...commands.flatMap((command) => ['-c', command]), uri]);

const top = temporaryFolder();
const ownFolder = (): string => mkdtempSync(join(top, 'test-'));

interface Pair {
  folder: string;
  server: ServerProcess;
  gateway: GatewayProcess;
}

async function pair(size: string, args: string[] = []): Promise<Pair> {
  const folder = ownFolder();
  const server = await ServerProcess.start(join(folder, 'vol'), ['--size', size]);
  return { folder, server, gateway: await GatewayProcess.start(server.url, args) };
}

/** On the port that it had. */
async function restart(it: Pair, volume = 'vol'): Promise<void> {
  it.server = await ServerProcess.start(join(it.folder, volume), ['--listen', `127.0.0.1:${it.server.port}`]);
}

async function end(it: Pair): Promise<void> {
  assert.equal(await it.gateway.kill('SIGTERM'), { code: 0, signal: null });
  assert.is((await it.server.kill('SIGTERM')).code, 0);
}

/** Bytes that came from clients and that the server, which is stopped, did not take. */
function untakenBytes(port: number): number {
  const local = `:${port.toString(16).toUpperCase().padStart(4, '0')}`;
  const rows = readFileSync('/proc/net/tcp', 'utf8').split('\n').slice(1);
  const own = rows
    .map((row) => row.trim().split(/\s+/))
    .filter((cells) => cells[1]?.endsWith(local) && cells[3] === '01');
  return own.reduce((sum, cells) => sum + Number.parseInt(cells[4]!.split(':')[1]!, 16), 0);
}

/** Kills the server three times, each time when the copy has come so much further, and starts it again. */
async function killThrice(it: Pair, copy: Client, further: () => Promise<void>): Promise<void> {
  for (let i = 0; i < 3; i++) {
    await further();
    assert.is((await it.server.kill()).signal, 'SIGKILL');
    // Without a server it cannot come to its end, so it was under way when the kill came.
    assert.ok(copy.running, `the copy was over before kill ${i + 1}: ${copy.output}`);
    await restart(it);
  }
}

const tests = (): void => {
  test('nbdcopy up and down with four connections, three kills each', async () => {
    const it = await pair('256MiB');
    const [image, back] = [join(it.folder, 'image'), join(it.folder, 'back')];
    const original = Buffer.alloc(256 * MiB, new Random(1).bytes(4 * MiB));
    for (let at = 0; at < original.length; at += 4096) original.writeUInt32LE(at, at);
    writeFileSync(image, original);

    const up = new Client('nbdcopy', ['--connections=4', image, it.gateway.uri]);
    await killThrice(it, up, async () => {
      const volume = await connect(it.server.url);
      const seq = async (): Promise<number> => (await volume.info()).position.seq;
      // A record is 256 KiB: a quarter of the image and a bit less.
      const target = (await seq()) + 200;
      while (up.running && (await seq()) < target);
      await volume.close();
    });
    await up.finish();

    const down = new Client('nbdcopy', ['--connections=4', it.gateway.uri, back]);
    const arrivedBytes = (): number => (statSync(back, { throwIfNoEntry: false })?.blocks ?? 0) * 512;
    await killThrice(it, down, async () => {
      const targetBytes = arrivedBytes() + 48 * MiB;
      await until(() => !down.running || arrivedBytes() >= targetBytes, 'the copy to come further');
    });
    await down.finish();
    assert.is(sha256(readFileSync(back)), sha256(original));
    assert.is(it.gateway.printed().match(/the server is lost/g)!.length, 6);
    assert.is(it.gateway.printed().match(/the server is back/g)!.length, 6);
    await end(it);
  });

  test('nbdinfo, patterns at odd offsets, the map', async () => {
    const it = await pair('64MiB');
    const { exports } = JSON.parse(await run('nbdinfo', ['--json', it.gateway.uri]));
    assert.is(exports[0]['export-name'], 'vol');
    assert.is(exports[0]['export-size'], 64 * MiB);
    assert.is(exports[0]['is_read_only'], false);
    assert.is(exports[0]['can_multi_conn'], true);
    // The default export is the same one.
    assert.is((await run('nbdinfo', ['--size', it.gateway.uri.replace(/vol$/, '')])).trim(), String(64 * MiB));
    const commands = ['write -P 0x5a 4097 123457', 'read -P 0x5a 4097 123457', 'read -P 0 0 4097'];
    commands.push('read -P 0 127554 1000', 'write -z 8193 30000', 'read -P 0 8193 30000', 'read -P 0x5a 38193 100');
    commands.push('write -f -P 3 33M 20M', 'read -P 3 33M 20M', 'discard 34M 16M', 'read -P 0 34M 16M', 'flush');
    await qemuIo(it.gateway.uri, ...commands);
    const map: Array<{ offset: number; length: number; type: number }> = JSON.parse(
      await run('nbdinfo', ['--map', '--json', it.gateway.uri]),
    );
    assert.equal(
      map
        .filter(({ type }) => type === 3)
        .map(({ offset, length }) => [offset / MiB, length / MiB])
        .slice(-2),
      [
        [34, 16],
        [53, 11],
      ],
    );
    await end(it);
  });

  test('a server that is away for 15 s while a read waits; new clients are let in meanwhile', async () => {
    const it = await pair('64MiB');
    await qemuIo(it.gateway.uri, 'write -P 7 1000 100000');
    await it.server.kill();
    await until(() => it.gateway.printed().includes('the server is lost'), 'the loss in the log');
    assert.match(it.gateway.printed(), 'until it is back, without limit');
    const read = new Client('qemu-io', ['-f', 'raw', '-c', 'read -P 7 1000 100000', it.gateway.uri]);
    assert.is((await run('nbdinfo', ['--size', it.gateway.uri])).trim(), String(64 * MiB));
    const wait = new Promise((resolve) => setTimeout(resolve, 15_000));
    // A gateway that never reached the server does not wait for it.
    const nobody = await holdfast(['nbd', it.server.url, '--listen', '127.0.0.1:0']);
    assert.is(nobody.code, 1);
    assert.match(nobody.stderr, new RegExp(`127.0.0.1:${it.server.port}.*no server could be reached`));
    await wait;
    assert.ok(read.running, read.output);
    await restart(it);
    assert.match(await read.finish(), 'read 100000/100000');
    await until(() => it.gateway.printed().includes('the server is back'), 'the return in the log');
    await end(it);
  });

  test('two clients with a kill: each sees what the other wrote', async () => {
    const it = await pair('64MiB');
    const clients = [0, 1].map(() => new Client('qemu-io', ['-f', 'raw', it.gateway.uri]));
    for (const [i, client] of clients.entries()) client.line(`write -P ${i + 1} ${i}M 1M`);
    for (const client of clients) await client.said(/wrote 1048576/);
    await it.server.kill();
    for (const [i, client] of clients.entries()) client.line(`write -P ${i + 11} ${i * MiB + 511} 300001`);
    await restart(it);
    for (const client of clients) await client.said(/wrote 300001/);
    for (const [i, client] of clients.entries()) {
      const other = 1 - i;
      // One at a time: qemu-io does not see the second of two lines that it gets at once.
      client.line(`read -P ${other + 11} ${other * MiB + 511} 300001`);
      await client.said(/read 300001\//);
      client.line(`read -P ${other + 1} ${other * MiB + 300512} 700000`);
      await client.said(/read 700000\//);
      client.line('quit');
      assert.not.match(await client.finish(), 'Pattern verification');
    }
    await end(it);
  });

  test('--read-only, on a Unix socket; a killed gateway leaves a socket that the next one takes over', async () => {
    const folder = ownFolder();
    const listen = ['--listen', `unix:${join(folder, 'nbd.sock')}`];
    const it = await pair('64MiB', listen);
    await qemuIo(it.gateway.uri, 'write -P 9 5 5000');
    await it.gateway.kill();
    it.gateway = await GatewayProcess.start(it.server.url, [...listen, '--read-only']);
    const { exports } = JSON.parse(await run('nbdinfo', ['--json', it.gateway.uri]));
    assert.is(exports[0]['is_read_only'], true);
    await run('qemu-io', ['-r', '-f', 'raw', '-c', 'read -P 9 5 5000', it.gateway.uri]);
    const refused = new Client('qemu-io', ['-f', 'raw', '-c', 'write 0 512', it.gateway.uri]);
    refused.child.stdin!.end();
    assert.is(await refused.ended, 1);
    assert.match(refused.output, /read.?only|permission denied/i);
    const second = await holdfast(['nbd', it.server.url, ...listen]);
    assert.is(second.code, 1, 'somebody listens on that socket');
    await run('nbdinfo', ['--size', it.gateway.uri]);
    await end(it);
  });

  test('SIGTERM: what is under way is answered, then it ends with 0', async () => {
    const it = await pair('64MiB');
    const writer = new Client('qemu-io', ['-f', 'raw', it.gateway.uri]);
    writer.line('write -P 1 0 4k');
    await writer.said(/wrote 4096/);
    it.server.child.kill('SIGSTOP');
    writer.line('write -P 2 8k 200k');
    await until(() => untakenBytes(it.server.port) > 0, 'the write to be on its way');
    it.gateway.child.kill('SIGTERM');
    await until(() => it.gateway.printed().includes('"stopping"'), 'the gateway to begin to stop');
    it.server.child.kill('SIGCONT');
    await writer.said(/wrote 204800/);
    assert.equal(await it.gateway.exited, { code: 0, signal: null });
    writer.child.kill('SIGKILL');
    it.gateway = await GatewayProcess.start(it.server.url);
    await qemuIo(it.gateway.uri, 'read -P 2 8k 200k');
    // Away for good: it does not wait without limit then.
    await it.server.kill();
    await until(() => it.gateway.printed().includes('the server is lost'), 'the loss in the log');
    assert.equal(await it.gateway.kill('SIGTERM'), { code: 0, signal: null });
  });

  test('another volume at the address: the gateway ends, and serves it to nobody', async () => {
    const it = await pair('64MiB');
    const reader = new Client('qemu-io', ['-f', 'raw', it.gateway.uri]);
    reader.line('read -P 0 0 4k');
    await reader.said(/read 4096/);
    await it.server.kill();
    assert.is(
      (await holdfast(['volume', 'create', join(it.folder, 'other'), '--size', '64MiB', '--name', 'vol'])).code,
      0,
    );
    await restart(it, 'other');
    assert.is((await it.gateway.exited).code, 1);
    await until(() => it.gateway.printed().includes('another volume'), 'the reason');
    assert.match(it.gateway.printed(), /no such volume .*another volume there now/);
    reader.child.kill('SIGKILL');
    await it.server.kill('SIGTERM');
  });

  test('--retry: requests fail when the time is over, later ones reach a server that is back', async () => {
    const it = await pair('64MiB', ['--retry', '300ms']);
    await it.server.kill();
    const read = new Client('qemu-io', ['-f', 'raw', it.gateway.uri]);
    read.line('read 0 4k');
    await read.said(/read failed: Input\/output error/);
    await until(() => it.gateway.printed().includes('did not come back in time'), 'the log to say so');
    await restart(it);
    await qemuIo(it.gateway.uri, 'write -P 1 0 4k', 'read -P 1 0 4k');
    read.child.kill('SIGKILL');
    await end(it);
    const wrong = await holdfast(['nbd', it.server.url, '--retry', 'soon']);
    assert.match(wrong.stderr, 'To remedy: write a number with ms');
  });
};

const missing = ['nbdinfo', 'nbdcopy', 'qemu-io'].filter((name) => spawnSync(name, ['--version']).error !== undefined);
if (missing.length > 0) process.stdout.write(`# skip: not installed: ${missing.join(', ')}\n`);
else tests();

test.run();
