/**
 * The state of a cluster, put together from the registers and from what each node says of itself.
 *
 * Guarantees: nodes are asked at the same time, each within a bound; what is not known is said so, and never counts as
 * good.
 */
import { asHoldfastError } from '../base/errors.ts';
import type { Coordinator, Register, SeenNode } from '../coordination/register.ts';
import type { ReplicaStatus, SyncStatus } from '../node/hosted-volume.ts';
import { type NodeStatus, clientAddressOf, nodeStatus } from './cluster.ts';
import { remedyOf, whyOf } from './status-lines.ts';

export type Verdict = 'safe' | 'degraded' | 'unavailable';
const WORSE: readonly Verdict[] = ['safe', 'degraded', 'unavailable'];

export interface NodeView {
  node: string;
  clientAddress: string | null;
  /** Null: the coordinator has not heard of it for a minute. */
  seenAgoMs: number | null;
  freeBytes: number | null;
  pid: number | null;
  nbd: string | null;
  /** Why it does not answer; null: it does. */
  error: string | null;
  unopened: NodeStatus['unopened'];
}

export interface MemberView {
  node: string;
  role: 'primary' | 'backup' | 'none';
  state: 'in-sync' | 'syncing' | 'stale' | 'damaged' | 'poisoned' | 'absent' | 'unreachable';
  /** Of a key-value volume, in RecoverKV's words: answers GETs; takes PUTs and answers none; neither. Null: a disk. */
  mode: 'ALIVE' | 'ZOMBIE' | 'DEAD' | null;
  /** Of a key-value volume. */
  keys: number | null;
  last: string | null;
  /** What the primary knows to be different there. */
  dirtyBytes: number | null;
  sync: SyncStatus | null;
  waits: string | null;
  /** Of one that is poisoned or damaged: what happened. */
  reason: string | null;
  /** Of one that is poisoned or damaged: the command that replaces it. */
  remedy: string | null;
  /** Null: it does not answer, or reads nothing on its own. */
  scrub: ReplicaStatus['scrub'];
  /** Since its process started; null: it does not answer. */
  repairedBlocks: number | null;
}

export interface VolumeView {
  volume: string;
  volumeId: string;
  sizeBytes: number;
  epoch: number;
  primary: string;
  verdict: Verdict;
  why: string;
  members: MemberView[];
}

export interface ClusterView {
  verdict: Verdict;
  /** Is my data safe? */
  answer: string;
  nodes: NodeView[];
  volumes: VolumeView[];
}

interface Asked {
  view: NodeView;
  status: NodeStatus | null;
}

async function ask(
  node: string,
  address: string | null,
  seen: SeenNode | undefined,
  timeoutMs: number,
): Promise<Asked> {
  const view: NodeView = {
    node,
    clientAddress: address,
    seenAgoMs: seen?.seenAgoMs ?? null,
    freeBytes: seen?.freeBytes ?? null,
    pid: null,
    nbd: null,
    error: null,
    unopened: [],
  };
  try {
    if (address === null) throw new Error('its address is not known');
    const status = await nodeStatus(address, timeoutMs);
    if (status.node !== node) throw new Error(`${status.node} answers there`);
    const { pid, nbd, unopened } = status;
    return { view: { ...view, pid, nbd, unopened }, status };
  } catch (error) {
    return { view: { ...view, error: asHoldfastError(error).message }, status: null };
  }
}

/**
 * @param timeoutMs of each node
 * @throws HoldfastError when the coordinator does not answer
 */
export async function lookAt(coordinator: Coordinator, timeoutMs = 2000): Promise<ClusterView> {
  const [registers, seen] = await Promise.all([coordinator.list(), coordinator.nodes()]);
  const names = new Set([...seen, ...registers.flatMap(({ members }) => members)].map(({ node }) => node));
  const asked = await Promise.all(
    [...names].sort().map((node) => {
      const register = registers.find(({ members }) => members.some((member) => member.node === node)) ?? null;
      const known = seen.find((one) => one.node === node);
      return ask(node, clientAddressOf(node, seen, register), known, timeoutMs);
    }),
  );
  const volumes = registers.map((register) => volumeView(register, asked));
  const verdict = volumes.reduce<Verdict>(
    (worst, one) => (WORSE.indexOf(one.verdict) > WORSE.indexOf(worst) ? one.verdict : worst),
    'safe',
  );
  return { verdict, answer: answerOf(verdict, volumes), nodes: asked.map(({ view }) => view), volumes };
}

