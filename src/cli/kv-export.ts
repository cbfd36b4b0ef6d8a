/**
 * `holdfast kv export`: all keys of a volume into a file, or to stdout.
 *
 * Guarantees: a file of that name is whole and durable when the command says so, and is as it was if it fails or is
 * interrupted: nothing else stays in its folder. On stdout the end of what is whole is the line with the sum. What is
 * exported is of one moment (kv-moment.ts), or says that it is not.
 */
import { randomBytes } from 'node:crypto';
import { close, closeSync, fstatSync, fsync, openSync, realpathSync, rmSync, statSync, write } from 'node:fs';
import { rename } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname } from 'node:path';
import { promisify } from 'node:util';
import { HoldfastError, asHoldfastError } from '../base/errors.ts';
import { LineWriter } from './kv-format.ts';
import { KvMoment } from './kv-moment.ts';
import { withStore } from './kv-store.ts';
import { Progress, printJson } from './output.ts';

/** Gathered before it is written. */
const CHUNK_BYTES = 256 * 1024;
const SIGNALS = { SIGINT: 130, SIGTERM: 143, SIGHUP: 129 } as const;

interface Sink {
  write(text: string): Promise<void>;
  /** It is there for good when this resolves. */
  finish(): Promise<void>;
  /** Nothing of it stays. May be called at any time, and synchronously. */
  abandon(): void;
}

function failed(file: string, error: unknown): HoldfastError {
  const errno = (error as NodeJS.ErrnoException).code;
  const remedies: Record<string, string> = {
    ENOENT: 'make the folder first',
    ENOTDIR: 'choose a path whose folders are there',
    EISDIR: 'name a file, not a folder',
    ENOSPC: 'make room, or export to another folder, or to - (stdout)',
    EDQUOT: 'make room, or export to another folder, or to - (stdout)',
    EFBIG: 'raise the limit on the size of files (ulimit -f), or export to - (stdout)',
    EACCES: 'choose a folder that may be written',
    EPERM: 'choose a folder that may be written',
    EROFS: 'choose a folder that may be written',
    EPIPE: 'see why whatever reads the output ended',
  };
  const remedy = remedies[errno ?? ''] ?? 'see to the disk, then run it again';
  const known = asHoldfastError(error);
  return new HoldfastError(known.code, {
    operation: `export to ${file}`,
    detail: `${error instanceof Error ? error.message : String(error)}; the keys are not exported`,
    remedy,
    cause: error,
  });
}

/** Written beside the file of that name, made durable, and renamed. */
class FileSink implements Sink {
  private readonly file: string;
  private readonly partial: string;
  private readonly descriptor: number;
  private pieces: string[] = [];
  private bytes = 0;

  /** Returns with the file made: a signal is handled when it is known. */
  constructor(name: string) {
    const before = statSync(name, { throwIfNoEntry: false });
    if (before !== undefined && !before.isFile()) {
      throw new HoldfastError('INVALID_ARGUMENT', {
        operation: `export to ${name}`,
        detail: 'it is there, and no file: it would be replaced',
        remedy: 'name a file; or export to - and send that there',
      });
    }
    // What a link points to is replaced, not the link.
    this.file = before === undefined ? name : realpathSync(name);
    this.partial = `${this.file}.${randomBytes(4).toString('hex')}.partial`;
    // What others may not read in the old one they may not in the new.
    this.descriptor = openSync(this.partial, 'wx', before === undefined ? 0o666 : before.mode & 0o777);
  }

  async write(text: string): Promise<void> {
    this.pieces.push(text);
    this.bytes += text.length;
    if (this.bytes >= CHUNK_BYTES) await this.flush();
  }

  async finish(): Promise<void> {
    await this.flush();
    await promisify(fsync)(this.descriptor);
    await promisify(close)(this.descriptor);
    await rename(this.partial, this.file);
    const folder = openSync(dirname(this.file), 'r');
    await promisify(fsync)(folder);
    closeSync(folder);
  }

