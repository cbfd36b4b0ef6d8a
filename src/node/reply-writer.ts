/**
 * Replies on their way to a socket: those of one tick leave together, copied into a few buffers, so that a slow reader
 * holds none of the arena.
 *
 * Guarantees: what is held for a connection is what its requests in flight may answer with; `onFlushed` tells how many
 * requests left when the kernel took them.
 */
import type { Socket } from 'node:net';

const SMALL_BYTES = 32 * 1024;
const LARGE_BYTES = 512 * 1024;
/** Buffers kept for reuse, per size, by all connections. */
const MAX_SPARE = 64;
const spareSmall: Buffer[] = [];
const spareLarge: Buffer[] = [];

function takeBuffer(bytes: number): Buffer {
  const large = bytes > SMALL_BYTES;
  return (large ? spareLarge : spareSmall).pop() ?? Buffer.allocUnsafeSlow(large ? LARGE_BYTES : SMALL_BYTES);
}

function giveBack(buffer: Buffer): void {
  const list = buffer.length === SMALL_BYTES ? spareSmall : spareLarge;
  if (list.length < MAX_SPARE) list.push(buffer);
}

interface Pending {
  buffer: Buffer;
  used: number;
  requests: number;
}

export class ReplyWriter {
  private readonly socket: Socket;
  private readonly onFlushed: (requests: number, bytes: number) => void;
  private pending: Pending[] = [];
  private scheduled = false;
  /** Bytes handed to the socket that the kernel has not taken. */
  unflushedBytes = 0;

  constructor(socket: Socket, onFlushed: (requests: number, bytes: number) => void) {
    this.socket = socket;
    this.onFlushed = onFlushed;
  }

  /**
   * Room for a frame of so many bytes, which `fill` writes at once.
   * @param requests how many requests this answers (0 or 1)
   */
  frame(bytes: number, requests: number, fill: (into: Buffer, at: number) => void): void {
    let last = this.pending.at(-1);
    if (last === undefined || last.used + bytes > last.buffer.length) {
      const want = this.pending.length > 0 ? LARGE_BYTES : bytes;
      last = { buffer: takeBuffer(Math.max(bytes, want)), used: 0, requests: 0 };
      this.pending.push(last);
    }
    fill(last.buffer, last.used);
    last.used += bytes;
    last.requests += requests;
    this.unflushedBytes += bytes;
    if (!this.scheduled) {
      this.scheduled = true;
      queueMicrotask(() => this.flush());
    }
  }

  private flush(): void {
    this.scheduled = false;
    const { socket } = this;
    const batch = this.pending;
    this.pending = [];
    if (batch.length > 1) socket.cork();
    for (const { buffer, used, requests } of batch) {
      socket.write(buffer.subarray(0, used), () => {
        giveBack(buffer);
        this.unflushedBytes -= used;
        this.onFlushed(requests, used);
      });
    }
    if (batch.length > 1) socket.uncork();
  }
}
