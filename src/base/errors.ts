/**
 * The one table of errors. The wire status, the errno, the NBD error and whether a client may repeat the request all
 * follow from it; the union of codes is derived from it. Numbers are permanent: a retired one stays listed.
 */

interface Row {
  /** Number on the wire, in the status field of a reply. */
  readonly status: number;
  /** Name of the POSIX errno nearest in meaning. */
  readonly errno: string;
  /** Error number of the NBD protocol. */
  readonly nbd: number;
  /** The client library repeats the request (the same session and request number) by itself. */
  readonly retryable: boolean;
  readonly text: string;
}

const row = (status: number, errno: string, nbd: number, retryable: boolean, text: string): Row => ({
  status,
  errno,
  nbd,
  retryable,
  text,
});

export const ERRORS = {
  INVALID_ARGUMENT: row(1, 'EINVAL', 22, false, 'invalid argument'),
  OUT_OF_RANGE: row(2, 'EINVAL', 22, false, 'the range lies past the end of the volume'),
  TOO_LARGE: row(3, 'EOVERFLOW', 75, false, 'the request is larger than the limit'),
  READ_ONLY: row(4, 'EROFS', 1, false, 'the volume is read-only'),
  NO_SUCH_VOLUME: row(5, 'ENOENT', 22, false, 'no such volume'),
  NOT_ATTACHED: row(6, 'ENODEV', 22, false, 'the connection is not attached to a volume'),
  WRONG_VERSION: row(7, 'EPROTONOSUPPORT', 22, false, 'no common protocol version'),
  BAD_FRAME: row(8, 'EBADMSG', 22, false, 'malformed frame'),
  UNSUPPORTED: row(9, 'EOPNOTSUPP', 95, false, 'operation not supported'),
  CORRUPT_BLOCK: row(10, 'EIO', 5, false, 'the block does not match its checksum'),
  IO_ERROR: row(11, 'EIO', 5, false, 'input/output error'),
  POISONED: row(12, 'EIO', 5, false, 'the store stopped after a failed write or fsync'),
  DAMAGED: row(13, 'EUCLEAN', 5, false, 'the store is damaged'),
  NO_SPACE: row(14, 'ENOSPC', 28, false, 'no space left on the device that holds the volume'),
  WRONG_EPOCH: row(15, 'ESTALE', 108, true, 'the request carries another epoch than the volume is in'),
  STALE_GENERATION: row(16, 'ESTALE', 108, false, 'the session was taken over by a newer connection'),
  OUTCOME_UNKNOWN: row(17, 'EIO', 5, false, 'the outcome of the request is unknown'),
  DEADLINE: row(18, 'ETIMEDOUT', 5, false, 'the deadline has passed'),
  SHUTTING_DOWN: row(19, 'ESHUTDOWN', 108, true, 'the server is shutting down'),
  TOO_MANY: row(20, 'EMFILE', 12, false, 'a limit on sessions or connections is reached'),
  NOT_PRIMARY: row(21, 'ENOTCONN', 108, true, 'this node is not primary of the volume'),
  BUSY: row(22, 'EBUSY', 12, true, 'busy'),
  EXISTS: row(23, 'EEXIST', 22, false, 'it exists already'),
  // Codes below never travel as a status of a served request; they arise on one side only. But for ACCESS: a port says
  // it to whom it does not let in, or does not permit something.
  LOCKED: row(40, 'EBUSY', 5, false, 'the volume is in use by another process'),
  NOT_A_VOLUME: row(42, 'EINVAL', 22, false, 'not a Holdfast volume'),
  CONNECTION_LOST: row(43, 'ECONNRESET', 5, true, 'the connection was lost'),
  ABORTED: row(44, 'ECANCELED', 5, false, 'aborted by the caller'),
  CLOSED: row(45, 'EBADF', 5, false, 'the device is closed'),
  UNREACHABLE: row(46, 'EHOSTUNREACH', 5, false, 'no server could be reached'),
  ACCESS: row(47, 'EACCES', 1, false, 'permission denied'),
  WORKER_LOST: row(48, 'EIO', 5, false, 'a worker thread ended'),
  DIVERGED: row(49, 'EIO', 5, false, 'replicas that are in sync hold different bytes'),
} as const satisfies Record<string, Row>;

export type ErrorCode = keyof typeof ERRORS;

const BY_STATUS = new Map<number, ErrorCode>(
  Object.entries(ERRORS).map(([code, r]) => [r.status, code as ErrorCode] as const),
);

/** What happened, where, and what to do about it. All fields are optional; those given appear in the message. */
export interface ErrorDetails {
  operation?: string | undefined;
  volume?: string | undefined;
  offsetBytes?: number | undefined;
  lengthBytes?: number | undefined;
  peer?: string | undefined;
  detail?: string | undefined;
  remedy?: string | undefined;
  cause?: unknown;
}

/** An operating error: something that can happen to a correct program. Programmer errors are assertions instead. */
export class HoldfastError extends Error {
  override readonly name = 'HoldfastError';
  readonly code: ErrorCode;
  readonly details: ErrorDetails;

  constructor(code: ErrorCode, details: ErrorDetails = {}) {
    super(describe(code, details), details.cause === undefined ? undefined : { cause: details.cause });
    this.code = code;
    this.details = details;
  }

  get status(): number {
    return ERRORS[this.code].status;
  }
  /** Name of the errno, e.g. `EIO`. */
  get errno(): string {
    return ERRORS[this.code].errno;
  }
  get nbdError(): number {
    return ERRORS[this.code].nbd;
  }
  get retryable(): boolean {
    return ERRORS[this.code].retryable;
  }

  toJSON(): object {
    const { cause: _cause, ...rest } = this.details;
    return { code: this.code, errno: this.errno, retryable: this.retryable, message: this.message, ...rest };
  }
}

function describe(code: ErrorCode, d: ErrorDetails): string {
  let text = '';
  if (d.operation) {
    text = d.operation;
    if (d.offsetBytes !== undefined) text += ` at offset ${d.offsetBytes}`;
    if (d.lengthBytes !== undefined) text += ` length ${d.lengthBytes}`;
    if (d.volume) text += ` on volume ${d.volume}`;
    if (d.peer) text += ` (peer ${d.peer})`;
    text += ': ';
  }
  text += `${ERRORS[code].text} (${ERRORS[code].errno})`;
  if (d.detail) text += `: ${d.detail}`;
  if (d.remedy) text += `. To remedy: ${d.remedy}`;
  return text;
}

/** The code of a wire status; unknown numbers (a newer server) become IO_ERROR. */
export function codeOfStatus(status: number): ErrorCode {
  return BY_STATUS.get(status) ?? 'IO_ERROR';
}

/** Turns whatever was thrown into a HoldfastError, keeping one that is one already. */
export function asHoldfastError(error: unknown, details: ErrorDetails = {}): HoldfastError {
  if (error instanceof HoldfastError) return error;
  const errno = (error as NodeJS.ErrnoException | null)?.code;
  const aborted = error instanceof Error && error.name === 'AbortError';
  const code: ErrorCode = aborted
    ? 'ABORTED'
    : errno === 'ENOSPC' || errno === 'EDQUOT'
      ? 'NO_SPACE'
      : errno === 'EACCES' || errno === 'EPERM'
        ? 'ACCESS'
        : errno === 'EROFS'
          ? 'READ_ONLY'
          : errno === 'EEXIST'
            ? 'EXISTS'
            : 'IO_ERROR';
  return new HoldfastError(code, {
    detail: error instanceof Error ? error.message : String(error),
    cause: error,
    ...details,
  });
}
