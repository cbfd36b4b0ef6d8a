/** `holdfast read | write VOLUME`: bytes of a volume to stdout, stdin into a volume. */
import { fstatSync } from 'node:fs';
import type { Command } from 'commander';
import { HoldfastError } from '../base/errors.ts';
import { MiB, parseSize } from '../base/units.ts';
import { connect, type ConnectOptions } from '../client/index.ts';
import { Progress, endQuietlyWithoutReader, printJson } from './output.ts';

/** Moved at a time; the client library cuts it into requests and pipelines them. */
const CHUNK_BYTES = 4 * MiB;
/** Chunks under way at once. */
const AHEAD = 2;

interface DataFlags {
  offset: string;
  length?: string;
  connections: string;
  reads?: string;
  json?: boolean;
}

/** An offset or a length: bytes, or with a unit. */
function parseBytes(name: string, text: string): number {
  try {
    return /^0+$/.test(text) ? 0 : parseSize(text);
  } catch {
    throw new HoldfastError('INVALID_ARGUMENT', {
      operation: `parse --${name}`,
      detail: `"${text}"`,
      remedy: 'write a number of bytes, or one with KiB, MiB, GiB or TiB',
    });
  }
}

async function read(url: string, flags: DataFlags): Promise<void> {
  endQuietlyWithoutReader();
  const offset = parseBytes('offset', flags.offset);
  // `connect` refuses what is none of the policies.
  const reads = flags.reads as ConnectOptions['reads'];
  const device = await connect(url, { connections: Number(flags.connections), reads });
  try {
    const length = flags.length === undefined ? device.sizeBytes - offset : parseBytes('length', flags.length);
    const progress = new Progress('reading');
    const chunks: Array<Promise<Uint8Array>> = [];
    let asked = 0;
    for (let done = 0; done < length;) {
      while (asked < length && chunks.length < AHEAD) {
        const count = Math.min(CHUNK_BYTES, length - asked);
        const chunk = device.read(offset + asked, count);
        // Awaited in order below; one that fails early must not count as unhandled meanwhile.
        chunk.catch(() => {});
        chunks.push(chunk);
        asked += count;
      }
      const bytes = await chunks.shift()!;
      if (!process.stdout.write(bytes)) await new Promise((resolve) => process.stdout.once('drain', resolve));
      done += bytes.length;
      progress.update(done, length);
    }
    progress.stop();
  } finally {
    await device.close();
  }
}

/** Bytes that stdin will bring, where that is known: a file has a size. */
function expectedBytes(): number | null {
  const stat = fstatSync(0);
  return stat.isFile() ? stat.size : null;
}

async function write(url: string, flags: DataFlags): Promise<void> {
  const offset = parseBytes('offset', flags.offset);
  const device = await connect(url, { connections: Number(flags.connections) });
  try {
    const expected = expectedBytes();
    if (expected !== null && offset + expected > device.sizeBytes) {
      throw new HoldfastError('OUT_OF_RANGE', {
        operation: 'write',
        offsetBytes: offset,
        lengthBytes: expected,
        detail: `the volume has ${device.sizeBytes} bytes; nothing was written`,
      });
    }
    const progress = new Progress('writing');
    const started = performance.now();
    let sent = 0;
    let done = 0;
    const underWay: Array<Promise<void>> = [];
    const send = async (bytes: Uint8Array): Promise<void> => {
      if (underWay.length >= AHEAD) await underWay.shift();
      const written = device.write(offset + sent, bytes).then(() => {
        done += bytes.length;
        if (expected !== null) progress.update(done, expected);
      });
      written.catch(() => {});
      underWay.push(written);
      sent += bytes.length;
    };
    for await (const bytes of gathered(process.stdin as AsyncIterable<Buffer>, offset)) await send(bytes);
    await Promise.all(underWay);
    progress.stop();
    const seconds = (performance.now() - started) / 1000;
    if (flags.json) printJson({ writtenBytes: sent, offsetBytes: offset, seconds });
    else process.stderr.write(`${sent} bytes written at offset ${offset}, durable\n`);
  } finally {
    await device.close();
  }
}

/**
 * Pieces of a stream gathered into chunks that end at multiples of CHUNK_BYTES of the volume: a pipe gives pieces of any
 * size, and a block that lies in two chunks could be half old after a crash.
 */
async function* gathered(source: AsyncIterable<Buffer>, offset: number): AsyncGenerator<Uint8Array> {
  let at = offset;
  let chunk: Buffer | null = null;
  let filled = 0;
  for await (const piece of source) {
    for (let from = 0; from < piece.length;) {
      chunk ??= Buffer.allocUnsafe(CHUNK_BYTES - (at % CHUNK_BYTES));
      const step = Math.min(chunk.length - filled, piece.length - from);
      piece.copy(chunk, filled, from, from + step);
      filled += step;
      from += step;
      if (filled < chunk.length) continue;
      yield chunk;
      at += filled;
      chunk = null;
      filled = 0;
    }
  }
  if (chunk !== null) yield chunk.subarray(0, filled);
}

export function addDataCommands(
  program: Command,
  run: (work: () => Promise<void>, json?: boolean) => Promise<void>,
): void {
  program
    .command('read <volume>')
    .description('bytes of a volume to stdout; VOLUME is holdfast://host:port/name')
    .requiredOption('--offset <n>', 'first byte, e.g. 0 or 64MiB')
    .option('--length <n>', 'how many bytes; default: to the end')
    .option('--connections <n>', 'connections in parallel', '1')
    .option('--reads <policy>', 'primary | any replica in sync | all of them, compared', 'primary')
    .addHelpText('after', '\nExample:\n  holdfast read holdfast://127.0.0.1:7401/demo --offset 0 --length 1MiB > part')
    .action((url: string, flags: DataFlags) => run(() => read(url, flags)));
  program
    .command('write <volume>')
    .description('stdin into a volume; done means durable')
    .requiredOption('--offset <n>', 'where the first byte goes')
    .option('--connections <n>', 'connections in parallel', '1')
    .option('--json', 'print JSON')
    .addHelpText('after', '\nExample:\n  holdfast write holdfast://127.0.0.1:7401/demo --offset 0 < disk.img')
    .action((url: string, flags: DataFlags) => run(() => write(url, flags), flags.json));
}
