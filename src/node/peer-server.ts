/**
 * The port for replicas of a node, and the streams that it opens to others: several volumes share both. HELLO names the
 * volume; each stream is handed to the replica of that volume when both ends have found the other's HELLO right.
 *
 * Guarantees: nothing but HELLO is looked at before that, of at most 2 KiB, for at most `handshakeMs`; streams that are
 * not known yet are bounded, the oldest of them gives way, so that silent callers keep nobody out; a `connect` has one
 * outcome, `connected` or `closed(node, null)`, never within the call; of the streams that one node opens for a volume
 * the newest counts.
 */
import { type Server as NetServer, type Socket, createServer } from 'node:net';
import { randomBytes } from 'node:crypto';
import { HoldfastError } from '../base/errors.ts';
import { MAX_PEER_VERSION, MIN_PEER_VERSION, type PeerHello, refusalOf } from '../protocol/peer-hello.ts';
import type { PeerLink, PeerMessage } from '../replication/peer-messages.ts';
import type { Faults } from './faults.ts';
import { listenOn } from './listen.ts';
import { PeerStream } from './peer-link.ts';
import { dialFailure, dialPeer, impostor, peerFront } from './peer-tls.ts';
import type { PortTls } from './port-tls.ts';
import type { Log } from './server.ts';
import { Verdicts } from './verdicts.ts';

export interface PeerLimits {
  /** Connecting and HELLO of both ends have to come within it. */
  handshakeMs: number;
  /** A stream ends whose other end takes nothing for so long, or stops within a frame. */
  stallMs: number;
  /** Streams that others have opened and not said HELLO on. */
  maxUnknown: number;
  /** Streams that others have opened. */
  maxStreams: number;
}

export const DEFAULT_PEER_LIMITS: PeerLimits = { handshakeMs: 2000, stallMs: 5000, maxUnknown: 64, maxStreams: 512 };
/** In how many looks a stall is found. */
const LOOKS = 10;
const STREAM_ID_BYTES = 16;

export interface PeerNetworkOptions {
  /** Name of this node. */
  node: string;
  /** Of this process. */
  bootId: string;
  limits?: Partial<PeerLimits>;
  log?: (message: string, fields: object) => void;
  /** Cuts nodes off when told to. */
  faults?: Faults | null;
  /** With it every stream is under mutual TLS. */
  tls?: PortTls | null | undefined;
  /** Of handshakes; default: `log`. */
  verdicts?: Log | undefined;
}

/** The replica of a volume, as the network sees it. A Replica has the last three. */
export interface PeerVolume {
  readonly name: string;
  /** 32 hexadecimal digits. */
  readonly volumeId: string;
  /** Of the register that the disk belongs to now; zeros: none yet. */
  registerId(): string;
  /** The stream that was asked for. */
  connected(link: PeerLink): void;
  /** A stream has ended, whoever opened it; null: the one that was asked for could not be opened. */
  closed(node: string, link: PeerLink | null): void;
  received(link: PeerLink, message: PeerMessage): void;
  /** A stream that another node asked for was refused: its operator is to see why. */
  refused?(reason: string): void;
}

export interface PeerPort {
  /** Opens a stream; while one is being opened to that address, that one is meant. `address`: host:port; null: unknown. */
  connect(node: string, address: string | null): void;
  /** Ends the volume's streams; nothing of it is told any more. */
  leave(): void;
}

interface Attempt {
  address: string;
  /** Ends it without an outcome. */
  cancel: () => void;
}

/** A volume with its streams. */
interface Joined {
  volume: PeerVolume;
  attempts: Map<string, Attempt>;
  /** Streams that both ends know, by who opened them. */
  streams: Set<PeerStream>;
  accepted: Map<string, PeerStream>;
}

export class PeerNetwork {
  private readonly node: string;
  private readonly bootId: string;
  private readonly limits: PeerLimits;
  private readonly log: (message: string, fields: object) => void;
  private readonly faults: Faults | null;
  private readonly verdicts: Verdicts;
  private readonly net: NetServer;
  private readonly tls: PortTls | null;
  /** Ends connections that are not let in yet. */
  private readonly endPending: () => void;
  private readonly volumes: Map<string, Joined> = new Map();
  /** Accepted, before HELLO, oldest first. */
  private readonly unknown: Map<PeerStream, NodeJS.Timeout> = new Map();
  /** All streams that are not closed: a last word may still be on its way. */
  private readonly all: Set<PeerStream> = new Set();
  private acceptedCount = 0;
  private readonly looking: NodeJS.Timeout;
  private closing = false;

  constructor(options: PeerNetworkOptions) {
    this.node = options.node;
    this.bootId = options.bootId;
    this.limits = { ...DEFAULT_PEER_LIMITS, ...options.limits };
    this.log = options.log ?? (() => {});
    this.faults = options.faults ?? null;
    const verdicts: Log = options.verdicts ?? ((_level, message, fields) => this.log(message, fields));
    this.verdicts = new Verdicts(verdicts);
    this.tls = options.tls ?? null;
    const accept = (socket: Socket): void => this.accept(socket);
    const { stallMs, handshakeMs } = this.limits;
    const front = this.tls && peerFront(this.tls, handshakeMs, accept, verdicts);
    this.net = front?.net ?? createServer({ pauseOnConnect: true }, accept);
    this.endPending = () => front?.end();
    this.looking = setInterval(() => {
      for (const stream of this.all) stream.look(LOOKS, stallMs);
    }, stallMs / LOOKS).unref();
  }

