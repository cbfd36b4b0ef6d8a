/**
 * A Unix socket that a killed process left behind keeps the next one from listening; it is removed here.
 *
 * Guarantees: a socket that somebody listens on, and anything that is no socket, stays.
 */
import { lstatSync, rmSync } from 'node:fs';
import { connect } from 'node:net';

/** @returns whether there was one, and it was removed */
export async function removeStaleSocket(path: string): Promise<boolean> {
  if (lstatSync(path, { throwIfNoEntry: false })?.isSocket() !== true) return false;
  const refused = await new Promise<boolean>((resolve) => {
    const attempt = connect(path);
    attempt.once('connect', () => {
      attempt.destroy();
      resolve(false);
    });
    attempt.once('error', (error: NodeJS.ErrnoException) => resolve(error.code === 'ECONNREFUSED'));
  });
  if (refused) rmSync(path, { force: true });
  return refused;
}
