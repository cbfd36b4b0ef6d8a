/**
 * Replies on their way to a socket: those of one tick leave together. Small ones are copied into a few buffers; long
 * ones go from where they lie, as long as slow readers hold little that way, else they are copied too.
 *
 * Guarantees: what is held for a connection is what its requests in flight may answer with; all connections together
 * keep at most MAX_LENT_BYTES of other people's memory from them; `onFlushed` tells how many requests left when the
 * kernel took them.
 */
import { copyBytes } from '../base/copy.ts';
import type { Socket } from 'node:net';

const SMALL_BYTES = 32 * 1024;
const LARGE_BYTES = 512 * 1024;
/** Replies that are shorter are always copied. */
const MIN_LENT_BYTES = 64 * 1024;
/** What may lie in the arena and wait for readers, of all connections and of one. */
const MAX_LENT_BYTES = 16 * 1024 * 1024;
const MAX_LENT_BYTES_EACH = 4 * 1024 * 1024;
/** What is handed to the kernel in one call. */
const MAX_TOGETHER_BYTES = 1280 * 1024;
let lentBytes = 0;
/** Buffers kept for reuse, per size, by all connections. */
const MAX_SPARE = 64;
const spareSmall: Uint8Array[] = [];
const spareLarge: Uint8Array[] = [];

function takeBuffer(bytes: number): Uint8Array {
  const large = bytes > SMALL_BYTES;
  return (large ? spareLarge : spareSmall).pop() ?? Buffer.allocUnsafeSlow(large ? LARGE_BYTES : SMALL_BYTES);
}

function giveBack(buffer: Uint8Array): void {
  const list = buffer.length === SMALL_BYTES ? spareSmall : spareLarge;
  if (list.length < MAX_SPARE) list.push(buffer);
}

interface Pending {
  buffer: Uint8Array;
  used: number;
  requests: number;
  /** Whose memory it is; null: a buffer of ours. */
  release: (() => void) | null;
}

export class ReplyWriter {
  private socket: Socket;
  private readonly onFlushed: (requests: number, bytes: number) => void;
  private pending: Pending[] = [];
  private scheduled = false;
  private lentBytes = 0;
  /** Bytes handed to the socket that the kernel has not taken. */
  unflushedBytes = 0;

  constructor(socket: Socket, onFlushed: (requests: number, bytes: number) => void) {
    this.socket = socket;
    this.onFlushed = onFlushed;
  }

  /** What comes from now on goes to another socket; for a moment at which nothing is unflushed. */
  moveTo(socket: Socket): void {
    this.socket = socket;
  }

  /**
   * Room for a frame of so many bytes, which `fill` writes at once.
   * @param requests how many requests this answers (0 or 1)
   */
  frame(bytes: number, requests: number, fill: (into: Uint8Array, at: number) => void): void {
    let last = this.pending.at(-1);
    if (last === undefined || last.release !== null || last.used + bytes > last.buffer.length) {
      const want = this.pending.length > 0 ? LARGE_BYTES : bytes;
      last = { buffer: takeBuffer(Math.max(bytes, want)), used: 0, requests: 0, release: null };
      this.pending.push(last);
    }
    fill(last.buffer, last.used);
    last.used += bytes;
    last.requests += requests;
    this.unflushedBytes += bytes;
    this.schedule();
  }

  /**
   * Bytes that lie in memory of the caller's, until `release` is called.
   * @param requests how many requests are answered with the last of them
   */
  pieces(pieces: readonly Uint8Array[], requests: number, release: () => void): void {
    let bytes = 0;
    for (const piece of pieces) bytes += piece.length;
    const lend =
      bytes >= MIN_LENT_BYTES && lentBytes + bytes <= MAX_LENT_BYTES && this.lentBytes + bytes <= MAX_LENT_BYTES_EACH;
    if (!lend) {
      pieces.forEach((piece, i) => this.copy(piece, i === pieces.length - 1 ? requests : 0));
      return release();
    }
    lentBytes += bytes;
    this.lentBytes += bytes;
    let left = pieces.length;
    const taken = (): void => {
      if (--left > 0) return;
      lentBytes -= bytes;
      this.lentBytes -= bytes;
      release();
    };
    pieces.forEach((piece, i) => {
      const last = i === pieces.length - 1;
      this.pending.push({ buffer: piece, used: piece.length, requests: last ? requests : 0, release: taken });
    });
    this.unflushedBytes += bytes;
    this.schedule();
  }

  private copy(bytes: Uint8Array, requests: number): void {
    for (let at = 0; at < bytes.length; at += LARGE_BYTES) {
      const piece = bytes.subarray(at, at + LARGE_BYTES);
      const last = at + LARGE_BYTES >= bytes.length;
      this.frame(piece.length, last ? requests : 0, (into, where) => copyBytes(into, where, piece));
    }
  }

  private schedule(): void {
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
    // A long reply goes in pieces, so that a slow reader is seen to take them.
    const together = batch.length > 1 && batch.reduce((sum, { used }) => sum + used, 0) <= MAX_TOGETHER_BYTES;
    if (together) socket.cork();
    for (const { buffer, used, requests, release } of batch) {
      socket.write(buffer.subarray(0, used), () => {
        if (release === null) giveBack(buffer);
        else release();
        this.unflushedBytes -= used;
        this.onFlushed(requests, used);
      });
    }
    if (together) socket.uncork();
  }
}
