/**
 * What the replicas of a volume say to each other, as bytes; the values are src/replication/peer-messages.ts. Pure.
 *
 * Guarantees: what is encoded here decodes to the same, except that runs of blocks may have been merged into longer ones
 * (never into less) and texts cut; any bytes decode to a value within the stated bounds or throw BAD_FRAME. The content
 * of RECORD and COPY is not copied on either side.
 */
import { crc32 } from '../base/checksum.ts';
import type { Position } from '../base/position.ts';
import { BLOCK_BYTES, MAX_IO_BLOCKS } from '../base/units.ts';
import type { Downstream, PeerMessage, Runs, Upstream } from '../replication/peer-messages.ts';
import { ByteReader, ByteWriter } from './codec.ts';
import {
  COPY_FIELDS_BYTES,
  encodePeerHeader,
  MAX_PEER_NAME_BYTES,
  MAX_PEER_PAYLOAD_BYTES,
  MAX_REASON_BYTES,
  MAX_RUNS,
  MAX_SESSION_PAGES,
  MAX_SESSION_PAGE_BYTES,
  PEER_HEADER_BYTES,
  type PeerFrameType,
  type PeerMessageName,
} from './peer-frame.ts';

const ID_BYTES = 16;
/** Block numbers have 32 bits. */
const MAX_BLOCKS = 2 ** 32;
const STATES = ['solo', 'in-sync', 'syncing'] as const;
const ROLES = ['member', 'target'] as const;
const ABOUT = ['absent', 'mark'] as const;
const EMPTY = new Uint8Array(0);

/** A message on its way: its fields as bytes of ours, its content where it lies. */
export interface PeerPayload {
  name: PeerMessageName;
  fields: Uint8Array;
  /** Follows the fields. Not to be changed until it was sent. */
  content: Uint8Array;
  /** Of both. */
  crc: number;
}

/** @throws RangeError for values that do not fit their bounds: the caller's defect */
export function encodePeer(message: PeerMessage): PeerPayload {
  if (message.type === 'RECORD') {
    const { bytes, crc } = message;
    return { name: 'RECORD', fields: EMPTY, content: bytes, crc: crc ?? crc32(bytes) };
  }
  if (message.type === 'COPY') return peerPayload('COPY', copyFields(message), message.payload ?? EMPTY);
  if (message.type === 'FETCHED') return peerPayload('FETCHED', fetchedFields(message), message.payload ?? EMPTY);
  return peerPayload(message.type, fieldsOf(message).finish());
}

export function peerPayload(name: PeerMessageName, fields: Uint8Array, content: Uint8Array = EMPTY): PeerPayload {
  let crc = fields.length === 0 ? 0 : crc32(fields);
  if (content.length > 0) crc = crc32(content, crc);
  return { name, fields, content, crc };
}

/** Header and fields in one array; the content is to follow it. `number`: of the frame in its direction. */
export function peerHead({ name, fields, content, crc }: PeerPayload, number: number): Uint8Array {
  const head = new Uint8Array(PEER_HEADER_BYTES + fields.length);
  encodePeerHeader(head, name, number, fields.length + content.length, crc);
  head.set(fields, PEER_HEADER_BYTES);
  return head;
}

/**
 * `payload` is kept only by RECORD, COPY and FETCHED.
 * @throws HoldfastError BAD_FRAME
 */
export function decodePeer({ name }: PeerFrameType, payload: Uint8Array): PeerMessage {
  if (name === 'RECORD') return { type: 'RECORD', bytes: payload };
  const r = new ByteReader(payload, name);
  if (name === 'COPY') return readCopy(r, payload);
  if (name === 'FETCHED') return readFetched(r, payload);
  const message = read(name, r);
  r.end();
  return message;
}

type WithFields = Exclude<PeerMessage, { type: 'RECORD' | 'COPY' | 'FETCHED' }>;

