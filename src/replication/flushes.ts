/**
 * Flushes: who waits for the mutations that were called before. Pure.
 *
 * Guarantees: a flush is answered when every mutation called before it is committed or was answered without a place in
 * the log, also those that were waiting for memory, for room or for their edges when it was called.
 */
import type { HoldfastError } from '../base/errors.ts';
import { type Position, comparePositions } from '../base/position.ts';
import type { Done } from './served-volume.ts';

/** What a flush asks of the store. */
export interface FlushSource {
  readonly lastPosition: Position;
  readonly committedPosition: Position;
  readonly failed: HoldfastError | null;
}

export class Flushes {
  private readonly source: FlushSource;
  /** Mutations that were called and have no place in the log yet, oldest first. */
  private readonly unplaced: Set<number> = new Set();
  private tokens = 0;
  private early: Array<{ after: number; done: Done }> = [];
  private waiting: Array<{ position: Position; done: Done }> = [];

  constructor(source: FlushSource) {
    this.source = source;
  }

  flush(done: Done): void {
    if (this.unplaced.size > 0) this.early.push({ after: this.tokens, done });
    else this.flushPlaced(done);
  }

  /** Waits for what has its place in the log. */
  private flushPlaced(done: Done): void {
    const { lastPosition, committedPosition, failed } = this.source;
    if (failed !== null) return queueMicrotask(() => done(failed));
    if (comparePositions(lastPosition, committedPosition) <= 0) return queueMicrotask(() => done(null));
    this.waiting.push({ position: lastPosition, done });
  }

  /** A mutation could not be placed in the log at once. @returns its token for `placed`, never 0 */
  later(): number {
    this.unplaced.add(++this.tokens);
    return this.tokens;
  }

  /** The mutation has its place in the log, or was answered without one. Token 0: it never had to wait. */
  placed(token: number): void {
    if (token === 0) return;
    this.unplaced.delete(token);
    const oldest: number = this.unplaced.values().next().value ?? Infinity;
    while (this.early.length > 0 && this.early[0]!.after < oldest) this.flushPlaced(this.early.shift()!.done);
  }

  committed(position: Position): void {
    while (this.waiting.length > 0 && comparePositions(this.waiting[0]!.position, position) <= 0) {
      this.waiting.shift()!.done(null);
    }
  }

  /** The store has failed. */
  abandon(error: HoldfastError): void {
    for (const { done } of [...this.waiting.splice(0), ...this.early.splice(0)]) done(error);
  }
}
