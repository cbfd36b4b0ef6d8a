/** A client that speaks RESP over a socket, one reply as its bytes. */
import { type Socket, connect } from 'node:net';
import { encodeCommand, readReply } from './resp-replies.ts';

interface Waiter {
  resolve: (bytes: Buffer) => void;
  reject: (error: Error) => void;
}

export class RespClient {
  private readonly socket: Socket;
  private bytes: Buffer = Buffer.alloc(0);
  private readonly waiters: Waiter[] = [];
  readonly closed: Promise<void>;
  /** What came without being asked for. */
  get rest(): Buffer {
    return this.bytes;
  }

  private constructor(socket: Socket) {
    this.socket = socket;
    socket.on('data', (chunk: Buffer) => {
      this.bytes = Buffer.concat([this.bytes, chunk]);
      this.deliver();
    });
    socket.on('error', () => {});
    this.closed = new Promise((resolve) => {
      socket.on('close', () => {
        for (const waiter of this.waiters.splice(0)) waiter.reject(new Error('the connection was closed'));
        resolve();
      });
    });
  }

  static open(port: number): Promise<RespClient> {
    return new Promise((resolve, reject) => {
      const socket = connect(port, '127.0.0.1', () => resolve(new RespClient(socket)));
      socket.once('error', reject);
    });
  }

  private deliver(): void {
    while (this.waiters.length > 0) {
      const read = readReply(this.bytes);
      if (read === null) return;
      const reply = this.bytes.subarray(0, read.end);
      this.bytes = this.bytes.subarray(read.end);
      this.waiters.shift()!.resolve(reply);
    }
  }

  send(bytes: Buffer | string): void {
    this.socket.write(typeof bytes === 'string' ? Buffer.from(bytes, 'latin1') : bytes);
  }

  /** @returns the bytes of the next reply */
  next(): Promise<Buffer> {
    return new Promise((resolve, reject) => {
      this.waiters.push({ resolve, reject });
      this.deliver();
    });
  }

  call(...args: Array<string | Uint8Array>): Promise<Buffer> {
    this.send(encodeCommand(args));
    return this.next();
  }

  /** Sends no more. */
  finish(): void {
    this.socket.end();
  }
  stopReading(): void {
    this.socket.pause();
  }
  readAgain(): void {
    this.socket.resume();
  }
  close(): void {
    this.socket.destroy();
  }
}
