/**
 * Holds back what clients would change in a volume, for a moment, so that the last pass of a backup finds it standing
 * still. Requests wait as they do when the journal has no room; nobody sees an error.
 *
 * Guarantees: a hold ends by itself after at most MAX_HOLD_MS; only who made it ends it sooner; one at a time for each
 * volume; it ends with the node's time as primary. What is read is not held back, nor is what the group itself logs.
 */
import { randomBytes } from 'node:crypto';
import { HoldfastError } from '../base/errors.ts';
import type { PrimaryVolume } from '../replication/primary-volume.ts';
import { type Fields, countField, textField } from './admin-fields.ts';

/** Less than any client takes for a failure. */
export const MAX_HOLD_MS = 10_000;

/** A volume of this node. */
export interface HoldableVolume {
  readonly name: string;
  /** Null: this node is not its primary. */
  readonly volume: PrimaryVolume | null;
  /** Null: it is a disk. */
  readonly kv: object | null;
}

interface Hold {
  token: string;
  timer: NodeJS.Timeout;
}

export class WriteHolds {
  private readonly holds: Map<PrimaryVolume, Hold> = new Map();

  /** @throws HoldfastError NOT_PRIMARY, BUSY, UNSUPPORTED, INVALID_ARGUMENT */
  perform(op: 'hold-writes' | 'let-writes', fields: Fields, { name, volume, kv }: HoldableVolume): object {
    const where = { operation: 'hold writes', volume: name };
    if (op === 'let-writes') {
      const held = volume !== null && this.holds.get(volume)?.token === textField(fields, 'token');
      if (held) this.release(volume);
      return { wasHeld: held };
    }
    if (volume === null) throw new HoldfastError('NOT_PRIMARY', where);
    if (kv !== null) throw new HoldfastError('UNSUPPORTED', { ...where, detail: 'it is a key-value volume' });
    const ms = countField(fields, 'ms', 1, MAX_HOLD_MS);
    if (this.holds.has(volume)) {
      throw new HoldfastError('BUSY', { ...where, detail: 'another backup holds them back', remedy: 'try again' });
    }
    const token = randomBytes(8).toString('hex');
    this.holds.set(volume, { token, timer: setTimeout(() => this.release(volume), ms).unref() });
    volume.roomQueue.hold();
    return { token, ms };
  }

  private release(volume: PrimaryVolume): void {
    clearTimeout(this.holds.get(volume)?.timer);
    this.holds.delete(volume);
    volume.roomQueue.release();
  }
}

/** What a server without a coordinator can be asked about itself: holds, and nothing else. */
export function loneAdmin(volume: () => HoldableVolume): (request: unknown) => Promise<object> {
  const holds = new WriteHolds();
  return async (request) => {
    const fields = request as Fields;
    const op = fields['op'];
    if (op === 'hold-writes' || op === 'let-writes') return holds.perform(op, fields, volume());
    throw new HoldfastError('UNSUPPORTED', { operation: 'ADMIN', detail: 'this server is no node of a cluster' });
  };
}
