/**
 * Frames between replicas: a header of 20 bytes and a payload. Pure: bytes in, frames out, no sockets.
 *
 * Guarantees: any fragmentation of a stream gives the same frames; a header is checked in full (magic, version, CRC,
 * type, direction, length against the table, number in the stream) before anything is allocated for its payload; after
 * the first malformed frame nothing more is delivered; a decoder holds one unfinished frame at most. A frame that is
 * missing or comes twice is malformed: frames are numbered. All numbers are little-endian.
 */
import { copyBytes } from '../base/copy.ts';
import { crc32 } from '../base/checksum.ts';
import { type ErrorCode, HoldfastError } from '../base/errors.ts';
import { BLOCK_BYTES, KiB, MAX_IO_BLOCKS, MiB } from '../base/units.ts';
import { headerCrc } from './header-crc.ts';

export const PEER_HEADER_BYTES = 20;
/** The bytes `HP`. */
export const PEER_MAGIC = 0x5048;
/** The version byte of every frame so far; HELLO and GOODBYE carry it in all versions. */
export const PEER_FRAME_VERSION = 1;

/** Payload of any frame. */
export const MAX_PEER_PAYLOAD_BYTES = MiB;
/** Runs of blocks in one message; where there are more, neighbours are merged. */
export const MAX_RUNS = 100_000;
/** Names of members, marks and nodes, as UTF-8. */
export const MAX_PEER_NAME_BYTES = 255;
/** The text of a refusal. */
export const MAX_REASON_BYTES = KiB;
/** Pages of the session table in FINISH, and the longest of them. */
export const MAX_SESSION_PAGES = 64;
export const MAX_SESSION_PAGE_BYTES = BLOCK_BYTES;
/** Header of the largest record: storage/journal.ts says the same. */
const RECORD_HEADER_BYTES = 384;
/** The fields in front of a COPY's content. */
export const COPY_FIELDS_BYTES = 24;

const AT_LENGTH = 0;
const AT_MAGIC = 4;
const AT_VERSION = 6;
const AT_TYPE = 7;
const AT_NUMBER = 8;
const AT_PAYLOAD_CRC = 12;
const AT_HEADER_CRC = 16;

/** Who may send it: `both` ends at any time, `hello` both before the stream is open, the dialling one, the other one. */
export type PeerSender = 'hello' | 'both' | 'primary' | 'replica';

interface Row {
  readonly number: number;
  readonly from: PeerSender;
  /** Least and greatest payload. */
  readonly payload: readonly [number, number];
  /** Its payload is handed over: it lies in memory of its own. That of others is valid only during the call. */
  readonly owned: boolean;
}

const row = (number: number, from: PeerSender, least: number, most: number, owned = false): Row => ({
  number,
  from,
  payload: [least, most],
  owned,
});
const RUNS_BYTES = 4 + 8 * MAX_RUNS;

/** Numbers are permanent. HELLO and GOODBYE are the stream's own, the others are src/replication/peer-messages.ts. */
export const PEER_MESSAGES = {
  HELLO: row(1, 'hello', 58, 2 * KiB),
  GOODBYE: row(2, 'both', 4, 4 + MAX_REASON_BYTES),
  JOIN: row(16, 'primary', 33, 33),
  RECORD: row(17, 'primary', 96, RECORD_HEADER_BYTES + MAX_IO_BLOCKS * BLOCK_BYTES, true),
  BEAT: row(18, 'primary', 24, 24),
  COPY: row(19, 'primary', COPY_FIELDS_BYTES, COPY_FIELDS_BYTES + MAX_IO_BLOCKS * BLOCK_BYTES, true),
  BARRIER: row(20, 'primary', 16, 16),
  HANDOVER: row(21, 'primary', 23, 19 + MAX_PEER_NAME_BYTES + RUNS_BYTES),
  RESIGNED: row(22, 'primary', 8, 8),
  FINISH: row(23, 'primary', 18, 18 + MAX_SESSION_PAGES * (2 + MAX_SESSION_PAGE_BYTES)),
  GRANT: row(24, 'primary', 28, 28),
  FETCH: row(25, 'primary', 21, 21),
  STATUS: row(48, 'replica', 61, 57 + RUNS_BYTES),
  REFUSED: row(49, 'replica', 10, 10 + MAX_REASON_BYTES),
  ACK: row(50, 'replica', 16, 16),
  ECHO: row(51, 'replica', 12, 12),
  COPY_ACK: row(52, 'replica', 8, 8),
  FINISHED: row(53, 'replica', 0, 0),
  ASK: row(54, 'replica', 8, 8),
  FETCHED: row(55, 'replica', 16, 16 + MAX_IO_BLOCKS * (4 + BLOCK_BYTES), true),
  MEND: row(56, 'replica', 8, 8),
} as const satisfies Record<string, Row>;

