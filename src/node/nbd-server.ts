/**
 * An NBD port, of a node or of the gateway: TCP or a Unix socket, each device an export.
 *
 * Guarantees: the number of connections is bounded; handshakes and stalled connections have a deadline.
 */
import { rmSync } from 'node:fs';
import { type Server as NetServer, type Socket, createServer } from 'node:net';
import { HoldfastError } from '../base/errors.ts';
import { NbdConnection, type NbdHost } from './nbd-connection.ts';
import { listenOn } from './listen.ts';
import { removeStaleSocket } from './stale-socket.ts';
import type { NbdDevice } from './nbd-device.ts';
import type { NbdTls } from './nbd-tls.ts';

const SWEEP_MS = 1000;
const MAX_CONNECTIONS = 1024;

/** What the port serves, and for whom it speaks. */
export interface NbdServed {
  readonly limits: NbdHost['limits'];
  /** Without it the port speaks no TLS. */
  readonly tls?: NbdTls | null | undefined;
  devices: NbdHost['devices'];
  log: NbdHost['log'];
  /** Awaited before each handshake, for what the devices have to ask for; must come to an end soon and never reject. */
  prepare?: (() => Promise<void>) | undefined;
}

export class NbdServer implements NbdHost {
  private readonly served: NbdServed;
  private readonly net: NetServer;
  private readonly connections: Set<NbdConnection> = new Set();
  private readonly sweep: NodeJS.Timeout;
  private path: string | null = null;
  private closed = false;

  constructor(served: NbdServed) {
    this.served = served;
    this.net = createServer({ pauseOnConnect: true }, (socket) => {
      if (this.connections.size >= MAX_CONNECTIONS) socket.destroy();
      else if (served.prepare === undefined) this.accept(socket);
      else void served.prepare().then(() => this.accept(socket));
    });
    this.sweep = setInterval(() => {
      const nowMs = performance.now();
      for (const connection of this.connections) connection.checkDeadlines(nowMs);
    }, SWEEP_MS).unref();
  }

  private accept(socket: Socket): void {
    if (!this.closed && !socket.destroyed) this.connections.add(new NbdConnection(socket, this));
    else socket.destroy();
  }

  get connectionCount(): number {
    return this.connections.size;
  }
  get limits(): NbdHost['limits'] {
    return this.served.limits;
  }
  get tls(): NbdTls | null {
    return this.served.tls ?? null;
  }
  devices(): readonly NbdDevice[] {
    return this.served.devices();
  }
  log(level: 'info' | 'warn', message: string, fields: object): void {
    this.served.log(level, message, fields);
  }
  /** The device is exported no more: its connections end at once. */
  remove(device: NbdDevice): void {
    for (const connection of this.connections) if (connection.uses(device)) connection.destroy();
  }

  nbdClosed(connection: NbdConnection): void {
    this.connections.delete(connection);
  }

  /** `host:port`, or `unix:PATH`. @returns the URI for clients, without the export's name */
  async listen(address: string): Promise<string> {
    const scheme = this.tls?.policy === 'require' ? 'nbds' : 'nbd';
    if (!address.startsWith('unix:')) return `${scheme}://${await listenOn(this.net, address)}`;
    const path = address.slice('unix:'.length);
    if (path === '')
      throw new HoldfastError('INVALID_ARGUMENT', { operation: 'listen', detail: 'unix: without a path' });
    if (await removeStaleSocket(path)) {
      this.log('info', 'removed the socket of a process that is gone', { listen: address });
    }
    await listenOn(this.net, address);
    this.path = path;
    return `${scheme}+unix://?socket=${path}`;
  }

  /** Accepts nothing and reads nothing any more; waits until what was received is answered, but not longer. */
  async drain(limitMs: number): Promise<void> {
    this.closed = true;
    this.net.close();
    for (const connection of this.connections) connection.stopReading();
    const endAt = performance.now() + limitMs;
    while ([...this.connections].some((c) => !c.answered) && performance.now() < endAt) {
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
    for (const connection of this.connections) connection.destroy();
    if (this.path !== null) rmSync(this.path, { force: true });
  }
}
