/** Reads of the index, wherever they are answered. Pure. */
import { type Cell, type KvIndex, valueOf } from './index-of-keys.ts';
import type { Entry, Key, ScanPage, ScanRequest } from './operations.ts';

/** A page of a scan ends at about so many bytes of keys and values. */
export const SCAN_PAGE_BYTES: number = 128 * 1024;
/** Of an entry on the wire, besides key and value. */
export const ENTRY_OVERHEAD_BYTES = 32;

export function entryOf(index: KvIndex, key: Key): Entry | null {
  const cell = index.find(key);
  return cell && toEntry(cell, false);
}

function toEntry(cell: Cell, keysOnly: boolean): Entry {
  const { key, version, expiresAtMs } = cell;
  return { key, value: keysOnly ? null : valueOf(cell), version, expiresAtMs: expiresAtMs === 0 ? null : expiresAtMs };
}

export function scanIndex(index: KvIndex, { prefix, from, end, limit, keysOnly }: ScanRequest): ScanPage {
  const entries: Entry[] = [];
  let bytes = 0;
  for (const key of index.sorted.from(from > prefix ? from : prefix)) {
    if (!key.startsWith(prefix) || (end !== null && key >= end)) break;
    const entry = toEntry(index.find(key)!, keysOnly);
    const size = ENTRY_OVERHEAD_BYTES + key.length + (entry.value?.length ?? 0);
    // A page has one entry at least.
    if (entries.length > 0 && (entries.length >= limit || bytes + size > SCAN_PAGE_BYTES))
      return { entries, next: key };
    entries.push(entry);
    bytes += size;
  }
  return { entries, next: null };
}
