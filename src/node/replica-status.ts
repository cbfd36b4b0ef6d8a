/** What a node tells of each of its replicas: the answer to `status`, and where metrics and the dashboard take theirs from. */
import type { ScrubProgress } from '../replication/scrub.ts';
import type { VolumeKind } from '../storage/superblock.ts';
import type { KvStatus } from './hosted-kv.ts';

/** How far a reintegration is, on the primary. */
export interface SyncStatus {
  phase: string;
  pass: number;
  copiedBytes: number;
  leftBytes: number;
  bytesPerSecond: number;
}

export interface ReplicaStatus {
  volume: string;
  volumeId: string;
  diskId: string;
  dir: string;
  kind: VolumeKind;
  /** Of the volume, as far as it is known here. */
  sizeBytes: number;
  /** What its disk has room for: more than the size while the volume grows. */
  capacityBytes: number;
  role: string;
  serving: boolean;
  state: string;
  health: string;
  healthReason: string;
  failed: string | null;
  epoch: number;
  last: string;
  committed: string;
  outOfSpace: boolean;
  /** Reads of clients that it answered as a backup. */
  backupReads: number;
  /** What came as copies, since it follows its present primary. */
  copiedBytes: number;
  /** Of the register that its disk belongs to; zeros: none yet. */
  registerId: string;
  registerVersion: number | null;
  /** Nodes that it knows to be members: by the register, or because it keeps what they lack. */
  members: string[];
  /** Passes over all blocks that look for rotten ones; null: there are none. */
  scrub: ScrubProgress | null;
  /** Taken from another replica, because they had rotted here. */
  repairedBlocks: number;
  /** Why it does not get on; null: it does. */
  waits: string | null;
  /** Of a key-value volume; null: it is a disk. */
  kv: KvStatus | null;
  /** On the primary: the other members. */
  peers: Array<{ node: string; phase: string; acked: string; dirtyBytes: number | null; sync: SyncStatus | null }>;
}
