/**
 * What the replicas of a group say to each other, as values; the bytes are the protocol's (src/protocol/peer.ts). Pure.
 *
 * One ordered stream per pair, opened by the primary of an epoch. Everything that it says travels on it in order:
 * records, commit marks, copies.
 */
import type { Position } from '../base/position.ts';
import type { ReplicaState } from '../storage/superblock.ts';

/** Runs of blocks: first, count, first, count ... */
export type Runs = readonly number[];

/** From the primary. */
export type Downstream =
  /** I am primary of that epoch by that version of the register. `role`: what the receiver is to be. */
  | { type: 'JOIN'; epoch: number; registerId: string; registerVersion: number; role: 'member' | 'target' }
  /** The bytes of a record as they lie in the journal: header and payload. `crc`: of them, if the sender knows it. */
  | { type: 'RECORD'; bytes: Uint8Array; crc?: number }
  /** Heartbeat n. What is committed; the receiver's promise begins when it handles it. */
  | { type: 'BEAT'; n: number; committed: Position }
  /** Content of blocks; without bytes they read as zeros. Of id 0: it was asked for by MEND. */
  | { type: 'COPY'; id: number; firstBlock: number; blockCount: number; payload: Uint8Array | null }
  /** The next record is the one behind this position, and none is left out from then on. */
  | { type: 'BARRIER'; position: Position }
  /** What the sender knows of a third member, or of a mark. */
  | { type: 'HANDOVER'; of: 'absent' | 'mark'; name: string; position: Position; runs: Runs }
  /** Answer to ASK n: the receiver may answer reads for so long from when it asked (0: not now). */
  | { type: 'GRANT'; n: number; ms: number; committed: Position }
  /** What do you have there, when all that came before this is applied? With the bytes, if `content`. */
  | { type: 'FETCH'; n: number; firstBlock: number; blockCount: number; content: boolean }
  /** The primary of that epoch serves no more, on purpose: its promises are given back, somebody else may begin. */
  | { type: 'RESIGNED'; epoch: number }
  /** Everything is there: be in sync, durably. */
  | { type: 'FINISH'; committed: Position; sessions: readonly Uint8Array[] };

/** To the primary. */
export type Upstream =
  /** Answer to JOIN. */
  | {
      type: 'STATUS';
      epoch: number;
      diskId: string;
      state: ReplicaState;
      /** It has what the group committed up to here, but for what is suspect. */
      base: Position;
      last: Position;
      suspects: Runs;
    }
  /** The receiver has promised itself to a later epoch, or cannot do what it was asked. */
  | { type: 'REFUSED'; epoch: number; reason: string }
  /** Durable up to here. */
  | { type: 'ACK'; position: Position }
  /** Heartbeat n was handled: no promotion will be sought, and no other primary accepted, for `promiseMs` from then. */
  | { type: 'ECHO'; n: number; promiseMs: number }
  /** May I answer reads myself, and what is committed? */
  | { type: 'ASK'; n: number }
  | { type: 'COPY_ACK'; id: number }
  /** Answer to FETCH n: the CRC of each block, unseeded, and the bytes. No CRCs: it cannot be read. */
  | { type: 'FETCHED'; n: number; crcs: readonly number[]; payload: Uint8Array | null }
  /** The receiver's copy of that block does not match its checksum: send it. */
  | { type: 'MEND'; block: number }
  | { type: 'FINISHED' };

export type PeerMessage = Downstream | Upstream;

/** One end of a stream. A message that was sent is delivered once, in order, or the stream ends. */
export interface PeerLink {
  /** Node at the other end. */
  readonly node: string;
  /** @param sent called once the bytes of the message are not needed any more, also if the stream ended */
  send(message: PeerMessage, sent?: () => void): void;
  /** Ends it; nothing more is delivered, `closed` is not called. */
  close(): void;
}
