/**
 * A socket to a server, plain or under TLS, that hands over each chunk as it comes.
 *
 * Guarantees: a chunk is to be consumed, or copied, within `receive`; `opened` is called once, when the server is the one
 * that the address means, or never; nothing is sent before.
 */
import { type Socket, connect } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { HoldfastError } from '../base/errors.ts';
import { KiB } from '../base/units.ts';
import { tlsFailure } from '../base/tls-failures.ts';
import type { Address } from './address.ts';
import type { Credentials } from './credentials.ts';

const RECEIVE_BYTES = 256 * KiB;

/** @throws HoldfastError for credentials that cannot be used */
export function dial(
  { host, port }: Address,
  credentials: Credentials,
  receive: (chunk: Uint8Array) => void,
  opened: () => void,
): Socket {
  if (credentials.secure) {
    const socket = connectTls({ host, port, rejectUnauthorized: true, ...credentials.connectionOptions() });
    socket.setNoDelay(true);
    socket.once('secureConnect', () => {
      socket.on('data', receive);
      opened();
    });
    return socket;
  }
  const buffer = new Uint8Array(RECEIVE_BYTES);
  const socket = connect({
    host,
    port,
    noDelay: true,
    onread: {
      buffer,
      callback: (length, bytes) => {
        receive((bytes as Uint8Array).subarray(0, length));
        return true;
      },
    },
  });
  socket.once('connect', opened);
  return socket;
}

/** Why a connection ended; ACCESS where it was TLS. */
export function lostBecause(error: unknown, peer: string): HoldfastError {
  const where = { operation: 'connection', peer };
  const detail = (error as Error).message;
  return tlsFailure(error, where) ?? new HoldfastError('CONNECTION_LOST', { ...where, detail });
}