function fieldsOf(m: WithFields): ByteWriter {
  const w = new ByteWriter(MAX_PEER_PAYLOAD_BYTES);
  switch (m.type) {
    case 'JOIN':
      return w.number(m.epoch).number(m.registerVersion).raw(fromHex(m.registerId)).u8(ROLES.indexOf(m.role));
    case 'BEAT':
      return position(w.number(m.n), m.committed);
    case 'BARRIER':
      return position(w, m.position);
    case 'HANDOVER':
      // A name that is cut would be another one's.
      if (Buffer.byteLength(m.name) > MAX_PEER_NAME_BYTES)
        throw new RangeError(`a name of ${m.name.length} characters`);
      return runs(position(w.u8(ABOUT.indexOf(m.of)).string(m.name, MAX_PEER_NAME_BYTES), m.position), m.runs);
    case 'RESIGNED':
      return w.number(m.epoch);
    case 'GRANT':
      return position(w.number(m.n).u32(Math.max(0, Math.floor(m.ms))), m.committed);
    case 'ASK':
      return w.number(m.n);
    case 'FETCH':
      checkBlocks(m.firstBlock, m.blockCount);
      return w
        .number(m.n)
        .number(m.firstBlock)
        .u32(m.blockCount)
        .u8(m.content ? 1 : 0);
    case 'MEND':
      return w.number(m.block);
    case 'FINISH':
      position(w, m.committed).u16(m.sessions.length);
      if (m.sessions.length > MAX_SESSION_PAGES) throw new RangeError(`${m.sessions.length} pages of sessions`);
      for (const page of m.sessions) {
        if (page.length > MAX_SESSION_PAGE_BYTES) throw new RangeError(`a page of ${page.length} bytes`);
        w.u16(page.length).raw(page);
      }
      return w;
    case 'STATUS':
      position(position(w.number(m.epoch).raw(fromHex(m.diskId)).u8(STATES.indexOf(m.state)), m.base), m.last);
      return runs(w, m.suspects);
    case 'REFUSED':
      return w.number(m.epoch).string(m.reason, MAX_REASON_BYTES);
    case 'ACK':
      return position(w, m.position);
    case 'ECHO':
      // Less may be promised than was meant, not more.
      return w.number(m.n).u32(Math.max(0, Math.floor(m.promiseMs)));
    case 'COPY_ACK':
      return w.number(m.id);
    case 'FINISHED':
      return w;
  }
}

function checkBlocks(first: number, count: number): void {
  if (count < 1 || count > MAX_IO_BLOCKS || first + count > MAX_BLOCKS)
    throw new RangeError(`blocks ${first} and following, ${count} of them`);
}

function readBlocks(r: ByteReader): { firstBlock: number; blockCount: number } {
  const [firstBlock, blockCount] = [r.number(), r.u32()];
  if (blockCount < 1 || blockCount > MAX_IO_BLOCKS || firstBlock + blockCount > MAX_BLOCKS)
    r.fail(`blocks ${firstBlock} and following, ${blockCount} of them`);
  return { firstBlock, blockCount };
}

function fetchedFields({ n, crcs, payload }: Extract<Upstream, { type: 'FETCHED' }>): Uint8Array {
  const fits = payload === null || (payload.length === crcs.length * BLOCK_BYTES && payload.length > 0);
  if (!fits || crcs.length > MAX_IO_BLOCKS)
    throw new RangeError(`${crcs.length} blocks, ${payload?.length ?? 0} bytes`);
  const w = new ByteWriter(16 + 4 * MAX_IO_BLOCKS)
    .number(n)
    .u32(crcs.length)
    .u32(payload === null ? 0 : 1);
  for (const crc of crcs) w.u32(crc);
  return w.finish();
}

function readFetched(r: ByteReader, payload: Uint8Array): PeerMessage {
  const [n, count, hasContent] = [r.number(), r.u32(), r.u32()];
  if (count > MAX_IO_BLOCKS || hasContent > 1 || (hasContent === 1 && count === 0)) r.fail(`${count} blocks`);
  const content = hasContent * count * BLOCK_BYTES;
  if (r.left !== 4 * count + content) r.fail(`${r.left} bytes for ${count} blocks`);
  const crcs = Array.from({ length: count }, () => r.u32());
  return { type: 'FETCHED', n, crcs, payload: hasContent === 1 ? payload.subarray(payload.length - content) : null };
}

function copyFields({ id, firstBlock, blockCount, payload }: Extract<Downstream, { type: 'COPY' }>): Uint8Array {
  checkBlocks(firstBlock, blockCount);
  if (payload !== null && payload.length !== blockCount * BLOCK_BYTES)
    throw new RangeError(`a copy of ${blockCount} blocks with ${payload.length} bytes`);
  const hasContent = payload === null ? 0 : 1;
  return new ByteWriter(COPY_FIELDS_BYTES).number(id).number(firstBlock).u32(blockCount).u32(hasContent).finish();
}

function readCopy(r: ByteReader, payload: Uint8Array): PeerMessage {
  const id = r.number();
  const { firstBlock, blockCount } = readBlocks(r);
  const hasContent = r.u32();
  const content = hasContent === 1 ? blockCount * BLOCK_BYTES : 0;
  if (hasContent > 1 || r.left !== content) r.fail(`${r.left} bytes of content for ${blockCount} blocks`);
  const bytes = hasContent === 1 ? payload.subarray(COPY_FIELDS_BYTES) : null;
  return { type: 'COPY', id, firstBlock, blockCount, payload: bytes };
}

