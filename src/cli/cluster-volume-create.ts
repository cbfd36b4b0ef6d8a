/**
 * `holdfast volume create NAME --replicas N`: places replicas, has the nodes make them, and makes the register.
 *
 * It waits until the volume is served, within a bound.
 *
 * Guarantees: never two replicas on one node; the register is made last, so a volume that is there is whole; what was
 * made before a failure is undone, and what could not be is said.
 */
import { randomBytes } from 'node:crypto';
import { HoldfastError, asHoldfastError } from '../base/errors.ts';
import { formatBytes, parseSize } from '../base/units.ts';
import { admin } from '../client/admin.ts';
import type { Coordinator, Member, Register, SeenNode } from '../coordination/register.ts';
import { checkVolumeName } from '../storage/volume-rules.ts';
import { byCli, deleteReplicas, makeReplica, pause, urlOf, withCoordinator } from './cluster.ts';
import { type MemberView, lookAt } from './cluster-status.ts';
import { Progress, endQuietlyWithoutReader, printJson } from './output.ts';
import type { VolumeKind } from '../storage/superblock.ts';

export interface ReplicatedCreateFlags {
  coordinator?: string;
  size?: string;
  replicas?: string;
  from?: string;
  node?: string;
  allowSparse?: boolean;
  journal?: string;
  durable: boolean;
  kind?: VolumeKind;
  wait: boolean;
  json?: boolean;
}

const MAX_REPLICAS = 5;
/** A node that said nothing for so long gets no replica. */
const SILENT_MS = 20_000;
/** It is made, whether anybody serves it by then or not. */
const WAIT_MS = 30_000;
const LOOK_MS = 50;

function wrong(volume: string, detail: string, remedy?: string): HoldfastError {
  return new HoldfastError('INVALID_ARGUMENT', { operation: 'create', volume, detail, remedy });
}

/** Those with the most free space; `first` is one of them. */
export function place(nodes: readonly SeenNode[], count: number, first: string | undefined): SeenNode[] {
  const alive = nodes.filter(({ seenAgoMs }) => seenAgoMs < SILENT_MS);
  const rank = ({ node, freeBytes }: SeenNode): number => (node === first ? Infinity : freeBytes);
  return alive.sort((a, b) => (rank(b) > rank(a) ? 1 : rank(b) < rank(a) ? -1 : 0)).slice(0, count);
}

/** What was made so far, for undoing it. */
interface Made {
  volumeId: string;
  where: SeenNode[];
  adopted: { node: SeenNode; dir: string } | null;
}

async function undo({ volumeId, where, adopted }: Made, cause: HoldfastError): Promise<HoldfastError> {
  const left = await deleteReplicas(
    volumeId,
    where.map(({ node, clientAddress }) => ({ node, address: clientAddress })),
  );
  if (adopted !== null) {
    const request = { op: 'release', volumeId, dir: adopted.dir };
    await admin(adopted.node.clientAddress, request, { timeoutMs: 30_000 }).catch((error: unknown) => {
      left.push(`${adopted.node.node}: ${adopted.dir} was not put back: ${asHoldfastError(error).message}`);
    });
  }
  const undone = left.length === 0 ? 'what was made is undone' : `NOT undone: ${left.join('; ')}`;
  return new HoldfastError(cause.code, {
    ...cause.details,
    detail: `${cause.details.detail ?? ''} (${undone})`,
    cause,
  });
}

export async function createReplicated(name: string, flags: ReplicatedCreateFlags): Promise<void> {
  checkVolumeName(name);
  const count = Number(flags.replicas ?? 2);
  if (!Number.isSafeInteger(count) || count < 1 || count > MAX_REPLICAS) {
    throw wrong(name, `--replicas ${flags.replicas} is not a number from 1 to ${MAX_REPLICAS}`);
  }
  if (flags.from !== undefined && flags.node === undefined) {
    throw wrong(name, '--from does not say on which machine', 'add --node: the node on the machine of that folder');
  }
  if (flags.from === undefined && flags.size === undefined) throw wrong(name, 'no --size');
  await withCoordinator(flags, async (coordinator) => {
    const [registers, nodes] = await Promise.all([coordinator.list(), coordinator.nodes()]);
    if (registers.some(({ volume }) => volume === name)) {
      throw new HoldfastError('EXISTS', {
        operation: 'create',
        volume: name,
        detail: 'there is a volume of that name',
      });
    }
    const chosen = place(nodes, count, flags.node);
    if (chosen.length < count || (flags.node !== undefined && chosen[0]?.node !== flags.node)) {
      const known = nodes.map(({ node, seenAgoMs }) => `${node} (heard of ${seenAgoMs} ms ago)`).join(', ') || 'none';
      const remedy = 'start the nodes first: holdfast node --name NAME --dir DIR --coordinator URL';
      throw wrong(name, `${count} nodes are needed; the coordinator knows: ${known}`, remedy);
    }
    const register = await make(coordinator, name, chosen, flags);
    const served = flags.wait && (await isServed(coordinator, register.volumeId));
    endQuietlyWithoutReader();
    if (flags.json) printJson({ event: 'created', register, served });
    else {
      // By name: they were chosen by their free space, which says nothing later.
      const members = register.members.toSorted((a, b) => (a.node < b.node ? -1 : 1));
      const on = members.map(({ node }) => node).join(', ');
      const servers = members.map(({ clientAddress }) => clientAddress).join(',');
      process.stdout.write(
        `created ${name} (${formatBytes(register.sizeBytes)}) on ${on}\n  ${urlOf(servers, name)}\n`,
      );
      if (flags.wait && !served) {
        process.stderr.write(`nobody serves it yet, after ${WAIT_MS / 1000} s: look at: holdfast status\n`);
      }
    }
  });
}

