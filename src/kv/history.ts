/**
 * The newest changes, for those who watch. Pure.
 *
 * Guarantees: bounded in number and bytes; whoever asks for changes that are not kept any more is told so.
 */
import type { Change } from './index-of-keys.ts';

const MAX_CHANGES = 16_384;
const MAX_BYTES = 64 * 2 ** 20;

const bytesOf = (change: Change): number => change.key.length + (change.value?.length ?? 0);

export class History {
  /** In the order of versions. */
  private changes: Change[] = [];
  private start = 0;
  private bytes = 0;
  /** Changes of versions above are kept. */
  private keptAfter = 0;

  /** Most come in the order of their versions; where batches are applied in another order they are put in place. */
  add(added: Change[]): void {
    for (const change of added) {
      let at = this.changes.length;
      while (at > this.start && this.changes[at - 1]!.version > change.version) at--;
      if (at === this.changes.length) this.changes.push(change);
      else this.changes.splice(at, 0, change);
      this.bytes += bytesOf(change);
    }
    while (this.changes.length - this.start > MAX_CHANGES || this.bytes > MAX_BYTES) this.drop();
    if (this.start > MAX_CHANGES) {
      this.changes = this.changes.slice(this.start);
      this.start = 0;
    }
  }

  /** All of the oldest version. */
  private drop(): void {
    const { version } = this.changes[this.start]!;
    while (this.start < this.changes.length && this.changes[this.start]!.version === version) {
      this.bytes -= bytesOf(this.changes[this.start]!);
      this.changes[this.start++] = NONE;
    }
    this.keptAfter = version;
  }

  get oldest(): number {
    return this.keptAfter;
  }

  /** Changes of versions above `after`, up to `upTo`, of keys with the prefix; at most `limit`, but whole versions. */
  after(after: number, upTo: number, prefix: string, limit: number): { changes: Change[]; version: number } {
    const found: Change[] = [];
    let low = this.start;
    let high = this.changes.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.changes[middle]!.version <= after) low = middle + 1;
      else high = middle;
    }
    for (let at = low; at < this.changes.length; at++) {
      const change = this.changes[at]!;
      if (change.version > upTo) break;
      if (found.length >= limit && change.version !== found.at(-1)!.version) {
        return { changes: found, version: found.at(-1)!.version };
      }
      if (change.key.startsWith(prefix)) found.push(change);
    }
    return { changes: found, version: Math.max(after, upTo) };
  }

  clear(keptAfter: number): void {
    this.changes = [];
    this.start = this.bytes = 0;
    this.keptAfter = keptAfter;
  }
}

const NONE: Change = { version: 0, key: '', value: null, expiresAtMs: 0 };
