/**
 * The table of messages: every number, limit and property of the protocol's requests follows from it. Pure.
 *
 * Guarantees: numbers are permanent, a retired one stays listed; no payload is longer than the limits given here, so
 * that a receiver knows from the header alone whether a frame is acceptable, before it allocates anything.
 * All lengths are bytes.
 */
import { KiB, MAX_IO_BYTES } from '../base/units.ts';

/** "HF" as it lies on the wire. */
export const MAGIC = 0x4648;
/** The lowest and the highest protocol version that this code speaks. */
export const MIN_VERSION = 1;
export const MAX_VERSION = 1;
/** The version byte of every frame header so far; HELLO and its reply carry it in all versions. */
export const HEADER_VERSION = 1;
/** Every frame from the server carries this bit in its type. */
export const REPLY_BIT = 0x80;

/** Payload of a reply whose status is not 0, and of GOODBYE. */
export const MAX_ERROR_BYTES = 4 * KiB;
/** Payload of a message that carries neither block data nor an error. */
export const MAX_CONTROL_BYTES = 64 * KiB;
/** Payload of a key-value request or reply. */
export const MAX_KV_BYTES: number = 1024 * KiB;
/** Extents in one reply. */
export const MAX_EXTENTS = 8192;
/** Names of volumes, clients and servers, as UTF-8. */
export const MAX_NAME_BYTES = 255;
/** Mutations of a session in flight lie within so many numbers above the lowest unanswered one. */
export const SESSION_WINDOW = 1024;
/** By convention the request ids of what is no mutation start here, apart from the mutations' numbers. */
export const FIRST_FREE_ID = 2 ** 52;

interface Row {
  /** The type field of a request; the reply's is the same with REPLY_BIT. */
  readonly number: number;
  /** Least and greatest payload of a request. */
  readonly request: readonly [number, number];
  /** Least and greatest payload of a reply with status 0. */
  readonly reply: readonly [number, number];
  /** It changes the volume: its request id is its number in the session, and it is executed at most once. */
  readonly mutation: boolean;
  /** It needs an attached volume. */
  readonly attached: boolean;
  /** The payload of this direction is as long as the header's count says. */
  readonly counted: 'request' | 'reply' | null;
  /** Only the server sends it, and nobody answers it. */
  readonly unsolicited: boolean;
}

const NONE = [0, 0] as const;
const CONTROL = [1, MAX_CONTROL_BYTES] as const;
const KV = [1, MAX_KV_BYTES] as const;
const PLAIN = { mutation: false, attached: false, counted: null, unsolicited: false } as const;
const ON_VOLUME = { ...PLAIN, attached: true } as const;
const MUTATION = { ...ON_VOLUME, mutation: true } as const;

export const MESSAGES = {
  HELLO: { number: 1, request: CONTROL, reply: CONTROL, ...PLAIN },
  ATTACH: { number: 2, request: CONTROL, reply: CONTROL, ...PLAIN },
  LIST: { number: 3, request: NONE, reply: CONTROL, ...PLAIN },
  INFO: { number: 4, request: CONTROL, reply: CONTROL, ...PLAIN },
  PING: { number: 5, request: NONE, reply: NONE, ...PLAIN },
  GOODBYE: { number: 6, request: NONE, reply: [0, MAX_ERROR_BYTES], ...PLAIN, unsolicited: true },
  LOCATE: { number: 7, request: CONTROL, reply: CONTROL, ...PLAIN },
  ADMIN: { number: 8, request: CONTROL, reply: CONTROL, ...PLAIN },
  AUTH: { number: 9, request: [2, 512], reply: NONE, ...PLAIN },
  READ: { number: 16, request: NONE, reply: [0, MAX_IO_BYTES], ...ON_VOLUME, counted: 'reply' },
  WRITE: { number: 17, request: [1, MAX_IO_BYTES], reply: NONE, ...MUTATION, counted: 'request' },
  FLUSH: { number: 18, request: NONE, reply: NONE, ...ON_VOLUME },
  ZERO: { number: 19, request: NONE, reply: NONE, ...MUTATION },
  TRIM: { number: 20, request: NONE, reply: NONE, ...MUTATION },
  EXTENTS: { number: 21, request: [4, 4], reply: CONTROL, ...ON_VOLUME },
  MARK: { number: 22, request: CONTROL, reply: NONE, ...MUTATION },
  MARKS: { number: 23, request: NONE, reply: CONTROL, ...ON_VOLUME },
  CHANGES: { number: 24, request: CONTROL, reply: CONTROL, ...ON_VOLUME },
  KV_READ: { number: 32, request: KV, reply: KV, ...ON_VOLUME },
  KV_EXECUTE: { number: 33, request: KV, reply: KV, ...MUTATION },
} as const satisfies Record<string, Row>;

export type MessageName = keyof typeof MESSAGES;
export type Message = Row & { readonly name: MessageName };

/** By number, without REPLY_BIT; undefined for a number that is no message. */
export const MESSAGE_BY_NUMBER: ReadonlyArray<Message | undefined> = (() => {
  const rows: Array<Message | undefined> = Array.from({ length: REPLY_BIT }, () => undefined);
  for (const [name, row] of Object.entries(MESSAGES)) rows[row.number] = { ...row, name: name as MessageName };
  return rows;
})();

/** `READ`, or `type 99` for a number that is no message. For texts. */
export function messageName(type: number): string {
  return MESSAGE_BY_NUMBER[type & ~REPLY_BIT]?.name ?? `type ${type}`;
}
