/**
 * The requests of one connection, encoded before the run: sending one costs a copy of 64 bytes at most, so that the
 * generator measures the server and not itself.
 *
 * Guarantees: request ids are unique while in flight; requests belong to no session (session 0), so they are never
 * repeated and their ids may be used again; a write's buffer is not touched before its reply has come.
 *
 * All writes of one connection carry the same bytes, other ones for each connection and seed.
 */
import { crc32 } from 'node:zlib';
import { encodeHeader, HEADER_BYTES } from '../../src/protocol/frame.ts';
import { FIRST_FREE_ID, MESSAGES } from '../../src/protocol/messages.ts';
import type { LoadOptions } from './load-options.ts';
import { mixer, offsets, operationsPerPass, Random } from './workload.ts';

/** Requests that are encoded for all connections together: as many as a volume of 1 GiB has blocks. */
const ENCODED_REQUESTS = 262_144;
const FEWEST_PER_CONNECTION = 4096;

/** Ids are the index in the ring, in the range of requests that are no mutations of a session: their upper 32 bits. */
export const ID_HIGH_WORD = FIRST_FREE_ID / 2 ** 32;

export interface FrameSetOptions {
  load: LoadOptions;
  spanBytes: number;
  epoch: number;
  /** Which connection of `load.clients`. */
  index: number;
  /** How many requests to encode, more than `load.depth`; default: a share of ENCODED_REQUESTS, for a fill all of them. */
  count?: number;
  /** How many to send in all; default: no limit, for a fill each once. */
  limit?: number;
}

export class FrameSet {
  /** Encoded requests; they are sent in order, and from the beginning again. */
  readonly count: number;
  /** Length of the reply's payload to each request. */
  readonly replyPayloadBytes: Uint32Array;
  readonly limit: number;
  private readonly headers: Buffer;
  private readonly isWrite: Uint8Array;
  private readonly frames: Buffer[] = [];
  private readonly frameOf: Uint32Array;
  private readonly freeFrames: number[] = [];

  constructor(options: FrameSetOptions) {
    const { load, spanBytes, epoch, index } = options;
    const where = { ...load, spanBytes, ioBytes: load.blockBytes, index };
    const pass = operationsPerPass(where);
    this.limit = options.limit ?? (load.fill ? pass : Infinity);
    const share = Math.max(FEWEST_PER_CONNECTION, Math.floor(ENCODED_REQUESTS / load.clients));
    this.count = load.fill ? pass : (options.count ?? share);
    const random = new Random(load.seed * 65_537 + index);
    const next = offsets(where, random);
    const nextIsWrite = mixer(load.op, load.readPercent, random);
    const payload = Buffer.alloc(load.blockBytes);
    random.fill(payload);
    const payloadCrc = crc32(payload);

    // One object and one plain view for all: a quarter of a million headers are encoded before a run can begin.
    const bytes = new Uint8Array(this.count * HEADER_BYTES);
    const fields = { type: 0, payloadBytes: 0, requestId: 0, epoch, offset: 0, count: load.blockBytes, payloadCrc: 0 };
    this.headers = Buffer.from(bytes.buffer);
    this.isWrite = new Uint8Array(this.count);
    this.replyPayloadBytes = new Uint32Array(this.count);
    this.frameOf = new Uint32Array(this.count);
    let writes = 0;
    for (let i = 0; i < this.count; i++) {
      const write = nextIsWrite();
      this.isWrite[i] = write ? 1 : 0;
      this.replyPayloadBytes[i] = write ? 0 : load.blockBytes;
      if (write) writes++;
      fields.payloadBytes = write ? load.blockBytes : 0;
      fields.type = write ? MESSAGES.WRITE.number : MESSAGES.READ.number;
      fields.requestId = FIRST_FREE_ID + i;
      fields.offset = next();
      fields.payloadCrc = write ? payloadCrc : 0;
      encodeHeader(bytes, i * HEADER_BYTES, fields);
    }
    for (let i = 0; writes > 0 && i < load.depth; i++) {
      const frame = Buffer.alloc(HEADER_BYTES + payload.length);
      payload.copy(frame, HEADER_BYTES);
      this.freeFrames.push(this.frames.push(frame) - 1);
    }
  }

  writes(index: number): boolean {
    return this.isWrite[index] === 1;
  }

  /** The bytes of reads `from` to `to` - 1, which lie one behind the other. */
  reads(from: number, to: number): Buffer {
    return this.headers.subarray(from * HEADER_BYTES, to * HEADER_BYTES);
  }

  /** The whole frame of a write; its buffer is taken until `release`. */
  takeWrite(index: number): Buffer {
    const at = this.freeFrames.pop()!;
    const frame = this.frames[at]!;
    this.frameOf[index] = at;
    this.headers.copy(frame, 0, index * HEADER_BYTES, (index + 1) * HEADER_BYTES);
    return frame;
  }

  /** The reply to that request has come. */
  release(index: number): void {
    if (this.isWrite[index] === 1) this.freeFrames.push(this.frameOf[index]!);
  }
}