export type PeerMessageName = keyof typeof PEER_MESSAGES;
export type PeerFrameType = Row & { readonly name: PeerMessageName };

const BY_NUMBER: ReadonlyMap<number, PeerFrameType> = new Map(
  Object.entries(PEER_MESSAGES).map(([name, r]) => [r.number, { ...r, name: name as PeerMessageName }]),
);

/**
 * Writes a header of PEER_HEADER_BYTES to the beginning of `into`.
 * @param number of the frame: those of one direction are counted from 0, modulo 2^32
 */
export function encodePeerHeader(
  into: Uint8Array,
  name: PeerMessageName,
  number: number,
  payloadBytes: number,
  payloadCrc: number,
): void {
  const view = new DataView(into.buffer, into.byteOffset, PEER_HEADER_BYTES);
  view.setUint32(AT_LENGTH, PEER_HEADER_BYTES + payloadBytes, true);
  view.setUint16(AT_MAGIC, PEER_MAGIC, true);
  view.setUint8(AT_VERSION, PEER_FRAME_VERSION);
  view.setUint8(AT_TYPE, PEER_MESSAGES[name].number);
  view.setUint32(AT_NUMBER, number, true);
  view.setUint32(AT_PAYLOAD_CRC, payloadCrc, true);
  view.setUint32(AT_HEADER_CRC, headerCrc(into, 0, AT_HEADER_CRC), true);
}

export interface PeerFrameSink {
  /** A whole frame. `payload` may be kept only if the type says `owned`. A HoldfastError thrown here is malformed too. */
  onFrame(type: PeerFrameType, payload: Uint8Array): void;
  /** The stream is malformed; the decoder swallows whatever comes now. BAD_FRAME, TOO_LARGE or WRONG_VERSION. */
  onMalformed(error: HoldfastError): void;
}

export class PeerFrameDecoder {
  /** Whose frames are taken: before the handshake is over `hello`, then `primary` or `replica`. Always `both` besides. */
  accepts: Exclude<PeerSender, 'both'> = 'hello';
  private readonly sink: PeerFrameSink;
  private readonly held: Uint8Array = new Uint8Array(PEER_HEADER_BYTES);
  private heldBytes = 0;
  /** The frame whose payload is not whole. */
  private type: PeerFrameType | null = null;
  private payload: Uint8Array = EMPTY;
  private payloadAt = 0;
  private payloadCrc = 0;
  private payloadBytes = 0;
  private number = 0;
  private dead = false;

  constructor(sink: PeerFrameSink) {
    this.sink = sink;
  }

  /** Bytes of an unfinished frame are held. */
  get midFrame(): boolean {
    return this.heldBytes > 0 || this.type !== null;
  }

  /** Nothing more is delivered. May be called within a callback. */
  close(): void {
    this.dead = true;
    this.type = null;
    this.payload = EMPTY;
    this.heldBytes = 0;
  }

  /** Takes all of `chunk`. Its bytes are not referred to afterwards. */
  push(chunk: Uint8Array): void {
    for (let at = 0; at < chunk.length && !this.dead;) {
      if (this.type !== null) {
        at += this.fillPayload(this.type, chunk, at);
        continue;
      }
      if (this.heldBytes === 0 && chunk.length - at >= PEER_HEADER_BYTES) {
        this.parse(chunk, at);
        at += PEER_HEADER_BYTES;
      } else {
        const step = Math.min(PEER_HEADER_BYTES - this.heldBytes, chunk.length - at);
        this.held.set(chunk.subarray(at, at + step), this.heldBytes);
        this.heldBytes += step;
        at += step;
        if (this.heldBytes < PEER_HEADER_BYTES) return;
        this.heldBytes = 0;
        this.parse(this.held, 0);
      }
      // What has no payload is whole already.
      if (this.type !== null && this.payloadBytes === 0) this.finish(this.type, EMPTY);
    }
  }

