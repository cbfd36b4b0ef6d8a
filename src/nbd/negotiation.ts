/**
 * The handshake, fixed newstyle: a machine of four states, bytes in, replies out.
 *
 * Guarantees: any fragmentation gives the same replies; what is held of an option is bounded (MAX_OPTION_BYTES), and so
 * is the number of options; under `require` nothing about the exports is told before TLS is up; what was agreed before
 * TLS is forgotten with it, and bytes that arrive between the consent to TLS and TLS itself end the session, so nothing
 * that was sent in the clear is taken for something said under TLS.
 */
import { concat, decodeText, encodeText, get32, put16, put32, put64 } from './big-endian.ts';
import {
  CLIENT_FLAGS,
  HANDSHAKE_FLAGS,
  INFO,
  MAGIC,
  MAX_CONTEXTS,
  MAX_OPTIONS,
  MAX_OPTION_BYTES,
  MAX_PAYLOAD_BYTES,
  MAX_SKIPPED_OPTION_BYTES,
  MAX_STRING_BYTES,
  MIN_BLOCK_BYTES,
  OPTIONS,
  OPTION_REPLIES,
  PREFERRED_BLOCK_BYTES,
} from './constants.ts';
import {
  type Agreed,
  type MetaContext,
  type NbdExport,
  type NbdExports,
  contextsOf,
  listedBy,
  transmissionFlags,
} from './exports.ts';
import { parseContextRequest, parseInfoRequest } from './option-data.ts';

/** `require`: nothing but STARTTLS and ABORT before TLS is up. `off`: STARTTLS is refused. */
export type TlsPolicy = 'require' | 'allow' | 'off';

export interface NegotiationSink {
  /** Bytes for the client, the sink's own. */
  send(bytes: Uint8Array): void;
  /** The client was told to begin with TLS: once what was sent is out, the connection is to be upgraded. */
  onStartTls(): void;
  /** The transmission phase begins with the next byte. */
  onAgreed(agreed: Agreed): void;
  /** The session is over. `soft`: the client asked for it. */
  onEnd(soft: boolean, reason: string): void;
}

const CLIENT_FLAGS_BYTES = 4;
const OPTION_HEADER_BYTES = 16;
const RESERVED_BYTES = 124;
const NONE = new Uint8Array(0);

export class Negotiation {
  private readonly sink: NegotiationSink;
  private readonly exports: NbdExports;
  private readonly tlsPolicy: TlsPolicy;
  private state: 'client-flags' | 'option' | 'starting-tls' | 'over' = 'client-flags';
  private clientFlags = 0;
  /** Client flags or the header of an option, that came in pieces or not. */
  private readonly head = new Uint8Array(OPTION_HEADER_BYTES);
  private headBytes = 0;
  /** The option whose data is coming in; -1 between options. */
  private option = -1;
  private data: Uint8Array = NONE;
  private dataBytes = 0;
  /** Data of an oversized option that is still to be skipped. */
  private skipBytes = 0;
  private options = 0;
  private tls = false;
  private structuredReplies = false;
  /** What SET_META_CONTEXT selected, and the name of the export for which it did. */
  private contexts: readonly MetaContext[] = [];
  private contextsOf: string | null = null;
  private shuttingDown = false;

  constructor(sink: NegotiationSink, exports: NbdExports, tlsPolicy: TlsPolicy) {
    this.sink = sink;
    this.exports = exports;
    this.tlsPolicy = tlsPolicy;
  }

  /** Sends the greeting. */
  start(): void {
    const greeting = new Uint8Array(18);
    putMagic(greeting, 0, MAGIC.INIT);
    putMagic(greeting, 8, MAGIC.OPTION);
    put16(greeting, 16, HANDSHAKE_FLAGS.FIXED_NEWSTYLE | HANDSHAKE_FLAGS.NO_ZEROES);
    this.sink.send(greeting);
  }

