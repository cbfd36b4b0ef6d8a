/**
 * A server for the client's tests: the protocol room over real TCP, a volume in memory, sessions with fences, and
 * misbehaviour on command.
 *
 * It keeps the rules of docs/protocol.md unless it is told not to, and writes down what it saw: HELLOs, executions of
 * mutations, the widest window.
 */
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import { type ErrorCode, asHoldfastError, HoldfastError } from '../../src/base/errors.ts';
import { BLOCK_BYTES, MAX_IO_BYTES, MiB } from '../../src/base/units.ts';
import { FrameDecoder, type FrameHeader } from '../../src/protocol/frame.ts';
import * as wire from '../../src/protocol/handshake.ts';
import { encodeLocation } from '../../src/protocol/location.ts';
import { MESSAGE_BY_NUMBER, MESSAGES, SESSION_WINDOW } from '../../src/protocol/messages.ts';
import { encodeErrorReply, encodeGoodbye, encodeReply } from '../../src/protocol/replies.ts';
import { MemoryDisk } from './memory-device.ts';

export type Corruption = 'header' | 'payload' | 'type' | 'length' | 'garbage';

interface Session {
  generation: number;
  peer: Peer | null;
  executed: Set<number>;
}

/** A request that was executed and is not answered. */
interface Held {
  peer: Peer;
  requestId: number;
  frame: Uint8Array;
}

export class TwinServer {
  readonly disk: MemoryDisk;
  /** HELLOs with a session, in the order in which they came. */
  readonly hellos: Array<{ session: bigint; generation: number }> = [];
  /** Mutations in the order in which they were executed. */
  readonly executions: Array<{ session: bigint; requestId: number; type: number; offset: number; count: number }> = [];
  /** Operations in the order in which they were received, with repetitions. */
  readonly received: Array<{ connection: number; requestId: number; type: number; deadlineMs: number; count: number }> =
    [];
  /** Widest distance of a mutation from the lowest unanswered one of its session. */
  widestWindow = 0;
  pings = 0;

  // What it is told to do.
  /** Destroy the connection when so many more operations have come; the last one is executed or not. */
  dropAfter = Infinity;
  executeDropped = true;
  /** Execute, but keep the replies for `release`: all, or those of the ids for which it says yes. */
  hold: boolean | ((requestId: number) => boolean) = false;
  answerTwice = false;
  /** Replies leave in reverse order of each chunk that came. */
  reverse = false;
  /** Take everything in and say nothing at all. */
  silent = false;
  /** Answers for the next operations, instead of executing them. */
  readonly refusals: ErrorCode[] = [];
  /** Spoils the next reply to an operation. */
  corruptNext: Corruption | null = null;
  epoch = 1;
  volumeId = new Uint8Array(16).fill(7);
  sizeBytes: number;
  readOnly = false;
  limits: wire.ConnectionLimits = {
    maxPayloadBytes: MAX_IO_BYTES,
    maxInFlightBytes: 4 * MiB,
    maxInFlightRequests: 1024,
    sessionWindow: SESSION_WINDOW,
  };

  private readonly sessions: Map<bigint, Session> = new Map();
  private forgetful = false;
  private held: Held[] = [];
  private server: Server | null = null;
  private readonly peers: Set<Peer> = new Set();
  private port = 0;
  private connections = 0;

  private constructor(sizeBytes: number) {
    this.disk = new MemoryDisk(sizeBytes);
    this.sizeBytes = sizeBytes;
  }

  static async start(sizeBytes = 8 * MiB): Promise<TwinServer> {
    const twin = new TwinServer(sizeBytes);
    await twin.listen();
    return twin;
  }

  get url(): string {
    return `holdfast://127.0.0.1:${this.port}/demo`;
  }

  get address(): string {
    return `127.0.0.1:${this.port}`;
  }

  get connectionCount(): number {
    return this.connections;
  }

  get heldCount(): number {
    return this.held.length;
  }

  /** On the same port as before. */
  listen(): Promise<void> {
    const server = createServer({ noDelay: true }, (socket) =>
      this.peers.add(new Peer(this, socket, this.connections++)),
    );
    this.server = server;
    return new Promise((resolve, reject) => {
      server.once('error', reject);
      server.listen(this.port, '127.0.0.1', () => {
        this.port = (server.address() as AddressInfo).port;
        resolve();
      });
    });
  }

  /** Stops listening and drops every connection. Sessions are kept. */
  async stop(): Promise<void> {
    const { server } = this;
    this.server = null;
    this.drop();
    if (server !== null) await new Promise<void>((resolve) => server.close(() => resolve()));
  }

