/**
 * One session with a server: requests in flight, their replay over a new link when the old one is lost, and the bounds
 * on what waits.
 *
 * Guarantees: a mutation is sent under one (session, request number) pair until its outcome is known, so the server
 * executes it at most once; replays go out in number order before anything new; requests in flight and waiting are
 * bounded; each call's `done` is called exactly once unless the call was given up, and never within `submit`.
 *
 * A mutation that its caller gave up is not repeated over a new link. Its number is settled all the same: the attach of
 * the new link fences the session, so that the old link's copy is either in the log already or dropped for good. To
 * repeat it would let a write that was given up land after later ones of the same caller.
 */
import { asHoldfastError, HoldfastError } from '../base/errors.ts';
import type { Position } from '../base/position.ts';
import type { FrameHeader } from '../protocol/frame.ts';
import type { VolumeInfo } from '../protocol/handshake.ts';
import { MESSAGES } from '../protocol/messages.ts';
import { decodeError } from '../protocol/replies.ts';
import type { Call } from './call.ts';
import { InFlight } from './in-flight.ts';
import type { Link, LinkOwner } from './link.ts';
import { MAX_TIMER_MS, type Settings } from './options.ts';
import type { Outages } from './outages.ts';
import { backoffMs, mostDelayMs, worthAnotherAttempt } from './retry.ts';
import { locateOver, type Scout } from './scout.ts';
import { type Attached, Search, type Seeker } from './search.ts';
import type { Servers } from './servers.ts';

/** A connected client asks so often where the volume's replicas are. */
const LOCATE_EVERY_MS = 30_000;

/** Answers of a store that may stop after it has executed what it is asked again. */
const STOPPED: ReadonlySet<string> = new Set(['NO_SPACE', 'POISONED', 'IO_ERROR']);

/** What the connections of a volume share. */
export interface Shared {
  /** Name of the volume; empty: the only one. */
  readonly volume: string;
  readonly settings: Settings;
  readonly servers: Servers;
  readonly scout: Scout;
  readonly outages: Outages;
  /** Says whether that is the volume that the device stands for; throws if not. */
  accept(info: VolumeInfo): void;
}

export class Connection implements LinkOwner, Seeker {
  /** What ended it for good, if something did. */
  failure: HoldfastError | null = null;
  private readonly shared: Shared;
  private readonly settings: Settings;
  private readonly inFlight = new InFlight();
  /** Calls that were not sent yet, in order. */
  private readonly queue: Set<Call> = new Set();
  private readonly timers: Set<NodeJS.Timeout> = new Set();

  session = randomSession();
  since: Position | null = null;
  private generation = 0;
  private epoch = 0;

  private link: Link | null = null;
  private search: Search | null = null;
  private bringingUp = false;
  private upSinceMs = 0;
  /** When the trouble began that no answered call has ended yet. */
  private troubleSinceMs: number | null = null;
  private attempts = 0;
  private watchdog: NodeJS.Timeout | undefined;
  private owedSinceMs = 0;
  private pingSentMs = 0;
  private askedMs = 0;
  private locatedMs = 0;
  /** The next search begins without a pause: somebody waits to take the session. */
  private awaited = false;
  private closing = false;
  private closed = false;
  private idle: () => void = () => {};

  constructor(shared: Shared) {
    this.shared = shared;
    this.settings = shared.settings;
  }

  /** Requests that are sent or wait. */
  get load(): number {
    return this.inFlight.size + this.queue.size;
  }

  get ready(): boolean {
    return this.link !== null;
  }

  /**
   * Connects for the first time.
   * @throws HoldfastError UNREACHABLE, or what the server answers to HELLO and ATTACH
   */
  async open(): Promise<void> {
    this.bringingUp = true;
    try {
      await this.bringUp(this.settings.connectMs, false);
    } catch (error) {
      this.failure = asHoldfastError(error);
      throw this.failure;
    }
  }

  submit(call: Call): void {
    const refusal = this.refusal(call);
    if (refusal !== null) return queueMicrotask(() => finish(call, refusal, null));
    if (this.link !== null && this.queue.size === 0 && this.inFlight.admits(call)) return this.launch(call, this.link);
    this.queue.add(call);
    if (this.link === null) this.reconnect();
  }

