/**
 * One end of a stream between replicas, on a socket: frames in, messages out to the replica, and back.
 *
 * Guarantees: what was sent is delivered once, in order, or the stream ends (frames are numbered and have CRCs); nothing
 * is delivered after `close` or after a malformed frame; record bytes are sent from where they lie, and `sent` is called
 * exactly once, when the kernel has them or the socket is closed for good; a message that was delivered refers to no
 * memory of the socket's; an end that takes nothing, or stops within a frame, ends the stream.
 *
 * What is handled first: messages keep their order, heartbeats too, because the core counts on it. So that they wait for
 * little, the socket is always read, whatever the journal has room for (the records that wait for it are bounded by what
 * the primary may have uncommitted); and after TURN_BYTES of one stream the others get their turn, the timers too.
 */
import type { Socket } from 'node:net';
import { HoldfastError, asHoldfastError } from '../base/errors.ts';
import { MiB } from '../base/units.ts';
import { PeerFrameDecoder, type PeerFrameType } from '../protocol/peer-frame.ts';
import {
  type PeerHello,
  decodePeerGoodbye,
  decodePeerHello,
  encodePeerGoodbye,
  encodePeerHello,
} from '../protocol/peer-hello.ts';
import { decodePeer, encodePeer, peerPayload } from '../protocol/peer.ts';
import type { PeerLink, PeerMessage } from '../replication/peer-messages.ts';
import { SendQueue } from './send-queue.ts';
import { readIntoUserBuffer } from './user-buffer-socket.ts';

/** What of one stream is handled before others are looked at. */
const TURN_BYTES = MiB;
/** How long a last word may take to leave. */
const LAST_WORD_MS = 500;
/** Silence after which the kernel asks whether the other end's host is still there; ten questions, one a second. */
const KEEP_ALIVE_MS = 5000;

export interface PeerStreamEvents {
  hello(stream: PeerStream, hello: PeerHello): void;
  message(stream: PeerStream, message: PeerMessage): void;
  /** It is over, by the other end or for `reason`; called once, and not after `close`. */
  ended(stream: PeerStream, reason: HoldfastError): void;
  /** Its socket is closed; called once, after `ended` if that is called. */
  closed(): void;
}

export class PeerStream implements PeerLink {
  /** Name of the other end; empty before the handshake is over. So are the two below. */
  node = '';
  bootId = '';
  streamId = '';
  /** Address of the other end, for logs. */
  readonly address: string;
  readonly socket: Socket;
  private readonly events: PeerStreamEvents;
  private readonly queue: SendQueue;
  private readonly decoder: PeerFrameDecoder;
  private readonly dialled: boolean;
  private reason: HoldfastError | null = null;
  /** Nothing is delivered any more. */
  private over = false;
  private silent = false;
  private turnBytes = 0;
  private receivedBytes = 0;
  /** As they were at the last look. */
  private seen = { takenBytes: 0, receivedBytes: 0 };
  private stalledLooks = 0;

  /** @param socket connected; not to be used any more by others. @param dialled this end has opened it */
  constructor(socket: Socket, dialled: boolean, events: PeerStreamEvents) {
    this.events = events;
    this.dialled = dialled;
    this.address = `${socket.remoteAddress ?? '?'}:${socket.remotePort ?? 0}`;
    this.decoder = new PeerFrameDecoder({
      onFrame: (type, payload) => this.frame(type, payload),
      onMalformed: (error) => this.fail(error),
    });
    this.socket = readIntoUserBuffer(socket, (_socket, chunk) => this.take(chunk));
    this.socket.setNoDelay(true);
    this.socket.setKeepAlive(true, KEEP_ALIVE_MS);
    this.queue = new SendQueue(this.socket);
    this.socket.on(
      'error',
      (error) => (this.reason ??= asHoldfastError(error, { operation: 'stream between replicas' })),
    );
    // Half a stream is none.
    this.socket.on('end', () => this.socket.destroy());
    // After the queue's own: all is let go by now.
    this.socket.on('close', () => this.ended());
  }

  // --- sending ------------------------------------------------------------------------------------------------------

  /** Bytes that the kernel has not taken yet. */
  get queuedBytes(): number {
    return this.queue.bytes;
  }

