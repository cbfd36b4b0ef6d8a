/**
 * Where everything lies in a volume's three files, and the limits that depend on each other, asserted here against
 * each other. docs/on-disk-format.md describes the same for readers.
 */
import assert from 'node:assert/strict';
import { HoldfastError } from '../base/errors.ts';
import { BLOCK_BYTES, GiB, MAX_IO_BYTES, MAX_VOLUME_BYTES, MiB, formatBytes } from '../base/units.ts';

export const FORMAT_VERSION = 1;
export const PAGE_BYTES = 4096;
/** Each page of `meta` begins with CRC, page number, generation and volume id. */
export const PAGE_HEADER_BYTES = 32;
export const PAGE_BODY_BYTES = PAGE_BYTES - PAGE_HEADER_BYTES;
export const CHECKSUMS_PER_PAGE = PAGE_BODY_BYTES / 4;
export const BITS_PER_PAGE = PAGE_BODY_BYTES * 8;
/** Two bits per tracked page: never written, or which of its two slots is current. */
export const STATES_PER_MAP_PAGE = PAGE_BODY_BYTES * 4;
/** Tracked pages lie in groups: 64 first slots, 64 second slots, so that neighbours are written in one go. */
export const PAGES_PER_GROUP = 64;

export const BITMAP_SLOTS = 16;
/** The bitmap slot that holds the blocks still owed zeros. */
export const OWED_SLOT = 0;

export const MAX_SESSIONS = 1024;
/** Requests of a session that may be outstanding: the width of its window. */
export const SESSION_WINDOW = 1024;
export const SESSION_BYTES = 176;
export const SESSIONS_PER_PAGE = Math.floor((PAGE_BODY_BYTES - 32) / SESSION_BYTES);
export const SESSION_PAGES = Math.ceil(MAX_SESSIONS / SESSIONS_PER_PAGE);

/** Records lie on such boundaries within a batch; batches on pages. */
export const RECORD_ALIGN_BYTES = 64;
export const MAX_BATCH_BYTES = 4 * MiB;
export const MAX_BATCH_RECORDS = 1000;

export interface Layout {
  sizeBytes: number;
  blocks: number;
  journalBytes: number;
  /** Tracked pages: sessions, then bitmaps, then checksums. */
  bitmapFirstPage: number;
  pagesPerBitmap: number;
  checksumFirstPage: number;
  trackedPages: number;
  mapPages: number;
  /** Bytes of one superblock slot: the superblock's page, then the page map. */
  superblockSlotBytes: number;
  metaBytes: number;
  /** Client records may fill the journal up to here. */
  clientRoomBytes: number;
  /** A checkpoint begins when so much of the journal is in use. */
  checkpointAtBytes: number;
  /** Records that are not committed may take so much. */
  uncommittedBytes: number;
}

/** Uncommitted records may take an eighth of the journal, and the largest two have to fit into that. */
export const MIN_JOURNAL_BYTES = 8 * 2 * MAX_IO_BYTES;

/** An eighth of the volume, at least 128 MiB, at most 1 GiB. */
export function defaultJournalBytes(sizeBytes: number): number {
  const eighth = Math.ceil(sizeBytes / 8 / PAGE_BYTES) * PAGE_BYTES;
  return Math.min(Math.max(eighth, 128 * MiB), GiB);
}

/** @throws HoldfastError INVALID_ARGUMENT for a size that no volume can have */
export function layoutOf(sizeBytes: number, journalBytes: number = defaultJournalBytes(sizeBytes)): Layout {
  if (!Number.isSafeInteger(sizeBytes) || sizeBytes < BLOCK_BYTES || sizeBytes % BLOCK_BYTES !== 0) {
    throw new HoldfastError('INVALID_ARGUMENT', {
      operation: 'volume layout',
      detail: `${sizeBytes} bytes is no volume size`,
      remedy: `take a multiple of ${BLOCK_BYTES} bytes`,
    });
  }
  if (sizeBytes > MAX_VOLUME_BYTES) {
    throw new HoldfastError('TOO_LARGE', {
      operation: 'volume layout',
      detail: `${formatBytes(sizeBytes)} is larger than the limit of ${formatBytes(MAX_VOLUME_BYTES)}`,
    });
  }
  if (!Number.isSafeInteger(journalBytes) || journalBytes % PAGE_BYTES !== 0 || journalBytes < MIN_JOURNAL_BYTES) {
    throw new HoldfastError('INVALID_ARGUMENT', {
      operation: 'volume layout',
      detail: `${journalBytes} bytes is no journal size`,
      remedy: `take a multiple of ${PAGE_BYTES} bytes, at least ${MIN_JOURNAL_BYTES}`,
    });
  }
  const blocks = sizeBytes / BLOCK_BYTES;
  const pagesPerBitmap = Math.ceil(blocks / BITS_PER_PAGE);
  const bitmapFirstPage = SESSION_PAGES;
  const checksumFirstPage = bitmapFirstPage + BITMAP_SLOTS * pagesPerBitmap;
  const trackedPages = checksumFirstPage + Math.ceil(blocks / CHECKSUMS_PER_PAGE);
  const mapPages = Math.ceil(trackedPages / STATES_PER_MAP_PAGE);
  const superblockSlotBytes = (1 + mapPages) * PAGE_BYTES;
  const groups = Math.ceil(trackedPages / PAGES_PER_GROUP);
  const layout: Layout = {
    sizeBytes,
    blocks,
    journalBytes,
    bitmapFirstPage,
    pagesPerBitmap,
    checksumFirstPage,
    trackedPages,
    mapPages,
    superblockSlotBytes,
    metaBytes: 2 * superblockSlotBytes + groups * 2 * PAGES_PER_GROUP * PAGE_BYTES,
    clientRoomBytes: floorPage(journalBytes * 0.75),
    checkpointAtBytes: floorPage(journalBytes * 0.375),
    uncommittedBytes: floorPage(journalBytes / 8),
  };
  // While a checkpoint runs, writers fill the room between its start and the client limit; the uncommitted part can
  // never be passed by the tail, so it has to fit beside a checkpoint; a batch has to fit in what is kept free.
  assert(layout.checkpointAtBytes + layout.uncommittedBytes <= layout.clientRoomBytes);
  assert(layout.uncommittedBytes >= 2 * MAX_IO_BYTES, 'the journal is too small for its largest records');
  assert(layout.clientRoomBytes + MAX_IO_BYTES * 2 <= journalBytes);
  return layout;
}

/** Position in `meta` of a tracked page's slot 0 or 1. */
export function pagePosition(layout: Layout, page: number, slot: number): number {
  const group = Math.floor(page / PAGES_PER_GROUP);
  return (
    2 * layout.superblockSlotBytes +
    (group * 2 * PAGES_PER_GROUP + slot * PAGES_PER_GROUP + (page % PAGES_PER_GROUP)) * PAGE_BYTES
  );
}

function floorPage(bytes: number): number {
  return Math.floor(bytes / PAGE_BYTES) * PAGE_BYTES;
}
