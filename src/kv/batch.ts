/**
 * A batch: what a key-value volume writes at once, a run of whole blocks that holds entries. Pure.
 *
 * A volume is a log of batches: a change of a key is an entry of a new batch, the one before stays where it is until its
 * batch holds nothing that counts, and is then zeroed as a whole. Block by block it is either part of a batch or zeros.
 *
 * Little-endian. Header, 32 bytes: magic u32, 0 u32, length u32 (bytes, with the header), blocks u16, kind u8, 0 u8,
 * entries u32, 0 u32, forgotten f64 (version: a session that did nothing after it is forgotten). Entries:
 *
 * - PUT, DELETE, 24 bytes, key, value: kind u8, 0 u8, key length u16, value length u32, version f64, expiry f64 (ms since
 *   1970, 0: never)
 * - ANSWER, 40 bytes, result: kind u8, 0 u8, 0 u16, result length u32, version f64, session u64, request f64, floor f64
 *
 * Guarantees: what decodes is within its bounds; whether the bytes are those that were written is the block store's
 * business (a CRC per block and per record).
 */
import { copyBytes } from '../base/copy.ts';
import { BLOCK_BYTES } from '../base/units.ts';
import type { Key } from './operations.ts';

const MAGIC = 0x31564b48; // "HKV1"
export const BATCH_HEADER_BYTES = 32;
export const ENTRY_BYTES = 24;
export const ANSWER_BYTES = 40;
/** A batch is one record. */
export const MAX_BATCH_BLOCKS = 63;
export const MAX_BATCH_BYTES: number = MAX_BATCH_BLOCKS * BLOCK_BYTES;

export const PUT = 1;
export const DELETE = 2;
export const ANSWER = 3;

/** `moved`: entries that were written before, so that their batches can be zeroed. Nobody watches those. */
export type BatchKind = 'new' | 'moved';

export interface NewEntry {
  kind: typeof PUT | typeof DELETE;
  key: Key;
  version: number;
  /** 0: never. */
  expiresAtMs: number;
  value: Uint8Array;
}

export interface NewAnswer {
  kind: typeof ANSWER;
  version: number;
  session: bigint;
  request: number;
  /** Requests of the session below that have been answered, and their results been received. */
  floor: number;
  result: Uint8Array;
}

export type NewItem = NewEntry | NewAnswer;

export const EMPTY: Uint8Array = new Uint8Array(0);

export function itemBytes(item: NewItem): number {
  return item.kind === ANSWER ? ANSWER_BYTES + item.result.length : ENTRY_BYTES + item.key.length + item.value.length;
}

export const blocksOf = (bytes: number): number => Math.ceil(bytes / BLOCK_BYTES);

/** @param out as long as the header and all items; the zeros that fill up the last block are not of it */
export function encodeBatch(out: Buffer, kind: BatchKind, items: readonly NewItem[], forgotten: number): void {
  const lengthBytes = out.length;
  out.fill(0, 0, BATCH_HEADER_BYTES);
  out.writeUInt32LE(MAGIC, 0);
  out.writeUInt32LE(lengthBytes, 8);
  out.writeUInt16LE(blocksOf(lengthBytes), 12);
  out[14] = kind === 'moved' ? 1 : 0;
  out.writeUInt32LE(items.length, 16);
  out.writeDoubleLE(forgotten, 24);
  let at = BATCH_HEADER_BYTES;
  for (const item of items) {
    out.writeUInt32LE(item.kind, at);
    out.writeDoubleLE(item.version, at + 8);
    if (item.kind === ANSWER) {
      out.writeUInt32LE(item.result.length, at + 4);
      out.writeBigUInt64LE(item.session, at + 16);
      out.writeDoubleLE(item.request, at + 24);
      out.writeDoubleLE(item.floor, at + 32);
      copyBytes(out, at + ANSWER_BYTES, item.result);
      at += ANSWER_BYTES + item.result.length;
    } else {
      const { key, value } = item;
      out.writeUInt16LE(key.length, at + 2);
      out.writeUInt32LE(value.length, at + 4);
      out.writeDoubleLE(item.expiresAtMs, at + 16);
      out.write(key, at + ENTRY_BYTES, 'latin1');
      copyBytes(out, at + ENTRY_BYTES + key.length, value);
      at += ENTRY_BYTES + key.length + value.length;
    }
  }
}

