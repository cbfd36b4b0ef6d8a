/**
 * Asks whoever is primary of a key-value volume, through the client library: for a port whose node is not.
 *
 * Guarantees: a transaction is executed at most once, also where its connection is lost and the primary changes; what is
 * stale is no answer, the port has no way to mark it: it is asked again, and in the end refused; what waits is bounded by
 * the connection's limits; a connection that cannot be made fails what waits for it, and is tried anew with the next
 * request.
 */
import { HoldfastError, asHoldfastError } from '../base/errors.ts';
import { parseServer } from '../client/address.ts';
import { Connection } from '../client/connection.ts';
import type { CredentialOptions } from '../client/credentials.ts';
import { kvCall } from '../client/kv-call.ts';
import { settingsOf } from '../client/options.ts';
import { Outages } from '../client/outages.ts';
import { backoffMs } from '../client/retry.ts';
import { Scout } from '../client/scout.ts';
import { Servers } from '../client/servers.ts';
import { type KvRequest, decodeFound, decodeNumber, decodePage, decodeResult, isStale } from '../kv/codec.ts';
import type {
  Entry,
  Key,
  KvDone,
  RequestId,
  ScanPage,
  ScanRequest,
  Transaction,
  TransactionResult,
} from '../kv/operations.ts';
import type { Forwarded } from '../node/node-kv.ts';

/** A failover takes a second or two. */
const RETRY_MS = 20_000;
const MAX_QUEUED = 100_000;
/** Between two questions that are answered with what is stale: whoever answers so has thought a second before. */
const STALE_PAUSE_MS = 400;

export interface ForwarderCredentials extends CredentialOptions {
  /** The nodes' ports for clients have TLS. */
  secure: boolean;
}

export class KvForwarder implements Forwarded {
  /** Where a node is that knows the volume, `host:port`. */
  private readonly server: () => string;
  private readonly volume: () => string;
  private readonly credentials: ForwarderCredentials | null;
  private readonly retryMs: number;
  private opened: Promise<Connection> | null = null;
  private connection: Connection | null = null;
  private scout: Scout | null = null;
  private closed = false;

  /**
   * @param credentials of the node; null: its ports have no TLS, and no tokens are wanted
   * @param retryMs how long failures are waited for
   */
  constructor(
    server: () => string,
    volume: () => string,
    credentials: ForwarderCredentials | null = null,
    retryMs = RETRY_MS,
  ) {
    this.retryMs = retryMs;
    this.credentials = credentials;
    this.server = server;
    this.volume = volume;
  }

  private async open(): Promise<Connection> {
    const { secure, ...own } = this.credentials ?? { secure: false };
    const base = { retryMs: this.retryMs, maxQueued: MAX_QUEUED, clientName: 'kv port' };
    const settings = settingsOf({ ...base, ...own }, secure);
    const servers = new Servers([parseServer(this.server())!]);
    const volume = this.volume();
    const scout = new Scout(servers, volume, settings);
    const accept = (): void => {};
    const outages = new Outages(settings.events);
    const connection = new Connection({ volume, settings, servers, scout, outages, accept });
    try {
      await connection.open();
    } catch (error) {
      scout.close();
      throw error;
    }
    this.scout = scout;
    return connection;
  }

  private withConnection<T>(use: (connection: Connection) => void, done: KvDone<T>): void {
    const { connection } = this;
    if (this.closed)
      return queueMicrotask(() => done(new HoldfastError('SHUTTING_DOWN', { operation: 'forward' }), null));
    if (connection !== null && connection.failure === null) return use(connection);
    if (connection !== null) this.drop();
    this.opened ??= this.open();
    const { opened } = this;
    opened.then(
      (made) => {
        this.connection = made;
        use(made);
      },
      (error: unknown) => {
        if (this.opened === opened) this.opened = null;
        done(asHoldfastError(error), null);
      },
    );
  }

  private drop(): void {
    this.scout?.close();
    this.connection?.end(new HoldfastError('CLOSED', { operation: 'forward' }));
    this.connection = this.opened = this.scout = null;
  }

  private ask<T>(request: KvRequest, decode: (reply: Uint8Array) => T, done: KvDone<T>): void {
    this.withConnection((connection) => {
      const call = kvCall(request, {});
      call.done = (error, reply) => {
        if (error !== null) return done(error, null);
        let result: T;
        try {
          result = decode(reply!);
        } catch (cause) {
          return done(asHoldfastError(cause), null);
        }
        done(null, result);
      };
      connection.submit(call);
    }, done);
  }

  /** As `ask`, until it is not stale. */
  private read<T>(request: KvRequest, decode: (reply: Uint8Array) => T, done: KvDone<T>): void {
    const untilMs = performance.now() + this.retryMs;
    const attempt = (n: number): void => {
      // Null: it is stale.
      const vouched = (reply: Uint8Array): { result: T } | null => (isStale(reply) ? null : { result: decode(reply) });
      this.ask<{ result: T } | null>(request, vouched, (error, answer) => {
        if (error !== null) return done(error, null);
        if (answer !== null) return done(null, answer.result);
        if (performance.now() < untilMs) {
          return void setTimeout(() => attempt(n + 1), backoffMs(n, Math.random(), STALE_PAUSE_MS));
        }
        const { operation } = request;
        const detail = 'only answers that nobody vouches for, and no way to mark them here';
        const remedy = 'wait until its replicas see each other; or ask with the client library, with allowStale';
        done(new HoldfastError('NOT_PRIMARY', { operation, volume: this.volume(), detail, remedy }), null);
      });
    };
    attempt(0);
  }

  get(keys: Key[], done: KvDone<Array<Entry | null>>): void {
    this.read({ operation: 'get', keys }, decodeFound, done);
  }

  scan(scan: ScanRequest, done: KvDone<ScanPage>): void {
    this.read({ operation: 'scan', scan }, decodePage, done);
  }

  size(done: KvDone<number>): void {
    this.ask({ operation: 'size' }, decodeNumber, done);
  }

  /** Under a session of its own. */
  execute(transaction: Transaction, _id: RequestId | null, done: KvDone<TransactionResult>): void {
    this.ask({ operation: 'execute', transaction, id: null }, decodeResult, done);
  }

  close(): void {
    this.closed = true;
    this.drop();
  }
}
