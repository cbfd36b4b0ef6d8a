/**
 * The client port of a node: listens, hands sockets to connections, ends those that do not get on.
 *
 * Guarantees: the number of connections is bounded; one connection's fate is no other's; `close` lets requests under
 * way be answered, within a bound.
 */
import { type Server as NetServer, type Socket, createServer } from 'node:net';
import { HoldfastError } from '../base/errors.ts';
import { MiB } from '../base/units.ts';
import type { Access } from '../protocol/handshake.ts';
import { encodeGoodbye } from '../protocol/replies.ts';
import type { VolumeLocation } from '../protocol/location.ts';
import type { ServedVolume } from '../replication/served-volume.ts';
import type { Arena } from '../storage/arena.ts';
import { Connection } from './connection.ts';
import type { ConnectionHost, ConnectionLimits } from './connection-host.ts';
import { Watchman } from './door.ts';
import { listenOn } from './listen.ts';
import type { PortTls } from './port-tls.ts';
import { TlsFront, wantsOf } from './tls-front.ts';
import type { Tokens } from './tokens.ts';
import { Verdicts } from './verdicts.ts';
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
/** Name of a node that belongs to no cluster. */
const LONE_NODE = 'here';

export type Log = (level: 'info' | 'warn' | 'error', message: string, fields: object) => void;

export interface ServerOptions {
  arena: Arena;
  limits?: Partial<ConnectionLimits>;
  maxConnections?: number;
  log?: Log;
  /** Name of the node, for `locate`. Default: one that stands for a node by itself. */
  nodeName?: string;
  /** Where the volume of that name is (empty: the only one); null: not known to the node. Default: here alone. */
  locate?: (name: string) => VolumeLocation | null;
  /** Takes what is about the node and no volume. */
  admin?: ConnectionHost['admin'];
  /** Why a volume that is not served is not; null: it is not known either. */
  missing?: (name: string) => HoldfastError | null;
  /** Without it the port is a plain one. */
  tls?: PortTls | null | undefined;
  /** With TLS: a client may leave its certificate away. */
  clientCert?: 'require' | 'allow' | undefined;
  /** Whoever is no node, and no operator by his certificate, has to give one of these. */
  tokens?: Tokens | null | undefined;
  /** Gets the socket of each connection; for faults. */
  hold?: ((socket: Socket) => void) | undefined;
}

export class Server implements ConnectionHost {
  readonly arena: Arena;
  readonly limits: ConnectionLimits;
  readonly serverName = `holdfast ${PACKAGE_VERSION}`;
  readonly nodeName: string;
  readonly admin: ConnectionHost['admin'];
  readonly mayWrite = true;
  readonly watchman: Watchman | null;
  readonly verdicts: Verdicts;
  private readonly missing: (name: string) => HoldfastError | null;
  private readonly hold: ServerOptions['hold'];
  private readonly maxConnections: number;
  private readonly locator: (name: string) => VolumeLocation | null;
  private readonly logger: Log;
  private readonly net: NetServer;
  private readonly front: TlsFront | null;
  private readonly connections: Set<Connection> = new Set();
  private readonly served: Map<string, ServedVolume> = new Map();
  private readonly readable: Map<string, ServedVolume> = new Map();
  private readonly sweep: NodeJS.Timeout;
  private closing = false;

  constructor(options: ServerOptions) {
    this.arena = options.arena;
    this.limits = { ...DEFAULT_LIMITS, ...options.limits };
    this.maxConnections = options.maxConnections ?? DEFAULT_MAX_CONNECTIONS;
    this.nodeName = options.nodeName ?? LONE_NODE;
    this.locator = options.locate ?? ((name) => this.hereAlone(name));
    this.logger = options.log ?? (() => {});
    this.admin = options.admin;
    this.hold = options.hold;
    this.missing = options.missing ?? (() => null);
    const tokens = options.tokens ?? null;
    this.verdicts = new Verdicts(this.logger);
    this.watchman = tokens && new Watchman(tokens, this.verdicts);
    this.front = this.frontOf(options);
    this.net = this.front?.net ?? createServer({ pauseOnConnect: true }, (socket) => this.accept(socket));
    this.sweep = setInterval(() => {
      const now = performance.now();
      for (const connection of this.connections) connection.checkDeadlines(now);
    }, SWEEP_MS).unref();
  }

  private frontOf({ tls, clientCert }: ServerOptions): TlsFront | null {
    if (tls === null || tls === undefined) return null;
    return new TlsFront({
      tls,
      port: 'clients',
      wants: wantsOf(clientCert),
      handshakeMs: this.limits.handshakeMs,
      lastWord: encodeGoodbye,
      accept: (socket) => this.accept(socket),
      log: this.logger,
    });
  }

  add(volume: ServedVolume): void {
    this.served.set(volume.info().name, volume);
  }

  /** It is served no more: whoever is attached to it gets no answer any more, not even one that is under way. */
  remove(volume: ServedVolume): void {
    const { name } = volume.info();
    if (this.served.get(name) === volume) this.served.delete(name);
    for (const connection of this.connections) if (connection.uses(volume)) connection.destroy();
  }

  /** @returns the address that it listens on. @throws HoldfastError BUSY, ACCESS, INVALID_ARGUMENT */
  listen(address: string): Promise<string> {
    return listenOn(this.net, address);
  }

  /** For reading only: a backup's. */
  addReads(volume: ServedVolume): void {
    this.readable.set(volume.info().name, volume);
  }

  removeReads(volume: ServedVolume): void {
    const { name } = volume.info();
    if (this.readable.get(name) === volume) this.readable.delete(name);
    for (const connection of this.connections) if (connection.uses(volume)) connection.destroy();
  }

  /** A volume that is served here is served for every kind of access, a backup's for reading. */
  volume(name: string, access?: Access): ServedVolume {
    const found = this.find(name) ?? (access === 'any' ? this.readable.get(name) : undefined);
    if (found !== undefined) return found;
    throw this.missing(name) ?? this.noSuchVolume('find volume', name);
  }

  locate(name: string): VolumeLocation {
    const location = this.locator(name);
    if (location !== null) return location;
    throw this.noSuchVolume('locate volume', name);
  }

  private find(name: string): ServedVolume | undefined {
    return name === '' && this.served.size === 1 ? [...this.served.values()][0] : this.served.get(name);
  }

  private noSuchVolume(operation: string, volume: string): HoldfastError {
    const detail = `here are: ${[...this.served.keys()].join(', ') || 'none'}`;
    return new HoldfastError('NO_SUCH_VOLUME', { operation, volume, detail });
  }

  private hereAlone(wanted: string): VolumeLocation | null {
    const found = this.find(wanted);
    if (found === undefined) return null;
    const { volumeId, name, epoch } = found.info();
    const primary = this.nodeName;
    const members = [{ node: primary, clientAddress: '', inSync: true }];
    return { volumeId, name, epoch, primary, primaryAddress: '', reads: 'primary', members };
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
    this.watchman?.arrived(connection);
    this.hold?.(connection.socket);
    if (this.connections.size > this.maxConnections) {
      connection.goodbye(
        new HoldfastError('TOO_MANY', { operation: 'connect', detail: `the limit is ${this.maxConnections}` }),
      );
    }
  }

  closed(connection: Connection): void {
    this.connections.delete(connection);
    this.watchman?.gone(connection);
  }

  /** Stops listening, tells clients, waits a moment for answers under way. */
  async close(): Promise<void> {
    if (this.closing) return;
    this.closing = true;
    clearInterval(this.sweep);
    this.front?.end();
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
    this.front?.end();
    for (const connection of this.connections) connection.destroy();
  }
}
