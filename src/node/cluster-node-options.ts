/** What a node of a cluster is started with. */
import type { HoldfastError } from '../base/errors.ts';
import type { Coordinator } from '../coordination/register.ts';
import type { KvLimits } from '../kv/operations.ts';
import type { Times } from '../replication/rules.ts';
import type { SyncRates } from '../replication/sync-pace.ts';
import type { Faults } from './faults.ts';
import type { NbdTls } from './nbd-tls.ts';
import type { Forwarded } from './node-kv.ts';
import type { PeerLimits } from './peer-server.ts';
import type { PortTls } from './port-tls.ts';
import type { Log } from './server.ts';
import type { Tokens } from './tokens.ts';

export interface ClusterNodeOptions {
  name: string;
  dir: string;
  listen: string;
  peerListen: string;
  nbd?: string | undefined;
  nbdTls?: NbdTls | null | undefined;
  /** Of the ports for clients and for nodes. */
  tls?: PortTls | null | undefined;
  clientCert?: 'require' | 'allow' | undefined;
  tokens?: Tokens | null | undefined;
  /** A port for clients of Redis. */
  kv?: KvPortOptions | undefined;
  /** Host to tell others instead of the one that is listened on. */
  advertise?: string | undefined;
  /** With a short deadline, for the registers. */
  quick: Coordinator;
  patient: Coordinator;
  peerLimits?: Partial<PeerLimits>;
  /** Of heartbeats, promises and suspicion; those that are not given as by default. */
  times?: Partial<Times>;
  syncRates?: SyncRates;
  /** Default: `consistent`. */
  whenIsolated?: 'consistent' | 'available';
  /** Of keys and values. Default: KV_LIMITS, which is also the most. */
  kvLimits?: KvLimits | undefined;
  /** What a pass of the scrub may take; 0: none. Default: a week. */
  scrubMs?: number | undefined;
  /** Takes faults on request; default: none. */
  faults?: Faults | undefined;
  log: Log;
  progress?: (bytes: number) => void;
  /** A worker is lost: the process is to end. */
  onFatal: (error: HoldfastError) => void;
}

export interface KvPortOptions {
  listen: string;
  /** Name of the volume behind it; empty: the only key-value volume here. */
  volume: string;
  password: string | null;
  /** It speaks TLS, with the certificates of the node. */
  secure: boolean;
  /** Asks the other nodes. */
  forwarded: Forwarded;
}

/** A folder that is no replica here, and why. */
export interface Unopened {
  dir: string;
  reason: string;
}
