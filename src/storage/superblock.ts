/**
 * The superblock, as bytes: what a volume is, and from where its journal is to be replayed. Pure.
 *
 * Guarantees: a superblock that decodes was written whole. Two slots are written in turn; the newer valid one counts.
 */
import { crc32 } from '../base/checksum.ts';
import { BLOCK_BYTES } from '../base/units.ts';
import { BITMAP_SLOTS, FORMAT_VERSION, PAGE_BYTES } from './layout.ts';
import { getNumber, putNumber } from './record.ts';

/** Where the journal's tail is: the first batch that a recovery replays. */
export interface JournalTail {
  /** Bytes since the disk was formatted, modulo the journal's size its place in the ring. */
  offsetBytes: number;
  batchNo: number;
  /** Header CRC of the batch before it. */
  prevCrc: number;
}

/** What stops a store from serving until something is done about it. */
export type StoreHealth = 'good' | 'poisoned' | 'damaged';
const HEALTH: readonly StoreHealth[] = ['good', 'poisoned', 'damaged'];

/** What a named bitmap slot is in use for. */
export interface BitmapUse {
  kind: 'free' | 'owed' | 'absent' | 'suspect' | 'mark';
  /** Whom or what it is for: a (node, diskId) or the name of a mark. */
  name: string;
  /** With the journal's records the bitmap contains every block written after this position. */
  completeAfter: { epoch: number; seq: number };
}
const USES: readonly BitmapUse['kind'][] = ['free', 'owed', 'absent', 'suspect', 'mark'];
export const BITMAP_NAME_BYTES = 64;

/**
 * What this disk is to its volume. `solo`: the only copy, what is durable here is committed. `in-sync`: one of a group,
 * it may become primary if the register has it in inSync. `syncing`: being made equal, never read, never a source.
 */
export type ReplicaState = 'solo' | 'in-sync' | 'syncing';
const STATES: readonly ReplicaState[] = ['solo', 'in-sync', 'syncing'];

export interface ReplicaInfo {
  state: ReplicaState;
  /** While syncing: the last position up to which this disk was known to be equal when it fell behind. */
  base: { epoch: number; seq: number };
  /** Highest epoch whose group of records is complete here. Records of later ones count for nothing yet. */
  groupEpoch: number;
  /** 16 bytes: of the register that this disk belongs to. Zeros: none yet. */
  registerId: Uint8Array;
  /** Highest version of the register that was seen. */
  registerVersion: number;
}

/** What its blocks are: a disk for clients, or the batches of a key-value volume. */
export type VolumeKind = 'block' | 'kv';

export interface Superblock {
  /** Rises with each write of a superblock. */
  sequence: number;
  volumeId: Uint8Array;
  diskId: Uint8Array;
  name: string;
  /** Of the volume: of a replica what its register says, as far as it was seen here. */
  sizeBytes: number;
  /** What the files have room for, at least sizeBytes: more while the volume grows. */
  capacityBytes: number;
  journalBytes: number;
  createdAtMs: number;
  /** The newest epoch this disk was opened or promised in. */
  epoch: number;
  /** Highest position known durable and committed when it was written; a recovery that ends before it found damage. */
  committed: { epoch: number; seq: number };
  /** Last position known durable here, committed or not. */
  last: { epoch: number; seq: number };
  tail: JournalTail;
  /** Number of the last batch known durable when it was written. */
  headBatchNo: number;
  /** Closed in good order: everything is applied, the journal is empty. */
  clean: boolean;
  /** May have holes instead of reserved blocks. */
  sparse: boolean;
  /** fsync before acknowledgment: false only for measuring. */
  durable: boolean;
  kind: VolumeKind;
  health: StoreHealth;
  healthReason: string;
  bitmaps: BitmapUse[];
  replica: ReplicaInfo;
  /** CRC over the page map's pages of the same slot. */
  mapCrc: number;
}

const MAGIC = 0x31534648; // "HFS1"
/** A volume that is the only copy. */
export function soloReplica(): ReplicaInfo {
  const origin = { epoch: 0, seq: 0 };
  return { state: 'solo', base: origin, groupEpoch: 0, registerId: new Uint8Array(16), registerVersion: 0 };
}

const NAME_AT = 192;
export const MAX_NAME_BYTES = 128;
const REASON_AT = 320;
const REASON_BYTES = 256;
const LAST_AT = 576;
/** 0: as the volume's size. */
const CAPACITY_AT = 592;
const BITMAPS_AT = 1024;
const BITMAP_BYTES = 96;

