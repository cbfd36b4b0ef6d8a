/** What a connection needs of the server that it belongs to, and the bounds that it keeps. */
import type { ServedVolume } from '../replication/served-volume.ts';
import type { Arena } from '../storage/arena.ts';
import type { Connection } from './connection.ts';

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
  volume(name: string): ServedVolume;
  volumes(): ServedVolume[];
  log(level: 'info' | 'warn', message: string, fields: object): void;
  closed(connection: Connection): void;
}
