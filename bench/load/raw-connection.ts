/**
 * One connection of the raw generator: handshake through the protocol room, then a closed loop of encoded requests
 * with a parser that looks only at what a reply must say.
 *
 * Guarantees: every reply is checked for magic, request id (in flight, once), type, status and length. A request that
 * was refused counts as an error of the tally; anything that is no proper reply, and a connection that ends or says
 * nothing for a minute, rejects the run. Payloads of reads are skipped, not verified: that is the client library's
 * business.
 */
import { connect as connectSocket, type Socket } from 'node:net';
import { codeOfStatus, HoldfastError } from '../../src/base/errors.ts';
import { FrameDecoder, HEADER_BYTES } from '../../src/protocol/frame.ts';
import { decodeVolumeInfo, encodeAttach, encodeHello, type VolumeInfo } from '../../src/protocol/handshake.ts';
import { FIRST_FREE_ID, MAGIC, MAX_VERSION, MESSAGES, MIN_VERSION, REPLY_BIT } from '../../src/protocol/messages.ts';
import { decodeError, encodeFrame } from '../../src/protocol/replies.ts';
import { ID_HIGH_WORD, type FrameSet } from './raw-frames.ts';
import type { Tally } from './tally.ts';

const READ_REPLY = MESSAGES.READ.number | REPLY_BIT;
const WRITE_REPLY = MESSAGES.WRITE.number | REPLY_BIT;
const RECEIVE_BYTES = 512 * 1024;
const SILENCE_MS = 60_000;

export class RawConnection {
  private readonly socket: Socket;
  private consume: (bytes: Buffer) => void = () => undefined;
  private reject: (error: Error) => void = () => undefined;
  private closing = false;
  private attached: VolumeInfo | null = null;

  private constructor(host: string, port: number) {
    const receive = Buffer.allocUnsafe(RECEIVE_BYTES);
    this.socket = connectSocket({
      host,
      port,
      noDelay: true,
      // One buffer for all that arrives: nothing is allocated per reply.
      onread: {
        buffer: receive,
        callback: (length) => {
          try {
            this.consume(receive.subarray(0, length));
          } catch (error) {
            this.fail(error as Error);
          }
          return true;
        },
      },
    });
    this.socket.setTimeout(SILENCE_MS, () => this.fail(lost(`nothing arrived for ${SILENCE_MS / 1000} s`)));
    this.socket.on('error', (error) => this.fail(lost(error.message)));
    this.socket.on('close', () => this.fail(lost('the server closed it')));
  }

  /** Connects, says hello without a session, attaches. */
  static async open(host: string, port: number, volume: string): Promise<RawConnection> {
    const connection = new RawConnection(host, port);
    const hello = encodeHello({
      minVersion: MIN_VERSION,
      maxVersion: MAX_VERSION,
      features: 0n,
      requiredFeatures: 0n,
      session: 0n,
      generation: 0,
      client: 'raw load generator',
    });
    await connection.ask(MESSAGES.HELLO.number, hello);
    const attach = encodeAttach({ volume, since: null });
    connection.attached = decodeVolumeInfo(await connection.ask(MESSAGES.ATTACH.number, attach));
    return connection;
  }

  get volume(): VolumeInfo {
    return this.attached!;
  }

  /** One request of the handshake. @returns the payload of its reply */
  private ask(type: number, payload: Uint8Array): Promise<Uint8Array | null> {
    return new Promise((resolve, reject) => {
      this.reject = reject;
      const decoder = new FrameDecoder(
        {
          onHeader: () => null,
          onFrame: (header, reply) => {
            if (header.status !== 0) reject(decodeError(header.status, reply));
            else if (header.type !== type) reject(malformed(`a message of type ${header.type}`));
            else resolve(reply);
          },
          onMalformed: reject,
        },
        'client',
      );
      this.consume = (bytes) => void decoder.push(bytes);
      this.socket.write(encodeFrame({ type, requestId: FIRST_FREE_ID }, payload));
    });
  }

  private fail(error: Error): void {
    if (this.closing) return;
    this.reject(error);
    this.close();
  }

  close(): void {
    this.closing = true;
    this.socket.destroy();
  }

