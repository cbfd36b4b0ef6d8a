/**
 * One RESP client on a node: the session of `src/resp` on a socket.
 *
 * Guarantees: a client that does not read its replies has no further commands begun, and in the end no connection;
 * neither has one that leaves a request unfinished, or does not say who it is.
 */
import type { Socket } from 'node:net';
import { RespSession } from '../resp/session.ts';
import type { RespNode } from '../resp/client-state.ts';
import { readIntoUserBuffer } from './user-buffer-socket.ts';

/** Bytes that the socket has not taken: above, nothing is begun; below the second, it goes on. */
const HOLD_AT_BYTES = 4 * 1024 * 1024;
const GO_ON_AT_BYTES = 1024 * 1024;

const KEEP_ALIVE_MS = 300_000;

export interface RespHost {
  readonly node: RespNode;
  /** How long a client may take for its password. */
  readonly handshakeMs: number;
  /** How long a client may leave a request half sent, or its replies unread. */
  readonly stallMs: number;
  log(level: 'info' | 'warn', message: string, fields: object): void;
  /** Calls it when this turn of the event loop has brought what it brings. */
  soon(flush: () => void): void;
  respClosed(connection: RespConnection): void;
}

export class RespConnection {
  readonly session: RespSession;
  private readonly socket: Socket;
  private readonly host: RespHost;
  private readonly openedAtMs = performance.now();
  private lastProgressMs = performance.now();
  private held = false;
  private ended = false;

  constructor(accepted: Socket, host: RespHost, id: number) {
    const peer = `${accepted.remoteAddress ?? 'unix'}:${accepted.remotePort ?? 0}`;
    const local = `${accepted.localAddress ?? 'unix'}:${accepted.localPort ?? 0}`;
    this.host = host;
    this.session = new RespSession(
      host.node,
      {
        write: (bytes) => this.write(bytes),
        soon: (flush) => host.soon(flush),
        close: () => this.socket.destroySoon(),
        pause: (paused) => void (paused ? this.socket.pause() : this.socket.resume()),
      },
      { id, peer, local },
    );
    accepted.setNoDelay(true);
    // A client that vanished without a word is found out.
    accepted.setKeepAlive(true, KEEP_ALIVE_MS);
    this.socket = readIntoUserBuffer(accepted, (_, chunk) => {
      this.lastProgressMs = performance.now();
      // A copy: values of the requests in it may be needed for as long as it takes to write them.
      this.session.receive(Buffer.from(chunk));
      return !this.session.isPaused;
    });
    // The client sends no more. What it sent is answered: `echo PING | nc`.
    this.socket.on('end', () => this.session.finishInput());
    this.socket.on('error', () => this.end());
    this.socket.on('close', () => this.end());
  }

  private write(bytes: Buffer): void {
    // What the kernel took at once is progress too.
    this.socket.write(bytes, this.onWrote);
    if (this.held || this.socket.writableLength < HOLD_AT_BYTES) return;
    this.held = true;
    this.session.hold(true);
  }

  private readonly onWrote = (): void => this.wrote();

  private wrote(): void {
    this.lastProgressMs = performance.now();
    if (!this.held || this.ended || this.socket.writableLength > GO_ON_AT_BYTES) return;
    this.held = false;
    this.session.hold(false);
  }

  /** Called about once a second: ends a connection that does not get on. */
  checkDeadlines(nowMs: number): void {
    const { session, socket } = this;
    const strange = !session.client.authenticated && nowMs - this.openedAtMs > this.host.handshakeMs;
    const owing = socket.writableLength > 0 || (session.unfinished && !session.isPaused && session.underWay === 0);
    const stalled = owing && nowMs - this.lastProgressMs > this.host.stallMs;
    if (!strange && !stalled) return;
    const reason = strange ? 'no password' : 'stalled';
    this.host.log('warn', 'closing a RESP connection', { peer: session.client.peer, reason });
    this.destroy();
  }

  /** For good: what was begun is answered still, then the connection is closed. */
  leave(): void {
    this.session.leave();
  }

  destroy(): void {
    this.socket.destroy();
    this.end();
  }

  private end(): void {
    if (this.ended) return;
    this.ended = true;
    this.session.end();
    this.host.respClosed(this);
  }
}
