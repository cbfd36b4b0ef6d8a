/**
 * Replicas of this node that get room for more blocks: prepared while they serve, closed for the moment in which it comes
 * to count. What each does is src/storage/growth.ts; which of them, in which order, is the affair of whoever asks
 * (`holdfast volume grow`).
 *
 * Guarantees: repeated requests have no further effect; what is prepared and not wanted leaves nothing behind; a replica
 * whose growth fails is opened again as it was; growths under way are bounded, and end before their volume is closed.
 */
import { HoldfastError, asHoldfastError } from '../base/errors.ts';
import { abandonGrowth, checkGrowth, prepareGrowth, switchGrowth } from '../storage/growth.ts';
import { type Fields, choiceField, idField, sizeField } from './admin-fields.ts';
import type { ClusterNode } from './cluster-node.ts';
import type { HostedVolume } from './hosted-volume.ts';

const MAX_GROWTHS = 4;
const OPERATION = 'grow';

interface Growth {
  toBytes: number;
  phase: 'preparing' | 'prepared' | 'switching';
  doneBytes: number;
  totalBytes: number;
  error: HoldfastError | null;
  abort: AbortController;
  over: Promise<void>;
}

export class Growths {
  private readonly node: ClusterNode;
  private readonly growths: Map<string, Growth> = new Map();

  constructor(node: ClusterNode) {
    this.node = node;
  }

  /**
   * @param busy volumes that something else is done with, and those that this does
   * @throws HoldfastError
   */
  async perform(fields: Fields, busy: Set<string>): Promise<object> {
    const volumeId = idField(fields, 'volumeId');
    const toBytes = sizeField(fields, 'sizeBytes');
    const action = choiceField(fields, 'action', ['prepare', 'switch', 'abandon']);
    let growth = this.growths.get(volumeId) ?? null;
    const error = growth?.error ?? null;
    if (error !== null) {
      this.growths.delete(volumeId);
      if (action !== 'abandon') throw error;
    }
    // Whoever wanted that has not gone on with it.
    if (growth?.phase === 'prepared' && growth.toBytes !== toBytes && action === 'prepare') {
      await this.end(volumeId);
      growth = this.growths.get(volumeId) ?? null;
    }
    if (action === 'abandon') {
      await this.end(volumeId);
      return { state: 'abandoned' };
    }
    if (growth?.phase === 'switching') return told(growth);
    const volume = this.hosted(volumeId);
    if (growth !== null && growth.toBytes !== toBytes) {
      const detail = `it is being prepared for ${growth.toBytes} bytes`;
      const remedy = 'wait for the other command to end, or give the command with that size';
      throw new HoldfastError('BUSY', { operation: OPERATION, volume: volume.name, detail, remedy });
    }
    if (growth === null) {
      if (!checkGrowth(volume.store, toBytes)) return { state: 'grown' };
      if (action === 'prepare') return told(this.prepare(volume, toBytes));
      const remedy = 'give the command again: it prepares what is not';
      throw new HoldfastError('INVALID_ARGUMENT', {
        operation: OPERATION,
        volume: volume.name,
        detail: 'it is not prepared',
        remedy,
      });
    }
    if (action === 'switch' && growth.phase === 'prepared') this.switch(volume, growth, busy);
    return told(growth);
  }

  private hosted(volumeId: string): HostedVolume {
    const volume = this.node.hosted.get(volumeId);
    if (volume !== undefined) return volume;
    const detail = `${this.node.node} hosts no ${volumeId}`;
    throw new HoldfastError('NO_SUCH_VOLUME', { operation: OPERATION, detail });
  }

  private prepare(volume: HostedVolume, toBytes: number): Growth {
    if (this.growths.size >= MAX_GROWTHS) {
      const detail = `${MAX_GROWTHS} volumes are growing here already`;
      throw new HoldfastError('BUSY', { operation: OPERATION, volume: volume.name, detail });
    }
    const abort = new AbortController();
    const growth: Growth = {
      toBytes,
      phase: 'preparing',
      doneBytes: 0,
      totalBytes: 0,
      error: null,
      abort,
      over: Promise.resolve(),
    };
    this.growths.set(volume.volumeId, growth);
    this.node.log('info', 'a replica is being enlarged', { volume: volume.name, toBytes });
    growth.over = prepareGrowth(volume, this.node.pool, {
      toBytes,
      signal: abort.signal,
      progress: (doneBytes, totalBytes) => Object.assign(growth, { doneBytes, totalBytes }),
    }).then(
      () => void (growth.phase = 'prepared'),
      (error: unknown) => this.failed(volume, growth, error),
    );
    return growth;
  }

  private switch(volume: HostedVolume, growth: Growth, busy: Set<string>): void {
    const { volumeId, name, dir } = volume;
    if (busy.has(volumeId)) {
      throw new HoldfastError('BUSY', { operation: OPERATION, volume: name, detail: 'something else is done with it' });
    }
    busy.add(volumeId);
    growth.phase = 'switching';
    const { toBytes } = growth;
    growth.over = this.node
      .renew(volume, () => switchGrowth(dir, this.node.pool, { toBytes }))
      .then(
        () => {
          this.growths.delete(volumeId);
          this.node.log('info', 'a replica is enlarged', { volume: name, toBytes });
        },
        (error: unknown) => this.failed(volume, growth, error),
      )
      .finally(() => busy.delete(volumeId));
  }

  private failed(volume: HostedVolume, growth: Growth, error: unknown): void {
    growth.error = asHoldfastError(error, { operation: OPERATION, volume: volume.name });
    this.node.log('warn', 'a replica is not enlarged', { volume: volume.name, reason: growth.error.message });
  }

  /** What is prepared for a volume, or is being prepared, is given up. One that is being switched is not touched. */
  async end(volumeId: string): Promise<void> {
    const growth = this.growths.get(volumeId);
    if (growth === undefined || growth.phase === 'switching') return;
    growth.abort.abort(new HoldfastError('ABORTED', { operation: OPERATION }));
    await growth.over;
    this.growths.delete(volumeId);
    const volume = this.node.hosted.get(volumeId);
    if (volume !== undefined) await abandonGrowth(volume);
  }

  /** Of all volumes. */
  async close(): Promise<void> {
    await Promise.all([...this.growths.keys()].map((volumeId) => this.end(volumeId).catch(() => {})));
  }
}

function told({ phase: state, doneBytes, totalBytes }: Growth): object {
  return { state, doneBytes, totalBytes };
}