  /** TLS is up; the bytes from now on are those that came through it. */
  tlsUp(): void {
    if (this.state !== 'starting-tls') throw new Error('TLS was not agreed on');
    this.state = 'option';
    this.tls = true;
    this.structuredReplies = false;
    this.forgetContexts();
  }

  /** Options are answered ERR_SHUTDOWN from now on. */
  shutDown(): void {
    this.shuttingDown = true;
  }

  /** Nothing more is delivered, for good. */
  close(): void {
    this.state = 'over';
    this.data = NONE;
  }

  /**
   * Takes the bytes of `chunk` from `from` on. They are not referred to afterwards.
   * @returns index of the first byte that was not consumed: less than `chunk.length` only after `onAgreed`
   */
  push(chunk: Uint8Array, from = 0): number {
    let at = from;
    while (at < chunk.length) {
      if (this.state === 'over') return at;
      if (this.state === 'starting-tls') {
        this.end(false, 'bytes in the clear after the consent to TLS');
        return chunk.length;
      }
      if (this.skipBytes > 0) {
        const step = Math.min(this.skipBytes, chunk.length - at);
        this.skipBytes -= step;
        at += step;
        if (this.skipBytes === 0) this.finishSkipped();
      } else if (this.option >= 0) {
        const step = Math.min(this.data.length - this.dataBytes, chunk.length - at);
        this.data.set(chunk.subarray(at, at + step), this.dataBytes);
        this.dataBytes += step;
        at += step;
        if (this.dataBytes === this.data.length) this.finishOption();
      } else {
        const wanted = this.state === 'client-flags' ? CLIENT_FLAGS_BYTES : OPTION_HEADER_BYTES;
        const step = Math.min(wanted - this.headBytes, chunk.length - at);
        this.head.set(chunk.subarray(at, at + step), this.headBytes);
        this.headBytes += step;
        at += step;
        if (this.headBytes < wanted) continue;
        this.headBytes = 0;
        if (this.state === 'client-flags') this.takeClientFlags(get32(this.head, 0));
        else this.takeOptionHeader();
      }
    }
    return at;
  }

  private takeClientFlags(flags: number): void {
    if ((flags & ~(CLIENT_FLAGS.FIXED_NEWSTYLE | CLIENT_FLAGS.NO_ZEROES)) !== 0) {
      return this.end(false, `unknown client flags 0x${flags.toString(16)}`);
    }
    this.clientFlags = flags;
    this.state = 'option';
  }

  private takeOptionHeader(): void {
    if (get32(this.head, 0) !== MAGIC.OPTION[0] || get32(this.head, 4) !== MAGIC.OPTION[1]) {
      return this.end(false, 'these bytes are not an option');
    }
    if (++this.options > MAX_OPTIONS) return this.end(false, `more than ${MAX_OPTIONS} options`);
    const lengthBytes = get32(this.head, 12);
    if (lengthBytes > MAX_SKIPPED_OPTION_BYTES) return this.end(false, `an option of ${lengthBytes} bytes`);
    this.option = get32(this.head, 8);
    if (lengthBytes > MAX_OPTION_BYTES) {
      this.skipBytes = lengthBytes;
      return;
    }
    this.data = lengthBytes === 0 ? NONE : new Uint8Array(lengthBytes);
    this.dataBytes = 0;
    if (lengthBytes === 0) this.finishOption();
  }

  private finishSkipped(): void {
    const option = this.option;
    this.option = -1;
    // The options that change what is agreed replace it also when they fail.
    if (option === OPTIONS.SET_META_CONTEXT) this.forgetContexts();
    if (option === OPTIONS.EXPORT_NAME) return this.end(false, 'the name of the export is too long');
    if (option === OPTIONS.ABORT) return this.abort();
    this.refuse(option, this.needsTls(option) ? 'ERR_TLS_REQD' : 'ERR_TOO_BIG', 'the option is too long');
  }

