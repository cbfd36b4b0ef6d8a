/**
 * The numbers of the NBD protocol, as tables. They are permanent and come from the specification (`doc/proto.md` of the
 * NBD project); numbers that belong to experimental extensions are listed only where a client is likely to send them.
 * Sizes at the end are this server's own limits.
 */
import { MiB } from '../base/units.ts';

/** 64-bit magic numbers, as high and low half. */
export const MAGIC = {
  /** `NBDMAGIC` */
  INIT: [0x4e42444d, 0x41474943],
  /** `IHAVEOPT`: in the greeting, and in front of every option. */
  OPTION: [0x49484156, 0x454f5054],
  OPTION_REPLY: [0x0003e889, 0x045565a9],
} as const;

/** 32-bit magic numbers of the transmission phase. */
export const REQUEST_MAGIC = 0x25609513;
export const SIMPLE_REPLY_MAGIC = 0x67446698;
export const STRUCTURED_REPLY_MAGIC = 0x668e33ef;

/** Sent by the server with the greeting. */
export const HANDSHAKE_FLAGS = { FIXED_NEWSTYLE: 1, NO_ZEROES: 2 } as const;
/** The client's answer to it. */
export const CLIENT_FLAGS = { FIXED_NEWSTYLE: 1, NO_ZEROES: 2 } as const;

export const TRANSMISSION_FLAGS = {
  HAS_FLAGS: 1 << 0,
  READ_ONLY: 1 << 1,
  SEND_FLUSH: 1 << 2,
  SEND_FUA: 1 << 3,
  ROTATIONAL: 1 << 4,
  SEND_TRIM: 1 << 5,
  SEND_WRITE_ZEROES: 1 << 6,
  SEND_DF: 1 << 7,
  CAN_MULTI_CONN: 1 << 8,
  SEND_CACHE: 1 << 10,
  SEND_FAST_ZERO: 1 << 11,
} as const;

export const OPTIONS = {
  EXPORT_NAME: 1,
  ABORT: 2,
  LIST: 3,
  /** Withdrawn. */
  PEEK_EXPORT: 4,
  STARTTLS: 5,
  INFO: 6,
  GO: 7,
  STRUCTURED_REPLY: 8,
  LIST_META_CONTEXT: 9,
  SET_META_CONTEXT: 10,
  /** Experimental; answered ERR_UNSUP. */
  EXTENDED_HEADERS: 11,
} as const;

export const OPTION_REPLIES = {
  ACK: 1,
  SERVER: 2,
  INFO: 3,
  META_CONTEXT: 4,
  ERR_UNSUP: 0x8000_0001,
  ERR_POLICY: 0x8000_0002,
  ERR_INVALID: 0x8000_0003,
  ERR_PLATFORM: 0x8000_0004,
  ERR_TLS_REQD: 0x8000_0005,
  ERR_UNKNOWN: 0x8000_0006,
  ERR_SHUTDOWN: 0x8000_0007,
  ERR_BLOCK_SIZE_REQD: 0x8000_0008,
  ERR_TOO_BIG: 0x8000_0009,
} as const;

/** Information requests of INFO and GO. */
export const INFO = { EXPORT: 0, NAME: 1, DESCRIPTION: 2, BLOCK_SIZE: 3 } as const;

export const COMMANDS = {
  READ: 0,
  WRITE: 1,
  DISC: 2,
  FLUSH: 3,
  TRIM: 4,
  CACHE: 5,
  WRITE_ZEROES: 6,
  BLOCK_STATUS: 7,
} as const;

export const COMMAND_FLAGS = { FUA: 1, NO_HOLE: 2, DF: 4, REQ_ONE: 8, FAST_ZERO: 16 } as const;

/** Flag of a chunk: the last of its reply. */
export const REPLY_FLAG_DONE = 1;

export const CHUNKS = {
  NONE: 0,
  OFFSET_DATA: 1,
  OFFSET_HOLE: 2,
  BLOCK_STATUS: 5,
  ERROR: 0x8001,
  ERROR_OFFSET: 0x8002,
} as const;

/** All error numbers that a reply may carry. */
export const NBD_ERRORS = {
  EPERM: 1,
  EIO: 5,
  ENOMEM: 12,
  EINVAL: 22,
  ENOSPC: 28,
  EOVERFLOW: 75,
  ENOTSUP: 95,
  ESHUTDOWN: 108,
} as const;

/** Status flags of the context `base:allocation`. */
export const ALLOCATION = { HOLE: 1, ZERO: 2 } as const;
/** Status flag of the contexts `qemu:dirty-bitmap:NAME`. */
export const DIRTY = 1;

/** A string (name of an export, of a context, a message) has at most so many bytes. */
export const MAX_STRING_BYTES = 4096;
/** The data of an option is held up to this size; longer data is skipped and the option refused. */
export const MAX_OPTION_BYTES = 64 * 1024;
/** An option that announces more than this ends the connection. */
export const MAX_SKIPPED_OPTION_BYTES = 1 * MiB;
/** More options than this in one handshake end the connection. */
export const MAX_OPTIONS = 64;
/** At most so many metadata contexts are selected at a time. */
export const MAX_CONTEXTS = 16;
/** Block sizes as told to clients. */
export const MIN_BLOCK_BYTES = 1;
export const PREFERRED_BLOCK_BYTES = 4096;
/** Largest READ, and largest payload of a WRITE. */
export const MAX_PAYLOAD_BYTES = 32 * MiB;
/** The payload of a refused WRITE is skipped up to this size; a longer one ends the connection. */
export const MAX_SKIPPED_PAYLOAD_BYTES = 2 * MAX_PAYLOAD_BYTES;
/** Descriptors in one BLOCK_STATUS chunk; the specification allows 2^20. */
export const MAX_DESCRIPTORS = 65_536;
