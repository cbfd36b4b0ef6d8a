/**
 * How much a connection may have in flight: beyond the bound its socket is not read, whatever protocol it speaks.
 *
 * Guarantees: the bound counts after each request of a chunk, not only after the chunk, if the parser pauses when
 * `overLimit` says so; what was received and not taken is kept as a copy and taken first; a reply counts until the
 * kernel has it; when the connection goes over to TLS, not a byte is read in the clear that came after the chunk which
 * asked for it, and not one is lost.
 */
import type { Socket } from 'node:net';
import { noteActive } from './lone-connection.ts';
import { ReplyWriter } from './reply-writer.ts';
import { readIntoUserBuffer, readThroughEvents } from './user-buffer-socket.ts';

export interface FlowLimits {
  maxInFlightBytes: number;
  maxInFlightRequests: number;
}

export class FlowControl {
  /** The one to use now; another one after `attach`. */
  socket: Socket;
  readonly replies: ReplyWriter;
  /** Requests that are begun and whose replies the kernel does not have. */
  requests = 0;
  /** Bytes of payload that those requests hold or ask for. */
  bytes = 0;
  /** The socket is not read. */
  paused = false;
  /** performance.now() when bytes last came or left. */
  lastProgressMs: number = performance.now();
  private readonly push: (chunk: Uint8Array) => number;
  private readonly limits: FlowLimits;
  private rest: Uint8Array | null = null;
  private stopped = false;
  /** Set while the socket may be handed over. */
  private stopReading: (() => void) | null = null;
  private handingOver = false;
  private handOver: (() => void) | null = null;

  /**
   * @param accepted a socket of the server, not to be used any more
   * @param push takes bytes; returns the index of the first one that it did not take
   * @param flushed called whenever replies have left
   * @param mayDetach the socket is read in the slower way from which it can be detached
   */
  constructor(
    accepted: Socket,
    limits: FlowLimits,
    push: (chunk: Uint8Array) => number,
    flushed: () => void,
    mayDetach = false,
  ) {
    this.push = push;
    this.limits = limits;
    if (mayDetach) {
      this.socket = accepted;
      this.stopReading = readThroughEvents(accepted, (chunk) => this.receive(chunk));
    } else this.socket = readIntoUserBuffer(accepted, (_socket, chunk) => this.receive(chunk));
    this.replies = new ReplyWriter(this.socket, (requests) => {
      this.lastProgressMs = performance.now();
      this.requests -= requests;
      this.resume();
      this.handOverWhenFlushed();
      flushed();
    });
    this.socket.setNoDelay(true);
    this.socket.on('error', () => {});
  }

  get overLimit(): boolean {
    const { maxInFlightBytes, maxInFlightRequests } = this.limits;
    return this.requests >= maxInFlightRequests || this.bytes + this.replies.unflushedBytes >= maxInFlightBytes;
  }

  private receive(chunk: Uint8Array): boolean {
    this.lastProgressMs = performance.now();
    noteActive(this, this.lastProgressMs);
    return this.take(chunk);
  }

  /**
   * Called within `push`, which has to take all of its chunk: nothing more is read from this socket.
   * @param detached gets the socket, with all that came meanwhile still in it, when the kernel has every reply
   */
  detach(detached: (socket: Socket) => void): void {
    this.stopReading!();
    this.stopReading = null;
    this.handingOver = true;
    this.handOver = () => detached(this.socket);
  }

  private handOverWhenFlushed(): void {
    const { handOver } = this;
    if (handOver === null || this.replies.unflushedBytes > 0) return;
    this.handOver = null;
    if (!this.stopped && !this.socket.destroyed) handOver();
  }

  /** After `detach`: goes on with another socket, under the same limits. */
  attach(socket: Socket): void {
    this.socket = socket;
    this.replies.moveTo(socket);
    this.handingOver = false;
    this.paused = false;
    socket.on('error', () => {});
    if (!this.stopped) readThroughEvents(socket, (chunk) => this.receive(chunk));
  }

  /** Takes a chunk as far as the limits allow and keeps a copy of the rest. @returns whether to go on reading */
  private take(chunk: Uint8Array): boolean {
    const at = this.push(chunk);
    this.rest = at < chunk.length ? new Uint8Array(chunk.subarray(at)) : null;
    this.paused = this.rest !== null || this.overLimit;
    return !this.paused;
  }

  /** Goes on, if it was paused and nothing stands in the way any more. */
  resume(): void {
    if (this.stopped || this.handingOver || !this.paused || this.overLimit) return;
    if (this.rest !== null && !this.take(this.rest)) return;
    this.paused = false;
    this.socket.resume();
  }

  /** The connection is over: nothing more is taken. */
  stop(): void {
    this.stopped = true;
  }
}
