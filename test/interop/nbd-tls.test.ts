/** TLS on the NBD port: real clients on a real server process, with certificates and with pre-shared keys. */
// deadline: 300 s
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { copyFileSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { Random } from '../support/random.ts';
import { TAKES_BOTH } from '../../src/node/nbd-tls.ts';
import { ServerProcess, holdfast, temporaryFolder } from '../support/server-process.ts';
import { type Pair, TestCa, pskFile } from '../support/tls-files.ts';
import { until } from '../support/until.ts';

const test = suite('TLS for NBD clients');
const MiB = 1024 * 1024;
const SIZE = 64 * MiB;
const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

interface Result {
  code: number | null;
  output: string;
}

/** Runs a client beside this process, which must go on reading what the server prints. */
function run(name: string, args: string[], feed: (child: ChildProcess) => void = () => {}): Promise<Result> {
  return new Promise((resolve, reject) => {
    const child = spawn(name, args, { stdio: 'pipe' });
    let output = '';
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => (output += String(chunk)));
    child.stdin.on('error', () => {});
    child.once('error', reject);
    child.once('close', (code) => resolve({ code, output }));
    feed(child);
  });
}

async function succeeds(name: string, args: string[]): Promise<string> {
  const { code, output } = await run(name, args);
  assert.is(code, 0, `${name} ${args.join(' ')}: ${output}`);
  return output;
}

async function fails(why: RegExp, name: string, args: string[]): Promise<void> {
  const { code, output } = await run(name, args);
  assert.is.not(code, 0, `${name} ${args.join(' ')}`);
  assert.match(output, why);
}

/** A server, what it logs, and its URIs. */
interface Served {
  server: ServerProcess;
  uri: string;
  port: string;
  log: () => string;
}

async function serve(dir: string, args: string[]): Promise<Served> {
  const server = await ServerProcess.start(dir, ['--size', '64MiB', '--nbd', '127.0.0.1:0', ...args]);
  const uri = (server.info as unknown as { nbd: string }).nbd;
  let log = '';
  server.child.stderr!.on('data', (chunk) => (log += String(chunk)));
  return { server, uri, port: uri.split(':').at(-1)!, log: () => log };
}

async function logged(served: Served, what: RegExp): Promise<void> {
  await until(() => what.test(served.log()), `${String(what)} in the log`).catch((error: Error) => {
    throw new Error(`${error.message}, which holds: ${served.log()}`);
  });
}

async function stop({ server }: Served): Promise<void> {
  assert.equal(await server.kill('SIGTERM'), { code: 0, signal: null });
}

/** The arguments with which qemu's tools reach the export. */
function qemu(port: string, credentials: string | null): string[] {
  const image = `driver=nbd,host=127.0.0.1,port=${port},export=vol`;
  if (credentials === null) return ['--image-opts', image];
  return ['--object', `${credentials},id=tls0,endpoint=client`, '--image-opts', `${image},tls-creds=tls0`];
}

