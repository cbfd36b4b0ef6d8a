/**
 * What CONFIG and EPOCH records say, as bytes: they carry one block of it, an EPOCH record the session table besides.
 * Pure.
 */
import type { Position } from '../base/position.ts';
import { BLOCK_BYTES } from '../base/units.ts';
import { PAGE_BODY_BYTES } from './layout.ts';
import { getNumber, putNumber } from './record.ts';

/** A member fell behind (it has what is before `completeAfter`), or is in sync again. */
export interface ConfigChange {
  action: 'absent' | 'present';
  /** `node/diskId`. */
  peer: string;
  completeAfter: Position;
}

/** An epoch begins: everything before it in this journal is as the group has it. */
export interface EpochStart {
  /** Members outside inSync: whoever has no bitmap for one makes it. */
  absent: string[];
  /** The marks that there are from here on. */
  marks: Array<{ name: string; position: Position }>;
  /** Page bodies of the session table that holds from here on. */
  sessions: Uint8Array[];
}

/** In an EPOCH record's first block: counts, names of the absent, then the marks. */
const MAX_EPOCH_ABSENT = 8;
const MAX_EPOCH_MARKS = 16;
const MARKS_AT = 64 * (1 + MAX_EPOCH_ABSENT);
const MARK_BYTES = 16 + 64;

const ABSENT = 1;
const PRESENT = 2;

export function encodeConfig({ action, peer, completeAfter }: ConfigChange, into: Uint8Array): void {
  const view = viewOf(into);
  into.fill(0, 0, BLOCK_BYTES);
  view.setUint8(0, action === 'absent' ? ABSENT : PRESENT);
  putNumber(view, 8, completeAfter.epoch);
  putNumber(view, 16, completeAfter.seq);
  putText(into, 24, peer);
}

/** @returns null for bytes that no version of ours wrote */
export function decodeConfig(bytes: Uint8Array): ConfigChange | null {
  const view = viewOf(bytes);
  const action = view.getUint8(0);
  const peer = getText(bytes, 24);
  if ((action !== ABSENT && action !== PRESENT) || peer === '') return null;
  const completeAfter = { epoch: getNumber(view, 8), seq: getNumber(view, 16) };
  return { action: action === ABSENT ? 'absent' : 'present', peer, completeAfter };
}

/** Blocks that the payload of such an EPOCH record takes. */
export function epochBlocks({ sessions }: EpochStart): number {
  return 1 + sessions.length;
}

export function encodeEpoch({ absent, marks, sessions }: EpochStart, into: Uint8Array): void {
  const view = viewOf(into);
  into.fill(0, 0, BLOCK_BYTES * (1 + sessions.length));
  view.setUint8(0, absent.length);
  view.setUint8(1, sessions.length);
  view.setUint8(2, marks.length);
  absent.forEach((peer, i) => putText(into, 64 * (1 + i), peer));
  marks.forEach(({ name, position }, i) => {
    const at = MARKS_AT + MARK_BYTES * i;
    putNumber(view, at, position.epoch);
    putNumber(view, at + 8, position.seq);
    putText(into, at + 16, name);
  });
  sessions.forEach((body, i) => into.set(body.subarray(0, PAGE_BODY_BYTES), BLOCK_BYTES * (1 + i)));
}

/** @returns null for bytes that no version of ours wrote */
export function decodeEpoch(bytes: Uint8Array): EpochStart | null {
  const view = viewOf(bytes);
  const count = view.getUint8(1);
  if (view.getUint8(0) > MAX_EPOCH_ABSENT || view.getUint8(2) > MAX_EPOCH_MARKS) return null;
  if (bytes.length < BLOCK_BYTES * (1 + count)) return null;
  const absent = Array.from({ length: view.getUint8(0) }, (_, i) => getText(bytes, 64 * (1 + i)));
  const sessions = Array.from({ length: count }, (_, i) => {
    const at = BLOCK_BYTES * (1 + i);
    return bytes.slice(at, at + PAGE_BODY_BYTES);
  });
  const marks = Array.from({ length: view.getUint8(2) }, (_, i) => {
    const at = MARKS_AT + MARK_BYTES * i;
    return { name: getText(bytes, at + 16), position: { epoch: getNumber(view, at), seq: getNumber(view, at + 8) } };
  });
  return { absent, marks, sessions };
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** At most 64 bytes. */
function putText(into: Uint8Array, at: number, text: string): void {
  const bytes = new TextEncoder().encode(text);
  // A name that is cut would be another one's.
  if (bytes.length > 64) throw new RangeError(`a name of ${bytes.length} bytes: ${text}`);
  into.set(bytes, at);
}

function getText(bytes: Uint8Array, at: number): string {
  const field = bytes.slice(at, at + 64);
  const end = field.indexOf(0);
  return new TextDecoder().decode(field.subarray(0, end < 0 ? 64 : end));
}
