/**
 * The primary's part in forgetting sessions: it decides which, as it writes a batch, and the batch tells it. Pure.
 *
 * Guarantees: a session of which something is executed and not applied is not forgotten, so whoever follows finds the same
 * sessions to be old, whenever he applies what; one that a batch tells to be forgotten executes nothing any more.
 */
import type { NewAnswer } from './batch.ts';
import type { KvIndex } from './index-of-keys.ts';
import type { KvRules } from './rules.ts';

type AheadSessions = ReadonlyMap<bigint, unknown>;

export class Forgetting {
  private readonly index: KvIndex;
  private readonly rules: KvRules;
  private readonly ahead: AheadSessions;
  /** What batches tell already: sessions whose last change was at or before that version are forgotten. */
  private told: number;

  /** @param ahead those of which something is executed and not applied */
  constructor(index: KvIndex, rules: KvRules, ahead: AheadSessions) {
    this.ahead = ahead;
    this.index = index;
    this.rules = rules;
    this.told = index.told;
  }

  get forgotten(): number {
    return this.told;
  }

  /** A batch is about to be written. @returns what it is to tell */
  next(): number {
    const { answers } = this.index;
    // Only where it could matter: most volumes have few sessions.
    if (answers.mayExceed(this.ahead.size)) {
      let added = 0;
      for (const session of this.ahead.keys()) if (!answers.knows(session)) added++;
      this.told = Math.max(
        this.told,
        answers.oldest(added, (session) => this.ahead.has(session)),
      );
    }
    if (this.rules.tellForgotten) return this.told;
    this.index.forget(this.told);
    return 0;
  }

  find(session: bigint, request: number, since: number): NewAnswer | 'new' | 'lost' {
    const found = this.index.answers.find(session, request, since);
    if (found !== 'new' || since >= this.told || this.ahead.has(session)) return found;
    return this.index.answers.lastVersion(session) <= this.told ? 'lost' : 'new';
  }
}
