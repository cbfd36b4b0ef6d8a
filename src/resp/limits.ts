/** Every bound of a RESP connection, in one place. A socket owner may hand in others. */
export interface RespLimits {
  /** Of one request, with its name. */
  maxArguments: number;
  /** Of one argument. A little more than a value may have, so that the volume can say what is too large. */
  maxBulkBytes: number;
  /** Of all arguments of one request, each charged 64 bytes more; also of all that a MULTI holds. */
  maxRequestBytes: number;
  /** Commands that were begun and not answered. */
  maxUnderWay: number;
  /** Of the arguments of those. */
  maxUnderWayBytes: number;
  /** Keys that those read or write. A command with more of them is under way alone. */
  maxUnderWayKeys: number;
  /** Replies that wait for one before them. Beyond it nothing is begun. */
  maxHeldBytes: number;
  /** Received and not yet taken apart. From it on the session asks for a pause. */
  pauseAtBytes: number;
  /** Commands of one MULTI. */
  maxQueued: number;
  /** Keys that one client watches. */
  maxWatched: number;
  /** Bytes of the names that KEYS returns, each charged 64 bytes more. */
  maxKeysBytes: number;
  /** Keys that one SCAN looks at. */
  maxScanCount: number;
}

export const RESP_LIMITS: RespLimits = {
  maxArguments: 65_536,
  maxBulkBytes: 1024 * 1024,
  maxRequestBytes: 8 * 1024 * 1024,
  maxUnderWay: 256,
  maxUnderWayBytes: 8 * 1024 * 1024,
  maxUnderWayKeys: 1024,
  maxHeldBytes: 4 * 1024 * 1024,
  pauseAtBytes: 64 * 1024,
  maxQueued: 4096,
  maxWatched: 4096,
  maxKeysBytes: 16 * 1024 * 1024,
  maxScanCount: 10_000,
};

/** What an argument costs besides its bytes. */
export const ARGUMENT_BYTES = 64;
