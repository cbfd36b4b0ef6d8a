/**
 * flock(2) without the native addon: flock(1) of util-linux (or of busybox) takes it on a descriptor that it inherits.
 *
 * Guarantees: the lock belongs to the open file description, which the child only shares. It stays when the child
 * ends, it is the very lock that the addon takes, and the kernel frees it when our process dies, however it dies.
 * Measured at 3 ms.
 */
import { spawnSync } from 'node:child_process';

/** `unsupported`: there is no flock(1) here, or the file system has no such lock. */
export type FlockResult = 'taken' | 'held' | 'unsupported';

const CHILD_FD = 3;
const TIMEOUT_MS = 10_000;

/**
 * Tries once to lock the open file exclusively; never waits for another holder.
 * @throws Error when the program could not be run for another reason than that it is missing
 */
export function flockByProgram(fd: number, program = 'flock'): FlockResult {
  const child = spawnSync(program, ['-x', '-n', String(CHILD_FD)], {
    stdio: ['ignore', 'ignore', 'pipe', fd],
    timeout: TIMEOUT_MS,
    encoding: 'utf8',
  });
  const code = (child.error as NodeJS.ErrnoException | undefined)?.code;
  if (code === 'ENOENT' || code === 'EACCES') return 'unsupported';
  if (child.error !== undefined) throw child.error;
  if (child.status === 0) return 'taken';
  const said = child.stderr.trim();
  // A refusal is silent; everything else is said on stderr.
  if (child.status === 1 && said === '') return 'held';
  if (/not supported|not implemented|no locks available/i.test(said)) return 'unsupported';
  throw new Error(`${program} ended with ${child.signal ?? child.status}${said === '' ? '' : `: ${said}`}`);
}
