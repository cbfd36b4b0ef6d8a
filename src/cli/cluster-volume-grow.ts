/**
 * `holdfast volume grow NAME --size S` in a cluster: every replica gets room, one after the other; then the register says
 * the new size, and clients may use it.
 *
 * Guarantees: nothing is interrupted before the room is reserved on every member; one replica at a time is closed, the
 * primary last, and only while all others are in sync; the register is changed only in the version that names exactly the
 * disks that were seen to have the room; a command that was cut off can be given again, and goes on where it was.
 */
import { HoldfastError, asHoldfastError } from '../base/errors.ts';
import { formatBytes, parseSize } from '../base/units.ts';
import { admin } from '../client/admin.ts';
import type { Coordinator, Member, Register } from '../coordination/register.ts';
import type { ReplicaStatus } from '../node/hosted-volume.ts';
import { layoutOf } from '../storage/layout.ts';
import { smaller } from '../storage/volume-rules.ts';
import { changeRegister, clientAddressOf, nodeStatus, pause, registerOf, withCoordinator } from './cluster.ts';
import { lookAt } from './cluster-status.ts';
import { Progress, printJson } from './output.ts';

export interface GrowFlags {
  coordinator?: string;
  size: string;
  json?: boolean;
}

const OPERATION = 'grow';
const LOOK_MS = 100;
const SYNC_LOOK_MS = 300;
/** A node that is being started anew may need so long until it answers. */
const SILENT_MS = 20_000;
/** Nobody serves the volume, though all its nodes answer: so long is waited for a primary. */
const UNSERVED_MS = 60_000;
/** Until the primary has noted the new size. */
const RAISE_MS = 30_000;

interface Where {
  coordinator: Coordinator;
  volume: string;
  volumeId: string;
  toBytes: number;
  json: boolean;
}

function told({ json, volume }: Where, text: string, fields: object): void {
  if (json) printJson({ ...fields, volume });
  else process.stdout.write(`${text}\n`);
}

const again = ({ volume, toBytes }: Where): string => `holdfast volume grow ${volume} --size ${toBytes}`;

/** What went wrong at one node, with its name. */
function atNode(where: Where, node: string, error: unknown): HoldfastError {
  const known = asHoldfastError(error);
  const { operation: _operation, ...details } = known.details;
  const remedy = details.remedy ?? `look at holdfast status; then give the command again: ${again(where)}`;
  return new HoldfastError(known.code, {
    ...details,
    operation: OPERATION,
    volume: where.volume,
    peer: node,
    remedy,
    cause: known,
  });
}

async function addressOf({ coordinator }: Where, register: Register, node: string): Promise<string> {
  const address = clientAddressOf(node, await coordinator.nodes(), register);
  if (address !== null) return address;
  throw new HoldfastError('UNREACHABLE', { detail: 'its address is not known', remedy: 'start it' });
}

/** The replica of a member, by its node. @throws HoldfastError if the node does not answer, or has none */
async function replicaOf(where: Where, register: Register, member: Member): Promise<ReplicaStatus> {
  const { node, diskId } = member;
  try {
    const status = await nodeStatus(await addressOf(where, register, node));
    const replica = status.replicas.find((one) => one.volumeId === where.volumeId);
    if (replica?.diskId === diskId) return replica;
    const detail = `it does not host its replica${replica === undefined ? '' : `: the disk there is ${replica.diskId}`}`;
    throw new HoldfastError('NO_SUCH_VOLUME', { detail, remedy: `see why: holdfast status; ${leave(where, node)}` });
  } catch (error) {
    const known = asHoldfastError(error);
    const remedy = known.details.remedy ?? `start it; ${leave(where, node)}`;
    throw atNode(where, node, new HoldfastError(known.code, { ...known.details, remedy, cause: known }));
  }
}

const leave = ({ volume }: Where, node: string): string =>
  `if it is lost: holdfast volume remove-replica ${volume} --node ${node}; then give the command again`;

/** What no member may be; nothing has been done yet. */
function check(where: Where, node: string, replica: ReplicaStatus): void {
  const refused = (detail: string, remedy: string): HoldfastError =>
    atNode(where, node, new HoldfastError('UNSUPPORTED', { detail, remedy }));
  // A node of an older build knows nothing of room.
  if ((replica.capacityBytes as number | undefined) === undefined) {
    throw refused('its build knows nothing of growing', 'bring it up to date first: docs/operating.md, "Upgrades"');
  }
  if (replica.failed !== null || replica.health !== 'good') {
    const detail = replica.failed ?? replica.healthReason;
    const remedy = `holdfast volume replace ${where.volume} ${node}`;
    throw atNode(where, node, new HoldfastError('DAMAGED', { detail, remedy }));
  }
}

