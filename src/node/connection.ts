/**
 * One client connection: frames in, calls on a volume, replies out.
 *
 * Guarantees: a malformed frame, a flood, a half frame or a reader that stops ends or slows this connection and no
 * other; requests and bytes in flight are bounded, beyond the bound the socket is not read; every request is answered
 * once, in any order, unless the connection ends first.
 */
import { copyBytes } from '../base/copy.ts';
import type { Socket } from 'node:net';
import { crc32, crcBlocks } from '../base/checksum.ts';
import { HoldfastError, asHoldfastError } from '../base/errors.ts';
import { BLOCK_BYTES, MAX_IO_BYTES } from '../base/units.ts';
import { FrameDecoder, type FrameHeader, HEADER_BYTES, encodeHeader } from '../protocol/frame.ts';
import { decodeAttach, decodeExtentsRequest, decodeInfo, encodeExtents } from '../protocol/handshake.ts';
import { decodeChangesRequest, decodeMark, encodeChanges, encodeMarks } from '../protocol/marks.ts';
import { MESSAGE_BY_NUMBER, MESSAGES, REPLY_BIT } from '../protocol/messages.ts';
import { encodeError } from '../protocol/replies.ts';
import type { RequestId } from '../kv/operations.ts';
import type { Attachment, ServedVolume } from '../replication/served-volume.ts';
import type { Slot } from '../storage/arena.ts';
import { checkMarkName } from '../storage/marks.ts';
import { administer } from './administer.ts';
import type { ConnectionHost } from './connection-host.ts';
import { Door, type Session, secondHello } from './door.ts';
import { deadlineOf, expiryOf } from './deadlines.ts';
import { FlowControl } from './flow-control.ts';
import { HandOver } from './hand-over.ts';
import { kvOf } from './kv-served.ts';
import { perform } from './kv-requests.ts';
import { infoOf, listOf, locationOf } from './questions.ts';

const KEEP_FREE_SHARE = 0.25;
const EXTENTS_PER_TURN = 8;

export class Connection {
  readonly peer: string;
  readonly openedAtMs: number;
  requests = 0;
  private readonly flow: FlowControl;
  /** As whoever is let in sees it. */
  private host: ConnectionHost;
  private readonly door: Door;
  private readonly decoder: FrameDecoder;
  /** Null until it is let in. */
  private hello: Session | null = null;
  private volume: ServedVolume | null = null;
  /** The one that it is attached to, or is being attached to. */
  private wanted: ServedVolume | null = null;
  private attachment: Attachment | null = null;
  private attaching = false;
  /** Attached for reading wherever the volume is; its mutations are refused here. */
  private readsOnly = false;
  private epoch = 0;
  /** Of a key-value volume: the version when the session began. */
  private since = 0;
  /** When it attached nothing of its session was unanswered: nothing is repeated over this connection. */
  private began = false;
  /** The slot that an unfinished WRITE is received into. */
  private incoming: Slot | null = null;
  private ended = false;
  private readonly handOver = new HandOver();

  constructor(socket: Socket, host: ConnectionHost) {
    this.host = host;
    this.door = new Door(host, this, {
      answer: (id, type, payload) => this.answer(id, type, payload),
      fail: (id, type, error) => this.fail(id, type, error),
      goodbye: (error) => this.goodbye(error),
      enter: (hello, granted) => {
        this.hello = hello;
        this.host = granted;
      },
    });
    this.peer = `${socket.remoteAddress ?? '?'}:${socket.remotePort ?? 0}`;
    this.openedAtMs = performance.now();
    this.decoder = new FrameDecoder(
      {
        onHeader: (header) => this.payloadFor(header),
        onFrame: (header, payload) => this.frame(header, payload),
        onMalformed: (error) => this.goodbye(error),
      },
      'server',
    );
    this.flow = new FlowControl(
      socket,
      host.limits,
      (chunk) => this.decoder.push(chunk),
      () => {},
    );
    this.flow.socket.on('close', () => this.end());
  }

