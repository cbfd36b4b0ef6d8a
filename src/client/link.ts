/**
 * One TCP connection to a server: frames out, frames in, HELLO. It knows nothing of sessions and repeats nothing.
 *
 * Guarantees: the frames of one turn of the event loop leave in one writev; every reply's header and payload are
 * verified; `onLost` is called exactly once, with the reason, unless the owner destroyed the link itself; nothing is
 * delivered after that.
 */
import type { Socket } from 'node:net';
import { HoldfastError } from '../base/errors.ts';
import { FrameDecoder, type FrameHeader } from '../protocol/frame.ts';
import { WANTS_AUTH, encodeAuth } from '../protocol/auth.ts';
import { decodeHelloReply, encodeHello, type HelloReply } from '../protocol/handshake.ts';
import { FIRST_FREE_ID, MAX_VERSION, MESSAGES, messageName, MIN_VERSION } from '../protocol/messages.ts';
import { decodeError, encodeFrame } from '../protocol/replies.ts';
import { type Address, formatAddress } from './address.ts';
import { Credentials } from './credentials.ts';
import { dial, lostBecause } from './dial.ts';

/** Who owns a link that is past its handshake. */
export interface LinkOwner {
  /** Where the payload of that reply goes; null: it is allocated. */
  destination(header: FrameHeader): Uint8Array | null;
  reply(header: FrameHeader, payload: Uint8Array | null): void;
  lost(error: HoldfastError): void;
}

interface Waiting {
  type: number;
  resolve: (payload: Uint8Array | null) => void;
  reject: (error: HoldfastError) => void;
}

export class Link {
  readonly peer: string;
  /** performance.now() when bytes last arrived. */
  lastArrivalMs = performance.now();
  private readonly socket: Socket;
  private readonly decoder: FrameDecoder;
  private owner: LinkOwner | null = null;
  /** Control requests, by id. */
  private readonly waiting: Map<number, Waiting> = new Map();
  /** Their ids lie above those of all calls. */
  private nextControlId = FIRST_FREE_ID + 2 ** 48;
  private corked = false;
  private ended: HoldfastError | null = null;
  /** Told of the end too: whoever waits for the connection to be made. */
  private readonly onEnd: (error: HoldfastError) => void;
  private readonly uncork = (): void => {
    this.corked = false;
    this.socket.uncork();
  };

  private constructor(address: Address, credentials: Credentials, opened: (error: HoldfastError | null) => void) {
    this.onEnd = opened;
    this.peer = formatAddress(address);
    this.decoder = new FrameDecoder(
      {
        onHeader: (header) => this.owner?.destination(header) ?? null,
        onFrame: (header, payload) => this.onFrame(header, payload),
        onMalformed: (error) => this.end(new HoldfastError(error.code, { ...error.details, peer: this.peer })),
      },
      'client',
    );
    const receive = (chunk: Uint8Array): void => {
      this.lastArrivalMs = performance.now();
      this.decoder.push(chunk);
    };
    this.socket = dial(address, credentials, receive, () => opened(null));
    this.socket.on('error', (error) => this.end(lostBecause(error, this.peer)));
    this.socket.once('close', () => this.end(this.lostBecause('the server closed it')));
  }

  private lostBecause(detail: string): HoldfastError {
    return new HoldfastError('CONNECTION_LOST', { operation: 'connection', peer: this.peer, detail });
  }

