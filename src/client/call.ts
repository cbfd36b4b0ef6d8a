/**
 * One request as the client keeps it: from the moment it is called, through replays, to its reply.
 *
 * Guarantees: the frame of a mutation is a copy of the caller's bytes, so that it can be sent again after the caller
 * has taken them back, unless the caller gave them away (`owned`); `done` is called at most once, never before `submit` of the connection returned.
 */
import { crc32 } from '../base/checksum.ts';
import type { HoldfastError } from '../base/errors.ts';
import { encodeHeader, HEADER_BYTES, type HeaderFields } from '../protocol/frame.ts';
import { type Message, MESSAGE_BY_NUMBER } from '../protocol/messages.ts';

export class Call {
  readonly message: Message;
  readonly offsetBytes: number;
  readonly lengthBytes: number;
  /** Payload that follows the frame of `encode`: bytes that the caller gave away, sent as they lie. */
  readonly tail: Uint8Array | null;
  /** Of the request. The caller's own bytes until `encode`. */
  source: Uint8Array | null;
  /** Makes the payload when the call is first sent: it names what the session has been answered by then. */
  private compose: ((floor: number) => Uint8Array) | null;
  /** Where the payload of the reply goes, of exactly that length; null: it is allocated. */
  readonly destination: Uint8Array | null;
  /** Point in time of performance.now(), Infinity: none. */
  readonly deadlineAtMs: number;
  /** What it counts against the limit of bytes in flight. */
  readonly weightBytes: number;
  done: (error: HoldfastError | null, payload: Uint8Array | null) => void = () => {};

  requestId = 0;
  /** The caller does not wait any more; the reply is discarded. */
  givenUp = false;
  /** It was sent before, to whoever was primary then: an error is no proof that it was not executed. */
  repeated = false;
  /** How often the server answered that it is busy, and when it first did. */
  refusals = 0;
  refusedSinceMs = 0;
  private frame: Uint8Array | null = null;

  constructor(
    type: number,
    range: { offsetBytes: number; lengthBytes: number },
    more: {
      source?: Uint8Array;
      owned?: boolean;
      compose?: (floor: number) => Uint8Array;
      destination?: Uint8Array;
      deadlineAtMs?: number;
      weightBytes?: number;
    } = {},
  ) {
    this.message = MESSAGE_BY_NUMBER[type]!;
    this.offsetBytes = range.offsetBytes;
    this.lengthBytes = range.lengthBytes;
    const source = more.source ?? null;
    this.tail = more.owned ? source : null;
    this.source = more.owned ? null : source;
    this.compose = more.compose ?? null;
    this.destination = more.destination ?? null;
    this.deadlineAtMs = more.deadlineAtMs ?? Infinity;
    this.weightBytes = more.weightBytes ?? (more.destination ?? more.source)?.length ?? 0;
  }

  /**
   * The frame to send now, before `tail`. The payload is copied the first time, the header is made anew each time.
   * @param floor all mutations of the session with numbers below are answered
   */
  encode(epoch: number, floor: number): Uint8Array {
    if (this.compose !== null) {
      this.source = this.compose(floor);
      this.compose = null;
    }
    this.frame ??= new Uint8Array(HEADER_BYTES + (this.source?.length ?? 0));
    if (this.source !== null) {
      this.frame.set(this.source, HEADER_BYTES);
      this.source = null;
    }
    // Of the copy: whatever the caller does with the bytes, the frame stays well-formed.
    const payload = this.tail ?? this.frame.subarray(HEADER_BYTES);
    const fields: HeaderFields = {
      type: this.message.number,
      payloadBytes: payload.length,
      requestId: this.requestId,
      epoch,
      offset: this.offsetBytes,
      count: this.lengthBytes,
      payloadCrc: payload.length === 0 ? 0 : crc32(payload),
      deadlineMs: this.deadlineAtMs === Infinity ? 0 : leftMs(this.deadlineAtMs),
    };
    encodeHeader(this.frame, 0, fields);
    return this.frame;
  }
}

/** At least 1: 0 would mean that there is no deadline. */
function leftMs(deadlineAtMs: number): number {
  return Math.min(0xffff_ffff, Math.max(1, Math.ceil(deadlineAtMs - performance.now())));
}
