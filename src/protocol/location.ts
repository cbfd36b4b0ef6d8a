/**
 * The payloads of LOCATE: where a volume's replicas are, and which of them is primary. Pure.
 *
 * Guarantees: those of handshake.ts; at most MAX_MEMBERS members, in either direction.
 */
import { ByteReader, ByteWriter } from './codec.ts';
import { MAX_CONTROL_BYTES, MAX_NAME_BYTES } from './messages.ts';

/** Replicas of one volume. */
export const MAX_MEMBERS = 8;
const VOLUME_ID_BYTES = 16;
const READS = ['primary', 'any'] as const;
const EMPTY = new Uint8Array(0);

export interface MemberLocation {
  node: string;
  /** `host:port` for clients; empty: not known to the one who answers. */
  clientAddress: string;
  /** Its copy is complete. */
  inSync: boolean;
}

export interface VolumeLocation {
  /** 16 bytes. */
  volumeId: Uint8Array;
  name: string;
  epoch: number;
  /** Node that is primary in that epoch; empty: none is known. */
  primary: string;
  /** `host:port`; empty: not known. */
  primaryAddress: string;
  /** Who may answer reads: the primary alone, or whoever is in sync. */
  reads: (typeof READS)[number];
  members: MemberLocation[];
}

/** A volume's name; empty: the only one of the node. */
export function encodeLocate(volume: string): Uint8Array {
  return new ByteWriter(MAX_CONTROL_BYTES).string(volume, MAX_NAME_BYTES).finish();
}

/** @throws HoldfastError BAD_FRAME */
export function decodeLocate(payload: Uint8Array | null): string {
  const r = new ByteReader(payload ?? EMPTY, 'LOCATE');
  const volume = r.string(MAX_NAME_BYTES);
  r.end();
  return volume;
}

/** Members above MAX_MEMBERS are left out. */
export function encodeLocation(location: VolumeLocation): Uint8Array {
  const members = location.members.slice(0, MAX_MEMBERS);
  const w = new ByteWriter(MAX_CONTROL_BYTES)
    .raw(location.volumeId)
    .string(location.name, MAX_NAME_BYTES)
    .number(location.epoch)
    .string(location.primary, MAX_NAME_BYTES)
    .string(location.primaryAddress, MAX_NAME_BYTES)
    .u8(READS.indexOf(location.reads))
    .u8(members.length);
  for (const { node, clientAddress, inSync } of members) {
    w.string(node, MAX_NAME_BYTES)
      .string(clientAddress, MAX_NAME_BYTES)
      .u8(inSync ? 1 : 0);
  }
  return w.finish();
}

/** @throws HoldfastError BAD_FRAME */
export function decodeLocation(payload: Uint8Array | null): VolumeLocation {
  const r = new ByteReader(payload ?? EMPTY, 'reply to LOCATE');
  const volumeId = r.raw(VOLUME_ID_BYTES);
  const name = r.string(MAX_NAME_BYTES);
  const epoch = r.number();
  const primary = r.string(MAX_NAME_BYTES);
  const primaryAddress = r.string(MAX_NAME_BYTES);
  const reads = READS[r.u8()] ?? r.fail('an unknown kind of reads');
  const count = r.u8();
  if (count > MAX_MEMBERS) r.fail(`${count} members, at most ${MAX_MEMBERS}`);
  const members: MemberLocation[] = [];
  for (let i = 0; i < count; i++) {
    members.push({ node: r.string(MAX_NAME_BYTES), clientAddress: r.string(MAX_NAME_BYTES), inSync: r.boolean() });
  }
  r.end();
  return { volumeId, name, epoch, primary, primaryAddress, reads, members };
}