  /** Called about once a second: ends a connection that does not get on. */
  checkDeadlines(nowMs: number): void {
    const { handshakeMs, stallMs } = this.host.limits;
    if (this.hello === null && nowMs - this.openedAtMs > handshakeMs) {
      return this.goodbye(
        new HoldfastError('DEADLINE', { operation: 'handshake', detail: `no HELLO and AUTH within ${handshakeMs} ms` }),
      );
    }
    const stuck = this.decoder.midFrame && !this.flow.paused;
    if ((stuck || this.flow.socket.writableLength > 0) && nowMs - this.flow.lastProgressMs > stallMs) {
      const what = stuck ? 'a frame was begun and not finished' : 'replies were not read';
      this.goodbye(new HoldfastError('DEADLINE', { operation: 'serve', detail: `${what} within ${stallMs} ms` }));
    }
  }

  /** Tells the client why, then closes. */
  goodbye(error: HoldfastError): void {
    if (this.ended) return;
    this.host.log('warn', 'closing a connection', {
      peer: this.peer,
      client: this.hello?.client,
      reason: error.message,
    });
    this.decoder.close();
    const payload = encodeError(error);
    this.reply(0, MESSAGES.GOODBYE.number, error.status, payload, 0);
    this.end();
    // After the microtask that flushes the replies.
    setImmediate(() => {
      this.flow.socket.end();
      setTimeout(() => this.flow.socket.destroy(), 1000).unref();
    });
  }

  /** At once: not even what waits to be sent leaves any more. */
  destroy(): void {
    this.end();
    this.flow.socket.destroy();
  }

  /** Whether it is attached to that volume, or about to be. */
  uses(volume: ServedVolume): boolean {
    return this.wanted === volume;
  }

  /** The one that is read and written. */
  get socket(): Socket {
    return this.flow.socket;
  }

  get idle(): boolean {
    return this.flow.requests === 0;
  }

  private end(): void {
    if (this.ended) return;
    this.ended = true;
    this.flow.stop();
    this.decoder.close();
    if (this.attachment !== null) this.volume!.detach(this.attachment);
    if (this.incoming !== null) this.host.arena.release(this.incoming);
    this.incoming = null;
    this.host.closed(this);
  }

  // --- requests -----------------------------------------------------------------------------------------------------

  private payloadFor(h: FrameHeader): Uint8Array | null {
    if (h.type !== MESSAGES.WRITE.number || this.volume === null)
      return this.hello === null ? this.door.header(h) : null;
    const at = h.offset % BLOCK_BYTES;
    const pages = Math.ceil((at + h.count) / BLOCK_BYTES);
    // While slots are scarce a half-sent frame gets none: it waits in memory of its own, and holds nobody up.
    const slot = this.host.arena.freeShare(pages) > KEEP_FREE_SHARE ? this.host.arena.take(pages) : null;
    if (slot === null) return null;
    this.incoming = slot;
    // Whole blocks are verified block by block: the same pass gives the checksums that go to disk.
    h.verify = at !== 0 || h.count % BLOCK_BYTES !== 0;
    return slot.payload.subarray(at, at + h.count);
  }

  private frame(h: FrameHeader, payload: Uint8Array | null): void {
    this.requests++;
    this.flow.requests++;
    const { requestId } = h;
    try {
      this.serve(h, requestId, payload);
    } finally {
      // A chunk may hold thousands of requests: the limits count after each.
      if (this.flow.overLimit) this.decoder.pause();
    }
  }

