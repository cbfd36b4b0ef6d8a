/** Tokens and their roles, on real processes: what each permits, what is said without one, and that one can be taken back. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { ErrorCode, HoldfastError } from '../../src/base/errors.ts';
import { admin } from '../../src/client/admin.ts';
import { type Volume, connect, list, ping } from '../../src/client/index.ts';
import { encodeAuth } from '../../src/protocol/auth.ts';
import { encodeInfo } from '../../src/protocol/handshake.ts';
import { MESSAGES } from '../../src/protocol/messages.ts';
import { RawClient, type Reply } from '../support/raw-client.ts';
import { holdfast, launch, temporaryFolder } from '../support/server-process.ts';
import { until } from '../support/until.ts';

const test = suite('security, tokens');
const folder = temporaryFolder();
const file = join(folder, 'tokens');
const secrets = new Map<string, string>();
let server: Awaited<ReturnType<typeof launch<{ listen: string }>>>;
let url = '';
let port = 0;

async function token(...args: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  const { code, stdout, stderr } = await holdfast(['token', ...args, '--tokens', file]);
  return { code, stdout: stdout.toString(), stderr };
}

async function create(name: string, role: string, ...volumes: string[]): Promise<string> {
  const { code, stdout, stderr } = await token('create', name, '--role', role, ...volumes);
  assert.is(code, 0, stderr);
  assert.match(stdout, /^hf_[A-Za-z0-9_-]{43}\n$/);
  secrets.set(name, stdout.trim());
  return stdout.trim();
}

function opened(name: string): Promise<Volume> {
  return connect(url, { token: secrets.get(name)!, connectMs: 5000 });
}

async function fails(work: Promise<unknown>, code: ErrorCode, words: RegExp): Promise<void> {
  const error = await work.then(
    () => assert.unreachable('it was permitted'),
    (thrown: HoldfastError) => thrown,
  );
  assert.is(error!.code, code, error!.message);
  assert.match(error!.message, words);
}

test.before(async () => {
  await create('boss', 'admin');
  await create('app', 'read-write', '--volume', 'v');
  await create('backup', 'read', '--volume', 'v,w');
  await create('elsewhere', 'read-write', '--volume', 'w');
  const args = ['serve', join(folder, 'v'), '--size', '16MiB', '--listen', '127.0.0.1:0', '--tokens', file];
  server = await launch(args, { HOLDFAST_LOG_LEVEL: 'info' });
  url = `holdfast://${server.info.listen}/v`;
  port = Number(server.info.listen.split(':')[1]);
});

test.after(async () => {
  server.child.kill('SIGTERM');
  assert.is((await server.exited).code, 0);
  for (const secret of secrets.values()) assert.not(server.printed().includes(secret), 'a token in the log');
});

test('the file has no secrets, the list neither', async () => {
  const text = readFileSync(file, 'utf8') + (await token('list')).stdout;
  for (const secret of secrets.values()) assert.not(text.includes(secret) || text.includes(secret.slice(3)));
  assert.match(text, /backup\s.*read\s.*v,w/);
  const again = await token('create', 'app', '--role', 'read');
  assert.is(again.code, 1);
  assert.match(again.stderr, /is in .* already/);
  assert.match((await token('create', 'x y', '--role', 'read')).stderr, /no name of a token/);
  assert.match((await token('create', 'x', '--role', 'king')).stderr, /no role.*admin, read-write, read/);
  assert.match((await token('remove', 'nobody')).stderr, /there is no token "nobody"/);
});

test('read-write writes, read only reads', async () => {
  const app = await opened('app');
  assert.is(app.readOnly, false);
  await app.write(0, Buffer.from('written'));
  await app.mark('m');
  await app.close();
  const backup = await opened('backup');
  assert.is(backup.readOnly, true);
  assert.is(Buffer.from(await backup.read(0, 7)).toString(), 'written');
  await fails(backup.write(0, Buffer.from('x')), 'READ_ONLY', /read-only/);
  await fails(backup.zero(0, 4096), 'READ_ONLY', /read-only/);
  await fails(backup.trim(0, 4096), 'READ_ONLY', /read-only/);
  await fails(backup.mark('n'), 'READ_ONLY', /read-only/);
  await fails(backup.deleteMark('m'), 'READ_ONLY', /read-only/);
  assert.is((await backup.marks()).length, 1);
  await backup.close();
});

test('by hand too: what only reads has no mutation executed, whatever a client sends', async () => {
  const raw = await introduced(secrets.get('backup')!);
  const attached = await raw.attach('v', null);
  assert.is(attached.error, null);
  assert.is(raw.info!.readOnly, true);
  assert.is((await raw.write(1, 0, Buffer.alloc(4096))).error!.code, 'READ_ONLY');
  assert.is((await raw.read(0, 7)).error, null);
  raw.close();
});

test('a volume that is not in the list of the token', async () => {
  await fails(opened('elsewhere'), 'ACCESS', /does not permit the volume "v".*To remedy/);
  assert.equal(await list(url, { token: secrets.get('elsewhere')! }), []);
  assert.is((await list(url, { token: secrets.get('backup')! })).length, 1);
  // In the same words whether it is there or not.
  const raw = await introduced(secrets.get('elsewhere')!);
  const info = (name: string): Promise<Reply> => raw.ask({ type: MESSAGES.INFO.number }, encodeInfo(name));
  const [here, nowhere, unnamed] = [await info('v'), await info('q'), await info('')];
  for (const reply of [here, nowhere, unnamed]) assert.is(reply.error!.code, 'ACCESS');
  assert.is(here.error!.message.replace('"v"', '"q"'), nowhere.error!.message);
  raw.close();
});

test('admin is for admins', async () => {
  const status = (name: string): Promise<unknown> =>
    admin(server.info.listen, { op: 'status', from: 0 }, { token: secrets.get(name)! });
  // It is no node of a cluster; that is as far as an admin gets.
  await fails(status('boss'), 'UNSUPPORTED', /no node of a cluster/);
  await fails(status('app'), 'ACCESS', /"app" is no admin/);
  await fails(status('backup'), 'ACCESS', /"backup" is no admin/);
});

test('without a token, with a wrong one', async () => {
  await fails(connect(url, { connectMs: 5000 }), 'ACCESS', /wants a token.*--token-file/);
  const wrong = `hf_${'A'.repeat(43)}`;
  await fails(connect(url, { connectMs: 5000, token: wrong }), 'ACCESS', /does not take that token/);
  await until(() => server.printed().includes('refused: the token'), 'a line of log');
  assert.not(server.printed().includes(wrong));
  const near = secrets.get('app')!.slice(0, -1);
  const answers = await Promise.all(
    [wrong, near, '', 'x'.repeat(255)].map(async (secret) => {
      const raw = await greeted();
      const reply = await raw.ask({ type: MESSAGES.AUTH.number }, encodeAuth(secret));
      await raw.closed;
      return `${reply.error!.code} ${reply.error!.message} ${raw.goodbye?.code}`;
    }),
  );
  assert.is(new Set(answers).size, 1, answers.join('\n'));
});

test('the command line: --token-file, the environment, never an argument', async () => {
  const tokenFile = join(folder, 'app.token');
  writeFileSync(tokenFile, `${secrets.get('app')!}\n`, { mode: 0o600 });
  const read = ['read', url, '--offset', '0', '--length', '7'];
  const byFile = await holdfast([...read, '--token-file', tokenFile]);
  assert.is(byFile.stdout.toString(), 'written', byFile.stderr);
  const byEnvironment = await holdfast(read, { env: { HOLDFAST_TOKEN: secrets.get('backup')! } });
  assert.is(byEnvironment.stdout.toString(), 'written', byEnvironment.stderr);
  const without = await holdfast(read);
  assert.is(without.code, 1);
  assert.match(without.stderr, /wants a token/);
});

async function greeted(): Promise<RawClient> {
  const raw = await RawClient.connect(port);
  assert.is((await raw.hello(0n, 0)).error, null);
  return raw;
}

async function introduced(secret: string): Promise<RawClient> {
  const raw = await greeted();
  assert.is((await raw.ask({ type: MESSAGES.AUTH.number }, encodeAuth(secret))).error, null);
  return raw;
}

test('nothing but HELLO and AUTH is answered before', async () => {
  const name = encodeInfo('v');
  const asked: Array<[number, Uint8Array | null]> = [
    [MESSAGES.PING.number, null],
    [MESSAGES.LIST.number, null],
    [MESSAGES.INFO.number, name],
    [MESSAGES.LOCATE.number, name],
    [MESSAGES.ADMIN.number, Buffer.from('{"op":"status"}')],
    [MESSAGES.READ.number, null],
  ];
  for (const [type, payload] of asked) {
    const raw = await greeted();
    const reply = await raw.ask({ type }, payload);
    assert.ok(reply.error !== null, `message ${type} was answered`);
    await raw.closed;
    assert.is(raw.goodbye!.code, 'ACCESS', `message ${type}`);
  }
  // Twice is once too much.
  for (const type of [MESSAGES.AUTH.number, MESSAGES.HELLO.number]) {
    const raw = await introduced(secrets.get('app')!);
    await raw.ask({ type }, encodeAuth(secrets.get('app')!));
    await raw.closed;
    assert.is(raw.goodbye!.code, 'BAD_FRAME');
  }
});

test('no more than 64 who have not given a token; the oldest gives way', async () => {
  const arrive = (length: number): Promise<RawClient[]> => Promise.all(Array.from({ length }, greeted));
  // In two groups: of 70 at once the first may have to give way before its HELLO is answered.
  const early = await arrive(64);
  const late = await arrive(6);
  const sentAway = (of: RawClient[]): number => of.filter(({ goodbye }) => goodbye?.code === 'TOO_MANY').length;
  await until(() => sentAway(early) === 6, 'six to be sent away');
  assert.is(sentAway(late), 0);
  assert.ok((await ping(url, { token: secrets.get('app')! })) >= 0);
  await until(() => sentAway(early) === 7, 'a seventh: who has a token is in their number for a moment');
  assert.is(sentAway(late), 0);
  for (const raw of [...early, ...late]) raw.close();
});

test('a token that is taken back ends its connections, and no others; a bad file changes nothing', async () => {
  const secret = await create('passing', 'read-write');
  server.child.kill('SIGHUP');
  await until(() => server.printed().includes('the new files are in force'), 'the new token to be known');
  const [passing, staying] = [await introduced(secret), await opened('app')];
  const before = readFileSync(file, 'utf8');
  writeFileSync(file, `${before}\nnonsense\n`);
  server.child.kill('SIGHUP');
  await until(() => server.printed().includes('the old ones stay in force'), 'a line about the bad file');
  assert.match(server.printed(), /tokens, line \d+: 1 fields instead of 4/);
  assert.is((await passing.ask({ type: MESSAGES.PING.number })).error, null);
  writeFileSync(file, before);
  assert.is((await token('remove', 'passing')).code, 0);
  // Nobody tells the server: it looks.
  await passing.closed;
  assert.is(passing.goodbye!.code, 'ACCESS');
  assert.match(passing.goodbye!.message, /"passing" was removed or changed/);
  await staying.read(0, 1);
  await staying.close();
  await fails(connect(url, { token: secret }), 'ACCESS', /does not take that token/);
});

test('ports that ask nobody who he is are not opened beside tokens, not even with --insecure', async () => {
  const node = ['node', '--name', 'a', '--dir', join(folder, 'n'), '--coordinator', 'holdfast://127.0.0.1:1'];
  const open = ['--tokens', file, '--insecure', '--listen', '127.0.0.1:0', '--peer-listen', '127.0.0.1:0'];
  for (const more of [
    ['--nbd', '0.0.0.0:0'],
    ['--kv', '0.0.0.0:0'],
  ]) {
    const { code, stderr } = await holdfast([...node, ...open, ...more]);
    assert.is(code, 1);
    assert.match(stderr, /lets in whoever has no token/);
  }
});

test.run();
