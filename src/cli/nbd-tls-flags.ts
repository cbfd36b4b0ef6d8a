/** The options for TLS on an NBD port, the same for every command that opens one. */
import type { Command } from 'commander';
import { HoldfastError } from '../base/errors.ts';
import type { TlsPolicy } from '../nbd/negotiation.ts';
import { type NbdTls, loadNbdTls } from '../node/nbd-tls.ts';
import type { Log } from '../node/server.ts';
import { WatchedFiles } from '../node/watched-files.ts';
import { onHangUp } from './tls-flags.ts';

export interface NbdTlsFlags {
  nbdTls?: string;
  nbdTlsCert?: string;
  nbdTlsKey?: string;
  nbdTlsCa?: string;
  nbdTlsPsk?: string;
}

export function addNbdTlsOptions(command: Command): Command {
  return command
    .option('--nbd-tls <policy>', 'require | allow | off; default: require with a certificate or keys, off without')
    .option('--nbd-tls-cert <file>', 'certificate of this server for NBD, in PEM, with those between it and its CA')
    .option('--nbd-tls-key <file>', 'its private key, in PEM')
    .option('--nbd-tls-ca <file>', 'NBD clients must show a certificate that this CA signed')
    .option('--nbd-tls-psk <file>', 'pre-shared keys of NBD clients, lines username:hexkey as made by psktool');
}

/**
 * What the files hold is taken over when it changes, and at SIGHUP.
 * @param nbd whether the command opens an NBD port at all
 * @returns null where TLS is off
 * @throws HoldfastError INVALID_ARGUMENT, ACCESS, IO_ERROR
 */
export async function nbdTlsOf(flags: NbdTlsFlags, nbd: boolean, log: Log): Promise<NbdTls | null> {
  const policy = parsePolicy(flags.nbdTls);
  const { nbdTlsCert: certFile, nbdTlsKey: keyFile, nbdTlsCa: caFile, nbdTlsPsk: pskFile } = flags;
  const load = (): Promise<NbdTls | null> => loadNbdTls({ policy, certFile, keyFile, caFile, pskFile });
  const tls = await load();
  if (tls === null) return null;
  if (nbd) {
    const files = [certFile, keyFile, caFile, pskFile].filter((file) => file !== undefined);
    // With the same flags it is never off.
    const watched = new WatchedFiles('TLS for NBD', files, async () => tls.renew((await load())!), log);
    onHangUp(() => watched.reload());
    return tls;
  }
  throw new HoldfastError('INVALID_ARGUMENT', {
    operation: 'parse --nbd-tls',
    detail: 'TLS for NBD, and no NBD port',
    remedy: 'add --nbd HOST:PORT; for the port of --listen there is --tls-cert',
  });
}

function parsePolicy(value: string | undefined): TlsPolicy | undefined {
  if (value === undefined || value === 'require' || value === 'allow' || value === 'off') return value;
  throw new HoldfastError('INVALID_ARGUMENT', {
    operation: 'parse --nbd-tls',
    detail: `"${value}"`,
    remedy: 'write require, allow (clients choose) or off',
  });
}
