/** What a replica needs of the world: a clock, streams, the register, clients. The node and the simulator hand it in. */
import type { Arena } from '../storage/arena.ts';
import type { BlockStore } from '../storage/block-store.ts';
import type { BackupVolume } from './backup-volume.ts';
import type { CrashPoint } from './crash-points.ts';
import type { GroupRegister } from './group-register.ts';
import type { PrimaryVolume } from './primary-volume.ts';
import type { Rules, Times } from './rules.ts';
import type { SyncRates } from './sync-pace.ts';

export interface ReplicaPorts {
  /** Milliseconds of a clock that never goes back. */
  now(): number;
  /** Opens a stream to a node; the outcome comes through `connected` or `closed(node, null)`. */
  connect(node: string): void;
  /** Reads the register; the outcome comes through `learn`. No answer: nothing comes. */
  readRegister(): void;
  /** The outcome comes through `casSettled` with the same token. */
  compareAndSet(token: number, expectedVersion: number, next: GroupRegister): void;
  /** Clients may use this volume from now on; null: no longer, their connections are to be ended. */
  serve(volume: PrimaryVolume | null): void;
  /** Clients may read from this backup; null: no longer. */
  serveReads?(volume: BackupVolume | null): void;
  /** A step that tests end the process at. */
  reached?(point: CrashPoint): void;
  /** In [0, 1). */
  random(): number;
  log(message: string, fields?: object): void;
}

export interface ReplicaOptions {
  node: string;
  store: BlockStore;
  arena: Arena;
  /**
   * For what comes from a primary; default: the same. One of its own keeps two nodes that are each other's primary from
   * waiting for each other's memory.
   */
  peerArena?: Arena;
  ports: ReplicaPorts;
  times?: Times;
  syncRates?: SyncRates;
  rules?: Rules;
}