  abandon(): void {
    rmSync(this.partial, { force: true });
  }

  private async flush(): Promise<void> {
    const bytes = Buffer.from(this.pieces.join(''));
    [this.pieces, this.bytes] = [[], 0];
    for (let at = 0; at < bytes.length;) {
      at += (await promisify(write)(this.descriptor, bytes, at, bytes.length - at)).bytesWritten;
    }
  }
}

class StdoutSink implements Sink {
  constructor() {
    // Told by the write that fails of it.
    process.stdout.on('error', () => {});
  }

  write(text: string): Promise<void> {
    return new Promise((resolve, reject) =>
      process.stdout.write(text, (error) => {
        if (error) reject(error);
        else resolve();
      }),
    );
  }

  async finish(): Promise<void> {
    if (fstatSync(1).isFile()) await promisify(fsync)(1);
  }

  abandon(): void {}
}

/** @param fuzzy keys of different moments will do. @throws HoldfastError BUSY if they are and will not */
export async function exportTo(url: string, file: string, fuzzy: boolean, json: boolean): Promise<void> {
  let sink: Sink | null = null;
  // Before there is a file: a signal that is not handled yet would leave it.
  for (const [signal, code] of Object.entries(SIGNALS)) {
    process.once(signal, () => {
      sink?.abandon();
      process.exit(code);
    });
  }
  try {
    sink = file === '-' ? new StdoutSink() : new FileSink(file);
  } catch (error) {
    throw error instanceof HoldfastError ? error : failed(file, error);
  }
  await exportInto(sink, url, file, fuzzy, json);
}

async function exportInto(sink: Sink, url: string, file: string, fuzzy: boolean, json: boolean): Promise<void> {
  const name = file === '-' ? 'stdout' : file;
  const written = async <T>(work: Promise<T>): Promise<T> => {
    try {
      return await work;
    } catch (error) {
      throw error instanceof HoldfastError ? error : failed(name, error);
    }
  };
  const lines = new LineWriter();
  let of = { consistent: false, version: 0, changedMeanwhile: 0 };
  const progress = new Progress('exporting', (count) => `${count} keys`);
  const all = async (): Promise<void> => {
    await withStore(
      url,
      {},
      async (store) => {
        const total = Math.max(1, await store.size());
        const dir = file === '-' ? tmpdir() : dirname(file);
        const report = (count: number): void => progress.update(Math.min(count, total), total);
        const moment = await written(KvMoment.of(store, dir, report));
        try {
          if (moment.lost !== null && !fuzzy) throw notOneMoment(store.name, moment.lost);
          await written(sink.write(lines.head(store.name, moment.version)));
          for await (const { key, value, expiresAtMs } of moment.entries()) {
            await written(sink.write(lines.entry(key, value, expiresAtMs)));
          }
        } finally {
          moment.close();
        }
        of = { consistent: moment.lost === null, version: moment.version, changedMeanwhile: moment.changedKeys };
      },
      'needed',
    );
    await written(sink.write(lines.end(of.consistent)));
    await written(sink.finish());
  };
  try {
    await all();
  } catch (error) {
    sink.abandon();
    throw error;
  } finally {
    progress.stop();
  }
  const result = { exported: lines.count, file, ...of };
  const state = of.consistent ? `as they were at version ${of.version}` : 'FUZZY: they are of different moments';
  if (!json) process.stderr.write(`${lines.count} keys written to ${name}, ${state}\n`);
  else if (file !== '-') printJson(result);
  // stdout has the keys.
  else process.stderr.write(`${JSON.stringify(result)}\n`);
}

function notOneMoment(volume: string, cause: HoldfastError): HoldfastError {
  return new HoldfastError('BUSY', {
    operation: 'export',
    volume,
    detail: `more was changed meanwhile than can be followed, so the keys are of no single moment: ${cause.message}`,
    remedy: 'try again when less is written, or give --fuzzy to take them so',
    cause,
  });
}
