/**
 * One NBD client on a node: the session of `src/nbd` on a socket, its requests as calls on a volume.
 *
 * Guarantees: a write is answered when all of its parts are durable; up to 256 KiB it is one record, whatever its
 * alignment; requests and bytes in flight are bounded, beyond the bound the socket is not read; garbage, half
 * handshakes and readers that stop end this connection and no other. What a client says before TLS is up counts for
 * nothing after it.
 */
import type { Socket } from 'node:net';
import { asHoldfastError, type HoldfastError } from '../base/errors.ts';
import { MAX_IO_BYTES, type Part } from '../base/units.ts';
import { type Status, allocationStatus, dirtyStatus, encodeBlockStatus } from '../nbd/block-status.ts';
import { COMMANDS } from '../nbd/constants.ts';
import { MAX_REPLY_HEADER_BYTES } from '../nbd/replies.ts';
import { NbdSession } from '../nbd/session.ts';
import type { NbdRequest } from '../nbd/transmission.ts';
import type { Done } from '../replication/served-volume.ts';
import type { ConnectionLimits } from './connection-host.ts';
import { FlowControl } from './flow-control.ts';
import type { NbdDevice, Room } from './nbd-device.ts';
import type { NbdTls } from './nbd-tls.ts';

/** What an NBD connection needs of its server. */
export interface NbdHost {
  readonly limits: ConnectionLimits;
  /** Null: TLS is refused. */
  readonly tls: NbdTls | null;
  devices(): readonly NbdDevice[];
  log(level: 'info' | 'warn', message: string, fields: object): void;
  nbdClosed(connection: NbdConnection): void;
}

/** A request of 32 MiB must fit when it is alone. */
const MAX_IN_FLIGHT_BYTES = 32 * 1024 * 1024;
const EXTENTS_LIMIT = 8192;

/** A WRITE whose parts are on their way. */
interface Writing {
  request: NbdRequest;
  left: number;
  error: HoldfastError | null;
}

export class NbdConnection {
  readonly peer: string;
  private readonly flow: FlowControl;
  private readonly host: NbdHost;
  private readonly session: NbdSession;
  private device: NbdDevice | null = null;
  /** The WRITE that is being received, and where its next part goes. */
  private writing: Writing | null = null;
  private incoming: Room | null = null;
  private ended = false;
  private leaving = false;
  private readonly openedAtMs = performance.now();

  constructor(socket: Socket, host: NbdHost) {
    this.host = host;
    this.peer = `${socket.remoteAddress ?? 'unix'}:${socket.remotePort ?? 0}`;
    const find = (name: string): NbdDevice | null => {
      const devices = host.devices();
      return devices.find((d) => d.export.name === name) ?? (name === '' && devices.length === 1 ? devices[0]! : null);
    };
    this.session = new NbdSession(
      {
        send: (bytes) => this.send(bytes, 0),
        onStartTls: () => this.flow.detach((plain) => this.startTls(plain)),
        onAgreed: (agreed) => (this.device = find(agreed.export.name)),
        onPayload: (request, doneBytes) => this.payloadFor(request, doneBytes),
        onPayloadPart: (request, doneBytes, part) => this.writePart(request, doneBytes, part),
        onRequest: (request) => this.perform({ ...request }),
        onEnd: (soft, reason) => this.leave(soft, reason),
      },
      {
        list: () => host.devices().map((device) => device.export),
        find: (name) => find(name)?.export ?? null,
      },
      { tls: host.tls?.policy ?? 'off' },
    );
    const limits = { ...host.limits, maxInFlightBytes: MAX_IN_FLIGHT_BYTES };
    this.flow = new FlowControl(
      socket,
      limits,
      (chunk) => this.session.push(chunk),
      () => this.maybeClose(),
      host.tls !== null,
    );
    this.flow.socket.on('close', () => {
      // TLS tells why it failed after it closed the socket.
      if (this.session.state === 'starting-tls') setImmediate(() => this.end());
      else this.end();
    });
    this.session.start();
  }

