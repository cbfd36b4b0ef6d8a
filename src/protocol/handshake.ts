/**
 * The payloads of the control messages: HELLO, ATTACH, INFO, LIST, EXTENTS. Pure.
 *
 * Guarantees: what is encoded here decodes to the same; any bytes decode to a value within the stated bounds or throw
 * BAD_FRAME. `null` stands for a frame without a payload.
 */
import type { Extent } from '../base/device.ts';
import { HoldfastError } from '../base/errors.ts';
import type { Position } from '../base/position.ts';
import { ByteReader, ByteWriter } from './codec.ts';
import { MAX_CONTROL_BYTES, MAX_EXTENTS, MAX_NAME_BYTES, MAX_VERSION, MIN_VERSION } from './messages.ts';

const VOLUME_ID_BYTES = 16;
const EMPTY = new Uint8Array(0);

/** The client's first message. */
export interface Hello {
  minVersion: number;
  maxVersion: number;
  /** Bits of what the client would use; unknown ones are ignored. */
  features: bigint;
  /** Bits of what it cannot do without; an unknown one is refused with UNSUPPORTED. */
  requiredFeatures: bigint;
  /** 0: no session; then mutations are not deduplicated. */
  session: bigint;
  /** Counts the connections of the session: the newest one counts. */
  generation: number;
  /** Name of the program, for logs. At most 255 bytes. */
  client: string;
}

export interface ConnectionLimits {
  /** Longest payload in either direction, bytes. */
  maxPayloadBytes: number;
  /** Bytes of payload of unanswered requests, written and asked for, that the server takes from one connection. */
  maxInFlightBytes: number;
  maxInFlightRequests: number;
  /** See SESSION_WINDOW. */
  sessionWindow: number;
}

export interface HelloReply {
  version: number;
  features: bigint;
  limits: ConnectionLimits;
  /** Name and version of the server, for logs. */
  server: string;
}

export function encodeHello(hello: Hello): Uint8Array {
  return new ByteWriter(MAX_CONTROL_BYTES)
    .u8(hello.minVersion)
    .u8(hello.maxVersion)
    .u64(hello.features)
    .u64(hello.requiredFeatures)
    .u64(hello.session)
    .number(hello.generation)
    .string(hello.client, MAX_NAME_BYTES)
    .finish();
}

/** @throws HoldfastError BAD_FRAME */
export function decodeHello(payload: Uint8Array | null): Hello {
  const r = new ByteReader(payload ?? EMPTY, 'HELLO');
  const hello = {
    minVersion: r.u8(),
    maxVersion: r.u8(),
    features: r.u64(),
    requiredFeatures: r.u64(),
    session: r.u64(),
    generation: r.number(),
    client: r.string(MAX_NAME_BYTES),
  };
  // A later version may say more behind this; what this server does not know it cannot refuse.
  if (hello.maxVersion <= MAX_VERSION) r.end();
  return hello;
}

/**
 * The version to speak with that client.
 * @throws HoldfastError WRONG_VERSION, UNSUPPORTED
 */
export function agree(hello: Hello, knownFeatures = 0n): number {
  const version = Math.min(hello.maxVersion, MAX_VERSION);
  if (version < Math.max(hello.minVersion, MIN_VERSION)) {
    throw new HoldfastError('WRONG_VERSION', {
      operation: 'HELLO',
      detail: `the client speaks ${range(hello.minVersion, hello.maxVersion)}, this server ${range(MIN_VERSION, MAX_VERSION)}`,
    });
  }
  const unknown = hello.requiredFeatures & ~knownFeatures;
  if (unknown !== 0n) {
    throw new HoldfastError('UNSUPPORTED', {
      operation: 'HELLO',
      detail: `the client requires features 0x${unknown.toString(16)}`,
    });
  }
  return version;
}

function range(least: number, most: number): string {
  return least === most ? `version ${least}` : `versions ${least} to ${most}`;
}

