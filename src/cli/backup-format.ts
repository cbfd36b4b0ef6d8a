/**
 * The bytes of a backup file (docs/backup.md): records, each a head of 40 bytes and a payload.
 *
 * Guarantees: what is encoded here decodes to the same; any other bytes decode to a value within the stated bounds or to
 * a refusal in words. All numbers are little-endian and unsigned.
 */
import { crc32 } from '../base/checksum.ts';
import type { Position } from '../base/position.ts';
import { BLOCK_BYTES, KiB, MAX_VOLUME_BYTES } from '../base/units.ts';

export const FORMAT = 1;
export const HEAD_BYTES = 40;
/** Blocks of one run of data: a request's worth. */
export const MAX_RUN_BLOCKS = 64;
/** Of the JSON in a header or a trailer. */
export const MAX_TEXT_BYTES: number = 64 * KiB;
/** "HFBK" as it lies in the file. */
const MAGIC = 0x4b424648;
const MAX_BLOCKS = MAX_VOLUME_BYTES / BLOCK_BYTES;
const MAX_MARKS = 64;

/** Numbers are permanent. */
export const KINDS = { HEADER: 1, PASS: 2, DATA: 3, ZEROS: 4, TRAILER: 5 } as const;
export type RecordKind = (typeof KINDS)[keyof typeof KINDS];

export interface Head {
  kind: RecordKind;
  /** 0, 1, 2 ...: a record that was left out or put elsewhere is found. */
  index: number;
  firstBlock: number;
  blockCount: number;
  payloadBytes: number;
  payloadCrc: number;
}

/** A mark that was set when the copy began. */
export interface BackupMark {
  name: string;
  position: Position;
}

/** What is known when a copy begins. */
export interface BackupHeader {
  format: number;
  /** 32 hexadecimal digits. */
  volumeId: string;
  volume: string;
  sizeBytes: number;
  blockBytes: number;
  /** Of an incremental file: it holds what changed behind that mark. Null: a full one. */
  since: BackupMark | null;
  /** Those that later incremental files may begin at. */
  marks: BackupMark[];
  startedAt: string;
  writtenBy: string;
}

/** What is known when it ends. */
export interface BackupTrailer {
  /** Every block is as it was at `position`. False: blocks are of different moments. */
  consistent: boolean;
  position: Position;
  passes: number;
  dataBlocks: number;
  zeroBlocks: number;
  endedAt: string;
  /** Of all bytes before the trailer. */
  bytes: number;
  sha256: string;
}

export function encodeHead(head: Head): Buffer {
  const bytes = Buffer.alloc(HEAD_BYTES);
  bytes.writeUInt32LE(MAGIC, 0);
  bytes.writeUInt32LE(head.kind, 4);
  bytes.writeBigUInt64LE(BigInt(head.index), 8);
  bytes.writeBigUInt64LE(BigInt(head.firstBlock), 16);
  bytes.writeUInt32LE(head.blockCount, 24);
  bytes.writeUInt32LE(head.payloadBytes, 28);
  bytes.writeUInt32LE(head.payloadCrc, 32);
  bytes.writeUInt32LE(crc32(bytes.subarray(0, 36)), 36);
  return bytes;
}

/** @param bytes HEAD_BYTES of them. @returns a head that is sound in itself, or what is wrong with it */
export function decodeHead(bytes: Buffer): Head | string {
  if (bytes.readUInt32LE(0) !== MAGIC) return 'no record begins here';
  if (bytes.readUInt32LE(36) !== crc32(bytes.subarray(0, 36))) return 'the head of a record does not match its CRC';
  const head: Head = {
    kind: bytes.readUInt32LE(4) as RecordKind,
    index: Number(bytes.readBigUInt64LE(8)),
    firstBlock: Number(bytes.readBigUInt64LE(16)),
    blockCount: bytes.readUInt32LE(24),
    payloadBytes: bytes.readUInt32LE(28),
    payloadCrc: bytes.readUInt32LE(32),
  };
  const { kind, firstBlock, blockCount, payloadBytes } = head;
  const run = blockCount >= 1 && firstBlock + blockCount <= MAX_BLOCKS;
  const sound = {
    [KINDS.HEADER]: payloadBytes >= 1 && payloadBytes <= MAX_TEXT_BYTES,
    [KINDS.PASS]: payloadBytes === 0,
    [KINDS.DATA]: run && blockCount <= MAX_RUN_BLOCKS && payloadBytes === blockCount * BLOCK_BYTES,
    [KINDS.ZEROS]: run && payloadBytes === 0,
    [KINDS.TRAILER]: payloadBytes >= 1 && payloadBytes <= MAX_TEXT_BYTES,
  }[kind];
  return sound === true ? head : `a record of kind ${kind} with ${blockCount} blocks and ${payloadBytes} bytes`;
}

// --- header and trailer -----------------------------------------------------------------------------------------------

type Fields = Record<string, unknown>;

const isCount = (value: unknown, most = Number.MAX_SAFE_INTEGER): value is number =>
  Number.isSafeInteger(value) && (value as number) >= 0 && (value as number) <= most;
const isText = (value: unknown): value is string => typeof value === 'string' && value.length <= 4096;

function isPosition(value: unknown): value is Position {
  return (
    typeof value === 'object' &&
    value !== null &&
    isCount((value as Fields)['epoch']) &&
    isCount((value as Fields)['seq'])
  );
}

function isMark(value: unknown): value is BackupMark {
  return (
    typeof value === 'object' &&
    value !== null &&
    isText((value as Fields)['name']) &&
    isPosition((value as Fields)['position'])
  );
}

function fieldsOf(payload: Buffer): Fields | null {
  try {
    const value: unknown = JSON.parse(payload.toString('utf8'));
    return typeof value === 'object' && value !== null ? (value as Fields) : null;
  } catch {
    return null;
  }
}

/** @returns the header, or what is wrong with it */
export function decodeHeader(payload: Buffer): BackupHeader | string {
  const fields = fieldsOf(payload);
  if (fields === null) return 'its header is no JSON';
  const { format, volumeId, volume, sizeBytes, blockBytes, since, marks, startedAt, writtenBy } = fields;
  if (format !== FORMAT) return `it is of format ${String(format)}, this version reads ${FORMAT}`;
  const size = isCount(sizeBytes, MAX_VOLUME_BYTES) && sizeBytes >= BLOCK_BYTES && sizeBytes % BLOCK_BYTES === 0;
  const sound =
    typeof volumeId === 'string' &&
    /^[0-9a-f]{32}$/.test(volumeId) &&
    isText(volume) &&
    size &&
    blockBytes === BLOCK_BYTES &&
    (since === null || isMark(since)) &&
    Array.isArray(marks) &&
    marks.length <= MAX_MARKS &&
    marks.every(isMark) &&
    isText(startedAt) &&
    isText(writtenBy);
  return sound ? (fields as unknown as BackupHeader) : 'its header lacks something';
}

/** @returns the trailer, or what is wrong with it */
export function decodeTrailer(payload: Buffer): BackupTrailer | string {
  const fields = fieldsOf(payload);
  if (fields === null) return 'its trailer is no JSON';
  const { consistent, position, passes, dataBlocks, zeroBlocks, endedAt, bytes, sha256 } = fields;
  const sound =
    typeof consistent === 'boolean' &&
    isPosition(position) &&
    [passes, dataBlocks, zeroBlocks, bytes].every((value) => isCount(value)) &&
    isText(endedAt) &&
    typeof sha256 === 'string' &&
    /^[0-9a-f]{64}$/.test(sha256);
  return sound ? (fields as unknown as BackupTrailer) : 'its trailer lacks something';
}
