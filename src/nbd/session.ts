/**
 * The server's side of one NBD connection: bytes in, replies and requests for the device out. It holds no socket and no
 * device: the edge moves the bytes, performs the requests in any order and answers them with `replies`.
 *
 * Guarantees: whatever bytes come, nothing throws and memory stays bounded; each request that is handed to the edge is
 * valid for the export (range, flags, read-only); invalid ones are answered here; after the end nothing is delivered.
 */
import type { Agreed, NbdExports } from './exports.ts';
import { Negotiation, type TlsPolicy } from './negotiation.ts';
import { Replies } from './replies.ts';
import { type NbdRequest, RequestParser, type Refusal, type WAIT } from './transmission.ts';

export interface SessionOptions {
  tls: TlsPolicy;
}

/** The edge, as the session sees it. No callback may throw. */
export interface SessionSink {
  /** Bytes for the client, the sink's own, to be sent in this order. */
  send(bytes: Uint8Array): void;
  /**
   * The consent to TLS was sent. The edge upgrades the connection, calls `tlsUp`, and pushes what comes through TLS. If
   * the upgrade fails it closes the connection.
   */
  onStartTls(): void;
  /** The handshake is over: requests for this export follow. */
  onAgreed(agreed: Agreed): void;
  /** Where the next bytes of a WRITE go; see TransmissionSink. */
  onPayload(request: NbdRequest, doneBytes: number): Uint8Array | typeof WAIT;
  /** What `onPayload` gave is full. The edge answers the WRITE once, when all its parts are done. */
  onPayloadPart(request: NbdRequest, doneBytes: number, part: Uint8Array): void;
  /** READ, FLUSH, TRIM, CACHE, WRITE_ZEROES or BLOCK_STATUS. To be answered once. `request` is overwritten by the next. */
  onRequest(request: NbdRequest): void;
  /**
   * No more bytes are wanted. `soft`: the client asked for it; what is under way is answered, then the connection is
   * closed. Else `reason` says what is wrong, and the connection is closed once what was sent is out.
   */
  onEnd(soft: boolean, reason: string): void;
}

export class NbdSession {
  private readonly sink: SessionSink;
  private readonly negotiation: Negotiation;
  private parser: RequestParser | null = null;
  private tlsPending = false;
  private ended = false;
  /** What was agreed; null during the handshake. */
  agreed: Agreed | null = null;
  /** Encoder of the replies to requests; of use once `agreed` is set. */
  replies = new Replies(false);

  constructor(sink: SessionSink, exports: NbdExports, options: SessionOptions) {
    this.sink = sink;
    this.negotiation = new Negotiation(
      {
        send: (bytes) => sink.send(bytes),
        onStartTls: () => {
          this.tlsPending = true;
          sink.onStartTls();
        },
        onAgreed: (agreed) => this.begin(agreed),
        onEnd: (soft, reason) => this.end(soft, reason),
      },
      exports,
      options.tls,
    );
  }

  get state(): 'handshake' | 'starting-tls' | 'transmission' | 'ended' {
    if (this.ended) return 'ended';
    if (this.parser !== null) return 'transmission';
    return this.tlsPending ? 'starting-tls' : 'handshake';
  }

  /** The client owes bytes: it is in the handshake, or in the middle of a request. For the edge's deadlines. */
  get unfinished(): boolean {
    return !this.ended && (this.parser === null || this.parser.midRequest);
  }

  /** Sends the greeting. To be called once, first. */
  start(): void {
    this.negotiation.start();
  }

  /** TLS is up, after `onStartTls`. Without effect if the session ended meanwhile. */
  tlsUp(): void {
    if (this.ended) return;
    this.tlsPending = false;
    this.negotiation.tlsUp();
  }

  /** The server is going: options and requests that come from now on are refused with that reason. */
  shutDown(): void {
    this.negotiation.shutDown();
    this.parser?.shutDown();
  }

  /** The connection is gone: nothing more is delivered, and the sink is not called again. */
  close(): void {
    this.ended = true;
    this.negotiation.close();
    this.parser?.close();
  }

  /** To be called by the sink within a callback of the transmission phase: `push` returns after it. */
  pause(): void {
    this.parser?.pause();
  }

  /**
   * Takes the bytes of `chunk` from `from` on. They are not referred to afterwards.
   * @returns index of the first byte that was not consumed: `chunk.length`, or less if the sink said WAIT or paused;
   * then the caller keeps the rest and pushes it again
   */
  push(chunk: Uint8Array, from = 0): number {
    let at = from;
    if (this.parser === null && !this.ended) at = this.negotiation.push(chunk, at);
    if (this.ended) return chunk.length;
    return this.parser === null ? at : this.parser.push(chunk, at);
  }

  private begin(agreed: Agreed): void {
    const { sink } = this;
    this.agreed = agreed;
    this.replies = new Replies(agreed.structuredReplies);
    this.parser = new RequestParser(
      {
        onPayload: (request, doneBytes) => sink.onPayload(request, doneBytes),
        onPayloadPart: (request, doneBytes, part) => sink.onPayloadPart(request, doneBytes, part),
        onRequest: (request) => sink.onRequest(request),
        onRefused: (request, refusal) => this.refuse(request, refusal),
        onDisconnect: () => this.end(true, 'the client disconnected'),
        onMalformed: (reason) => this.end(false, reason),
      },
      {
        sizeBytes: agreed.export.sizeBytes,
        readOnly: agreed.export.readOnly,
        structuredReplies: agreed.structuredReplies,
        contexts: agreed.contexts.length > 0,
      },
    );
    sink.onAgreed(agreed);
  }

  private refuse(request: NbdRequest, { error, text }: Refusal): void {
    this.sink.send(this.replies.error(request, error, text));
  }

  private end(soft: boolean, reason: string): void {
    this.close();
    this.sink.onEnd(soft, reason);
  }
}