export function encodeHelloReply(reply: HelloReply): Uint8Array {
  return new ByteWriter(MAX_CONTROL_BYTES)
    .u8(reply.version)
    .u64(reply.features)
    .u32(reply.limits.maxPayloadBytes)
    .u32(reply.limits.maxInFlightBytes)
    .u32(reply.limits.maxInFlightRequests)
    .u32(reply.limits.sessionWindow)
    .string(reply.server, MAX_NAME_BYTES)
    .finish();
}

/** @throws HoldfastError BAD_FRAME */
export function decodeHelloReply(payload: Uint8Array | null): HelloReply {
  const r = new ByteReader(payload ?? EMPTY, 'reply to HELLO');
  const reply = {
    version: r.u8(),
    features: r.u64(),
    limits: {
      maxPayloadBytes: r.u32(),
      maxInFlightBytes: r.u32(),
      maxInFlightRequests: r.u32(),
      sessionWindow: r.u32(),
    },
    server: r.string(MAX_NAME_BYTES),
  };
  r.end();
  return reply;
}

const ACCESSES = ['primary', 'any'] as const;
/** Who may serve an attachment: the primary alone, or for reads only whoever is in sync. */
export type Access = (typeof ACCESSES)[number];

export interface Attach {
  /** Empty: the only volume of the server. */
  volume: string;
  /** The position that the reply to the session's first ATTACH gave; null the first time. */
  since: Position | null;
  /** `any`: nothing is changed over this connection, and it acts for no session. */
  access: Access;
}

export function encodeAttach(attach: Omit<Attach, 'access'> & { access?: Access }): Uint8Array {
  const w = new ByteWriter(MAX_CONTROL_BYTES).string(attach.volume, MAX_NAME_BYTES).u8(attach.since === null ? 0 : 1);
  if (attach.since !== null) w.number(attach.since.epoch).number(attach.since.seq);
  // Left out where it says nothing: servers that do not know the field take the payload too.
  if (attach.access === 'any') w.u8(ACCESSES.indexOf(attach.access));
  return w.finish();
}

/** @throws HoldfastError BAD_FRAME */
export function decodeAttach(payload: Uint8Array | null): Attach {
  const r = new ByteReader(payload ?? EMPTY, 'ATTACH');
  const volume = r.string(MAX_NAME_BYTES);
  const since = r.boolean() ? { epoch: r.number(), seq: r.number() } : null;
  const access = r.left === 0 ? 'primary' : (ACCESSES[r.u8()] ?? r.fail('an unknown kind of access'));
  r.end();
  return { volume, since, access };
}

/** The reply to ATTACH and INFO. */
export interface VolumeInfo {
  name: string;
  /** 16 bytes. */
  volumeId: Uint8Array;
  sizeBytes: number;
  blockBytes: number;
  /** Bytes up to which a write is all or nothing. */
  atomicBytes: number;
  readOnly: boolean;
  /** Requests must carry it. */
  epoch: number;
  /** The last committed position. */
  position: Position;
}

export function encodeVolumeInfo(info: VolumeInfo): Uint8Array {
  return new ByteWriter(MAX_CONTROL_BYTES)
    .string(info.name, MAX_NAME_BYTES)
    .raw(info.volumeId)
    .number(info.sizeBytes)
    .u32(info.blockBytes)
    .u32(info.atomicBytes)
    .u8(info.readOnly ? 1 : 0)
    .number(info.epoch)
    .number(info.position.epoch)
    .number(info.position.seq)
    .finish();
}

/** @throws HoldfastError BAD_FRAME */
export function decodeVolumeInfo(payload: Uint8Array | null): VolumeInfo {
  const r = new ByteReader(payload ?? EMPTY, 'volume information');
  const info = {
    name: r.string(MAX_NAME_BYTES),
    volumeId: r.raw(VOLUME_ID_BYTES),
    sizeBytes: r.number(),
    blockBytes: r.u32(),
    atomicBytes: r.u32(),
    readOnly: r.boolean(),
    epoch: r.number(),
    position: { epoch: r.number(), seq: r.number() },
  };
  r.end();
  return info;
}

/** The request INFO: a volume's name, empty for the attached one. */
export function encodeInfo(volume: string): Uint8Array {
  return new ByteWriter(MAX_CONTROL_BYTES).string(volume, MAX_NAME_BYTES).finish();
}

