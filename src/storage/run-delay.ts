/**
 * How long this thread has been ready to run and had no core: the scheduler's own figure (proc(5), `schedstat`).
 *
 * Guarantees: it costs one system call; where the kernel does not tell there is nothing, and no error.
 */
import { closeSync, openSync, readSync } from 'node:fs';
import { isMainThread } from 'node:worker_threads';

export class RunDelay {
  private fd: number | null = null;
  private readonly text: Buffer = Buffer.alloc(128);

  constructor() {
    try {
      // A process's first thread has its number.
      if (isMainThread) this.fd = openSync(`/proc/self/task/${process.pid}/schedstat`, 'r');
    } catch {
      // Not Linux, or a kernel without it.
    }
  }

  /** Milliseconds since the thread began; null: not known. */
  readMs(): number | null {
    if (this.fd === null) return null;
    try {
      const length = readSync(this.fd, this.text, 0, this.text.length, 0);
      const waitedNs = Number(this.text.toString('latin1', 0, length).split(' ')[1]);
      return Number.isFinite(waitedNs) ? waitedNs / 1e6 : null;
    } catch {
      return null;
    }
  }

  close(): void {
    if (this.fd !== null) closeSync(this.fd);
    this.fd = null;
  }
}
