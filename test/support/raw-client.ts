/** A client that says exactly what it is told, also what no good client would say. */
import { type Socket, connect } from 'node:net';
import { HoldfastError } from '../../src/base/errors.ts';
import { FrameDecoder, type HeaderFields } from '../../src/protocol/frame.ts';
import { type VolumeInfo, decodeVolumeInfo, encodeAttach, encodeHello } from '../../src/protocol/handshake.ts';
import { FIRST_FREE_ID, MESSAGES } from '../../src/protocol/messages.ts';
import { decodeError, encodeFrame } from '../../src/protocol/replies.ts';
import type { Position } from '../../src/base/position.ts';

export interface Reply {
  type: number;
  status: number;
  requestId: number;
  payload: Uint8Array | null;
  error: HoldfastError | null;
}

export class RawClient {
  readonly socket: Socket;
  /** The reason that the server gave before it closed, if it gave one. */
  goodbye: HoldfastError | null = null;
  info: VolumeInfo | null = null;
  epoch = 0;
  readonly closed: Promise<void>;
  private readonly waiting: Map<number, (reply: Reply) => void> = new Map();
  private nextId = FIRST_FREE_ID;

  private constructor(socket: Socket) {
    this.socket = socket;
    const decoder = new FrameDecoder(
      {
        onHeader: () => null,
        onFrame: (h, payload) => {
          const error = h.status === 0 ? null : decodeError(h.status, payload);
          if (h.type === MESSAGES.GOODBYE.number) {
            this.goodbye = error;
            return;
          }
          const reply = { type: h.type, status: h.status, requestId: h.requestId, payload, error };
          this.waiting.get(h.requestId)?.(reply);
          this.waiting.delete(h.requestId);
        },
        onMalformed: (error) => {
          throw error;
        },
      },
      'client',
    );
    socket.on('data', (chunk: Buffer) => void decoder.push(chunk));
    socket.on('error', () => {});
    this.closed = new Promise((resolve) => socket.once('close', () => resolve()));
  }

  static connect(port: number): Promise<RawClient> {
    return new Promise((resolve, reject) => {
      const socket = connect({ port, host: '127.0.0.1', noDelay: true });
      socket.once('error', reject);
      socket.once('connect', () => resolve(new RawClient(socket)));
    });
  }

  /** Connected, introduced and attached. */
  static async attached(
    port: number,
    session: bigint,
    generation: number,
    since: Position | null = null,
    volume = '',
  ): Promise<RawClient> {
    const client = await RawClient.connect(port);
    const hello = await client.hello(session, generation);
    if (hello.error !== null) throw hello.error;
    const reply = await client.attach(volume, since);
    if (reply.error !== null) throw reply.error;
    return client;
  }

  hello(session: bigint, generation: number, versions: [number, number] = [1, 1]): Promise<Reply> {
    const payload = encodeHello({
      minVersion: versions[0],
      maxVersion: versions[1],
      features: 0n,
      requiredFeatures: 0n,
      session,
      generation,
      client: 'raw',
    });
    return this.ask({ type: MESSAGES.HELLO.number }, payload);
  }

  async attach(volume: string, since: Position | null): Promise<Reply> {
    const reply = await this.ask({ type: MESSAGES.ATTACH.number }, encodeAttach({ volume, since }));
    if (reply.error === null) {
      this.info = decodeVolumeInfo(reply.payload);
      this.epoch = this.info.epoch;
    }
    return reply;
  }

  /** Sends a request and waits for its reply; resolves with a CONNECTION_LOST reply if the connection ends first. */
  ask(fields: Partial<HeaderFields> & { type: number }, payload: Uint8Array | null = null): Promise<Reply> {
    const requestId = fields.requestId ?? this.nextId++;
    return new Promise((resolve) => {
      this.waiting.set(requestId, resolve);
      void this.closed.then(() =>
        resolve({
          type: fields.type,
          status: -1,
          requestId,
          payload: null,
          error: new HoldfastError('CONNECTION_LOST'),
        }),
      );
      this.send({ ...fields, requestId }, payload);
    });
  }

  send(fields: Partial<HeaderFields> & { type: number; requestId: number }, payload: Uint8Array | null = null): void {
    this.socket.write(encodeFrame({ epoch: this.epoch, ...fields }, payload));
  }

  read(offset: number, count: number): Promise<Reply> {
    return this.ask({ type: MESSAGES.READ.number, offset, count });
  }

  write(requestId: number, offset: number, bytes: Uint8Array): Promise<Reply> {
    return this.ask({ type: MESSAGES.WRITE.number, requestId, offset, count: bytes.length }, bytes);
  }

  close(): void {
    this.socket.destroy();
  }
}
