/**
 * The HTTP port of a node: the dashboard's files and what it shows, metrics, and whether the node is well.
 *
 * Guarantees: nothing can be changed through it; connections, headers, bodies and streams are bounded; whoever asks by a
 * name that was not given is refused, before anything else is looked at; where there is a door, only whether the node lives
 * and is ready is told to whom it does not let in; every answer carries the headers that keep pages from loading,
 * embedding or guessing anything.
 */
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import type { AddressInfo, Server as NetServer, Socket } from 'node:net';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import fastifyStatic from '@fastify/static';
import { type FastifyInstance, type FastifyReply, fastify } from 'fastify';
import { HoldfastError, asHoldfastError } from '../base/errors.ts';
import type { ClusterNode } from '../node/cluster-node.ts';
import type { ReplicaStatus } from '../node/hosted-volume.ts';
import { MAX_CELLS, dirtyOf } from './dirty.ts';
import { isAllowed } from './hosts.ts';
import { Metrics } from './metrics.ts';
import { readinessOf } from './readiness.ts';
import { SharedLook } from './shared-look.ts';
import { MAX_STREAMS, Streams } from './streams.ts';

const MAX_CONNECTIONS = 128;
const MAX_HEADER_BYTES = 8 * 1024;
const MAX_BODY_BYTES = 1024;
const HEADERS_MS = 5000;
const REQUEST_MS = 10_000;
const IDLE_MS = 30_000;
/** How often connections are looked at that are late. */
const SWEEP_MS = 1000;
const LOOK_LEAST_MS = 400;

const HEADERS = {
  'content-security-policy':
    "default-src 'self'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; " +
    "object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  'x-content-type-options': 'nosniff',
  'x-frame-options': 'DENY',
  'referrer-policy': 'no-referrer',
  'cross-origin-opener-policy': 'same-origin',
  'cross-origin-resource-policy': 'same-origin',
} as const;

/** From the sources, and from dist of a clone or of an installed package. */
const PUBLIC = ['./public/', '../../../src/http/public/'].map((path) => fileURLToPath(new URL(path, import.meta.url)));
const UPLOT = dirname(createRequire(import.meta.url).resolve('uplot'));

/** What supervisors and balancers ask for, and what names nothing of the cluster but this node and what ails it. */
const OPEN = ['/healthz', '/readyz'];
/** Browsers ask for a password when they read that. */
const CHALLENGES = [
  'Basic realm="Holdfast: any name, a token as password", charset="UTF-8"',
  'Bearer realm="Holdfast"',
];

/** Judges each request. */
export interface Door {
  /** @returns null: it is let in */
  refusal(
    socket: Socket,
    authorization: string | undefined,
  ): Promise<{ error: string; challenge: boolean; close: boolean } | null>;
}

/** Listens in place of a plain server; what comes through TLS is handed over. */
export interface Front {
  readonly net: NetServer;
  end(): void;
}

export interface HttpPortOptions {
  host: string;
  port: number;
  /** Names that it may be called by, besides loopback's. */
  names?: readonly string[];
  /** Default: everybody is let in. */
  door?: Door | null;
  /** Default: no TLS. */
  front?: ((accept: (socket: Socket) => void) => Front) | null;
  node: ClusterNode;
  /** Looks at the whole cluster. Rejects with a HoldfastError when the coordinator does not answer. */
  look: () => Promise<object>;
}

export class HttpPort {
  /** Where browsers find it. */
  url = '';
  private readonly options: HttpPortOptions;
  private readonly app: FastifyInstance;
  private readonly look: SharedLook;
  private readonly streams: Streams;
  private readonly metrics: Metrics;
  private readonly front: Front | null;

  private constructor(options: HttpPortOptions) {
    this.options = options;
    const { node } = options;
    this.look = new SharedLook(options.look, LOOK_LEAST_MS);
    this.streams = new Streams(node, this.look);
    this.metrics = new Metrics(node, () => this.streams.count);
    this.app = fastify({
      bodyLimit: MAX_BODY_BYTES,
      exposeHeadRoutes: false,
      forceCloseConnections: true,
      keepAliveTimeout: IDLE_MS,
      requestTimeout: REQUEST_MS,
      http: {
        maxHeaderSize: MAX_HEADER_BYTES,
        headersTimeout: HEADERS_MS,
        connectionsCheckingInterval: SWEEP_MS,
      },
    }) as unknown as FastifyInstance;
    this.front = options.front?.((socket) => void this.app.server.emit('connection', socket)) ?? null;
    (this.front?.net ?? this.app.server).maxConnections = MAX_CONNECTIONS;
  }

  /** @throws HoldfastError INVALID_ARGUMENT, BUSY, ACCESS */
  static async start(options: HttpPortOptions): Promise<HttpPort> {
    const port = new HttpPort(options);
    await port.begin();
    return port;
  }

  private async begin(): Promise<void> {
    const { app } = this;
    this.guard();
    this.routes();
    await this.files();
    const { host, port } = this.options;
    try {
      if (this.front === null) await app.listen({ host, port });
      else await this.listenBehind(this.front.net);
    } catch (error) {
      await this.close();
      const { code, message } = error as NodeJS.ErrnoException;
      throw new HoldfastError(code === 'EADDRINUSE' ? 'BUSY' : code === 'EACCES' ? 'ACCESS' : 'INVALID_ARGUMENT', {
        operation: 'listen for HTTP',
        detail: `${host}:${port}: ${message}`,
        remedy: 'stop what listens there, or take another address',
        cause: error,
      });
    }
    const bound = (this.front?.net ?? app.server).address() as AddressInfo;
    const called = bound.family === 'IPv6' ? `[${bound.address}]` : bound.address;
    this.url = `${this.front === null ? 'http' : 'https'}://${called}:${bound.port}/`;
  }

