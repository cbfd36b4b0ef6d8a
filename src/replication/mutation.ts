/** What the primary's volume keeps of a mutation: on its way into the log, and between append and commit. */
import type { Slot } from '../storage/arena.ts';
import type { RecordKind } from '../storage/record.ts';
import type { Operation } from './range-lock.ts';
import type { Attachment, Done, Expired } from './served-volume.ts';
import type { LogRecord } from './store.ts';

/** A mutation on its way into the log. */
export interface Mutation {
  kind: RecordKind;
  attachment: Attachment | null;
  request: number;
  first: number;
  count: number;
  slot: Slot;
  done: Done;
  expired: Expired;
  /** Of `Flushes.later`, 0 while it is not waiting. */
  token: number;
}

/** A record between append and commit, and whom to answer. */
export interface Awaiting {
  record: LogRecord;
  operation: Operation<LogRecord>;
  done: Done;
}

/** An answer that waits until a record is applied, unless it fails before. It is given once. */
export function lateAnswer(done: Done): { committed: Done; applied: Done } {
  let answered = false;
  const answer: Done = (error) => {
    if (answered) return;
    answered = true;
    done(error);
  };
  return { committed: (error) => error !== null && answer(error), applied: answer };
}
