/** The embedded coordinator as a process: the contract, kills, pauses, garbage, and its folder. */
import { connect } from 'node:net';
import fs, { mkdirSync, readFileSync, readdirSync, renameSync, rmdirSync, writeFileSync } from 'node:fs';
import type { FileHandle } from 'node:fs/promises';
import { syncBuiltinESMExports } from 'node:module';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { HoldfastError } from '../../src/base/errors.ts';
import { openCoordinator } from '../../src/coordination/open.ts';
import type { Register } from '../../src/coordination/register.ts';
import { RegisterFolder } from '../../src/coordination/register-folder.ts';
import { rejectsWith } from '../contract/block-device.ts';
import { coordinatorContract, next } from '../contract/coordinator.ts';
import { Contender, CoordinatorProcess, newRegister } from '../support/coordinators.ts';
import { holdfast, temporaryFolder } from '../support/server-process.ts';
import { until } from '../support/until.ts';
import { stopProcess } from '../support/stop-process.ts';

const base = temporaryFolder();
let folders = 0;
const newFolder = (): string => join(base, `d${++folders}`);
// Before any suite is registered: uvu begins to run at the first pause.
const shared = (await CoordinatorProcess.start(newFolder())).unref();

coordinatorContract(
  'embedded',
  () => openCoordinator(shared.url),
  async () => {
    assert.equal(await shared.kill('SIGTERM'), { code: 0, signal: null });
  },
);

const embedded = suite('embedded coordinator');

embedded('killed after each answer: what was answered is there, and the watch goes on', async () => {
  const dir = newFolder();
  let server = await CoordinatorProcess.start(dir);
  const { address } = server;
  const client = openCoordinator(server.url, { deadlineMs: 20_000 });
  const told: number[] = [];
  let current = await client.create(newRegister());
  const watch = client.watch(current.volumeId, ({ version }) => told.push(version));
  for (let round = 0; round < 4; round++) {
    current = (await client.compareAndSet(current.version, next(current, { epoch: round + 1, primary: 'a' }))).register;
    await server.kill();
    // It waits for the server, which is not there: nothing was sent, so it may be tried again.
    const read = client.read(current.volumeId);
    server = await CoordinatorProcess.start(dir, address);
    assert.is(server.volumes, 1);
    assert.equal(await read, current);
  }
  current = (await client.compareAndSet(current.version, next(current))).register;
  await until(() => told.at(-1) === current.version, 'the newest version');
  watch.close();
  await client.close();
  assert.equal(await server.kill('SIGTERM'), { code: 0, signal: null });
  // In good order or not: the same folder, and nothing left over.
  assert.equal(readdirSync(join(dir, 'registers')), [`${current.volumeId}.json`]);
});

embedded('killed while processes change one register: every win is there, versions rise by one', async () => {
  const dir = newFolder();
  let server = await CoordinatorProcess.start(dir);
  const { address } = server;
  const client = openCoordinator(server.url, { deadlineMs: 20_000 });
  const { volumeId } = await client.create(newRegister());
  const contenders = ['a', 'b', 'a', 'b'].map((node) => new Contender(server.url, volumeId, node, Infinity));
  let seen = 1;
  for (let round = 0; round < 5; round++) {
    const [wins, least] = [(): number => contenders.reduce((sum, { won }) => sum + won.length, 0), round * 20 + 20];
    await until(() => wins() >= least, 'changes');
    const known = Math.max(...contenders.flatMap(({ won }) => won.map(({ version }) => version)));
    await server.kill();
    server = await CoordinatorProcess.start(dir, address);
    const register = (await client.read(volumeId))!;
    assert.ok(register.version >= Math.max(known, seen), 'a version went back');
    seen = register.version;
  }
  for (const contender of contenders) contender.stop();
  for (const { exited } of contenders) assert.is(await exited, 0);
  const last = (await client.read(volumeId))!;
  const versions = contenders.flatMap(({ won }) => won.map(({ version }) => version));
  const unknown = contenders.reduce((sum, contender) => sum + contender.unknown.size, 0);
  assert.is(new Set(versions).size, versions.length, 'a version was won twice');
  assert.ok(Math.max(...versions) <= last.version);
  // Each version but the first was won by somebody, or made by an attempt of unknown outcome.
  assert.ok(last.version - 1 - versions.length <= unknown, `${last.version} ${versions.length} ${unknown}`);
  // Each change raised the epoch, so none was lost under another.
  assert.is(last.epoch, last.version - 1);
  await client.close();
  await server.kill();
});

