/**
 * A port that speaks TLS from the first byte: what comes out behind it is a socket of somebody that the port lets in.
 *
 * Guarantees: until then a connection costs little: at most MAX_PENDING are in their handshake, the oldest gives way, so
 * that silent callers keep nobody out; a handshake has a deadline, and is ended when it has sent more than
 * MAX_HANDSHAKE_BYTES (looked at every LOOK_MS; OpenSSL bounds what it keeps of each message besides). Who speaks no
 * TLS is told so in words that he understands; whose certificate does not do is told over TLS. One line of log for each,
 * within the bounds of `Verdicts`.
 */
import { type Server as NetServer, type Socket, createServer } from 'node:net';
import type { TLSSocket } from 'node:tls';
import { HoldfastError } from '../base/errors.ts';
import { brief } from './tls-files.ts';
import { type PortTls, certifiedOf } from './port-tls.ts';
import type { Log } from './server.ts';
import { Verdicts } from './verdicts.ts';

export const MAX_PENDING = 64;
export const MAX_HANDSHAKE_BYTES: number = 16 * 1024;
const LOOK_MS = 50;
/** How long a last word may take. */
const LAST_WORD_MS = 1000;
const REMEDY =
  'write holdfasts:// (holdfasts-kv://), with the CA in HOLDFAST_TLS_CA; between nodes: --tls-cert, -key, -ca';
/** The first byte of every TLS connection: a record of type "handshake". */
const TLS_HANDSHAKE = 0x16;

export interface FrontOptions {
  tls: PortTls;
  /** Whose port it is, for logs: `clients`, `nodes`. */
  port: string;
  /** What a certificate has to be; `any`: it may be left away. */
  wants: 'any' | 'certificate' | 'node' | 'node or admin';
  handshakeMs: number;
  /** The last word to somebody, in the port's own protocol. */
  lastWord: (error: HoldfastError) => Uint8Array;
  accept: (socket: TLSSocket) => void;
  log: Log;
  /** For who speaks no TLS. */
  remedy?: string;
}

/** Of a port for clients, by what its owner asks of them. */
export function wantsOf(clientCert: 'require' | 'allow' | undefined): 'any' | 'certificate' {
  return clientCert === 'allow' ? 'any' : 'certificate';
}

interface Pending {
  raw: Socket;
  address: string;
  late: NodeJS.Timeout;
}

export class TlsFront {
  /** Listens. */
  readonly net: NetServer;
  private readonly o: FrontOptions;
  private readonly verdicts: Verdicts;
  /** By address and port of the other end, oldest first. */
  private readonly pending: Map<string, Pending> = new Map();
  private looking: NodeJS.Timeout | null = null;

  constructor(options: FrontOptions) {
    this.o = options;
    this.verdicts = new Verdicts(options.log);
    const server = options.tls.server(
      (socket) => this.secured(socket),
      (error, socket) => this.failed(addressOf(socket), brief(error)),
    );
    this.net = createServer((raw) => this.begin(raw, (first) => server.emit('connection', first)));
  }

  get pendingCount(): number {
    return this.pending.size;
  }

  /** Those that are not let in yet are let in no more. */
  end(): void {
    for (const { raw } of this.pending.values()) raw.destroy();
  }

  private begin(raw: Socket, shake: (raw: Socket) => void): void {
    const address = addressOf(raw);
    raw.on('error', () => {});
    if (address === '') return void raw.destroy();
    const late = setTimeout(() => this.failed(address, 'no handshake in time'), this.o.handshakeMs);
    this.pending.set(address, { raw, address, late });
    raw.once('close', () => this.failed(address, 'the connection was closed'));
    if (this.pending.size > MAX_PENDING) {
      this.failed(this.pending.keys().next().value!, 'too many are in their handshake');
    }
    this.looking ??= setInterval(() => this.look(), LOOK_MS).unref();
    raw.once('readable', () => {
      const first = raw.read() as Buffer | null;
      if (first === null || !this.pending.has(address)) return;
      if (first[0] !== TLS_HANDSHAKE) return this.plain(raw, address);
      // TLS takes what the socket holds before what comes.
      raw.unshift(first);
      shake(raw);
    });
  }

  private settle(address: string): Pending | null {
    const found = this.pending.get(address) ?? null;
    if (found === null) return null;
    clearTimeout(found.late);
    this.pending.delete(address);
    if (this.pending.size === 0 && this.looking !== null) {
      clearInterval(this.looking);
      this.looking = null;
    }
    return found;
  }

  private look(): void {
    for (const { raw, address } of this.pending.values()) {
      if (raw.bytesRead > MAX_HANDSHAKE_BYTES) this.failed(address, `more than ${MAX_HANDSHAKE_BYTES} bytes of it`);
    }
  }

  /** Whatever ended it: told once. */
  private failed(address: string, reason: string): void {
    const found = this.settle(address);
    if (found === null) return;
    this.verdicts.tell('warn', 'refused: the TLS handshake failed', { port: this.o.port, address, reason });
    found.raw.destroy();
  }

  private plain(raw: Socket, address: string): void {
    this.settle(address);
    this.verdicts.tell('warn', 'refused: no TLS', { port: this.o.port, address });
    const error = new HoldfastError('ACCESS', {
      operation: 'connect',
      detail: 'this port speaks TLS, and what came is none',
      remedy: this.o.remedy ?? REMEDY,
    });
    this.leave(raw, this.o.lastWord(error));
  }

  private secured(socket: TLSSocket): void {
    const address = addressOf(socket);
    const { port, tls, wants } = this.o;
    // Too late, or it was not from here.
    if (this.settle(address) === null) return void socket.destroy();
    socket.on('error', () => {});
    const refusal = tls.judge(socket, wants);
    if (refusal !== null) {
      const { detail: reason } = refusal.details;
      this.verdicts.tell('warn', 'refused: the certificate', { port, address, reason });
      return this.leave(socket, this.o.lastWord(refusal));
    }
    const who = certifiedOf(socket);
    this.verdicts.tell('info', 'let in by TLS', { port, address, subject: who?.subject, node: who?.node ?? undefined });
    this.o.accept(socket);
  }

  /** A last word that the other end gets to read: what it still sends is taken and thrown away. */
  private leave(socket: Socket, word: Uint8Array): void {
    const late = setTimeout(() => socket.destroy(), LAST_WORD_MS);
    socket.once('close', () => clearTimeout(late));
    socket.resume();
    socket.end(word);
  }
}

function addressOf({ remoteAddress, remotePort }: Socket): string {
  return remoteAddress === undefined ? '' : `${remoteAddress}:${remotePort}`;
}
