/**
 * The embedded coordinator: a small server of registers, JSON over HTTP/1.1, one folder.
 *
 * Guarantees: a change is answered when it is durable, and changes take effect one after another, so that reads and
 * changes are linearizable; sizes, connections, waiting changes and the time of a request are bounded; what is no
 * request of ours harms nobody else.
 */
import { type IncomingMessage, type Server, type ServerResponse, createServer } from 'node:http';
import { type ErrorCode, HoldfastError } from '../base/errors.ts';
import { checkFields, checkNextRegister, checkNodeInfo, checkVersion, checkVolumeId, given } from './check-register.ts';
import { NodeDirectory } from './node-directory.ts';
import { type Register, changedMeanwhile, noSuchRegister, registerExists, successor } from './register.ts';
import { FolderFailure, RegisterFolder } from './register-folder.ts';
import { Watchers } from './watchers.ts';

export const PATH = '/v1/';

const MAX_REQUEST_BYTES = 32 * 1024;
const MAX_CONNECTIONS = 1024;
const MAX_REGISTERS = 4096;
const MAX_WAITING = 1024;
/** For the headers, and for all of a request, to arrive. */
const REQUEST_MS = 10_000;
const SWEEP_MS = 1000;

/** What the caller can do about it decides; others are 400. */
const HTTP_STATUS: Partial<Record<ErrorCode, number>> = {
  NO_SUCH_VOLUME: 404,
  EXISTS: 409,
  BUSY: 409,
  TOO_LARGE: 413,
  IO_ERROR: 500,
  NO_SPACE: 507,
  SHUTTING_DOWN: 503,
  TOO_MANY: 503,
};

export interface EmbeddedServerOptions {
  dir: string;
  /** Lets it listen; gives the address in force. */
  listen: (server: Server) => Promise<string>;
  /** The disk failed in the middle of a change. Nothing is answered any more; the process is to end. */
  onFatal: (error: HoldfastError) => void;
  log?: (level: 'info' | 'warn' | 'error', message: string, fields: object) => void;
}

type Handler = (fields: Record<string, unknown>, operation: string) => Promise<object> | object;

export class EmbeddedServer {
  readonly address: string;
  private readonly folder: RegisterFolder;
  private readonly http: Server;
  private readonly options: EmbeddedServerOptions;
  private readonly directory: NodeDirectory = new NodeDirectory();
  private readonly watchers: Watchers = new Watchers();
  private readonly handlers: Map<string, Handler>;
  /** The last of the changes; each waits for the one before. */
  private changes: Promise<unknown> = Promise.resolve();
  private waiting = 0;
  private closing = false;
  private failed = false;

  private constructor(options: EmbeddedServerOptions, folder: RegisterFolder, http: Server, address: string) {
    this.options = options;
    this.folder = folder;
    this.http = http;
    this.address = address;
    this.handlers = new Map<string, Handler>([
      ['read', (f, operation) => ({ register: this.at(checkVolumeId(f['volumeId'], given(operation))) })],
      ['create', (f, operation) => this.create(f, operation)],
      ['compare-and-set', (f, operation) => this.compareAndSet(f, operation)],
      ['remove', (f, operation) => this.remove(f, operation)],
      ['list', () => ({ registers: [...folder.registers.values()] })],
      ['announce', (f, operation) => this.announce(f, operation)],
      ['nodes', () => ({ nodes: this.directory.list(performance.now()) })],
    ]);
    http.on('request', (request, response) => void this.serve(request, response));
    http.on('drop', () => this.log('warn', 'connection refused: too many', { maxConnections: MAX_CONNECTIONS }));
  }

  /** @throws HoldfastError as RegisterFolder.open, and as `listen` */
  static async start(options: EmbeddedServerOptions): Promise<EmbeddedServer> {
    const folder = await RegisterFolder.open(options.dir);
    const http = createServer({
      headersTimeout: REQUEST_MS,
      requestTimeout: REQUEST_MS,
      connectionsCheckingInterval: SWEEP_MS,
      keepAlive: true,
    });
    http.maxConnections = MAX_CONNECTIONS;
    try {
      // A connection that is there at once is served after this turn only.
      return new EmbeddedServer(options, folder, http, await options.listen(http));
    } catch (error) {
      folder.close();
      throw error;
    }
  }

  get volumes(): number {
    return this.folder.registers.size;
  }

  /** Stops listening, ends watches, answers what is under way, gives the folder back. */
  async close(): Promise<void> {
    this.closing = true;
    const closed = new Promise<void>((resolve) => this.http.close(() => resolve()));
    this.watchers.close();
    await this.changes;
    this.http.closeIdleConnections();
    // Those that are in the middle of a request: each gets its answer, or is over in this time.
    const timer = setTimeout(() => this.http.closeAllConnections(), SWEEP_MS);
    await closed;
    clearTimeout(timer);
    this.folder.close();
  }

  private at(volumeId: string): Register | null {
    return this.folder.registers.get(volumeId) ?? null;
  }

  private create(fields: Record<string, unknown>, operation: string): Promise<object> {
    const register: Register = { ...checkNextRegister(fields['register'], given(operation)), version: 1 };
    return this.change(operation, async () => {
      const { registers } = this.folder;
      for (const other of registers.values()) {
        const same = other.volumeId === register.volumeId || other.volume === register.volume;
        if (same) throw registerExists(register.volume, other.volumeId);
      }
      if (registers.size >= MAX_REGISTERS) {
        throw new HoldfastError('TOO_MANY', { operation, detail: `there are ${MAX_REGISTERS} registers` });
      }
      await this.folder.put(register);
      this.watchers.tell(register.volumeId);
      return { register };
    });
  }

