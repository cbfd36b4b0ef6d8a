/**
 * TLS of the streams between nodes: both ends show a certificate, and each is judged by the node that it names.
 *
 * Guarantees: who is called has to be the node that was meant; who calls has to be the node that its HELLO names.
 */
import { type Server as NetServer, type Socket, connect } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { HoldfastError, asHoldfastError } from '../base/errors.ts';
import { tlsFailure } from '../base/tls-failures.ts';
import { encodePeerGoodbye } from '../protocol/peer-hello.ts';
import { peerHead, peerPayload } from '../protocol/peer.ts';
import { parseAddress } from './listen.ts';
import { type PortTls, certifiedOf } from './port-tls.ts';
import type { Log } from './server.ts';
import { TlsFront } from './tls-front.ts';

/** @returns the socket, and which event says that it may be used */
export function dialPeer(
  tls: PortTls | null,
  node: string,
  address: string,
): { socket: Socket; ready: 'connect' | 'secureConnect' } {
  const where = parseAddress(address);
  if (tls === null) return { socket: connect(where), ready: 'connect' };
  return { socket: connectTls({ ...where, ...tls.towards(node) }), ready: 'secureConnect' };
}

/** Why it could not be reached. */
export function dialFailure(error: unknown, node: string): HoldfastError {
  const where = { operation: 'connect', peer: node };
  return tlsFailure(error, where) ?? asHoldfastError(error, where);
}

/** Where other nodes connect. */
export function peerFront(
  tls: PortTls,
  handshakeMs: number,
  accept: (socket: Socket) => void,
  log: Log,
): { net: NetServer; end: () => void } {
  return new TlsFront({
    tls,
    port: 'nodes',
    wants: 'node',
    handshakeMs,
    lastWord: (error) => peerHead(peerPayload('GOODBYE', encodePeerGoodbye(error)), 0),
    accept,
    log,
  });
}

/** Whether a HELLO is of the node that the certificate of its connection names. @returns null if so, or without TLS */
export function impostor(socket: Socket, from: string): HoldfastError | null {
  const node = certifiedOf(socket)?.node ?? null;
  if (node === null || node === from) return null;
  return new HoldfastError('ACCESS', {
    operation: 'HELLO between replicas',
    peer: from,
    detail: `it says that it is ${from}, and its certificate is of ${node}`,
    remedy: 'give each node a certificate of its own',
  });
}
