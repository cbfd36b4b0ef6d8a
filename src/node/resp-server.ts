/**
 * A RESP port of a node: what clients of Redis connect to. One key-value volume behind it.
 *
 * Guarantees: the number of connections is bounded, also of those that have not told the password; stalled ones have a
 * deadline; with TLS nobody gets to a command who has not finished its handshake.
 */
import { randomBytes, randomInt } from 'node:crypto';
import { type Server as NetServer, type Socket, createServer } from 'node:net';
import type { ClientState, RespNode } from '../resp/client-state.ts';
import type { RespVolume } from '../resp/command.ts';
import { RESP_LIMITS, type RespLimits } from '../resp/limits.ts';
import { Failure } from '../resp/reply.ts';
import { ReplyWriter } from '../resp/reply-writer.ts';
import { ScanCursors } from '../resp/scan-cursors.ts';
import { listenOn } from './listen.ts';
import type { Log } from './server.ts';
import type { PortTls } from './port-tls.ts';
import { RespConnection, type RespHost } from './resp-connection.ts';
import { TlsFront, wantsOf } from './tls-front.ts';

const SWEEP_MS = 1000;
/** The Redis whose commands these are. */
const REDIS_VERSION = '7.0.15';

export interface RespServerOptions {
  /** The volume of this moment. @throws HoldfastError none is served here, now */
  volume: () => RespVolume;
  /** Of Holdfast. */
  version: string;
  /** Null: whoever reaches the port may do everything. */
  password: string | null;
  log: Log;
  /** Without it the port speaks no TLS. */
  tls?: PortTls | null | undefined;
  /** With TLS. Default: `require`. */
  clientCert?: 'require' | 'allow' | undefined;
  /** Replicas in sync besides this node, for WAIT and INFO. */
  replicas?: (() => number) | undefined;
  limits?: Partial<RespLimits>;
  maxConnections?: number;
  handshakeMs?: number;
  stallMs?: number;
}

export class RespServer implements RespHost {
  readonly node: RespNode;
  readonly handshakeMs: number;
  readonly stallMs: number;
  readonly log: RespHost['log'];
  private readonly maxConnections: number;
  private readonly front: TlsFront | null;
  private readonly net: NetServer;
  private readonly connections: Set<RespConnection> = new Set();
  private readonly sweep: NodeJS.Timeout;
  private newestId = 0;
  private closed = false;
  /** What is called at the end of this turn. */
  private flushes: Array<() => void> = [];

  constructor(options: RespServerOptions) {
    const { volume, version, password, replicas } = options;
    this.log = options.log;
    this.maxConnections = options.maxConnections ?? 10_000;
    this.handshakeMs = options.handshakeMs ?? 10_000;
    this.stallMs = options.stallMs ?? 60_000;
    this.node = {
      volume,
      password,
      now: () => Date.now(),
      limits: { ...RESP_LIMITS, ...options.limits },
      // Cursors of another node, or of the run before, are not to be taken for ours.
      scanCursors: new ScanCursors(randomInt(2 ** 31) * 2 ** 20),
      serverInfo: {
        version,
        redisVersion: REDIS_VERSION,
        runId: randomBytes(20).toString('hex'),
        processId: process.pid,
        tcpPort: 0,
        startedAtMs: Date.now(),
      },
      clients: () => this.clients(),
      ...(replicas === undefined ? {} : { replicas }),
    };
    this.front = this.frontOf(options);
    // `allowHalfOpen`: who sends its commands and closes its side is answered.
    const plain = { pauseOnConnect: true, allowHalfOpen: true };
    this.net = this.front?.net ?? createServer(plain, (socket) => this.accept(socket));
    this.sweep = setInterval(() => {
      const nowMs = performance.now();
      for (const connection of this.connections) connection.checkDeadlines(nowMs);
    }, SWEEP_MS).unref();
  }

  private frontOf({ tls, clientCert, log }: RespServerOptions): TlsFront | null {
    if (tls === null || tls === undefined) return null;
    return new TlsFront({
      tls,
      port: 'Redis',
      wants: wantsOf(clientCert),
      handshakeMs: this.handshakeMs,
      // On one line, as the protocol has errors.
      lastWord: ({ message }) => Buffer.from(`-ERR ${message.replaceAll(/[\r\n]+/g, ' ')}\r\n`),
      accept: (socket) => this.accept(socket),
      log,
      remedy: 'redis-cli --tls --cacert FILE, with --cert and --key where certificates are wanted',
    });
  }

  private *clients(): Iterable<ClientState> {
    for (const { session } of this.connections) yield session.client;
  }

  private accept(socket: Socket): void {
    if (this.closed) return void socket.destroy();
    if (this.connections.size < this.maxConnections) {
      this.connections.add(new RespConnection(socket, this, ++this.newestId));
      return;
    }
    const writer = new ReplyWriter();
    writer.put(new Failure('ERR max number of clients reached'), 2);
    socket.on('error', () => {});
    socket.write(writer.take());
    socket.destroySoon();
  }

  soon(flush: () => void): void {
    if (this.flushes.push(flush) > 1) return;
    // One for all connections that are answered in a turn. What comes while they are called is for the next one.
    setImmediate(() => {
      const { flushes } = this;
      this.flushes = [];
      for (const one of flushes) one();
    });
  }

  respClosed(connection: RespConnection): void {
    this.connections.delete(connection);
  }

  get size(): number {
    return this.connections.size;
  }

  /** `host:port`. @returns where it listens, as `host:port` */
  async listen(address: string): Promise<string> {
    const bound = await listenOn(this.net, address);
    this.node.serverInfo.tcpPort = Number(bound.slice(bound.lastIndexOf(':') + 1));
    return bound;
  }

  /** Accepts nothing and begins nothing any more; waits until what was begun is answered, but not longer. */
  async drain(limitMs: number): Promise<void> {
    this.closed = true;
    this.net.close();
    this.front?.end();
    for (const connection of this.connections) connection.leave();
    const endAt = performance.now() + limitMs;
    while (this.connections.size > 0 && performance.now() < endAt) {
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  }

  async close(): Promise<void> {
    this.destroy();
    await new Promise<void>((resolve) => this.net.close(() => resolve()));
  }

  destroy(): void {
    this.closed = true;
    clearInterval(this.sweep);
    this.net.close();
    this.front?.end();
    for (const connection of this.connections) connection.destroy();
  }
}
