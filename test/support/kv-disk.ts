/**
 * Blocks in memory under a key-value volume, for tests of the logic alone: records are appended in order, committed in
 * order, and applied when the test says so. A second content follows them as a backup's does.
 */
import type { HoldfastError } from '../../src/base/errors.ts';
import { BLOCK_BYTES } from '../../src/base/units.ts';
import { type BlockChange, type BlockReader, KvContent } from '../../src/kv/content.ts';
import type { KvLimits } from '../../src/kv/operations.ts';
import { ALL_KV_RULES, type KvRules } from '../../src/kv/rules.ts';
import type { KvLog, LogDone } from '../../src/kv/log.ts';
import { type Describe, PrimaryKv } from '../../src/kv/primary-kv.ts';

export const LIMITS: KvLimits = { maxKeyBytes: 1024, maxValueBytes: 131_072, maxTransactionBytes: 245_760 };

const ZEROS = Buffer.alloc(BLOCK_BYTES);

interface Record {
  change: BlockChange;
  done: LogDone;
}

export class KvDisk implements BlockReader {
  readonly bytes: Buffer;
  /** What it has room for. */
  readonly blocks: number;
  readonly content: KvContent;
  readonly backup: KvContent;
  private appended: Record[] = [];
  private committed: Record[] = [];
  private later: Array<() => void> = [];
  nowMs = 1_000_000;
  zeroed = 0;

  readonly rules: KvRules;

  constructor(blocks: number, rules: Partial<KvRules> = {}) {
    this.blocks = this.log.blocks = blocks;
    this.rules = { ...ALL_KV_RULES, ...rules };
    this.bytes = Buffer.alloc(blocks * BLOCK_BYTES);
    this.content = new KvContent(blocks, this.rules);
    this.backup = new KvContent(blocks, this.rules);
  }

  readonly log: KvLog & { blocks: number } = {
    blocks: 0,
    write: (first, lengthBytes, encode, done) => {
      const blocks = Math.ceil(lengthBytes / BLOCK_BYTES);
      const bytes = Buffer.alloc(blocks * BLOCK_BYTES);
      encode(bytes.subarray(0, lengthBytes));
      this.append({ first, blocks, bytes }, done);
    },
    zero: (first, blocks, done) => {
      this.zeroed += blocks;
      this.append({ first, blocks, bytes: null }, done);
    },
    rightToRead: (done) => this.later.push(() => done(null)),
    now: () => this.nowMs,
    soon: (run) => this.later.push(run),
  };

  private append(change: BlockChange, done: LogDone): void {
    const record = { change, done };
    this.appended.push(record);
    this.content.appended(record, change);
    this.backup.appended(record, change);
  }

  holesEnd(block: number, limit: number): number {
    let end = block;
    while (end < limit && this.bytes.compare(ZEROS, 0, BLOCK_BYTES, end * BLOCK_BYTES, (end + 1) * BLOCK_BYTES) === 0)
      end++;
    return end;
  }

  read(first: number, count: number, done: (error: HoldfastError | null, bytes: Uint8Array) => void): void {
    const bytes = Buffer.from(this.bytes.subarray(first * BLOCK_BYTES, (first + count) * BLOCK_BYTES));
    queueMicrotask(() => done(null, bytes));
  }

  /** Commits the oldest record. @returns whether there was one */
  commit(): boolean {
    const record = this.appended.shift();
    if (record === undefined) return false;
    this.committed.push(record);
    record.done(null);
    return true;
  }

  /** Applies a committed record: the oldest, or another that overlaps none before it. */
  apply(pick = 0): boolean {
    const index = Math.min(pick, this.committed.length - 1);
    const record = this.committed[index];
    if (record === undefined) return false;
    const { first, blocks, bytes } = record.change;
    const overlaps = this.committed.slice(0, index).some(({ change }) => {
      return change.first < first + blocks && first < change.first + change.blocks;
    });
    if (overlaps) return this.apply(0);
    this.committed.splice(index, 1);
    const into = this.bytes.subarray(first * BLOCK_BYTES, (first + blocks) * BLOCK_BYTES);
    if (bytes === null) into.fill(0);
    else into.set(bytes);
    this.content.applied(record, record.change, true);
    this.backup.applied(record, record.change, true);
    return true;
  }

  /** Runs what was put off. */
  turn(): boolean {
    const runs = this.later.splice(0);
    for (const run of runs) run();
    return runs.length > 0;
  }

  /** Until nothing is under way. */
  async settle(): Promise<void> {
    for (let quiet = 0; quiet < 3;) {
      await Promise.resolve();
      const busy = [this.turn(), this.commit(), this.apply()].includes(true);
      quiet = busy ? 0 : quiet + 1;
    }
  }

  /** A power loss of all replicas: what was not committed may be there, or not. */
  lose(): void {
    // Whoever was primary does nothing more.
    this.content.onApplied = null;
    const lost = this.appended;
    this.appended = [];
    while (this.apply());
    for (const record of lost) {
      for (const content of [this.content, this.backup]) content.applied(record, record.change, false);
    }
    this.later = [];
  }
}

const DESCRIBE: Describe = () => ({
  volume: 'test',
  role: 'primary',
  state: 'in-sync',
  epoch: 1,
  sizeBytes: 0,
  expiring: 0,
  durable: true,
});

export async function openKv(disk: KvDisk): Promise<PrimaryKv> {
  await disk.content.build(disk);
  return new PrimaryKv(disk.log, disk.content, LIMITS, DESCRIBE, disk.rules);
}
