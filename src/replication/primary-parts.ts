/** What a tenure needs of the replica that it belongs to. */
import type { Arena } from '../storage/arena.ts';
import type { BlockStore } from '../storage/block-store.ts';
import type { CrashPoint } from './crash-points.ts';
import type { GroupRegister } from './group-register.ts';
import type { PrimaryVolume } from './primary-volume.ts';
import type { Rules, Times } from './rules.ts';
import type { SyncRates } from './sync-pace.ts';

export interface PrimaryParts {
  node: string;
  store: BlockStore;
  arena: Arena;
  register: GroupRegister;
  times: Times;
  rules: Rules;
  syncRates: SyncRates;
  now: () => number;
  /** Opens a stream to a node; it comes, or not, through `connected`. */
  connect(node: string): void;
  compareAndSet(expectedVersion: number, next: GroupRegister): void;
  /** The epoch is open: clients may be served by this volume. */
  serving(volume: PrimaryVolume): void;
  /** A later epoch is known, or the store has failed: the tenure is over. */
  over(reason: string): void;
  log(message: string, fields?: object): void;
  /** A step that tests end the process at. */
  reached: (point: CrashPoint) => void;
}
