/**
 * Sessions and the connections that speak for them. Pure.
 *
 * Guarantees: of a session's connections only the newest acts; whoever attaches finds every earlier request of its
 * session either in the table or dropped for good, so that repeating it is safe; the number of sessions that are
 * remembered without a connection is bounded.
 */
import { HoldfastError } from '../base/errors.ts';
import { type Position, comparePositions } from '../base/position.ts';
import type { Attachment } from './served-volume.ts';

/** Sessions without a connection whose generation is remembered. */
const MAX_DETACHED = 4096;
/** Sessions with a connection. */
const MAX_ATTACHED = 4096;

/** What the fence asks of the store. */
export interface SessionSource {
  readonly name: string;
  readonly settledPosition: Position;
  readonly failed: HoldfastError | null;
  readonly sessions: {
    lookUp(session: bigint, request: number): 'done' | 'new' | 'unknown';
    vouchesFor(session: bigint, since: Position): boolean;
  };
}

export interface FencedAttachment extends Attachment {
  /** Position of its latest record. */
  last: Position | null;
  revoked: boolean;
  onRevoked: () => void;
}

export class SessionFence {
  private readonly source: SessionSource;
  private readonly once: boolean;
  private readonly attached: Map<bigint, FencedAttachment> = new Map();
  private readonly detached: Map<bigint, FencedAttachment> = new Map();
  private waiting: Array<{ position: Position; go: () => void }> = [];

  /** @param once a request that was executed is not executed again */
  constructor(source: SessionSource, once = true) {
    this.source = source;
    this.once = once;
  }

  attach(
    session: bigint,
    generation: number,
    since: Position | null,
    onRevoked: () => void,
    done: (error: HoldfastError | null, attachment: Attachment | null) => void,
  ): void {
    const where = { operation: 'attach', volume: this.source.name };
    const refuse = (error: HoldfastError): void => queueMicrotask(() => done(error, null));
    if (session === 0n)
      return refuse(new HoldfastError('INVALID_ARGUMENT', { ...where, detail: 'session 0 is no session' }));
    const older = this.attached.get(session) ?? this.detached.get(session);
    if (older !== undefined && generation <= older.generation) {
      return refuse(
        new HoldfastError('STALE_GENERATION', {
          ...where,
          detail: `generation ${generation} is not above ${older.generation}`,
        }),
      );
    }
    if (older === undefined && this.attached.size >= MAX_ATTACHED) {
      return refuse(new HoldfastError('TOO_MANY', { ...where, detail: `${MAX_ATTACHED} sessions are attached` }));
    }
    const attachment: FencedAttachment = { session, generation, last: older?.last ?? null, revoked: false, onRevoked };
    this.detached.delete(session);
    this.attached.set(session, attachment);
    if (older !== undefined && !older.revoked) {
      older.revoked = true;
      older.onRevoked();
    }
    this.whenSettled(older?.last ?? null, () => {
      if (this.source.failed !== null) return done(this.source.failed, null);
      if (attachment.revoked) return done(new HoldfastError('STALE_GENERATION', where), null);
      if (since !== null && !this.source.sessions.vouchesFor(session, since)) {
        // Its generation counts, and its records are waited for, should it come again.
        this.detach(attachment);
        return done(
          new HoldfastError('OUTCOME_UNKNOWN', {
            ...where,
            detail: 'the session is no longer remembered, so its unanswered requests may or may not have been executed',
          }),
          null,
        );
      }
      done(null, attachment);
    });
  }

  private whenSettled(position: Position | null, go: () => void): void {
    if (position === null || comparePositions(position, this.source.settledPosition) <= 0) return queueMicrotask(go);
    this.waiting.push({ position, go });
  }

  /** The settled position may have moved. */
  settled(): void {
    if (this.waiting.length === 0) return;
    const position = this.source.settledPosition;
    const ready = this.waiting.filter((w) => comparePositions(w.position, position) <= 0);
    this.waiting = this.waiting.filter((w) => comparePositions(w.position, position) > 0);
    for (const { go } of ready) go();
  }

  /** The store has failed: whoever waits for a record to be applied waits in vain. */
  abandon(): void {
    for (const { go } of this.waiting.splice(0)) go();
  }

  detach(attachment: Attachment): void {
    const own = attachment as FencedAttachment;
    own.revoked = true;
    if (this.attached.get(own.session) !== own) return;
    this.attached.delete(own.session);
    this.detached.set(own.session, own);
    if (this.detached.size <= MAX_DETACHED) return;
    // One whose records are not applied yet must be waited for when it comes back: another one goes.
    for (const [session, { last }] of this.detached) {
      if (last !== null && comparePositions(last, this.source.settledPosition) > 0) continue;
      this.detached.delete(session);
      return;
    }
  }

  isRevoked(attachment: Attachment): boolean {
    return (attachment as FencedAttachment).revoked;
  }

  /** `new`: to be executed. Else how the request is to be answered. */
  lookUp(attachment: Attachment | null, request: number): 'new' | HoldfastError | null {
    if (attachment === null) return 'new';
    if (this.isRevoked(attachment)) return new HoldfastError('STALE_GENERATION', { volume: this.source.name });
    if (request < 1) {
      return new HoldfastError('INVALID_ARGUMENT', { detail: 'requests of a session are numbered from 1' });
    }
    const found = this.source.sessions.lookUp(attachment.session, request);
    if (found === 'new' || !this.once) return 'new';
    if (found === 'done') return null;
    return new HoldfastError('OUTCOME_UNKNOWN', {
      volume: this.source.name,
      detail: `request ${request} lies below the window of its session`,
    });
  }
}