  /** @returns how many bytes were taken */
  private fillPayload(type: PeerFrameType, chunk: Uint8Array, at: number): number {
    if (this.payloadAt === 0) {
      // A short message that is here as a whole is looked at where it lies.
      if (!type.owned && chunk.length - at >= this.payloadBytes) {
        this.finish(type, chunk.subarray(at, at + this.payloadBytes));
        return this.payloadBytes;
      }
      // No Buffer, whose `slice` is no copy, and not from a pool, which a kept payload would hold.
      this.payload = new Uint8Array(Buffer.allocUnsafeSlow(this.payloadBytes).buffer);
    }
    const step = Math.min(this.payloadBytes - this.payloadAt, chunk.length - at);
    copyBytes(this.payload, this.payloadAt, chunk.subarray(at, at + step));
    this.payloadAt += step;
    if (this.payloadAt === this.payloadBytes) this.finish(type, this.payload);
    return step;
  }

  private finish(type: PeerFrameType, payload: Uint8Array): void {
    this.type = null;
    this.payload = EMPTY;
    if (crc32(payload) !== this.payloadCrc)
      return this.fail('BAD_FRAME', `${type.name}: the payload does not match its CRC`);
    try {
      this.sink.onFrame(type, payload);
    } catch (error) {
      if (!(error instanceof HoldfastError) || error.code !== 'BAD_FRAME') throw error;
      this.malformed(error);
    }
  }

  private parse(bytes: Uint8Array, at: number): void {
    const view = new DataView(bytes.buffer, bytes.byteOffset + at, PEER_HEADER_BYTES);
    if (view.getUint16(AT_MAGIC, true) !== PEER_MAGIC) {
      return this.fail('BAD_FRAME', 'this is not the protocol between replicas');
    }
    const version = view.getUint8(AT_VERSION);
    if (version !== PEER_FRAME_VERSION) {
      return this.fail('WRONG_VERSION', `frames of version ${version}, this side speaks ${PEER_FRAME_VERSION}`);
    }
    if (view.getUint32(AT_HEADER_CRC, true) !== headerCrc(bytes, at, AT_HEADER_CRC)) {
      return this.fail('BAD_FRAME', 'the header does not match its CRC');
    }
    const type = BY_NUMBER.get(view.getUint8(AT_TYPE));
    if (type === undefined) return this.fail('BAD_FRAME', `unknown message type ${view.getUint8(AT_TYPE)}`);
    if (type.from !== 'both' && type.from !== this.accepts) {
      const when = this.accepts === 'hello' ? 'before HELLO' : `from the ${this.accepts}`;
      return this.fail('BAD_FRAME', `${type.name} ${when}`);
    }
    const payloadBytes = view.getUint32(AT_LENGTH, true) - PEER_HEADER_BYTES;
    const [least, most] = type.payload;
    if (payloadBytes < least || payloadBytes > most) {
      const bound = payloadBytes > most ? `at most ${most}` : `at least ${least}`;
      const detail = `${type.name} with a payload of ${payloadBytes} bytes, ${bound}`;
      return this.fail(payloadBytes > most ? 'TOO_LARGE' : 'BAD_FRAME', detail);
    }
    const number = view.getUint32(AT_NUMBER, true);
    if (number !== this.number) return this.fail('BAD_FRAME', `frame ${number} where ${this.number} must come`);
    this.number = (number + 1) >>> 0;
    this.type = type;
    this.payloadBytes = payloadBytes;
    this.payloadAt = 0;
    this.payloadCrc = view.getUint32(AT_PAYLOAD_CRC, true);
  }

  private fail(code: ErrorCode, detail: string): void {
    this.malformed(
      new HoldfastError(code, {
        operation: 'receive from a replica',
        detail,
        remedy: 'see that the address belongs to a Holdfast node of a version that speaks with this one',
      }),
    );
  }

  private malformed(error: HoldfastError): void {
    if (this.dead) return;
    this.close();
    this.sink.onMalformed(error);
  }
}

const EMPTY = new Uint8Array(0);
