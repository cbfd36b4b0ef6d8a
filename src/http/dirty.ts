/** What members of volumes that this node is primary of lack, stretch by stretch. */
import type { HostedVolume } from '../node/hosted-volume.ts';

export const MAX_CELLS = 1024;

export interface Dirty {
  atMs: number;
  volume: string;
  volumeId: string;
  member: string;
  blocks: number;
  dirtyBlocks: number;
  cellBlocks: number;
  cells: number[];
}

/** Null: this node is not the primary, or keeps no note of what that member lacks. */
export function dirtyOf(hosted: HostedVolume, member: string, most: number = MAX_CELLS): Dirty | null {
  const bitmap = hosted.isPrimary ? hosted.dirtyOf(member) : null;
  if (bitmap === null) return null;
  const { name: volume, volumeId, store } = hosted;
  const about = { atMs: Date.now(), volume, volumeId, member, blocks: store.blocks };
  return { ...about, dirtyBlocks: bitmap.count, ...bitmap.cells(most) };
}

/** That there is nothing left of it. */
export function cleanOf({ volume, volumeId, member, blocks, cellBlocks, cells }: Dirty): Dirty {
  const about = { atMs: Date.now(), volume, volumeId, member, blocks };
  return { ...about, dirtyBlocks: 0, cellBlocks, cells: cells.map(() => 0) };
}

/** Members that are not in sync, of all volumes that this node is primary of. */
export function behind(hosted: HostedVolume): string[] {
  const { known } = hosted.register;
  if (!hosted.isPrimary || known === null) return [];
  return known.members.map(({ node }) => node).filter((node) => !known.inSync.includes(node));
}
