/**
 * Calls to whichever of a few servers answers.
 *
 * Guarantees: a request that must not run twice is given to a second server, or a second time, only if it certainly did
 * not reach the first; every call settles within its deadline; after `close` it settles at once.
 */
import { setMaxListeners } from 'node:events';
import { HoldfastError } from '../base/errors.ts';
import { CallFailure, type Endpoint, type HttpReply, httpCall, httpLines } from './http-call.ts';

export interface CallTimes {
  /** For a call, with all of its attempts. Default 5 s. */
  deadlineMs?: number | undefined;
  /** To establish one connection. Default 1 s. */
  connectMs?: number | undefined;
  /** For one attempt that may be repeated elsewhere, when there is an elsewhere. Default 1.5 s. */
  attemptMs?: number | undefined;
}

/**
 * What a reply means: it answers the call; this server certainly did not execute it, try again; it may have been
 * executed.
 */
export type Verdict = 'answer' | 'not executed' | 'unknown';

export interface CallOptions {
  operation: string;
  /** Running it twice is no different from running it once. */
  repeatable: boolean;
  headers?: Record<string, string> | undefined;
  judge: (reply: HttpReply) => Verdict;
}

const LEAST_PAUSE_MS = 10;
const MOST_PAUSE_MS = 1000;

/** Milliseconds before another attempt, `attempt` from 0: drawn over a range that doubles from 50 ms to 1 s. */
export function pauseMs(attempt: number): number {
  const most = Math.min(MOST_PAUSE_MS, 50 * 2 ** Math.min(attempt, 10));
  return LEAST_PAUSE_MS + Math.random() * (most - LEAST_PAUSE_MS);
}

export class Endpoints {
  private readonly list: readonly Endpoint[];
  private readonly deadlineMs: number;
  private readonly connectMs: number;
  private readonly attemptMs: number;
  private readonly closed: AbortController = new AbortController();
  /** The one that answered last. */
  private current = 0;

  constructor(list: readonly Endpoint[], times: CallTimes) {
    this.list = list;
    this.deadlineMs = times.deadlineMs ?? 5000;
    this.connectMs = times.connectMs ?? 1000;
    this.attemptMs = times.attemptMs ?? 1500;
    // One for each call under way.
    setMaxListeners(0, this.signal);
  }

  get signal(): AbortSignal {
    return this.closed.signal;
  }

  /** Calls under way, and later ones, fail with CLOSED. */
  close(): void {
    this.closed.abort();
  }

  /** Another server is to be asked first from now on. */
  turn(): void {
    this.current = (this.current + 1) % this.list.length;
  }

  /** @throws HoldfastError UNREACHABLE, DEADLINE, OUTCOME_UNKNOWN, CLOSED */
  async call(path: string, body: object, options: CallOptions): Promise<HttpReply> {
    const { operation, repeatable, judge } = options;
    const end = performance.now() + this.deadlineMs;
    let sent = false;
    let why = '';
    for (let attempt = 0; ; attempt++) {
      const leftMs = end - performance.now();
      if (leftMs <= 0) throw this.outOfTime(operation, sent, why);
      const endpoint = this.list[this.current]!;
      const totalMs = repeatable && this.list.length > 1 ? Math.min(leftMs, this.attemptMs) : leftMs;
      const connectMs = Math.min(leftMs, this.connectMs);
      try {
        const bounds = { connectMs, totalMs, signal: this.signal };
        const reply = await httpCall(endpoint, path, body, options.headers ?? {}, bounds);
        const verdict = judge(reply);
        if (verdict === 'answer') return reply;
        why = `${where(endpoint)} answered ${reply.status} ${brief(reply.body)}`;
        if (verdict === 'unknown' && !repeatable) throw unknown(operation, why);
        sent = true;
      } catch (error) {
        if (this.signal.aborted) throw closed(operation);
        if (!(error instanceof CallFailure)) throw error;
        // Of several, another may have a better certificate.
        if (error.denied !== null && this.list.length === 1) throw asDenied(operation, error.denied);
        // What somebody said tells more than that the last attempt had no time left.
        if (!error.timedOut || why === '') why = `${where(endpoint)}: ${error.message}`;
        sent ||= error.sent;
        if (error.sent && !repeatable) {
          throw error.timedOut ? this.outOfTime(operation, true, why) : unknown(operation, why);
        }
      }
      this.turn();
      // A round of all of them without a pause, then one.
      if ((attempt + 1) % this.list.length === 0) await this.sleep(pauseMs(attempt / this.list.length), end);
    }
  }

  /**
   * Opens a stream at the present server; when it ends, the next stream begins at another.
   * @returns false when it was refused in words
   * @throws CallFailure
   */
  async lines(
    path: string,
    body: object,
    headers: Record<string, string>,
    signal: AbortSignal,
    onLine: (value: unknown) => boolean,
  ): Promise<boolean> {
    const endpoint = this.list[this.current]!;
    const bounds = { connectMs: this.connectMs, totalMs: this.attemptMs, signal };
    return httpLines(endpoint, path, body, headers, bounds, onLine);
  }

  private async sleep(ms: number, end: number): Promise<void> {
    const leftMs = Math.max(0, Math.min(ms, end - performance.now()));
    await new Promise<void>((resolve) => {
      const done = (): void => {
        clearTimeout(timer);
        this.signal.removeEventListener('abort', done);
        resolve();
      };
      const timer = setTimeout(done, leftMs);
      this.signal.addEventListener('abort', done);
    });
  }

  private outOfTime(operation: string, sent: boolean, why: string): HoldfastError {
    return new HoldfastError(sent ? 'DEADLINE' : 'UNREACHABLE', {
      operation,
      peer: this.list.map(where).join(','),
      detail: `${this.deadlineMs} ms are over; the last attempt: ${why}`,
      remedy: 'look whether the coordinator runs and can be reached from here',
    });
  }
}

function where({ host, port }: Endpoint): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
}

function asDenied(operation: string, { code, details }: HoldfastError): HoldfastError {
  return new HoldfastError(code, { ...details, operation });
}

function unknown(operation: string, why: string): HoldfastError {
  return new HoldfastError('OUTCOME_UNKNOWN', {
    operation,
    detail: why,
    remedy: 'read the register: another version than the expected one tells',
  });
}

function closed(operation: string): HoldfastError {
  return new HoldfastError('CLOSED', { operation, detail: 'this coordinator client was closed' });
}

/** The words of an error reply, short enough for a message. */
function brief(body: unknown): string {
  return (JSON.stringify(body) ?? 'without JSON').slice(0, 200);
}
