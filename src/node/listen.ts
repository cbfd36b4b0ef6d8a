/** Addresses that a node listens on. */
import type { AddressInfo, Server } from 'node:net';
import { HoldfastError } from '../base/errors.ts';

/** `host:port`, `[v6]:port`, `:port` or `port`. @throws HoldfastError INVALID_ARGUMENT */
export function parseAddress(text: string, defaultHost = '127.0.0.1'): { host: string; port: number } {
  const match = /^(?:(?:\[([^\]]+)\]|([^:]*)):)?(\d+)$/.exec(text.trim());
  const port = Number(match?.[3]);
  if (match === null || port > 65_535) {
    throw new HoldfastError('INVALID_ARGUMENT', {
      operation: 'parse address',
      detail: `"${text}" is no address`,
      remedy: 'write HOST:PORT, e.g. 127.0.0.1:7401',
    });
  }
  return { host: match[1] ?? (match[2] || defaultHost), port };
}

/**
 * Listens on `host:port` or `unix:PATH`.
 * @returns the address in force: with the port that was chosen for port 0
 * @throws HoldfastError BUSY, ACCESS, INVALID_ARGUMENT
 */
export function listenOn(server: Server, address: string): Promise<string> {
  const unix = address.startsWith('unix:');
  const where = unix ? { path: address.slice('unix:'.length) } : parseAddress(address);
  return new Promise((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => {
      const code = error.code === 'EADDRINUSE' ? 'BUSY' : error.code === 'EACCES' ? 'ACCESS' : 'INVALID_ARGUMENT';
      reject(
        new HoldfastError(code, {
          operation: 'listen',
          detail: `${address}: ${error.message}`,
          remedy: 'stop what listens there (or remove the socket that it left), or take another address',
          cause: error,
        }),
      );
    });
    server.listen(where, () => {
      if (unix) return resolve(address);
      const bound = server.address() as AddressInfo;
      resolve(`${bound.family === 'IPv6' ? `[${bound.address}]` : bound.address}:${bound.port}`);
    });
  });
}
