/** How the rows of the matrix are played: each play begins with all in sync, and ends with both nodes running. */
import * as assert from 'uvu/assert';
import { nodeStatus } from '../../src/cli/cluster.ts';
import { connect } from '../../src/client/index.ts';
import { MESSAGES } from '../../src/protocol/messages.ts';
import { encodeFrame } from '../../src/protocol/replies.ts';
import type { CrashPoint } from '../../src/replication/crash-points.ts';
import { Random } from '../support/random.ts';
import { RawClient } from '../support/raw-client.ts';
import { stopProcess } from '../support/stop-process.ts';
import { type Matrix, VOLUME, other } from './matrix.ts';
import type { Play } from './rows.ts';

/** Operations while a node is away: there is something to bring in. */
const AWAY = 60;
/** The place of a client that dies, among those that repeat nothing. */
const DYING_SHOT = 3;
const HALF_SHOT = 4;

type Player = (matrix: Matrix, point: CrashPoint) => Promise<void>;

async function primary(matrix: Matrix, point: CrashPoint): Promise<void> {
  const name = await matrix.primary();
  await matrix.arm(name, point);
  await matrix.crashed(name, point);
  await matrix.untilPrimary(other(name));
  await matrix.load.more(AWAY);
  await matrix.cluster.restart(name);
}

async function primaryUnheard(matrix: Matrix, point: CrashPoint): Promise<void> {
  const name = await matrix.primary();
  await matrix.fault(name, { kind: 'partition', from: [other(name)], way: 'both' });
  // Not the first: a primary that answers too early has answered by then.
  await matrix.arm(name, point, 3);
  await matrix.crashed(name, point);
  // Whoever may go on does. It is this one, if it had left the other one behind before it came to that step.
  await matrix.cluster.restart(name);
}

async function backup(matrix: Matrix, point: CrashPoint): Promise<void> {
  const stays = await matrix.primary();
  await matrix.arm(other(stays), point);
  await matrix.crashed(other(stays), point);
  await matrix.load.more(AWAY);
  assert.is(await matrix.primary(), stays, 'the primary stays');
  await matrix.cluster.restart(other(stays));
}

/** Leaves the backup behind. @returns the primary, which is alone now */
async function leaveBehind(matrix: Matrix): Promise<string> {
  const stays = await matrix.primary();
  await matrix.kill(other(stays));
  await matrix.load.more(AWAY);
  await matrix.scattered.write(matrix.volume);
  return stays;
}

async function target(matrix: Matrix, point: CrashPoint): Promise<void> {
  const source = await leaveBehind(matrix);
  await matrix.startToCrash(other(source), point);
  await matrix.load.more(AWAY);
  assert.is(await matrix.primary(), source, 'the source stays primary');
  await matrix.cluster.restart(other(source));
}

/** A node that has not everything is there, alone: it must not be primary. */
export async function refusesAlone(matrix: Matrix, incomplete: string): Promise<void> {
  const { address } = matrix.cluster.slot(incomplete);
  // It has read the register, and says whom it waits for.
  const { volumes } = await matrix.until(
    (view) => view.volumes[0]!.members.find(({ node }) => node === incomplete)!.waits?.includes('bring it in') === true,
    `${incomplete} to wait for the other one`,
  );
  assert.is(volumes[0]!.primary, other(incomplete), 'the register names the one with everything');
  assert.not((await nodeStatus(address)).replicas[0]!.serving, `${incomplete} serves half the data`);
}

async function source(matrix: Matrix, point: CrashPoint): Promise<void> {
  const name = await leaveBehind(matrix);
  await matrix.arm(name, point);
  await matrix.cluster.restart(other(name));
  await matrix.crashed(name, point);
  await refusesAlone(matrix, other(name));
  await matrix.cluster.restart(name);
  await matrix.untilPrimary(name);
}

async function sourceAndTarget(matrix: Matrix, point: CrashPoint): Promise<void> {
  const name = await leaveBehind(matrix);
  await matrix.arm(name, point);
  await matrix.cluster.restart(other(name));
  await matrix.crashed(name, point);
  await matrix.kill(other(name));
  await matrix.cluster.restart(other(name));
  await refusesAlone(matrix, other(name));
  await matrix.cluster.restart(name);
  await matrix.untilPrimary(name);
}

async function candidate(matrix: Matrix, point: CrashPoint): Promise<void> {
  const killed = await matrix.primary();
  await matrix.arm(other(killed), point);
  await matrix.kill(killed);
  await matrix.crashed(other(killed), point);
  await matrix.cluster.restart(other(killed));
  await matrix.untilPrimary(other(killed));
  await matrix.load.more(AWAY);
  await matrix.cluster.restart(killed);
}

async function killBoth(matrix: Matrix): Promise<string> {
  const name = await matrix.primary();
  await Promise.all([matrix.kill(name), matrix.kill(other(name))]);
  matrix.fired++;
  return name;
}

async function lastSurvivor(matrix: Matrix): Promise<void> {
  const last = await leaveBehind(matrix);
  await matrix.kill(last);
  matrix.fired++;
  await matrix.cluster.restart(other(last));
  await refusesAlone(matrix, other(last));
  await matrix.cluster.restart(last);
  await matrix.untilPrimary(last);
}

