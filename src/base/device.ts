/**
 * BlockDevice: the waist of the house. The local store, a replicated volume and the client library implement it; the
 * NBD export, the command line, the benches and the fault injectors consume it.
 *
 * Guarantees every implementation gives: a resolved write, zero or trim is durable; a write of at most 256 KiB is
 * all or nothing whatever its alignment (a longer one is cut at multiples of 256 KiB); reads see every write that was
 * resolved before the read was called; never-written and zeroed bytes read as zeros. Offsets and lengths are bytes,
 * of any alignment. A rejected write has unknown outcome, unless its error says that it was refused before it ran
 * (OUT_OF_RANGE, INVALID_ARGUMENT, READ_ONLY, CLOSED).
 */
export interface CallOptions {
  /** Gives up waiting. A write that was given up has unknown outcome. */
  signal?: AbortSignal | undefined;
  /** Gives up after so many milliseconds with DEADLINE. */
  deadlineMs?: number | undefined;
}

/** A run of bytes of one kind. `hole`: never written or zeroed, reads as zeros. */
export interface Extent {
  offsetBytes: number;
  lengthBytes: number;
  kind: 'data' | 'hole';
}

/** A run of bytes that changed since a mark (or may have), or did not. */
export interface ChangedExtent {
  offsetBytes: number;
  lengthBytes: number;
  changed: boolean;
}

export interface ExtentOptions extends CallOptions {
  /** Stop after so many extents (at least 1); the answer may then cover less than was asked. Default 4096. */
  limit?: number | undefined;
}

export interface BlockDevice {
  readonly sizeBytes: number;
  /** Bytes per block: aligned operations of whole blocks are the fast path. */
  readonly blockBytes: number;
  /** Bytes up to which a write is atomic. */
  readonly atomicBytes: number;
  readonly readOnly: boolean;
  /** @returns exactly `lengthBytes` bytes, the caller's own */
  read(offsetBytes: number, lengthBytes: number, options?: CallOptions): Promise<Uint8Array>;
  /** The bytes are copied or sent before the promise settles; they must not be changed until then. */
  write(offsetBytes: number, bytes: Uint8Array, options?: CallOptions): Promise<void>;
  /** Writes are durable when answered, so this only waits for those called before it. */
  flush(options?: CallOptions): Promise<void>;
  /** Makes the range read as zeros. */
  zero(offsetBytes: number, lengthBytes: number, options?: CallOptions): Promise<void>;
  /** The content is no longer needed. Whole blocks inside the range read as zeros afterwards; partial edges keep theirs. */
  trim(offsetBytes: number, lengthBytes: number, options?: CallOptions): Promise<void>;
  /** Extents from `offsetBytes` on, adjacent ones of one kind merged, clipped to the range. */
  extents(offsetBytes: number, lengthBytes: number, options?: ExtentOptions): Promise<Extent[]>;
  close(): Promise<void>;
}
