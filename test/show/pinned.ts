/**
 * A client that speaks NBD to one node and to no other: what it is answered, that node has said. It never connects anew.
 */
import { type Socket, connect } from 'node:net';
import { infoOption, request, u32 } from '../support/nbd-client.ts';

const GREETING_BYTES = 18;
const OPTION_HEAD_BYTES = 20;
const REPLY_BYTES = 16;
const GO = 7;
const ACK = 1;
const READ = 0;
const WRITE = 1;

export class PinnedClient {
  /** Why it has ended; null: it lives. */
  ended: string | null = null;
  private readonly socket: Socket;
  private buffered: Buffer = Buffer.alloc(0);
  private wake: () => void = () => {};
  private cookie = 0n;

  private constructor(socket: Socket) {
    this.socket = socket;
    socket.setNoDelay();
    socket.on('data', (chunk: Buffer) => {
      this.buffered = Buffer.concat([this.buffered, chunk]);
      this.wake();
    });
    const end = (why: string): void => {
      this.ended ??= why;
      this.wake();
    };
    socket.on('error', (error) => end(error.message));
    socket.on('close', () => end('the node has closed the connection'));
  }

  /** @param uri nbd://host:port */
  static async open(uri: string, volume: string): Promise<PinnedClient> {
    const { hostname, port } = new URL(uri);
    const client = new PinnedClient(connect(Number(port), hostname));
    await client.take(GREETING_BYTES);
    client.socket.write(Buffer.concat([u32(3), infoOption(GO, volume)]));
    for (;;) {
      const head = await client.take(OPTION_HEAD_BYTES);
      await client.take(head.readUInt32BE(16));
      const type = head.readUInt32BE(12);
      if (type === ACK) return client;
      if (type >= 0x8000_0000) throw new Error(`${uri} refuses ${volume}: ${type}`);
    }
  }

  /** @throws Error once the connection has ended */
  private async take(count: number): Promise<Buffer> {
    while (this.buffered.length < count) {
      if (this.ended !== null) throw new Error(this.ended);
      await new Promise<void>((resolve) => (this.wake = resolve));
    }
    const taken = this.buffered.subarray(0, count);
    this.buffered = this.buffered.subarray(count);
    return taken;
  }

  private async answered(): Promise<void> {
    const reply = await this.take(REPLY_BYTES);
    if (reply.readUInt32BE(0) !== 0x67446698) throw new Error('no simple reply');
    if (reply.readBigUInt64BE(8) !== this.cookie) throw new Error('an answer to another request');
    if (reply.readUInt32BE(4) !== 0) throw new Error(`the node answers with error ${reply.readUInt32BE(4)}`);
  }

  /** One at a time. @throws Error when it is refused or the connection has ended */
  async write(offset: number, payload: Uint8Array): Promise<void> {
    this.socket.write(request({ command: WRITE, cookie: ++this.cookie, offset, payload }));
    await this.answered();
  }

  /** One at a time. @throws Error when it is refused or the connection has ended */
  async read(offset: number, length: number): Promise<Buffer> {
    this.socket.write(request({ command: READ, cookie: ++this.cookie, offset, length }));
    await this.answered();
    return this.take(length);
  }

  close(): void {
    this.socket.destroy();
  }
}
