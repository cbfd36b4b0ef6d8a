/**
 * `holdfast kv import`: the keys of an export into a volume, from a file or from stdin.
 *
 * Guarantees: all of the input is checked, its sum and each line, before anything of it is written; what can be read once
 * only is kept meanwhile in a file without a name, which goes away with this process however that ends. An import that was
 * cut short may be repeated, and says how far it came.
 */
import { randomBytes } from 'node:crypto';
import { closeSync, createReadStream, fstatSync, openSync, read, unlinkSync, write } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { HoldfastError, asHoldfastError } from '../base/errors.ts';
import type { KvLimits, KvStore } from '../client/index.ts';
import { BrokenFile, type KvLine, entriesOf } from './kv-format.ts';
import { withStore } from './kv-store.ts';
import { Progress, printJson } from './output.ts';

/** Of keys and values in one transaction, and transactions under way. */
const BATCH_BYTES = 64 * 1024;
const BATCH_KEYS = 200;
const BATCHES_UNDER_WAY = 8;
/** Of a file, at a time. */
const PIECE = 64 * 1024;

interface Counts {
  imported: number;
  kept: number;
  expired: number;
}

/** What is to be known of all entries before the first is written. */
interface Checked {
  count: number;
  sha256: string;
  longestKeyBytes: number;
  longestValueBytes: number;
}

/** What is imported: read once to check it, and once more to write it. */
class Input {
  readonly name: string;
  /** Of the file, or of the copy of what cannot be read twice. */
  private readonly descriptor: number;
  private readonly once: AsyncIterable<Buffer> | null;

  private constructor(name: string, descriptor: number, once: AsyncIterable<Buffer> | null) {
    this.name = name;
    this.descriptor = descriptor;
    this.once = once;
  }

  /** @param file `-`: stdin */
  static open(file: string): Input {
    if (file === '-') return new Input('stdin', copyFile(), process.stdin as AsyncIterable<Buffer>);
    let descriptor: number;
    try {
      descriptor = openSync(file, 'r');
      const stat = fstatSync(descriptor);
      if (stat.isFile()) return new Input(file, descriptor, null);
      if (stat.isDirectory()) throw Object.assign(new Error('it is a folder'), { code: 'EISDIR' });
    } catch (error) {
      throw new HoldfastError(asHoldfastError(error).code, {
        operation: 'import',
        detail: `${file}: ${(error as Error).message}; nothing was written`,
        remedy: 'name a file as kv export makes it, or - for stdin',
        cause: error,
      });
    }
    // A pipe, or the like.
    return new Input(file, copyFile(), createReadStream('', { fd: descriptor }) as AsyncIterable<Buffer>);
  }

  /** To the end, or until it is broken. @throws BrokenFile, HoldfastError */
  async check(fuzzy: boolean): Promise<Checked> {
    const checked = { count: 0, longestKeyBytes: 0, longestValueBytes: 0 };
    const entries = entriesOf(this.once === null ? this.again() : this.copied(this.once), fuzzy);
    let next = await entries.next();
    for (; next.done !== true; next = await entries.next()) {
      checked.count++;
      checked.longestKeyBytes = Math.max(checked.longestKeyBytes, next.value.key.length);
      checked.longestValueBytes = Math.max(checked.longestValueBytes, next.value.value.length);
    }
    return { ...checked, sha256: next.value };
  }

  /** From its beginning. A stream would close the file with itself. */
  async *again(): AsyncGenerator<Buffer> {
    for (let at = 0; ;) {
      const { buffer, bytesRead } = await promisify(read)(this.descriptor, Buffer.allocUnsafe(PIECE), 0, PIECE, at);
      if (bytesRead === 0) return;
      yield buffer.subarray(0, bytesRead);
      at += bytesRead;
    }
  }

  close(): void {
    closeSync(this.descriptor);
  }

  private async *copied(source: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
    for await (const chunk of source) {
      try {
        for (let at = 0; at < chunk.length;) {
          at += (await promisify(write)(this.descriptor, chunk, at, chunk.length - at)).bytesWritten;
        }
      } catch (error) {
        throw copyFailed(error);
      }
      yield chunk;
    }
  }
}

/** For this process alone, and gone with it. */
function copyFile(): number {
  const path = join(tmpdir(), `holdfast-import-${randomBytes(8).toString('hex')}`);
  try {
    const descriptor = openSync(path, 'wx+', 0o600);
    unlinkSync(path);
    return descriptor;
  } catch (error) {
    throw copyFailed(error);
  }
}

function copyFailed(error: unknown): HoldfastError {
  const detail = `a copy of the input in ${tmpdir()}: ${(error as Error).message}; nothing was written`;
  const remedy = 'set TMPDIR to a folder with room for all of the input, or import from a file';
  return new HoldfastError(asHoldfastError(error).code, { operation: 'import', detail, remedy, cause: error });
}

/** Batches under way. The first that fails ends it: nothing is asked for after it, and `finish` throws it. */
class Batches {
  private readonly underWay = new Set<Promise<void>>();
  private failure: { error: unknown } | null = null;