  /**
   * Opens a connection and says HELLO, and gives a token where one is wanted.
   * @throws HoldfastError UNREACHABLE, CONNECTION_LOST, ACCESS, what the server answers, ABORTED by the signal
   */
  static async open(
    address: Address,
    hello: { session: bigint; generation: number; client: string },
    timeoutMs: number,
    signal: AbortSignal,
    credentials: Credentials = new Credentials(),
  ): Promise<{ link: Link; hello: HelloReply }> {
    let link: Link;
    const opened = new Promise<void>((resolve, reject) => {
      link = new Link(address, credentials, (error) => (error === null ? resolve() : reject(error)));
    });
    const own = link!;
    const abort = (): void => own.end(new HoldfastError('ABORTED', { operation: 'connect', peer: own.peer }));
    const timer = setTimeout(() => own.end(own.lostBecause(`no connection within ${timeoutMs} ms`)), timeoutMs);
    if (signal.aborted) abort();
    signal.addEventListener('abort', abort);
    try {
      await opened.catch((error: HoldfastError) => {
        const { peer, detail } = error.details;
        throw error.code === 'ABORTED' || error.code === 'ACCESS'
          ? error
          : new HoldfastError('UNREACHABLE', { operation: 'connect', peer, detail });
      });
      const request = encodeHello({
        minVersion: MIN_VERSION,
        maxVersion: MAX_VERSION,
        features: 0n,
        requiredFeatures: 0n,
        ...hello,
      });
      const reply = decodeHelloReply(await own.control(MESSAGES.HELLO.number, request, timeoutMs));
      if (reply.version < MIN_VERSION || reply.version > MAX_VERSION) {
        throw new HoldfastError('WRONG_VERSION', { operation: 'HELLO', peer: own.peer, detail: `${reply.version}` });
      }
      if ((reply.features & WANTS_AUTH) !== 0n) {
        await own.control(MESSAGES.AUTH.number, encodeAuth(credentials.token(own.peer)), timeoutMs);
      }
      return { link: own, hello: reply };
    } catch (error) {
      own.destroy();
      throw error;
    } finally {
      clearTimeout(timer);
      signal.removeEventListener('abort', abort);
    }
  }

  /** From now on all replies but those to control requests are the owner's, and the end of the link is its affair. */
  adopt(owner: LinkOwner): void {
    if (this.ended !== null) throw this.ended;
    this.owner = owner;
  }

  /** Sends a frame at the end of this turn. The bytes must stay as they are. */
  send(frame: Uint8Array): void {
    if (this.ended !== null) return;
    if (!this.corked) {
      this.corked = true;
      this.socket.cork();
      setImmediate(this.uncork);
    }
    this.socket.write(frame);
  }

  /**
   * Sends a request outside of the session's calls and waits for its reply.
   * @returns the payload
   * @throws HoldfastError as the server answers; CONNECTION_LOST, also when no answer comes in time
   */
  control(
    type: number,
    payload: Uint8Array | null,
    timeoutMs: number,
    more: { offset?: number } = {},
  ): Promise<Uint8Array | null> {
    return new Promise((resolve, reject) => {
      if (this.ended !== null) return reject(this.ended);
      const requestId = this.nextControlId++;
      const timer = setTimeout(
        () => this.end(this.lostBecause(`no answer to ${messageName(type)} within ${timeoutMs} ms`)),
        timeoutMs,
      );
      this.waiting.set(requestId, {
        type,
        resolve: (reply) => {
          clearTimeout(timer);
          resolve(reply);
        },
        reject: (error) => {
          clearTimeout(timer);
          reject(error);
        },
      });
      this.send(encodeFrame({ type, requestId, ...more }, payload));
    });
  }

  /** Closes it for good; the owner is not told. */
  destroy(): void {
    this.owner = null;
    this.end(this.lostBecause('closed by this side'));
  }

  /** Closes it for a reason that the owner is told, as if it had been lost. */
  abandon(error: HoldfastError): void {
    this.end(error);
  }

  private onFrame(header: FrameHeader, payload: Uint8Array | null): void {
    if (header.type === MESSAGES.GOODBYE.number) {
      return this.guarded(() =>
        this.end(decodeError(header.status, payload, { operation: 'GOODBYE', peer: this.peer })),
      );
    }
    const waiting = this.waiting.get(header.requestId);
    if (waiting === undefined) {
      this.guarded(() => this.owner?.reply(header, payload));
      return;
    }
    this.waiting.delete(header.requestId);
    this.guarded(() => {
      const operation = messageName(waiting.type);
      if (header.type !== waiting.type) {
        const error = new HoldfastError('BAD_FRAME', { operation, peer: this.peer, detail: 'a reply of another type' });
        waiting.reject(error);
        throw error;
      }
      if (header.status === 0) waiting.resolve(payload);
      else waiting.reject(decodeError(header.status, payload, { operation, peer: this.peer }));
    });
  }

  /** A reply that cannot be decoded ends the link; anything else that is thrown is a fault of ours. */
  private guarded(work: () => void): void {
    try {
      work();
    } catch (error) {
      if (!(error instanceof HoldfastError)) throw error;
      this.end(error);
    }
  }

  private end(error: HoldfastError): void {
    if (this.ended !== null) return;
    this.ended = error;
    this.decoder.close();
    this.socket.destroy();
    const waiting = [...this.waiting.values()];
    this.waiting.clear();
    for (const one of waiting) one.reject(error);
    this.onEnd(error);
    this.owner?.lost(error);
  }
}
