/**
 * What the connections of a volume tell of losses, put together to what happens to the volume as a whole.
 *
 * Guarantees: as soon as one connection is back the others try at once too, whatever pause they are in; `lost` and `back` come in turn, however many connections are lost and replaced one by one; of an outage
 * `gaveUp` is told once, and once more if it is for good; a change of the primary's address is told once.
 */
import type { HoldfastError } from '../base/errors.ts';
import type { ConnectEvents } from './options.ts';

/** A connection as it is seen here. */
interface Member {
  /** If it waits before its next attempt, it waits no longer. */
  retryNow(): void;
}

export class Outages {
  private readonly events: ConnectEvents;
  private readonly away: Set<Member> = new Set();
  private sinceMs = 0;
  private toldOfGivingUp = false;
  private over = false;
  /** Where the connection that came up last has found its server. */
  private peer: string | null = null;

  constructor(events: ConnectEvents) {
    this.events = events;
  }

  lost(connection: Member, error: HoldfastError): void {
    const first = this.away.size === 0;
    this.away.add(connection);
    if (!first) return;
    this.sinceMs = performance.now();
    this.toldOfGivingUp = false;
    this.events.lost?.(error);
  }

  /** The connection is there; for the first time too. */
  up(connection: Member, peer: string): void {
    const before = this.peer;
    this.peer = peer;
    if (before !== null && before !== peer) this.events.moved?.(before, peer, performance.now() - this.sinceMs);
    if (!this.away.delete(connection)) return;
    for (const other of this.away) other.retryNow();
    if (this.away.size === 0) this.events.back?.(performance.now() - this.sinceMs);
  }

  gaveUp(error: HoldfastError, forGood: boolean): void {
    if (this.over || (this.toldOfGivingUp && !forGood)) return;
    this.toldOfGivingUp = true;
    this.over = forGood;
    this.events.gaveUp?.(error, forGood);
  }
}