  /** Waits for room. @throws what a batch before it has failed with */
  async add(work: () => Promise<void>): Promise<void> {
    while (this.underWay.size >= BATCHES_UNDER_WAY) await Promise.race(this.underWay);
    this.rethrow();
    const one = work()
      .catch((error: unknown) => {
        this.failure ??= { error };
      })
      .finally(() => this.underWay.delete(one));
    this.underWay.add(one);
  }

  async finish(): Promise<void> {
    await Promise.all(this.underWay);
    this.rethrow();
  }

  private rethrow(): void {
    if (this.failure !== null) throw this.failure.error;
  }
}

async function check(input: Input, fuzzy: boolean): Promise<Checked> {
  try {
    return await input.check(fuzzy);
  } catch (error) {
    if (error instanceof HoldfastError) throw error;
    const remedy = 'take a whole file as kv export makes it';
    const detail = `${input.name}: ${(error as Error).message}; nothing was written`;
    const code = error instanceof BrokenFile ? 'INVALID_ARGUMENT' : asHoldfastError(error).code;
    throw new HoldfastError(code, { operation: 'import', detail, remedy, cause: error });
  }
}

/** @throws HoldfastError TOO_LARGE: a volume of other limits has written it */
function checkLimits({ longestKeyBytes, longestValueBytes }: Checked, limits: KvLimits | null): void {
  if (limits === null) return;
  const { maxKeyBytes, maxValueBytes } = limits;
  if (longestKeyBytes <= maxKeyBytes && longestValueBytes <= maxValueBytes) return;
  const longest = `the longest key has ${longestKeyBytes} bytes, the longest value ${longestValueBytes}`;
  throw new HoldfastError('TOO_LARGE', {
    operation: 'import',
    detail: `${longest}; this volume takes ${maxKeyBytes} and ${maxValueBytes}; nothing was written`,
    remedy: 'leave out what is longer before it is exported',
  });
}

export interface ImportFlags {
  ifAbsent?: boolean;
  fuzzy?: boolean;
  json?: boolean;
}

export async function importFrom(url: string, file: string, flags: ImportFlags): Promise<void> {
  const input = Input.open(file);
  try {
    const checked = await check(input, flags.fuzzy ?? false);
    const counts = await importChecked(url, input, checked, flags.ifAbsent ?? false);
    if (flags.json) printJson({ ...counts, file });
    else process.stderr.write(`${counts.imported} keys imported, ${counts.kept} kept, ${counts.expired} had expired\n`);
  } finally {
    input.close();
  }
}

async function importChecked(url: string, input: Input, checked: Checked, ifAbsent: boolean): Promise<Counts> {
  const total = checked.count;
  const progress = new Progress('importing', (count) => `${count} keys`);
  const counts: Counts = { imported: 0, kept: 0, expired: 0 };
  const written = (): number => counts.imported + counts.kept + counts.expired;
  const failed = (error: unknown): HoldfastError =>
    new HoldfastError(asHoldfastError(error).code, {
      operation: 'import',
      detail: `${written()} of ${total} keys were done, then: ${(error as Error).message}`,
      remedy: 'run it again: keys that are done are written again with the same value, or kept with --if-absent',
      cause: error,
    });
  await withStore(url, {}, async (store) => {
    checkLimits(checked, store.limits);
    const batches = new Batches();
    let batch: KvLine[] = [];
    let bytes = 0;
    const send = async (): Promise<void> => {
      const lines = batch;
      [batch, bytes] = [[], 0];
      if (lines.length > 0) await batches.add(() => putAll(store, lines, ifAbsent, counts));
      progress.update(written(), Math.max(1, total));
    };
    const entries = entriesOf(input.again(), true);
    const all = async (): Promise<void> => {
      let next = await entries.next();
      for (; next.done !== true; next = await entries.next()) {
        const line = next.value;
        const lineBytes = line.key.length + line.value.length;
        if (batch.length >= BATCH_KEYS || bytes + lineBytes > BATCH_BYTES) await send();
        batch.push(line);
        bytes += lineBytes;
      }
      await send();
      if (next.value !== checked.sha256) throw new BrokenFile(`${input.name} was changed meanwhile`);
    };
    try {
      try {
        await all();
      } finally {
        await batches.finish();
      }
    } catch (error) {
      throw failed(error);
    } finally {
      // The file is closed after this.
      await entries.return('');
    }
  }).finally(() => progress.stop());
  return counts;
}

async function putAll(store: KvStore, lines: readonly KvLine[], ifAbsent: boolean, counts: Counts): Promise<void> {
  const transaction = store.transaction();
  const nowMs = Date.now();
  const living = lines.filter(({ expiresAtMs }) => expiresAtMs === undefined || expiresAtMs > nowMs);
  for (const { key, value, expiresAtMs } of living) {
    transaction.put(key, value, { expiresAtMs, when: ifAbsent ? 'absent' : undefined });
  }
  const results = living.length === 0 ? [] : (await transaction.commit()).results;
  const imported = results.filter(({ done }) => done).length;
  counts.expired += lines.length - living.length;
  counts.imported += imported;
  counts.kept += results.length - imported;
}
