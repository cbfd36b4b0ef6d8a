/**
 * The tables of a volume that gets room for more blocks, written anew as another `meta`: the pages are the same, bit for
 * bit in their bodies, at other places, because the bitmaps between them have become longer. Pure but for the injected
 * `Files`. docs/on-disk-format.md, "Growing", has the picture.
 *
 * Guarantees: the old `meta` is only read; when this returns the new one is whole and synced, in both of its superblock
 * slots; a page that does not verify stops it: damage is not carried over as if it were sound.
 */
import { HoldfastError } from '../base/errors.ts';
import type { Files } from './files.ts';
import { type Layout, layoutOf } from './layout.ts';
import { MetaPages } from './meta-pages.ts';
import { openMeta } from './open-store.ts';
import type { Superblock } from './superblock.ts';

/** Pages that are read, then written, at a time: their memory. */
const CHUNK_PAGES = 1024;

/** Where a tracked page lies when there is room for more blocks. */
export function movedPage(page: number, from: Layout, to: Layout): number {
  if (page < from.bitmapFirstPage) return page;
  if (page >= from.checksumFirstPage) return to.checksumFirstPage + (page - from.checksumFirstPage);
  const inBitmaps = page - from.bitmapFirstPage;
  const slot = Math.floor(inBitmaps / from.pagesPerBitmap);
  return to.bitmapFirstPage + slot * to.pagesPerBitmap + (inBitmaps % from.pagesPerBitmap);
}

export interface Enlargement {
  /** Its `meta` is the old one. */
  from: Files;
  /** Its `meta` is the new one: zeros, of the length that the new layout asks for. */
  to: Files;
  /** Length of the old one. */
  fromMetaBytes: number;
  toBytes: number;
  /** For messages. */
  where: string;
}

/** @throws HoldfastError DAMAGED, POISONED, NOT_A_VOLUME, WRONG_VERSION */
export async function enlargeMeta({ from, to, fromMetaBytes, toBytes, where }: Enlargement): Promise<Superblock> {
  const opened = await openMeta(from, { sizes: { meta: fromMetaBytes }, where });
  const { superblock: found, layout, meta } = opened;
  let target: MetaPages | null = null;
  try {
    const wider = layoutOf(toBytes, found.journalBytes);
    target = MetaPages.fresh(to, wider, found.volumeId);
    // A lone volume has the size that it has room for; that of a group is what its register says.
    const sizeBytes = found.replica.state === 'solo' ? toBytes : found.sizeBytes;
    let next: Superblock = { ...found, sizeBytes, capacityBytes: toBytes };
    for (let first = 0; first < layout.trackedPages; first += CHUNK_PAGES) {
      const bodies = new Map<number, Uint8Array>();
      await meta.load(first, Math.min(CHUNK_PAGES, layout.trackedPages - first), (page, body) => {
        if (body === null) throw damaged(where, page);
        bodies.set(movedPage(page, layout, wider), body.slice());
      });
      if (bodies.size === 0) continue;
      next = { ...next, sequence: next.sequence + 1 };
      await target.commit(next, [...bodies.keys()], (page, into) => into.set(bodies.get(page)!));
    }
    // Both slots are to be right: one that is not would be taken for the newer one, lost.
    for (let slot = 0; slot < 2; slot++) {
      next = { ...next, sequence: next.sequence + 1 };
      await target.commit(next, [], () => {});
    }
    return next;
  } finally {
    meta.close();
    target?.close();
  }
}

function damaged(where: string, page: number): HoldfastError {
  return new HoldfastError('DAMAGED', {
    operation: 'grow',
    volume: where,
    detail: `page ${page} of its meta does not verify`,
    remedy: 'see holdfast volume check; a replica is replaced with: holdfast volume replace',
  });
}
