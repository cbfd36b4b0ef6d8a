/** The options for TLS on the ports of Holdfast's own protocols, the same for every command that opens one. */
import { readFileSync } from 'node:fs';
import type { Command } from 'commander';
import { HoldfastError, asHoldfastError } from '../base/errors.ts';
import type { TlsFiles } from '../coordination/http-call.ts';
import { PortTls } from '../node/port-tls.ts';
import type { Log } from '../node/server.ts';

export interface TlsFlags {
  tlsCert?: string;
  tlsKey?: string;
  tlsCa?: string;
  tlsClientCert?: string;
}

export function addTlsOptions(command: Command): Command {
  return command
    .option('--tls-cert <file>', 'certificate of this process, in PEM, with those between it and the CA: TLS is on')
    .option('--tls-key <file>', 'its private key, in PEM')
    .option('--tls-ca <file>', 'the CA of all certificates of this cluster');
}

export function addClientCertOption(command: Command): Command {
  return command.option(
    '--tls-client-cert <policy>',
    'require | allow: whether clients must show a certificate of the CA',
    'require',
  );
}

function refused(detail: string, remedy: string): HoldfastError {
  return new HoldfastError('INVALID_ARGUMENT', { operation: 'set up TLS', detail, remedy });
}

/** @throws HoldfastError INVALID_ARGUMENT */
export function clientCertOf({ tlsClientCert }: TlsFlags): 'require' | 'allow' {
  if (tlsClientCert === undefined || tlsClientCert === 'require') return 'require';
  if (tlsClientCert === 'allow') return 'allow';
  throw refused(`--tls-client-cert "${tlsClientCert}"`, 'write require, or allow');
}

/**
 * @returns null where TLS is off
 * @throws HoldfastError INVALID_ARGUMENT, ACCESS, IO_ERROR
 */
export async function portTlsOf({ tlsCert, tlsKey, tlsCa }: TlsFlags, log: Log): Promise<PortTls | null> {
  if (tlsCert === undefined && tlsKey === undefined && tlsCa === undefined) return null;
  if (tlsCert === undefined || tlsKey === undefined || tlsCa === undefined) {
    const missing = Object.entries({ '--tls-cert': tlsCert, '--tls-key': tlsKey, '--tls-ca': tlsCa })
      .filter(([, file]) => file === undefined)
      .map(([flag]) => flag);
    throw refused(
      `TLS needs a certificate, its key and the CA; missing: ${missing.join(', ')}`,
      'give all three files',
    );
  }
  const tls = await PortTls.load({ certFile: tlsCert, keyFile: tlsKey, caFile: tlsCa }, log);
  onHangUp(() => tls.reload());
  return tls;
}

/** SIGHUP, as servers are told to look at their files again. */
export function onHangUp(reload: () => Promise<void>): void {
  process.on('SIGHUP', () => void reload());
}

/**
 * For calls to a coordinator under TLS: the files of the flags, else of the environment, as they are at each call. Files
 * that cannot be read in the middle of a renewal leave what was read last.
 * @throws HoldfastError ACCESS, IO_ERROR
 */
export function callFilesOf(flags: TlsFlags): () => TlsFiles {
  const { env } = process;
  const read = (flag: string | undefined, name: string): string | undefined => {
    const file = flag ?? (env[name] || undefined);
    try {
      return file === undefined ? undefined : readFileSync(file, 'utf8');
    } catch (error) {
      throw asHoldfastError(error, { operation: 'read the files for the coordinator', detail: file });
    }
  };
  const all = (): TlsFiles => ({
    ca: read(flags.tlsCa, 'HOLDFAST_TLS_CA'),
    cert: read(flags.tlsCert, 'HOLDFAST_TLS_CERT'),
    key: read(flags.tlsKey, 'HOLDFAST_TLS_KEY'),
    minVersion: 'TLSv1.3',
  });
  let last = all();
  return () => {
    try {
      last = all();
    } catch {
      // As said above.
    }
    return last;
  };
}