function answerOf(verdict: Verdict, volumes: VolumeView[]): string {
  if (volumes.length === 0) return 'SAFE: there are no volumes';
  const bad = volumes.filter((one) => one.verdict === verdict);
  const named = bad.map(({ volume, why }) => `${volume}: ${why}`).join('; ');
  if (verdict === 'safe') return `SAFE: all replicas of ${volumes.length} volume(s) are in sync`;
  return verdict === 'degraded' ? `DEGRADED: ${named}` : `UNAVAILABLE: ${named}`;
}

function volumeView(register: Register, asked: readonly Asked[]): VolumeView {
  const { volume, volumeId, sizeBytes, epoch, primary, inSync } = register;
  const replicaOn = (node: string): ReplicaStatus | null | undefined => {
    const status = asked.find(({ view }) => view.node === node)?.status ?? null;
    return status === null ? undefined : (status.replicas.find((one) => one.volumeId === volumeId) ?? null);
  };
  const serving = replicaOn(primary)?.serving === true;
  const isKv = asked.some(({ status }) => status?.replicas.some((one) => one.volumeId === volumeId && one.kv !== null));
  const peers = serving ? replicaOn(primary)!.peers : [];
  const members = register.members.map(({ node, diskId }): MemberView => {
    const replica = replicaOn(node);
    const peer = peers.find((one) => one.node === node);
    const known = {
      node,
      dirtyBytes: peer?.dirtyBytes ?? null,
      sync: peer?.sync ?? null,
      keys: replica?.kv?.keys ?? null,
      reason: null,
      remedy: null,
      scrub: replica?.scrub ?? null,
      repairedBlocks: replica?.repairedBlocks ?? null,
    };
    const dead = isKv ? ('DEAD' as const) : null;
    if (replica === undefined)
      return { ...known, role: 'none', state: 'unreachable', mode: dead, last: null, waits: null };
    if (replica === null || replica.diskId !== diskId) {
      const waits = replica === null ? 'the node does not host it' : `it is another disk, ${replica.diskId}`;
      return { ...known, role: 'none', state: 'absent', mode: dead, last: null, waits };
    }
    const role = node === primary && serving ? 'primary' : replica.role === 'following' ? 'backup' : 'none';
    const state = stateOf(replica, inSync.includes(node), known.sync !== null);
    const reason = replica.failed ?? (replica.healthReason || null);
    return { ...known, role, state, mode: modeOf(replica, state), last: replica.last, waits: replica.waits, reason };
  });
  for (const member of members) member.remedy = remedyOf(volume, member, members);
  const behind = members.filter(({ state }) => state !== 'in-sync');
  const why = !serving
    ? primary === ''
      ? 'nobody is primary'
      : `the primary, ${primary}, does not serve it`
    : behind.length > 0
      ? behind.map(whyOf).join(', ')
      : members.length === 1
        ? 'there is one copy only'
        : 'all replicas are in sync';
  const verdict = !serving ? 'unavailable' : behind.length > 0 || members.length === 1 ? 'degraded' : 'safe';
  return { volume, volumeId, sizeBytes, epoch, primary, verdict, why, members };
}

function modeOf({ kv }: ReplicaStatus, state: MemberView['state']): MemberView['mode'] {
  if (kv === null) return null;
  if (state === 'in-sync') return kv.answers ? 'ALIVE' : 'ZOMBIE';
  return state === 'syncing' ? 'ZOMBIE' : 'DEAD';
}

function stateOf(replica: ReplicaStatus, inSync: boolean, isSyncing: boolean): MemberView['state'] {
  if (replica.failed !== null) return 'poisoned';
  if (replica.health !== 'good') return replica.health === 'poisoned' ? 'poisoned' : 'damaged';
  if (inSync) return 'in-sync';
  return isSyncing ? 'syncing' : 'stale';
}
