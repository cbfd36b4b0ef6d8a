/**
 * The search for the node that takes a session: all servers that may be it, in turn and, where one does not answer,
 * beside each other.
 *
 * Guarantees: at most one try per server is under way, and each has a generation above those of the tries before it; a
 * try sends ATTACH only while no younger one has; the first that is attached is the result, and all others are closed
 * before it is handed out; between two rounds over the servers there is a pause, so that nodes that send each other's
 * clients back and forth are not asked without end.
 */
import { asHoldfastError, HoldfastError } from '../base/errors.ts';
import type { Position } from '../base/position.ts';
import { MAX_IO_BYTES } from '../base/units.ts';
import {
  type ConnectionLimits,
  decodeVolumeInfo,
  encodeAttach,
  type HelloReply,
  type VolumeInfo,
} from '../protocol/handshake.ts';
import { MESSAGES } from '../protocol/messages.ts';
import { type Address, formatAddress } from './address.ts';
import { Link } from './link.ts';
import type { Settings } from './options.ts';
import { worthAnotherAttempt } from './retry.ts';
import { locateOver } from './scout.ts';
import type { Servers } from './servers.ts';

/** A try beside one that does not answer begins after so long. */
export const STAGGER_MS = 300;
/** Even the last attempt before a time limit gets so long. */
const LEAST_ATTEMPT_MS = 50;

export interface Attached {
  link: Link;
  limits: ConnectionLimits;
  info: VolumeInfo;
}

/** Whose session it is. */
export interface Seeker {
  readonly session: bigint;
  readonly since: Position | null;
  nextGeneration(): number;
  /** Says whether that is the volume; throws if not. */
  accept(info: VolumeInfo): void;
  /** Before the next round. */
  pauseMs(servers: number): number;
}

export class Search {
  private readonly servers: Servers;
  private readonly volume: string;
  private readonly settings: Settings;
  private readonly seeker: Seeker;
  private readonly underWay: Map<string, AbortController> = new Map();
  /** What each server's last try came to. */
  private readonly failures: Map<string, HoldfastError> = new Map();
  private lastFailure: HoldfastError | null = null;
  private newestGeneration = 0;
  /** Of the youngest try that has sent ATTACH. */
  private attachedGeneration = 0;
  private attached: Attached | null = null;
  private ended: HoldfastError | null = null;
  private hurried = false;
  private changed: () => void = () => {};

  constructor(servers: Servers, volume: string, settings: Settings, seeker: Seeker) {
    this.servers = servers;
    this.volume = volume;
    this.settings = settings;
    this.seeker = seeker;
  }

  /** A pause that it is in ends now. */
  hurry(): void {
    this.hurried = true;
    this.changed();
  }

  /** `run` throws that. */
  end(error: HoldfastError): void {
    this.ended ??= error;
    this.changed();
  }

  /** @throws HoldfastError what stood in the way last; at once if it stands there for good, else when no time is left */
  async run(leftMs: () => number, pauseFirst: boolean): Promise<Attached> {
    try {
      for (let pause = pauseFirst; ; pause = true) {
        if (pause) await this.pause(Math.min(leftMs(), this.seeker.pauseMs(this.servers.inOrder().length)));
        if (!this.over) await this.round(leftMs);
        if (this.attached !== null) return this.attached;
        if (this.ended !== null) throw this.ended;
        // What is still under way has a time limit of its own.
        if (leftMs() === 0) return await this.last();
        if (this.underWay.size > 0) continue;
        const failures = this.servers.inOrder().map((server) => this.failures.get(formatAddress(server)));
        if (failures.every((error) => error !== undefined && !worthAnotherAttempt(error))) throw failures[0]!;
      }
    } finally {
      this.ended ??= new HoldfastError('CLOSED', { operation: 'connect' });
      for (const abort of this.underWay.values()) abort.abort();
    }
  }

  /** Nothing more is begun. */
  private async last(): Promise<Attached> {
    await this.until(() => this.over || this.underWay.size === 0);
    if (this.attached !== null) return this.attached;
    throw this.ended ?? this.lastFailure!;
  }

  private get over(): boolean {
    return this.attached !== null || this.ended !== null;
  }

  private async pause(delayMs: number): Promise<void> {
    this.hurried = false;
    await this.until(() => this.over || this.hurried, delayMs);
  }

