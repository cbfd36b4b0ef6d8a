/**
 * A folder lock where neither the addon nor flock(1) is to be had: files that name those who claim the folder.
 *
 * Each claim has a name of its own and appears whole. A process first looks for a claim whose holder may live, then makes
 * its own, then looks again: of two that claim at once at least one sees the other, and steps back. A claim is only ever
 * deleted by its maker, or when its maker is proved dead; as no name is used twice, that cannot hit a living one.
 *
 * Guarantees: of several processes at most one holds the folder, and one that lives is never displaced. Weaker than a
 * kernel lock in one point: where the death of a holder cannot be seen, on another host, its claim stands until somebody
 * deletes it.
 */
import { randomUUID } from 'node:crypto';
import { readFileSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type ProcessIdentity, fateOf, ownIdentity, parseIdentity } from './process-identity.ts';

const CLAIM = 'lock.claim-';
/** A claim that is being written. */
const DRAFT = 'lock.draft-';
const ATTEMPTS = 20;
/** Those who stepped back before each other try again after up to so long. */
const RETRY_MS = 20;

export interface Held {
  /** Path of the file that names the holder. */
  readonly path: string;
  readonly holder: ProcessIdentity;
}

/** @returns whether a folder entry belongs to this way of locking */
export function isClaimEntry(name: string): boolean {
  return name.startsWith(CLAIM) || name.startsWith(DRAFT);
}

/** A claim whose holder lives or may live; `except`: the path of one's own. */
export function liveClaim(dir: string, except = ''): Held | null {
  for (const path of entries(dir, CLAIM)) {
    if (path === except) continue;
    const holder = holderOf(path);
    if (holder !== null && fateOf(holder) !== 'dead') return { path, holder };
  }
  return null;
}

/**
 * Claims the folder without waiting for a holder.
 * @returns the path of the claim, to be deleted to release it; or who holds the folder
 * @throws Error of the file system
 */
export function claimFolder(dir: string): string | Held {
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    const held = liveClaim(dir);
    if (held !== null) return held;
    const path = makeClaim(dir);
    if (path === null) continue;
    if (liveClaim(dir, path) === null) {
      for (const dead of entries(dir, CLAIM)) if (dead !== path && isDead(dead)) rmSync(dead, { force: true });
      for (const draft of entries(dir, DRAFT)) rmSync(draft, { force: true });
      return path;
    }
    rmSync(path, { force: true });
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, Math.random() * RETRY_MS);
  }
  throw new Error(`no claim could be made on ${dir} in ${ATTEMPTS} attempts: too many processes contend for it`);
}

/** @returns null when a new holder took our draft for a dead one's */
function makeClaim(dir: string): string | null {
  const id = randomUUID();
  const draft = join(dir, DRAFT + id);
  const path = join(dir, CLAIM + id);
  writeFileSync(draft, `${JSON.stringify(ownIdentity())}\n`, { flag: 'wx' });
  try {
    renameSync(draft, path);
    return path;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    rmSync(draft, { force: true });
    throw error;
  }
}

function isDead(path: string): boolean {
  const holder = holderOf(path);
  return holder === null || fateOf(holder) === 'dead';
}

function entries(dir: string, prefix: string): string[] {
  return readdirSync(dir)
    .filter((name) => name.startsWith(prefix))
    .map((name) => join(dir, name));
}

/** null for a claim that is gone meanwhile, and for one that a power cut emptied: its maker is dead. */
function holderOf(path: string): ProcessIdentity | null {
  try {
    return parseIdentity(readFileSync(path, 'utf8'));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw error;
  }
}