embedded('a server that is stopped: DEADLINE, no wrong answer; what was sent may take effect later', async () => {
  const server = await CoordinatorProcess.start(newFolder());
  const client = openCoordinator(server.url, { deadlineMs: 500 });
  const patient = openCoordinator(server.url, { deadlineMs: 20_000 });
  const first = await client.create(newRegister());
  await stopProcess(server.child);
  await rejectsWith('DEADLINE', () => client.read(first.volumeId));
  await rejectsWith('DEADLINE', () => client.compareAndSet(1, next(first, { epoch: 1, primary: 'a' })));
  const late = patient.compareAndSet(1, next(first, { epoch: 1, primary: 'b' }));
  server.child.kill('SIGCONT');
  const { register } = await late;
  // To decide it: the unchanged content against the version that is read.
  const { version } = (await patient.read(first.volumeId))!;
  const decided = await patient.compareAndSet(version, next(register));
  assert.is(decided.outcome, 'done');
  assert.is(decided.register.version, version + 1);
  assert.is(version, 2, 'one of the two took effect, never both');
  await client.close();
  await patient.close();
  await server.kill();
});

embedded('nobody listens: UNREACHABLE, at once for what is closed', async () => {
  const server = await CoordinatorProcess.start(newFolder());
  await server.kill();
  const client = openCoordinator(server.url, { deadlineMs: 200 });
  await rejectsWith('UNREACHABLE', () => client.read('0'.repeat(32)));
  await rejectsWith('UNREACHABLE', () => client.create(newRegister()));
  const waiting = openCoordinator(server.url, { deadlineMs: 600_000 });
  const read = waiting.read('0'.repeat(32));
  await waiting.close();
  await rejectsWith('CLOSED', () => read);
  await client.close();
});

/** Sends bytes, gives all that comes back until the other side ends the connection. */
function exchange(port: number, bytes: Uint8Array | string): Promise<string> {
  return new Promise((resolve) => {
    let answer = '';
    const socket = connect(port, '127.0.0.1', () => socket.write(bytes));
    socket.on('data', (chunk) => (answer += chunk.toString()));
    socket.on('error', () => {});
    socket.on('close', () => resolve(answer));
  });
}

const post = (path: string, body: string, type = 'application/json'): string =>
  `POST ${path} HTTP/1.1\r\nhost: x\r\ncontent-type: ${type}\r\ncontent-length: ${body.length}\r\n\r\n${body}`;

