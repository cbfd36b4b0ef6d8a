/** The ports of a command as the listening rule sees them (`node/exposure.ts`), and the option that lifts it. */
import type { Command } from 'commander';
import { type Exposed, checkExposure } from '../node/exposure.ts';
import type { NbdTls } from '../node/nbd-tls.ts';

export interface InsecureFlag {
  insecure?: boolean;
}

export function addInsecureOption(command: Command): Command {
  return command.option('--insecure', 'listen beyond loopback although nothing protects the port');
}

/** A port that speaks Holdfast's own protocol. */
export function ownPort(flag: string, address: string, tls: boolean): Exposed {
  return { flag, address, guard: tls ? 'TLS' : null, remedy: 'give --tls-cert, --tls-key and --tls-ca' };
}

/** NBD with TLS that clients may leave away is open to those that do. */
export function nbdPort(flag: string, address: string | undefined, tls: NbdTls | null): Exposed[] {
  if (address === undefined) return [];
  const guard = tls?.policy === 'require' ? 'TLS' : null;
  const files = 'give --nbd-tls-cert and --nbd-tls-key with --nbd-tls-ca, or --nbd-tls-psk (and not --nbd-tls allow)';
  return [{ flag, address, guard, remedy: files }];
}

/** The protocol of Redis has no TLS here: a password crosses the network as it is. */
export function respPort(flag: string, address: string | undefined): Exposed[] {
  if (address === undefined) return [];
  return [{ flag, address, guard: null, remedy: 'put a tunnel before it' }];
}

/** @throws HoldfastError ACCESS, INVALID_ARGUMENT */
export function checkPorts(ports: readonly Exposed[], { insecure }: InsecureFlag): void {
  checkExposure(ports, insecure);
}