/** Nodes hear of it when they look next; then one of them is primary, and the others follow it. */
async function isServed(coordinator: Coordinator, volumeId: string): Promise<boolean> {
  for (const endMs = performance.now() + WAIT_MS; performance.now() < endMs;) {
    const view = await lookAt(coordinator).catch(() => null);
    const volume = view?.volumes.find((one) => one.volumeId === volumeId);
    const serves = ({ role }: MemberView): boolean => role !== 'none';
    if (volume !== undefined && volume.verdict !== 'unavailable' && volume.members.every(serves)) return true;
    await pause(LOOK_MS);
  }
  return false;
}

async function make(
  coordinator: Coordinator,
  name: string,
  chosen: SeenNode[],
  flags: ReplicatedCreateFlags,
): Promise<Register> {
  const made: Made = { volumeId: randomBytes(16).toString('hex'), where: [], adopted: null };
  const abort = new AbortController();
  const interrupt = (): void => abort.abort(new HoldfastError('ABORTED', { operation: 'create', volume: name }));
  process.on('SIGINT', interrupt);
  process.on('SIGTERM', interrupt);
  try {
    const base = await source(made, name, chosen, flags);
    const rest = base.member === null ? chosen : chosen.slice(1);
    const members = await makeAll(made, name, rest, { ...base, ...flags }, abort.signal);
    return await coordinator.create({
      volumeId: made.volumeId,
      volume: name,
      sizeBytes: base.sizeBytes,
      epoch: base.epoch,
      primary: '',
      inSync: base.member === null ? members.map(({ node }) => node) : [base.member.node],
      members: base.member === null ? members : [base.member, ...members],
      by: byCli(),
    });
  } catch (error) {
    const known = asHoldfastError(error, { operation: 'create', volume: name });
    if (known.code === 'DEADLINE' || known.code === 'OUTCOME_UNKNOWN') {
      // The register may be there, or still come to be: then the replicas are its members.
      const remedy = 'look at `holdfast volume list`: delete the volume if it is there, else its folders on the nodes';
      throw new HoldfastError(known.code, { ...known.details, remedy, cause: known });
    }
    throw await undo(made, known);
  } finally {
    process.off('SIGINT', interrupt);
    process.off('SIGTERM', interrupt);
  }
}

/** The volume that is taken as it is, if one is; and what follows for the others. */
async function source(
  made: Made,
  name: string,
  chosen: SeenNode[],
  flags: ReplicatedCreateFlags,
): Promise<{ sizeBytes: number; epoch: number; member: Member | null }> {
  if (flags.from === undefined) return { sizeBytes: parseSize(flags.size!), epoch: 0, member: null };
  const { node, address, clientAddress } = chosen[0]!;
  const reply = await admin(clientAddress, { op: 'adopt', dir: flags.from, name }, { timeoutMs: 60_000 });
  made.volumeId = String(reply['volumeId']);
  made.adopted = { node: chosen[0]!, dir: flags.from };
  const member: Member = { node, address, clientAddress, diskId: String(reply['diskId']) };
  return { sizeBytes: Number(reply['sizeBytes']), epoch: Number(reply['epoch']), member };
}

async function makeAll(
  made: Made,
  name: string,
  nodes: SeenNode[],
  options: {
    sizeBytes: number;
    member: Member | null;
    allowSparse?: boolean;
    journal?: string;
    durable: boolean;
    kind?: VolumeKind;
  },
  signal: AbortSignal,
): Promise<Member[]> {
  const { sizeBytes, durable } = options;
  const progress = new Progress(`creating ${name} on ${nodes.map(({ node }) => node).join(', ')}`);
  const request = {
    volumeId: made.volumeId,
    name,
    sizeBytes,
    state: options.member === null ? ('in-sync' as const) : ('syncing' as const),
    sparse: options.allowSparse ?? false,
    durable,
    kind: options.kind ?? 'block',
    ...(options.journal !== undefined && { journalBytes: parseSize(options.journal) }),
  };
  const outcomes = await Promise.allSettled(
    nodes.map(async (one): Promise<Member> => {
      const { node, address, clientAddress } = one;
      made.where.push(one);
      const diskId = await makeReplica(clientAddress, request, signal, (doneBytes, totalBytes) =>
        progress.updatePart(node, doneBytes, totalBytes),
      );
      return { node, address, clientAddress, diskId };
    }),
  );
  progress.stop();
  return outcomes.map((outcome) => {
    if (outcome.status === 'rejected') throw outcome.reason;
    return outcome.value;
  });
}
