/**
 * Reads from one replica, whatever its role: a link of its own, attached for reading only.
 *
 * Guarantees: nothing is repeated and nothing waits: a read is sent at once, or refused by `admits`; each is answered once,
 * with bytes or an error; a replica that owes a read for longer than `suspectMs` is given up with all that it owes. Once
 * a read is answered no byte of its destination changes any more because of it.
 */
import { asHoldfastError, HoldfastError } from '../base/errors.ts';
import type { FrameHeader } from '../protocol/frame.ts';
import { decodeVolumeInfo, encodeAttach, encodeInfo, type VolumeInfo } from '../protocol/handshake.ts';
import { MESSAGES } from '../protocol/messages.ts';
import { decodeError } from '../protocol/replies.ts';
import { type Address, formatAddress } from './address.ts';
import type { Call } from './call.ts';
import { InFlight } from './in-flight.ts';
import { Link, type LinkOwner } from './link.ts';
import type { Settings } from './options.ts';

export class ReadLink implements LinkOwner {
  readonly node: string;
  readonly address: string;
  private readonly link: Link;
  private readonly epoch: number;
  private readonly settings: Settings;
  private readonly inFlight = new InFlight();
  /** When each was sent, oldest first. */
  private readonly sentMs: Map<Call, number> = new Map();
  private readonly watchdog: NodeJS.Timeout;
  /** Told when nothing can be read here any more. */
  private readonly onLost: () => void;
  private ended = false;

  private constructor(
    parts: { node: string; address: string; link: Link; info: VolumeInfo },
    settings: Settings,
    onLost: () => void,
  ) {
    this.node = parts.node;
    this.address = parts.address;
    this.link = parts.link;
    this.epoch = parts.info.epoch;
    this.settings = settings;
    this.onLost = onLost;
    this.watchdog = setInterval(() => this.watch(), Math.max(1, settings.suspectMs / 4));
    this.watchdog.unref();
  }

  /** @throws HoldfastError UNREACHABLE, CONNECTION_LOST, NOT_PRIMARY or as it answers */
  static async open(
    node: string,
    server: Address,
    volume: string,
    settings: Settings,
    accept: (info: VolumeInfo) => void,
    onLost: () => void,
    signal: AbortSignal,
  ): Promise<ReadLink> {
    const timeoutMs = Math.min(settings.handshakeTimeoutMs, Math.max(250, settings.suspectMs));
    const hello = { session: 0n, generation: 0, client: settings.clientName };
    const { link, hello: reply } = await Link.open(server, hello, timeoutMs, signal, settings.credentials);
    const stop = (): void => link.destroy();
    signal.addEventListener('abort', stop);
    try {
      const attach = encodeAttach({ volume, since: null, access: 'any' });
      const info = decodeVolumeInfo(await link.control(MESSAGES.ATTACH.number, attach, timeoutMs));
      accept(info);
      const one = new ReadLink({ node, address: formatAddress(server), link, info }, settings, onLost);
      const { maxInFlightRequests, maxInFlightBytes, sessionWindow: window } = reply.limits;
      one.inFlight.limits = {
        requests: Math.max(1, Math.min(maxInFlightRequests, settings.maxInFlightRequests)),
        bytes: Math.min(maxInFlightBytes, settings.maxInFlightBytes),
        window,
      };
      try {
        link.adopt(one);
      } catch (error) {
        one.close();
        throw error;
      }
      return one;
    } catch (error) {
      link.destroy();
      throw error;
    } finally {
      signal.removeEventListener('abort', stop);
    }
  }

  get load(): number {
    return this.inFlight.size;
  }

  admits(call: Call): boolean {
    return !this.ended && this.inFlight.admits(call);
  }

  /** `call.done` is called once, not before this returns. A retryable error: it may be read elsewhere. */
  submit(call: Call): void {
    if (this.ended) return queueMicrotask(() => call.done(this.lostError('closed'), null));
    this.inFlight.add(call);
    this.sentMs.set(call, performance.now());
    this.link.send(call.encode(this.epoch, 0));
    if (call.tail !== null) this.link.send(call.tail);
  }

  /** Where the replica's volume stands. @throws HoldfastError as it answers, CONNECTION_LOST */
  async info(timeoutMs: number): Promise<VolumeInfo> {
    return decodeVolumeInfo(await this.link.control(MESSAGES.INFO.number, encodeInfo(''), timeoutMs));
  }

  destination(header: FrameHeader): Uint8Array | null {
    const call = this.inFlight.get(header.requestId);
    if (call === undefined || call.givenUp || call.destination === null || header.status !== 0) return null;
    return call.destination.length === header.payloadBytes ? call.destination : null;
  }

  reply(header: FrameHeader, payload: Uint8Array | null): void {
    const call = this.inFlight.get(header.requestId);
    if (call === undefined) return;
    const where = { operation: call.message.name, peer: this.address };
    const { offsetBytes, lengthBytes } = call;
    const wanted = header.status === 0 ? call.destination : null;
    const fits = header.type === call.message.number && (wanted === null || header.payloadBytes === wanted.length);
    if (!fits) throw new HoldfastError('BAD_FRAME', { ...where, detail: 'a reply that does not fit its request' });
    if (header.status === 0) return this.settle(call, null, payload);
    const { code, details } = decodeError(header.status, payload, where);
    const error = new HoldfastError(code, { offsetBytes, lengthBytes, ...details });
    this.settle(call, error, null);
    // It is not in sync any more, or of another epoch: what comes next would be refused too.
    if (error.retryable && code !== 'BUSY') this.link.abandon(error);
  }

  private settle(call: Call, error: HoldfastError | null, payload: Uint8Array | null): void {
    this.inFlight.remove(call);
    this.sentMs.delete(call);
    if (!call.givenUp) call.done(error, payload);
  }

  private watch(): void {
    const oldest = this.sentMs.values().next();
    if (oldest.done || performance.now() - oldest.value < this.settings.suspectMs) return;
    this.link.abandon(this.lostError(`it owes a read for more than ${this.settings.suspectMs} ms`));
  }

  private lostError(detail: string): HoldfastError {
    return new HoldfastError('CONNECTION_LOST', { operation: 'read', peer: this.address, detail });
  }

  lost(error: HoldfastError): void {
    if (this.ended) return;
    this.ended = true;
    clearInterval(this.watchdog);
    for (const call of this.inFlight.inOrder()) this.settle(call, asHoldfastError(error), null);
    this.onLost();
  }

  /** What it owes is answered with an error. */
  close(): void {
    this.link.destroy();
    this.lost(this.lostError('closed'));
  }
}
