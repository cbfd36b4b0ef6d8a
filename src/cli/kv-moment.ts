/**
 * All keys of a key-value volume as they were at one moment, while clients go on and nobody waits.
 *
 * How: the keys are scanned, page by page, and what is changed meanwhile is watched. A key that was changed since the scan
 * began is as its last change left it, any other one is as it was scanned; so all of them are as they were at the version
 * up to which the changes are known.
 *
 * Guarantees: it is called consistent only if all changes since the scan began were seen. What was scanned lies in a file
 * without a name, which goes away with this process; in memory is what was changed, up to MAX_CHANGED_BYTES.
 */
import { randomBytes } from 'node:crypto';
import { closeSync, openSync, read, unlinkSync, write } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { HoldfastError, asHoldfastError } from '../base/errors.ts';
import { MiB } from '../base/units.ts';
import type { KvChange, KvEntry, KvStore } from '../client/index.ts';

const MAX_CHANGED_BYTES = 256 * MiB;
/** Replies with changes that are taken between two pages, so that the scan goes on whatever is written. */
const MAX_REPLIES = 32;
/** Gathered before it is written, and read at a time. */
const CHUNK_BYTES = MiB;
/** Before each entry: lengths of key and value u32, expiresAtMs f64 (0: never). */
const HEAD_BYTES = 16;

export type MomentEntry = Pick<KvEntry, 'key' | 'value' | 'expiresAtMs'>;

/** What was scanned, in its order. */
class Scanned {
  private readonly descriptor: number;
  private pieces: Buffer[] = [];
  private heldBytes = 0;

  constructor(dir: string) {
    const path = join(dir, `holdfast-export-${randomBytes(8).toString('hex')}`);
    this.descriptor = openSync(path, 'wx+', 0o600);
    unlinkSync(path);
  }

  async add({ key, value, expiresAtMs }: MomentEntry): Promise<void> {
    const head = Buffer.alloc(HEAD_BYTES);
    head.writeUInt32LE(key.length, 0);
    head.writeUInt32LE(value.length, 4);
    head.writeDoubleLE(expiresAtMs ?? 0, 8);
    this.pieces.push(head, key, value);
    this.heldBytes += head.length + key.length + value.length;
    if (this.heldBytes >= CHUNK_BYTES) await this.flush();
  }

  async flush(): Promise<void> {
    const bytes = Buffer.concat(this.pieces);
    [this.pieces, this.heldBytes] = [[], 0];
    for (let at = 0; at < bytes.length;) {
      at += (await promisify(write)(this.descriptor, bytes, at, bytes.length - at)).bytesWritten;
    }
  }

  async *entries(): AsyncGenerator<MomentEntry> {
    let held: Buffer = Buffer.alloc(0);
    for (let at = 0; ;) {
      const piece = Buffer.allocUnsafeSlow(CHUNK_BYTES);
      const { bytesRead } = await promisify(read)(this.descriptor, piece, 0, CHUNK_BYTES, at);
      if (bytesRead === 0) return;
      at += bytesRead;
      held = Buffer.concat([held, piece.subarray(0, bytesRead)]);
      let from = 0;
      while (held.length - from >= HEAD_BYTES) {
        const keyEnd = from + HEAD_BYTES + held.readUInt32LE(from);
        const valueEnd = keyEnd + held.readUInt32LE(from + 4);
        if (valueEnd > held.length) break;
        const expiresAtMs = held.readDoubleLE(from + 8) || null;
        yield { key: held.subarray(from + HEAD_BYTES, keyEnd), value: held.subarray(keyEnd, valueEnd), expiresAtMs };
        from = valueEnd;
      }
      held = held.subarray(from);
    }
  }

  close(): void {
    closeSync(this.descriptor);
  }
}

export class KvMoment {
  /** All changes up to it were seen. */
  version: number;
  /** Why they were not; null: they were, and the entries are of that version. */
  lost: HoldfastError | null = null;
  private readonly store: KvStore;
  private readonly scanned: Scanned;
  /** Last changes by key, as latin1. */
  private readonly changed: Map<string, KvChange> = new Map();
  private changedBytes = 0;

  private constructor(store: KvStore, dir: string, version: number) {
    this.store = store;
    this.scanned = new Scanned(dir);
    this.version = version;
  }

  /** @param dir for what is scanned. @param progress keys so far. @throws as the volume and the disk say */
  static async of(store: KvStore, dir: string, progress: (count: number) => void): Promise<KvMoment> {
    const moment = new KvMoment(store, dir, (await store.info()).version);
    try {
      await moment.scan(progress);
    } catch (error) {
      moment.close();
      throw error;
    }
    return moment;
  }

  get changedKeys(): number {
    return this.changed.size;
  }

  private async scan(progress: (count: number) => void): Promise<void> {
    let [count, newest] = [0, this.version];
    for await (const entry of this.store.scan()) {
      await this.scanned.add(entry);
      newest = Math.max(newest, entry.version);
      if (++count % 1000 !== 0) continue;
      await this.take(null);
      progress(count);
    }
    await this.scanned.flush();
    // Whatever the last page has seen.
    await this.take(Math.max(newest, (await this.store.info()).version));
  }

  /** @param upTo until all of that version are here, however many there are; null: what is there now, within bounds */
  private async take(upTo: number | null): Promise<void> {
    for (let replies = 1; this.lost === null; replies++) {
      try {
        const { changes, version } = await this.store.changesAfter(this.version, { waitMs: 1 });
        for (const change of changes) this.note(change);
        this.version = version;
        if (upTo === null ? changes.length === 0 || replies >= MAX_REPLIES : version >= upTo) return;
      } catch (error) {
        const known = asHoldfastError(error);
        if (known.code !== 'OUT_OF_RANGE' && known.code !== 'TOO_LARGE') throw error;
        this.lost = known;
        this.changed.clear();
      }
    }
  }

  private note(change: KvChange): void {
    const key = change.key.toString('latin1');
    const before = this.changed.get(key);
    const bytes = (change.value?.length ?? 0) - (before?.value?.length ?? 0);
    this.changedBytes += bytes + (before === undefined ? key.length : 0);
    if (this.changedBytes > MAX_CHANGED_BYTES) {
      const detail = `more than ${MAX_CHANGED_BYTES} bytes were changed while it was scanned`;
      throw new HoldfastError('TOO_LARGE', { operation: 'export', detail });
    }
    this.changed.set(key, change);
  }

  /** Each key once; those that were changed come last. */
  async *entries(): AsyncGenerator<MomentEntry> {
    for await (const entry of this.scanned.entries()) {
      if (!this.changed.has(entry.key.toString('latin1'))) yield entry;
    }
    for (const { key, value, expiresAtMs } of this.changed.values()) {
      if (value !== null) yield { key, value, expiresAtMs };
    }
  }

  close(): void {
    this.scanned.close();
  }
}
