/**
 * Room for more blocks in a volume's folder, in two steps: what takes long is prepared beside the volume, which may go on
 * serving meanwhile; then, while it is closed, one rename makes it count.
 *
 * Guarantees: until the rename the volume is as it was, from the rename on it is the larger one, after a crash at any
 * instant too; what a failure or a crash left before the rename is cleared away, by the failure itself or by the next
 * opening; all that the rename makes count was synced before it.
 */
import { type FileHandle, open, rename, rm, stat, truncate, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { freeBytes } from '../../native-free/free-space.ts';
import { HoldfastError, asHoldfastError } from '../base/errors.ts';
import { MiB, formatBytes } from '../base/units.ts';
import type { BlockStore } from './block-store.ts';
import { enlargeMeta } from './enlarged-meta.ts';
import { type Handles, closeAll, exists, fdsOf, openFiles, syncFolder, writeZeros } from './folder-files.ts';
import type { IoPool } from './io-pool.ts';
import { layoutOf } from './layout.ts';
import { lockFolder } from './lock.ts';
import { openMeta } from './open-store.ts';
import { RingFiles } from './ring-files.ts';
import type { Superblock } from './superblock.ts';
import { smaller } from './volume-rules.ts';

/** Present from before the first byte of a growth until its rename is durable: a longer `data` is no damage then. */
const MARKER = 'growing';
/** What `meta` will be. */
const GROWN = 'meta.grown';
/** Kept free on the file system beside what is added. */
const SPARE_BYTES = 16 * MiB;
const OPERATION = 'grow';

/** Where a growth is, for tests that stop it there. */
export type GrowthStep = 'marked' | 'data' | 'meta' | 'prepared' | 'enlarged' | 'renamed' | 'grown';

export interface GrowthOptions {
  toBytes: number;
  /** Called with bytes written of bytes in all. */
  progress?: ((doneBytes: number, totalBytes: number) => void) | undefined;
  signal?: AbortSignal | undefined;
  reached?: ((step: GrowthStep) => void | Promise<void>) | undefined;
}

/**
 * Whether the store may be enlarged to that size.
 * @returns false: it has that room already
 * @throws HoldfastError INVALID_ARGUMENT, TOO_LARGE (the size), DAMAGED, POISONED
 */
export function checkGrowth({ superblock, name }: Pick<BlockStore, 'superblock' | 'name'>, toBytes: number): boolean {
  const { sizeBytes, capacityBytes, health, healthReason, journalBytes } = superblock;
  const where = { operation: OPERATION, volume: name };
  layoutOf(toBytes, journalBytes);
  if (toBytes < sizeBytes) throw smaller(name, sizeBytes, toBytes);
  if (health !== 'good') {
    const remedy = 'a replica is replaced with: holdfast volume replace; a lone volume: holdfast volume check';
    throw new HoldfastError(health === 'damaged' ? 'DAMAGED' : 'POISONED', { ...where, detail: healthReason, remedy });
  }
  return toBytes > capacityBytes;
}

/**
 * The first step: reserves the room, and makes the file that is to become `meta`. The volume is open, by this process.
 * @throws HoldfastError NO_SPACE, ACCESS, IO_ERROR, ABORTED; nothing of it is left then
 */
export async function prepareGrowth(
  { dir, store }: { dir: string; store: Pick<BlockStore, 'superblock' | 'name'> },
  pool: IoPool,
  { toBytes, progress, signal, reached }: GrowthOptions,
): Promise<void> {
  const { capacityBytes, journalBytes, sparse } = store.superblock;
  const layout = layoutOf(toBytes, journalBytes);
  const [data, grown] = [join(dir, 'data'), join(dir, GROWN)];
  const addedBytes = toBytes - capacityBytes;
  const total = sparse ? 0 : addedBytes + layout.metaBytes;
  try {
    await clear(dir, capacityBytes);
    const free = await freeBytes(dir);
    if (free < total + SPARE_BYTES) throw noSpace(store.name, dir, total + SPARE_BYTES, free);
    await writeFile(join(dir, MARKER), `${JSON.stringify({ pid: process.pid, toBytes })}\n`, { flush: true });
    await syncFolder(dir);
    await reached?.('marked');
    let done = 0;
    const wrote = (bytes: number): void => progress?.((done += bytes), total);
    if (sparse) await truncate(data, toBytes);
    else await writeZeros(data, { fromBytes: capacityBytes, toBytes }, pool, signal, wrote);
    await syncFile(data);
    await reached?.('data');
    const made = await open(grown, 'wx+');
    try {
      if (sparse) await made.truncate(layout.metaBytes);
      await made.sync();
    } finally {
      await made.close();
    }
    if (!sparse) await writeZeros(grown, { fromBytes: 0, toBytes: layout.metaBytes }, pool, signal, wrote);
    await reached?.('meta');
    await syncFolder(dir);
    await reached?.('prepared');
  } catch (error) {
    await clear(dir, capacityBytes).catch(() => {});
    const known = asHoldfastError(error, { operation: OPERATION, volume: store.name });
    if (known.code !== 'NO_SPACE' || known.details.remedy !== undefined) throw known;
    throw noSpace(store.name, dir, total + SPARE_BYTES, await freeBytes(dir));
  }
}

function noSpace(volume: string, dir: string, neededBytes: number, free: number): HoldfastError {
  return new HoldfastError('NO_SPACE', {
    operation: OPERATION,
    volume,
    detail: `${dir} needs ${formatBytes(neededBytes)} more, ${formatBytes(free)} are free; the volume keeps its size`,
    remedy: 'free space on that file system, or take a smaller --size; then give the command again',
  });
}

/**
 * The second step: what was prepared counts. The volume is closed.
 * @throws HoldfastError; the volume is as it was then, and its next opening clears away what is left
 */
export async function switchGrowth(
  dir: string,
  pool: IoPool,
  { toBytes, reached }: Pick<GrowthOptions, 'toBytes' | 'reached'>,
): Promise<Superblock> {
  const where = resolve(dir);
  const lock = lockFolder(where);
  let handles: Handles | null = null;
  let grown: FileHandle | null = null;
  try {
    if (!(await exists(join(where, MARKER))) || !(await exists(join(where, GROWN)))) throw notPrepared(where);
    handles = await openFiles(where);
    grown = await open(join(where, GROWN), 'r+');
    const fds = fdsOf(handles);
    const fromMetaBytes = (await handles.meta.stat()).size;
    const [dataBytes, metaBytes] = [(await handles.data.stat()).size, (await grown.stat()).size];
    const from = new RingFiles(pool, fds, where);
    const to = new RingFiles(pool, { ...fds, meta: grown.fd }, where);
    const journalBytes = (await handles.journal.stat()).size;
    if (dataBytes !== toBytes || metaBytes !== layoutOf(toBytes, journalBytes).metaBytes) throw notPrepared(where);
    const superblock = await enlargeMeta({ from, to, fromMetaBytes, toBytes, where });
    await reached?.('enlarged');
    await rename(join(where, GROWN), join(where, 'meta'));
    await reached?.('renamed');
    await syncFolder(where);
    await rm(join(where, MARKER));
    await syncFolder(where);
    await reached?.('grown');
    return superblock;
  } catch (error) {
    throw asHoldfastError(error, { operation: OPERATION, volume: where });
  } finally {
    await grown?.close();
    if (handles !== null) await closeAll(handles);
    lock.release();
  }
}

function notPrepared(volume: string): HoldfastError {
  const remedy = 'give the command again: it begins anew where it has to';
  return new HoldfastError('INVALID_ARGUMENT', { operation: OPERATION, volume, detail: 'it is not prepared', remedy });
}

/** What was prepared is given up. */
export async function abandonGrowth({ dir, store }: { dir: string; store: BlockStore }): Promise<void> {
  if (await exists(join(dir, MARKER))) await clear(dir, store.superblock.capacityBytes);
}

/** At an opening: what a crash left of a growth goes, whether it had come to count or not. */
export async function clearGrowth(dir: string, pool: IoPool, handles: Handles): Promise<void> {
  if (!(await exists(join(dir, MARKER)))) return;
  const meta = (await handles.meta.stat()).size;
  const opened = await openMeta(new RingFiles(pool, fdsOf(handles), dir), { sizes: { meta }, where: dir });
  opened.meta.close();
  await clear(dir, opened.superblock.capacityBytes);
}

async function clear(dir: string, capacityBytes: number): Promise<void> {
  const data = join(dir, 'data');
  await rm(join(dir, GROWN), { force: true });
  if ((await stat(data)).size > capacityBytes) {
    await truncate(data, capacityBytes);
    await syncFile(data);
  }
  await syncFolder(dir);
  await rm(join(dir, MARKER), { force: true });
  await syncFolder(dir);
}

async function syncFile(path: string): Promise<void> {
  const handle = await open(path, 'r+');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