  private refusal(call: Call): HoldfastError | null {
    const operation = call.message.name;
    if (this.failure !== null) return this.failure;
    if (this.closing) return new HoldfastError('CLOSED', { operation });
    if (this.queue.size < this.settings.maxQueued) return null;
    return new HoldfastError('BUSY', {
      operation,
      detail: `${this.queue.size} calls wait for their turn already`,
      remedy: 'wait for earlier calls before making more',
    });
  }

  /** The caller waits no more: `done` is not called again. A call that was not sent yet never will be. */
  giveUp(call: Call): void {
    call.givenUp = true;
    this.queue.delete(call);
  }

  /** Waits for the calls that are under way as long as the server is there, then closes. */
  async close(): Promise<void> {
    if (this.closed) return;
    this.closing = true;
    if (this.link !== null && this.load > 0) await new Promise<void>((resolve) => (this.idle = resolve));
    this.end(new HoldfastError('CLOSED', { operation: 'close' }));
  }

  /** Closes without waiting; calls under way fail. */
  end(error: HoldfastError): void {
    this.closing = true;
    this.closed = true;
    this.failAll(error);
    this.search?.end(new HoldfastError('CLOSED', { operation: 'connect' }));
    this.dropLink();
  }

  // --- requests ---------------------------------------------------------------------------------------------------

  private launch(call: Call, link: Link): void {
    if (this.inFlight.size === 0) this.owedSinceMs = performance.now();
    this.inFlight.add(call);
    this.transmit(call, link);
  }

  private transmit(call: Call, link: Link): void {
    link.send(call.encode(this.epoch, this.inFlight.lowestUnanswered));
    if (call.tail !== null) link.send(call.tail);
  }

  private pump(): void {
    if (this.link !== null && this.queue.size > 0) {
      for (const call of this.queue) {
        if (!this.inFlight.admits(call)) break;
        this.queue.delete(call);
        this.launch(call, this.link);
      }
    }
    if (this.load === 0) this.idle();
  }

  destination(header: FrameHeader): Uint8Array | null {
    const call = this.inFlight.get(header.requestId);
    if (call === undefined || call.destination === null || header.status !== 0) return null;
    return call.destination.length === header.payloadBytes ? call.destination : null;
  }

  reply(header: FrameHeader, payload: Uint8Array | null): void {
    const call = this.inFlight.get(header.requestId);
    // Answered before, or given up on an earlier link.
    if (call === undefined) return;
    const operation = call.message.name;
    const peer = this.link!.peer;
    if (header.type !== call.message.number) {
      throw new HoldfastError('BAD_FRAME', { operation, peer, detail: 'a reply of another type' });
    }
    if (header.status === 0) {
      if (call.destination !== null && call.destination.length !== header.payloadBytes) {
        throw new HoldfastError('BAD_FRAME', { operation, peer, detail: `a reply with ${header.payloadBytes} bytes` });
      }
      return this.settle(call, null, payload);
    }
    const { offsetBytes, lengthBytes } = call;
    const told = decodeError(header.status, payload, { operation, peer });
    const error = new HoldfastError(told.code, { offsetBytes, lengthBytes, ...defined(told.details) });
    const unproved = call.repeated && call.message.mutation && STOPPED.has(error.code);
    if (unproved) return this.settle(call, outcomeUnknown(call, error), null);
    if (!error.retryable || call.givenUp) return this.settle(call, error, null);
    if (error.code === 'BUSY') return this.repeatLater(call, error);
    // Another epoch, another primary, a server that goes away: attach anew, then everything unanswered is sent again.
    this.link!.abandon(error);
  }

  private settle(call: Call, error: HoldfastError | null, payload: Uint8Array | null): void {
    this.inFlight.remove(call);
    this.troubleSinceMs = null;
    this.attempts = 0;
    finish(call, error, payload);
    this.pump();
  }

  private repeatLater(call: Call, error: HoldfastError): void {
    const nowMs = performance.now();
    if (call.refusals === 0) call.refusedSinceMs = nowMs;
    if (this.closing || nowMs - call.refusedSinceMs >= this.settings.retryMs) return this.settle(call, error, null);
    const link = this.link;
    const timer = setTimeout(
      () => {
        this.timers.delete(timer);
        // On a new link it was repeated with the others.
        if (link !== null && this.link === link && this.inFlight.get(call.requestId) === call)
          this.transmit(call, link);
      },
      backoffMs(call.refusals++, Math.random()),
    );
    this.timers.add(timer);
  }

