/** `holdfast kv export | import`: pipes, what is not whole, full disks, signals. The keys themselves: kv-cli.test.ts. */
// deadline: 240 s
import { spawn } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { mkdirSync, readFileSync, readdirSync, readlinkSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { suite } from 'uvu';
import { connectKv } from '../../src/client/index.ts';
import { TestCluster } from '../support/cluster.ts';
import { MAIN } from '../support/server-process.ts';
import { until } from '../support/until.ts';

interface Kv {
  cluster: TestCluster;
  url: (volume?: string) => string;
}

const test = suite<{ kv: Kv }>('files of holdfast kv');

test.before(async (context) => {
  const cluster = await TestCluster.start(['a']);
  for (const [name, size] of [
    ['keys', '32MiB'],
    ['small', '8MiB'],
  ] as const) {
    await cluster.create(name, size, 1, '--kind', 'kv', '--allow-sparse');
  }
  for (const name of ['keys', 'small']) await cluster.untilServed(name);
  context.kv = { cluster, url: (volume = 'keys') => cluster.url(volume).replace('holdfast:', 'holdfast-kv:') };
});

test.after(async ({ kv }) => {
  await kv.cluster.stop();
});

/** An export of these lines, with a sum that fits. */
function fileOf(lines: readonly object[], head: object = { format: 'holdfast-kv-1' }): string {
  const text = [head, ...lines].map((one) => `${JSON.stringify(one)}\n`).join('');
  const sha256 = createHash('sha256').update(text).digest('hex');
  return `${text}${JSON.stringify({ count: lines.length, sha256 })}\n`;
}

const entry = (key: string, value: Buffer | string): { key: string; value: string } => ({
  key: Buffer.from(key).toString('base64'),
  value: Buffer.from(value).toString('base64'),
});

/** A line of the shell in which `kv ...` is the command under test. */
async function shell(
  kv: Kv,
  line: string,
  env: NodeJS.ProcessEnv = {},
): Promise<{ code: number | null; out: string; err: string }> {
  const child = spawn('bash', ['-o', 'pipefail', '-c', `kv() { "$NODE" "$MAIN" kv "$@"; }\n${line}`], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, NODE: process.execPath, MAIN, URL: kv.url(), DIR: kv.cluster.dir, ...env },
  });
  let [out, err] = ['', ''];
  child.stdout.on('data', (chunk: Buffer) => (out += chunk.toString()));
  child.stderr.on('data', (chunk: Buffer) => (err += chunk.toString()));
  const code = await new Promise<number | null>((resolve) => child.once('close', resolve));
  return { code, out, err };
}

test('an import says what it could not write; a reader of the first lines only is no error', async ({ kv }) => {
  const lines = Array.from({ length: 100 }, (_, i) => entry(`i/${i}`, randomBytes(150_000)));
  const file = join(kv.cluster.dir, 'large.jsonl');
  writeFileSync(file, fileOf(lines));
  const failed = await kv.cluster.cli('kv', 'import', kv.url('small'), file);
  assert.is(failed.code, 1, failed.stderr);
  assert.match(failed.stderr, /\d+ of 100 keys were done, then: .*ENOSPC.*run it again/s);
  const store = await connectKv(kv.url());
  await store.transaction().put('l/1', Buffer.alloc(100_000, 65)).put('l/2', Buffer.alloc(100_000, 65)).commit();
  await store.close();
  const scanning = spawn(process.execPath, [MAIN, 'kv', 'scan', kv.url()]);
  let complaint = '';
  scanning.stderr.on('data', (chunk: Buffer) => (complaint += chunk.toString()));
  scanning.stdout.once('data', () => scanning.stdout.destroy());
  assert.is(await new Promise((resolve) => scanning.once('close', resolve)), 0);
  assert.is(complaint, '');
  const full = await shell(kv, `kv scan "$URL" > /dev/full`);
  assert.is(full.code, 1);
  assert.match(full.err, /^holdfast: write to stdout: no space left .*ENOSPC[^\n]*\n$/);
});

