/**
 * A node's folder: `node.json` says whose it is, `volumes/NAME` are volumes, `lock` belongs to the process.
 *
 * Guarantees: a folder has one node's name for ever, and one process at a time.
 */
import { mkdir, open, readFile, readdir, rename } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { HoldfastError, asHoldfastError } from '../base/errors.ts';
import { type FolderLock, lockFolder } from '../storage/lock.ts';
import { isVolume } from '../storage/volume-folder.ts';

const FORMAT = 1;
/** With the id of a disk it names a member in records and superblocks, which have 64 bytes for that. */
const MAX_NODE_NAME = 31;

export interface NodeFolder {
  dir: string;
  volumesDir: string;
  /** Folders of volumes, those of unfinished creations left out. */
  volumes: string[];
  lock: FolderLock;
}

/** @throws HoldfastError INVALID_ARGUMENT */
export function checkNodeName(name: string): string {
  if (/^[A-Za-z0-9][A-Za-z0-9._-]*$/.test(name) && name.length <= MAX_NODE_NAME) return name;
  throw new HoldfastError('INVALID_ARGUMENT', {
    operation: 'name node',
    detail: `"${name}" is no name of a node`,
    remedy: `use letters, digits, ".", "_" and "-", at most ${MAX_NODE_NAME}, beginning with a letter or digit`,
  });
}

/** @throws HoldfastError LOCKED, INVALID_ARGUMENT, ACCESS, DAMAGED */
export async function openNodeFolder(dir: string, name: string): Promise<NodeFolder> {
  const where = resolve(dir);
  const operation = 'start the node';
  checkNodeName(name);
  let lock: FolderLock | null = null;
  try {
    const volumesDir = join(where, 'volumes');
    await mkdir(volumesDir, { recursive: true });
    lock = lockFolder(where);
    await claim(where, name);
    const volumes: string[] = [];
    for (const entry of (await readdir(volumesDir)).sort()) {
      if (await isVolume(join(volumesDir, entry))) volumes.push(join(volumesDir, entry));
    }
    return { dir: where, volumesDir, volumes, lock };
  } catch (error) {
    lock?.release();
    throw asHoldfastError(error, { operation, detail: `${where}: ${String(error)}` });
  }
}

async function claim(where: string, name: string): Promise<void> {
  const path = join(where, 'node.json');
  const text = await readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return null;
    throw error;
  });
  if (text !== null) return checkOwner(path, text, name);
  const handle = await open(`${path}.tmp`, 'w');
  try {
    await handle.writeFile(`${JSON.stringify({ format: FORMAT, node: name })}\n`);
    await handle.sync();
  } finally {
    await handle.close();
  }
  await rename(`${path}.tmp`, path);
  const folder = await open(where, 'r');
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}

function checkOwner(path: string, text: string, name: string): void {
  const operation = 'start the node';
  let said: { format?: unknown; node?: unknown } | null;
  try {
    said = JSON.parse(text) as typeof said;
  } catch {
    said = null;
  }
  if (typeof said?.node !== 'string' || typeof said.format !== 'number') {
    throw new HoldfastError('DAMAGED', { operation, detail: `${path} does not say whose folder it is` });
  }
  if (said.format > FORMAT) {
    throw new HoldfastError('WRONG_VERSION', { operation, detail: `${path} is of format ${said.format}` });
  }
  if (said.node === name) return;
  throw new HoldfastError('INVALID_ARGUMENT', {
    operation,
    detail: `${path} says that this is the folder of the node "${said.node}", not of "${name}"`,
    remedy: `start it with --name ${said.node}, or take another --dir`,
  });
}