  /** Drops every connection; what was held is never answered. */
  drop(): void {
    this.held = [];
    for (const peer of this.peers) peer.end();
  }

  /** Says GOODBYE to all and drops them. */
  goodbye(code: ErrorCode): void {
    for (const peer of this.peers) peer.goodbye(new HoldfastError(code));
  }

  /** Answers what was held. */
  release(): void {
    this.hold = false;
    const held = this.held;
    this.held = [];
    for (const { peer, frame } of held) peer.answer(frame);
  }

  forgetSessions(): void {
    this.sessions.clear();
    this.forgetful = true;
  }

  get info(): wire.VolumeInfo {
    return {
      name: 'demo',
      volumeId: this.volumeId,
      sizeBytes: this.sizeBytes,
      blockBytes: BLOCK_BYTES,
      atomicBytes: MAX_IO_BYTES,
      readOnly: this.readOnly,
      epoch: this.epoch,
      position: { epoch: this.epoch, seq: this.executions.length },
    };
  }

  /** @returns the session's entry, or what refuses it */
  attach(peer: Peer, session: bigint, generation: number, since: boolean): Session | HoldfastError {
    let entry = this.sessions.get(session);
    if (entry === undefined && since && this.forgetful) return new HoldfastError('OUTCOME_UNKNOWN');
    if (entry !== undefined && generation <= entry.generation) return new HoldfastError('STALE_GENERATION');
    entry ??= { generation, peer: null, executed: new Set() };
    const older = entry.peer;
    entry.generation = generation;
    entry.peer = peer;
    this.sessions.set(session, entry);
    older?.goodbye(new HoldfastError('STALE_GENERATION'));
    return entry;
  }

  isHeld(requestId: number): boolean {
    return typeof this.hold === 'boolean' ? this.hold : this.hold(requestId);
  }

  keep(held: Held): void {
    this.held.push(held);
  }

  lowestHeld(peer: Peer): number {
    return Math.min(Infinity, ...this.held.filter((h) => h.peer === peer).map((h) => h.requestId));
  }

  gone(peer: Peer): void {
    this.peers.delete(peer);
    this.held = this.held.filter((h) => h.peer !== peer);
  }
}

class Peer {
  private readonly twin: TwinServer;
  private readonly socket: Socket;
  private readonly index: number;
  private readonly decoder: FrameDecoder;
  private hello: wire.Hello | null = null;
  private session: Session | null = null;
  private attached = false;
  private ended = false;
  private replies: Uint8Array[] = [];

  constructor(twin: TwinServer, socket: Socket, index: number) {
    this.twin = twin;
    this.socket = socket;
    this.index = index;
    this.decoder = new FrameDecoder(
      {
        onHeader: () => null,
        onFrame: (header, payload) => this.frame(header, payload),
        onMalformed: (error) => this.goodbye(error),
      },
      'server',
    );
    socket.on('data', (chunk: Buffer) => {
      this.decoder.push(chunk);
      this.flush();
    });
    socket.on('error', () => {});
    socket.on('close', () => this.end());
  }

  end(): void {
    if (this.ended) return;
    this.ended = true;
    this.decoder.close();
    this.flush();
    this.socket.destroy();
    this.twin.gone(this);
  }

  goodbye(error: HoldfastError): void {
    if (this.ended) return;
    this.socket.write(encodeGoodbye(error));
    this.ended = true;
    this.decoder.close();
    this.socket.end();
    this.twin.gone(this);
  }

  answer(frame: Uint8Array): void {
    if (!this.ended) this.socket.write(frame);
  }

  private flush(): void {
    const replies = this.twin.reverse ? this.replies.reverse() : this.replies;
    this.replies = [];
    this.socket.cork();
    for (const frame of replies) this.socket.write(frame);
    this.socket.uncork();
  }

  private frame(h: FrameHeader, payload: Uint8Array | null): void {
    const { twin } = this;
    if (h.type === MESSAGES.PING.number) twin.pings++;
    if (twin.silent) return;
    const operation = MESSAGE_BY_NUMBER[h.type]!.attached;
    let dropped = false;
    if (operation) {
      twin.received.push({
        connection: this.index,
        requestId: h.requestId,
        type: h.type,
        deadlineMs: h.deadlineMs,
        count: h.count,
      });
      if (--twin.dropAfter <= 0) {
        twin.dropAfter = Infinity;
        dropped = true;
        if (!twin.executeDropped) return this.end();
      }
    }
    let reply: Uint8Array;
    try {
      reply = encodeReply(h, twin.epoch, operation ? this.operate(h, payload) : this.control(h, payload));
    } catch (error) {
      reply = encodeErrorReply(h, twin.epoch, asHoldfastError(error));
    }
    if (dropped) return this.end();
    if (!operation) {
      this.replies.push(reply);
    } else if (twin.isHeld(h.requestId)) {
      twin.keep({ peer: this, requestId: h.requestId, frame: reply });
    } else {
      if (twin.corruptNext !== null) {
        spoil(reply, twin.corruptNext);
        twin.corruptNext = null;
      }
      this.replies.push(reply);
      if (twin.answerTwice) this.replies.push(reply);
    }
  }

