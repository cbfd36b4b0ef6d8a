/** The register of a simulated cluster: linearizable, but requests and answers take their time, and some are lost. */
import type { CasOutcome, GroupRegister } from '../../src/replication/group-register.ts';
import type { World } from './world.ts';

/** How long a compare-and-set waits for its answer. */
const CAS_MS = 300;

export class SimRegister {
  current: GroupRegister;
  /** Share of requests and of answers that are lost. */
  loss = 0;
  /** Nodes that do not reach it. */
  readonly unreachable: Set<string> = new Set();
  /** How much later than usual the requests of a node arrive. */
  readonly lateMs: Map<string, number> = new Map();
  private readonly world: World;

  constructor(world: World, first: GroupRegister) {
    this.world = world;
    this.current = first;
  }

  private delayMs(): number {
    return this.world.random.chance(0.1) ? this.world.random.next() * 400 : 1 + this.world.random.next() * 4;
  }

  read(node: string, answer: (register: GroupRegister) => void): void {
    this.world.after(this.delayMs(), () => {
      if (this.unreachable.has(node) || this.world.random.chance(this.loss)) return;
      const now = this.current;
      this.world.after(this.delayMs(), () => answer(now));
    });
  }

  compareAndSet(
    node: string,
    expectedVersion: number,
    next: GroupRegister,
    answer: (outcome: CasOutcome) => void,
  ): void {
    let answered = false;
    const once = (outcome: CasOutcome): void => {
      if (!answered) answer(outcome);
      answered = true;
    };
    this.world.after(CAS_MS, () => once({ outcome: 'unknown' }));
    if (this.unreachable.has(node) || this.world.random.chance(this.loss)) return;
    this.world.after(this.delayMs() + (this.lateMs.get(node) ?? 0), () => {
      const done = this.current.version === expectedVersion;
      if (done) {
        this.current = { ...next, version: expectedVersion + 1 };
        const { version, epoch, primary, inSync } = this.current;
        this.world.note(`register ${version}: epoch ${epoch}, primary ${primary}, in sync ${inSync.join(' ')}`);
      }
      const outcome: CasOutcome = { outcome: done ? 'done' : 'refused', register: this.current };
      const heard = !this.unreachable.has(node) && !this.world.random.chance(this.loss);
      if (heard) this.world.after(this.delayMs(), () => once(outcome));
    });
  }
}