  private async listenBehind(net: NetServer): Promise<void> {
    const { host, port } = this.options;
    await this.app.ready();
    await new Promise<void>((resolve, reject) => {
      net.once('error', reject);
      net.listen({ host, port }, resolve);
    });
    // It never listens itself, and only looks for connections that are late from this event on.
    this.app.server.emit('listening');
  }

  private guard(): void {
    const { app } = this;
    const { names = [], host, door = null } = this.options;
    const known = [...names, host];
    app.addHook('onRequest', async (request, reply) => {
      reply.headers(HEADERS);
      if (!isAllowed(request.headers.host, known, request.raw.socket.localAddress)) {
        const error = `this port is not known by that name: start the node with --http-host NAME for it`;
        return reply.code(403).send({ error });
      }
      if (request.method !== 'GET' && request.method !== 'HEAD') {
        return reply.code(405).header('allow', 'GET, HEAD').send({ error: 'there are only GETs' });
      }
      // By the route that was found, not by what was asked for.
      if (door === null || OPEN.includes(request.routeOptions.url ?? '')) return;
      const refusal = await door.refusal(request.raw.socket, request.headers.authorization);
      if (refusal === null) return;
      const { error, challenge, close } = refusal;
      if (challenge) reply.header('www-authenticate', CHALLENGES);
      if (close) reply.header('connection', 'close');
      return reply
        .code(challenge ? 401 : 403)
        .header('cache-control', 'no-store')
        .send({ error });
    });
    app.setNotFoundHandler((_request, reply) => reply.code(404).send({ error: 'there is nothing of that name' }));
    app.setErrorHandler((error: Error & { statusCode?: number }, _request, reply) =>
      reply.code(error.statusCode ?? 500).send({ error: error.message }),
    );
  }

  /** What changes with every call. */
  private get(path: string, answer: (reply: FastifyReply, query: Record<string, string>) => unknown): void {
    this.app.get(path, async (request, reply) => {
      reply.header('cache-control', 'no-store');
      const given = { ...(request.query as object), ...(request.params as object) } as Record<string, string>;
      return answer(reply, given);
    });
  }

  private routes(): void {
    const { node } = this.options;
    this.get('/healthz', () => ({ alive: true, node: node.node, pid: process.pid }));
    this.get('/readyz', (reply) => {
      const replicas = [...node.hosted.values()].map((hosted) => hosted.status());
      const readiness = readinessOf(replicas, node.unopened);
      return reply.code(readiness.ready ? 200 : 503).send(readiness);
    });
    this.get('/metrics', async (reply) => {
      const text = await this.metrics.text();
      return reply.type(this.metrics.contentType).send(text);
    });
    this.get('/api/node', () => this.status());
    this.get('/api/cluster', async (reply) => {
      const look = await this.look.get();
      return reply.code('error' in look ? 503 : 200).send(look);
    });
    this.get('/api/events', (_reply, { after }) => {
      const { node: name, bootId, timeline } = node;
      return { node: name, bootId, newest: timeline.newest, events: timeline.after(countOf(after)) };
    });
    this.get('/api/dirty/:volumeId', (reply, { volumeId, member, cells }) => {
      const hosted = node.hosted.get(volumeId ?? '');
      const most = cells === undefined ? MAX_CELLS : Math.min(MAX_CELLS, Math.max(1, countOf(cells)));
      const dirty = hosted === undefined || member === undefined ? null : dirtyOf(hosted, member, most);
      if (dirty !== null) return dirty;
      const error = 'this node is not primary of that volume, or keeps no note of what that member lacks';
      return reply.code(404).send({ error });
    });
    this.app.get('/api/stream', (request, reply) => {
      if (this.streams.count >= MAX_STREAMS) {
        return reply.code(503).send({ error: `there are ${MAX_STREAMS} streams already` });
      }
      reply.hijack();
      request.raw.socket.setNoDelay(true);
      const own = { 'content-type': 'text/event-stream; charset=utf-8', 'cache-control': 'no-store' };
      reply.raw.writeHead(200, { ...HEADERS, ...own, 'x-accel-buffering': 'no' });
      reply.raw.flushHeaders();
      this.streams.add(reply.raw);
      return undefined;
    });
  }

  /** All pages of what the node says of itself. */
  private async status(): Promise<object> {
    const { admin } = this.options.node.server;
    const replicas: ReplicaStatus[] = [];
    for (let from: number | null = 0; ;) {
      const page = (await admin!({ op: 'status', from })) as { replicas: ReplicaStatus[]; next: number | null };
      replicas.push(...page.replicas);
      from = page.next;
      if (from === null) return { ...page, replicas };
    }
  }

  private async files(): Promise<void> {
    const own = { dotfiles: 'deny', decorateReply: false } as const;
    await this.app.register(fastifyStatic, { ...own, root: UPLOT, prefix: '/vendor/uplot/', index: false });
    const root = PUBLIC.find((path) => existsSync(path));
    if (root !== undefined) await this.app.register(fastifyStatic, { ...own, root, prefix: '/' });
  }

  async close(): Promise<void> {
    this.streams.close();
    this.metrics.close();
    if (this.front !== null) {
      this.front.net.close();
      this.front.end();
      this.app.server.closeAllConnections();
    }
    await this.app.close().catch((error: unknown) => {
      throw asHoldfastError(error, { operation: 'close the HTTP port' });
    });
  }
}

/** A whole number of a query; 0 for what is none. */
function countOf(text: string | undefined): number {
  return text !== undefined && /^\d{1,15}$/.test(text) ? Number(text) : 0;
}
