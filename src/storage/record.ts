/**
 * Journal records and the batches that carry them, as bytes. Pure.
 *
 * Guarantees: a record that decodes was written whole (header and payload CRC); a batch that decodes holds exactly the
 * records that were written with it, in order, as the successor of one known batch of this disk. A record's bytes do
 * not depend on the disk or the batch: what travels to a peer is what lies in both journals.
 */
import { combineBlock, crc32 } from '../base/checksum.ts';
import { BLOCK_BYTES, MAX_IO_BLOCKS } from '../base/units.ts';
import { HEADER_ROOM_BYTES, type Slot } from './arena.ts';
import { MAX_BATCH_BYTES, MAX_BATCH_RECORDS, PAGE_BYTES, RECORD_ALIGN_BYTES } from './layout.ts';

/** Permanent numbers. Local kinds carry no position of their own and never count in one. */
export const RECORD_KINDS = {
  WRITE: 1,
  ZERO: 2,
  CONFIG: 3,
  MARK: 4,
  EPOCH: 5,
  COPY: 16,
  REPAIR: 17,
  STATE: 18,
  COPY_ZERO: 19,
} as const;
export type RecordKind = (typeof RECORD_KINDS)[keyof typeof RECORD_KINDS];

const KNOWN_KINDS = new Set<number>(Object.values(RECORD_KINDS));

export const RECORD_FIXED_BYTES = 96;
export const BATCH_HEADER_BYTES = 64;
const RECORD_MAGIC = 0x31524648; // "HFR1"
const BATCH_MAGIC = 0x31424648; // "HFB1"
const VERSION = 1;
const TWO_32 = 2 ** 32;

/** What a record says. Sequence numbers and epochs are safe integers; blocks are whole. */
export interface RecordFields {
  kind: RecordKind;
  epoch: number;
  seq: number;
  /** The last position known committed when the record was encoded. */
  commitEpoch: number;
  commitSeq: number;
  /** 0n: no session. */
  session: bigint;
  request: number;
  firstBlock: number;
  blockCount: number;
}

/** Bytes of the header of a record that carries so many block checksums, padded so that the payload is aligned. */
export function headerBytes(payloadBlocks: number): number {
  return Math.ceil((RECORD_FIXED_BYTES + 4 * payloadBlocks) / RECORD_ALIGN_BYTES) * RECORD_ALIGN_BYTES;
}

/** About no block of the volume: the payload says what it means, `blockCount` is its length, `firstBlock` is 0. */
export function isControl(kind: RecordKind): boolean {
  return kind === RECORD_KINDS.MARK || kind === RECORD_KINDS.CONFIG || kind === RECORD_KINDS.EPOCH;
}

/** Of this disk alone: it counts in no position, no prefix and no commit. */
export function isLocal(kind: RecordKind): boolean {
  return kind >= RECORD_KINDS.COPY;
}

/** Its payload goes into `data`. */
export function writesBlocks(kind: RecordKind): boolean {
  return kind === RECORD_KINDS.WRITE || kind === RECORD_KINDS.COPY || kind === RECORD_KINDS.REPAIR;
}

export function hasPayload(kind: RecordKind): boolean {
  return writesBlocks(kind) || isControl(kind);
}

/** The bytes of an encoded record, and what the batch needs of it. */
export interface EncodedRecord {
  bytes: Uint8Array;
  headerCrc: number;
}

/**
 * Encodes a record in its slot: the header is put right in front of the payload. `slot.crcs` holds the unseeded CRC
 * of each payload block, `payloadCrc` that of the whole payload.
 */
