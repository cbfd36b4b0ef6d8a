/**
 * Who answers a volume's reads: its primary, any replica that is in sync, or all of them.
 *
 * Guarantees, of `any`: a read fails only as it would have failed at the primary; whatever a backup answers that is not
 * the bytes, and if it answers nothing in time, the read is repeated at the primary.
 */
import type { HoldfastError } from '../base/errors.ts';
import { Call } from './call.ts';
import type { Connection } from './connection.ts';
import type { Members } from './members.ts';
import type { ReadLink } from './read-link.ts';

/** What takes calls: a connection, or what stands before several. */
export interface Target {
  submit(call: Call): void;
  /** `done` of that call is not called any more. */
  giveUp(call: Call): void;
}

export interface Reader extends Target {
  /** Reads under way are waited for while those that they are asked of answer. */
  close(): Promise<void>;
}

export function sameRead(call: Call, destination: Uint8Array | null): Call {
  const { message, offsetBytes, lengthBytes, deadlineAtMs, tail } = call;
  const request = tail === null ? {} : { source: tail, owned: true };
  const into = destination === null ? {} : { destination };
  return new Call(message.number, { offsetBytes, lengthBytes }, { ...request, ...into, deadlineAtMs });
}

/** Reads from whoever has the least to do. */
export class ReadAny implements Reader {
  private readonly members: Members;
  private readonly primary: () => Connection;
  /** Where each call is, and in which form. */
  private readonly live: Map<Call, { inner: Call; connection: Connection | null }> = new Map();
  private turn = 0;
  private closed = false;

  constructor(members: Members, primary: () => Connection) {
    this.members = members;
    this.primary = primary;
    void members.refresh();
  }

  submit(call: Call): void {
    const primary = this.primary();
    const link = this.closed ? null : this.leastLoaded(call, primary.load);
    if (link === null) return this.atPrimary(call, primary);
    const inner = sameRead(call, call.destination);
    this.live.set(call, { inner, connection: null });
    inner.done = (error, payload) => {
      if (error === null) this.settle(call, null, payload);
      else this.atPrimary(call, this.primary());
    };
    link.submit(inner);
  }

  /** @returns null: the primary is it */
  private leastLoaded(call: Call, primaryLoad: number): ReadLink | null {
    const links = this.members.up.filter((link) => link.admits(call));
    const choices: Array<ReadLink | null> = [null, ...links];
    const load = (choice: ReadLink | null): number => (choice === null ? primaryLoad : choice.load);
    let best = choices[this.turn++ % choices.length] ?? null;
    for (const choice of choices) if (load(choice) < load(best)) best = choice;
    return best;
  }

  private atPrimary(call: Call, connection: Connection): void {
    const inner = sameRead(call, call.destination);
    this.live.set(call, { inner, connection });
    inner.done = (error, payload) => this.settle(call, error, payload);
    connection.submit(inner);
  }

  private settle(call: Call, error: HoldfastError | null, payload: Uint8Array | null): void {
    if (this.live.delete(call)) call.done(error, payload);
  }

  giveUp(call: Call): void {
    call.givenUp = true;
    const where = this.live.get(call);
    if (where === undefined) return;
    this.live.delete(call);
    if (where.connection === null) where.inner.givenUp = true;
    else where.connection.giveUp(where.inner);
  }

  /** What backups owe is read from the primary. */
  close(): Promise<void> {
    this.closed = true;
    this.members.close();
    return Promise.resolve();
  }
}