type Action = 'prepare' | 'switch' | 'abandon';

async function asked(
  where: Where,
  register: Register,
  node: string,
  action: Action,
): Promise<{ state: string; doneBytes: number; totalBytes: number }> {
  const { volumeId, toBytes: sizeBytes } = where;
  const address = await addressOf(where, register, node);
  const reply = await admin(address, { op: 'grow-replica', volumeId, sizeBytes, action }, { timeoutMs: 10_000 });
  return {
    state: String(reply['state']),
    doneBytes: Number(reply['doneBytes'] ?? 0),
    totalBytes: Number(reply['totalBytes'] ?? 0),
  };
}

// --- first: room on every member -----------------------------------------------------------------------------------------

async function prepareAll(where: Where, register: Register, signal: AbortSignal): Promise<void> {
  const nodes = register.members.map(({ node }) => node);
  const progress = new Progress(`reserving room for ${where.volume} on ${nodes.join(', ')}`);
  const failed = new AbortController();
  const one = async (node: string): Promise<void> => {
    try {
      for (;;) {
        signal.throwIfAborted();
        if (failed.signal.aborted) return;
        const { state, doneBytes, totalBytes } = await asked(where, register, node, 'prepare');
        if (state === 'prepared') told(where, `${node}: the room is reserved`, { event: 'prepared', node });
        if (state !== 'preparing') return;
        progress.updatePart(node, doneBytes, totalBytes);
        await pause(LOOK_MS);
      }
    } catch (error) {
      failed.abort();
      throw signal.aborted ? error : atNode(where, node, error);
    }
  };
  const outcomes = await Promise.allSettled(nodes.map(one));
  progress.stop();
  const wrong = outcomes.find((outcome) => outcome.status === 'rejected');
  if (wrong === undefined) return;
  // Nothing has been interrupted, and nobody keeps what nobody will use.
  await Promise.allSettled(nodes.map((node) => asked(where, register, node, 'abandon')));
  throw wrong.reason as Error;
}

// --- then: one after the other -----------------------------------------------------------------------------------------

/** Waits until all members are in sync; one that does not answer for long ends it. */
async function untilInSync(where: Where): Promise<Register> {
  const progress = new Progress(`bringing ${where.volume} in sync`);
  const silentSince = new Map<string, number>();
  let most = 0;
  let servedMs = performance.now();
  try {
    for (;;) {
      const view = (await lookAt(where.coordinator)).volumes.find(({ volumeId }) => volumeId === where.volumeId);
      const register = await where.coordinator.read(where.volumeId);
      if (view === undefined || register === null) throw new HoldfastError('NO_SUCH_VOLUME', { operation: OPERATION });
      const behind = view.members.filter(({ state }) => state !== 'in-sync');
      if (view.verdict !== 'unavailable') servedMs = performance.now();
      if (behind.length === 0 && view.verdict !== 'unavailable') return register;
      if (performance.now() - servedMs > UNSERVED_MS) {
        const remedy = `see why: holdfast status; then give the command again: ${again(where)}`;
        throw new HoldfastError('DEADLINE', { operation: OPERATION, volume: where.volume, detail: view.why, remedy });
      }
      for (const { node, state, reason, remedy } of behind) {
        if (state === 'poisoned' || state === 'damaged') {
          const details = { detail: reason ?? state, ...(remedy !== null && { remedy }) };
          throw atNode(where, node, new HoldfastError(state === 'poisoned' ? 'POISONED' : 'DAMAGED', details));
        }
        if (state !== 'unreachable' && state !== 'absent') {
          silentSince.delete(node);
          continue;
        }
        const sinceMs = silentSince.get(node) ?? performance.now();
        silentSince.set(node, sinceMs);
        if (performance.now() - sinceMs < SILENT_MS) continue;
        throw atNode(where, node, new HoldfastError('UNREACHABLE', { remedy: `start it; ${leave(where, node)}` }));
      }
      const left = behind.reduce((sum, { sync, dirtyBytes }) => sum + (sync?.leftBytes ?? dirtyBytes ?? 0), 0);
      most = Math.max(most, left);
      if (left > 0) progress.update(most - left, most);
      await pause(SYNC_LOOK_MS);
    }
  } finally {
    progress.stop();
  }
}

