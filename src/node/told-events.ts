/** The ADMIN op `events`: entries of the timeline, page by page. */
import type { Happening, Timeline } from './timeline.ts';

/** An answer is to fit into a control message of 64 KiB. */
const PAGE_BYTES = 48 * 1024;

export interface ToldEvents {
  node: string;
  /** Numbers begin anew with it. */
  bootId: string;
  /** The newest number there is; more is to be had while the last of `events` is below. */
  newest: number;
  events: Happening[];
}

/** @param after the last number that is known already, 0 for none */
export function toldEvents(
  { node, bootId, timeline }: { node: string; bootId: string; timeline: Timeline },
  after: number,
): ToldEvents {
  const events: Happening[] = [];
  let bytes = 0;
  for (const happening of timeline.after(after)) {
    bytes += Buffer.byteLength(JSON.stringify(happening));
    if (bytes > PAGE_BYTES) break;
    events.push(happening);
  }
  return { node, bootId, newest: timeline.newest, events };
}
