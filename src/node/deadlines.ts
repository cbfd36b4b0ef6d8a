/** The deadline that a request brings with it, from when it arrived. */
import type { FrameHeader } from '../protocol/frame.ts';
import type { Expired } from '../replication/served-volume.ts';

/** Point in time of performance.now(), Infinity: none. */
export function deadlineOf({ deadlineMs }: Pick<FrameHeader, 'deadlineMs'>): number {
  return deadlineMs === 0 ? Infinity : performance.now() + deadlineMs;
}

export function expiryOf(h: Pick<FrameHeader, 'deadlineMs'>): Expired | undefined {
  if (h.deadlineMs === 0) return undefined;
  const deadlineAtMs = deadlineOf(h);
  return () => performance.now() > deadlineAtMs;
}