function read(name: PeerMessageName, r: ByteReader): Downstream | Upstream {
  switch (name) {
    case 'JOIN': {
      const join = { type: name, epoch: r.number(), registerVersion: r.number(), registerId: toHex(r.raw(ID_BYTES)) };
      return { ...join, role: oneOf(r, ROLES) };
    }
    case 'BEAT':
      return { type: name, n: r.number(), committed: readPosition(r) };
    case 'BARRIER':
      return { type: name, position: readPosition(r) };
    case 'HANDOVER': {
      const about = { type: name, of: oneOf(r, ABOUT), name: r.string(MAX_PEER_NAME_BYTES) };
      return { ...about, position: readPosition(r), runs: readRuns(r) };
    }
    case 'RESIGNED':
      return { type: name, epoch: r.number() };
    case 'GRANT':
      return { type: name, n: r.number(), ms: r.u32(), committed: readPosition(r) };
    case 'ASK':
      return { type: name, n: r.number() };
    case 'FETCH':
      return { type: name, n: r.number(), ...readBlocks(r), content: r.u8() === 1 };
    case 'MEND':
      return { type: name, block: r.number() };
    case 'FINISH': {
      const committed = readPosition(r);
      const count = r.u16();
      if (count > MAX_SESSION_PAGES) r.fail(`${count} pages of sessions, at most ${MAX_SESSION_PAGES}`);
      const sessions = Array.from({ length: count }, () => {
        const length = r.u16();
        if (length > MAX_SESSION_PAGE_BYTES) r.fail(`a page of ${length} bytes, at most ${MAX_SESSION_PAGE_BYTES}`);
        return r.raw(length);
      });
      return { type: name, committed, sessions };
    }
    case 'STATUS': {
      const status = { type: name, epoch: r.number(), diskId: toHex(r.raw(ID_BYTES)), state: oneOf(r, STATES) };
      return { ...status, base: readPosition(r), last: readPosition(r), suspects: readRuns(r) };
    }
    case 'REFUSED':
      return { type: name, epoch: r.number(), reason: r.string(MAX_REASON_BYTES) };
    case 'ACK':
      return { type: name, position: readPosition(r) };
    case 'ECHO':
      return { type: name, n: r.number(), promiseMs: r.u32() };
    case 'COPY_ACK':
      return { type: name, id: r.number() };
    case 'FINISHED':
      return { type: name };
    default:
      return r.fail('it is no message of a replica');
  }
}

function oneOf<T>(r: ByteReader, list: readonly T[]): T {
  const index = r.u8();
  return list[index] ?? r.fail(`${index} where 0 to ${list.length - 1} must be`);
}

function position(w: ByteWriter, { epoch, seq }: Position): ByteWriter {
  return w.number(epoch).number(seq);
}

function readPosition(r: ByteReader): Position {
  return { epoch: r.number(), seq: r.number() };
}

/** First and last block of each run, ascending: a run of all 2^32 blocks fits too. */
function runs(w: ByteWriter, all: Runs): ByteWriter {
  const few = mergeRuns(all, MAX_RUNS);
  w.u32(few.length / 2);
  for (let i = 0, next = 0; i < few.length; i += 2) {
    const first = few[i]!;
    const end = first + few[i + 1]!;
    if (first < next || end <= first || end > MAX_BLOCKS) throw new RangeError(`a run from ${first} to ${end}`);
    w.u32(first).u32(end - 1);
    next = end;
  }
  return w;
}

function readRuns(r: ByteReader): number[] {
  const count = r.u32();
  if (count > MAX_RUNS) r.fail(`${count} runs, at most ${MAX_RUNS}`);
  if (r.left < 8 * count) r.fail(`${count} runs in ${r.left} bytes`);
  const list: number[] = [];
  for (let i = 0, next = 0; i < count; i++) {
    const first = r.u32();
    const last = r.u32();
    if (first < next || last < first) r.fail(`a run from ${first} to ${last} behind block ${next}`);
    list.push(first, last - first + 1);
    next = last + 1;
  }
  return list;
}

/**
 * At most `limit` runs that contain all of these, which must be ascending: where there are more, those with the
 * shortest gaps between them become one. To know of more blocks than needed is safe, of fewer is not.
 */
export function mergeRuns(all: Runs, limit: number): Runs {
  let merged = all;
  for (let gap = 1; merged.length > 2 * limit; gap *= 2) merged = mergeGaps(merged, gap, limit);
  return merged;
}

/** Joins runs with at most `gap` blocks between them, and stops to where what is left fits. */
function mergeGaps(all: Runs, gap: number, limit: number): Runs {
  const merged: number[] = [all[0]!, all[1]!];
  for (let i = 2; i < all.length; i += 2) {
    const last = merged.length - 2;
    const end = merged[last]! + merged[last + 1]!;
    const left = (all.length - i) / 2;
    const fits = merged.length / 2 + left <= limit;
    if (!fits && all[i]! - end <= gap) merged[last + 1] = all[i]! + all[i + 1]! - merged[last]!;
    else merged.push(all[i]!, all[i + 1]!);
  }
  return merged;
}

/** @throws RangeError if it is not 32 hexadecimal digits */
export function fromHex(id: string): Uint8Array {
  if (!/^[0-9a-f]{32}$/.test(id)) throw new RangeError(`"${id}" is not 32 hexadecimal digits`);
  return new Uint8Array(Buffer.from(id, 'hex'));
}

export function toHex(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('hex');
}