async function switchOne(where: Where, register: Register, node: string): Promise<void> {
  try {
    for (;;) {
      const { state } = await asked(where, register, node, 'switch');
      if (state === 'grown') return;
      await pause(LOOK_MS);
    }
  } catch (error) {
    throw atNode(where, node, error);
  }
}

/** The next member whose disk lacks the room, the primary last; null: all have it. */
async function nextOf(where: Where, register: Register): Promise<Member | null> {
  const order = [...register.members].sort(
    (a, b) => Number(a.node === register.primary) - Number(b.node === register.primary),
  );
  for (const member of order) {
    const replica = await replicaOf(where, register, member);
    if (replica.capacityBytes < where.toBytes) return member;
  }
  return null;
}

// --- last: the register ----------------------------------------------------------------------------------------------------

/** With all members seen to have the room: the size is raised, in the version of the register that names those members. */
async function raise(where: Where, seen: Register): Promise<void> {
  const disks = ({ members }: Register): string =>
    members
      .map(({ node, diskId }) => `${node}/${diskId}`)
      .sort()
      .join(' ');
  await changeRegister(where.coordinator, where.volumeId, (now) => {
    if (disks(now) !== disks(seen)) {
      const detail = 'its members have changed meanwhile';
      const remedy = `give the command again: ${again(where)}`;
      throw new HoldfastError('BUSY', { operation: OPERATION, volume: where.volume, detail, remedy });
    }
    return { ...now, sizeBytes: Math.max(now.sizeBytes, where.toBytes) };
  });
}

async function untilServed(where: Where): Promise<void> {
  const endAt = performance.now() + RAISE_MS;
  for (;;) {
    const register = await where.coordinator.read(where.volumeId);
    const member = register?.members.find(({ node }) => node === register.primary) ?? null;
    if (register !== null && member !== null) {
      const replica = await replicaOf(where, register, member).catch(() => null);
      if (replica !== null && replica.serving && replica.sizeBytes >= where.toBytes) return;
    }
    if (performance.now() > endAt) {
      const detail = `the register says ${where.toBytes} bytes; no primary serves them yet`;
      const remedy = 'look at: holdfast status';
      throw new HoldfastError('DEADLINE', { operation: OPERATION, volume: where.volume, detail, remedy });
    }
    await pause(LOOK_MS);
  }
}

export async function growInCluster(name: string, flags: GrowFlags): Promise<void> {
  const toBytes = parseSize(flags.size);
  // A size that no volume can have is refused before anybody is asked.
  layoutOf(toBytes);
  const abort = new AbortController();
  const interrupt = (): void => abort.abort(new HoldfastError('ABORTED', { operation: OPERATION, volume: name }));
  await withCoordinator(flags, async (coordinator) => {
    let register = await registerOf(coordinator, name);
    const { volumeId, sizeBytes } = register;
    const where: Where = { coordinator, volume: name, volumeId, toBytes, json: flags.json ?? false };
    if (toBytes < sizeBytes) throw smaller(name, sizeBytes, toBytes);
    for (const member of register.members) check(where, member.node, await replicaOf(where, register, member));
    process.once('SIGINT', interrupt);
    try {
      if ((await nextOf(where, register)) !== null) await prepareAll(where, register, abort.signal);
    } finally {
      process.off('SIGINT', interrupt);
    }
    for (;;) {
      register = await untilInSync(where);
      const member = await nextOf(where, register);
      if (member === null) break;
      await switchOne(where, register, member.node);
      told(where, `${member.node}: its disk has room for ${formatBytes(toBytes)}`, {
        event: 'enlarged',
        node: member.node,
      });
    }
    if (register.sizeBytes < toBytes) await raise(where, register);
    await untilServed(where);
    const fields = { event: 'grown', fromBytes: sizeBytes, sizeBytes: toBytes };
    const on = register.members
      .map(({ node }) => node)
      .sort()
      .join(', ');
    const text =
      sizeBytes === toBytes
        ? `${name} has ${formatBytes(toBytes)}, and so has each replica: ${on}`
        : `${name} has grown from ${formatBytes(sizeBytes)} to ${formatBytes(toBytes)}, on ${on}`;
    told(where, text, fields);
  });
}
