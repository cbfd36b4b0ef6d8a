/** The waist between the volume that a primary serves and the group that it belongs to. */
import type { Position } from '../base/position.ts';
import type { CrashPoint } from './crash-points.ts';
import type { FetchBlock } from './mender.ts';
import type { Rules } from './rules.ts';
import type { Done } from './served-volume.ts';
import type { LogRecord } from './store.ts';

/** The other replicas, as the primary's volume sees them. */
export interface CommitGroup {
  /** Appended here: it goes to the others now. Whoever sends it adds to `record.users` and calls `letGo`. */
  appended(record: LogRecord): void;
  /** Durable here; the group calls `committed` when it is so everywhere. */
  durable(position: Position): void;
  /** Calls back once the primary has the right to answer reads; with an error if it has lost it for good. */
  rightToRead(done: Done): void;
  /** Whether it has it at this moment. */
  mayRead(): boolean;
  /** Another replica's copy of a block that is damaged here. Without it there is none. */
  readonly fetchBlock?: FetchBlock | undefined;
  reached(point: CrashPoint): void;
  readonly rules: Pick<Rules, 'readsWait' | 'sessionsOnce'>;
}