async function withoutCoordinator(matrix: Matrix, whom: 'primary' | 'backup', point: CrashPoint): Promise<void> {
  const name = await matrix.primary();
  const victim = whom === 'primary' ? name : other(name);
  await matrix.loseCoordinator();
  await matrix.load.more(AWAY);
  await matrix.arm(victim, point);
  await matrix.crashed(victim, point);
  // Nobody may go on alone: that another one could not either is nowhere written.
  const left = other(victim);
  const acknowledged = (await nodeStatus(matrix.cluster.slot(left).address)).replicas[0]!;
  assert.is(acknowledged.role === 'primary', whom === 'backup', `${left} is ${acknowledged.role}`);
  await matrix.findCoordinator();
  await matrix.untilPrimary(left);
  await matrix.load.more(AWAY);
  await matrix.cluster.restart(victim);
}

async function bothWithoutCoordinator(matrix: Matrix, point: CrashPoint): Promise<void> {
  const name = await matrix.primary();
  const { address } = matrix.cluster.slot(name);
  await matrix.loseCoordinator();
  await matrix.arm(other(name), point);
  await matrix.crashed(other(name), point);
  // It knows that it is alone, and that nobody else does: what it acknowledges now the other one would not have.
  const isAlone = async (): Promise<boolean> =>
    (await nodeStatus(address)).replicas[0]!.peers.every(({ phase }) => phase !== 'joined');
  while (!(await isAlone()));
  // One that answers too early has answered by the end of these.
  for (let i = 0; i < 10; i++) await isAlone();
  await matrix.kill(name);
  await matrix.findCoordinator();
  await matrix.cluster.restart(other(name));
  await matrix.untilPrimary(other(name));
  await matrix.load.more(AWAY);
  await matrix.cluster.restart(name);
}

const text = (bytes: Uint8Array): string => Buffer.from(bytes).toString();
/** Behind the lanes and the shots. */
const OWN_BYTES = 8 * 1024 * 1024;

async function stopped(matrix: Matrix): Promise<void> {
  const name = await matrix.primary();
  const { address, running } = matrix.cluster.slot(name);
  await matrix.volume.write(OWN_BYTES, Buffer.from('before'));
  const old = await connect(`holdfast://${address}/${VOLUME}`, { retryMs: 2000 });
  await stopProcess(running!.child);
  // These lie in its sockets until it wakes.
  const reads = Array.from({ length: 20 }, () =>
    old.read(OWN_BYTES, 6).then(text, (error: { code: string }) => error.code),
  );
  await matrix.untilPrimary(other(name));
  await matrix.volume.write(OWN_BYTES, Buffer.from('after!'));
  await matrix.load.more(AWAY);
  running!.child.kill('SIGCONT');
  for (const outcome of await Promise.all(reads)) {
    assert.ok(outcome === 'after!' || /^[A-Z_]+$/.test(outcome), `the woken primary answered: ${outcome}`);
  }
  await old.close();
  await matrix.untilSafe();
  assert.is(await matrix.primary(), other(name), 'the woken one is backup');
  matrix.fired++;
}

async function client(matrix: Matrix): Promise<void> {
  const name = await matrix.primary();
  const port = Number(matrix.cluster.slot(name).address.split(':').at(-1));
  const random = new Random(21);
  const { shots, volume } = matrix;
  await shots.settle(volume);
  // It sends a whole request and does not wait; across a boundary.
  const whole = await RawClient.attached(port, 77n, 1, null, VOLUME);
  const bytes = random.bytes(5000);
  const offset = shots.borrow(DYING_SHOT, 3000, bytes);
  whole.send({ type: MESSAGES.WRITE.number, requestId: 100, offset, count: bytes.length }, bytes);
  await new Promise<void>((resolve) => whole.socket.write('', () => resolve()));
  whole.socket.resetAndDestroy();
  // ... and half a request: that has no effect.
  const half = await RawClient.attached(port, 78n, 1, null, VOLUME);
  const before = await volume.read(shots.borrow(HALF_SHOT, 100, bytes), bytes.length);
  const at = shots.borrow(HALF_SHOT, 100, bytes);
  const fields = { type: MESSAGES.WRITE.number, requestId: 100, offset: at, count: bytes.length };
  const frame = encodeFrame({ epoch: half.epoch, ...fields }, bytes);
  await new Promise<void>((resolve) => half.socket.write(frame.subarray(0, frame.length / 2), () => resolve()));
  half.socket.resetAndDestroy();
  await Promise.all([whole.closed, half.closed]);
  await matrix.load.more(AWAY);
  const after = await volume.read(at, bytes.length);
  assert.is(Buffer.compare(before, after), 0, 'half a request has an effect');
  await shots.settle(volume);
  // What it came to stays so when the other one takes over.
  await matrix.kill(name);
  await matrix.untilPrimary(other(name));
  await shots.settle(volume);
  await matrix.cluster.restart(name);
  matrix.fired++;
}

export const plays: Record<Play, Player> = {
  primary,
  'primary unheard': primaryUnheard,
  backup,
  target,
  source,
  'source and target': sourceAndTarget,
  candidate,
  'both, backup first': async (matrix) => {
    const name = await killBoth(matrix);
    await matrix.cluster.restart(other(name));
    await matrix.load.more(AWAY);
    await matrix.cluster.restart(name);
  },
  'both, primary first': async (matrix) => {
    const name = await killBoth(matrix);
    await matrix.cluster.restart(name);
    await matrix.load.more(AWAY);
    await matrix.cluster.restart(other(name));
  },
  'last survivor': lastSurvivor,
  'primary without coordinator': (matrix, point) => withoutCoordinator(matrix, 'primary', point),
  'backup without coordinator': (matrix, point) => withoutCoordinator(matrix, 'backup', point),
  'both without coordinator': bothWithoutCoordinator,
  stopped,
  client,
};
