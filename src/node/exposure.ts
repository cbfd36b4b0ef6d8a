/**
 * Which ports may listen where: beyond loopback only with TLS, or when its owner says that he means it.
 *
 * Guarantees: an address that is not certainly of this machine alone counts as beyond loopback, names too; nothing is
 * opened before all ports of a process were looked at.
 */
import { HoldfastError } from '../base/errors.ts';
import { parseAddress } from './listen.ts';

export interface Exposed {
  /** The option that it comes from. */
  flag: string;
  address: string;
  /** What protects it; null: nothing does. */
  guard: 'TLS' | null;
  /** Whoever gets in is known. */
  authenticates: boolean;
  /** What its owner could do besides `--insecure`. */
  remedy: string;
  /** The option that lifts the rule, if it is not `--insecure`. */
  lifts?: string;
}

/** `unix:PATH` too: the file system says who may connect. @throws HoldfastError INVALID_ARGUMENT for no address */
export function isLoopback(address: string): boolean {
  if (address.startsWith('unix:')) return true;
  const host = parseAddress(address).host.toLowerCase();
  const v4 = host.replace(/^::ffff:/, '');
  return host === 'localhost' || host === '::1' || /^127(?:\.\d{1,3}){3}$/.test(v4);
}

/**
 * @param tokens clients of the node need tokens: a port that asks nobody who he is would be the way around them
 * @throws HoldfastError ACCESS, with what to do about it
 */
export function checkExposure(ports: readonly Exposed[], insecure: boolean | undefined, tokens = false): void {
  for (const { flag, address, guard, authenticates, remedy, lifts = '--insecure' } of ports) {
    if (isLoopback(address)) continue;
    if (tokens && !authenticates) {
      throw new HoldfastError('ACCESS', {
        operation: `listen for ${flag}`,
        detail: `${address} can be reached from other machines, and lets in whoever has no token (--tokens)`,
        remedy: `${remedy}; or listen on 127.0.0.1`,
      });
    }
    if (guard !== null || insecure === true) continue;
    throw new HoldfastError('ACCESS', {
      operation: `listen for ${flag}`,
      detail: `${address} can be reached from other machines, and nothing protects it`,
      remedy: `${remedy}; or listen on 127.0.0.1; or add ${lifts} if whoever reaches that address may do everything`,
    });
  }
}
