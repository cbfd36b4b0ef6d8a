/**
 * What the handshake needs to know of the volumes that are exported, and what it agrees on. The lookup is handed in;
 * it is asked anew for each option, so volumes may come and go.
 *
 * Guarantees: the names of contexts are made and read in this file alone; the list of contexts of an export is the same
 * for LIST_META_CONTEXT and SET_META_CONTEXT.
 */
import { TRANSMISSION_FLAGS } from './constants.ts';

/** One volume as clients see it. */
export interface NbdExport {
  /** At most 4096 bytes of UTF-8, no NUL, not empty. */
  readonly name: string;
  /** For people. */
  readonly description?: string | undefined;
  readonly sizeBytes: number;
  readonly readOnly: boolean;
  /** Names of the marks since which changes are known: each is a context `qemu:dirty-bitmap:NAME`. */
  readonly marks?: readonly string[] | undefined;
}

export interface NbdExports {
  /** Shown to clients that ask for a list. */
  list(): readonly NbdExport[];
  /** @returns the export of that name, that of the empty name being the default export; null: there is none */
  find(name: string): NbdExport | null;
}

/** A selected metadata context. */
export interface MetaContext {
  /** Number in the replies to BLOCK_STATUS. */
  readonly id: number;
  readonly name: string;
  /** The mark whose changes are meant; null for `base:allocation`. */
  readonly mark: string | null;
}

/** The outcome of a handshake. */
export interface Agreed {
  readonly export: NbdExport;
  readonly structuredReplies: boolean;
  /** Contexts for BLOCK_STATUS; empty where none were selected. */
  readonly contexts: readonly MetaContext[];
  readonly tls: boolean;
}

const ALLOCATION_CONTEXT = 'base:allocation';
const BITMAP_PREFIX = 'qemu:dirty-bitmap:';

/** All contexts of an export, in an order of their own: the id is the place in it, from 1 on. */
export function contextsOf(device: NbdExport): MetaContext[] {
  const marks = (device.marks ?? []).map((mark, index) => ({ id: index + 2, name: BITMAP_PREFIX + mark, mark }));
  return [{ id: 1, name: ALLOCATION_CONTEXT, mark: null }, ...marks];
}

/** Whether LIST_META_CONTEXT names that context: each is named by itself, its namespace, or all bitmaps. */
export function listedBy(queries: ReadonlySet<string>, context: MetaContext): boolean {
  if (queries.size === 0 || queries.has(context.name)) return true;
  return context.mark === null ? queries.has('base:') : queries.has('qemu:') || queries.has(BITMAP_PREFIX);
}

/**
 * The transmission flags of an export. CAN_MULTI_CONN holds because every write is durable, and seen by all
 * connections, when it is answered. A read-only export does not offer the commands that change it.
 */
export function transmissionFlags(device: NbdExport, structuredReplies: boolean): number {
  const f = TRANSMISSION_FLAGS;
  let flags = f.HAS_FLAGS | f.SEND_FLUSH | f.SEND_FUA | f.SEND_CACHE | f.CAN_MULTI_CONN;
  if (device.readOnly) flags |= f.READ_ONLY;
  else flags |= f.SEND_TRIM | f.SEND_WRITE_ZEROES | f.SEND_FAST_ZERO;
  if (structuredReplies) flags |= f.SEND_DF;
  return flags;
}