  private finishOption(): void {
    const { option, data } = this;
    this.option = -1;
    this.data = NONE;
    if (option === OPTIONS.ABORT) return this.abort();
    if (this.needsTls(option)) {
      if (option === OPTIONS.EXPORT_NAME) return this.end(false, 'an export was asked for without TLS');
      return this.refuse(option, 'ERR_TLS_REQD', 'TLS is required');
    }
    if (this.shuttingDown) {
      if (option === OPTIONS.EXPORT_NAME) return this.end(false, 'shutting down');
      return this.refuse(option, 'ERR_SHUTDOWN', 'the server is shutting down');
    }
    if (option !== OPTIONS.EXPORT_NAME && (this.clientFlags & CLIENT_FLAGS.FIXED_NEWSTYLE) === 0) {
      return this.refuse(option, 'ERR_INVALID', 'the client did not set FIXED_NEWSTYLE');
    }
    switch (option) {
      case OPTIONS.EXPORT_NAME:
        return this.exportName(data);
      case OPTIONS.LIST:
        return this.list(data);
      case OPTIONS.STARTTLS:
        return this.startTls(data);
      case OPTIONS.INFO:
      case OPTIONS.GO:
        return this.info(option, data);
      case OPTIONS.STRUCTURED_REPLY:
        if (data.length > 0) return this.refuse(option, 'ERR_INVALID', 'STRUCTURED_REPLY has no data');
        this.structuredReplies = true;
        return this.reply(option, OPTION_REPLIES.ACK);
      case OPTIONS.LIST_META_CONTEXT:
      case OPTIONS.SET_META_CONTEXT:
        return this.metaContext(option, data);
      default:
        return this.refuse(option, 'ERR_UNSUP', `option ${option} is not supported`);
    }
  }

  private needsTls(option: number): boolean {
    return this.tlsPolicy === 'require' && !this.tls && option !== OPTIONS.STARTTLS;
  }

  private abort(): void {
    this.reply(OPTIONS.ABORT, OPTION_REPLIES.ACK);
    this.end(true, 'the client aborted the handshake');
  }

  private exportName(data: Uint8Array): void {
    const name = data.length > MAX_STRING_BYTES ? null : decodeText(data);
    const found = name === null ? null : this.exports.find(name);
    if (found === null) return this.end(false, 'no such export');
    const zeroes = (this.clientFlags & CLIENT_FLAGS.NO_ZEROES) === 0 ? RESERVED_BYTES : 0;
    const bytes = new Uint8Array(10 + zeroes);
    put64(bytes, 0, found.sizeBytes);
    put16(bytes, 8, transmissionFlags(found, this.structuredReplies));
    this.sink.send(bytes);
    this.agree(found);
  }

  private list(data: Uint8Array): void {
    if (data.length > 0) return this.refuse(OPTIONS.LIST, 'ERR_INVALID', 'LIST has no data');
    for (const { name, description } of this.exports.list()) {
      const nameBytes = encodeText(name);
      const length = new Uint8Array(4);
      put32(length, 0, nameBytes.length);
      this.reply(OPTIONS.LIST, OPTION_REPLIES.SERVER, concat(length, nameBytes, encodeText(description ?? '')));
    }
    this.reply(OPTIONS.LIST, OPTION_REPLIES.ACK);
  }

  private startTls(data: Uint8Array): void {
    const option = OPTIONS.STARTTLS;
    if (data.length > 0) return this.refuse(option, 'ERR_INVALID', 'STARTTLS has no data');
    if (this.tls) return this.refuse(option, 'ERR_INVALID', 'TLS is up already');
    if (this.tlsPolicy === 'off') return this.refuse(option, 'ERR_POLICY', 'this server does without TLS');
    this.state = 'starting-tls';
    this.reply(option, OPTION_REPLIES.ACK);
    this.sink.onStartTls();
  }

  private info(option: number, data: Uint8Array): void {
    const asked = parseInfoRequest(data);
    if (asked === null) return this.refuse(option, 'ERR_INVALID', 'malformed request for information');
    const found = this.exports.find(asked.name);
    if (found === null) return this.refuse(option, 'ERR_UNKNOWN', 'no such export');
    this.sendInfo(option, found, asked.wanted);
    this.reply(option, OPTION_REPLIES.ACK);
    if (option === OPTIONS.GO) this.agree(found);
  }