  /** The closed loop, `depth` requests in flight, until the tally is over or the set's limit is sent. */
  run(frames: FrameSet, depth: number, tally: Tally): Promise<void> {
    return new Promise((resolve, reject) => {
      this.reject = reject;
      // A connection that ended while the others were still being opened.
      if (this.closing) return reject(lost('it ended before the run'));
      const { count, replyPayloadBytes } = frames;
      /** When each request was sent; 0: not in flight. */
      const begun = new Float64Array(count);
      let cursor = 0;
      let inFlight = 0;
      let left = frames.limit;

      const send = (wanted: number, nowMs: number): void => {
        const { socket } = this;
        const sending = Math.min(wanted, left);
        left -= sending;
        inFlight += sending;
        if (sending > 1) socket.cork();
        let runFrom = -1; // where a run of reads began that is not sent yet
        const sendReads = (): void => {
          if (runFrom >= 0) socket.write(frames.reads(runFrom, cursor));
          runFrom = -1;
        };
        for (let i = 0; i < sending; i++) {
          // A request that is still in flight after a whole round is passed over.
          while (begun[cursor] !== 0) {
            sendReads();
            if (++cursor === count) cursor = 0;
          }
          begun[cursor] = nowMs;
          if (frames.writes(cursor)) {
            sendReads();
            socket.write(frames.takeWrite(cursor));
          } else if (runFrom < 0) {
            runFrom = cursor;
          }
          if (++cursor === count) {
            sendReads();
            cursor = 0;
          }
        }
        sendReads();
        if (sending > 1) socket.uncork();
      };

      const header = Buffer.alloc(HEADER_BYTES);
      let headerBytes = 0; // of a header that came in pieces
      let skipBytes = 0; // of a payload that is not here yet

      /** Checks a reply. @returns the length of its payload */
      const reply = (bytes: Buffer, at: number): number => {
        const payloadBytes = bytes.readUInt32LE(at) - HEADER_BYTES;
        const type = bytes[at + 7]!;
        const status = bytes.readUInt16LE(at + 10);
        const index = bytes.readUInt32LE(at + 16);
        if (bytes.readUInt16LE(at + 4) !== MAGIC || payloadBytes < 0) throw malformed('no frame of the protocol');
        if (type !== READ_REPLY && type !== WRITE_REPLY) {
          throw malformed(`a message of type ${type} with status ${codeName(status)}`);
        }
        if (bytes.readUInt32LE(at + 20) !== ID_HIGH_WORD || !(index < count) || begun[index] === 0) {
          throw malformed('a reply to no request in flight');
        }
        const write = frames.writes(index);
        if ((type === WRITE_REPLY) !== write) throw malformed(`a reply of type ${type} to the other kind of request`);
        if (status !== 0) tally.failed(`${write ? 'WRITE' : 'READ'}: ${codeName(status)}`);
        else if (payloadBytes !== replyPayloadBytes[index]) throw malformed(`a payload of ${payloadBytes} bytes`);
        else tally.completed(begun[index]!);
        begun[index] = 0;
        frames.release(index);
        return payloadBytes;
      };

      this.consume = (bytes) => {
        const nowMs = performance.now();
        tally.advance(nowMs);
        const end = bytes.length;
        let at = 0;
        let done = 0;
        while (at < end) {
          if (skipBytes > 0) {
            const step = Math.min(skipBytes, end - at);
            skipBytes -= step;
            at += step;
          } else if (headerBytes === 0 && end - at >= HEADER_BYTES) {
            skipBytes = reply(bytes, at);
            at += HEADER_BYTES;
            done++;
          } else {
            const step = Math.min(HEADER_BYTES - headerBytes, end - at);
            bytes.copy(header, headerBytes, at, at + step);
            headerBytes += step;
            at += step;
            if (headerBytes === HEADER_BYTES) {
              headerBytes = 0;
              skipBytes = reply(header, 0);
              done++;
            }
          }
        }
        inFlight -= done;
        if (done > 0 && !tally.over) send(done, nowMs);
        if (inFlight === 0 && skipBytes === 0) resolve();
      };
      send(depth, performance.now());
      if (inFlight === 0) resolve();
    });
  }
}

function lost(detail: string): HoldfastError {
  return new HoldfastError('CONNECTION_LOST', { operation: 'raw load', detail });
}

function malformed(detail: string): HoldfastError {
  return new HoldfastError('BAD_FRAME', { operation: 'raw load', detail: `the server sent ${detail}` });
}

function codeName(status: number): string {
  return status === 0 ? 'OK' : codeOfStatus(status);
}
