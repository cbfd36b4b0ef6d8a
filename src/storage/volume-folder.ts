/**
 * A volume's folder on a real file system: `data`, `journal`, `meta`, and the lock.
 *
 * Guarantees: creation checks free space first, writes every block of what it reserves, shows how far it is, and is all
 * or nothing: after a failure or a crash there is no volume, and the next creation clears away what was left; an open
 * folder belongs to one process.
 */
import { randomBytes } from 'node:crypto';
import { mkdir, open, readdir, rm, rmdir, writeFile } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { freeBytes } from '../../native-free/free-space.ts';
import { HoldfastError, asHoldfastError } from '../base/errors.ts';
import type { DiskMeter } from '../base/meters.ts';
import { BLOCK_BYTES, MiB, formatBytes } from '../base/units.ts';
import type { BlockStore } from './block-store.ts';
import { FILES, type Handles, closeAll, exists, fdsOf, openFiles, syncFolder, writeZeros } from './folder-files.ts';
import { clearGrowth } from './growth.ts';
import type { IoPool } from './io-pool.ts';
import { defaultJournalBytes, layoutOf } from './layout.ts';
import { type FolderLock, isLockEntry, lockFolder } from './lock.ts';
import { formatStore, openStore } from './open-store.ts';
import type { Recovered } from './recovery.ts';
import { RingFiles } from './ring-files.ts';
import type { ReplicaInfo, VolumeKind } from './superblock.ts';
import { checkVolumeName } from './volume-rules.ts';

/** Present while a creation is under way, or after one that was cut off. */
const MARKER = 'creating';
/** Kept free on the file system beside the volume itself. */
const SPARE_BYTES = 16 * MiB;

export interface CreateOptions {
  sizeBytes: number;
  /** Default: as the folder is called. */
  name?: string | undefined;
  journalBytes?: number | undefined;
  /** Reserve nothing for `data` and `meta`. */
  sparse?: boolean | undefined;
  durable?: boolean | undefined;
  /** Default: `block`. */
  kind?: VolumeKind | undefined;
  /** 16 bytes. Default: drawn. */
  volumeId?: Uint8Array | undefined;
  /** 16 bytes. Default: drawn. */
  diskId?: Uint8Array | undefined;
  /** What the disk is to its group. Default: the only copy. */
  replica?: ReplicaInfo | undefined;
  /** Called with bytes written of bytes in all. */
  progress?: ((doneBytes: number, totalBytes: number) => void) | undefined;
  signal?: AbortSignal | undefined;
}

export async function isVolume(dir: string): Promise<boolean> {
  return (await exists(join(dir, 'meta'))) && !(await exists(join(dir, MARKER)));
}

/**
 * Makes a volume in `dir`, which is created if need be and must hold nothing else.
 * @throws HoldfastError EXISTS, NO_SPACE, INVALID_ARGUMENT, ACCESS, READ_ONLY, LOCKED
 */
export async function createVolume(dir: string, pool: IoPool, options: CreateOptions): Promise<void> {
  const where = resolve(dir);
  const operation = 'create';
  const name = checkVolumeName(options.name ?? basename(where));
  const layout = layoutOf(options.sizeBytes, options.journalBytes ?? defaultJournalBytes(options.sizeBytes));
  const sparse = options.sparse ?? false;
  const sizes = { data: layout.sizeBytes, journal: layout.journalBytes, meta: layout.metaBytes };
  let madeFolder = false;
  let lock: FolderLock | null = null;
  try {
    madeFolder = (await mkdir(where, { recursive: true })) !== undefined;
    lock = lockFolder(where);
    await clearLeftovers(where, operation);
    const needed = SPARE_BYTES + sizes.journal + (sparse ? 0 : sizes.data + sizes.meta);
    const free = await freeBytes(where);
    if (free < needed) {
      throw new HoldfastError('NO_SPACE', {
        operation,
        volume: where,
        detail: `it needs ${formatBytes(needed)}, ${formatBytes(free)} are free`,
        remedy: 'free space, or take a smaller --size (or --allow-sparse for a test volume)',
      });
    }
    await writeFile(join(where, MARKER), `${JSON.stringify({ pid: process.pid, name })}\n`, { flush: true });
    await syncFolder(where);
    const total = sizes.journal + (sparse ? 0 : sizes.data + sizes.meta);
    let done = 0;
    for (const file of FILES) {
      const path = join(where, file);
      const handle = await open(path, 'wx+');
      try {
        if (sparse && file !== 'journal') await handle.truncate(sizes[file]);
        await handle.sync();
      } finally {
        await handle.close();
      }
      if (sparse && file !== 'journal') continue;
      const range = { fromBytes: 0, toBytes: sizes[file] };
      await writeZeros(path, range, pool, options.signal, (bytes) => options.progress?.((done += bytes), total));
    }
    const handles = await openFiles(where);
    try {
      await formatStore(new RingFiles(pool, fdsOf(handles), where), {
        volumeId: options.volumeId ?? randomBytes(16),
        diskId: options.diskId ?? randomBytes(16),
        name,
        sizeBytes: layout.sizeBytes,
        journalBytes: layout.journalBytes,
        createdAtMs: Date.now(),
        sparse,
        durable: options.durable ?? true,
        kind: options.kind ?? 'block',
        ...(options.replica !== undefined && { replica: options.replica }),
      });
    } finally {
      await closeAll(handles);
    }
    await rm(join(where, MARKER));
    await syncFolder(where);
    await syncFolder(dirname(where));
  } catch (error) {
    // Only what this call made is removed: the marker says that the files are ours.
    if (lock !== null && (await exists(join(where, MARKER)))) await removeFiles(where).catch(() => {});
    lock?.release({ remove: madeFolder });
    if (madeFolder && lock !== null) await rmdir(where).catch(() => {});
    throw asHoldfastError(error, { operation, volume: where });
  }
  lock.release();
}

