/** Payloads of MARK, MARKS and CHANGES. Pure. Marks are named bitmaps of what changed since a point of the log. */
import type { ChangedExtent } from '../base/device.ts';
import type { Position } from '../base/position.ts';
import { HoldfastError } from '../base/errors.ts';
import { ByteReader, ByteWriter } from './codec.ts';
import { MAX_CONTROL_BYTES, MAX_EXTENTS, MAX_NAME_BYTES } from './messages.ts';

const EMPTY = new Uint8Array(0);
const MAX_MARKS = 64;

/** A mark in the reply to MARKS. */
export interface ListedMark {
  name: string;
  /** Blocks written behind this position are in it. */
  position: Position;
  /** Blocks that are in it. */
  dirtyBlocks: number;
}

/** The request MARK: sets a mark, or deletes it. */
export interface MarkRequest {
  action: 'set' | 'delete';
  name: string;
}

export function encodeMark({ action, name }: MarkRequest): Uint8Array {
  return new ByteWriter(MAX_CONTROL_BYTES)
    .u8(action === 'set' ? 1 : 2)
    .string(name, MAX_NAME_BYTES)
    .finish();
}

/** @throws HoldfastError BAD_FRAME */
export function decodeMark(payload: Uint8Array | null): MarkRequest {
  const r = new ByteReader(payload ?? EMPTY, 'MARK');
  const action = r.u8();
  const name = r.string(MAX_NAME_BYTES);
  r.end();
  if (action !== 1 && action !== 2) r.fail(`unknown action ${action}`);
  return { action: action === 1 ? 'set' : 'delete', name };
}

/** The reply to MARKS, oldest first. */
export function encodeMarks(marks: readonly ListedMark[]): Uint8Array {
  const w = new ByteWriter(MAX_CONTROL_BYTES).u16(marks.length);
  for (const { name, position, dirtyBlocks } of marks) {
    w.string(name, MAX_NAME_BYTES).number(position.epoch).number(position.seq).number(dirtyBlocks);
  }
  return w.finish();
}

/** @throws HoldfastError BAD_FRAME */
export function decodeMarks(payload: Uint8Array | null): ListedMark[] {
  const r = new ByteReader(payload ?? EMPTY, 'reply to MARKS');
  const count = r.u16();
  if (count > MAX_MARKS) r.fail(`${count} marks`);
  const marks: ListedMark[] = [];
  for (let i = 0; i < count; i++) {
    const name = r.string(MAX_NAME_BYTES);
    const position = { epoch: r.number(), seq: r.number() };
    marks.push({ name, position, dirtyBlocks: r.number() });
  }
  r.end();
  return marks;
}

/** The request CHANGES: how many extents the reply may hold, and since which mark. */
export function encodeChangesRequest(limit: number, mark: string): Uint8Array {
  return new ByteWriter(MAX_CONTROL_BYTES).u32(limit).string(mark, MAX_NAME_BYTES).finish();
}

/** @throws HoldfastError BAD_FRAME, INVALID_ARGUMENT (a limit of 0). A larger limit than MAX_EXTENTS is lowered. */
export function decodeChangesRequest(payload: Uint8Array | null): { limit: number; mark: string } {
  const r = new ByteReader(payload ?? EMPTY, 'CHANGES');
  const limit = r.u32();
  const mark = r.string(MAX_NAME_BYTES);
  r.end();
  if (limit === 0) throw new HoldfastError('INVALID_ARGUMENT', { operation: 'CHANGES', detail: 'a limit of 0' });
  return { limit: Math.min(limit, MAX_EXTENTS), mark };
}

/** The reply to CHANGES: adjacent runs from the request's offset on, each shorter than 4 GiB. */
export function encodeChanges(changes: readonly ChangedExtent[]): Uint8Array {
  const w = new ByteWriter(MAX_CONTROL_BYTES).u32(changes.length);
  for (const { lengthBytes, changed } of changes) w.u32(lengthBytes).u8(changed ? 1 : 0);
  return w.finish();
}

/** `offsetBytes`: the request's. @throws HoldfastError BAD_FRAME */
export function decodeChanges(payload: Uint8Array | null, offsetBytes: number): ChangedExtent[] {
  const r = new ByteReader(payload ?? EMPTY, 'reply to CHANGES');
  const count = r.u32();
  if (count > MAX_EXTENTS) r.fail(`${count} runs, at most ${MAX_EXTENTS}`);
  const changes: ChangedExtent[] = [];
  for (let i = 0, at = offsetBytes; i < count; i++) {
    const lengthBytes = r.u32();
    if (lengthBytes === 0) r.fail('a run of no length');
    changes.push({ offsetBytes: at, lengthBytes, changed: r.u8() !== 0 });
    at += lengthBytes;
  }
  r.end();
  return changes;
}