export function encodeSuperblock(s: Superblock): Uint8Array {
  const bytes = new Uint8Array(PAGE_BYTES);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, MAGIC, true);
  view.setUint32(8, FORMAT_VERSION, true);
  view.setUint32(12, BLOCK_BYTES, true);
  putNumber(view, 16, s.sequence);
  bytes.set(s.volumeId, 24);
  bytes.set(s.diskId, 40);
  putNumber(view, 56, s.sizeBytes);
  putNumber(view, 64, s.journalBytes);
  putNumber(view, 72, s.createdAtMs);
  putNumber(view, 80, s.epoch);
  putNumber(view, 88, s.committed.epoch);
  putNumber(view, 96, s.committed.seq);
  putNumber(view, 104, s.tail.offsetBytes);
  putNumber(view, 112, s.tail.batchNo);
  view.setUint32(120, s.tail.prevCrc, true);
  putNumber(view, 128, s.headBatchNo);
  view.setUint8(136, (s.clean ? 1 : 0) | (s.sparse ? 2 : 0) | (s.durable ? 4 : 0) | (s.kind === 'kv' ? 8 : 0));
  view.setUint8(137, HEALTH.indexOf(s.health));
  view.setUint8(138, STATES.indexOf(s.replica.state));
  view.setUint32(140, s.mapCrc, true);
  putNumber(view, 144, s.replica.base.epoch);
  putNumber(view, 152, s.replica.base.seq);
  putNumber(view, 160, s.replica.groupEpoch);
  putNumber(view, 168, s.replica.registerVersion);
  bytes.set(s.replica.registerId, 176);
  putNumber(view, LAST_AT, s.last.epoch);
  putNumber(view, LAST_AT + 8, s.last.seq);
  putNumber(view, CAPACITY_AT, s.capacityBytes === s.sizeBytes ? 0 : s.capacityBytes);
  putText(bytes, NAME_AT, MAX_NAME_BYTES, s.name);
  putText(bytes, REASON_AT, REASON_BYTES, s.healthReason);
  s.bitmaps.forEach((use, i) => {
    const at = BITMAPS_AT + i * BITMAP_BYTES;
    view.setUint8(at, USES.indexOf(use.kind));
    putNumber(view, at + 8, use.completeAfter.epoch);
    putNumber(view, at + 16, use.completeAfter.seq);
    putText(bytes, at + 24, BITMAP_NAME_BYTES, use.name);
  });
  view.setUint32(4, crc32(bytes.subarray(8)), true);
  return bytes;
}

/** @returns the superblock, `null` when the page holds none that is whole, or its version when it is a later format */
export function decodeSuperblock(bytes: Uint8Array): Superblock | { laterFormat: number } | null {
  const view = new DataView(bytes.buffer, bytes.byteOffset, PAGE_BYTES);
  if (view.getUint32(0, true) !== MAGIC || view.getUint32(4, true) !== crc32(bytes.subarray(8, PAGE_BYTES)))
    return null;
  const version = view.getUint32(8, true);
  if (version !== FORMAT_VERSION) return { laterFormat: version };
  const flags = view.getUint8(136);
  return {
    sequence: getNumber(view, 16),
    volumeId: bytes.slice(24, 40),
    diskId: bytes.slice(40, 56),
    sizeBytes: getNumber(view, 56),
    capacityBytes: getNumber(view, CAPACITY_AT) || getNumber(view, 56),
    journalBytes: getNumber(view, 64),
    createdAtMs: getNumber(view, 72),
    epoch: getNumber(view, 80),
    committed: { epoch: getNumber(view, 88), seq: getNumber(view, 96) },
    tail: { offsetBytes: getNumber(view, 104), batchNo: getNumber(view, 112), prevCrc: view.getUint32(120, true) },
    headBatchNo: getNumber(view, 128),
    clean: (flags & 1) !== 0,
    sparse: (flags & 2) !== 0,
    durable: (flags & 4) !== 0,
    kind: (flags & 8) === 0 ? 'block' : 'kv',
    health: HEALTH[view.getUint8(137)] ?? 'damaged',
    replica: {
      state: STATES[view.getUint8(138)] ?? 'syncing',
      base: { epoch: getNumber(view, 144), seq: getNumber(view, 152) },
      groupEpoch: getNumber(view, 160),
      registerVersion: getNumber(view, 168),
      registerId: bytes.slice(176, 192),
    },
    mapCrc: view.getUint32(140, true),
    last: { epoch: getNumber(view, LAST_AT), seq: getNumber(view, LAST_AT + 8) },
    name: getText(bytes, NAME_AT, MAX_NAME_BYTES),
    healthReason: getText(bytes, REASON_AT, REASON_BYTES),
    bitmaps: Array.from({ length: BITMAP_SLOTS }, (_, i) => {
      const at = BITMAPS_AT + i * BITMAP_BYTES;
      return {
        kind: USES[view.getUint8(at)] ?? 'free',
        name: getText(bytes, at + 24, BITMAP_NAME_BYTES),
        completeAfter: { epoch: getNumber(view, at + 8), seq: getNumber(view, at + 16) },
      };
    }),
  };
}

function putText(bytes: Uint8Array, at: number, room: number, text: string): void {
  // A reason may be cut; a name was checked to fit.
  bytes.set(new TextEncoder().encode(text).subarray(0, room), at);
}

function getText(bytes: Uint8Array, at: number, room: number): string {
  const field = bytes.subarray(at, at + room);
  const end = field.indexOf(0);
  return new TextDecoder().decode(field.subarray(0, end < 0 ? room : end));
}