  /** Tries each server that is not being tried yet; those that are named meanwhile too. */
  private async round(leftMs: () => number): Promise<void> {
    const tried: Set<string> = new Set(this.underWay.keys());
    for (;;) {
      const server = this.servers.inOrder().find((one) => !tried.has(formatAddress(one)));
      if (server === undefined) break;
      const name = formatAddress(server);
      tried.add(name);
      this.begin(server, Math.max(LEAST_ATTEMPT_MS, Math.min(leftMs(), this.settings.handshakeTimeoutMs)));
      await this.until(() => this.over || !this.underWay.has(name), STAGGER_MS);
      if (this.over) return;
    }
    const { size } = this.underWay;
    // Nothing can be begun again: wait for one to end.
    if (size > 0 && (size >= tried.size || leftMs() === 0))
      await this.until(() => this.over || this.underWay.size < size);
  }

  private begin(server: Address, timeoutMs: number): void {
    const name = formatAddress(server);
    const abort = new AbortController();
    const generation = this.seeker.nextGeneration();
    this.newestGeneration = generation;
    this.underWay.set(name, abort);
    void this.attempt(server, generation, timeoutMs, abort.signal)
      .then(
        (attached) => {
          if (this.over) attached.link.destroy();
          else this.attached = attached;
        },
        (thrown: unknown) => this.failed(name, generation, asHoldfastError(thrown)),
      )
      .finally(() => {
        this.underWay.delete(name);
        this.changed();
      });
  }

  private failed(name: string, generation: number, error: HoldfastError): void {
    // Of a try that a younger one has overtaken it says nothing about the session.
    const overtaken = error.code === 'STALE_GENERATION' && generation < this.newestGeneration;
    const failure = overtaken ? new HoldfastError('CONNECTION_LOST', { ...error.details, cause: error }) : error;
    this.failures.set(name, failure);
    this.lastFailure = failure;
    // The session is not known any more: its owner has to decide.
    if (failure.code === 'OUTCOME_UNKNOWN' && this.seeker.since !== null) this.ended ??= failure;
  }

  private async attempt(
    server: Address,
    generation: number,
    timeoutMs: number,
    signal: AbortSignal,
  ): Promise<Attached> {
    const { session, since } = this.seeker;
    const hello = { session, generation, client: this.settings.clientName };
    const opened = await Link.open(server, hello, timeoutMs, signal, this.settings.credentials);
    const { link } = opened;
    const stop = (): void => link.destroy();
    signal.addEventListener('abort', stop);
    try {
      checkLimits(opened.hello, link.peer);
      if (signal.aborted || generation < this.attachedGeneration) {
        throw new HoldfastError('CONNECTION_LOST', { operation: 'ATTACH', peer: link.peer, detail: 'overtaken' });
      }
      this.attachedGeneration = generation;
      const attach = encodeAttach({ volume: this.volume, since });
      const info = decodeVolumeInfo(await link.control(MESSAGES.ATTACH.number, attach, timeoutMs));
      this.seeker.accept(info);
      return { link, limits: opened.hello.limits, info };
    } catch (thrown) {
      const error = asHoldfastError(thrown);
      if (error.code === 'NOT_PRIMARY' && !this.over) await this.askThere(link, timeoutMs);
      link.destroy();
      throw error;
    } finally {
      signal.removeEventListener('abort', stop);
    }
  }

  /** Who is not primary may know who is. */
  private async askThere(link: Link, timeoutMs: number): Promise<void> {
    const location = await locateOver(link, this.volume, timeoutMs).catch(() => null);
    if (location !== null) this.servers.learn(location);
  }

  /** Until that is so, or until so many milliseconds are over. */
  private async until(condition: () => boolean, limitMs = Infinity): Promise<void> {
    const endMs = performance.now() + limitMs;
    while (!condition()) {
      const leftMs = endMs - performance.now();
      if (leftMs <= 0) return;
      let timer: NodeJS.Timeout | undefined;
      await new Promise<void>((resolve) => {
        this.changed = resolve;
        if (leftMs !== Infinity) timer = setTimeout(resolve, leftMs);
      });
      clearTimeout(timer);
    }
  }
}

function checkLimits({ limits }: HelloReply, peer: string): void {
  if (limits.maxPayloadBytes >= MAX_IO_BYTES) return;
  throw new HoldfastError('UNSUPPORTED', {
    operation: 'HELLO',
    peer,
    detail: `the server takes payloads of ${limits.maxPayloadBytes} bytes only, this client needs ${MAX_IO_BYTES}`,
  });
}
