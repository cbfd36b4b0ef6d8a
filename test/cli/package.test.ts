/**
 * What `npm pack` makes: it holds what is needed and nothing else, installs into an empty folder without any script, and works
 * there: the command, a cluster, the client library.
 */
// deadline: 180 s
import { type SpawnSyncReturns, spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { basePort } from '../support/base-port.ts';
import { temporaryFolder } from '../support/server-process.ts';

const ROOT = fileURLToPath(new URL('../../../', import.meta.url));
/** Without its dependencies. */
const MOST_PACKED_BYTES = 3 * 1024 * 1024;
/** The registry cannot be reached, and what is needed is not in npm's cache. */
const NO_NETWORK = /ENOTCACHED|ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH|network request/;

interface Packed {
  filename: string;
  size: number;
  files: Array<{ path: string }>;
}

const npm = (cwd: string, ...args: string[]): SpawnSyncReturns<string> =>
  spawnSync('npm', args, { cwd, encoding: 'utf8', timeout: 120_000 });

const dir = temporaryFolder();
const made = npm(ROOT, 'pack', '--ignore-scripts', '--json', '--pack-destination', dir);
const [packed] = JSON.parse(made.stdout) as [Packed];
const paths = new Set(packed.files.map(({ path }) => path));
const test = suite('package');

test('it holds what is needed, and nothing else', () => {
  assert.ok(packed.size < MOST_PACKED_BYTES, `${packed.size} bytes`);
  const tops = new Set([...paths].map((path) => path.split('/')[0]!));
  const expected = [
    'CHANGELOG.md',
    'LICENSE',
    'README.md',
    'bench',
    'dist',
    'docs',
    'native-free',
    'package.json',
    'src',
  ];
  for (const top of tops) assert.ok([...expected, 'SECURITY.md'].includes(top), `${top} does not belong there`);
  for (const one of expected) assert.ok(tops.has(one), `${one} is missing`);
  for (const path of paths) assert.not.match(path, /(?:^|\/)test\/|\.test\.|\.tgz$|\.env|\.pem$|node_modules/);
  for (const path of ['dist/src/cli/main.js', 'dist/src/client/index.d.ts', 'docs/systemd/holdfast-node@.service']) {
    assert.ok(paths.has(path), path);
  }
});

test('maps lead to sources that are in it; nothing built is left over from a source that is gone', () => {
  for (const path of paths) {
    if (path.endsWith('.js.map')) {
      const { sources } = JSON.parse(readFileSync(join(ROOT, path), 'utf8')) as { sources: string[] };
      for (const source of sources) {
        const at = resolve('/', dirname(path), source).slice(1);
        assert.ok(paths.has(at), `${path} leads to ${source}`);
      }
    }
    // What a browser loads is no module of Node.
    if (/^dist\/(?:src|native-free)\/.*\.js$/.test(path) && !path.startsWith('dist/src/dashboard/')) {
      assert.ok(paths.has(path.replace(/^dist\//, '').replace(/\.js$/, '.ts')), `${path} has no source`);
    }
  }
});

const home = join(dir, 'home');
const install = (): string | null => {
  mkdirSync(home);
  writeFileSync(join(home, 'package.json'), '{"name":"home","version":"1.0.0","private":true,"type":"module"}');
  const flags = ['--ignore-scripts', '--prefer-offline', '--no-audit', '--no-fund', '--loglevel=error'];
  const { status, stderr } = npm(home, 'install', ...flags, join(dir, packed.filename));
  if (status === 0) return null;
  if (NO_NETWORK.test(stderr)) return stderr.split('\n')[0]!;
  throw new Error(stderr);
};

const CLIENT = `
import { connect } from 'holdfast';
const volume = await connect(process.argv[2]);
await volume.write(4096, Buffer.from('through the package'));
process.stdout.write(Buffer.from(await volume.read(4096, 19)).toString());
await volume.close();
`;

const offline = install();
if (offline !== null) process.stdout.write(`# skip: npm has no package at hand: ${offline}\n`);
else {
  test('installed without scripts it runs: --version, up, and the client library', async () => {
    const { version } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { version: string };
    const fsExt = join(home, 'node_modules/fs-ext');
    assert.not.ok(existsSync(join(fsExt, 'build')), 'the addon was built after all');
    const named = spawnSync('npx', ['--offline', 'holdfast', '--version'], { cwd: home, encoding: 'utf8' });
    assert.is(named.stdout.trim(), version, named.stderr);

    const args = ['up', '--json', '--size', '16MiB', '--base-port', String(await basePort())];
    const child = spawn(join(home, 'node_modules/.bin/holdfast'), args, {
      cwd: home,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const stopChild = (): void => void child.kill('SIGTERM');
    process.once('exit', stopChild);
    let printed = '';
    child.stderr.on('data', (chunk: Buffer) => (printed += chunk.toString()));
    const exited = new Promise<number | null>((over) => child.once('exit', over));
    const url = await new Promise<string>((found, failed) => {
      createInterface({ input: child.stdout }).on('line', (line) => {
        printed += `${line}\n`;
        const event = JSON.parse(line) as { event: string; url: string };
        if (event.event === 'up') found(event.url);
      });
      void exited.then(() => failed(new Error(`it ended: ${printed}`)));
    });
    writeFileSync(join(home, 'client.js'), CLIENT);
    const client = spawnSync(process.execPath, ['client.js', url], { cwd: home, encoding: 'utf8' });
    assert.is(client.stdout, 'through the package', client.stderr);
    assert.ok(readdirSync(home).includes('holdfast-data'));
    stopChild();
    assert.is(await exited, 0, printed);
    process.off('exit', stopChild);
  });
}

test.run();
