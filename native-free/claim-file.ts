/**
 * A folder lock where neither the addon nor flock(1) is to be had: a file that names its holder, and is taken over when
 * that holder is dead.
 *
 * Claims are numbered, `lock.1`, `lock.2`, and only the highest counts. A claim is made by linking a file that was
 * written before, so it appears whole or not at all, and only one process can make a given number. A dead or released
 * claim is not deleted to make room (two processes that both saw it dead would delete each other's successor) but
 * followed by the next number; lower ones are cleared away by the successor.
 *
 * Guarantees: of several processes at most one holds the folder; a holder that cannot be proved dead is not displaced.
 * Weaker than a kernel lock in one point: the claim of a process on another host is never taken over.
 */
import { linkSync, readFileSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type ProcessIdentity, fateOf, ownIdentity, parseIdentity } from './process-identity.ts';

const CLAIM = /^lock\.(\d+)$/;
/** A text on its way into a claim. One that a dead process left is cleared away by the next holder. */
const DRAFT = 'lock.draft-';
const ATTEMPTS = 20;
const RELEASED = '{}\n';

export interface Claim {
  /** Path of the file that names the holder. */
  readonly path: string;
  /** With `remove`, leaves no file behind: for a folder that is being deleted. */
  release(remove: boolean): void;
}

/** @returns whether a folder entry belongs to this way of locking (drafts of claims included) */
export function isClaimEntry(name: string): boolean {
  return CLAIM.test(name) || name.startsWith(DRAFT);
}

/** The claim that counts, if its holder lives or may live. `self` is passed over. */
export function liveClaim(dir: string, self = 0): { path: string; holder: ProcessIdentity } | null {
  for (const number of claimsIn(dir).reverse()) {
    if (number === self) continue;
    const path = pathOf(dir, number);
    const holder = holderOf(path);
    if (holder !== null && fateOf(holder) !== 'dead') return { path, holder };
  }
  return null;
}

/**
 * Claims the folder, or says who holds it.
 * @throws Error of the file system
 */
export function claimFolder(dir: string): Claim | { path: string; holder: ProcessIdentity } {
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    const held = liveClaim(dir);
    if (held !== null) return held;
    const number = (claimsIn(dir).at(-1) ?? 0) + 1;
    if (!make(dir, number)) continue;
    const path = pathOf(dir, number);
    const release = (remove: boolean): void => {
      if (remove) rmSync(path, { force: true });
      else replace(dir, path, RELEASED);
    };
    // What was seen before the claim may be old by now: someone may have gone further, or begun again at 1.
    const others = claimsIn(dir);
    if (others.at(-1)! > number) {
      rmSync(path, { force: true });
      continue;
    }
    const rival = liveClaim(dir, number);
    if (rival !== null) {
      release(false);
      return rival;
    }
    for (const lower of others) if (lower < number) rmSync(pathOf(dir, lower), { force: true });
    for (const name of readdirSync(dir)) if (name.startsWith(DRAFT)) rmSync(join(dir, name), { force: true });
    return { path, release };
  }
  throw new Error(`no claim could be made on ${dir} in ${ATTEMPTS} attempts: too many processes contend for it`);
}

/** @returns false when another process made that number first, or took our draft for a dead one's */
function make(dir: string, number: number): boolean {
  const draft = writeDraft(dir, `${JSON.stringify(ownIdentity())}\n`);
  try {
    linkSync(draft, pathOf(dir, number));
    return true;
  } catch (error) {
    if (['EEXIST', 'ENOENT'].includes((error as NodeJS.ErrnoException).code ?? '')) return false;
    throw error;
  } finally {
    rmSync(draft, { force: true });
  }
}

function replace(dir: string, path: string, text: string): void {
  for (let attempt = 1; ; attempt++) {
    try {
      return renameSync(writeDraft(dir, text), path);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT' || attempt === ATTEMPTS) throw error;
    }
  }
}

let drafts = 0;

function writeDraft(dir: string, text: string): string {
  const { pid, startTime } = ownIdentity();
  const draft = join(dir, `${DRAFT}${pid}-${startTime}-${++drafts}`);
  writeFileSync(draft, text, { flag: 'wx' });
  return draft;
}

/** Numbers of the claims, ascending. */
function claimsIn(dir: string): number[] {
  return readdirSync(dir)
    .map((name) => Number(CLAIM.exec(name)?.[1] ?? 0))
    .filter((number) => number > 0)
    .sort((a, b) => a - b);
}

function pathOf(dir: string, number: number): string {
  return join(dir, `lock.${number}`);
}

/** null where there is none: released, or cleared away meanwhile. A claim is never seen half written. */
function holderOf(path: string): ProcessIdentity | null {
  try {
    return parseIdentity(readFileSync(path, 'utf8'));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw error;
  }
}
