/**
 * One NBD client on a node: the session of `src/nbd` on a socket, its requests as calls on a volume.
 *
 * Guarantees: a write is answered when all of its parts are durable; up to 256 KiB it is one record, whatever its
 * alignment; requests and bytes in flight are bounded, beyond the bound the socket is not read; garbage, half
 * handshakes and readers that stop end this connection and no other.
 */
import type { Socket } from 'node:net';
import type { HoldfastError } from '../base/errors.ts';
import { BLOCK_BYTES, MAX_IO_BYTES, type Part, split, splitZero } from '../base/units.ts';
import { allocationStatus, encodeBlockStatus } from '../nbd/block-status.ts';
import { COMMANDS } from '../nbd/constants.ts';
import type { NbdExport } from '../nbd/exports.ts';
import { MAX_REPLY_HEADER_BYTES } from '../nbd/replies.ts';
import { NbdSession } from '../nbd/session.ts';
import { type NbdRequest, WAIT } from '../nbd/transmission.ts';
import type { Done, ServedVolume } from '../replication/served-volume.ts';
import type { Slot } from '../storage/arena.ts';
import type { ConnectionHost } from './connection-host.ts';
import { FlowControl } from './flow-control.ts';

/** What an NBD connection needs of its server. */
export type NbdHost = Pick<ConnectionHost, 'arena' | 'limits' | 'volumes' | 'log'> & {
  nbdClosed(connection: NbdConnection): void;
};

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
  private volume: ServedVolume | null = null;
  /** The WRITE that is being received, and the slot that its next part goes to. */
  private writing: Writing | null = null;
  private incoming: Slot | null = null;
  private ended = false;
  private leaving = false;
  private readonly openedAtMs = performance.now();

  constructor(socket: Socket, host: NbdHost) {
    this.host = host;
    this.peer = `${socket.remoteAddress ?? 'unix'}:${socket.remotePort ?? 0}`;
    const find = (name: string): ServedVolume | null => {
      const volumes = host.volumes();
      return volumes.find((v) => v.info().name === name) ?? (name === '' && volumes.length === 1 ? volumes[0]! : null);
    };
    this.session = new NbdSession(
      {
        send: (bytes) => this.send(bytes, 0),
        onStartTls: () => this.destroy(),
        onAgreed: (agreed) => (this.volume = find(agreed.export.name)),
        onPayload: (request, doneBytes) => this.payloadFor(request, doneBytes),
        onPayloadPart: (request, doneBytes, part) => this.writePart(request, doneBytes, part),
        onRequest: (request) => this.perform({ ...request }),
        onEnd: (soft, reason) => this.leave(soft, reason),
      },
      {
        list: () => host.volumes().map(exportOf),
        find: (name) => {
          const volume = find(name);
          return volume === null ? null : exportOf(volume);
        },
      },
      { tls: 'off' },
    );
    const limits = { ...host.limits, maxInFlightBytes: MAX_IN_FLIGHT_BYTES };
    this.flow = new FlowControl(
      socket,
      limits,
      (chunk) => this.session.push(chunk),
      () => this.maybeClose(),
    );
    this.flow.socket.on('close', () => this.end());
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

  /** The client said good-bye, or nonsense: what is under way is answered, then the connection is closed. */
  private leave(soft: boolean, reason: string): void {
    if (!soft) this.host.log('warn', 'closing an NBD connection', { peer: this.peer, reason });
    this.leaving = true;
    setImmediate(() => this.maybeClose());
  }

  private maybeClose(): void {
    if (this.leaving && this.flow.requests === 0 && this.flow.replies.unflushedBytes === 0) this.flow.socket.end();
  }

  destroy(): void {
    this.flow.socket.destroy();
  }

  get idle(): boolean {
    return this.flow.requests === 0;
  }

  private end(): void {
    if (this.ended) return;
    this.ended = true;
    this.flow.stop();
    this.session.close();
    if (this.incoming !== null) this.host.arena.release(this.incoming);
    this.incoming = null;
    this.host.nbdClosed(this);
  }

  // --- WRITE --------------------------------------------------------------------------------------------------------

  private payloadFor(request: NbdRequest, doneBytes: number): Uint8Array | typeof WAIT {
    const part = partAt(request, doneBytes);
    const at = part.offsetBytes % BLOCK_BYTES;
    const pages = Math.ceil((at + part.lengthBytes) / BLOCK_BYTES);
    const slot = this.host.arena.take(pages);
    if (slot === null) {
      this.flow.blocked = true;
      this.host.arena.whenFree(pages, () => {
        this.flow.blocked = false;
        this.flow.resume();
      });
      return WAIT;
    }
    this.incoming = slot;
    return slot.payload.subarray(at, at + part.lengthBytes);
  }

  private writePart(request: NbdRequest, doneBytes: number, bytes: Uint8Array): void {
    if (this.writing === null) {
      this.begin(request.lengthBytes);
      this.writing = { request: { ...request }, left: 1, error: null };
    }
    const { writing } = this;
    const slot = this.incoming!;
    this.incoming = null;
    const last = doneBytes + bytes.length === request.lengthBytes;
    if (last) this.writing = null;
    writing.left++;
    const done: Done = (error) => {
      writing.error ??= error;
      if (--writing.left === 0) this.finish(writing.request, writing.error);
    };
    this.volume!.write(null, 0, request.offsetBytes + doneBytes, bytes.length, slot, false, done);
    if (last && --writing.left === 0) this.finish(writing.request, writing.error);
    if (this.flow.overLimit) this.session.pause();
  }

  // --- the others -----------------------------------------------------------------------------------------------------

  private begin(bytes: number): void {
    this.flow.requests++;
    this.flow.bytes += bytes;
  }

  private perform(request: NbdRequest): void {
    const volume = this.volume!;
    const { command, offsetBytes, lengthBytes } = request;
    this.begin(command === COMMANDS.READ ? lengthBytes : 0);
    const each = (parts: Part[], call: (part: Part, done: Done) => void): void => {
      let left = parts.length;
      let failure: HoldfastError | null = null;
      for (const part of parts) {
        call(part, (error) => {
          failure ??= error;
          if (--left === 0) this.finish(request, failure);
        });
      }
    };
    if (command === COMMANDS.READ) this.read(request, volume);
    else if (command === COMMANDS.FLUSH) volume.flush((error) => this.finish(request, error));
    else if (command === COMMANDS.TRIM) {
      each(splitZero(offsetBytes, lengthBytes), (p, done) => volume.trim(null, 0, p.offsetBytes, p.lengthBytes, done));
    } else if (command === COMMANDS.WRITE_ZEROES) {
      each(splitZero(offsetBytes, lengthBytes), (p, done) => volume.zero(null, 0, p.offsetBytes, p.lengthBytes, done));
    } else if (command === COMMANDS.BLOCK_STATUS) setImmediate(() => this.blockStatus(request, volume));
    else queueMicrotask(() => this.finish(request, null));
    if (this.flow.overLimit) this.session.pause();
  }

  private blockStatus(request: NbdRequest, volume: ServedVolume): void {
    if (this.ended) return;
    let bytes: Uint8Array;
    try {
      const status = allocationStatus(volume.extents(request.offsetBytes, request.lengthBytes, EXTENTS_LIMIT));
      bytes = encodeBlockStatus(request, this.session.agreed!.contexts[0]!.id, status, true);
    } catch (error) {
      return this.finish(request, error as HoldfastError);
    }
    this.send(bytes, 1);
  }

  private read(request: NbdRequest, volume: ServedVolume): void {
    const { offsetBytes, lengthBytes } = request;
    const parts = split(offsetBytes, lengthBytes);
    const slots: Array<Slot | null> = parts.map(() => null);
    // Of a long read the parts are gathered outside of the arena: the reply is one run of bytes.
    const whole = parts.length === 1 ? null : Buffer.allocUnsafe(lengthBytes);
    let left = parts.length;
    let failure: HoldfastError | null = null;
    const over = (): void => {
      this.flow.bytes -= lengthBytes;
      if (failure === null && !this.ended) {
        const slot = slots[0]!;
        const at = offsetBytes % BLOCK_BYTES;
        this.sendRead(request, whole ?? slot.payload.subarray(at, at + lengthBytes));
      }
      if (whole === null && slots[0] !== null) this.host.arena.release(slots[0]!);
      if (failure !== null) this.answerError(request, failure);
    };
    const one = (index: number): void => {
      const part = parts[index]!;
      const at = part.offsetBytes % BLOCK_BYTES;
      const pages = Math.ceil((at + part.lengthBytes) / BLOCK_BYTES);
      const slot = this.host.arena.take(pages);
      if (slot === null) return this.host.arena.whenFree(pages, () => one(index));
      volume.read(part.offsetBytes, part.lengthBytes, slot, (error) => {
        failure ??= error;
        if (whole === null) slots[0] = slot;
        else {
          whole.set(slot.payload.subarray(at, at + part.lengthBytes), part.offsetBytes - offsetBytes);
          this.host.arena.release(slot);
        }
        if (--left === 0) over();
      });
    };
    for (let index = 0; index < parts.length; index++) one(index);
  }

  private sendRead(request: NbdRequest, bytes: Uint8Array): void {
    const { offsetBytes, lengthBytes } = request;
    const head = new Uint8Array(MAX_REPLY_HEADER_BYTES);
    const headBytes = this.session.replies.read(head, 0, request, offsetBytes, lengthBytes);
    this.send(head.subarray(0, headBytes), 0);
    for (let at = 0; at < lengthBytes; at += MAX_IO_BYTES) {
      const piece = bytes.subarray(at, Math.min(at + MAX_IO_BYTES, lengthBytes));
      this.send(piece, at + piece.length === lengthBytes ? 1 : 0);
    }
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

function exportOf(volume: ServedVolume): NbdExport {
  const { name, sizeBytes, readOnly } = volume.info();
  return { name, sizeBytes, readOnly, description: `Holdfast volume ${name}` };
}