  /** Called about once a second: ends a connection that does not get on. */
  checkDeadlines(nowMs: number): void {
    const { handshakeMs, stallMs } = this.host.limits;
    const late = this.session.agreed === null && nowMs - this.openedAtMs > handshakeMs;
    const owing = (this.session.unfinished && !this.flow.paused) || this.flow.socket.writableLength > 0;
    if (!late && !(this.session.agreed !== null && owing && nowMs - this.flow.lastProgressMs > stallMs)) return;
    this.host.log('warn', 'closing an NBD connection', {
      peer: this.peer,
      reason: late ? 'slow handshake' : 'stalled',
    });
    this.destroy();
  }

  /** The consent is with the kernel: what the client sends from now on is TLS. */
  private startTls(plain: Socket): void {
    // It said more than it may: the session is over, and the rest is of no interest.
    if (this.session.state !== 'starting-tls') return void plain.resume();
    this.host.tls!.accept(plain, (failure, secure) => {
      if (this.ended) return void secure?.destroy();
      if (secure === null) {
        this.host.log('warn', 'closing an NBD connection', {
          peer: this.peer,
          reason: `the TLS handshake failed: ${failure}`,
        });
        return this.end();
      }
      secure.on('close', () => this.end());
      this.session.tlsUp();
      this.flow.attach(secure);
    });
  }

  /** The client said good-bye, or nonsense: what is under way is answered, then the connection is closed. */
  private leave(soft: boolean, reason: string): void {
    if (!soft) this.host.log('warn', 'closing an NBD connection', { peer: this.peer, reason });
    this.leaving = true;
    setImmediate(() => this.maybeClose());
  }

  private maybeClose(): void {
    if (this.leaving && this.flow.requests === 0 && this.flow.replies.unflushedBytes === 0) {
      // Not `end`: a client that keeps its side open would keep a connection of ours.
      this.flow.socket.destroySoon();
    }
  }

  destroy(): void {
    this.flow.socket.destroy();
    this.end();
  }

  uses(device: NbdDevice): boolean {
    return this.device === device;
  }

  get idle(): boolean {
    return this.flow.requests === 0;
  }

  /** For good: what was received is answered still. */
  stopReading(): void {
    this.flow.stop();
    this.flow.socket.pause();
  }

  /** Nothing is owed; a WRITE that did not arrive whole does not count. */
  get answered(): boolean {
    return this.flow.requests === (this.writing === null ? 0 : 1) && this.flow.replies.unflushedBytes === 0;
  }

  private end(): void {
    if (this.ended) return;
    this.ended = true;
    this.flow.stop();
    this.session.close();
    if (this.incoming !== null) this.device!.drop(this.incoming);
    this.incoming = null;
    this.host.nbdClosed(this);
  }

  // --- WRITE --------------------------------------------------------------------------------------------------------

  private payloadFor(request: NbdRequest, doneBytes: number): Uint8Array {
    const part = partAt(request, doneBytes);
    this.incoming = this.device!.room(part.offsetBytes, part.lengthBytes);
    return this.incoming.bytes;
  }

  private writePart(request: NbdRequest, doneBytes: number, bytes: Uint8Array): void {
    if (this.writing === null) {
      this.begin(request.lengthBytes);
      this.writing = { request: { ...request }, left: 1, error: null };
    }
    const { writing } = this;
    const room = this.incoming!;
    this.incoming = null;
    const last = doneBytes + bytes.length === request.lengthBytes;
    if (last) this.writing = null;
    writing.left++;
    const done: Done = (error) => {
      writing.error ??= error;
      if (--writing.left === 0) this.finish(writing.request, writing.error);
    };
    this.device!.write(room, request.offsetBytes + doneBytes, done);
    if (last && --writing.left === 0) this.finish(writing.request, writing.error);
    if (this.flow.overLimit) this.session.pause();
  }

