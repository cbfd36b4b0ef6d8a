/**
 * `holdfast kv export | import`: the keys of a volume as lines of JSON.
 *
 * Guarantees: a file that was cut or changed is refused before anything of it is written; an import that was cut short may
 * be repeated. An export is a scan: each page is one state of the volume, all of it is not.
 */
import { createHash } from 'node:crypto';
import { createReadStream, createWriteStream } from 'node:fs';
import { rename } from 'node:fs/promises';
import { createInterface } from 'node:readline';
import type { Command } from 'commander';
import { HoldfastError, asHoldfastError } from '../base/errors.ts';
import type { KvStore } from '../client/index.ts';
import { type Run, withStore } from './kv-store.ts';
import { Progress, printJson } from './output.ts';

const FORMAT = 'holdfast-kv-1';
/** Of keys and values in one transaction, and transactions under way. */
const BATCH_BYTES = 64 * 1024;
const BATCH_KEYS = 200;
const BATCHES_UNDER_WAY = 8;
const MAX_LINE_CHARACTERS = 1024 * 1024;

interface Line {
  key: string;
  value: string;
  expiresAtMs?: number;
}

/** Written beside it and renamed: a file of that name is whole. */
async function exportTo(url: string, file: string, json: boolean): Promise<void> {
  const partial = `${file}.partial`;
  const out = createWriteStream(partial);
  const failed = new Promise<never>((_, reject) => out.once('error', reject));
  failed.catch(() => {});
  const hash = createHash('sha256');
  let count = 0;
  const write = async (line: object): Promise<void> => {
    const text = `${JSON.stringify(line)}\n`;
    hash.update(text);
    if (!out.write(text))
      await Promise.race([new Promise((resolve) => out.once('drain', () => resolve(null))), failed]);
  };
  const progress = new Progress('exporting');
  await withStore(url, {}, async (store) => {
    const total = await store.size();
    await write({ format: FORMAT, volume: store.name, version: (await store.info()).version });
    for await (const { key, value, expiresAtMs } of store.scan()) {
      const expiry = expiresAtMs === null ? {} : { expiresAtMs };
      await write({ key: key.toString('base64'), value: value.toString('base64'), ...expiry });
      if (++count % 1000 === 0) progress.update(Math.min(count, total), total);
    }
  }).finally(() => progress.stop());
  await Promise.race([
    new Promise<void>((resolve) =>
      out.end(`${JSON.stringify({ count, sha256: hash.digest('hex') })}\n`, () => resolve()),
    ),
    failed,
  ]);
  await rename(partial, file);
  if (json) printJson({ exported: count, file });
  else process.stderr.write(`${count} keys written to ${file}\n`);
}

function refuse(file: string, detail: string): HoldfastError {
  return new HoldfastError('INVALID_ARGUMENT', {
    operation: 'import',
    detail: `${file}: ${detail}; nothing was written`,
    remedy: 'take a whole file as kv export makes it',
  });
}

async function* linesOf(file: string): AsyncGenerator<string> {
  const input = createReadStream(file);
  try {
    yield* createInterface({ input, crlfDelay: Infinity });
  } finally {
    input.destroy();
  }
}

/** @returns how many keys there are. @throws HoldfastError INVALID_ARGUMENT for what is not whole */
async function check(file: string): Promise<number> {
  const hash = createHash('sha256');
  let held: string | null = null;
  let lines = 0;
  for await (const line of linesOf(file)) {
    if (line.length > MAX_LINE_CHARACTERS) throw refuse(file, `line ${lines + 1} is too long`);
    if (held !== null) hash.update(`${held}\n`);
    if (lines++ === 0 && parsed(file, line, 1)['format'] !== FORMAT) throw refuse(file, `it is no ${FORMAT}`);
    held = line;
  }
  if (held === null || lines < 2) throw refuse(file, 'it is empty, or cut off');
  const { count, sha256 } = parsed(file, held, lines);
  if (typeof count !== 'number' || typeof sha256 !== 'string') throw refuse(file, 'it is cut off');
  if (count !== lines - 2 || sha256 !== hash.digest('hex')) throw refuse(file, 'it was changed, or damaged');
  return count;
}

function parsed(file: string, line: string, number: number): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(line);
    if (typeof value === 'object' && value !== null) return value as Record<string, unknown>;
  } catch {
    // Said below.
  }
  throw refuse(file, `line ${number} is no object of JSON`);
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

async function importFrom(url: string, file: string, ifAbsent: boolean, json: boolean): Promise<void> {
  const total = await check(file);
  const progress = new Progress('importing');
  const counts = { imported: 0, kept: 0, expired: 0 };
  const written = (): number => counts.imported + counts.kept + counts.expired;
  await withStore(url, {}, async (store) => {
    const batches = new Batches();
    let batch: Line[] = [];
    let bytes = 0;
    const send = async (): Promise<void> => {
      const lines = batch;
      [batch, bytes] = [[], 0];
      if (lines.length > 0) await batches.add(() => write(store, lines, ifAbsent, counts));
      progress.update(written(), Math.max(1, total));
    };
    try {
      let number = 0;
      for await (const text of linesOf(file)) {
        if (++number === 1 || number > total + 1) continue;
        const line = parsed(file, text, number) as unknown as Line;
        if (batch.length >= BATCH_KEYS || bytes + text.length > BATCH_BYTES) await send();
        batch.push(line);
        bytes += text.length;
      }
      await send();
    } finally {
      await batches.finish();
    }
  })
    .catch((error: unknown) => {
      const { code, message } = asHoldfastError(error);
      throw new HoldfastError(code, {
        operation: 'import',
        detail: `${written()} of ${total} keys were done, then: ${message}`,
        remedy: 'run it again: keys that are done are written again with the same value, or kept with --if-absent',
        cause: error,
      });
    })
    .finally(() => progress.stop());
  if (json) printJson({ ...counts, file });
  else process.stderr.write(`${counts.imported} keys imported, ${counts.kept} kept, ${counts.expired} had expired\n`);
}

async function write(
  store: KvStore,
  lines: readonly Line[],
  ifAbsent: boolean,
  counts: { imported: number; kept: number; expired: number },
): Promise<void> {
  const transaction = store.transaction();
  const living = lines.filter(({ expiresAtMs }) => expiresAtMs === undefined || expiresAtMs > Date.now());
  counts.expired += lines.length - living.length;
  for (const { key, value, expiresAtMs } of living) {
    const when = ifAbsent ? 'absent' : undefined;
    transaction.put(Buffer.from(key, 'base64'), Buffer.from(value, 'base64'), { expiresAtMs, when });
  }
  if (living.length === 0) return;
  const { results } = await transaction.commit();
  const imported = results.filter(({ done }) => done).length;
  counts.imported += imported;
  counts.kept += results.length - imported;
}

export function addKvFileCommands(kv: Command, run: Run): void {
  kv.command('export <volume> <file>')
    .description('all keys into a file of JSON lines, with a checksum at its end')
    .option('--json', 'print JSON')
    .action((url: string, file: string, flags: { json?: boolean }) =>
      run(() => exportTo(url, file, flags.json ?? false), flags.json),
    );
  kv.command('import <volume> <file>')
    .description('the keys of such a file; it is checked whole before anything is written')
    .option('--if-absent', 'keys that are there stay as they are')
    .option('--json', 'print JSON')
    .action((url: string, file: string, flags: { ifAbsent?: boolean; json?: boolean }) =>
      run(() => importFrom(url, file, flags.ifAbsent ?? false, flags.json ?? false), flags.json),
    );
}
