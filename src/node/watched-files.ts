/**
 * Files whose new content is taken over while the process runs: looked at every few seconds, and when told to.
 *
 * Guarantees: one load at a time; a load that fails leaves what was in force, and is logged once for that content.
 */
import { statSync } from 'node:fs';
import { asHoldfastError } from '../base/errors.ts';
import type { Log } from './server.ts';

const LOOK_MS = 5000;

export class WatchedFiles {
  private readonly files: readonly string[];
  private readonly what: string;
  private readonly load: () => Promise<void>;
  private readonly log: Log;
  private readonly timer: NodeJS.Timeout;
  private seen: string;
  private loading: Promise<void> | null = null;

  /** @param load throws a HoldfastError for content that is not to be taken */
  constructor(what: string, files: readonly string[], load: () => Promise<void>, log: Log) {
    this.what = what;
    this.files = files;
    this.load = load;
    this.log = log;
    this.seen = this.look();
    this.timer = setInterval(() => {
      if (this.look() !== this.seen) void this.reload();
    }, LOOK_MS).unref();
  }

  /** What a file is, as far as one sees without reading it. */
  private look(): string {
    return this.files
      .map((file) => {
        const stat = statSync(file, { throwIfNoEntry: false, bigint: true });
        return stat === undefined ? 'none' : `${stat.ino} ${stat.size} ${stat.mtimeNs}`;
      })
      .join();
  }

  /** Takes the files as they are now. */
  reload(): Promise<void> {
    this.loading ??= this.take().finally(() => (this.loading = null));
    return this.loading;
  }

  private async take(): Promise<void> {
    // Before they are read: what changes meanwhile is found at the next look.
    this.seen = this.look();
    try {
      await this.load();
      this.log('info', `${this.what}: the new files are in force`, { files: this.files });
    } catch (error) {
      const reason = asHoldfastError(error).message;
      this.log('error', `${this.what}: the new files are not taken, the old ones stay in force`, { reason });
    }
  }

  close(): void {
    clearInterval(this.timer);
  }
}
