/**
 * The session table: which requests of which sessions are in the log. It makes mutations at-most-once across
 * reconnects, crashes and (later) failovers. Pure.
 *
 * Guarantees: changed only by records in log order, so that every replica has the same one; bounded (1 024 sessions of
 * 1 024 requests); a question that it can no longer answer gets `unknown`, never a guess.
 */
import { MAX_SESSIONS, PAGE_BODY_BYTES, SESSION_BYTES, SESSION_WINDOW, SESSIONS_PER_PAGE } from './layout.ts';
import { type Position, comparePositions } from '../base/position.ts';
import { getNumber, putNumber } from './record.ts';

const WINDOW_WORDS = SESSION_WINDOW / 32;

interface Session {
  /** Every request at or below it is settled. */
  floor: number;
  /** One bit per request in (floor, floor + window], at its number modulo the window. */
  bits: Uint32Array;
  last: Position;
  /** Sessions that were forgotten before this entry was made had their last record here at the latest. */
  knownAfter: Position;
}

export class SessionTable {
  /** In order of their last record, oldest first: the first one is forgotten when the table is full. */
  private sessions: Map<bigint, Session> = new Map();
  /** The latest last record of any session that was forgotten. */
  private forgottenUpTo: Position = { epoch: 0, seq: 0 };

  get size(): number {
    return this.sessions.size;
  }

  /** Notes a record of the log. To be called in log order; noting the same again changes nothing. */
  note(session: bigint, request: number, at: Position): void {
    if (session === 0n) return;
    const position = { epoch: at.epoch, seq: at.seq };
    let entry = this.sessions.get(session);
    if (entry === undefined) {
      if (this.sessions.size >= MAX_SESSIONS) this.forgetOldest();
      entry = { floor: 0, bits: new Uint32Array(WINDOW_WORDS), last: position, knownAfter: this.forgottenUpTo };
    } else {
      this.sessions.delete(session);
    }
    this.sessions.set(session, entry);
    entry.last = position;
    if (request <= entry.floor) return;
    if (request > entry.floor + SESSION_WINDOW) raiseFloor(entry, request - SESSION_WINDOW);
    const bit = request % SESSION_WINDOW;
    entry.bits[bit >>> 5]! |= 1 << (bit & 31);
  }

  /** `done`: the request is in the log. `new`: it is not. `unknown`: it lies below what the table remembers. */
  lookUp(session: bigint, request: number): 'done' | 'new' | 'unknown' {
    const entry = this.sessions.get(session);
    if (entry === undefined || request > entry.floor + SESSION_WINDOW) return 'new';
    if (request <= entry.floor) return 'unknown';
    const bit = request % SESSION_WINDOW;
    return (entry.bits[bit >>> 5]! >>> (bit & 31)) & 1 ? 'done' : 'new';
  }

  /**
   * Whether the table still knows all that a session did that first attached at `since`. What is not in the table was
   * not done, unless the session may be among the forgotten ones: those did their last act at `forgottenUpTo` or
   * before. One that is in the table may have been forgotten before its entry was made.
   */
  vouchesFor(session: bigint, since: Position): boolean {
    const knownAfter = this.sessions.get(session)?.knownAfter ?? this.forgottenUpTo;
    return comparePositions(since, knownAfter) >= 0;
  }

  private forgetOldest(): void {
    const [session, entry] = this.sessions.entries().next().value!;
    this.sessions.delete(session);
    if (comparePositions(entry.last, this.forgottenUpTo) > 0) this.forgottenUpTo = entry.last;
  }

  /** A copy of the table at this instant, as page bodies. */
  encode(): Uint8Array[] {
    const pages: Uint8Array[] = [];
    const entries = [...this.sessions];
    for (let first = 0; first === 0 || first < entries.length; first += SESSIONS_PER_PAGE) {
      const body = new Uint8Array(PAGE_BODY_BYTES);
      const view = new DataView(body.buffer);
      const part = entries.slice(first, first + SESSIONS_PER_PAGE);
      view.setUint32(0, part.length, true);
      view.setUint32(4, entries.length, true);
      putNumber(view, 8, this.forgottenUpTo.epoch);
      putNumber(view, 16, this.forgottenUpTo.seq);
      part.forEach(([session, entry], i) => {
        const at = 32 + i * SESSION_BYTES;
        view.setBigUint64(at, session, true);
        putNumber(view, at + 8, entry.floor);
        putNumber(view, at + 16, entry.last.epoch);
        putNumber(view, at + 24, entry.last.seq);
        putNumber(view, at + 32, entry.knownAfter.epoch);
        putNumber(view, at + 40, entry.knownAfter.seq);
        entry.bits.forEach((word, w) => view.setUint32(at + 48 + 4 * w, word, true));
      });
      pages.push(body);
    }
    return pages;
  }

  /**
   * The table from its page bodies in order. A missing or damaged page makes the whole table unknown: nothing is then
   * vouched for up to `position`.
   */
  static decode(bodies: Array<Uint8Array | null>, position: Position): SessionTable {
    const table = new SessionTable();
    const unknown = (): SessionTable => {
      const empty = new SessionTable();
      empty.forgottenUpTo = position;
      return empty;
    };
    let total = 0;
    for (const body of bodies) {
      if (body === null) return unknown();
      const view = new DataView(body.buffer, body.byteOffset, body.byteLength);
      const count = view.getUint32(0, true);
      total = view.getUint32(4, true);
      table.forgottenUpTo = { epoch: getNumber(view, 8), seq: getNumber(view, 16) };
      for (let i = 0; i < count; i++) {
        const at = 32 + i * SESSION_BYTES;
        const bits = new Uint32Array(WINDOW_WORDS);
        for (let w = 0; w < WINDOW_WORDS; w++) bits[w] = view.getUint32(at + 48 + 4 * w, true);
        table.sessions.set(view.getBigUint64(at, true), {
          floor: getNumber(view, at + 8),
          bits,
          last: { epoch: getNumber(view, at + 16), seq: getNumber(view, at + 24) },
          knownAfter: { epoch: getNumber(view, at + 32), seq: getNumber(view, at + 40) },
        });
      }
      if (table.sessions.size === total) return table;
    }
    return bodies.length === 0 ? table : unknown();
  }
}

function raiseFloor(entry: Session, floor: number): void {
  if (floor - entry.floor >= SESSION_WINDOW) {
    entry.bits.fill(0);
  } else {
    // The places of numbers that fall out of the window are those of the numbers that come in.
    for (let n = entry.floor + 1; n <= floor; n++) {
      const bit = n % SESSION_WINDOW;
      entry.bits[bit >>> 5]! &= ~(1 << (bit & 31));
    }
  }
  entry.floor = floor;
}
