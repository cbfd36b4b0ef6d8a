/**
 * An NBD port, of a node or of the gateway: TCP or a Unix socket, each device an export.
 *
 * Guarantees: the number of connections is bounded; handshakes and stalled connections have a deadline.
 */
import { rmSync } from 'node:fs';
import { type Server as NetServer, createServer } from 'node:net';
import { HoldfastError } from '../base/errors.ts';
import { NbdConnection, type NbdHost } from './nbd-connection.ts';
import { listenOn } from './listen.ts';
import type { NbdDevice } from './nbd-device.ts';

const SWEEP_MS = 1000;
const MAX_CONNECTIONS = 1024;

/** What the port serves, and for whom it speaks. */
export interface NbdServed {
  readonly limits: NbdHost['limits'];
  devices: NbdHost['devices'];
  log: NbdHost['log'];
}

export class NbdServer implements NbdHost {
  private readonly served: NbdServed;
  private readonly net: NetServer;
  private readonly connections: Set<NbdConnection> = new Set();
  private readonly sweep: NodeJS.Timeout;
  private path: string | null = null;

  constructor(served: NbdServed) {
    this.served = served;
    this.net = createServer({ pauseOnConnect: true }, (socket) => {
      if (this.connections.size >= MAX_CONNECTIONS) socket.destroy();
      else this.connections.add(new NbdConnection(socket, this));
    });
    this.sweep = setInterval(() => {
      const nowMs = performance.now();
      for (const connection of this.connections) connection.checkDeadlines(nowMs);
    }, SWEEP_MS).unref();
  }

  get limits(): NbdHost['limits'] {
    return this.served.limits;
  }
  devices(): readonly NbdDevice[] {
    return this.served.devices();
  }
  log(level: 'info' | 'warn', message: string, fields: object): void {
    this.served.log(level, message, fields);
  }
  nbdClosed(connection: NbdConnection): void {
    this.connections.delete(connection);
  }

  /** `host:port`, or `unix:PATH`. @returns the URI for clients, without the export's name */
  async listen(address: string): Promise<string> {
    if (!address.startsWith('unix:')) return `nbd://${await listenOn(this.net, address)}`;
    const path = address.slice('unix:'.length);
    if (path === '')
      throw new HoldfastError('INVALID_ARGUMENT', { operation: 'listen', detail: 'unix: without a path' });
    await listenOn(this.net, address);
    this.path = path;
    return `nbd+unix://?socket=${path}`;
  }

  async close(): Promise<void> {
    this.destroy();
    await new Promise<void>((resolve) => this.net.close(() => resolve()));
  }

  destroy(): void {
    clearInterval(this.sweep);
    this.net.close();
    for (const connection of this.connections) connection.destroy();
    if (this.path !== null) rmSync(this.path, { force: true });
  }
}
