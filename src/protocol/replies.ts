/**
 * Whole frames of control messages, and errors as payloads. Pure.
 *
 * Guarantees: an error's payload is at most MAX_ERROR_BYTES long, whatever its texts are; an error decodes to the same
 * code, offset, length, detail and remedy (cut to their limits), an unknown status to IO_ERROR with its text.
 */
import { crc32 } from '../base/checksum.ts';
import { codeOfStatus, ERRORS, HoldfastError } from '../base/errors.ts';
import { ByteReader, ByteWriter } from './codec.ts';
import { encodeHeader, HEADER_BYTES, type HeaderFields } from './frame.ts';
import { MAX_ERROR_BYTES, MESSAGES, REPLY_BIT } from './messages.ts';

/** Bytes of the texts of an error payload; together with the numbers they stay below MAX_ERROR_BYTES. */
const MAX_TEXT_BYTES = 1200;
const HAS_OFFSET = 1;
const HAS_LENGTH = 2;

/** A frame of its own: header and payload in one array. Length and CRC of the payload are filled in. */
export function encodeFrame(
  fields: Omit<HeaderFields, 'payloadBytes' | 'payloadCrc'>,
  payload: Uint8Array | null = null,
): Uint8Array {
  const payloadBytes = payload?.length ?? 0;
  const frame = new Uint8Array(HEADER_BYTES + payloadBytes);
  if (payload !== null) frame.set(payload, HEADER_BYTES);
  encodeHeader(frame, 0, { ...fields, payloadBytes, payloadCrc: payload === null ? 0 : crc32(payload) });
  return frame;
}

/** What of a request its reply repeats. A FrameHeader fits. */
export interface Answered {
  /** Without REPLY_BIT. */
  type: number;
  requestId: number;
  offset: number;
  count: number;
}

/** The reply with status 0. `epoch`: the volume's. */
export function encodeReply(request: Answered, epoch: number, payload: Uint8Array | null = null): Uint8Array {
  const { type, requestId, offset, count } = request;
  return encodeFrame({ type: type | REPLY_BIT, requestId, epoch, offset, count }, payload);
}

/** The reply that refuses a request, or says that it failed. */
export function encodeErrorReply(request: Answered, epoch: number, error: HoldfastError): Uint8Array {
  const { type, requestId, offset, count } = request;
  const fields = { type: type | REPLY_BIT, requestId, epoch, offset, count, status: error.status };
  return encodeFrame(fields, encodeError(error));
}

/** The server's last frame on a connection: why it closes it. */
export function encodeGoodbye(error: HoldfastError): Uint8Array {
  const fields = { type: MESSAGES.GOODBYE.number | REPLY_BIT, requestId: 0, status: error.status };
  return encodeFrame(fields, encodeError(error));
}

export function encodeError(error: HoldfastError): Uint8Array {
  const { offsetBytes, lengthBytes, detail, remedy } = error.details;
  const offset = asU64(offsetBytes);
  const length = asU64(lengthBytes);
  const w = new ByteWriter(MAX_ERROR_BYTES);
  w.string(error.message, MAX_TEXT_BYTES);
  w.u8((offset === null ? 0 : HAS_OFFSET) | (length === null ? 0 : HAS_LENGTH));
  if (offset !== null) w.number(offset);
  if (length !== null) w.number(length);
  return w
    .string(detail ?? '', MAX_TEXT_BYTES)
    .string(remedy ?? '', MAX_TEXT_BYTES)
    .finish();
}

/** A caller may ask for NaN or 1.5 bytes; the error about that must still be encodable. */
function asU64(value: number | undefined): number | null {
  return value !== undefined && Number.isSafeInteger(value) && value >= 0 ? value : null;
}

/**
 * The error that a reply or GOODBYE carries. `operation` and `peer` are the receiver's knowledge.
 * @throws HoldfastError BAD_FRAME
 */
export function decodeError(
  status: number,
  payload: Uint8Array | null,
  where: { operation?: string; peer?: string; volume?: string } = {},
): HoldfastError {
  const code = codeOfStatus(status);
  if (payload === null) return new HoldfastError(code, { ...where });
  const r = new ByteReader(payload, 'error');
  const message = r.string(MAX_ERROR_BYTES);
  const has = r.u8();
  if ((has & ~(HAS_OFFSET | HAS_LENGTH)) !== 0) r.fail('unknown fields');
  const offsetBytes = has & HAS_OFFSET ? r.number() : undefined;
  const lengthBytes = has & HAS_LENGTH ? r.number() : undefined;
  const detail = r.string(MAX_ERROR_BYTES);
  const remedy = r.string(MAX_ERROR_BYTES);
  r.end();
  const known = ERRORS[code].status === status;
  return new HoldfastError(code, {
    ...where,
    offsetBytes,
    lengthBytes,
    detail: known ? detail || undefined : `status ${status}: ${message}`,
    remedy: remedy || undefined,
  });
}