  // --- the link ---------------------------------------------------------------------------------------------------

  lost(error: HoldfastError): void {
    const lastedMs = performance.now() - this.upSinceMs;
    this.dropLink();
    if (this.closing) return this.end(error);
    this.shared.outages.lost(this, error);
    if (lastedMs >= this.settings.idleTimeoutMs) {
      this.troubleSinceMs = null;
      this.attempts = 0;
    }
    this.reconnect();
  }

  private dropLink(): void {
    clearInterval(this.watchdog);
    for (const timer of this.timers) clearTimeout(timer);
    this.timers.clear();
    const link = this.link;
    this.link = null;
    link?.destroy();
  }

  private reconnect(): void {
    if (this.bringingUp) return;
    this.bringingUp = true;
    const pauseFirst = !this.awaited;
    this.awaited = false;
    this.bringUp(this.settings.retryMs, pauseFirst).catch((thrown: unknown) => {
      const error = asHoldfastError(thrown);
      this.bringingUp = false;
      this.troubleSinceMs = null;
      this.attempts = 0;
      const forGood = !worthAnotherAttempt(error);
      if (forGood) this.failure = error;
      if (!this.closed) this.shared.outages.gaveUp(error, forGood);
      this.failAll(error);
    });
  }

  /** Searches until a node takes the session, or until `limitMs` after the trouble began. */
  private async bringUp(limitMs: number, pauseFirst: boolean): Promise<void> {
    const beganMs = (this.troubleSinceMs ??= performance.now());
    const leftMs = (): number => Math.max(0, beganMs + limitMs - performance.now());
    for (let pause = pauseFirst; ; pause = true) {
      if (this.closed) throw new HoldfastError('CLOSED', { operation: 'connect' });
      // What was answered needs nobody's memory: a session that was idle for long is as good as new.
      if (!this.inFlight.mutates) this.since = null;
      const { servers, volume } = this.shared;
      this.search = new Search(servers, volume, this.settings, this);
      try {
        const attached = await this.search.run(leftMs, pause);
        attached.link.adopt(this);
        return this.up(attached);
      } catch (thrown) {
        const error = asHoldfastError(thrown);
        if (error.code === 'OUTCOME_UNKNOWN' && this.since !== null) this.startNewSession(error);
        else if (this.closed || !worthAnotherAttempt(error) || leftMs() === 0) throw error;
      } finally {
        this.search = null;
      }
    }
  }

  nextGeneration(): number {
    return ++this.generation;
  }

  accept(info: VolumeInfo): void {
    this.shared.accept(info);
  }

  pauseMs(servers: number): number {
    const troubleMs = performance.now() - (this.troubleSinceMs ?? performance.now());
    return backoffMs(this.attempts++, Math.random(), mostDelayMs(servers, troubleMs));
  }

  retryNow(): void {
    this.search?.hurry();
  }

  private up({ link, limits, info }: Attached): void {
    this.epoch = info.epoch;
    this.since ??= info.position;
    this.inFlight.limits = {
      requests: Math.max(1, Math.min(limits.maxInFlightRequests, this.settings.maxInFlightRequests)),
      bytes: Math.min(limits.maxInFlightBytes, this.settings.maxInFlightBytes),
      window: limits.sessionWindow,
    };
    this.link = link;
    this.bringingUp = false;
    this.upSinceMs = performance.now();
    this.owedSinceMs = this.upSinceMs;
    this.pingSentMs = 0;
    this.askedMs = 0;
    const leastMs = Math.min(this.settings.idleTimeoutMs, this.settings.suspectMs);
    this.watchdog = setInterval(() => this.watch(link), Math.max(1, leastMs / 4));
    this.watchdog.unref();
    for (const call of this.inFlight.inOrder()) {
      if (call.givenUp) this.inFlight.remove(call);
      else {
        call.repeated = true;
        this.transmit(call, link);
      }
    }
    if (this.inFlight.size === 0) {
      this.troubleSinceMs = null;
      this.attempts = 0;
    }
    this.shared.outages.up(this, link.peer);
    this.pump();
    this.locate(link);
  }

  /** Where to go when this server is gone has to be known before it is. */
  private locate(link: Link): void {
    const { servers, volume } = this.shared;
    this.locatedMs = Infinity;
    // Whether the server is there is the watchdog's affair, so the question has no limit of its own.
    void locateOver(link, volume, MAX_TIMER_MS)
      .then(
        (location) => servers.learn(location),
        () => {},
      )
      .finally(() => (this.locatedMs = performance.now()));
  }

