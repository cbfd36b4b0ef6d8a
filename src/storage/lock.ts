/**
 * The exclusive lock of a volume's folder.
 *
 * Three ways, tried in this order: flock(2) through the addon fs-ext, the same kernel lock through flock(1) (see
 * `native-free/`), and claim files where there is neither. The first two are one lock, taken by two hands.
 *
 * Guarantees: at most one holder of a folder, over all ways, also within one process; the lock ends with the process
 * however it dies, and is not inherited by its children; a second opener is told the holder's pid. The file `lock` is
 * never deleted while others may open it: they would lock the old file while a newcomer locks the new one.
 */
import { closeSync, fstatSync, ftruncateSync, openSync, readFileSync, rmSync, statSync, writeSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join, resolve } from 'node:path';
import { claimFolder, isClaimEntry, liveClaim } from '../../native-free/claim-file.ts';
import { type FlockResult, flockByProgram } from '../../native-free/flock.ts';
import { type ProcessIdentity, fateOf, ownIdentity, parseIdentity } from '../../native-free/process-identity.ts';
import { HoldfastError, asHoldfastError } from '../base/errors.ts';

export type LockWay = 'addon' | 'flock' | 'claim';

export interface FolderLock {
  readonly way: LockWay;
  /**
   * Gives the folder back; further calls do nothing. With `remove` the lock's files are deleted first, while they are
   * still held: for a folder that is itself to be deleted.
   */
  release(options?: { remove?: boolean | undefined }): void;
}

export interface LockOptions {
  /** False: leave the addon aside. Default: use it where it loads, unless HOLDFAST_NATIVE is `off`. */
  native?: boolean | undefined;
  /** Program to use as flock(1). Default `flock`, found on the PATH. */
  flockProgram?: string | undefined;
}

const LOCK = 'lock';
const OPERATION = 'lock';
/** A holder writes its name right after it took the lock; a reader in between looks again. */
const NAME_RETRIES = 20;
const NAME_RETRY_MS = 10;
const REOPEN_ATTEMPTS = 10;

/** @returns whether an entry of a volume's folder belongs to its lock */
export function isLockEntry(name: string): boolean {
  return name === LOCK || isClaimEntry(name);
}

/**
 * Locks the folder for this process, without waiting.
 * @throws HoldfastError LOCKED, naming the holder; ACCESS, READ_ONLY, NO_SPACE, IO_ERROR as the file system says
 */
export function lockFolder(dir: string, options: LockOptions = {}): FolderLock {
  const where = resolve(dir);
  try {
    return lockByKernel(where, options) ?? lockByClaim(where);
  } catch (error) {
    throw asHoldfastError(error, { operation: OPERATION, volume: where });
  }
}

/** @returns null when there is no kernel lock to be had */
function lockByKernel(where: string, options: LockOptions): FolderLock | null {
  const path = join(where, LOCK);
  const addon = (options.native ?? process.env['HOLDFAST_NATIVE'] !== 'off') ? loadAddon() : null;
  for (let attempt = 0; attempt < REOPEN_ATTEMPTS; attempt++) {
    // Node opens with O_CLOEXEC, so no child of ours can keep the lock beyond our death.
    const fd = openSync(path, 'a+');
    let keep = false;
    try {
      let way: LockWay = 'addon';
      let result = addon === null ? 'unsupported' : flockByAddon(addon, fd);
      if (result === 'unsupported') {
        way = 'flock';
        result = flockByProgram(fd, options.flockProgram);
      }
      if (result === 'unsupported') return null;
      if (result === 'held') throw locked(where, path, awaitHolder(path), false);
      // First show ourselves, then look for a claim; a claimant does likewise, so one of the two sees the other.
      ftruncateSync(fd);
      writeSync(fd, `${JSON.stringify(ownIdentity())}\n`);
      const claim = liveClaim(where);
      if (claim !== null) {
        ftruncateSync(fd);
        throw locked(where, claim.path, claim.holder, true);
      }
      // A holder that leaves with `remove` may have deleted the file after we opened it. Looked at last: a claimant
      // deletes it before its claim.
      if (!isSameFile(fd, path)) continue;
      keep = true;
      return kernelLock(where, fd, way);
    } finally {
      if (!keep) closeSync(fd);
    }
  }
  throw new Error(`${path} is replaced again and again`);
}