embedded('garbage is refused in words, and harms nobody', async () => {
  const server = await CoordinatorProcess.start(newFolder());
  const port = Number(server.address.split(':').at(-1));
  const client = openCoordinator(server.url);
  const first = await client.create(newRegister());
  const cas = (fields: object): string => post('/v1/compare-and-set', JSON.stringify(fields));
  for (const [bytes, status, words] of [
    [new Uint8Array(64).fill(0xff), 400, ''],
    ['GET / HTTP/1.1\r\nhost: x\r\n\r\n', 400, 'POST /v1/NAME'],
    [post('/v1/read', '{}', 'text/plain'), 400, 'POST /v1/NAME'],
    [post('/v1/read', '{'), 400, 'not JSON'],
    [post('/v1/read', 'null'), 400, 'not an object'],
    [post('/v1/read', '{"volumeId":"../x"}'), 400, 'volumeId is not 32 hexadecimal digits'],
    [post('/v1/nothing', '{}'), 400, 'UNSUPPORTED'],
    [post('/v1/constructor', '{}'), 400, 'UNSUPPORTED'],
    [post('/v1/read?x', '{}'), 400, 'UNSUPPORTED'],
    [cas({ expectedVersion: '1', next: next(first) }), 400, 'expectedVersion is not'],
    [cas({ expectedVersion: 1, next: { ...next(first), primary: 7 } }), 400, 'primary is not'],
    [cas({ expectedVersion: 1 }), 400, 'register is not an object'],
    [post('/v1/read', `{"x":"${'y'.repeat(40_000)}"}`), 413, 'at most 32768 bytes'],
  ] as const) {
    const answer = await exchange(port, bytes);
    assert.match(answer, new RegExp(`^HTTP/1\\.1 ${status} `));
    assert.ok(answer.includes(words), answer);
  }
  // Says no length, and does not end.
  const chunk = `10000\r\n${'z'.repeat(0x10000)}\r\n`;
  const head =
    'POST /v1/list HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n';
  assert.match(await exchange(port, head + chunk.repeat(4)), /^HTTP\/1\.1 413 /);
  assert.equal(await client.read(first.volumeId), first);
  // Fields that nobody knows are left out.
  const more = { ...next(first), more: 1, members: first.members.map((member) => ({ ...member, more: 1 })) };
  assert.match(await exchange(port, cas({ expectedVersion: 1, next: more })), /^HTTP\/1\.1 200 /);
  assert.equal(await client.read(first.volumeId), { ...next(first), version: 2 });
  await client.close();
  assert.equal(await server.kill('SIGTERM'), { code: 0, signal: null });
});

embedded('SIGTERM ends it in good order with watches and idle connections open', async () => {
  const server = await CoordinatorProcess.start(newFolder());
  const client = openCoordinator(server.url, { deadlineMs: 300 });
  const told: Register[] = [];
  const first = await client.create(newRegister());
  client.watch(first.volumeId, (register) => told.push(register));
  await until(() => told.length === 1, 'the register');
  const idle = connect(Number(server.address.split(':').at(-1)), '127.0.0.1');
  idle.on('error', () => {});
  await new Promise((resolve) => idle.once('connect', resolve));
  assert.equal(await server.kill('SIGTERM'), { code: 0, signal: null });
  idle.destroy();
  await client.close();
});

embedded('one process has the folder; what is no coordinator’s is left alone', async () => {
  const dir = newFolder();
  const server = await CoordinatorProcess.start(dir);
  const second = await holdfast(['coordinator', '--dir', dir, '--listen', '127.0.0.1:0']);
  assert.is(second.code, 1);
  assert.match(second.stderr, new RegExp(`held by process ${server.child.pid}`));
  await server.kill();
  const other = newFolder();
  mkdirSync(other);
  writeFileSync(join(other, 'meta'), 'of a volume');
  const refused = await holdfast(['coordinator', '--dir', other, '--listen', '127.0.0.1:0']);
  assert.is(refused.code, 1);
  assert.match(refused.stderr, /the folder holds meta/);
  assert.not(readdirSync(other).includes('registers'));
});

async function failureOf(work: () => Promise<unknown>): Promise<HoldfastError> {
  try {
    await work();
  } catch (error) {
    if (error instanceof HoldfastError) return error;
    throw error;
  }
  throw new Error('no error');
}

