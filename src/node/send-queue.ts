/**
 * What waits to be sent to a replica: frames in order, their content where it lies, handed to the kernel part by part.
 *
 * Guarantees: frames leave in the order of `add`, those that all sockets of one turn of the event loop gave rise to in one
 * `writev`; content is not copied; `sent` of
 * each is called exactly once, in order: when the kernel has taken it, or when the socket is closed for good and nobody
 * reads that memory any more, never before.
 */
import type { Socket } from 'node:net';
import { type PeerPayload, peerHead } from '../protocol/peer.ts';
import { PEER_HEADER_BYTES } from '../protocol/peer-frame.ts';

/**
 * What is handed over at a time. A reader that takes less than this within the deadline of a stall counts as stalled,
 * so it is little; and it is enough to keep the kernel's buffer filled.
 */
const HAND_OVER_BYTES = 512 * 1024;

interface Waiting {
  payload: PeerPayload;
  bytes: number;
  sent: (() => void) | undefined;
}

export class SendQueue {
  /** Bytes that the kernel has not taken. */
  bytes = 0;
  /** Bytes that it has taken. */
  takenBytes = 0;
  private readonly socket: Socket;
  private waiting: Waiting[] = [];
  /** Handed to the socket, not taken yet. */
  private handed: Waiting[] = [];
  /** Not to be sent any more; let go in its turn. */
  private readonly dropped: Waiting[] = [];
  private nextNumber = 0;
  private scheduled = false;
  private empty: (() => void) | null = null;
  private closed = false;

  constructor(socket: Socket) {
    this.socket = socket;
    // When the handle is closed, the kernel's view of the memory is gone too: only then is what it did not take let go.
    socket.on('close', () => {
      this.closed = true;
      for (const list of [this.handed, this.dropped, this.waiting]) this.settle(list);
    });
  }

  /** After the end of the stream nothing is sent, and `sent` is called a moment later. */
  add(payload: PeerPayload, sent?: () => void): void {
    if (this.closed) {
      if (sent !== undefined) queueMicrotask(sent);
      return;
    }
    const bytes = PEER_HEADER_BYTES + payload.fields.length + payload.content.length;
    this.bytes += bytes;
    this.waiting.push({ payload, bytes, sent });
    if (this.scheduled || this.handed.length > 0) return;
    this.scheduled = true;
    // Behind the sockets that are ready: a call for each of their requests would be most of what sending costs.
    setImmediate(() => this.flush());
  }

  /** Hands over at once what it can; to be called before the socket is ended. */
  flush(): void {
    this.scheduled = false;
    const { socket } = this;
    if (this.handed.length > 0 || this.waiting.length === 0 || socket.destroyed || socket.writableEnded) return;
    let count = 0;
    for (let bytes = 0; count < this.waiting.length && bytes < HAND_OVER_BYTES; count++)
      bytes += this.waiting[count]!.bytes;
    const batch = this.waiting.splice(0, count);
    this.handed = batch;
    socket.cork();
    batch.forEach(({ payload }, i) => {
      const head = peerHead(payload, this.nextNumber);
      this.nextNumber = (this.nextNumber + 1) >>> 0;
      const last = i === batch.length - 1;
      const { content } = payload;
      // The error comes through `close` as well.
      const taken = last ? (error?: Error | null): void => void (error || this.taken(batch)) : undefined;
      if (content.length === 0) socket.write(head, taken);
      else {
        socket.write(head);
        socket.write(content, taken);
      }
    });
    socket.uncork();
  }

  private taken(batch: Waiting[]): void {
    // After `close` it is settled already. A socket that was destroyed may say that it wrote what it was told to drop.
    if (this.closed || this.socket.destroyed || batch !== this.handed) return;
    this.handed = [];
    for (const { bytes } of batch) this.takenBytes += bytes;
    this.settle(batch);
    this.flush();
    this.tellEmpty();
  }

  /** Called once, when everything was taken; never, if the socket is closed before. */
  whenEmpty(then: () => void): void {
    this.empty = then;
    this.flush();
    this.tellEmpty();
  }

  private tellEmpty(): void {
    const { empty } = this;
    if (empty === null || this.handed.length > 0 || this.waiting.length > 0) return;
    this.empty = null;
    empty();
  }

  /** What was not handed over is not sent any more: a last word goes in its place. */
  drop(): void {
    this.dropped.push(...this.waiting.splice(0));
  }

  private settle(list: Waiting[]): void {
    for (const { bytes, sent } of list.splice(0)) {
      this.bytes -= bytes;
      sent?.();
    }
  }
}
