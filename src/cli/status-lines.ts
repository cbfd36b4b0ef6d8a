/** What `holdfast status` says of one replica, in words. Guarantees: every text is one line. */
import { formatBytes } from '../base/units.ts';
import type { MemberView } from './cluster-status.ts';

/** `40 s`, `3 min 20 s`, `2 h 5 min`. */
export function formatSpan(ms: number): string {
  const seconds = Math.ceil(ms / 1000);
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
  return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
}

/** How long a reintegration will take at the rate of its last second; null: there is no rate yet. */
export function leftMsOf({ sync }: Pick<MemberView, 'sync'>): number | null {
  if (sync === null || sync.bytesPerSecond <= 0) return null;
  return (sync.leftBytes / sync.bytesPerSecond) * 1000;
}

/** `b is syncing, about 20 s left`: for the first line, which is to say until when. */
export function whyOf(member: MemberView): string {
  const leftMs = member.state === 'syncing' ? leftMsOf(member) : null;
  return `${member.node} is ${member.state}${leftMs === null ? '' : `, about ${formatSpan(leftMs)} left`}`;
}

/** The one command that helps; null: there is none, or none is needed. */
export function remedyOf(volume: string, member: MemberView, others: readonly MemberView[]): string | null {
  const bad = member.state === 'poisoned' || member.state === 'damaged';
  // The primary is copying everything onto it: it will be good by itself.
  if (!bad || member.sync !== null) return null;
  if (!others.some(({ node, state }) => node !== member.node && state === 'in-sync')) return null;
  return `holdfast volume replace ${volume} ${member.node}`;
}

/** Progress of the search for rotten blocks; empty: it is not done. */
export function scrubText({ scrub, repairedBlocks }: Pick<MemberView, 'scrub' | 'repairedBlocks'>): string {
  const parts: string[] = [];
  if (scrub !== null) {
    const { doneBytes, totalBytes, passes, foundBlocks, measuredBytesPerSecond: rate } = scrub;
    const percent = totalBytes === 0 ? 100 : Math.floor((doneBytes / totalBytes) * 100);
    // A node of before says no rate.
    const speed = typeof rate === 'number' ? ` at ${formatBytes(rate)}/s` : '';
    parts.push(`scrub ${percent} % of pass ${passes + 1}${speed}`);
    if (foundBlocks > 0) parts.push(`${foundBlocks} bad ${foundBlocks === 1 ? 'block' : 'blocks'} met in it`);
  }
  if (repairedBlocks !== null && repairedBlocks > 0) {
    parts.push(`${repairedBlocks} ${repairedBlocks === 1 ? 'block' : 'blocks'} repaired`);
  }
  return parts.join(', ');
}

/** What stands behind a replica's state. */
export function detailOf(member: MemberView): string {
  const { sync, dirtyBytes, waits, reason, remedy, state } = member;
  if (sync !== null) {
    const { phase, pass, leftBytes, bytesPerSecond } = sync;
    const leftMs = leftMsOf(member);
    const left = leftMs === null ? '' : `, ${formatSpan(leftMs)} left`;
    return `${phase}, pass ${pass}, ${formatBytes(leftBytes)} left, ${formatBytes(bytesPerSecond)}/s${left}`;
  }
  const parts = [
    dirtyBytes === null || dirtyBytes === 0 ? null : `${formatBytes(dirtyBytes)} to bring`,
    reason,
    waits === null || waits === '' || reason !== null ? null : `waits: ${waits}`,
    state === 'in-sync' ? scrubText(member) || null : null,
    remedy === null ? null : `to replace it: ${remedy}`,
  ];
  return parts.filter((part) => part !== null).join('. ');
}
