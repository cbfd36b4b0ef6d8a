/** Those who wait for changes, at the primary. Pure. */
import { HoldfastError } from '../base/errors.ts';
import type { History } from './history.ts';
import type { KvDone, WatchPage, WatchRequest } from './operations.ts';

/** What watching needs of the log under it. */
interface Reads {
  rightToRead(done: (error: HoldfastError | null) => void): void;
  now(): number;
}

const MAX_WATCHERS = 10_000;

interface Watcher {
  request: WatchRequest;
  untilMs: number;
  done: KvDone<WatchPage>;
}

export class Watchers {
  private readonly history: History;
  /** Changes of versions up to this one are applied. */
  private readonly visible: () => number;
  private readonly reads: Reads;
  private watchers: Watcher[] = [];
  private lookedAt = -1;
  private nextUntilMs = Infinity;

  constructor(history: History, visible: () => number, reads: Reads) {
    this.history = history;
    this.visible = visible;
    this.reads = reads;
  }

  watch(request: WatchRequest, done: KvDone<WatchPage>): void {
    const watcher = { request, untilMs: this.reads.now() + request.waitMs, done };
    queueMicrotask(() => {
      if (this.answer(watcher, this.visible(), request.waitMs <= 0)) return;
      if (this.watchers.length >= MAX_WATCHERS) {
        return done(
          new HoldfastError('TOO_MANY', { operation: 'watch', detail: `the limit is ${MAX_WATCHERS}` }),
          null,
        );
      }
      this.watchers.push(watcher);
      this.nextUntilMs = Math.min(this.nextUntilMs, watcher.untilMs);
    });
  }

  /** Something may have become visible, or late. */
  look(): void {
    if (this.watchers.length === 0) return;
    const visible = this.visible();
    const nowMs = this.reads.now();
    if (visible === this.lookedAt && nowMs < this.nextUntilMs) return;
    this.lookedAt = visible;
    this.watchers = this.watchers.filter((watcher) => !this.answer(watcher, visible, nowMs >= watcher.untilMs));
    this.nextUntilMs = Math.min(...this.watchers.map(({ untilMs }) => untilMs), Infinity);
  }

  private answer({ request, done }: Watcher, visible: number, late: boolean): boolean {
    const { prefix, after, limit } = request;
    if (after < this.history.oldest) {
      const detail = `changes are kept from version ${this.history.oldest + 1} on, asked for are those after ${after}`;
      const remedy = 'read what is there with a scan, and watch from the newest version on';
      done(new HoldfastError('OUT_OF_RANGE', { operation: 'watch', detail, remedy }), null);
      return true;
    }
    const page = this.history.after(after, visible, prefix, limit);
    if (page.changes.length === 0 && !late) return false;
    const changes = page.changes.map(({ key, value, version, expiresAtMs }) => ({
      key,
      value,
      version,
      expiresAtMs: expiresAtMs === 0 ? null : expiresAtMs,
    }));
    this.reads.rightToRead((error) => done(error, error === null ? { changes, version: page.version } : null));
    return true;
  }

  end(error: HoldfastError): void {
    for (const { done } of this.watchers.splice(0)) done(error, null);
  }
}