export function encodeRecord(slot: Slot, volumeId: Uint8Array, f: RecordFields, payloadCrc: number): EncodedRecord {
  const blocks = hasPayload(f.kind) ? f.blockCount : 0;
  const size = headerBytes(blocks);
  const start = HEADER_ROOM_BYTES - size;
  const bytes = slot.bytes.subarray(start, HEADER_ROOM_BYTES + blocks * BLOCK_BYTES);
  const view = new DataView(bytes.buffer, bytes.byteOffset, size);
  view.setUint32(0, RECORD_MAGIC, true);
  view.setUint16(4, VERSION, true);
  view.setUint16(6, f.kind, true);
  bytes.set(volumeId, 8);
  putNumber(view, 24, f.epoch);
  putNumber(view, 32, f.seq);
  putNumber(view, 40, f.commitEpoch);
  putNumber(view, 48, f.commitSeq);
  view.setBigUint64(56, f.session, true);
  putNumber(view, 64, f.request);
  putNumber(view, 72, f.firstBlock);
  view.setUint32(80, f.blockCount, true);
  view.setUint32(84, blocks * BLOCK_BYTES, true);
  view.setUint32(88, blocks === 0 ? 0 : payloadCrc, true);
  view.setUint32(92, 0, true);
  for (let i = 0; i < blocks; i++) view.setUint32(RECORD_FIXED_BYTES + 4 * i, slot.crcs[i]!, true);
  bytes.fill(0, RECORD_FIXED_BYTES + 4 * blocks, size);
  const headerCrc = crc32(bytes.subarray(0, size));
  view.setUint32(92, headerCrc, true);
  return { bytes, headerCrc };
}

/** CRC of all bytes of an encoded record: of its payload, which is not read again, `crcs` has that of each block. */
export function crcOfRecord(bytes: Uint8Array, crcs: Uint32Array): number {
  // A header is less than a block.
  const headerLength = bytes.length % BLOCK_BYTES;
  const blocks = (bytes.length - headerLength) / BLOCK_BYTES;
  let crc = crc32(bytes.subarray(0, headerLength));
  for (let i = 0; i < blocks; i++) crc = combineBlock(crc, crcs[i]!);
  return crc;
}

export interface DecodedRecord extends RecordFields {
  /** Unseeded CRC per payload block. */
  crcs: Uint32Array;
  payload: Uint8Array;
  /** What the header says of the payload. */
  payloadCrc: number;
  headerCrc: number;
  /** Header and payload. */
  totalBytes: number;
}

/**
 * @param verify false: the payload is the caller's to verify, by `payloadCrc`; the header is verified in any case
 * @returns the record at `at`, or null if none is whole there
 */
export function decodeRecord(bytes: Uint8Array, at: number, volumeId: Uint8Array, verify = true): DecodedRecord | null {
  if (at + RECORD_FIXED_BYTES > bytes.length) return null;
  const view = new DataView(bytes.buffer, bytes.byteOffset + at, bytes.length - at);
  if (view.getUint32(0, true) !== RECORD_MAGIC || view.getUint16(4, true) !== VERSION) return null;
  const kind = view.getUint16(6, true);
  if (!KNOWN_KINDS.has(kind)) return null;
  const blockCount = view.getUint32(80, true);
  const payloadBytes = view.getUint32(84, true);
  const blocks = hasPayload(kind as RecordKind) ? blockCount : 0;
  if (blocks > MAX_IO_BLOCKS || payloadBytes !== blocks * BLOCK_BYTES) return null;
  const size = headerBytes(blocks);
  if (at + size + payloadBytes > bytes.length) return null;
  for (let i = 0; i < 16; i++) if (bytes[at + 8 + i] !== volumeId[i]) return null;
  const headerCrc = view.getUint32(92, true);
  const header = bytes.slice(at, at + size);
  header.fill(0, 92, 96);
  if (crc32(header) !== headerCrc) return null;
  const payload = bytes.subarray(at + size, at + size + payloadBytes);
  const payloadCrc = view.getUint32(88, true);
  if (verify && payloadBytes > 0 && crc32(payload) !== payloadCrc) return null;
  const crcs = new Uint32Array(blocks);
  for (let i = 0; i < blocks; i++) crcs[i] = view.getUint32(RECORD_FIXED_BYTES + 4 * i, true);
  return {
    kind: kind as RecordKind,
    epoch: getNumber(view, 24),
    seq: getNumber(view, 32),
    commitEpoch: getNumber(view, 40),
    commitSeq: getNumber(view, 48),
    session: view.getBigUint64(56, true),
    request: getNumber(view, 64),
    firstBlock: getNumber(view, 72),
    blockCount,
    crcs,
    payload,
    payloadCrc,
    headerCrc,
    totalBytes: size + payloadBytes,
  };
}