  /** Asks a silent server whether it is there, and gives the link up if it stays silent. */
  private watch(link: Link): void {
    const { idleTimeoutMs } = this.settings;
    const nowMs = performance.now();
    const silentMs = nowMs - Math.max(link.lastArrivalMs, this.owedSinceMs);
    if (this.inFlight.size > 0 && silentMs >= this.settings.suspectMs) this.suspect(link, nowMs);
    else if (silentMs < idleTimeoutMs && nowMs - this.locatedMs >= LOCATE_EVERY_MS) this.locate(link);
    if (this.inFlight.size === 0 || silentMs < idleTimeoutMs) {
      this.pingSentMs = 0;
    } else if (this.pingSentMs === 0) {
      this.pingSentMs = nowMs;
      // Any byte counts as a sign of life, so the PING itself has no limit.
      link.control(MESSAGES.PING.number, null, MAX_TIMER_MS).catch(() => {});
    } else if (nowMs - this.pingSentMs >= idleTimeoutMs) {
      const detail = `silent for ${Math.round(silentMs)} ms`;
      link.abandon(new HoldfastError('CONNECTION_LOST', { operation: 'connection', peer: link.peer, detail }));
    }
  }

  /** A primary that has stopped, or is cut off, says nothing; the others know whether there is a new one. */
  private suspect(link: Link, nowMs: number): void {
    const { servers, scout } = this.shared;
    if (nowMs - this.askedMs < this.settings.suspectMs) return;
    this.askedMs = Infinity;
    void scout.ask(link.peer).then(() => {
      if (this.link !== link) return;
      this.askedMs = performance.now();
      if (!servers.hasMoved(this.epoch, link.peer)) return;
      const detail = `silent, and ${servers.location!.primary} is primary since`;
      this.awaited = true;
      link.abandon(new HoldfastError('CONNECTION_LOST', { operation: 'connection', peer: link.peer, detail }));
    });
  }

  // --- ends -------------------------------------------------------------------------------------------------------

  /** The server no longer knows what this session did. Reads can be repeated in another one. */
  private startNewSession(cause: HoldfastError): void {
    for (const call of this.inFlight.inOrder()) {
      if (!call.message.mutation) continue;
      this.inFlight.remove(call);
      finish(call, outcomeUnknown(call, cause), null);
    }
    this.inFlight.startNewSession();
    this.session = randomSession();
    this.generation = 0;
    this.since = null;
  }

  private failAll(error: HoldfastError): void {
    for (const call of this.inFlight.inOrder()) {
      this.inFlight.remove(call);
      finish(call, call.message.mutation ? outcomeUnknown(call, error) : unreachable(call, error), null);
    }
    const queued = [...this.queue];
    this.queue.clear();
    for (const call of queued) finish(call, unreachable(call, error), null);
    this.idle();
  }
}

function finish(call: Call, error: HoldfastError | null, payload: Uint8Array | null): void {
  if (!call.givenUp) call.done(error, payload);
}

function outcomeUnknown(call: Call, cause: HoldfastError): HoldfastError {
  const { message, offsetBytes, lengthBytes } = call;
  const details = { operation: message.name, offsetBytes, lengthBytes, peer: cause.details.peer };
  return new HoldfastError('OUTCOME_UNKNOWN', { ...details, detail: cause.message, cause });
}

/** For calls without effect: what stood in the way, as far as a caller can use it. */
function unreachable(call: Call, cause: HoldfastError): HoldfastError {
  const { message, offsetBytes, lengthBytes } = call;
  const code = cause.code === 'CLOSED' || !worthAnotherAttempt(cause) ? cause.code : 'UNREACHABLE';
  const details = { operation: message.name, offsetBytes, lengthBytes, peer: cause.details.peer };
  return new HoldfastError(code, { ...details, detail: cause.details.detail ?? cause.message, cause });
}

function defined<T extends object>(value: T): Partial<T> {
  return Object.fromEntries(Object.entries(value).filter(([, v]) => v !== undefined)) as Partial<T>;
}

/** 64 random bits, not 0. */
function randomSession(): bigint {
  const words = crypto.getRandomValues(new BigUint64Array(1));
  return words[0] === 0n ? 1n : words[0]!;
}