export interface BatchHeader {
  lengthBytes: number;
  blocks: number;
  kind: BatchKind;
  entries: number;
  forgotten: number;
}

/** @returns what begins in that block, null if no batch does; `block` is at least its first 4 KiB */
export function decodeHeader(block: Buffer): BatchHeader | null {
  if (block.readUInt32LE(0) !== MAGIC) return null;
  const lengthBytes = block.readUInt32LE(8);
  const blocks = block.readUInt16LE(12);
  if (lengthBytes < BATCH_HEADER_BYTES || blocks !== blocksOf(lengthBytes) || blocks > MAX_BATCH_BLOCKS) return null;
  const kind = block[14] === 1 ? 'moved' : 'new';
  return { lengthBytes, blocks, kind, entries: block.readUInt32LE(16), forgotten: block.readDoubleLE(24) };
}

/** `at`: of its first byte in the batch; `end`: of the bytes after it. */
export type UseItem = (kind: number, at: number, end: number, version: number) => void;

/** Calls with each item, in order. @returns whether all of them are within the batch */
export function eachItem(bytes: Buffer, entries: number, use: UseItem): boolean {
  let at = BATCH_HEADER_BYTES;
  for (let i = 0; i < entries; i++) {
    if (at + ENTRY_BYTES > bytes.length) return false;
    const kind = bytes[at]!;
    const length = bytes.readUInt32LE(at + 4);
    const end = at + length + (kind === ANSWER ? ANSWER_BYTES : ENTRY_BYTES + bytes.readUInt16LE(at + 2));
    if (kind < PUT || kind > ANSWER || end > bytes.length) return false;
    use(kind, at, end, versionAt(bytes, at));
    at = end;
  }
  return true;
}

export function keyAt(bytes: Buffer, at: number): Key {
  const from = at + ENTRY_BYTES;
  return bytes.toString('latin1', from, from + bytes.readUInt16LE(at + 2));
}

/** A view, not a copy. */
export function valueAt(bytes: Buffer, at: number): Uint8Array {
  const from = at + ENTRY_BYTES + bytes.readUInt16LE(at + 2);
  return bytes.subarray(from, from + bytes.readUInt32LE(at + 4));
}

export const expiryAt = (bytes: Buffer, at: number): number => bytes.readDoubleLE(at + 16);

export const versionAt = (bytes: Buffer, at: number): number => bytes.readDoubleLE(at + 8);
export const requestAt = (bytes: Buffer, at: number): number => bytes.readDoubleLE(at + 24);
export const floorAt = (bytes: Buffer, at: number): number => bytes.readDoubleLE(at + 32);

/** `readBigUInt64LE` puts the number together out of others, each of which is on the heap. */
const eightBytes = new Uint8Array(8);
const oneNumber = new BigUint64Array(eightBytes.buffer);

export function sessionAt(bytes: Buffer, at: number): bigint {
  for (let i = 0; i < 8; i++) eightBytes[i] = bytes[at + 16 + i]!;
  return oneNumber[0]!;
}

export function answerAt(bytes: Buffer, at: number): NewAnswer {
  return {
    kind: ANSWER,
    version: versionAt(bytes, at),
    session: sessionAt(bytes, at),
    request: requestAt(bytes, at),
    floor: floorAt(bytes, at),
    result: bytes.subarray(at + ANSWER_BYTES, at + ANSWER_BYTES + bytes.readUInt32LE(at + 4)),
  };
}