test('export and import through pipes', async ({ kv }) => {
  const store = await connectKv(kv.url());
  await store.transaction().put('p/1', 'one').put('p/2', Buffer.alloc(100_000, 200)).commit();
  const exported = await shell(kv, `kv export "$URL" - --json > "$DIR/piped"`);
  const count = await store.size();
  assert.equal([exported.code, exported.out], [0, '']);
  const { version, ...told } = JSON.parse(exported.err) as Record<string, unknown>;
  assert.type(version, 'number');
  assert.equal(told, { exported: count, file: '-', consistent: true, changedMeanwhile: 0 });
  await store.transaction().delete('p/1').delete('p/2').commit();
  const imported = await shell(kv, `cat "$DIR/piped" | kv import "$URL" - --if-absent --json`);
  assert.equal(JSON.parse(imported.out), { imported: 2, kept: count - 2, expired: 0, file: '-' });
  assert.is((await store.get('p/2'))!.value.length, 100_000);
  // What can be read once only is imported as well where it has a name.
  await store.delete('p/1');
  const named = await shell(kv, `kv import "$URL" <(cat "$DIR/piped") --if-absent --json`);
  assert.is((JSON.parse(named.out) as { imported: number }).imported, 1, named.err);
  assert.is((await store.get('p/1'))!.value.toString(), 'one');
  // Whoever reads it leaves: that is no whole export.
  const left = await shell(kv, `kv export "$URL" - | head -c 1`);
  assert.is(left.code, 1);
  assert.match(left.err, /export to stdout.*EPIPE.*the keys are not exported/);
  const full = await shell(kv, `kv export "$URL" - > /dev/full`);
  assert.is(full.code, 1);
  assert.match(full.err, /export to stdout: no space left .*To remedy: make room/);
  await store.close();
});

test('an import is checked to its end before it writes, and what it keeps has no name', async ({ kv }) => {
  const store = await connectKv(kv.url());
  const temporary = join(kv.cluster.dir, 'tmp');
  mkdirSync(temporary);
  const importing = async (
    text: string,
    while_?: (pid: number) => Promise<void>,
  ): Promise<{ code: number; err: string }> => {
    const child = spawn(process.execPath, [MAIN, 'kv', 'import', kv.url(), '-'], {
      env: { ...process.env, TMPDIR: temporary },
    });
    let err = '';
    child.stderr.on('data', (chunk: Buffer) => (err += chunk.toString()));
    const ended = new Promise<number | null>((resolve) => child.once('close', resolve));
    child.stdin.on('error', () => {});
    child.stdin.write(text.slice(0, -20));
    await while_?.(child.pid!);
    child.stdin.end(text.slice(-20));
    const code = await ended;
    assert.equal(readdirSync(temporary), [], 'something stays');
    return { code: code ?? -1, err };
  };
  const good = Array.from({ length: 500 }, (_, i) => entry(`c/${i}`, 'x'));
  // The others: test/cli/kv-format.test.ts.
  const bad: ReadonlyArray<readonly [string, RegExp]> = [
    [fileOf([...good, { ...entry('c/last', 'x'), key: 5 }]), /line 502 has no key in base64/],
    [
      fileOf([...good, entry('c/last', Buffer.alloc(200_000))]),
      /longest value 200000; this volume takes 4096 and 196608/,
    ],
  ];
  for (const [text, why] of bad) {
    const refused = await importing(text);
    assert.is(refused.code, 1);
    assert.match(refused.err, why);
    assert.match(refused.err, /nothing was written/);
  }
  assert.equal([(await store.get('c/0')) === null, (await store.get('c/499')) === null], [true, true]);
  const imported = await importing(fileOf(good), async (pid) => {
    const folder = `/proc/${pid}/fd`;
    const spool = (): string[] =>
      readdirSync(folder).filter((fd) => {
        try {
          return readlinkSync(join(folder, fd)).startsWith(join(temporary, 'holdfast-import-'));
        } catch {
          return false;
        }
      });
    await until(() => spool().some((fd) => statSync(join(folder, fd)).size > 0), 'the input to be kept');
    const [fd] = spool();
    assert.is(statSync(join(folder, fd!)).mode & 0o777, 0o600);
    assert.equal(readdirSync(temporary), []);
  });
  assert.is(imported.code, 0, imported.err);
  assert.is((await store.get('c/499'))!.value.toString(), 'x');
  writeFileSync(join(kv.cluster.dir, 'good'), fileOf(good));
  const noRoom = await shell(kv, `ulimit -f 1; cat "$DIR/good" | kv import "$URL" -`);
  assert.is(noRoom.code, 1);
  assert.match(noRoom.err, /copy of the input.*nothing was written.*TMPDIR/);
  const nothing = await shell(kv, `kv import "$URL" "$DIR/none"; kv import "$URL" "$DIR"`);
  assert.match(nothing.err, /none.*ENOENT.*To remedy: name a file.*\n.*it is a folder/);
  await store.close();
});

