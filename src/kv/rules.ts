/**
 * Rules of the key-value store. One that is switched off is a mutation: tests do that to show that they would notice; the
 * product always runs with all of them. Pure.
 */

import { MAX_SESSIONS } from './session-answers.ts';

export interface KvRules {
  /** A read waits for what is appended of its keys, and is not applied. */
  readsWait: boolean;
  /** A request that was executed under another primary is not executed again. */
  answersStay: boolean;
  /** What counts of a segment is moved before it is zeroed. */
  zeroDeadOnly: boolean;
  /** The newest batch stays: it says which version comes next. */
  keepNewest: boolean;
  /** A segment is used anew only when its zeroing is in the log. */
  zeroBeforeReuse: boolean;
  /** A backup whose blocks were copied to reads all keys anew. */
  rebuildAfterCopies: boolean;
  /** So does one that is told, as an epoch opens, what is in blocks that it may have otherwise. */
  rebuildAfterOpening: boolean;
  /** Keys are read from all that the disk has room for: what is known of the volume's size may be old. */
  readBehindEnd: boolean;
  /** Batches come into the log in the order in which they were worked out. */
  keepOrder: boolean;
  /** A backup answers under a grant only. */
  readsUnderGrant: boolean;
  /** Watchers are told up to where nothing is missing. */
  watchWhole: boolean;
  /** ... and are told when what they missed is not kept. */
  watchKept: boolean;
  /** A key expires by a deletion in the log, and not before. */
  logExpiry: boolean;
  /** A batch tells which sessions are forgotten. */
  tellForgotten: boolean;
  /** Sessions that are kept: tests make do with few. */
  sessions: number;
}

export const ALL_KV_RULES: KvRules = {
  readsWait: true,
  answersStay: true,
  zeroDeadOnly: true,
  keepNewest: true,
  zeroBeforeReuse: true,
  rebuildAfterCopies: true,
  rebuildAfterOpening: true,
  readBehindEnd: true,
  keepOrder: true,
  readsUnderGrant: true,
  watchWhole: true,
  watchKept: true,
  logExpiry: true,
  tellForgotten: true,
  sessions: MAX_SESSIONS,
};
