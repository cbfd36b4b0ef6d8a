/**
 * A key-value volume of which nobody vouches: what this replica last knew, for those who would rather have that than
 * nothing (`--when-isolated available`). Pure.
 *
 * Guarantees: every answer is marked as stale; nothing is changed.
 */
import { HoldfastError } from '../base/errors.ts';
import { BLOCK_BYTES } from '../base/units.ts';
import type { KvContent } from './content.ts';
import type { Entry, Key, KvDone, KvInfo, KvLimits, KvVolume, ScanPage, ScanRequest } from './operations.ts';
import type { Describe } from './primary-kv.ts';
import { entryOf, scanIndex } from './reads.ts';

export class StaleKv implements KvVolume {
  private readonly content: KvContent;
  private readonly limits: KvLimits;
  private readonly describe: Describe;

  constructor(content: KvContent, limits: KvLimits, describe: Describe) {
    this.content = content;
    this.limits = limits;
    this.describe = describe;
  }

  info(): KvInfo {
    const { version, keys, liveBytes, usedBlocks } = this.content.index;
    const { limits } = this;
    return { ...this.describe(), version, keys, liveBytes, usedBytes: usedBlocks * BLOCK_BYTES, limits };
  }

  private read<T>(operation: string, compute: () => T, done: KvDone<T>): void {
    queueMicrotask(() => {
      if (this.content.valid) done(null, compute(), true);
      else done(this.refusal(operation), null);
    });
  }

  get(keys: Key[], done: KvDone<Array<Entry | null>>): void {
    this.read('get', () => keys.map((key) => entryOf(this.content.index, key)), done);
  }

  scan(request: ScanRequest, done: KvDone<ScanPage>): void {
    this.read('scan', () => scanIndex(this.content.index, request), done);
  }

  size(done: KvDone<number>): void {
    queueMicrotask(() => done(this.refusal('size'), null));
  }
  watch(_request: object, done: KvDone<never>): void {
    queueMicrotask(() => done(this.refusal('watch'), null));
  }
  execute(_transaction: object, _id: object | null, done: KvDone<never>): void {
    queueMicrotask(() => done(this.refusal('execute'), null));
  }

  private refusal(operation: string): HoldfastError {
    const detail = 'this replica is not in sync with anybody, or not known to be';
    return new HoldfastError('NOT_PRIMARY', { operation, volume: this.describe().volume, detail });
  }
}
