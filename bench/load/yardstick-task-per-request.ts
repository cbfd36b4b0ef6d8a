/**
 * The yardstick for reads: a server as one would first write it, with a piscina task for every request. It speaks our
 * protocol as far as the raw generator needs it (HELLO, ATTACH, READ of one aligned block), so that the same generator
 * drives both.
 *
 * Everything else is made as good as it gets, so that the comparison is about the task per request: long-lived file
 * descriptor, blocks in shared memory instead of copies between threads, replies of one turn in one write.
 * Prints {"event":"listening"} when it serves; removes its file at the end.
 */
import { closeSync, fsyncSync, mkdirSync, openSync, rmSync, writeSync } from 'node:fs';
import { createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { crc32 } from 'node:zlib';
import { Command } from 'commander';
import { Piscina } from 'piscina';
import { HoldfastError } from '../../src/base/errors.ts';
import { BLOCK_BYTES, MAX_IO_BYTES, MiB } from '../../src/base/units.ts';
import { encodeHeader, FrameDecoder, HEADER_BYTES, type FrameHeader } from '../../src/protocol/frame.ts';
import { agree, decodeAttach, decodeHello, encodeHelloReply, encodeVolumeInfo } from '../../src/protocol/handshake.ts';
import { MESSAGES, REPLY_BIT, SESSION_WINDOW } from '../../src/protocol/messages.ts';
import { encodeErrorReply, encodeReply } from '../../src/protocol/replies.ts';
import { number, size } from './load-options.ts';
import { Random } from './workload.ts';
import type { Task, TaskMemory } from './yardstick-task.ts';

/** Requests in flight on all connections; beyond it a request is refused. */
const SLOTS = 4096;
const EPOCH = 1;

interface Request {
  type: number;
  requestId: number;
  offset: number;
  count: number;
}

interface YardstickOptions {
  dir: string;
  size: number;
  listen: string;
  threads: number;
  tasksPerThread: number;
}

class TaskServer {
  private readonly pool: Piscina<Task, number>;
  private readonly slots = new SharedArrayBuffer(SLOTS * BLOCK_BYTES);
  private readonly freeSlots = Array.from({ length: SLOTS }, (_, i) => i);
  private readonly blocks: number;

  constructor(fd: number, crcs: SharedArrayBuffer, options: YardstickOptions) {
    this.blocks = crcs.byteLength / 4;
    const memory: TaskMemory = { fd, slots: this.slots, crcs };
    this.pool = new Piscina<Task, number>({
      filename: fileURLToPath(new URL('./yardstick-task.js', import.meta.url)),
      minThreads: options.threads,
      maxThreads: options.threads,
      concurrentTasksPerWorker: options.tasksPerThread,
      idleTimeout: Infinity,
      atomics: 'async',
      workerData: memory,
    });
  }

  serve(socket: Socket): void {
    socket.setNoDelay(true);
    socket.on('error', () => socket.destroy());
    const decoder = new FrameDecoder(
      {
        onHeader: () => null,
        onFrame: (header, payload) => this.handle(socket, header, payload),
        onMalformed: (error) => socket.destroy(error),
      },
      'server',
    );
    socket.on('data', (chunk) => {
      try {
        decoder.push(chunk);
      } catch (error) {
        socket.destroy(error as Error);
      }
    });
  }

  private handle(socket: Socket, header: FrameHeader, payload: Uint8Array | null): void {
    switch (header.type) {
      case MESSAGES.HELLO.number: {
        const version = agree(decodeHello(payload));
        const limits = {
          maxPayloadBytes: MAX_IO_BYTES,
          maxInFlightBytes: SLOTS * BLOCK_BYTES,
          maxInFlightRequests: SLOTS,
          sessionWindow: SESSION_WINDOW,
        };
        const reply = encodeHelloReply({ version, features: 0n, limits, server: 'task per request' });
        socket.write(encodeReply(header, EPOCH, reply));
        return;
      }
      case MESSAGES.ATTACH.number: {
        const reply = encodeVolumeInfo({
          name: decodeAttach(payload).volume,
          volumeId: new Uint8Array(16),
          sizeBytes: this.blocks * BLOCK_BYTES,
          blockBytes: BLOCK_BYTES,
          atomicBytes: MAX_IO_BYTES,
          readOnly: true,
          epoch: EPOCH,
          position: { epoch: EPOCH, seq: 0 },
        });
        socket.write(encodeReply(header, EPOCH, reply));
        return;
      }
      case MESSAGES.READ.number: {
        // The decoder's header is overwritten by the next frame.
        const { type, requestId, offset, count } = header;
        void this.read(socket, { type, requestId, offset, count });
        return;
      }
      default:
        socket.write(encodeErrorReply(header, EPOCH, new HoldfastError('UNSUPPORTED')));
    }
  }

  private async read(socket: Socket, request: Request): Promise<void> {
    const { requestId, offset, count } = request;
    const block = offset / BLOCK_BYTES;
    if (!Number.isInteger(block) || block >= this.blocks || count !== BLOCK_BYTES) {
      socket.write(encodeErrorReply(request, EPOCH, new HoldfastError('INVALID_ARGUMENT')));
      return;
    }
    const slot = this.freeSlots.pop();
    if (slot === undefined) {
      socket.write(encodeErrorReply(request, EPOCH, new HoldfastError('BUSY')));
      return;
    }
    const payloadCrc = await this.pool.run({ block, slot });
    if (payloadCrc === -1 || socket.destroyed) {
      this.freeSlots.push(slot);
      if (!socket.destroyed) socket.write(encodeErrorReply(request, EPOCH, new HoldfastError('CORRUPT_BLOCK')));
      return;
    }
    const header = Buffer.allocUnsafe(HEADER_BYTES);
    const type = MESSAGES.READ.number | REPLY_BIT;
    encodeHeader(header, 0, { type, payloadBytes: BLOCK_BYTES, requestId, epoch: EPOCH, offset, count, payloadCrc });
    // Replies that become ready in one turn leave together.
    if (socket.writableCorked === 0) {
      socket.cork();
      setImmediate(() => socket.uncork());
    }
    socket.write(header);
    socket.write(new Uint8Array(this.slots, slot * BLOCK_BYTES, BLOCK_BYTES), () => this.freeSlots.push(slot));
  }
}

/** A file of random bytes and the CRC of each of its blocks. */
function makeFile(path: string, sizeBytes: number): { fd: number; crcs: SharedArrayBuffer } {
  const fd = openSync(path, 'w+');
  const blocks = Math.floor(sizeBytes / BLOCK_BYTES);
  const crcs = new SharedArrayBuffer(blocks * 4);
  const table = new Uint32Array(crcs);
  const chunk = new Uint8Array(1 * MiB);
  new Random(1).fill(chunk);
  for (let block = 0; block < blocks;) {
    const bytes = chunk.subarray(0, Math.min(chunk.length, (blocks - block) * BLOCK_BYTES));
    // The block number in front makes all blocks different.
    for (let at = 0; at < bytes.length; at += BLOCK_BYTES, block++) {
      new DataView(bytes.buffer).setUint32(at, block, true);
      table[block] = crc32(bytes.subarray(at, at + BLOCK_BYTES));
    }
    const position = block * BLOCK_BYTES - bytes.length;
    for (let done = 0; done < bytes.length;) done += writeSync(fd, bytes, done, bytes.length - done, position + done);
  }
  fsyncSync(fd);
  return { fd, crcs };
}

const options = new Command('yardstick-task-per-request')
  .description('serves random blocks with one piscina task per request: what the ring of the store is held against')
  .requiredOption('--dir <path>', 'folder for the file')
  .option('--size <size>', 'size of the file', size, 256 * MiB)
  .option('--listen <address>', 'host:port', '127.0.0.1:7499')
  .option('--threads <n>', 'threads of the pool', number(1, 64), 2)
  .option('--tasks-per-thread <n>', 'tasks that piscina hands to a thread at once', number(1, 4096), 1)
  .parse()
  .opts<YardstickOptions>();

mkdirSync(options.dir, { recursive: true });
const path = join(options.dir, 'task-per-request.data');
const { fd, crcs } = makeFile(path, options.size);
const tasks = new TaskServer(fd, crcs, options);
const server = createServer((socket) => tasks.serve(socket));
const [host, port] = options.listen.split(':');
server.listen(Number(port), host, () => {
  process.stdout.write(`${JSON.stringify({ event: 'listening', listen: options.listen })}\n`);
});
process.once('SIGTERM', () => {
  closeSync(fd);
  rmSync(path, { force: true });
  process.exit(0);
});
