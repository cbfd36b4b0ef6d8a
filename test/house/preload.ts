/**
 * Loaded into every test process by the runner, before the test file.
 *
 * Asked by SIGUSR2, it says what is left open.
 *
 * uvu calls `error.details.split` while it formats a failure, and where that throws (the details of a HoldfastError are
 * an object) it drops the failure together with the rest of the suite. Here such details get a `split` that answers
 * uvu, and nobody else: the code under test still fails if it takes an object for a string.
 */
import { inspect } from 'node:util';

Object.defineProperty(Object.prototype, 'split', {
  configurable: true,
  enumerable: false,
  writable: true,
  value: function split(this: unknown, separator: string): string[] {
    const caller = new Error().stack!.split('\n')[2] ?? '';
    if (!caller.includes('/node_modules/uvu/')) throw new TypeError('split is not a function');
    return inspect(this).split(separator);
  },
});

process.on('SIGUSR2', () => {
  process.stderr.write(`# still open: ${process.getActiveResourcesInfo().join(', ') || 'nothing'}\n`);
});
