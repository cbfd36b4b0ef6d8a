/** Free bytes of a file system, by Node's own statfs: replaces the addon's statVFS. */
import { statfs } from 'node:fs/promises';

/** @returns bytes that an unprivileged process may still write on the file system of `path` */
export async function freeBytes(path: string): Promise<number> {
  const { bavail, bsize } = await statfs(path);
  return bavail * bsize;
}