const missing = ['nbdinfo', 'nbdcopy', 'qemu-img', 'qemu-io', 'openssl'].filter(
  (name) => spawnSync(name, [name === 'openssl' ? 'version' : '--version']).error !== undefined,
);
if (missing.length > 0) process.stdout.write(`# skip: not installed: ${missing.join(', ')}\n`);
else {
  const folder = temporaryFolder();
  const ca = new TestCa(join(folder, 'ca'));
  const stranger = new TestCa(join(folder, 'stranger'));
  const { certFile, keyFile } = ca.issue('server');
  const own = ca.clientFolder(join(folder, 'own'));
  const anonymous = ca.clientFolder(join(folder, 'anonymous'), null);
  const { file: psk } = pskFile(join(folder, 'psk'), 'alice', 'bob');
  // The same names, other keys.
  const { file: wrongPsk } = pskFile(join(folder, 'wrong'), 'alice', 'carol');
  const x509 = ['--nbd-tls-cert', certFile, '--nbd-tls-key', keyFile];

  test('certificates: copies up and down over four connections, killed in between', async () => {
    const dir = join(folder, 'copies', 'vol');
    const original = Buffer.alloc(SIZE);
    original.set(new Random(1).bytes(50 * MiB), 0);
    const [image, back] = [join(folder, 'image'), join(folder, 'back')];
    writeFileSync(image, original);
    const first = await serve(dir, x509);
    assert.match(first.uri, /^nbds:\/\/127\.0\.0\.1:\d+$/);
    const with4 = ['--connections=4', '--allocated'];
    const tls = `vol?tls-certificates=${anonymous}`;
    await succeeds('nbdcopy', [...with4, image, `${first.uri}/${tls}`]);
    const info = JSON.parse(await succeeds('nbdinfo', ['--json', `${first.uri}/${tls}`]));
    assert.is(info.TLS, true);
    assert.is(info.exports[0]['export-size'], SIZE);
    await first.server.kill();
    const second = await serve(dir, x509);
    // Something that is half done, and then killed: the rest of it is still in the pipe.
    const half = new Random(2).bytes(4 * MiB);
    await run('nbdcopy', ['-', `${second.uri}/${tls}`], (child) => {
      child.stdin!.write(half, () => child.kill('SIGKILL'));
    });
    await succeeds('nbdcopy', [...with4, `${second.uri}/${tls}`, back]);
    const found = readFileSync(back);
    assert.is(sha256(found.subarray(half.length)), sha256(original.subarray(half.length)), 'what it did not touch');
    await succeeds('nbdcopy', [...with4, image, `${second.uri}/${tls}`]);
    await succeeds('nbdcopy', [...with4, `${second.uri}/${tls}`, back]);
    assert.is(sha256(readFileSync(back)), sha256(original));
    await stop(second);
  });

  test('renewed files are in force without a restart, for those who connect from then on; bad ones are not', async () => {
    const folderOfServer = join(folder, 'renewed-files');
    const now = ca.issue('renewed');
    const [cert, key] = [join(folder, 'now-cert.pem'), join(folder, 'now-key.pem')];
    const put = (pair: Pair): void => {
      copyFileSync(pair.keyFile, key);
      copyFileSync(pair.certFile, cert);
    };
    put(now);
    const served = await serve(join(folderOfServer, 'vol'), [
      '--log-level',
      'info',
      '--nbd-tls-cert',
      cert,
      '--nbd-tls-key',
      key,
    ]);
    const renew = async (said: RegExp): Promise<void> => {
      served.server.child.kill('SIGHUP');
      await logged(served, said);
    };
    const trusting = (clientFolder: string): string[] => [
      '--json',
      `${served.uri}/vol?tls-certificates=${clientFolder}`,
    ];
    await succeeds('nbdinfo', trusting(anonymous));
    writeFileSync(cert, 'no certificate');
    await renew(/TLS for NBD: the new files are not taken/);
    await succeeds('nbdinfo', trusting(anonymous));
    put(stranger.issue('renewed'));
    await renew(/TLS for NBD: the new files are in force/);
    await fails(/certificate/, 'nbdinfo', trusting(anonymous));
    await succeeds('nbdinfo', trusting(stranger.clientFolder(join(folder, 'of-stranger'), null)));
    await stop(served);
  });

  test('qemu-io with a certificate, at odd offsets, in TLS 1.3 and 1.2; qemu-img compare', async () => {
    const served = await serve(join(folder, 'qemu', 'vol'), [...x509, '--nbd-tls-ca', ca.certFile]);
    const commands = ['write -P 0x5a 4097 123457', 'read -P 0x5a 4097 123457', 'write -z 8193 300000'];
    commands.push('read -P 0 8193 300000', 'write -P 3 33M 20M', 'read -P 3 33M 20M', 'discard 1M 16M', 'flush');
    const args = commands.flatMap((command) => ['-c', command]);
    for (const more of ['', ',priority=NORMAL:-VERS-TLS1.3']) {
      const output = await succeeds('qemu-io', [...args, ...qemu(served.port, `tls-creds-x509,dir=${own}${more}`)]);
      assert.not.match(output, /failed|Pattern verification/);
    }
    assert.is(served.log(), '');
    await stop(served);
  });

  test('a CA: no certificate, an expired one, or one of another CA, is refused, and the client that trusts another CA refuses', async () => {
    const served = await serve(join(folder, 'mutual', 'vol'), [...x509, '--nbd-tls-ca', ca.certFile]);
    const foreign = ca.clientFolder(join(folder, 'foreign'), stranger);
    const expired = ca.clientFolder(join(folder, 'expired'));
    ca.issue('client', expired, -1);
    const distrusting = stranger.clientFolder(join(folder, 'distrusting'));
    const uri = (certificates: string): string => `${served.uri}/vol?tls-certificates=${certificates}`;
    await fails(/./, 'nbdinfo', [uri(anonymous)]);
    await logged(served, /peer did not return a certificate/);
    await fails(/./, 'nbdinfo', [uri(foreign)]);
    // The CAs share a name, so that GnuTLS sends this certificate at all. qemu verifies its own, and does not.
    await logged(served, /UNABLE_TO_VERIFY_LEAF_SIGNATURE|CERT_SIGNATURE_FAILURE/);
    await fails(/./, 'nbdinfo', [uri(expired)]);
    await logged(served, /CERT_HAS_EXPIRED/);
    await fails(/./, 'qemu-img', ['info', ...qemu(served.port, `tls-creds-x509,dir=${anonymous}`)]);
    await fails(/certificate/i, 'nbdinfo', [uri(distrusting)]);
    // One line for each that failed, and none for the one that is good.
    await succeeds('nbdinfo', [uri(own)]);
    await logged(served, /(?:.*\n){5}/);
    assert.is(served.log().trim().split('\n').length, 5, served.log());
    await stop(served);
  });

  test('a plain client where TLS is required is refused, and told why', async () => {
    const served = await serve(join(folder, 'required', 'vol'), x509);
    await fails(/TLS is required/, 'qemu-img', ['info', ...qemu(served.port, null)]);
    await fails(/./, 'nbdinfo', ['--size', `nbd://127.0.0.1:${served.port}/vol`]);
    await fails(/./, 'nbdinfo', ['--list', `nbd://127.0.0.1:${served.port}`]);
    await succeeds('nbdinfo', [`${served.uri}/vol?tls-certificates=${anonymous}`]);
    await stop(served);
  });

  test('allow: plain and TLS beside each other, the same bytes', async () => {
    const served = await serve(join(folder, 'allowed', 'vol'), [...x509, '--nbd-tls', 'allow']);
    assert.match(served.uri, /^nbd:\/\//);
    const write = ['-c', 'write -P 0x77 12345 1M'];
    await succeeds('qemu-io', [...write, ...qemu(served.port, `tls-creds-x509,dir=${anonymous}`)]);
    const read = await succeeds('qemu-io', ['-c', 'read -P 0x77 12345 1M', ...qemu(served.port, null)]);
    assert.not.match(read, /failed|Pattern verification/);
    const info = JSON.parse(await succeeds('nbdinfo', ['--json', `${served.uri}/vol`]));
    assert.is(info.TLS, false);
    await stop(served);
  });

  test('pre-shared keys: libnbd and qemu, TLS 1.3 and 1.2; a wrong key and an unknown name are refused', async () => {
    const served = await serve(join(folder, 'psk-served', 'vol'), ['--nbd-tls-psk', psk]);
    const uri = (user: string, file: string): string =>
      `nbds://${user}@127.0.0.1:${served.port}/vol?tls-psk-file=${file}`;
    for (const user of ['alice', 'bob']) {
      assert.is((await succeeds('nbdinfo', ['--size', uri(user, psk)])).trim(), String(SIZE));
    }
    const [image, back] = [join(folder, 'image-psk'), join(folder, 'back-psk')];
    writeFileSync(image, new Random(3).bytes(SIZE));
    await succeeds('nbdcopy', ['--connections=4', image, uri('alice', psk)]);
    await succeeds('nbdcopy', ['--connections=4', uri('bob', psk), back]);
    assert.is(sha256(readFileSync(back)), sha256(readFileSync(image)));
    for (const more of ['', ',priority=NORMAL:-VERS-TLS1.3']) {
      const credentials = `tls-creds-psk,dir=${join(folder, 'psk')},username=alice${more}`;
      const output = await succeeds('qemu-io', ['-c', 'read 0 1M', ...qemu(served.port, credentials)]);
      assert.not.match(output, /failed/);
    }
    assert.is(served.log(), '');
    await fails(/./, 'nbdinfo', [uri('alice', wrongPsk)]);
    await fails(/./, 'nbdinfo', [uri('carol', wrongPsk)]);
    // Who wants certificates gets nowhere.
    await fails(/./, 'nbdinfo', [`nbds://127.0.0.1:${served.port}/vol?tls-certificates=${own}`]);
    await logged(served, /(?:.*\n){3}/);
    assert.is(served.log().match(/the TLS handshake failed/g)!.length, 3, served.log());
    for (const file of [psk, wrongPsk]) {
      for (const key of readFileSync(file, 'utf8').match(/[0-9a-f]{64}/g)!) assert.not.match(served.log(), key);
    }
    await succeeds('nbdinfo', [uri('alice', psk)]);
    await stop(served);
  });

  test('a CA and pre-shared keys together: either is good, nothing is not', async () => {
    const args = [...x509, '--nbd-tls-ca', ca.certFile, '--nbd-tls-psk', psk];
    if (!TAKES_BOTH) {
      const refused = await ServerProcess.start(join(folder, 'both', 'vol'), [
        '--size',
        '64MiB',
        '--nbd',
        '127.0.0.1:0',
        ...args,
      ]).then(
        () => 'it started',
        (error: Error) => error.message,
      );
      assert.match(refused, /takes no pre-shared keys beside certificates/);
      return;
    }
    const served = await serve(join(folder, 'both', 'vol'), args);
    await succeeds('nbdinfo', [`${served.uri}/vol?tls-certificates=${own}`]);
    await succeeds('nbdinfo', [`nbds://alice@127.0.0.1:${served.port}/vol?tls-psk-file=${psk}`]);
    const old = `,priority=NORMAL:-VERS-TLS1.3`;
    await succeeds('qemu-img', ['info', ...qemu(served.port, `tls-creds-x509,dir=${own}${old}`)]);
    const pskFolder = join(folder, 'psk');
    await succeeds('qemu-img', ['info', ...qemu(served.port, `tls-creds-psk,dir=${pskFolder},username=bob${old}`)]);
    await fails(/./, 'nbdinfo', [`${served.uri}/vol?tls-certificates=${anonymous}`]);
    await fails(/./, 'nbdinfo', [`nbds://alice@127.0.0.1:${served.port}/vol?tls-psk-file=${wrongPsk}`]);
    await fails(/./, 'qemu-img', ['info', ...qemu(served.port, `tls-creds-x509,dir=${anonymous}${old}`)]);
    await stop(served);
  });

  test('a Unix socket', async () => {
    const path = join(temporaryFolder(), 'nbd.sock');
    const dir = join(folder, 'unix', 'vol');
    const server = await ServerProcess.start(dir, ['--size', '64MiB', '--nbd', `unix:${path}`, '--nbd-tls-psk', psk]);
    assert.is((server.info as unknown as { nbd: string }).nbd, `nbds+unix://?socket=${path}`);
    const uri = `nbds+unix://alice@/vol?socket=${path}&tls-psk-file=${psk}`;
    assert.is((await succeeds('nbdinfo', ['--size', uri])).trim(), String(SIZE));
    assert.equal(await server.kill('SIGTERM'), { code: 0, signal: null });
  });

  test('files that cannot work are refused before anything is made', async () => {
    const text = (name: string, content: string): string => {
      writeFileSync(join(folder, name), content);
      return join(folder, name);
    };
    const other = ca.issue('other');
    const bundle = `${readFileSync(ca.certFile, 'utf8')}-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n`;
    const locked = join(folder, 'locked.pem');
    spawnSync('openssl', ['rsa', '-aes128', '-passout', 'pass:secret', '-in', keyFile, '-out', locked]);
    const both = (cert: string, key: string): string[] => ['--nbd-tls-cert', cert, '--nbd-tls-key', key];
    const cases: Array<[string[], RegExp]> = [
      [['--nbd-tls-cert', certFile], /go together/],
      [['--nbd-tls-ca', ca.certFile], /no certificate for this server/],
      [[...x509, '--nbd-tls-psk', psk], /whoever has no pre-shared key/],
      [both(join(folder, 'nowhere'), keyFile), /nowhere: there is no such file/],
      [both(folder, keyFile), /it is a folder/],
      [both(certFile, other.keyFile), /do not go together/],
      [both(keyFile, certFile), /server-key\.pem, line 1: no certificate/],
      [both(text('empty', ''), keyFile), /empty holds no certificate/],
      [both(certFile, locked), /not encrypted by a passphrase/],
      [[...x509, '--nbd-tls-ca', text('bundle', bundle)], /bundle, line \d\d: no certificate/],
    ];
    for (const [args, why] of cases) {
      const dir = join(folder, 'refused');
      const { code, stderr } = await holdfast(['serve', dir, '--size', '1MiB', '--nbd', '127.0.0.1:0', ...args]);
      assert.is(code, 1, `${args.join(' ')}: ${stderr}`);
      assert.match(stderr, why);
      assert.match(stderr, /To remedy: /);
      assert.not.match(stderr, /PRIVATE/);
    }
  });

  test.run();
}
