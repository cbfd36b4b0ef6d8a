/**
 * What a primary may answer reads on, and lets others answer reads on. Pure.
 *
 * The right to read comes from the promise of every other member that counts as in sync: it seeks no promotion and
 * accepts no other primary while it runs. A member may answer reads itself while it holds a grant, which rests on the
 * same promises.
 *
 * Guarantees: a right ends before the promise that it rests on, whatever the clocks do within DRIFT; a grant ends before
 * the rights that it rests on; nothing is committed without a member before its last grant has run out.
 */
import type { HoldfastError } from '../base/errors.ts';
import { DRIFT } from './rules.ts';
import type { Done } from './served-volume.ts';

/** What is known of one member. */
class Rights {
  /** Until then it seeks no promotion. */
  untilMs = -Infinity;
  /** It may answer reads until then, at the latest. */
  grantedUntilMs = -Infinity;
  /** When each heartbeat was sent. */
  readonly beats: Map<number, number> = new Map();
}

export interface ReadRightsParts {
  now: () => number;
  /** This node. */
  own: string;
  /** Members whose promises are needed: those that count as in sync; this node among them. */
  members: () => readonly string[];
  /** Without the promises of others (a mutation). */
  free: boolean;
  /** Counted from sending, not from the echo (a mutation if not). */
  fromSending: boolean;
  /** Grants end before the promises that they rest on (a mutation if not). */
  boundGrants: boolean;
}

export class ReadRights {
  private readonly o: ReadRightsParts;
  private readonly members: Map<string, Rights> = new Map();
  private waiting: Done[] = [];
  private over: HoldfastError | null = null;

  constructor(parts: ReadRightsParts) {
    this.o = parts;
  }

  private of(node: string): Rights {
    let rights = this.members.get(node);
    if (rights === undefined) this.members.set(node, (rights = new Rights()));
    return rights;
  }

  /** Heartbeat n goes out to a member. */
  sent(node: string, n: number, nowMs: number): void {
    this.of(node).beats.set(n, nowMs);
  }

  /** A member has promised itself for so long, from when it handled heartbeat n. */
  promised(node: string, n: number, promiseMs: number): void {
    const rights = this.of(node);
    const sentAtMs = rights.beats.get(n);
    if (sentAtMs === undefined) return;
    for (const earlier of rights.beats.keys()) if (earlier <= n) rights.beats.delete(earlier);
    const from = this.o.fromSending ? sentAtMs : this.o.now();
    rights.untilMs = Math.max(rights.untilMs, from + promiseMs * DRIFT);
    this.again();
  }

  /** The stream of a member ended: no heartbeat on it counts any more. */
  lost(node: string): void {
    this.of(node).beats.clear();
  }

  get mayRead(): boolean {
    if (this.over !== null) return false;
    if (this.o.free) return true;
    const nowMs = this.o.now();
    for (const node of this.o.members()) if (node !== this.o.own && this.of(node).untilMs <= nowMs) return false;
    return true;
  }

  /** Calls back once reads may be answered; with an error if never again. */
  whenReadable(done: Done): void {
    if (this.over !== null) done(this.over);
    else if (this.mayRead) done(null);
    else this.waiting.push(done);
  }

  /** Promises came, or are needed no longer. */
  again(): void {
    if (this.waiting.length > 0 && this.mayRead) for (const done of this.waiting.splice(0)) done(null);
  }

  /** Lets a member answer reads. @returns milliseconds from when it asked, 0: not now */
  grant(node: string, promiseMs: number): number {
    if (this.over !== null) return 0;
    const nowMs = this.o.now();
    if (!this.o.boundGrants) return 10 * promiseMs;
    let forMs = promiseMs;
    for (const other of this.o.members()) {
      if (other !== node && other !== this.o.own) forMs = Math.min(forMs, this.of(other).untilMs - nowMs);
    }
    if (forMs <= 0) return 0;
    const rights = this.of(node);
    rights.grantedUntilMs = Math.max(rights.grantedUntilMs, nowMs + forMs);
    return forMs;
  }

  /** When the last grant of a member has run out. */
  grantedUntilMs(node: string): number {
    return this.of(node).grantedUntilMs;
  }

  /** This machine slept, or its clock cannot be trusted: it holds no rights. */
  forget(): void {
    for (const rights of this.members.values()) {
      rights.untilMs = -Infinity;
      rights.beats.clear();
    }
  }

  end(error: HoldfastError): void {
    if (this.over !== null) return;
    this.over = error;
    for (const done of this.waiting.splice(0)) done(error);
  }
}
