/**
 * A way to the coordinator that can be cut: calls hang until their deadline. For `holdfast fault partition`.
 *
 * Guarantees: a call whose request or whose answer is cut off rejects with DEADLINE, not before its deadline; a request
 * that is cut off never arrives, one whose answer is cut off may have been carried out; watches tell the newest state
 * when the cut is over.
 */
import { HoldfastError } from '../base/errors.ts';
import type {
  CasResult,
  Coordinator,
  NewRegister,
  NextRegister,
  NodeInfo,
  Register,
  SeenNode,
  Watch,
} from '../coordination/register.ts';

export interface CoordinatorCut {
  isCut(way: 'in' | 'out'): boolean;
  /** Calls back when a cut has ended, until the returned function is called. */
  onHealed(then: () => void): () => void;
}

export class CutCoordinator implements Coordinator {
  private readonly inner: Coordinator;
  private readonly way: CoordinatorCut;
  private readonly deadlineMs: number;
  /** Ends the calls that hang. */
  private readonly hanging: Set<() => void> = new Set();

  constructor(inner: Coordinator, way: CoordinatorCut, deadlineMs: number) {
    this.inner = inner;
    this.way = way;
    this.deadlineMs = deadlineMs;
  }

  private async call<T>(work: () => Promise<T>): Promise<T> {
    const endMs = performance.now() + this.deadlineMs;
    if (this.way.isCut('out')) return this.hang(endMs);
    try {
      const result = await work();
      if (!this.way.isCut('in')) return result;
    } catch (error) {
      if (!this.way.isCut('in')) throw error;
    }
    return this.hang(endMs);
  }

  private hang(endMs: number): Promise<never> {
    return new Promise((_resolve, reject) => {
      const over = (code: 'DEADLINE' | 'CLOSED'): void => {
        clearTimeout(timer);
        this.hanging.delete(close);
        reject(new HoldfastError(code, { operation: 'ask the coordinator', detail: 'it is cut off by a fault' }));
      };
      const close = (): void => over('CLOSED');
      const timer = setTimeout(() => over('DEADLINE'), Math.max(0, endMs - performance.now()));
      this.hanging.add(close);
    });
  }

  read(volumeId: string): Promise<Register | null> {
    return this.call(() => this.inner.read(volumeId));
  }

  create(register: NewRegister): Promise<Register> {
    return this.call(() => this.inner.create(register));
  }

  compareAndSet(expectedVersion: number, next: NextRegister): Promise<CasResult> {
    return this.call(() => this.inner.compareAndSet(expectedVersion, next));
  }

  remove(volumeId: string, expectedVersion: number): Promise<void> {
    return this.call(() => this.inner.remove(volumeId, expectedVersion));
  }

  list(): Promise<Register[]> {
    return this.call(() => this.inner.list());
  }

  watch(volumeId: string, changed: (register: Register) => void): Watch {
    let held: Register | null = null;
    const watch = this.inner.watch(volumeId, (register) => {
      if (this.way.isCut('in') || this.way.isCut('out')) held = register;
      else changed(register);
    });
    const forget = this.way.onHealed(() => {
      const register = held;
      held = null;
      if (register !== null) changed(register);
    });
    return {
      close: () => {
        forget();
        watch.close();
      },
    };
  }

  announce(node: NodeInfo): Promise<void> {
    return this.call(() => this.inner.announce(node));
  }

  nodes(): Promise<SeenNode[]> {
    return this.call(() => this.inner.nodes());
  }

  async close(): Promise<void> {
    for (const close of this.hanging) close();
    await this.inner.close();
  }
}