embedded('a torn temporary file is nothing; a changed register is damage, with its path', async () => {
  const dir = newFolder();
  const register = { ...newRegister(), registerId: '1'.repeat(32), version: 1 };
  let folder = await RegisterFolder.open(dir);
  await folder.put(register);
  folder.close();
  const path = join(dir, 'registers', `${register.volumeId}.json`);
  const text = readFileSync(path, 'utf8');
  writeFileSync(`${path}.tmp`, text.slice(0, 100).replace('"version":1', '"version":2'));
  writeFileSync(join(dir, 'registers', `${'2'.repeat(32)}.json.tmp`), '');
  folder = await RegisterFolder.open(dir);
  assert.equal([...folder.registers.values()], [register]);
  assert.equal(readdirSync(join(dir, 'registers')), [`${register.volumeId}.json`]);
  folder.close();
  for (const spoilt of ['', text.slice(0, -20), text.replace('"epoch": 0', '"epoch": 1'), text.replace('"a"', '"_"')]) {
    assert.is.not(spoilt, text);
    writeFileSync(path, spoilt);
    const error = await failureOf(() => RegisterFolder.open(dir));
    assert.is(error.code, 'DAMAGED');
    assert.ok(error.message.includes(path));
    assert.ok(error.details.remedy);
  }
  // A copy under another volume's name.
  writeFileSync(path, text);
  writeFileSync(join(dir, 'registers', `${'3'.repeat(32)}.json`), text);
  assert.is((await failureOf(() => RegisterFolder.open(dir))).code, 'DAMAGED');
});

embedded('the file is synced before the rename, and the folder behind it, before the answer', async () => {
  const dir = newFolder();
  const folder = await RegisterFolder.open(dir);
  const register = { ...newRegister(), registerId: '1'.repeat(32), version: 1 };
  // The real calls, and their order.
  const order: string[] = [];
  const handle = await fs.promises.open(dir, 'r');
  const proto = Object.getPrototypeOf(handle) as FileHandle;
  await handle.close();
  const whole = Object.getOwnPropertyDescriptor(proto, 'sync')!;
  const sync = whole.value as () => Promise<void>;
  const { rename } = fs.promises;
  proto.sync = async function (this: FileHandle) {
    await sync.call(this);
    order.push((await this.stat()).isDirectory() ? 'sync folder' : 'sync file');
  };
  fs.promises.rename = async (from, to) => {
    await rename(from, to);
    order.push('rename');
  };
  syncBuiltinESMExports();
  try {
    await folder.put(register);
    assert.equal(order.splice(0), ['sync file', 'rename', 'sync folder']);
    await folder.remove(register);
    assert.equal(order.splice(0), ['sync folder']);
    folder.close();
    // What a killed process left may not be durable yet, and is about to be told.
    (await RegisterFolder.open(dir)).close();
    assert.equal(order, ['sync folder']);
  } finally {
    Object.defineProperty(proto, 'sync', whole);
    fs.promises.rename = rename;
    syncBuiltinESMExports();
  }
});

embedded('a change that cannot be written is refused; one that may be half done ends the process with 74', async () => {
  const dir = newFolder();
  const server = await CoordinatorProcess.start(dir);
  const client = openCoordinator(server.url, { deadlineMs: 20_000 });
  const first = await client.create(newRegister());
  const path = join(dir, 'registers', `${first.volumeId}.json`);
  // A folder where the temporary file is to be.
  mkdirSync(`${path}.tmp`);
  await rejectsWith('IO_ERROR', () => client.compareAndSet(1, next(first)));
  assert.equal(await client.read(first.volumeId), first);
  rmdirSync(`${path}.tmp`);
  const { register } = await client.compareAndSet(1, next(first));
  assert.is(register.version, 2);
  // A folder in the place of the register: the rename fails.
  renameSync(path, join(dir, 'aside'));
  mkdirSync(path);
  await rejectsWith('OUTCOME_UNKNOWN', () => client.compareAndSet(2, next(register)));
  assert.equal(await server.exited, { code: 74, signal: null });
  await client.close();
});

embedded('a folder of another format version is refused', async () => {
  const dir = newFolder();
  (await RegisterFolder.open(dir)).close();
  writeFileSync(join(dir, 'coordinator.json'), '{"format":"holdfast-coordinator","formatVersion":2}\n');
  assert.is((await failureOf(() => RegisterFolder.open(dir))).code, 'WRONG_VERSION');
});

embedded.run();