  private control(h: FrameHeader, payload: Uint8Array | null): Uint8Array | null {
    const { twin } = this;
    switch (h.type) {
      case MESSAGES.HELLO.number: {
        const hello = wire.decodeHello(payload);
        if (hello.session !== 0n) twin.hellos.push({ session: hello.session, generation: hello.generation });
        const version = wire.agree(hello);
        this.hello = hello;
        return wire.encodeHelloReply({ version, features: 0n, limits: twin.limits, server: 'twin' });
      }
      case MESSAGES.ATTACH.number: {
        const { volume, since } = wire.decodeAttach(payload);
        if (volume !== 'demo' && volume !== '') throw new HoldfastError('NO_SUCH_VOLUME', { volume });
        const { session, generation } = this.hello!;
        const entry = twin.attach(this, session, generation, since !== null);
        if (entry instanceof HoldfastError) throw entry;
        this.session = entry;
        this.attached = true;
        return wire.encodeVolumeInfo(twin.info);
      }
      case MESSAGES.INFO.number:
        return wire.encodeVolumeInfo(twin.info);
      case MESSAGES.LOCATE.number: {
        const members = [{ node: 'twin', clientAddress: twin.address, inSync: true }];
        return encodeLocation({
          volumeId: twin.volumeId,
          name: 'demo',
          epoch: twin.epoch,
          primary: 'twin',
          primaryAddress: twin.address,
          reads: 'primary',
          members,
        });
      }
      case MESSAGES.LIST.number: {
        const all = Array.from({ length: 600 }, (_, i) => ({ name: `v${i}`, sizeBytes: i, readOnly: i % 2 === 0 }));
        return wire.encodeList(all, h.offset);
      }
      default:
        return null;
    }
  }

  private operate(h: FrameHeader, payload: Uint8Array | null): Uint8Array | null {
    const { twin } = this;
    const { disk } = twin;
    if (!this.attached) throw new HoldfastError('NOT_ATTACHED');
    if (h.epoch !== twin.epoch) throw new HoldfastError('WRONG_EPOCH');
    const refusal = twin.refusals.shift();
    if (refusal !== undefined) throw new HoldfastError(refusal, { detail: 'as the test says' });
    if (h.offset + h.count > twin.sizeBytes) throw new HoldfastError('OUT_OF_RANGE');
    if (MESSAGE_BY_NUMBER[h.type]!.mutation) {
      const width = h.requestId - Math.min(h.requestId, twin.lowestHeld(this)) + 1;
      twin.widestWindow = Math.max(twin.widestWindow, width);
      const { executed } = this.session!;
      if (executed.has(h.requestId)) return null;
      executed.add(h.requestId);
      const { requestId, type, offset, count } = h;
      twin.executions.push({ session: this.hello!.session, requestId, type, offset, count });
    }
    switch (h.type) {
      case MESSAGES.READ.number:
        if (h.count > MAX_IO_BYTES) throw new HoldfastError('TOO_LARGE');
        return disk.read(h.offset, h.count);
      case MESSAGES.WRITE.number:
        disk.write(h.offset, payload!);
        return null;
      case MESSAGES.ZERO.number:
        disk.zero(h.offset, h.count);
        return null;
      case MESSAGES.TRIM.number:
        disk.trim(h.offset, h.count);
        return null;
      case MESSAGES.EXTENTS.number:
        return wire.encodeExtents(disk.extents(h.offset, h.count, wire.decodeExtentsRequest(payload)));
      default:
        return null;
    }
  }
}

function spoil(frame: Uint8Array, how: Corruption): void {
  switch (how) {
    case 'header':
      frame[33]! ^= 1;
      break;
    case 'payload':
      frame[frame.length - 1]! ^= 1;
      break;
    case 'type':
      frame[7]! ^= 1;
      break;
    case 'length':
      frame[2] = 0xff;
      break;
    case 'garbage':
      crypto.getRandomValues(frame);
      break;
  }
}
