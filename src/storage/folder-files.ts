/** The three files of a volume's folder: opened and closed together, written full of zeros, and their names made durable. */
import { constants } from 'node:fs';
import { type FileHandle, open, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { MAX_IO_BLOCKS, MAX_IO_BYTES } from '../base/units.ts';
import type { Slot } from './arena.ts';
import type { FileName } from './files.ts';
import type { IoPool } from './io-pool.ts';

export const FILES: readonly FileName[] = ['data', 'journal', 'meta'];

/**
 * Writes zeros past the page cache where the file system can: a cache filled by large writes holds large folios, and
 * each later 4 KiB write into one of those was measured to cost the kernel 15 µs more than into a small one.
 */
export async function writeZeros(
  path: string,
  range: { fromBytes: number; toBytes: number },
  pool: IoPool,
  signal: AbortSignal | undefined,
  wrote: (bytes: number) => void,
): Promise<void> {
  let slot: Slot | null;
  // Of a node that serves all of it may be in use just now.
  while ((slot = pool.arena.take(MAX_IO_BLOCKS)) === null) {
    await new Promise<void>((resolve) => pool.arena.whenFree(MAX_IO_BLOCKS, resolve));
    signal?.throwIfAborted();
  }
  let handle = await open(path, constants.O_RDWR | constants.O_DIRECT).catch(() => null);
  handle ??= await open(path, 'r+');
  try {
    const zeros = slot.payload.subarray(0, MAX_IO_BYTES).fill(0);
    for (let at = range.fromBytes; at < range.toBytes;) {
      signal?.throwIfAborted();
      const count = Math.min(zeros.length, range.toBytes - at);
      const written = await handle.write(zeros, 0, count, at).catch(async (error: NodeJS.ErrnoException) => {
        if (error.code !== 'EINVAL') throw error;
        // Opened, but this file system takes no direct writes after all.
        await handle!.close();
        handle = await open(path, 'r+');
        return handle.write(zeros, 0, count, at);
      });
      at += written.bytesWritten;
      wrote(written.bytesWritten);
    }
    await handle.sync();
  } finally {
    pool.arena.release(slot);
    await handle.close();
  }
}

export type Handles = Record<FileName, FileHandle>;

export async function openFiles(where: string): Promise<Handles> {
  const handles: Partial<Handles> = {};
  try {
    for (const file of FILES) handles[file] = await open(join(where, file), 'r+');
  } catch (error) {
    await closeAll(handles as Handles);
    throw error;
  }
  return handles as Handles;
}

export function fdsOf(handles: Handles): Record<FileName, number> {
  return { data: handles.data.fd, journal: handles.journal.fd, meta: handles.meta.fd };
}

export async function closeAll(handles: Handles): Promise<void> {
  for (const file of FILES) await handles[file]?.close();
}

export async function syncFolder(dir: string): Promise<void> {
  const handle = await open(dir, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

export async function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  );
}
