/**
 * The primary's hand on the register: who is to be taken out of inSync, who is to come in, and what became of each
 * attempt. Pure.
 *
 * Guarantees: one compare-and-set at a time; an attempt without an answer decides nothing: it is repeated against the
 * same version until one answer is known, and until then a member that was to come in counts as in sync, one that was to
 * go out still does.
 */
import type { CasOutcome, GroupRegister } from './group-register.ts';

export interface MembershipEvents {
  /** Replace the register of that version; `settled` takes the outcome. */
  compareAndSet(expectedVersion: number, next: GroupRegister): void;
  /** A newer register of this epoch is known: who went out, who came in. */
  changed(removed: string[], added: string[]): void;
  /** There is a later epoch. */
  deposed(register: GroupRegister): void;
}

export class Membership {
  register: GroupRegister;
  private readonly events: MembershipEvents;
  private readonly removing: Set<string> = new Set();
  private readonly adding: Set<string> = new Set();
  /** What `counted` says, until something changes: it is asked for at every read and every commit. */
  private known: string[] | null = null;
  private underWay = false;
  /** An attempt had no answer. */
  private undecided = false;
  private retryAtMs = 0;
  private over = false;

  constructor(register: GroupRegister, events: MembershipEvents) {
    this.register = register;
    this.events = events;
  }

  /** Nodes that count as in sync: those of the register, and those whose coming in is not decided. */
  get counted(): readonly string[] {
    return (this.known ??= [...new Set([...this.register.inSync, ...this.adding])]);
  }

  isRemoving(node: string): boolean {
    return this.removing.has(node);
  }

  remove(node: string, nowMs: number): void {
    if (this.removing.has(node)) return;
    this.removing.add(node);
    this.attempt(nowMs);
  }

  add(node: string, nowMs: number): void {
    this.adding.add(node);
    this.known = null;
    this.attempt(nowMs);
  }

  tick(nowMs: number): void {
    if (nowMs >= this.retryAtMs) this.attempt(nowMs);
  }

  private attempt(nowMs: number): void {
    if (this.over || this.underWay || nowMs < this.retryAtMs) return;
    const { inSync } = this.register;
    const next = this.counted.filter((node) => !this.removing.has(node));
    const same = next.length === inSync.length && next.every((node) => inSync.includes(node));
    if (same && !this.undecided) return this.forget();
    this.underWay = true;
    this.events.compareAndSet(this.register.version, { ...this.register, inSync: next });
  }

  /** What is decided is wanted no more. */
  private forget(): void {
    this.known = null;
    for (const node of this.removing) {
      if (!this.register.inSync.includes(node) && !this.adding.has(node)) this.removing.delete(node);
    }
    for (const node of this.adding) if (this.register.inSync.includes(node)) this.adding.delete(node);
    for (const node of this.adding) {
      if (!this.register.members.some((member) => member.node === node)) this.removing.add(node);
    }
    // One that was to come in and failed before it was asked for: nobody has ever heard of it.
    const neverIn = [...this.adding].filter((node) => this.removing.has(node));
    for (const node of neverIn) {
      this.adding.delete(node);
      this.removing.delete(node);
    }
    if (neverIn.length > 0) this.events.changed(neverIn, []);
  }

  settled(result: CasOutcome, nowMs: number, retryMs: number): void {
    if (this.over) return;
    this.underWay = false;
    if (result.outcome === 'unknown') {
      this.undecided = true;
      this.retryAtMs = nowMs + retryMs;
      return;
    }
    this.undecided = false;
    // A register that went back, or stood still, is not asked again at once.
    if (result.register.version <= this.register.version) this.retryAtMs = nowMs + retryMs;
    this.learn(result.register, nowMs);
    this.attempt(nowMs);
  }

  /** The register was read, or came by a watch. */
  learn(register: GroupRegister, nowMs: number): void {
    if (this.over || register.version <= this.register.version) return;
    if (register.epoch !== this.register.epoch || !register.inSync.includes(this.register.primary)) {
      this.over = true;
      return this.events.deposed(register);
    }
    // One that is to come in and is not in yet stays wanted: whatever was asked before is moot, it is asked again.
    const removed = this.register.inSync.filter((node) => !register.inSync.includes(node));
    const added = register.inSync.filter((node) => !this.register.inSync.includes(node));
    this.register = register;
    this.known = null;
    // Whatever was undecided was about an older version: it can take effect no more.
    this.undecided = false;
    for (const node of removed) this.removing.delete(node);
    this.forget();
    this.events.changed(removed, added);
    this.attempt(nowMs);
  }

  stop(): void {
    this.over = true;
  }
}

/** Why that register ends the tenure of that epoch. */
export function deposedBy({ epoch, primary }: GroupRegister, own: number): string {
  if (epoch === own) return 'the register has it in sync no longer';
  return `epoch ${epoch} has begun, its primary is ${primary || 'to be found'}`;
}