  /** @returns the address that it listens on. @throws HoldfastError BUSY, ACCESS, INVALID_ARGUMENT */
  listen(address: string): Promise<string> {
    return listenOn(this.net, address);
  }

  /** @throws HoldfastError EXISTS if that volume has joined already */
  join(volume: PeerVolume): PeerPort {
    const { volumeId } = volume;
    if (this.volumes.has(volumeId)) {
      throw new HoldfastError('EXISTS', { operation: 'join', volume: volume.name, detail: 'it has joined already' });
    }
    const joined: Joined = { volume, attempts: new Map(), streams: new Set(), accepted: new Map() };
    this.volumes.set(volumeId, joined);
    return {
      connect: (node, address) => this.connect(joined, node, address),
      leave: () => {
        if (this.volumes.get(volumeId) === joined) this.volumes.delete(volumeId);
        for (const { cancel } of joined.attempts.values()) cancel();
        joined.attempts.clear();
        for (const stream of joined.streams) stream.close();
      },
    };
  }

  /** Streams, those included that are being opened or closed. */
  get streamCount(): number {
    return this.all.size;
  }

  /** Bytes that wait in all streams for the kernel to take them. */
  get queuedBytes(): number {
    let sum = 0;
    for (const { queuedBytes } of this.all) sum += queuedBytes;
    return sum;
  }

  /** Stops listening and ends all streams; what was sent leaves, within a bound. Nothing is told to the volumes. */
  async close(): Promise<void> {
    if (this.closing) return;
    this.closing = true;
    clearInterval(this.looking);
    for (const { attempts } of this.volumes.values()) for (const { cancel } of attempts.values()) cancel();
    const closed = new Promise<void>((resolve) => this.net.close(() => resolve()));
    this.endPending();
    await Promise.all([...this.all].map((stream) => stream.finish()));
    await closed;
  }

  // --- streams that others open ---------------------------------------------------------------------------------------

  private accept(socket: Socket): void {
    if (this.closing || this.acceptedCount >= this.limits.maxStreams) {
      this.log('a replica is turned away: too many streams', { address: socket.remoteAddress });
      socket.on('error', () => {});
      return void socket.destroy();
    }
    let joined: Joined | null = null;
    const stream = new PeerStream(socket, false, {
      hello: (_stream, hello) => (joined = this.greet(stream, hello)),
      message: (_stream, message) => joined?.volume.received(stream, message),
      ended: (_stream, reason) => joined !== null && this.ended(joined, stream, reason),
      closed: () => {
        this.acceptedCount--;
        this.forget(stream);
        joined?.streams.delete(stream);
        if (joined?.accepted.get(stream.node) === stream) joined.accepted.delete(stream.node);
      },
    });
    this.acceptedCount++;
    this.all.add(stream);
    this.unknown.set(
      stream,
      setTimeout(() => this.late(stream), this.limits.handshakeMs),
    );
    if (this.unknown.size > this.limits.maxUnknown) {
      const oldest = this.unknown.keys().next().value!;
      this.know(oldest);
      oldest.close();
    }
  }

  private late(stream: PeerStream): void {
    this.know(stream);
    stream.fail(this.noHello(stream.address));
  }

  private noHello(address: string): HoldfastError {
    const detail = `no HELLO from ${address} within ${this.limits.handshakeMs} ms`;
    return new HoldfastError('DEADLINE', { operation: 'stream between replicas', detail });
  }

  private know(stream: PeerStream): void {
    clearTimeout(this.unknown.get(stream));
    this.unknown.delete(stream);
  }

  private forget(stream: PeerStream): void {
    this.know(stream);
    this.all.delete(stream);
  }