  private sendInfo(option: number, found: NbdExport, wanted: ReadonlySet<number>): void {
    const item = (type: number, value: Uint8Array): void => {
      const head = new Uint8Array(2);
      put16(head, 0, type);
      this.reply(option, OPTION_REPLIES.INFO, concat(head, value));
    };
    const facts = new Uint8Array(10);
    put64(facts, 0, found.sizeBytes);
    put16(facts, 8, transmissionFlags(found, this.structuredReplies));
    item(INFO.EXPORT, facts);
    if (wanted.has(INFO.NAME)) item(INFO.NAME, encodeText(found.name));
    if (wanted.has(INFO.DESCRIPTION) && found.description !== undefined) {
      item(INFO.DESCRIPTION, encodeText(found.description));
    }
    if (wanted.has(INFO.BLOCK_SIZE)) {
      const sizes = new Uint8Array(12);
      put32(sizes, 0, MIN_BLOCK_BYTES);
      put32(sizes, 4, PREFERRED_BLOCK_BYTES);
      put32(sizes, 8, MAX_PAYLOAD_BYTES);
      item(INFO.BLOCK_SIZE, sizes);
    }
  }

  private metaContext(option: number, data: Uint8Array): void {
    const set = option === OPTIONS.SET_META_CONTEXT;
    if (set) this.forgetContexts();
    if (!this.structuredReplies) return this.refuse(option, 'ERR_INVALID', 'structured replies come first');
    const asked = parseContextRequest(data);
    if (asked === null) return this.refuse(option, 'ERR_INVALID', 'malformed request for contexts');
    const found = this.exports.find(asked.name);
    if (found === null) return this.refuse(option, 'ERR_UNKNOWN', 'no such export');
    const queries = new Set(asked.queries);
    const all = contextsOf(found);
    const chosen = all.filter((context) => (set ? queries.has(context.name) : listedBy(queries, context)));
    if (set && chosen.length > MAX_CONTEXTS) {
      return this.refuse(option, 'ERR_TOO_BIG', `at most ${MAX_CONTEXTS} contexts at a time`);
    }
    for (const context of chosen) {
      const id = new Uint8Array(4);
      put32(id, 0, set ? context.id : 0);
      this.reply(option, OPTION_REPLIES.META_CONTEXT, concat(id, encodeText(context.name)));
    }
    if (set) {
      this.contexts = chosen;
      this.contextsOf = found.name;
    }
    this.reply(option, OPTION_REPLIES.ACK);
  }

  private forgetContexts(): void {
    this.contexts = [];
    this.contextsOf = null;
  }

  private agree(found: NbdExport): void {
    this.close();
    this.sink.onAgreed({
      export: found,
      structuredReplies: this.structuredReplies,
      // Contexts of another export than the one that is used in the end count for nothing.
      contexts: this.contextsOf === found.name ? this.contexts : [],
      tls: this.tls,
    });
  }

  private end(soft: boolean, reason: string): void {
    this.close();
    this.sink.onEnd(soft, reason);
  }

  private refuse(option: number, error: Extract<keyof typeof OPTION_REPLIES, `ERR_${string}`>, text: string): void {
    this.reply(option, OPTION_REPLIES[error], encodeText(text));
  }

  private reply(option: number, type: number, data: Uint8Array = NONE): void {
    const bytes = new Uint8Array(20 + data.length);
    putMagic(bytes, 0, MAGIC.OPTION_REPLY);
    put32(bytes, 8, option);
    put32(bytes, 12, type);
    put32(bytes, 16, data.length);
    bytes.set(data, 20);
    this.sink.send(bytes);
  }
}

function putMagic(into: Uint8Array, at: number, [high, low]: readonly [number, number]): void {
  put32(into, at, high);
  put32(into, at + 4, low);
}
