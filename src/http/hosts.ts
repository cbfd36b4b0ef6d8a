/**
 * The names that a request may call this port by.
 *
 * Guarantees: a page of somewhere else that has a name of its own resolve to this machine is refused (DNS rebinding): names
 * are those of loopback and those that were given; an address counts only if the connection came to it.
 */

const LOOPBACK_NAMES = ['localhost', '127.0.0.1', '[::1]'];

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
