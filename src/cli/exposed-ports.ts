/** The ports of a command as the listening rule sees them (`node/exposure.ts`), and the option that lifts it. */
import type { Command } from 'commander';
import { type Exposed, checkExposure } from '../node/exposure.ts';
import type { NbdTls } from '../node/nbd-tls.ts';
import { type TlsFlags, clientCertOf } from './tls-flags.ts';

export interface InsecureFlag {
  insecure?: boolean;
}

export function addInsecureOption(command: Command): Command {
  return command.option('--insecure', 'listen beyond loopback although nothing protects the port');
}

/** A port that speaks Holdfast's own protocol. Whom it lets in it knows, where anybody wants to know. */
export function ownPort(flag: string, address: string, tls: boolean): Exposed {
  return {
    flag,
    address,
    guard: tls ? 'TLS' : null,
    authenticates: true,
    remedy: 'give --tls-cert, --tls-key and --tls-ca',
  };
}

/**
 * The port for clients: with certificates that may be left away and no tokens it is open to all, TLS or not.
 * @throws HoldfastError INVALID_ARGUMENT
 */
export function clientPort(flags: { listen: string; tokens?: string } & TlsFlags, tls: boolean): Exposed {
  const known = clientCertOf(flags) === 'require' || flags.tokens !== undefined;
  const port = ownPort('--listen', flags.listen, tls && known);
  const remedy = 'give --tokens, or leave --tls-client-cert allow away';
  return tls && !known ? { ...port, remedy } : port;
}

/** NBD with TLS that clients may leave away is open to those that do. */
export function nbdPort(flag: string, address: string | undefined, tls: NbdTls | null): Exposed[] {
  if (address === undefined) return [];
  const guard = tls?.policy === 'require' ? 'TLS' : null;
  const files = 'give --nbd-tls-cert and --nbd-tls-key with --nbd-tls-ca, or --nbd-tls-psk (and not --nbd-tls allow)';
  return [{ flag, address, guard, authenticates: tls?.authenticates === true, remedy: files }];
}

/**
 * Without TLS a password crosses the network as it is.
 * @param wants whether its TLS wants a certificate of clients; null: it speaks none
 */
export function respPort(
  flag: string,
  address: string | undefined,
  password: boolean,
  wants: 'require' | 'allow' | null,
): Exposed[] {
  if (address === undefined) return [];
  const known = password || wants === 'require';
  const word = known ? '' : ', and --kv-password-file or leave --tls-client-cert allow away';
  const remedy = `give --tls-cert, --tls-key and --tls-ca (and not --kv-tls off)${word}`;
  return [{ flag, address, guard: wants !== null && known ? 'TLS' : null, authenticates: known, remedy }];
}

/**
 * The dashboard and the metrics: without TLS a token crosses the network as it is.
 * @param known it asks for a token or a certificate
 */
export function httpPort(address: string | undefined, tls: boolean, known: boolean): Exposed[] {
  if (address === undefined) return [];
  const remedy =
    'give --tls-cert, --tls-key and --tls-ca (and not --http-tls off), with --tokens for those without one';
  const lifts = '--http-insecure';
  return [{ flag: '--http', address, guard: tls && known ? 'TLS' : null, authenticates: known, remedy, lifts }];
}

/** @throws HoldfastError ACCESS, INVALID_ARGUMENT */
export function checkPorts(ports: readonly Exposed[], { insecure }: InsecureFlag, tokens = false): void {
  checkExposure(ports, insecure, tokens);
}