  sayHello(hello: PeerHello): void {
    this.queue.add(peerPayload('HELLO', encodePeerHello(hello)));
  }

  /** The handshake is over: from now on the messages of the other end are taken. */
  open(hello: PeerHello): void {
    this.node = hello.from;
    this.bootId = hello.bootId;
    this.streamId = hello.streamId;
    this.decoder.accepts = this.dialled ? 'replica' : 'primary';
  }

  send(message: PeerMessage, sent?: () => void): void {
    // `encodePeer` reads all of a record for its CRC: not for nobody.
    if (this.over) return sent === undefined ? undefined : queueMicrotask(sent);
    this.queue.add(encodePeer(message), sent);
  }

  // --- receiving ----------------------------------------------------------------------------------------------------

  private take(chunk: Uint8Array): boolean {
    this.receivedBytes += chunk.length;
    this.turnBytes += chunk.length;
    this.decoder.push(chunk);
    if (this.turnBytes < TURN_BYTES || this.over) return true;
    setImmediate(() => {
      this.turnBytes = 0;
      this.socket.resume();
    });
    return false;
  }

  private frame(type: PeerFrameType, payload: Uint8Array): void {
    switch (type.name) {
      case 'HELLO':
        return this.events.hello(this, decodePeerHello(payload));
      case 'GOODBYE':
        this.reason = decodePeerGoodbye(payload);
        this.over = true;
        this.decoder.close();
        return void this.socket.destroy();
      default:
        return this.events.message(this, decodePeer(type, payload));
    }
  }

  // --- the end ------------------------------------------------------------------------------------------------------

  /** What was sent in this turn is handed to the kernel as far as it takes it at once. */
  close(): void {
    this.silent = true;
    this.over = true;
    this.decoder.close();
    this.queue.flush();
    this.socket.destroy();
  }

  /** Ends it, and tells the other end why. What the kernel was not given yet is not sent any more. */
  fail(error: HoldfastError): void {
    if (this.over) return;
    this.over = true;
    this.reason = error;
    this.decoder.close();
    this.queue.flush();
    this.queue.drop();
    this.queue.add(peerPayload('GOODBYE', encodePeerGoodbye(error)));
    this.endGently();
  }

  /** Ends it when what was sent has left, or after a moment. @returns when it is closed */
  finish(): Promise<void> {
    this.silent = true;
    this.over = true;
    this.decoder.close();
    if (this.socket.closed) return Promise.resolve();
    const closed = new Promise<void>((resolve) => this.socket.once('close', resolve));
    this.endGently();
    return closed;
  }

  private endGently(): void {
    const late = setTimeout(() => this.socket.destroy(), LAST_WORD_MS);
    this.socket.once('close', () => clearTimeout(late));
    // Not destroyed yet: what is still received would make the kernel drop the last word at the other end.
    this.queue.whenEmpty(() => this.socket.end());
  }

  private ended(): void {
    this.over = true;
    this.decoder.close();
    const fallback = { operation: 'stream between replicas', detail: 'the other end has closed it' };
    if (!this.silent) this.events.ended(this, this.reason ?? new HoldfastError('CONNECTION_LOST', fallback));
    this.silent = true;
    this.events.closed();
  }

  /**
   * To be called again and again. Looks are counted instead of time: a process that was stopped for a while is not to
   * take its own silence for the other end's.
   * @param looks ends the stream when nothing moved for so many
   */
  look(looks: number, sinceMs: number): void {
    if (this.over) return;
    const { takenBytes, bytes } = this.queue;
    const { receivedBytes, decoder } = this;
    const notTaken = bytes > 0 && takenBytes === this.seen.takenBytes;
    const notGoingOn = decoder.midFrame && receivedBytes === this.seen.receivedBytes;
    this.seen = { takenBytes, receivedBytes };
    this.stalledLooks = notTaken || notGoingOn ? this.stalledLooks + 1 : 0;
    if (this.stalledLooks < looks) return;
    const what = notTaken ? `took nothing of ${bytes} bytes` : 'stopped within a frame';
    const remedy = 'see whether that process hangs, or the network drops packets';
    this.fail(
      new HoldfastError('DEADLINE', {
        operation: 'stream between replicas',
        peer: this.node,
        detail: `the other end ${what} for ${sinceMs} ms`,
        remedy,
      }),
    );
  }
}