test('an export that fails leaves what was there, and nothing else', async ({ kv }) => {
  const dir = join(kv.cluster.dir, 'exports');
  mkdirSync(dir);
  const file = join(dir, 'keys');
  writeFileSync(file, 'before', { mode: 0o600 });
  const store = await connectKv(kv.url());
  await store.put('x/large', randomBytes(190_000));
  const intact = (what: string): void => {
    assert.equal(readdirSync(dir), ['keys'], what);
    assert.is(readFileSync(file, 'utf8'), 'before', what);
  };
  const small = await shell(kv, `ulimit -f 8; kv export "$URL" "$DIR/exports/keys"`);
  assert.is(small.code, 1);
  assert.match(
    small.err,
    /^holdfast: export to .*EFBIG.*the keys are not exported.*To remedy: raise the limit[^\n]*\n$/,
  );
  intact('file too large');
  // fsync fails, of the file: it must not be renamed.
  const faulty = `import fs from 'node:fs'; import { syncBuiltinESMExports } from 'node:module';
    fs.fsync = (fd, done) => { process.stderr.write(fs.fstatSync(fd).isFile() ? 'F' : 'D');
      done(process.env.FAILS ? Object.assign(new Error('EIO: of the test'), { code: 'EIO' }) : null); };
    syncBuiltinESMExports();`;
  const NODE_OPTIONS = `--import data:text/javascript,${encodeURIComponent(faulty)}`;
  const unsynced = await shell(kv, `kv export "$URL" "$DIR/exports/keys"`, { NODE_OPTIONS, FAILS: '1' });
  assert.is(unsynced.code, 1);
  assert.match(unsynced.err, /^Fholdfast: export to .*EIO: of the test/);
  intact('fsync fails');
  // Interrupted while it waits for a server that says nothing.
  const silent = createServer((socket) => socket.on('error', () => {}));
  await new Promise<void>((resolve) => silent.listen(0, '127.0.0.1', resolve));
  const url = `holdfast-kv://127.0.0.1:${(silent.address() as AddressInfo).port}/keys`;
  {
    const [signal, code] = ['SIGINT', 130] as const;
    const child = spawn(process.execPath, [MAIN, 'kv', 'export', url, file], { stdio: 'ignore' });
    const ended = new Promise((resolve) => child.once('close', (...how) => resolve(how)));
    await until(() => readdirSync(dir).some((name) => name.endsWith('.partial')), 'the export to begin');
    child.kill(signal);
    assert.equal(await ended, [code, null]);
    intact(signal);
  }
  silent.close();
  // A fifo would be replaced by a file.
  const refused = await shell(
    kv,
    `kv export "$URL" "$DIR/nowhere/keys"; mkfifo "$DIR/fifo"; kv export "$URL" "$DIR/fifo"`,
  );
  assert.match(refused.err, /ENOENT.*To remedy: make the folder first.*\n.*it is there, and no file/);
  assert.ok(statSync(join(kv.cluster.dir, 'fifo')).isFIFO());
  // It succeeds: the file is made durable, then the folder, and who may read it is as before.
  symlinkSync(file, join(kv.cluster.dir, 'link'));
  const good = await shell(kv, `kv export "$URL" "$DIR/link"`, { NODE_OPTIONS });
  assert.match(good.err, /^FD\d+ keys written to /);
  assert.equal([readdirSync(dir), statSync(file).mode & 0o777], [['keys'], 0o600]);
  assert.match(readFileSync(file, 'utf8'), /"sha256":"[0-9a-f]{64}"}\n$/);
  await store.close();
});