  /** @returns the volume that the stream is for, or null if it was refused */
  private greet(stream: PeerStream, hello: PeerHello): Joined | null {
    this.faults?.hold(stream.socket, hello.from);
    // It never came: the stream is one that has said nothing.
    if (this.faults?.isCut(hello.from, 'in') === true) return null;
    this.know(stream);
    const joined = this.volumes.get(hello.volumeId);
    // Whoever has the name but not the id is to hear of both ids.
    const meant = joined ?? [...this.volumes.values()].find(({ volume }) => volume.name === hello.volume);
    const refusal =
      meant === undefined
        ? new HoldfastError('NO_SUCH_VOLUME', {
            operation: 'HELLO between replicas',
            peer: hello.from,
            detail: `${this.node} has no replica of ${hello.volume} (${hello.volumeId})`,
            remedy: 'see that the volume is served there',
          })
        : (impostor(stream.socket, hello.from) ?? refusalOf({ ...this.own(meant), to: null, streamId: null }, hello));
    if (refusal !== null || joined === undefined) {
      const { volume, from } = hello;
      this.verdicts.tell('warn', 'refused: a replica', {
        volume,
        from,
        address: stream.address,
        reason: refusal?.message,
      });
      if (refusal !== null) {
        joined?.volume.refused?.(refusal.message);
        stream.fail(refusal);
      }
      return null;
    }
    const { from, streamId } = hello;
    stream.sayHello({ ...this.hello(joined), to: from, streamId });
    stream.open(hello);
    this.verdicts.tell('info', 'let in: a replica', { volume: joined.volume.name, from, address: stream.address });
    // The node has given the older one up, or was started anew and knows nothing of it.
    const older = joined.accepted.get(from);
    joined.accepted.set(from, stream);
    joined.streams.add(stream);
    if (older !== undefined) {
      joined.streams.delete(older);
      older.close();
      joined.volume.closed(from, older);
    }
    return joined;
  }

  private own({ volume }: Joined): Pick<PeerHello, 'volumeId' | 'registerId' | 'volume' | 'from'> {
    const { volumeId, name } = volume;
    return { volumeId, registerId: volume.registerId(), volume: name, from: this.node };
  }

  private hello(joined: Joined): Omit<PeerHello, 'to' | 'streamId'> {
    const { bootId } = this;
    return { ...this.own(joined), minVersion: MIN_PEER_VERSION, maxVersion: MAX_PEER_VERSION, bootId };
  }

  private ended(joined: Joined, stream: PeerStream, reason: HoldfastError): void {
    if (!joined.streams.delete(stream) || this.closing) return;
    const { node, address } = stream;
    this.log('a stream ended', { volume: joined.volume.name, node, address, reason: reason.message });
    joined.volume.closed(node, stream);
  }

  // --- streams that this node opens -----------------------------------------------------------------------------------

  private connect(joined: Joined, node: string, address: string | null): void {
    const { attempts, volume } = joined;
    if (this.closing || this.volumes.get(volume.volumeId) !== joined) return;
    const under = attempts.get(node);
    if (under !== undefined && under.address === address) return;
    under?.cancel();
    let stream: PeerStream | null = null;
    let dialling: ReturnType<typeof dialPeer> | null = null;
    const attempt: Attempt = {
      address: address ?? '',
      cancel: () => {
        clearTimeout(late);
        if (stream === null) dialling?.socket.destroy();
        else stream.close();
      },
    };
    const settle = (): boolean => {
      clearTimeout(late);
      if (attempts.get(node) !== attempt) return false;
      return attempts.delete(node);
    };
    const failed = (reason: HoldfastError): void => {
      if (!settle() || this.closing) return;
      this.log('a replica is not reached', { volume: volume.name, node, address, reason: reason.message });
      volume.closed(node, null);
    };
    const late = setTimeout(() => {
      const reason = this.noHello(address ?? node);
      if (stream === null) dialling?.socket.destroy(reason);
      else stream.fail(reason);
      failed(reason);
    }, this.limits.handshakeMs);
    attempts.set(node, attempt);
    try {
      if (address === null)
        throw new HoldfastError('UNREACHABLE', { operation: 'connect', peer: node, detail: 'no address' });
      // As if no packet came through: it hangs until it is late.
      if (this.faults?.isCut(node, 'out') === true || this.faults?.isCut(node, 'in') === true) return;
      dialling = dialPeer(this.tls, node, address);
    } catch (error) {
      return queueMicrotask(() => failed(dialFailure(error, node)));
    }
    const { socket: dialled, ready } = dialling;
    const broken = (error: Error): void => failed(dialFailure(error, node));
    dialled.once('error', broken);
    dialled.once(ready, () => {
      stream = this.dialled(joined, node, dialled, settle, failed);
    });
  }

  /** The socket is connected: HELLO goes out, and the stream is the volume's when the answer is right. */
  private dialled(
    joined: Joined,
    node: string,
    socket: Socket,
    settle: () => boolean,
    failed: (reason: HoldfastError) => void,
  ): PeerStream {
    const { volume } = joined;
    const streamId = randomBytes(STREAM_ID_BYTES).toString('hex');
    const stream: PeerStream = new PeerStream(socket, true, {
      hello: (_stream, hello) => {
        const refusal = refusalOf({ ...this.own(joined), to: node, streamId }, hello);
        if (refusal !== null) {
          stream.fail(refusal);
          return failed(refusal);
        }
        stream.open(hello);
        joined.streams.add(stream);
        if (settle()) volume.connected(stream);
        else stream.close();
      },
      message: (_stream, message) => volume.received(stream, message),
      ended: (_stream, reason) => {
        if (stream.node === '') failed(reason);
        else this.ended(joined, stream, reason);
      },
      closed: () => {
        this.all.delete(stream);
        joined.streams.delete(stream);
      },
    });
    this.all.add(stream);
    this.faults?.hold(stream.socket, node);
    stream.sayHello({ ...this.hello(joined), to: node, streamId });
    return stream;
  }
}