  private compareAndSet(fields: Record<string, unknown>, operation: string): Promise<object> {
    const expected = checkVersion(fields['expectedVersion'], given(operation));
    const next = checkNextRegister(fields['next'], given(operation));
    return this.change(operation, async () => {
      const current = this.at(next.volumeId);
      if (current === null) throw noSuchRegister(operation, next.volumeId);
      const register = successor(current, expected, next);
      if (register === null) return { outcome: 'refused', register: current };
      await this.folder.put(register);
      this.watchers.tell(register.volumeId);
      const { volume, version, epoch, primary, inSync, by } = register;
      this.log('info', 'register changed', { volume, version, epoch, primary, inSync, by });
      return { outcome: 'done', register };
    });
  }

  private remove(fields: Record<string, unknown>, operation: string): Promise<object> {
    const expected = checkVersion(fields['expectedVersion'], given(operation));
    const volumeId = checkVolumeId(fields['volumeId'], given(operation));
    return this.change(operation, async () => {
      const current = this.at(volumeId);
      if (current === null) throw noSuchRegister(operation, volumeId);
      if (current.version !== expected) throw changedMeanwhile(operation, current, expected);
      await this.folder.remove(current);
      this.watchers.tell(volumeId);
      return {};
    });
  }

  private announce(fields: Record<string, unknown>, operation: string): object {
    this.directory.announce(checkNodeInfo(fields['node'], given(operation)), performance.now());
    return {};
  }

  private change(operation: string, work: () => Promise<object>): Promise<object> {
    if (this.waiting >= MAX_WAITING) {
      throw new HoldfastError('TOO_MANY', { operation, detail: `${MAX_WAITING} changes wait` });
    }
    this.waiting++;
    const done = this.changes.then(() => {
      if (this.failed) throw new HoldfastError('IO_ERROR', { operation, detail: 'the disk failed' });
      return work();
    });
    this.changes = done.catch(() => {}).finally(() => this.waiting--);
    return done;
  }

  private async serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    response.on('error', () => {});
    const operation = (request.url ?? '').slice(PATH.length);
    try {
      const fields = await fieldsOf(request, operation);
      if (this.closing) throw new HoldfastError('SHUTTING_DOWN', { operation });
      if (operation === 'watch') {
        return this.watchers.add(checkVolumeId(fields['volumeId'], given(operation)), response);
      }
      const handler = this.handlers.get(operation);
      const known = handler !== undefined && request.url === `${PATH}${operation}`;
      if (!known) throw new HoldfastError('UNSUPPORTED', { operation: `${request.method} ${request.url}` });
      const result = await handler(fields, operation);
      // What was read while the disk failed may not be so after the next start.
      if (this.failed) throw new HoldfastError('IO_ERROR', { operation, detail: 'the disk failed' });
      answer(response, 200, result);
    } catch (error) {
      this.refuse(response, error);
    }
  }

  private refuse(response: ServerResponse, error: unknown): void {
    if (error instanceof FolderFailure) {
      // Whether it took effect is not known, so there is no answer.
      this.failed = true;
      response.destroy();
      return this.options.onFatal(error.error);
    }
    if (!(error instanceof HoldfastError)) throw error;
    answer(response, HTTP_STATUS[error.code] ?? 400, { error: error.toJSON() });
  }

  private log(level: 'info' | 'warn' | 'error', message: string, fields: object): void {
    this.options.log?.(level, message, fields);
  }
}

function answer(response: ServerResponse, status: number, body: object): void {
  const bytes = Buffer.from(`${JSON.stringify(body)}\n`);
  // One request a connection: a client then knows that what it could not connect for was not sent.
  const headers = { 'content-type': 'application/json', 'content-length': bytes.length, connection: 'close' };
  response.writeHead(status, headers).end(bytes);
}

/** The request's body. @throws HoldfastError UNSUPPORTED, TOO_LARGE, BAD_FRAME */
async function fieldsOf(request: IncomingMessage, operation: string): Promise<Record<string, unknown>> {
  // A page in somebody's browser can post anything to this port but this type.
  const type = request.headers['content-type']?.split(';')[0]?.trim();
  if (request.method !== 'POST' || type !== 'application/json' || request.url?.startsWith(PATH) !== true) {
    const detail = 'requests are POST /v1/NAME with content-type application/json';
    throw new HoldfastError('UNSUPPORTED', { operation: `${request.method} ${request.url}`, detail });
  }
  const chunks: Buffer[] = [];
  let length = 0;
  try {
    for await (const chunk of request) {
      length += (chunk as Buffer).length;
      if (length > MAX_REQUEST_BYTES) break;
      chunks.push(chunk as Buffer);
    }
  } catch (error) {
    throw new HoldfastError('BAD_FRAME', { operation, detail: 'the request was cut off', cause: error });
  }
  if (length > MAX_REQUEST_BYTES) {
    throw new HoldfastError('TOO_LARGE', { operation, detail: `a request has at most ${MAX_REQUEST_BYTES} bytes` });
  }
  let body: unknown;
  try {
    body = JSON.parse(Buffer.concat(chunks).toString());
  } catch (error) {
    throw new HoldfastError('BAD_FRAME', { operation, detail: 'the request is not JSON', cause: error });
  }
  return checkFields(body, given(operation));
}
