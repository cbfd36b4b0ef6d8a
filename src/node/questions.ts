/**
 * What a node tells about itself and its volumes to a connection that need not be attached: the replies to HELLO, LIST,
 * INFO and LOCATE, as payloads.
 */
import type { Socket } from 'node:net';
import { BLOCK_BYTES, MAX_IO_BYTES } from '../base/units.ts';
import { type VolumeInfo as WireInfo, encodeHelloReply, encodeList, encodeVolumeInfo } from '../protocol/handshake.ts';
import { decodeLocate, encodeLocation } from '../protocol/location.ts';
import { SESSION_WINDOW } from '../protocol/messages.ts';
import type { VolumeInfo } from '../replication/served-volume.ts';
import type { ConnectionHost } from './connection-host.ts';

export function helloReplyOf(host: ConnectionHost, version: number, features: bigint): Uint8Array {
  const { maxInFlightBytes, maxInFlightRequests } = host.limits;
  const limits = {
    maxPayloadBytes: MAX_IO_BYTES,
    maxInFlightBytes,
    maxInFlightRequests,
    sessionWindow: SESSION_WINDOW,
  };
  return encodeHelloReply({ version, features, limits, server: host.serverName });
}

export function listOf(host: ConnectionHost, from: number): Uint8Array {
  const volumes = host.volumes().map((volume) => volume.info());
  return encodeList(volumes, from);
}

/** @param mayWrite whether whoever is told may */
export function infoOf(info: VolumeInfo, mayWrite: boolean): Uint8Array {
  const readOnly = info.readOnly || !mayWrite;
  const described: WireInfo = { ...info, readOnly, blockBytes: BLOCK_BYTES, atomicBytes: MAX_IO_BYTES };
  return encodeVolumeInfo(described);
}

/**
 * Where the answering node names itself without an address, it is the one that the asker has reached it by.
 * @throws HoldfastError BAD_FRAME, NO_SUCH_VOLUME
 */
export function locationOf(host: ConnectionHost, payload: Uint8Array | null, socket: Socket): Uint8Array {
  const location = host.locate(decodeLocate(payload));
  const own = socket.localAddress ?? '';
  const here = own === '' ? '' : `${own.includes(':') ? `[${own}]` : own}:${socket.localPort ?? 0}`;
  const isHere = (node: string): boolean => node === host.nodeName;
  const primaryAddress = location.primaryAddress || (isHere(location.primary) ? here : '');
  const members = location.members.map((m) => ({
    ...m,
    clientAddress: m.clientAddress || (isHere(m.node) ? here : ''),
  }));
  return encodeLocation({ ...location, primaryAddress, members });
}
