/** The comparison of a volume's replicas on its primary: one at a time, and what the last one has found. */
import { HoldfastError } from '../base/errors.ts';
import { Comparison, type ComparisonProgress } from '../replication/comparison.ts';
import type { Primary } from '../replication/primary.ts';
import type { Arena } from '../storage/arena.ts';
import type { BlockStore } from '../storage/block-store.ts';

export class Comparing {
  private readonly store: BlockStore;
  private readonly arena: Arena;
  private readonly node: string;
  private last: Comparison | null = null;

  constructor(store: BlockStore, arena: Arena, node: string) {
    this.store = store;
    this.arena = arena;
    this.node = node;
  }

  /** @throws HoldfastError NOT_PRIMARY, BUSY */
  begin(primary: Primary | null, fromBlock: number, bytesPerSecond: number): ComparisonProgress {
    const { store, arena } = this;
    const where = { operation: 'verify', volume: store.name, peer: this.node };
    if (primary?.serving !== true) throw new HoldfastError('NOT_PRIMARY', where);
    if (this.last?.progress.state === 'running')
      throw new HoldfastError('BUSY', { ...where, detail: 'it is being compared already' });
    const { volume, exchange } = primary;
    this.last = new Comparison({
      store,
      arena,
      volume,
      exchange,
      fromBlock,
      bytesPerSecond,
      now: () => performance.now(),
      later: (run, ms) => void setTimeout(run, ms),
    });
    return this.last.progress;
  }

  /** Null: there was none since this node has the volume open. */
  get progress(): ComparisonProgress | null {
    return this.last?.progress ?? null;
  }

  end(reason: string): void {
    this.last?.end(reason);
  }
}
