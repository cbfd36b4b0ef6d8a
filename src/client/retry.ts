/**
 * When a lost connection is tried again, and which failures are worth it.
 *
 * Guarantees: a delay lies between 20 ms and 2 s, drawn anew each time over its whole range (full jitter), so that a
 * thousand clients of a server that comes back do not come back in one instant. Where another node is about to take over
 * the range stays small for some seconds.
 */
import type { ErrorCode, HoldfastError } from '../base/errors.ts';

const LEAST_DELAY_MS = 20;
const FIRST_RANGE_MS = 200;
const MOST_DELAY_MS = 2_000;
/** While a take-over may be under way, which lasts a second or two. */
const TAKE_OVER_DELAY_MS = 400;
const TAKE_OVER_MS = 10_000;

/** How long a pause may become: `servers` may be asked, and none took the session for so long. */
export function mostDelayMs(servers: number, troubleMs: number): number {
  return servers > 1 && troubleMs < TAKE_OVER_MS ? TAKE_OVER_DELAY_MS : MOST_DELAY_MS;
}

/** Milliseconds before attempt number `attempt` (from 0). `random` lies in [0, 1). */
export function backoffMs(attempt: number, random: number, mostMs = MOST_DELAY_MS): number {
  const rangeMs = Math.min(mostMs, FIRST_RANGE_MS * 2 ** Math.min(attempt, 16));
  return LEAST_DELAY_MS + random * (rangeMs - LEAST_DELAY_MS);
}

/** Answers to HELLO and ATTACH that will be the same next time. */
const FINAL: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  'INVALID_ARGUMENT',
  'NO_SUCH_VOLUME',
  'WRONG_VERSION',
  'UNSUPPORTED',
  'STALE_GENERATION',
  'ACCESS',
  'DAMAGED',
]);

/** Whether another attempt to connect may succeed after that failure. */
export function worthAnotherAttempt(error: HoldfastError): boolean {
  return !FINAL.has(error.code);
}