  private serve(h: FrameHeader, requestId: number, payload: Uint8Array | null): void {
    try {
      if (this.hello === null) return this.door.frame(h, payload, this.flow.socket);
      // Numbers from here on are operations on the volume: most of all frames.
      if (h.type >= MESSAGES.READ.number) return this.operate(h, payload);
      switch (h.type) {
        case MESSAGES.HELLO.number:
        case MESSAGES.AUTH.number:
          throw secondHello();
        case MESSAGES.PING.number:
          return this.answer(requestId, h.type, null);
        case MESSAGES.LIST.number:
          return this.answer(requestId, h.type, listOf(this.host, h.offset));
        case MESSAGES.LOCATE.number:
          return this.answer(requestId, h.type, locationOf(this.host, payload, this.flow.socket));
        case MESSAGES.INFO.number:
          return this.answerInfo(requestId, payload);
        case MESSAGES.ATTACH.number:
          return this.attach(requestId, payload);
        case MESSAGES.ADMIN.number:
          return administer(
            this.host,
            payload,
            (reply) => this.answer(requestId, h.type, reply),
            (error) => this.fail(requestId, h.type, error),
          );
        default:
          return this.operate(h, payload);
      }
    } catch (error) {
      const known = asHoldfastError(error);
      this.dropIncoming();
      if (known.code === 'BAD_FRAME') {
        this.flow.requests--;
        this.goodbye(known);
      } else this.fail(requestId, h.type, known);
    }
  }

  private dropIncoming(): void {
    if (this.incoming === null) return;
    this.host.arena.release(this.incoming);
    this.incoming = null;
  }

  private answerInfo(requestId: number, payload: Uint8Array | null): void {
    const name = decodeInfo(payload);
    const volume = name === '' && this.volume !== null ? this.volume : this.host.volume(name);
    this.answer(requestId, MESSAGES.INFO.number, infoOf(volume.info(), this.host.mayWrite));
  }

  private attach(requestId: number, payload: Uint8Array | null): void {
    const { volume: name, since, access } = decodeAttach(payload);
    if (this.volume !== null || this.attaching) {
      throw new HoldfastError('INVALID_ARGUMENT', {
        operation: 'attach',
        detail: 'the connection is attached already',
      });
    }
    const volume = this.host.volume(name, access);
    this.readsOnly = access === 'any' || !this.host.mayWrite;
    this.wanted = volume;
    const { session, generation } = this.hello!;
    const attached = (attachment: Attachment | null): void => {
      const info = volume.info();
      this.attaching = false;
      this.volume = volume;
      this.attachment = attachment;
      this.epoch = info.epoch;
      this.began = since === null;
      this.since = since?.seq ?? info.position.seq;
      this.answer(requestId, MESSAGES.ATTACH.number, infoOf(info, this.host.mayWrite));
    };
    if (session === 0n || this.readsOnly) return attached(null);
    this.attaching = true;
    const revoked = (): void =>
      this.goodbye(
        new HoldfastError('STALE_GENERATION', {
          operation: 'serve',
          detail: 'a newer connection of the session attached',
        }),
      );
    volume.attach(session, generation, since, revoked, (error, attachment) => {
      if (error !== null) {
        this.attaching = false;
        return this.fail(requestId, MESSAGES.ATTACH.number, error);
      }
      if (this.ended) return volume.detach(attachment!);
      attached(attachment);
    });
  }

