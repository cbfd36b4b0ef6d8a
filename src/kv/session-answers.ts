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
import type { NewAnswer } from './batch.ts';
import type { Run } from './index-of-keys.ts';

/** Sessions that are kept. */
export const MAX_SESSIONS = 4096;

/** Where an answer lies. */
interface Kept {
  answer: NewAnswer;
  run: Run;
  sizeBytes: number;
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
  private readonly limit: number;

  /** @param limit sessions that a primary keeps */
  constructor(limit: number = MAX_SESSIONS) {
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
    if (session === undefined) session = { floor: 0, version: -1, answers: new Map() };
    // An older change, that was moved or came late.
    if (version <= session.version) return session;
    session.version = version;
    this.sessions.delete(id);
    this.sessions.set(id, session);
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

  /**
   * @param loading answers come in no order: whether their sessions are forgotten shows once all are there
   * @returns what counts no longer: the session said that it has it, or it is there once more, or nobody will ask for it
   */
  add(answer: NewAnswer, run: Run, sizeBytes: number, loading: boolean): Kept[] {
    const freed: Kept[] = [];
    if (!loading && answer.version <= this.forgottenUpTo && !this.sessions.has(answer.session)) {
      return [{ answer, run, sizeBytes, older: null }];
    }
    const session = this.act(answer.session, answer.version);
    const older = session.answers.get(answer.request) ?? null;
    if (older !== null) freed.push(older);
    session.answers.set(answer.request, { answer, run, sizeBytes, older });
    session.floor = Math.max(session.floor, answer.floor);
    for (const [request, kept] of session.answers) {
      if (request >= session.floor) continue;
      session.answers.delete(request);
      freed.push(kept);
    }
    return freed;
  }

  /** Puts the sessions into the order in which they last did something. */
  private sort(): void {
    if (this.sorted) return;
    const sorted = [...this.sessions].sort(([, a], [, b]) => a.version - b.version);
    this.sessions.clear();
    for (const [id, session] of sorted) this.sessions.set(id, session);
    this.sorted = true;
  }

  /** Sessions whose last change was at or before that version. @returns what counts no longer */
  forget(upTo: number): Kept[] {
    this.forgottenUpTo = Math.max(this.forgottenUpTo, upTo);
    this.sort();
    const freed: Kept[] = [];
    for (const [id, oldest] of this.sessions) {
      if (oldest.version > this.forgottenUpTo) break;
      this.sessions.delete(id);
      freed.push(...oldest.answers.values());
    }
    return freed;
  }

  /** Its batch goes. @returns whether it counted, and what counts again instead */
  remove(answer: NewAnswer, run: Run): { counted: boolean; back: Kept | null } {
    const answers = this.sessions.get(answer.session)?.answers;
    const newest = answers?.get(answer.request);
    if (newest === undefined) return { counted: false, back: null };
    if (newest.run === run) {
      if (newest.older === null) answers!.delete(answer.request);
      else answers!.set(answer.request, newest.older);
      return { counted: true, back: newest.older };
    }
    let before = newest;
    while (before.older !== null && before.older.run !== run) before = before.older;
    before.older = before.older?.older ?? null;
    return { counted: false, back: null };
  }

  isLive(answer: NewAnswer, run: Run): boolean {
    return this.sessions.get(answer.session)?.answers.get(answer.request)?.run === run;
  }

  /** `lost`: below the floor, or of a session that may have been forgotten. */
  find(session: bigint, request: number, since: number): NewAnswer | 'new' | 'lost' {
    const known = this.sessions.get(session);
    if (known === undefined) return since < this.forgottenUpTo ? 'lost' : 'new';
    const kept = known.answers.get(request);
    if (kept !== undefined) return kept.answer;
    return request < known.floor ? 'lost' : 'new';
  }

  clear(): void {
    this.sessions.clear();
    this.sorted = true;
    this.forgottenUpTo = this.newestVersion = 0;
  }
}