test('a value from stdin is not read without end; a condition that does not hold says nothing of the key', async ({
  kv,
}) => {
  const endless = await shell(kv, `kv put "$URL" endless < /dev/zero`);
  assert.is(endless.code, 1);
  assert.match(endless.err, /more than 1048576 bytes on stdin/);
  await kv.cluster.must('kv', 'put', kv.url(), 'there', 'v');
  const { stdout } = await kv.cluster.cli('kv', 'put', kv.url(), 'there', 'w', '--if-absent', '--json');
  const refused = JSON.parse(stdout) as object;
  assert.equal(Object.keys(refused).sort(), ['applied', 'version']);
});

test('an export is of one moment, while pairs of keys are written that are far apart', async ({ kv }) => {
  const run = async (name: string, ...args: string[]): Promise<{ code: number; out: string; err: string }> => {
    const { code, stdout, stderr } = await kv.cluster.cli('kv', name, kv.url(), ...args);
    return { code, out: stdout, err: stderr };
  };
  const store = await connectKv(kv.url());
  const names = Array.from({ length: 3000 }, (_, i) => `m/${i}`);
  await Promise.all(names.map((name) => store.put(name, name)));
  let over = false;
  const writer = (async () => {
    for (let n = 1; !over; n++) {
      const transaction = store.transaction().put('a/first', String(n)).put('z/last', String(n));
      await (n % 3 === 0 ? transaction.delete('m/1500') : transaction.put('m/1500', String(n))).commit();
    }
  })();
  const file = join(kv.cluster.dir, 'moment.jsonl');
  let changed = 0;
  try {
    for (let attempt = 0; attempt < 20 && changed === 0; attempt++) {
      const { code, out, err } = await run('export', file, '--json');
      assert.is(code, 0, err);
      const { consistent, changedMeanwhile } = JSON.parse(out) as { consistent: boolean; changedMeanwhile: number };
      assert.ok(consistent);
      changed = changedMeanwhile;
      const lines = readFileSync(file, 'utf8').trim().split('\n').slice(1, -1);
      const entries = lines.map((line) => JSON.parse(line) as { key: string; value: string });
      const valueOf = (name: string): string | null => {
        const found = entries.filter(({ key }) => key === Buffer.from(name).toString('base64'));
        assert.ok(found.length <= 1, `${name} is there twice`);
        return found.length === 0 ? null : Buffer.from(found[0]!.value, 'base64').toString();
      };
      const n = valueOf('a/first');
      assert.is(valueOf('z/last'), n);
      assert.is(valueOf('m/1500'), n === null ? 'm/1500' : Number(n) % 3 === 0 ? null : n);
      for (const name of ['m/0', 'm/1499', 'm/2999']) assert.is(valueOf(name), name);
    }
  } finally {
    over = true;
    await writer;
  }
  assert.ok(changed > 0, 'nothing was written meanwhile');
  const transaction = store.transaction();
  for (const name of ['a/first', 'z/last', ...names.slice(0, 150)]) transaction.delete(name);
  await transaction.commit();
  assert.is((await run('import', file, '--if-absent')).code, 0);
  assert.ok(await store.get('m/149'));
  await store.close();
});

test.run();
