/**
 * The requests of one session that are sent and not answered, their numbers, and whether one more may be sent.
 *
 * Guarantees: mutations are numbered 1, 2, 3 ... and never twice; those in flight lie within the session's window;
 * requests and bytes in flight stay within the limits, but for a single request that is larger than the limit.
 */
import { FIRST_FREE_ID, SESSION_WINDOW } from '../protocol/messages.ts';
import type { Call } from './call.ts';

export interface InFlightLimits {
  requests: number;
  bytes: number;
  window: number;
}

export class InFlight {
  limits: InFlightLimits = { requests: 1, bytes: 0, window: SESSION_WINDOW };
  private readonly calls: Map<number, Call> = new Map();
  private bytes = 0;
  private nextMutation = 1;
  /** No mutation below it is unanswered. */
  private lowestMutation = 1;
  private nextOther = FIRST_FREE_ID;

  get size(): number {
    return this.calls.size;
  }

  get lowestUnanswered(): number {
    return this.lowestMutation;
  }

  /** Whether a mutation is unanswered. */
  get mutates(): boolean {
    return this.lowestMutation < this.nextMutation;
  }

  get(requestId: number): Call | undefined {
    return this.calls.get(requestId);
  }

  admits(call: Call): boolean {
    if (this.calls.size === 0) return true;
    return (
      this.calls.size < this.limits.requests &&
      this.bytes + call.weightBytes <= this.limits.bytes &&
      (!call.message.mutation || this.nextMutation - this.lowestMutation < this.limits.window)
    );
  }

  /** Gives the call its number. */
  add(call: Call): void {
    call.requestId = call.message.mutation ? this.nextMutation++ : this.nextOther++;
    this.calls.set(call.requestId, call);
    this.bytes += call.weightBytes;
  }

  remove(call: Call): void {
    this.calls.delete(call.requestId);
    this.bytes -= call.weightBytes;
    while (this.lowestMutation < this.nextMutation && !this.calls.has(this.lowestMutation)) this.lowestMutation++;
  }

  /** All of them in the order of their numbers: mutations first, each in the order in which it was first sent. */
  inOrder(): Call[] {
    return [...this.calls.values()].sort((a, b) => a.requestId - b.requestId);
  }

  /** Another session: numbers start anew. There must be no mutation in flight. */
  startNewSession(): void {
    this.nextMutation = 1;
    this.lowestMutation = 1;
  }
}
