/**
 * Bytes that an NBD client sends, and what comes back, written from the specification and apart from `src/nbd`: no
 * encoder or table of it is used here. And a sink that records what a session does.
 */
import type { Agreed, NbdExport, NbdExports } from '../../src/nbd/exports.ts';
import { NbdSession, type SessionSink } from '../../src/nbd/session.ts';
import type { NbdRequest, WAIT } from '../../src/nbd/transmission.ts';
import type { TlsPolicy } from '../../src/nbd/negotiation.ts';

/** Hex digits, with white space anywhere, as bytes. */
export function hex(...parts: string[]): Buffer {
  return Buffer.from(parts.join('').replace(/\s+/g, ''), 'hex');
}

export function u16(value: number): Buffer {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16BE(value);
  return bytes;
}

export function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

export function u64(value: number | bigint): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(BigInt(value));
  return bytes;
}

/** A length of 32 bits and the text. */
export function text(value: string): Buffer {
  return Buffer.concat([u32(Buffer.byteLength(value)), Buffer.from(value)]);
}

export function option(number: number, ...data: Uint8Array[]): Buffer {
  const whole = Buffer.concat(data);
  return Buffer.concat([Buffer.from('IHAVEOPT'), u32(number), u32(whole.length), whole]);
}

export function infoOption(number: number, name: string, ...wanted: number[]): Buffer {
  return option(number, text(name), u16(wanted.length), ...wanted.map(u16));
}

export function contextOption(number: number, name: string, ...queries: string[]): Buffer {
  return option(number, text(name), u32(queries.length), ...queries.map(text));
}

export interface Sent {
  flags?: number;
  command: number;
  cookie?: bigint;
  offset?: number | bigint;
  length?: number;
  payload?: Uint8Array;
}

export function request({ flags = 0, command, cookie = 1n, offset = 0, length, payload }: Sent): Buffer {
  const lengthBytes = length ?? payload?.length ?? 0;
  const head = [u32(0x25609513), u16(flags), u16(command), u64(cookie), u64(offset), u32(lengthBytes)];
  return Buffer.concat([...head, payload ?? new Uint8Array(0)]);
}

export interface OptionReply {
  option: number;
  type: number;
  data: Buffer;
}

/** @throws if the bytes are not a whole number of option replies */
export function optionReplies(bytes: Buffer): OptionReply[] {
  const replies: OptionReply[] = [];
  for (let at = 0; at < bytes.length;) {
    if (bytes.readBigUInt64BE(at) !== 0x3e889045565a9n) throw new Error(`no option reply at ${at}`);
    const length = bytes.readUInt32BE(at + 16);
    const data = bytes.subarray(at + 20, at + 20 + length);
    if (data.length !== length) throw new Error('a reply that is cut short');
    replies.push({ option: bytes.readUInt32BE(at + 8), type: bytes.readUInt32BE(at + 12), data });
    at += 20 + length;
  }
  return replies;
}

export type Seen = Omit<NbdRequest, 'cookieHigh' | 'cookieLow'> & { cookie: bigint; payload?: string };

/** Records everything; `room` says how WRITE payloads are taken. */
export class Recorder implements SessionSink {
  readonly session: NbdSession;
  readonly seen: Seen[] = [];
  agreed: Agreed | null = null;
  tlsStarts = 0;
  end: { soft: boolean; reason: string } | null = null;
  room: (rest: number) => Uint8Array | typeof WAIT = (rest) => new Uint8Array(rest);
  private out: Uint8Array[] = [];
  private parts: Uint8Array[] = [];

  constructor(exports: NbdExports, tls: TlsPolicy = 'off') {
    this.session = new NbdSession(this, exports, { tls });
    this.session.start();
  }

  /** What was sent since the last call. */
  take(): Buffer {
    return Buffer.concat(this.out.splice(0));
  }

  /** Pushes, and gives what was sent in answer. */
  push(...chunks: Uint8Array[]): Buffer {
    for (const chunk of chunks) this.session.push(chunk);
    return this.take();
  }

  send(bytes: Uint8Array): void {
    this.out.push(bytes);
  }
  onStartTls(): void {
    this.tlsStarts++;
  }
  onAgreed(agreed: Agreed): void {
    this.agreed = agreed;
  }
  onPayload(r: NbdRequest, doneBytes: number): Uint8Array | typeof WAIT {
    return this.room(r.lengthBytes - doneBytes);
  }
  onPayloadPart(r: NbdRequest, doneBytes: number, part: Uint8Array): void {
    this.parts.push(part);
    if (doneBytes + part.length < r.lengthBytes) return;
    this.note(r, Buffer.concat(this.parts.splice(0)).toString('hex'));
  }
  onRequest(r: NbdRequest): void {
    this.note(r);
  }
  onEnd(soft: boolean, reason: string): void {
    if (this.end !== null) throw new Error('ended twice');
    this.end = { soft, reason };
  }

  private note({ cookieHigh, cookieLow, ...rest }: NbdRequest, payload?: string): void {
    const cookie = (BigInt(cookieHigh) << 32n) | BigInt(cookieLow);
    this.seen.push({ ...rest, cookie, ...(payload === undefined ? {} : { payload }) });
  }
}

/** The first of them is the default export. */
export function exportsOf(...devices: NbdExport[]): NbdExports {
  return {
    list: () => devices,
    find: (name) => (name === '' ? (devices[0] ?? null) : (devices.find((device) => device.name === name) ?? null)),
  };
}

export const DEMO: NbdExport = { name: 'demo', description: 'a disk', sizeBytes: 1 << 20, readOnly: false };

export interface AgreedWith {
  device?: NbdExport;
  structured?: boolean;
  contexts?: string[];
}

/** A session in the transmission phase. */
export function transmitting({ device = DEMO, structured = false, contexts = [] }: AgreedWith = {}): Recorder {
  const recorder = new Recorder(exportsOf(device));
  recorder.push(u32(3));
  if (structured) recorder.push(option(8));
  if (contexts.length > 0) recorder.push(contextOption(10, device.name, ...contexts));
  recorder.push(infoOption(7, device.name));
  if (recorder.agreed === null) throw new Error('the handshake failed');
  return recorder;
}
