/**
 * What sessions were answered, so that a repeated request is answered again and not executed again. Pure.
 *
 * Guarantees: a request at or above its session's floor, of a session that is not forgotten, is known if it was executed.
 * Sessions are bounded: the one that did nothing for longest is forgotten, and from then on `forgotten` is its version.
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
  private readonly sessions: Map<bigint, Session> = new Map();
  /** A session whose last change was at or before this version may have been forgotten. */
  forgotten = 0;

  /** @returns what counts no longer: the session said that it has it, or it is there once more */
  add(answer: NewAnswer, run: Run, sizeBytes: number): Kept[] {
    const freed: Kept[] = [];
    const session = this.sessions.get(answer.session) ?? { floor: 0, version: 0, answers: new Map<number, Kept>() };
    // In the order in which they last did something.
    this.sessions.delete(answer.session);
    this.sessions.set(answer.session, session);
    session.version = Math.max(session.version, answer.version);
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
  sort(): void {
    const sorted = [...this.sessions].sort(([, a], [, b]) => a.version - b.version);
    this.sessions.clear();
    for (const [id, session] of sorted) this.sessions.set(id, session);
  }

  /** Keeps to the limit. @returns what counts no longer */
  forgetOldest(): Kept[] {
    const freed: Kept[] = [];
    while (this.sessions.size > MAX_SESSIONS) {
      const [id, oldest] = this.sessions.entries().next().value!;
      this.sessions.delete(id);
      this.forgotten = Math.max(this.forgotten, oldest.version);
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
    if (known === undefined) return since < this.forgotten ? 'lost' : 'new';
    const kept = known.answers.get(request);
    if (kept !== undefined) return kept.answer;
    return request < known.floor ? 'lost' : 'new';
  }

  forget(upTo: number): void {
    this.forgotten = Math.max(this.forgotten, upTo);
  }

  clear(): void {
    this.sessions.clear();
    this.forgotten = 0;
  }
}
