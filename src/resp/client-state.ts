/** What a connection remembers from one command to the next, and what it can ask of its surroundings. */
import type { Key } from '../kv/operations.ts';
import type { Args, Command, RespVolume } from './command.ts';
import type { RespLimits } from './limits.ts';
import type { RespProtocol } from './reply-writer.ts';
import type { ScanCursors } from './scan-cursors.ts';

/** What INFO, HELLO and CONFIG GET tell about the server. */
export interface ServerInfo {
  /** Ours. */
  version: string;
  /** Of Redis, whose commands these are: clients decide by it what they may send. */
  redisVersion: string;
  /** 40 hex digits, of this run of the process. */
  runId: string;
  processId: number;
  tcpPort: number;
  startedAtMs: number;
}

/** What all connections of a node share. */
export interface RespNode {
  /** The volume of this moment. @throws HoldfastError none is served here, now */
  volume: () => RespVolume;
  /** Milliseconds of the wall clock. */
  now: () => number;
  /** Null: everybody may do everything. */
  password: string | null;
  serverInfo: ServerInfo;
  scanCursors: ScanCursors;
  limits: RespLimits;
  /** Replicas in sync besides this node, for WAIT. */
  replicas?: () => number;
  /** For CLIENT LIST and INFO. */
  clients?: () => Iterable<ClientState>;
}

export interface ClientState {
  readonly node: RespNode;
  readonly id: number;
  /** `host:port` of the client, and of the server. */
  readonly peer: string;
  readonly local: string;
  readonly connectedAtMs: number;
  lastCommandAtMs: number;
  lastCommand: string;
  protocol: RespProtocol;
  authenticated: boolean;
  name: string;
  library: string;
  libraryVersion: string;
  /** The commands of a MULTI; null: there is none. */
  queued: Queued[] | null;
  queuedBytes: number;
  /** EXEC is to refuse: a command could not be queued, or what was watched is not known. */
  broken: boolean;
  /** Versions at WATCH; 0: the key was absent. */
  watched: Map<Key, number>;
  /** The connection ends when everything is answered. */
  leaving: boolean;
}

export interface Queued {
  command: Command;
  args: Args;
}

export function forgetTransaction(client: ClientState): void {
  client.queued = null;
  client.queuedBytes = 0;
  client.broken = false;
  client.watched = new Map();
}