/** Refuses a folder with anything in it but what an unfinished creation left, and clears that away. */
async function clearLeftovers(where: string, operation: string): Promise<void> {
  const entries = (await readdir(where)).filter((entry) => !isLockEntry(entry) && entry !== 'lost+found');
  if (entries.includes(MARKER)) return removeFiles(where);
  if (entries.length === 0) return;
  throw new HoldfastError('EXISTS', {
    operation,
    volume: where,
    detail: entries.includes('meta') ? 'there is a volume in this folder' : `the folder holds ${entries[0]}`,
    remedy: 'take another folder, or move its content away',
  });
}

async function removeFiles(where: string): Promise<void> {
  for (const file of FILES) await rm(join(where, file), { force: true });
  await rm(join(where, MARKER), { force: true });
  await syncFolder(where);
}

export interface OpenVolumeOptions {
  durable?: boolean | undefined;
  /** Called while the journal is replayed, with bytes done. */
  progress?: ((bytes: number) => void) | undefined;
}

/** An open volume: its store, and what recovery found. `close` closes store, files and lock. */
export interface OpenVolume {
  dir: string;
  store: BlockStore;
  recovered: Recovered | null;
  damagedPages: number;
  readonly meter: DiskMeter;
  /** Closes everything; a store that failed is left as it is. */
  close(): Promise<void>;
}

/** @throws HoldfastError NOT_A_VOLUME, LOCKED, DAMAGED, WRONG_VERSION, ACCESS, READ_ONLY */
export async function openVolume(dir: string, pool: IoPool, options: OpenVolumeOptions = {}): Promise<OpenVolume> {
  const where = resolve(dir);
  const operation = 'open';
  if (await exists(join(where, MARKER))) {
    throw new HoldfastError('NOT_A_VOLUME', {
      operation,
      volume: where,
      detail: 'its creation was not finished',
      remedy: 'create it again; what was left is cleared away then',
    });
  }
  if (!(await exists(join(where, 'meta')))) {
    throw new HoldfastError('NOT_A_VOLUME', {
      operation,
      volume: where,
      detail: 'there is no file `meta` in this folder',
      remedy: `create a volume first: holdfast volume create ${dir} --size 1GiB`,
    });
  }
  let lock: FolderLock | null = null;
  let handles: Handles | null = null;
  try {
    lock = lockFolder(where);
    handles = await openFiles(where);
    const opened = handles;
    const held = lock;
    await clearGrowth(where, pool, opened);
    const sizes = {
      data: (await opened.data.stat()).size,
      journal: (await opened.journal.stat()).size,
      meta: (await opened.meta.stat()).size,
    };
    const files = new RingFiles(pool, fdsOf(opened), where, Math.floor(sizes.data / BLOCK_BYTES));
    const { store, recovered, damagedPages } = await openStore(files, {
      sizes,
      defer: setImmediate,
      where,
      durable: options.durable,
      progress: options.progress,
    });
    const close = async (): Promise<void> => {
      try {
        await store.close();
      } finally {
        await closeAll(opened);
        held.release();
      }
    };
    return { dir: where, store, recovered, damagedPages, meter: files.meter, close };
  } catch (error) {
    if (handles !== null) await closeAll(handles);
    lock?.release();
    throw asHoldfastError(error, {
      operation,
      volume: where,
      remedy: 'the folder and its files must be readable and writable by this user, and not on a read-only mount',
    });
  }
}
