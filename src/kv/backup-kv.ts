/**
 * A key-value volume as a backup serves it: linearizable reads under grants of the primary. Pure.
 *
 * Guarantees: a key with a change that is not known to be committed waits for it; nothing is answered without a grant.
 */
import { HoldfastError } from '../base/errors.ts';
import { BLOCK_BYTES } from '../base/units.ts';
import type { KvContent } from './content.ts';
import type { Entry, Key, KvDone, KvInfo, KvLimits, KvVolume, ScanPage, ScanRequest } from './operations.ts';
import type { Describe } from './primary-kv.ts';
import { entryOf, scanIndex } from './reads.ts';
import { ALL_KV_RULES, type KvRules } from './rules.ts';

/** The backup's rights. */
export interface ReadRights {
  /** Calls back once a grant runs, or with an error when there will be none. Never before it returns. */
  underGrant(done: (error: HoldfastError | null) => void): void;
  /** Something waits for a commit: the primary is asked for it until the returned function is called. */
  awaitCommit(): () => void;
}

export class BackupKv implements KvVolume {
  private readonly rights: ReadRights;
  private readonly content: KvContent;
  private readonly limits: KvLimits;
  private readonly describe: Describe;
  private readonly rules: KvRules;

  constructor(
    rights: ReadRights,
    content: KvContent,
    limits: KvLimits,
    describe: Describe,
    rules: KvRules = ALL_KV_RULES,
  ) {
    this.rules = rules;
    this.rights = rights;
    this.content = content;
    this.limits = limits;
    this.describe = describe;
  }

  info(): KvInfo {
    const { index } = this.content;
    return {
      ...this.describe(),
      version: index.version,
      keys: index.keys,
      liveBytes: index.liveBytes,
      usedBytes: index.usedBlocks * BLOCK_BYTES,
      limits: this.limits,
    };
  }

  private read<T>(operation: string, keys: readonly Key[] | null, compute: () => T, done: KvDone<T>): void {
    const answer = (): void => {
      if (!this.content.valid) return done(this.notPrimary(operation), null);
      const result = compute();
      if (!this.rules.readsUnderGrant) return done(null, result);
      this.rights.underGrant((error) => done(error, error === null ? result : null));
    };
    if (!this.content.isBehind(keys)) return queueMicrotask(answer);
    const over = this.rights.awaitCommit();
    this.content.whenApplied(keys, () => {
      over();
      answer();
    });
  }

  get(keys: Key[], done: KvDone<Array<Entry | null>>): void {
    this.read('get', keys, () => keys.map((key) => entryOf(this.content.index, key)), done);
  }

  scan(request: ScanRequest, done: KvDone<ScanPage>): void {
    this.read('scan', null, () => scanIndex(this.content.index, request), done);
  }

  size(done: KvDone<number>): void {
    this.read('size', null, () => this.content.index.keys, done);
  }

  watch(_request: object, done: KvDone<never>): void {
    queueMicrotask(() => done(this.notPrimary('watch'), null));
  }

  execute(_transaction: object, _id: object | null, done: KvDone<never>): void {
    queueMicrotask(() => done(this.notPrimary('execute'), null));
  }

  private notPrimary(operation: string): HoldfastError {
    return new HoldfastError('NOT_PRIMARY', { operation, volume: this.describe().volume, detail: 'this is a backup' });
  }
}
