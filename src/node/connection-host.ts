/** What a connection needs of the server that it belongs to, and the bounds that it keeps. */
import type { Access } from '../protocol/handshake.ts';
import type { VolumeLocation } from '../protocol/location.ts';
import type { ServedVolume } from '../replication/served-volume.ts';
import type { Arena } from '../storage/arena.ts';
import type { Connection } from './connection.ts';
import type { Watchman } from './door.ts';
import type { Verdicts } from './verdicts.ts';

/** Bounds on a connection. All of them are settings of the server. */
export interface ConnectionLimits {
  maxInFlightBytes: number;
  maxInFlightRequests: number;
  /** HELLO has to come within it. */
  handshakeMs: number;
  /** A frame that has begun has to go on, and a reply has to be taken, within it. */
  stallMs: number;
}

export interface ConnectionHost {
  readonly arena: Arena;
  readonly limits: ConnectionLimits;
  readonly serverName: string;
  /** Of this node, as `locate` names it. */
  readonly nodeName: string;
  /**
   * `primary`: the volume, if this node is its primary; `any`: also a backup's, which refuses mutations.
   * @throws HoldfastError NO_SUCH_VOLUME, NOT_PRIMARY
   */
  volume(name: string, access?: Access): ServedVolume;
  /** Whatever this node's role is. This node's own address may be left empty. @throws HoldfastError NO_SUCH_VOLUME */
  locate(name: string): VolumeLocation;
  volumes(): ServedVolume[];
  /** A node of a cluster takes requests that are about the node. Rejects with a HoldfastError. */
  admin?: ((request: unknown) => Promise<object>) | undefined;
  /** False: who is let in only reads. */
  readonly mayWrite: boolean;
  /** Where tokens are wanted. */
  readonly watchman?: Watchman | null;
  /** Of those who are let in by nothing but HELLO. */
  readonly verdicts?: Verdicts;
  log(level: 'info' | 'warn', message: string, fields: object): void;
  closed(connection: Connection): void;
}