/** @throws HoldfastError BAD_FRAME */
export function decodeInfo(payload: Uint8Array | null): string {
  const r = new ByteReader(payload ?? EMPTY, 'INFO');
  const volume = r.string(MAX_NAME_BYTES);
  r.end();
  return volume;
}

export interface ListedVolume {
  name: string;
  sizeBytes: number;
  readOnly: boolean;
}

/** Of all volumes of the server, those from index `from` on that fit a payload. */
export interface VolumeList {
  /** How many the server has. */
  total: number;
  volumes: ListedVolume[];
}

const MAX_LISTED_BYTES = 2 + MAX_NAME_BYTES + 9;
/** Entries that fit a payload, however long their names are. */
export const MAX_LISTED = Math.floor((MAX_CONTROL_BYTES - 6) / MAX_LISTED_BYTES);

/** The reply to LIST; `from` is the request's offset field. */
export function encodeList(all: readonly ListedVolume[], from = 0): Uint8Array {
  const part = all.slice(from, from + MAX_LISTED);
  const w = new ByteWriter(MAX_CONTROL_BYTES).u32(all.length).u16(part.length);
  for (const v of part) {
    w.string(v.name, MAX_NAME_BYTES)
      .number(v.sizeBytes)
      .u8(v.readOnly ? 1 : 0);
  }
  return w.finish();
}

/** @throws HoldfastError BAD_FRAME */
export function decodeList(payload: Uint8Array | null): VolumeList {
  const r = new ByteReader(payload ?? EMPTY, 'reply to LIST');
  const total = r.u32();
  const count = r.u16();
  const volumes: ListedVolume[] = [];
  for (let i = 0; i < count; i++) {
    volumes.push({ name: r.string(MAX_NAME_BYTES), sizeBytes: r.number(), readOnly: r.boolean() });
  }
  r.end();
  return { total, volumes };
}

/** The request EXTENTS: how many extents the reply may hold, 1 to MAX_EXTENTS. */
export function encodeExtentsRequest(limit: number): Uint8Array {
  return new ByteWriter(4).u32(limit).finish();
}

/** @throws HoldfastError BAD_FRAME, INVALID_ARGUMENT (a limit of 0). A larger limit than MAX_EXTENTS is lowered. */
export function decodeExtentsRequest(payload: Uint8Array | null): number {
  const r = new ByteReader(payload ?? EMPTY, 'EXTENTS');
  const limit = r.u32();
  r.end();
  if (limit === 0) throw new HoldfastError('INVALID_ARGUMENT', { operation: 'EXTENTS', detail: 'a limit of 0' });
  return Math.min(limit, MAX_EXTENTS);
}

const EXTENT_KINDS = ['data', 'hole'] as const;

/** The reply to EXTENTS: adjacent extents from the request's offset on, each shorter than 4 GiB. */
export function encodeExtents(extents: readonly Extent[]): Uint8Array {
  const w = new ByteWriter(MAX_CONTROL_BYTES).u32(extents.length);
  for (const extent of extents) w.u32(extent.lengthBytes).u8(EXTENT_KINDS.indexOf(extent.kind));
  return w.finish();
}

/** `offsetBytes`: the request's. @throws HoldfastError BAD_FRAME */
export function decodeExtents(payload: Uint8Array | null, offsetBytes: number): Extent[] {
  const r = new ByteReader(payload ?? EMPTY, 'reply to EXTENTS');
  const count = r.u32();
  if (count > MAX_EXTENTS) r.fail(`${count} extents, at most ${MAX_EXTENTS}`);
  const extents: Extent[] = [];
  for (let i = 0, at = offsetBytes; i < count; i++) {
    const lengthBytes = r.u32();
    const kind = EXTENT_KINDS[r.u8()];
    if (lengthBytes === 0 || kind === undefined) r.fail('an extent of no length or of an unknown kind');
    extents.push({ offsetBytes: at, lengthBytes, kind: kind! });
    at += lengthBytes;
  }
  r.end();
  return extents;
}
