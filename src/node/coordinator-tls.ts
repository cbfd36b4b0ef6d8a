/**
 * The embedded coordinator's port under TLS: nodes and operators only, by their certificates. What is let in is handed to
 * the HTTP server, which itself never listens.
 */
import type { Server } from 'node:http';
import type { HoldfastError } from '../base/errors.ts';
import { listenOn } from './listen.ts';
import type { PortTls } from './port-tls.ts';
import type { Log } from './server.ts';
import { TlsFront } from './tls-front.ts';

const HANDSHAKE_MS = 10_000;

/** @returns the address in force, and what stops it listening. @throws HoldfastError as `listenOn` */
export async function listenWithTls(
  http: Server,
  address: string,
  tls: PortTls,
  log: Log,
): Promise<{ address: string; close: () => Promise<void> }> {
  const front = new TlsFront({
    tls,
    port: 'coordinator',
    wants: 'node or admin',
    handshakeMs: HANDSHAKE_MS,
    lastWord,
    accept: (socket) => void http.emit('connection', socket),
    log,
  });
  front.net.maxConnections = http.maxConnections;
  front.net.on('drop', () => http.emit('drop'));
  const listening = await listenOn(front.net, address);
  // From this event on an HTTP server looks at the time limits of its requests.
  http.emit('listening');
  const close = (): Promise<void> => {
    const closed = new Promise<void>((resolve) => front.net.close(() => resolve()));
    front.end();
    return closed;
  };
  return { address: listening, close };
}

/** A reply to whatever was asked, in the form of the coordinator's errors. */
function lastWord(error: HoldfastError): Uint8Array {
  const body = `${JSON.stringify({ error: error.toJSON() })}\n`;
  const head = [
    'HTTP/1.1 403 Forbidden',
    'content-type: application/json',
    `content-length: ${Buffer.byteLength(body)}`,
    'connection: close',
  ];
  return Buffer.from(`${head.join('\r\n')}\r\n\r\n${body}`);
}
