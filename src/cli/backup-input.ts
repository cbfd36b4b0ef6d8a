/**
 * Backup files to read from, more than once: files by their names, and stdin, which is kept in a temporary file.
 *
 * Guarantees: what is read the second time is the same open file, whatever its name stands for by then; the temporary
 * file has no name, so it is gone when the process is.
 */
import { type FileHandle, mkdtemp, open, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { HoldfastError, asHoldfastError } from '../base/errors.ts';
import { MiB } from '../base/units.ts';
import { Progress } from './output.ts';

const CHUNK_BYTES = MiB;

export class BackupInput {
  /** For texts. */
  readonly name: string;
  readonly sizeBytes: number;
  private readonly handle: FileHandle;

  private constructor(name: string, handle: FileHandle, sizeBytes: number) {
    this.name = name;
    this.handle = handle;
    this.sizeBytes = sizeBytes;
  }

  /** @param file `-` is stdin. @throws HoldfastError ACCESS, NO_SPACE, IO_ERROR */
  static async open(file: string, spoolDir: string = tmpdir()): Promise<BackupInput> {
    try {
      const handle = file === '-' ? await spooled(spoolDir) : await open(file, 'r');
      return new BackupInput(file === '-' ? 'stdin' : file, handle, (await handle.stat()).size);
    } catch (error) {
      const { code, message } = asHoldfastError(error);
      const remedy =
        code === 'NO_SPACE'
          ? 'give --spool DIR with room for it, or --trust-stream to write before all is verified'
          : undefined;
      throw new HoldfastError(code, { operation: 'read backup', detail: `${file}: ${message}`, remedy, cause: error });
    }
  }

  /** @param end behind its last byte */
  async *read(start = 0, end: number = this.sizeBytes): AsyncGenerator<Buffer> {
    for (let at = start; at < end;) {
      // Each piece is the taker's own.
      const buffer = Buffer.allocUnsafeSlow(Math.min(CHUNK_BYTES, end - at));
      const { bytesRead } = await this.handle.read(buffer, 0, buffer.length, at);
      if (bytesRead === 0) return;
      yield buffer.subarray(0, bytesRead);
      at += bytesRead;
    }
  }

  async close(): Promise<void> {
    await this.handle.close();
  }
}

async function spooled(spoolDir: string): Promise<FileHandle> {
  const dir = await mkdtemp(join(spoolDir, 'holdfast-import-'));
  const progress = new Progress('reading stdin');
  let handle: FileHandle | null = null;
  try {
    handle = await open(join(dir, 'stdin'), 'wx+', 0o600);
    let doneBytes = 0;
    await rm(dir, { recursive: true });
    for await (const bytes of process.stdin as AsyncIterable<Buffer>) {
      for (let at = 0; at < bytes.length;) at += (await handle.write(bytes, at, bytes.length - at)).bytesWritten;
      doneBytes += bytes.length;
      progress.note(doneBytes);
    }
    return handle;
  } catch (error) {
    await handle?.close();
    await rm(dir, { recursive: true, force: true });
    throw error;
  } finally {
    progress.stop();
  }
}