/** The place of a batch in the chain of its disk. */
export interface BatchLink {
  batchNo: number;
  /** Header CRC of the batch before it; 0 for the first of a disk. */
  prevCrc: number;
}

export interface BatchHeader extends BatchLink {
  recordCount: number;
  /** Whole pages, header and padding included. */
  lengthBytes: number;
  bodyCrc: number;
  headerCrc: number;
}

/** Chains the header CRCs of a batch's records, in order. */
export function foldRecordCrc(fold: number, recordHeaderCrc: number): number {
  FOLD_VIEW.setUint32(0, recordHeaderCrc, true);
  return crc32(FOLD_BYTES, fold);
}
const FOLD_BYTES = new Uint8Array(4);
const FOLD_VIEW = new DataView(FOLD_BYTES.buffer);

/** Encodes a batch header into the first 64 bytes of `into`. @returns its CRC, the link to the next batch */
export function encodeBatchHeader(into: Uint8Array, diskId: Uint8Array, h: Omit<BatchHeader, 'headerCrc'>): number {
  const view = new DataView(into.buffer, into.byteOffset, BATCH_HEADER_BYTES);
  into.fill(0, 0, BATCH_HEADER_BYTES);
  view.setUint32(0, BATCH_MAGIC, true);
  view.setUint16(4, VERSION, true);
  into.set(diskId, 8);
  putNumber(view, 24, h.batchNo);
  view.setUint32(32, h.prevCrc, true);
  view.setUint32(36, h.recordCount, true);
  view.setUint32(40, h.lengthBytes, true);
  view.setUint32(44, h.bodyCrc, true);
  const crc = crc32(into.subarray(0, 60));
  view.setUint32(60, crc, true);
  return crc;
}

/** @returns the batch header at `at`, or null if none of this disk is whole there */
export function decodeBatchHeader(bytes: Uint8Array, at: number, diskId: Uint8Array): BatchHeader | null {
  if (at + BATCH_HEADER_BYTES > bytes.length) return null;
  const view = new DataView(bytes.buffer, bytes.byteOffset + at, BATCH_HEADER_BYTES);
  if (view.getUint32(0, true) !== BATCH_MAGIC || view.getUint16(4, true) !== VERSION) return null;
  for (let i = 0; i < 16; i++) if (bytes[at + 8 + i] !== diskId[i]) return null;
  const headerCrc = view.getUint32(60, true);
  if (crc32(bytes.subarray(at, at + 60)) !== headerCrc) return null;
  const header: BatchHeader = {
    batchNo: getNumber(view, 24),
    prevCrc: view.getUint32(32, true),
    recordCount: view.getUint32(36, true),
    lengthBytes: view.getUint32(40, true),
    bodyCrc: view.getUint32(44, true),
    headerCrc,
  };
  const plausible =
    header.lengthBytes >= PAGE_BYTES &&
    header.lengthBytes <= MAX_BATCH_BYTES &&
    header.lengthBytes % PAGE_BYTES === 0 &&
    header.recordCount >= 1 &&
    header.recordCount <= MAX_BATCH_RECORDS;
  return plausible ? header : null;
}

/** @returns the records of a whole batch in `bytes` (which begin with its header), or null if it is not whole */
export function decodeBatch(bytes: Uint8Array, header: BatchHeader, volumeId: Uint8Array): DecodedRecord[] | null {
  const records: DecodedRecord[] = [];
  let at = BATCH_HEADER_BYTES;
  let fold = 0;
  for (let i = 0; i < header.recordCount; i++) {
    const record = decodeRecord(bytes.subarray(0, header.lengthBytes), at, volumeId);
    if (record === null) return null;
    fold = foldRecordCrc(fold, record.headerCrc);
    records.push(record);
    at += record.totalBytes;
  }
  return fold === header.bodyCrc ? records : null;
}

/** Writes a safe integer as an unsigned 64-bit number. */
export function putNumber(view: DataView, at: number, value: number): void {
  view.setUint32(at, value >>> 0, true);
  view.setUint32(at + 4, Math.floor(value / TWO_32), true);
}

export function getNumber(view: DataView, at: number): number {
  return view.getUint32(at, true) + view.getUint32(at + 4, true) * TWO_32;
}
