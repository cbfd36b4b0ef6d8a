/**
 * Times and rules of the replication core. A rule that is switched off is a mutation: tests do that to show that they
 * would notice; the product always runs with all of them.
 */

import { HoldfastError } from '../base/errors.ts';
import type { StoreRules } from './store.ts';

export interface Times {
  heartbeatMs: number;
  /** D: for so long a member seeks no promotion after a heartbeat. */
  promiseMs: number;
  /** A primary that was not heard of for so long is suspected. Above `promiseMs`. */
  suspicionMs: number;
  /** How long a new primary waits for the members to answer before it removes them. */
  gatherMs: number;
  /** Between attempts to reach what cannot be reached. */
  retryMs: number;
}

export const DEFAULT_TIMES: Times = { heartbeatMs: 100, promiseMs: 500, suspicionMs: 800, gatherMs: 600, retryMs: 200 };

/** @throws HoldfastError INVALID_ARGUMENT for times that do not go together */
export function checkTimes({ heartbeatMs, promiseMs, suspicionMs, gatherMs }: Times): void {
  const wrong = (detail: string, remedy: string): HoldfastError =>
    new HoldfastError('INVALID_ARGUMENT', { operation: 'set the times', detail, remedy });
  if (!(heartbeatMs >= 10)) throw wrong(`a heartbeat every ${heartbeatMs} ms`, 'take 10 ms or more');
  if (promiseMs < 3 * heartbeatMs) {
    const detail = `a promise of ${promiseMs} ms with a heartbeat every ${heartbeatMs} ms`;
    throw wrong(detail, 'promise for three heartbeats at least: reads stop when promises run out');
  }
  if (suspicionMs <= promiseMs) {
    const detail = `suspicion after ${suspicionMs} ms, while the promise runs ${promiseMs} ms`;
    throw wrong(detail, 'suspect later than the promise runs: nobody may seek promotion before');
  }
  if (gatherMs <= promiseMs) {
    const detail = `members are waited for ${gatherMs} ms, while grants run ${promiseMs} ms`;
    throw wrong(detail, 'wait for longer than the promise runs');
  }
}

/** Clocks run apart by at most 5 %: the right to read ends so much before the promise. */
export const DRIFT = 0.95;

export interface Rules extends StoreRules {
  /** An acknowledgment waits until a member that failed is out of inSync. */
  casBeforeAck: boolean;
  /** Only a member of inSync becomes primary. */
  promoteInSyncOnly: boolean;
  /** A bit is cleared by the target's durable acknowledgment, not when the copy is sent. */
  clearOnAck: boolean;
  /** A block that is written while its copy is under way stays dirty. */
  redirty: boolean;
  /** A reintegration ends only when all copies are acknowledged. */
  drainCopies: boolean;
  /** ... and everything before the barrier is committed. */
  drainRecords: boolean;
  /** Reads need every other in-sync member's promise. */
  needPromise: boolean;
  /** The right to read is counted from before the heartbeat was sent, not from its echo. */
  rightFromSending: boolean;
  /** No promise while an attempt at promotion is undecided. */
  noPromiseWhileSeeking: boolean;
  /** After a start a node behaves as if it had just promised. */
  startUpWait: boolean;
  /** A process takes a new epoch, also if the register names it primary. */
  newEpoch: boolean;
  /** An epoch opens with the content of all blocks that may differ. */
  reconcile: boolean;
  /** What the target has that the source lacks is dirty too. */
  targetSuspects: boolean;
  /** The source hands over its bitmaps for third members. */
  handOver: boolean;
  /** Only committed content is copied. */
  copyCommitted: boolean;
  /** Messages of an older epoch than the promised one are refused. */
  refuseOldEpoch: boolean;
  /** A read waits for the writes before it on its blocks. */
  readsWait: boolean;
  /** A request that was executed is not executed again. */
  sessionsOnce: boolean;
  /** A grant is no longer than the rights that it rests on. */
  boundGrants: boolean;
  /** Nothing is committed without a member before the CONFIG record that says so is. */
  holdForConfig: boolean;
  /** What is suspect at a member is told to a new primary. */
  reportSuspects: boolean;
  /** Of a peer's streams only the newest one counts: the others are closed, and what comes on them is dropped. */
  fenceStreams: boolean;
  /** Copies and records travel on one stream, in order. */
  copiesInOrder: boolean;
  /** Who is in sync again keeps nothing of what was suspect before. */
  voidAtFinish: boolean;
}

export const ALL_RULES: Rules = {
  casBeforeAck: true,
  promoteInSyncOnly: true,
  clearOnAck: true,
  redirty: true,
  drainCopies: true,
  drainRecords: true,
  needPromise: true,
  rightFromSending: true,
  noPromiseWhileSeeking: true,
  startUpWait: true,
  newEpoch: true,
  reconcile: true,
  targetSuspects: true,
  handOver: true,
  copyCommitted: true,
  refuseOldEpoch: true,
  readsWait: true,
  sessionsOnce: true,
  boundGrants: true,
  holdForConfig: true,
  reportSuspects: true,
  fenceStreams: true,
  copiesInOrder: true,
  voidAtFinish: true,
  wholeGroups: true,
  replayWholeGroups: true,
  suspectAtSettle: true,
  suspectAtOpen: true,
  journalFirst: true,
  commitFirst: true,
};
