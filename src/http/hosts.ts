/**
 * Who may ask: the names that a request may call this port by, and where it may listen.
 *
 * Guarantees: a page of somewhere else that has a name of its own resolve to this machine is refused (DNS rebinding): names
 * are those of loopback and those that were given; an address counts only if the connection came to it.
 */
import { HoldfastError } from '../base/errors.ts';

const LOOPBACK_NAMES = ['localhost', '127.0.0.1', '[::1]'];

export function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || /^127(?:\.\d{1,3}){3}$/.test(host);
}

/** @throws HoldfastError INVALID_ARGUMENT where others could reach it and nobody has said that they may */
export function checkListen(host: string, insecure: boolean): void {
  if (insecure || isLoopback(host)) return;
  throw new HoldfastError('INVALID_ARGUMENT', {
    operation: 'listen for HTTP',
    detail: `${host} can be reached from other machines, and the port has neither TLS nor passwords`,
    remedy:
      'listen on 127.0.0.1, behind a proxy that asks who it is; or, on a network that you trust, add --http-insecure',
  });
}

/** The host of a `Host` header, as `LOOPBACK_NAMES` are written; null: it is none. */
export function hostOf(header: string | undefined): string | null {
  const match = /^(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::\d{1,5})?$/i.exec(header ?? '');
  return match === null ? null : match[1]!.toLowerCase();
}

/** @param localAddress what the connection came to */
export function isAllowed(
  header: string | undefined,
  names: readonly string[],
  localAddress: string | undefined,
): boolean {
  const host = hostOf(header);
  if (host === null) return false;
  if (LOOPBACK_NAMES.includes(host) || names.some((name) => name.toLowerCase() === host)) return true;
  const local = (localAddress ?? '').replace(/^::ffff:(?=\d+\.)/, '');
  return host === local || host === `[${local}]`;
}