  private operate(h: FrameHeader, payload: Uint8Array | null): void {
    const { volume } = this;
    if (volume === null) {
      throw new HoldfastError('NOT_ATTACHED', { operation: 'serve', remedy: 'send ATTACH first' });
    }
    if (h.epoch !== this.epoch) {
      throw new HoldfastError('WRONG_EPOCH', { detail: `request of ${h.epoch}, volume in ${this.epoch}` });
    }
    const { requestId, type, offset, count } = h;
    if (this.readsOnly && MESSAGE_BY_NUMBER[type]!.mutation) {
      throw new HoldfastError('READ_ONLY', {
        operation: 'serve',
        detail: 'the connection is attached for reading only',
      });
    }
    const done = (error: HoldfastError | null): void => {
      if (error === null) this.answer(requestId, type, null);
      else this.fail(requestId, type, error);
    };
    switch (type) {
      case MESSAGES.READ.number:
        return this.read(volume, requestId, offset, count, deadlineOf(h));
      case MESSAGES.WRITE.number:
        return this.write(volume, h, payload);
      case MESSAGES.FLUSH.number:
        return this.handOver.after(() => volume.flush(done));
      case MESSAGES.ZERO.number:
        return volume.zero(this.attachment, requestId, offset, count, done, expiryOf(h));
      case MESSAGES.TRIM.number:
        return volume.trim(this.attachment, requestId, offset, count, done, expiryOf(h));
      case MESSAGES.MARK.number: {
        const change = decodeMark(payload);
        checkMarkName(change.name);
        return volume.mark(this.attachment, requestId, change, done);
      }
      case MESSAGES.KV_READ.number:
      case MESSAGES.KV_EXECUTE.number:
        return this.keyValue(volume, requestId, type, payload!);
      case MESSAGES.MARKS.number:
        return this.tableWalk(volume, requestId, type, () => encodeMarks(volume.marks()));
      case MESSAGES.CHANGES.number: {
        const { limit, mark } = decodeChangesRequest(payload);
        return this.tableWalk(volume, requestId, type, () => encodeChanges(volume.changes(mark, offset, count, limit)));
      }
      default: {
        const limit = decodeExtentsRequest(payload);
        return this.tableWalk(volume, requestId, type, () => encodeExtents(volume.extents(offset, count, limit)));
      }
    }
  }

  private keyValue(volume: ServedVolume, requestId: number, type: number, payload: Uint8Array): void {
    const kv = kvOf(volume);
    const { attachment, began } = this;
    const weight = payload.length;
    const identify = (floor: number): RequestId | null => {
      if (attachment === null) return null;
      // Who has every answer needs nobody's memory of what he did.
      const since = began && floor === requestId ? Number.POSITIVE_INFINITY : this.since;
      return { session: attachment.session, request: requestId, floor, since };
    };
    perform(kv, payload, type === MESSAGES.KV_EXECUTE.number, identify, (error, reply) => {
      this.flow.bytes -= weight;
      if (error === null) this.answer(requestId, type, reply);
      else this.fail(requestId, type, error);
    });
    this.flow.bytes += weight;
  }

  /** Each walks a part of the tables, so only a few are answered in a turn of the event loop. */
  private tableWalk(volume: ServedVolume, requestId: number, type: number, walk: () => Uint8Array): void {
    const weight = this.host.limits.maxInFlightBytes / EXTENTS_PER_TURN;
    this.flow.bytes += weight;
    const answer = (error: HoldfastError | null): void => {
      this.flow.bytes -= weight;
      try {
        if (error === null) this.answer(requestId, type, walk());
        else this.fail(requestId, type, error);
      } catch (refused) {
        this.fail(requestId, type, asHoldfastError(refused));
      }
    };
    setImmediate(() => volume.whenReadable(answer));
  }

  /** Calls with a slot as soon as there is one, unless the deadline or the connection ends first. */
  private withSlot(
    pages: number,
    deadlineAtMs: number,
    use: (slot: Slot) => void,
    refused: (error: HoldfastError) => void,
  ): void {
    const slot = this.host.arena.take(pages);
    if (slot !== null) return use(slot);
    this.host.arena.whenFree(pages, () => {
      if (this.ended) return refused(new HoldfastError('CONNECTION_LOST', { peer: this.peer }));
      if (performance.now() > deadlineAtMs) {
        return refused(new HoldfastError('DEADLINE', { detail: 'the server was busy until the deadline' }));
      }
      this.withSlot(pages, deadlineAtMs, use, refused);
    });
  }