  // --- the others -----------------------------------------------------------------------------------------------------

  private begin(bytes: number): void {
    this.flow.requests++;
    this.flow.bytes += bytes;
  }

  private perform(request: NbdRequest): void {
    const device = this.device!;
    const { command, offsetBytes, lengthBytes } = request;
    this.begin(command === COMMANDS.READ ? lengthBytes : 0);
    const done: Done = (error) => this.finish(request, error);
    if (command === COMMANDS.READ) this.read(request, device);
    else if (command === COMMANDS.FLUSH) device.flush(done);
    else if (command === COMMANDS.TRIM) device.trim(offsetBytes, lengthBytes, done);
    else if (command === COMMANDS.WRITE_ZEROES) device.zero(offsetBytes, lengthBytes, done);
    else if (command === COMMANDS.BLOCK_STATUS) setImmediate(() => void this.blockStatus(request, device));
    else queueMicrotask(() => done(null));
    if (this.flow.overLimit) this.session.pause();
  }

  /** One chunk per selected context, in the order of their numbers. */
  private async blockStatus(request: NbdRequest, device: NbdDevice): Promise<void> {
    if (this.ended) return;
    const { contexts } = this.session.agreed!;
    const { offsetBytes, lengthBytes } = request;
    try {
      const statuses: Status[] = [];
      for (const { mark } of contexts) {
        statuses.push(
          mark === null
            ? allocationStatus(await device.allocation(offsetBytes, lengthBytes, EXTENTS_LIMIT))
            : dirtyStatus(await device.changes(mark, offsetBytes, lengthBytes, EXTENTS_LIMIT)),
        );
      }
      const last = contexts.length - 1;
      statuses.forEach((status, i) =>
        this.send(encodeBlockStatus(request, contexts[i]!.id, status, i === last), i === last ? 1 : 0),
      );
    } catch (error) {
      this.finish(request, asHoldfastError(error));
    }
  }

  private read(request: NbdRequest, device: NbdDevice): void {
    const { offsetBytes, lengthBytes } = request;
    device.read(offsetBytes, lengthBytes, (error, pieces, release) => {
      this.flow.bytes -= lengthBytes;
      if (error !== null || this.ended) {
        release();
        if (error !== null) this.answerError(request, error);
        return;
      }
      const head = new Uint8Array(MAX_REPLY_HEADER_BYTES);
      const headBytes = this.session.replies.read(head, 0, request, offsetBytes, lengthBytes);
      this.send(head.subarray(0, headBytes), 0);
      this.flow.replies.pieces(pieces, 1, release);
    });
  }

  private finish(request: NbdRequest, error: HoldfastError | null): void {
    if (request.command === COMMANDS.WRITE) this.flow.bytes -= request.lengthBytes;
    if (error !== null) return this.answerError(request, error);
    const bytes = new Uint8Array(MAX_REPLY_HEADER_BYTES);
    this.send(bytes.subarray(0, this.session.replies.done(bytes, 0, request)), 1);
  }

  private answerError(request: NbdRequest, error: HoldfastError): void {
    this.send(this.session.replies.failed(request, error), 1);
  }

  private send(bytes: Uint8Array, requests: number): void {
    if (this.ended) return;
    this.flow.replies.frame(bytes.length, requests, (into, at) => into.set(bytes, at));
  }
}

/** The part of a WRITE that begins `doneBytes` into it: all of it up to 256 KiB, else up to the next multiple. */
function partAt({ offsetBytes, lengthBytes }: NbdRequest, doneBytes: number): Part {
  if (lengthBytes <= MAX_IO_BYTES) return { offsetBytes, lengthBytes };
  const at = offsetBytes + doneBytes;
  const windowEnd = (Math.floor(at / MAX_IO_BYTES) + 1) * MAX_IO_BYTES;
  return { offsetBytes: at, lengthBytes: Math.min(windowEnd - at, lengthBytes - doneBytes) };
}
