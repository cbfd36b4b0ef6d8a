/**
 * One exchange over HTTP/1.1 with JSON, and one stream of lines, each on a connection of its own.
 *
 * Guarantees: both end within their bounds of time and bytes; a failure says whether the request may have been sent. A
 * connection that is used once makes that exact: nothing was sent before it was established.
 */
import { type ClientRequest, type IncomingMessage, request as plainRequest } from 'node:http';
import { request as tlsRequest } from 'node:https';
import type { HoldfastError } from '../base/errors.ts';
import { tlsFailure } from '../base/tls-failures.ts';

/** PEM texts. */
export interface TlsFiles {
  /** Whose signature the server must show; default: those that Node trusts. */
  ca?: string | undefined;
  /** What this client shows. Both or none. */
  cert?: string | undefined;
  key?: string | undefined;
  minVersion?: 'TLSv1.3' | undefined;
}

export interface Endpoint {
  host: string;
  port: number;
  /** null: no TLS. A function gives what is in force at each call. */
  tls: TlsFiles | (() => TlsFiles) | null;
}

export interface HttpReply {
  status: number;
  /** undefined: no JSON. */
  body: unknown;
  /** What it says if it is no JSON; the beginning of it. */
  text?: string;
}

export interface CallBounds {
  /** To establish the connection, with TLS. */
  connectMs: number;
  /** For all of it; of a stream, until its first line. */
  totalMs: number;
  signal: AbortSignal;
}

export class CallFailure extends Error {
  /** False: the request has certainly not been sent. */
  readonly sent: boolean;
  readonly timedOut: boolean;
  /** One end does not take the other's certificate: to try again there is of no use. */
  readonly denied: HoldfastError | null;

  constructor(message: string, sent: boolean, timedOut: boolean, denied: HoldfastError | null = null) {
    super(message);
    this.denied = denied;
    this.sent = sent;
    this.timedOut = timedOut;
  }
}

const MAX_REPLY_BYTES = 16 * 1024 * 1024;
const MAX_LINE_BYTES = 1024 * 1024;
const MAX_TEXT_LENGTH = 200;
const KEEP_ALIVE_MS = 10_000;

interface Opened {
  request: ClientRequest;
  /** Of the whole call; a stream stops it at its first line. */
  timer: NodeJS.Timeout;
  fail: (message: string) => void;
  settle: () => void;
}

/** Sends the request; `reject` gets a CallFailure, at most once. */
function open(
  endpoint: Endpoint,
  path: string,
  body: object,
  headers: Record<string, string>,
  bounds: CallBounds,
  reject: (failure: CallFailure) => void,
): Opened {
  const { host, port, tls } = endpoint;
  const files = typeof tls === 'function' ? tls() : tls;
  const bytes = Buffer.from(JSON.stringify(body));
  let sent = false;
  let over = false;
  const request = (tls === null ? plainRequest : tlsRequest)({
    host,
    port,
    path,
    method: 'POST',
    agent: false,
    headers: { 'content-type': 'application/json', 'content-length': bytes.length, ...headers },
    ...files,
    ...(files !== null && { rejectUnauthorized: true }),
  });
  const settle = (): void => {
    over = true;
    clearTimeout(connect);
    clearTimeout(timer);
    bounds.signal.removeEventListener('abort', aborted);
  };
  const fail = (message: string, timedOut = false, denied: HoldfastError | null = null): void => {
    if (over) return;
    settle();
    request.destroy();
    reject(new CallFailure(message, sent, timedOut, denied));
  };
  const aborted = (): void => fail('closed');
  const connect = setTimeout(
    () => fail(`no connection within ${Math.round(bounds.connectMs)} ms`, true),
    bounds.connectMs,
  );
  const timer = setTimeout(() => fail(`no answer within ${Math.round(bounds.totalMs)} ms`, true), bounds.totalMs);
  bounds.signal.addEventListener('abort', aborted);
  request.on('error', (error) => fail(error.message, false, tlsFailure(error, { peer: `${host}:${port}` })));
  request.on('socket', (socket) => {
    socket.setNoDelay(true);
    socket.setKeepAlive(true, KEEP_ALIVE_MS);
    socket.once(tls === null ? 'connect' : 'secureConnect', () => {
      if (over) return;
      clearTimeout(connect);
      sent = true;
      // Not earlier: bytes that wait for a connection would leave with it, after we said that none were sent.
      request.end(bytes);
    });
  });
  if (bounds.signal.aborted) aborted();
  return { request, timer, fail, settle };
}

/** @throws CallFailure */
export function httpCall(
  endpoint: Endpoint,
  path: string,
  body: object,
  headers: Record<string, string>,
  bounds: CallBounds,
): Promise<HttpReply> {
  return new Promise((resolve, reject) => {
    const { request, fail, settle } = open(endpoint, path, body, headers, bounds, reject);
    request.on('response', (response: IncomingMessage) => {
      const chunks: Buffer[] = [];
      let length = 0;
      response.on('data', (chunk: Buffer) => {
        length += chunk.length;
        if (length > MAX_REPLY_BYTES) return fail(`a reply of more than ${MAX_REPLY_BYTES} bytes`);
        chunks.push(chunk);
      });
      response.on('error', (error) => fail(error.message));
      response.on('close', () => fail('the reply was cut off'));
      response.on('end', () => {
        if (!response.complete) return fail('the reply was cut off');
        settle();
        const text = Buffer.concat(chunks).toString();
        const parsedBody = parsed(text);
        const rest = parsedBody === undefined && { text: text.slice(0, MAX_TEXT_LENGTH).trim() };
        resolve({ status: response.statusCode ?? 0, body: parsedBody, ...rest });
      });
    });
  });
}

/**
 * A stream of lines of JSON. Settles when it is over.
 * @returns false when the first answer was no stream: another status than 200, or a line that `onLine` does not accept
 * @throws CallFailure
 */
export function httpLines(
  endpoint: Endpoint,
  path: string,
  body: object,
  headers: Record<string, string>,
  bounds: CallBounds,
  onLine: (value: unknown) => boolean,
): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const { request, timer, fail, settle } = open(endpoint, path, body, headers, bounds, reject);
    request.on('response', (response: IncomingMessage) => {
      const finish = (good: boolean): void => {
        settle();
        request.destroy();
        resolve(good);
      };
      if (response.statusCode !== 200) return finish(false);
      let rest = '';
      response.setEncoding('utf8').on('data', (chunk: string) => {
        const lines = (rest + chunk).split('\n');
        rest = lines.pop()!;
        if (rest.length > MAX_LINE_BYTES) return fail(`a line of more than ${MAX_LINE_BYTES} bytes`);
        for (const line of lines) {
          clearTimeout(timer);
          if (!onLine(parsed(line))) return finish(false);
        }
      });
      response.on('error', (error) => fail(error.message));
      response.on('close', () => fail('the stream ended'));
    });
  });
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
