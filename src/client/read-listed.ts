/**
 * Reads from the servers that the address names and from no other, whatever their role in the volume.
 *
 * Guarantees: a read is answered by a server that may answer it, or fails with UNREACHABLE after `retryMs`, with the last
 * reason; what waits is bounded by `maxQueued`; a server is tried again with growing pauses, while something waits.
 */
import { asHoldfastError, HoldfastError } from '../base/errors.ts';
import { type Address, formatAddress } from './address.ts';
import type { Call } from './call.ts';
import type { Shared } from './connection.ts';
import { ReadLink } from './read-link.ts';
import { type Reader, sameRead } from './read-policy.ts';
import { backoffMs, mostDelayMs, worthAnotherAttempt } from './retry.ts';

/** A node that answers what is stale thinks a second before. */
const LEAST_SUSPECT_MS = 3000;

interface Waiting {
  sinceMs: number;
  timer: NodeJS.Timeout;
}

export class ReadListed implements Reader {
  private readonly shared: Shared;
  private readonly servers: readonly Address[];
  private readonly links: Map<string, ReadLink> = new Map();
  private readonly connecting: Set<string> = new Set();
  private readonly waiting: Map<Call, Waiting> = new Map();
  private readonly asked: Map<Call, Call> = new Map();
  private readonly abort = new AbortController();
  private failure: HoldfastError | null = null;
  private turn = 0;
  private idle: () => void = () => {};

  constructor(shared: Shared, servers: readonly Address[]) {
    this.shared = shared;
    this.servers = servers;
  }

  submit(call: Call): void {
    const { maxQueued, retryMs } = this.shared.settings;
    const operation = call.message.name;
    const refuse = (error: HoldfastError): void => queueMicrotask(() => call.givenUp || call.done(error, null));
    if (this.abort.signal.aborted) return refuse(new HoldfastError('CLOSED', { operation }));
    if (this.waiting.size >= maxQueued) {
      return refuse(new HoldfastError('BUSY', { operation, detail: `${maxQueued} calls wait for their turn already` }));
    }
    const timer = setTimeout(() => this.fail(call), Math.min(retryMs, 2 ** 31 - 1));
    this.waiting.set(call, { sinceMs: performance.now(), timer });
    queueMicrotask(() => this.pump());
  }

  private fail(call: Call): void {
    const { failure } = this;
    const detail = failure?.details.detail ?? failure?.message ?? 'no answer';
    const peer = this.servers.map(formatAddress).join(', ');
    const cause = failure === null ? {} : { cause: failure };
    this.settle(call, new HoldfastError('UNREACHABLE', { operation: call.message.name, peer, detail, ...cause }), null);
  }

  private settle(call: Call, error: HoldfastError | null, payload: Uint8Array | null): void {
    const waiting = this.waiting.get(call);
    if (waiting === undefined) return;
    clearTimeout(waiting.timer);
    this.waiting.delete(call);
    const inner = this.asked.get(call);
    this.asked.delete(call);
    if (inner !== undefined) inner.givenUp = true;
    if (!call.givenUp) call.done(error, payload);
    if (this.waiting.size === 0) this.idle();
  }

  /** Sends what waits to whoever takes it; connects to whoever could. */
  private pump(): void {
    if (this.waiting.size === 0 || this.abort.signal.aborted) return;
    for (const server of this.servers) void this.connect(server);
    for (const call of this.waiting.keys()) {
      if (this.asked.has(call)) continue;
      const links = [...this.links.values()].filter((link) => link.admits(call));
      if (links.length === 0) return;
      const first = links[this.turn++ % links.length]!;
      this.ask(
        call,
        links.reduce((best, link) => (link.load < best.load ? link : best), first),
      );
    }
  }

  private ask(call: Call, link: ReadLink): void {
    const inner = sameRead(call, call.destination);
    this.asked.set(call, inner);
    inner.done = (error, payload) => {
      if (this.asked.get(call) !== inner) return;
      this.asked.delete(call);
      if (error === null || !error.retryable) {
        this.settle(call, error, payload);
        return this.pump();
      }
      this.failure = error;
      // BUSY, or about to be connected anew.
      setTimeout(() => this.pump(), backoffMs(0, Math.random()));
    };
    link.submit(inner);
  }

  private async connect(server: Address): Promise<void> {
    const name = formatAddress(server);
    if (this.links.has(name) || this.connecting.has(name)) return;
    this.connecting.add(name);
    const { settings, volume } = this.shared;
    const patient = { ...settings, suspectMs: Math.max(LEAST_SUSPECT_MS, settings.suspectMs) };
    const beganMs = performance.now();
    const { signal } = this.abort;
    for (let attempt = 0; this.waiting.size > 0 && !signal.aborted; attempt++) {
      try {
        let link: ReadLink | null = null;
        const lost = (): void => {
          if (link !== null && this.links.get(name) === link) this.links.delete(name);
          setTimeout(() => this.pump(), backoffMs(0, Math.random())).unref();
        };
        const accept = this.shared.accept.bind(this.shared);
        link = await ReadLink.open(name, server, volume, patient, accept, lost, signal);
        if (signal.aborted) {
          link.close();
          break;
        }
        this.links.set(name, link);
        break;
      } catch (thrown) {
        const error = asHoldfastError(thrown);
        if (error.code === 'ABORTED') break;
        this.failure = error;
        if (!worthAnotherAttempt(error) && this.servers.length === 1) {
          for (const call of this.waiting.keys()) this.settle(call, error, null);
          break;
        }
        const most = mostDelayMs(2, performance.now() - beganMs);
        await new Promise<void>((resolve) => setTimeout(resolve, backoffMs(attempt, Math.random(), most)));
      }
    }
    this.connecting.delete(name);
    this.pump();
  }

  /** `done` of that call is not called any more. */
  giveUp(call: Call): void {
    call.givenUp = true;
    this.settle(call, null, null);
  }

  /** Reads under way are waited for. */
  async close(): Promise<void> {
    if (this.waiting.size > 0 && this.links.size > 0) await new Promise<void>((resolve) => (this.idle = resolve));
    this.abort.abort();
    for (const call of this.waiting.keys()) {
      this.settle(call, new HoldfastError('CLOSED', { operation: call.message.name }), null);
    }
    for (const link of this.links.values()) link.close();
    this.links.clear();
  }
}
