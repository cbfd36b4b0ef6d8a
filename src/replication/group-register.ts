/** The register of a volume, as far as the replication core looks at it: who is primary, who is in sync. Pure. */

export interface GroupMember {
  node: string;
  /** 32 hex digits. A disk that was formatted anew is another member. */
  diskId: string;
}

export interface GroupRegister {
  registerId: string;
  /** Rises with each change. */
  version: number;
  epoch: number;
  primary: string;
  /** Nodes whose copies are complete: each of them may become primary. */
  inSync: string[];
  members: GroupMember[];
  /** Of the volume. It only rises, and only to what the disk of each member has room for. Absent: as the store has it. */
  sizeBytes?: number;
}

/** What a compare-and-set came to. `unknown`: no answer came; it may still take effect. */
export type CasOutcome = { outcome: 'done' | 'refused'; register: GroupRegister } | { outcome: 'unknown' };

/** Name of a member in bitmaps: another disk in the same node is another peer. */
export function peerIdOf(register: GroupRegister, node: string): string | null {
  const member = register.members.find((one) => one.node === node);
  return member === undefined ? null : `${node}/${member.diskId}`;
}

/** Members that are not in sync, as peers. */
export function absentOf(register: GroupRegister): string[] {
  return register.members
    .filter(({ node }) => !register.inSync.includes(node))
    .map(({ node, diskId }) => `${node}/${diskId}`);
}
