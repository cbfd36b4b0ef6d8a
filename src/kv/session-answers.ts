/**
 * What sessions were answered, so that a repeated request is answered again and not executed again. Pure.
 *
 * Only the primary decides which sessions are forgotten, as it writes a batch: those that did nothing for longest, once
 * there are more than are kept (forgetting.ts). The batch tells the version up to which they are, and everybody forgets
 * them when that batch and all before it are applied. So it is in the log before what they were answered is zeroed, and
 * the newest batch, which stays, tells the most.
 *
 * Guarantees: of a session that is known, every request at or above its floor that was executed is known; a session whose
 * last change is at or before `forgotten` is not known, and what it did is never taken for new.
 */
import { type NewAnswer, answerAt, floorAt, requestAt, sessionAt, versionAt } from './batch.ts';
import type { Run } from './index-of-keys.ts';

/** Sessions that are kept, unless tests say otherwise (rules.ts). */
export const MAX_SESSIONS = 4096;

/** Where an answer lies. */
interface Kept {
  readonly run: Run;
  /** Where it begins in the batch. */
  readonly at: number;
  readonly sizeBytes: number;
  /** The same answer in a batch that was there before. */
  older: Kept | null;
}

interface Session {
  floor: number;
  /** Of its newest answer. */
  version: number;
  answers: Map<number, Kept>;
}

export class SessionAnswers {
  /** In the order in which they last did something, unless `sorted` is false. */
  private readonly sessions: Map<bigint, Session> = new Map();
  private sorted = true;
  /** Of the last one. */
  private newestVersion = 0;
  private forgottenUpTo = 0;
  /** That acted last. */
  private latest: Session | null = null;
  private readonly count: (run: Run, bytes: number) => void;
  private readonly limit: number;

  /**
   * @param count told how many bytes of a batch come to count, or count no longer
   * @param limit sessions that a primary keeps
   */
  constructor(count: (run: Run, bytes: number) => void, limit: number) {
    this.count = count;
    this.limit = limit;
  }

  /** A session whose last change was at or before this version is not known. */
  get forgotten(): number {
    return this.forgottenUpTo;
  }

  /** Whether what it executed is known, up to its floor. */
  knows(session: bigint): boolean {
    return this.sessions.has(session);
  }

  /** It did something. */
  private act(id: bigint, version: number): Session {
    let session = this.sessions.get(id);
    if (session === undefined) {
      session = { floor: 0, version: -1, answers: new Map() };
      this.sessions.set(id, session);
    } else if (version > session.version && session !== this.latest) {
      // Their order is looked at only when there are many.
      if (this.sessions.size < this.limit / 2) this.sorted = false;
      else {
        this.sessions.delete(id);
        this.sessions.set(id, session);
      }
    }
    // An older change was moved or came late.
    if (version <= session.version) return session;
    session.version = version;
    this.latest = session;
    if (version < this.newestVersion) this.sorted = false;
    else this.newestVersion = version;
    return session;
  }

  /** Whether there may be too many, with so many more. */
  mayExceed(more: number): boolean {
    return this.sessions.size + more > this.limit;
  }

  /** Of what it did last; -1: it is not known. */
  lastVersion(session: bigint): number {
    return this.sessions.get(session)?.version ?? -1;
  }

  /**
   * @param added sessions that come in addition
   * @param busy sessions that are about to do something: no others are forgotten from the first of those on
   * @returns up to which version sessions are to be forgotten to keep to the limit; 0: none
   */
  oldest(added: number, busy: (session: bigint) => boolean): number {
    let left = this.sessions.size + added - this.limit;
    if (left <= 0) return 0;
    this.sort();
    let upTo = 0;
    for (const [id, { version }] of this.sessions) {
      if (left-- === 0 || busy(id)) break;
      upTo = version;
    }
    return upTo;
  }

  /** @param loading answers come in no order: whether their sessions are forgotten shows once all are there */
  add(run: Run, at: number, sizeBytes: number, loading: boolean): void {
    const { bytes } = run;
    const id = sessionAt(bytes, at);
    const version = versionAt(bytes, at);
    if (!loading && version <= this.forgottenUpTo && !this.sessions.has(id)) return;
    const session = this.act(id, version);
    const request = requestAt(bytes, at);
    const older = session.answers.get(request) ?? null;
    // It is there once more.
    if (older !== null) this.count(older.run, -older.sizeBytes);
    session.answers.set(request, { run, at, sizeBytes, older });
    this.count(run, sizeBytes);
    this.raise(session, floorAt(bytes, at));
    if (request < session.floor) this.drop(session, request);
  }

  /** The session said that it has the answers below. */
  private raise(session: Session, floor: number): void {
    const was = session.floor;
    if (floor <= was) return;
    session.floor = floor;
    if (floor - was <= session.answers.size) {
      for (let request = was; request < floor; request++) this.drop(session, request);
    } else for (const request of session.answers.keys()) if (request < floor) this.drop(session, request);
  }

  private drop(session: Session, request: number): void {
    const kept = session.answers.get(request);
    if (kept === undefined) return;
    session.answers.delete(request);
    this.count(kept.run, -kept.sizeBytes);
  }

  /** Puts the sessions into the order in which they last did something. */
  private sort(): void {
    if (this.sorted) return;
    const sorted = [...this.sessions].sort(([, a], [, b]) => a.version - b.version);
    this.sessions.clear();
    for (const [id, session] of sorted) this.sessions.set(id, session);
    this.sorted = true;
  }

  /** Sessions whose last change was at or before that version. */
  forget(upTo: number): void {
    this.forgottenUpTo = Math.max(this.forgottenUpTo, upTo);
    this.sort();
    for (const [id, oldest] of this.sessions) {
      if (oldest.version > this.forgottenUpTo) break;
      this.sessions.delete(id);
      for (const { run, sizeBytes } of oldest.answers.values()) this.count(run, -sizeBytes);
    }
  }

  /** Its batch goes: what it had taken the place of counts again. */
  remove(run: Run, at: number): void {
    const answers = this.sessions.get(sessionAt(run.bytes, at))?.answers;
    const request = requestAt(run.bytes, at);
    const newest = answers?.get(request);
    if (newest === undefined) return;
    if (newest.run === run) {
      this.count(run, -newest.sizeBytes);
      if (newest.older === null) answers!.delete(request);
      else {
        answers!.set(request, newest.older);
        this.count(newest.older.run, newest.older.sizeBytes);
      }
      return;
    }
    let before = newest;
    while (before.older !== null && before.older.run !== run) before = before.older;
    before.older = before.older?.older ?? null;
  }

  isLive(run: Run, at: number): boolean {
    return this.sessions.get(sessionAt(run.bytes, at))?.answers.get(requestAt(run.bytes, at))?.run === run;
  }

  /** `lost`: below the floor, or of a session that may have been forgotten. */
  find(session: bigint, request: number, since: number): NewAnswer | 'new' | 'lost' {
    const known = this.sessions.get(session);
    if (known === undefined) return since < this.forgottenUpTo ? 'lost' : 'new';
    const kept = known.answers.get(request);
    if (kept !== undefined) return answerAt(kept.run.bytes, kept.at);
    return request < known.floor ? 'lost' : 'new';
  }

  clear(): void {
    this.sessions.clear();
    this.sorted = true;
    this.latest = null;
    this.forgottenUpTo = this.newestVersion = 0;
  }
}
