/** When a server is told to stop. */

/**
 * To be called before the server says that it listens: whoever reads that may stop it at once.
 * @returns resolves at the first SIGINT or SIGTERM; the second ends the process
 */
export function toldToStop(): Promise<void> {
  return new Promise<void>((resolve) => {
    process.once('SIGINT', () => resolve());
    process.once('SIGTERM', () => resolve());
  });
}
