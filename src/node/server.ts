/**
 * The client port of a node: listens, hands sockets to connections, ends those that do not get on.
 *
 * Guarantees: the number of connections is bounded; one connection's fate is no other's; `close` lets requests under
 * way be answered, within a bound.
 */
import { type Server as NetServer, type Socket, createServer } from 'node:net';
import { HoldfastError } from '../base/errors.ts';
import { MiB } from '../base/units.ts';
import type { ServedVolume } from '../replication/served-volume.ts';
import type { Arena } from '../storage/arena.ts';
import { Connection } from './connection.ts';
import type { ConnectionHost, ConnectionLimits } from './connection-host.ts';
import { listenOn } from './listen.ts';
import { PACKAGE_VERSION } from './version.ts';

export const DEFAULT_LIMITS: ConnectionLimits = {
  maxInFlightBytes: 4 * MiB,
  maxInFlightRequests: 1024,
  handshakeMs: 10_000,
  stallMs: 30_000,
};
export const DEFAULT_MAX_CONNECTIONS = 1024;
const SWEEP_MS = 1000;
/** How long `close` waits for answers under way. */
const CLOSE_MS = 5000;

export type Log = (level: 'info' | 'warn' | 'error', message: string, fields: object) => void;

export interface ServerOptions {
  arena: Arena;
  limits?: Partial<ConnectionLimits>;
  maxConnections?: number;
  log?: Log;
}

export class Server implements ConnectionHost {
  readonly arena: Arena;
  readonly limits: ConnectionLimits;
  readonly serverName = `holdfast ${PACKAGE_VERSION}`;
  private readonly maxConnections: number;
  private readonly logger: Log;
  private readonly net: NetServer;
  private readonly connections: Set<Connection> = new Set();
  private readonly served: Map<string, ServedVolume> = new Map();
  private readonly sweep: NodeJS.Timeout;
  private closing = false;

  constructor(options: ServerOptions) {
    this.arena = options.arena;
    this.limits = { ...DEFAULT_LIMITS, ...options.limits };
    this.maxConnections = options.maxConnections ?? DEFAULT_MAX_CONNECTIONS;
    this.logger = options.log ?? (() => {});
    this.net = createServer({ pauseOnConnect: true }, (socket) => this.accept(socket));
    this.sweep = setInterval(() => {
      const now = performance.now();
      for (const connection of this.connections) connection.checkDeadlines(now);
    }, SWEEP_MS).unref();
  }

  add(volume: ServedVolume): void {
    this.served.set(volume.info().name, volume);
  }

  /** @returns the address that it listens on. @throws HoldfastError BUSY, ACCESS, INVALID_ARGUMENT */
  listen(address: string): Promise<string> {
    return listenOn(this.net, address);
  }

  volume(name: string): ServedVolume {
    const found = name === '' && this.served.size === 1 ? [...this.served.values()][0] : this.served.get(name);
    if (found !== undefined) return found;
    throw new HoldfastError('NO_SUCH_VOLUME', {
      operation: 'find volume',
      volume: name,
      detail: `here are: ${[...this.served.keys()].join(', ') || 'none'}`,
    });
  }

  volumes(): ServedVolume[] {
    return [...this.served.values()];
  }

  get connectionCount(): number {
    return this.connections.size;
  }

  log(level: 'info' | 'warn' | 'error', message: string, fields: object): void {
    this.logger(level, message, fields);
  }

  private accept(socket: Socket): void {
    const connection = new Connection(socket, this);
    this.connections.add(connection);
    if (this.connections.size > this.maxConnections) {
      connection.goodbye(
        new HoldfastError('TOO_MANY', { operation: 'connect', detail: `the limit is ${this.maxConnections}` }),
      );
    }
  }

  closed(connection: Connection): void {
    this.connections.delete(connection);
  }

  /** Stops listening, tells clients, waits a moment for answers under way. */
  async close(): Promise<void> {
    if (this.closing) return;
    this.closing = true;
    clearInterval(this.sweep);
    const closed = new Promise<void>((resolve) => this.net.close(() => resolve()));
    const endAt = performance.now() + CLOSE_MS;
    while ([...this.connections].some((c) => !c.idle) && performance.now() < endAt) {
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    for (const connection of this.connections) {
      connection.goodbye(new HoldfastError('SHUTTING_DOWN', { operation: 'serve' }));
    }
    await closed;
  }

  /** Ends every connection at once: after a failure nothing may be answered any more. */
  destroy(): void {
    clearInterval(this.sweep);
    this.net.close();
    for (const connection of this.connections) connection.destroy();
  }
}
