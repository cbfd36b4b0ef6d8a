/**
 * A socket that can be cut as if the network dropped its packets: it stays open, nothing is read from it, and what is
 * written to it waits. For `holdfast fault partition`, and never in use without `--enable-faults`.
 *
 * Guarantees: what was written before a cut and during it leaves in order when the cut ends; a socket that is destroyed
 * while nothing leaves it is closed for its owner at once, and the other end learns of it only when the cut ends, as it
 * would not hear a FIN; such half-dead handles are bounded.
 *
 * It works below the stream, on `_handle` and the methods that a stream calls, which are not documented. Where they are
 * not as expected the fault is refused. One thing is not as in a real cut: if the kernel had not taken all that was
 * written when the owner destroys the socket, it is closed at once, because that memory is the owner's again.
 */
import type { Socket } from 'node:net';
import { HoldfastError } from '../base/errors.ts';

interface Handle {
  reading: boolean;
  readonly writeQueueSize: number;
  readStop(): number;
  close(): void;
  unref(): void;
}

type Callback = (error?: Error | null) => void;

interface Inside {
  _handle: Handle | null;
  _read: (bytes: number) => void;
  _write: (chunk: unknown, encoding: string, callback: Callback) => void;
  _writev: (chunks: unknown, callback: Callback) => void;
  _final: (callback: Callback) => void;
  _destroy: (error: Error | null, callback: Callback) => void;
  pause: () => unknown;
  resume: () => unknown;
}

const MAX_HALF_DEAD = 512;
/** Closed for their owners; the other end does not know. Oldest first. */
const halfDead = new Set<Handle>();

/** The cuts are over: what was closed meanwhile is closed for the other ends too. */
export function closeHalfDead(): void {
  for (const handle of halfDead) handle.close();
  halfDead.clear();
}

function keep(handle: Handle): void {
  handle.unref();
  halfDead.add(handle);
  if (halfDead.size <= MAX_HALF_DEAD) return;
  const oldest = halfDead.values().next().value!;
  halfDead.delete(oldest);
  oldest.close();
}

export class CutSocket {
  private readonly socket: Socket;
  private inward = false;
  private outward = false;
  /** What the stream wanted while nothing was read. */
  private readHeld: (() => void) | null = null;
  private resumeHeld = false;
  /** A write, or the end, that waits; a stream has one under way at a time. */
  private held: { go: () => void; fail: Callback } | null = null;

  /** @throws HoldfastError UNSUPPORTED where the inside of a socket is not as expected */
  constructor(socket: Socket) {
    this.socket = socket;
    const inside = socket as unknown as Inside;
    const handle = inside._handle;
    if (handle !== null && (typeof handle.readStop !== 'function' || typeof handle.writeQueueSize !== 'number')) {
      const detail = 'sockets of this version of Node.js are not as expected';
      throw new HoldfastError('UNSUPPORTED', { operation: 'cut a connection', detail });
    }
    const { _read, _write, _writev, _final, _destroy, pause, resume } = inside;
    inside._read = (bytes) => {
      const go = (): void => _read.call(inside, bytes);
      if (this.inward) this.readHeld = go;
      else go();
    };
    inside.resume = () => {
      this.resumeHeld = this.inward;
      return this.inward ? socket : resume.call(inside);
    };
    inside.pause = () => {
      this.readHeld = null;
      this.resumeHeld = false;
      return pause.call(inside);
    };
    inside._write = (chunk, encoding, callback) =>
      this.write(() => _write.call(inside, chunk, encoding, callback), callback);
    inside._writev = (chunks, callback) => this.write(() => _writev.call(inside, chunks, callback), callback);
    inside._final = (callback) => this.write(() => _final.call(inside, callback), callback);
    inside._destroy = (error, callback) => {
      this.forsake(inside);
      _destroy.call(inside, error, callback);
      const { held } = this;
      this.held = null;
      held?.fail(error ?? new HoldfastError('CLOSED', { operation: 'write' }));
    };
  }

  private write(go: () => void, fail: Callback): void {
    if (this.outward) this.held = { go, fail };
    else go();
  }

  /** The stream loses its handle, which lives on: closing it would be heard at the other end. */
  private forsake(inside: Inside): void {
    const handle = inside._handle;
    if (!this.outward || handle === null || handle.writeQueueSize > 0) return;
    handle.readStop();
    inside._handle = null;
    keep(handle);
  }

  cut(inward: boolean, outward: boolean): void {
    const inside = this.socket as unknown as Inside;
    const [wasInward, wasOutward] = [this.inward, this.outward];
    this.inward = inward;
    this.outward = outward;
    const handle = inside._handle;
    if (inward && !wasInward && handle?.reading === true) {
      handle.readStop();
      handle.reading = false;
      const read = Object.getPrototypeOf(this.socket) as Inside;
      this.readHeld = () => read._read.call(inside, 0);
    }
    if (wasInward && !inward) this.readOn(inside);
    if (wasOutward && !outward) {
      const { held } = this;
      this.held = null;
      held?.go();
    }
  }

  private readOn(inside: Inside): void {
    const { readHeld, resumeHeld } = this;
    this.readHeld = null;
    this.resumeHeld = false;
    if (this.socket.destroyed) return;
    readHeld?.();
    if (resumeHeld) inside.resume();
  }
}