function kernelLock(where: string, fd: number, way: LockWay): FolderLock {
  let held = true;
  return {
    way,
    release: ({ remove = false } = {}) => {
      if (!held) return;
      held = false;
      try {
        if (remove) rmSync(join(where, LOCK), { force: true });
        // So that nobody takes us, alive, for the holder.
        else ftruncateSync(fd);
      } finally {
        closeSync(fd);
      }
    },
  };
}

function lockByClaim(where: string): FolderLock {
  const claim = claimFolder(where);
  if (typeof claim !== 'string') throw locked(where, claim.path, claim.holder, true);
  const path = join(where, LOCK);
  const holder = readHolder(path);
  if (holder !== null && fateOf(holder) !== 'dead') {
    rmSync(claim, { force: true });
    throw locked(where, path, holder, true);
  }
  let held = true;
  return {
    way: 'claim',
    release: ({ remove = false } = {}) => {
      if (!held) return;
      held = false;
      if (remove) rmSync(path, { force: true });
      rmSync(claim, { force: true });
    },
  };
}

/** `deletable`: the file itself is the claim, so deleting it is the way out where the holder's death cannot be seen. */
function locked(where: string, path: string, holder: ProcessIdentity | null, deletable: boolean): HoldfastError {
  const elsewhere = holder !== null && holder.host !== ownIdentity().host ? ` on host ${holder.host}` : '';
  const unseen = holder !== null && fateOf(holder) === 'unknown';
  return new HoldfastError('LOCKED', {
    operation: OPERATION,
    volume: where,
    detail: holder === null ? `${path} is held, its holder left no name` : `held by process ${holder.pid}${elsewhere}`,
    remedy:
      deletable && unseen
        ? `stop that process; if it is certain that it is gone, delete ${path}`
        : 'stop that process, or take another folder',
  });
}

/** The holder of a lock that was just refused to us. */
function awaitHolder(path: string): ProcessIdentity | null {
  let seen: ProcessIdentity | null = null;
  for (let retry = 0; retry < NAME_RETRIES; retry++) {
    seen = readHolder(path);
    if (seen !== null && fateOf(seen) !== 'dead') return seen;
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, NAME_RETRY_MS);
  }
  // A name that stays dead is that of an earlier holder.
  return null;
}

function readHolder(path: string): ProcessIdentity | null {
  try {
    return parseIdentity(readFileSync(path, 'utf8'));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw error;
  }
}

function isSameFile(fd: number, path: string): boolean {
  const held = fstatSync(fd, { bigint: true });
  const named = statSync(path, { bigint: true, throwIfNoEntry: false });
  return named !== undefined && named.ino === held.ino && named.dev === held.dev;
}

/** What we use of fs-ext: its asynchronous calls abort the process when they run in a worker thread. */
interface Addon {
  flockSync(fd: number, flags: 'exnb'): void;
}

function loadAddon(): Addon | null {
  try {
    return createRequire(import.meta.url)('fs-ext') as Addon;
  } catch {
    // Not installed, not built, or built for another Node: it is optional.
    return null;
  }
}

function flockByAddon(addon: Addon, fd: number): FlockResult {
  try {
    addon.flockSync(fd, 'exnb');
    return 'taken';
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? '';
    if (code === 'EAGAIN' || code === 'EWOULDBLOCK') return 'held';
    if (['ENOLCK', 'ENOSYS', 'EOPNOTSUPP', 'ENOTSUP'].includes(code)) return 'unsupported';
    throw error;
  }
}