  private read(volume: ServedVolume, requestId: number, offset: number, count: number, deadlineAtMs: number): void {
    const type = MESSAGES.READ.number;
    const at = offset % BLOCK_BYTES;
    if (count > MAX_IO_BYTES) {
      throw new HoldfastError('TOO_LARGE', {
        operation: 'read',
        offsetBytes: offset,
        lengthBytes: count,
        detail: `the limit is ${MAX_IO_BYTES}`,
      });
    }
    this.flow.bytes += count;
    const finish = (error: HoldfastError): void => {
      this.flow.bytes -= count;
      this.fail(requestId, type, error);
    };
    const use = (slot: Slot): void =>
      volume.read(offset, count, slot, (error, crc) => {
        if (error !== null) {
          this.host.arena.release(slot);
          return finish(error);
        }
        this.flow.bytes -= count;
        const payload = slot.payload.subarray(at, at + count);
        const payloadCrc = crc >= 0 ? crc : crc32(payload);
        if (!this.ended) {
          this.flow.replies.frame(HEADER_BYTES + count, 1, (into, where) => {
            this.header(into, where, type, requestId, 0, count, payloadCrc);
            copyBytes(into, where + HEADER_BYTES, payload);
          });
        }
        this.host.arena.release(slot);
      });
    const pages = Math.max(1, Math.ceil((at + count) / BLOCK_BYTES));
    this.withSlot(pages, deadlineAtMs, use, finish);
  }

  private write(volume: ServedVolume, h: FrameHeader, payload: Uint8Array | null): void {
    const { requestId, offset, count, payloadCrc } = h;
    const type = MESSAGES.WRITE.number;
    const expired = expiryOf(h);
    this.flow.bytes += count;
    const done = (error: HoldfastError | null): void => {
      this.flow.bytes -= count;
      if (error === null) this.answer(requestId, type, null);
      else this.fail(requestId, type, error);
    };
    const received = this.incoming;
    this.incoming = null;
    if (received !== null) {
      if (!h.verify && crcBlocks(payload!, received.crcs, 0) !== payloadCrc) {
        this.host.arena.release(received);
        this.flow.bytes -= count;
        this.flow.requests--;
        return this.goodbye(
          new HoldfastError('BAD_FRAME', { operation: 'write', detail: 'the payload does not match its CRC' }),
        );
      }
      return volume.write(this.attachment, requestId, offset, count, received, !h.verify, done, expired);
    }
    if (payload === null)
      throw new HoldfastError('INVALID_ARGUMENT', { operation: 'write', offsetBytes: offset, lengthBytes: 0 });
    const at = offset % BLOCK_BYTES;
    const use = (slot: Slot): void => {
      copyBytes(slot.payload, at, payload);
      volume.write(this.attachment, requestId, offset, count, slot, false, done, expired);
      this.handOver.done(requestId);
    };
    this.handOver.wait(requestId);
    this.withSlot(Math.ceil((at + count) / BLOCK_BYTES), deadlineOf(h), use, (error) => {
      done(error);
      this.handOver.done(requestId);
    });
  }

  // --- replies ------------------------------------------------------------------------------------------------------

  private answer(requestId: number, type: number, payload: Uint8Array | null): void {
    this.reply(requestId, type, 0, payload, 1);
  }

  private fail(requestId: number, type: number, error: HoldfastError): void {
    this.reply(requestId, type, error.status, encodeError(error), 1);
  }

  private reply(requestId: number, type: number, status: number, payload: Uint8Array | null, requests: number): void {
    if (this.ended) return;
    const bytes = payload?.length ?? 0;
    this.flow.replies.frame(HEADER_BYTES + bytes, requests, (into, at) => {
      this.header(into, at, type, requestId, status, bytes, bytes === 0 ? 0 : crc32(payload!));
      if (bytes > 0) copyBytes(into, at + HEADER_BYTES, payload!);
    });
  }

  private header(
    into: Uint8Array,
    at: number,
    type: number,
    requestId: number,
    status: number,
    payloadBytes: number,
    payloadCrc: number,
  ): void {
    const h = HEADER;
    h.type = type | REPLY_BIT;
    h.status = status;
    h.requestId = requestId;
    h.epoch = this.epoch;
    h.payloadBytes = h.count = payloadBytes;
    h.payloadCrc = payloadCrc;
    encodeHeader(into, at, h);
  }
}

/** The one header that replies are encoded from: nothing is allocated per reply. */
const HEADER = { type: 0, payloadBytes: 0, status: 0, requestId: 0, epoch: 0, count: 0, payloadCrc: 0 };
