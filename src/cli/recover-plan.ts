/**
 * Which register a volume gets when the coordinator has lost it, by what the nodes say of their disks. Pure.
 *
 * Guarantees: a replica counts as in sync only if its disk is whole, its epoch is the highest that any disk has seen, and
 * its log reaches as far as any of those: whatever was acknowledged, was acknowledged by it. What cannot be known from
 * the disks that were asked is a risk, and named.
 */
import type { ReplicaStatus } from '../node/hosted-volume.ts';

export interface Found {
  node: string;
  /** host:port for the other nodes, and for clients. */
  address: string;
  clientAddress: string;
  replica: ReplicaStatus;
}

export interface RecoveryPlan {
  volumeId: string;
  volume: string;
  sizeBytes: number;
  found: Found[];
  /** Nodes; empty: there is no whole copy, nothing can be done here. */
  inSync: string[];
  /** Above all that were seen. */
  epoch: number;
  /** Why acknowledged writes may be lost. */
  risks: string[];
}

interface Log {
  epoch: number;
  seq: number;
}

function logOf({ last }: ReplicaStatus): Log {
  const [epoch, seq] = last.split('.').map(Number) as [number, number];
  return { epoch, seq };
}

const later = (a: Log, b: Log): number => a.epoch - b.epoch || a.seq - b.seq;

/** @param found replicas of one volume, at least one, each on another node */
export function planRecovery(found: readonly Found[]): RecoveryPlan {
  const { volumeId, volume } = found[0]!.replica;
  // One that was away while the volume grew knows an older size.
  const sizeBytes = Math.max(...found.map(({ replica }) => replica.sizeBytes));
  const all = found.toSorted((a, b) => (a.node < b.node ? -1 : 1));
  const highest = Math.max(...all.map(({ replica }) => replica.epoch));
  const whole = all.filter(
    ({ replica: { state, health, failed } }) => state === 'in-sync' && health === 'good' && failed === null,
  );
  const ranked = whole.toSorted(
    (a, b) => b.replica.epoch - a.replica.epoch || later(logOf(b.replica), logOf(a.replica)),
  );
  const best = ranked[0]?.replica;
  const equal = (one: ReplicaStatus): boolean => one.epoch === best!.epoch && later(logOf(one), logOf(best!)) === 0;
  const inSync = whole.filter(({ replica }) => equal(replica)).map(({ node }) => node);
  const risks: string[] = [];
  if (best === undefined) risks.push('none of the replicas is whole');
  else if (best.epoch < highest) {
    risks.push(
      `epoch ${highest} has begun, and no whole replica of it is here: what was acknowledged since epoch ${best.epoch} is lost`,
    );
  }
  if (all.length === 1) {
    risks.push(`of the nodes that were asked only ${all[0]!.node} has a replica: what another one has besides is lost`);
  }
  const known = new Set(all.flatMap(({ replica }) => replica.members));
  const missing = [...known].filter((node) => !all.some((one) => one.node === node)).sort();
  for (const node of missing) {
    risks.push(
      `${node} was a member and has not answered: what only it has is lost, and its replica becomes a stranger`,
    );
  }
  return { volumeId, volume, sizeBytes, found: all, inSync, epoch: highest + 1, risks };
}

/** One plan for each volume that somebody has a replica of. */
export function planAll(found: readonly Found[]): RecoveryPlan[] {
  const byVolume = new Map<string, Found[]>();
  for (const one of found) {
    const { volumeId } = one.replica;
    byVolume.set(volumeId, [...(byVolume.get(volumeId) ?? []), one]);
  }
  return [...byVolume.values()].map(planRecovery).sort((a, b) => (a.volume < b.volume ? -1 : 1));
}
