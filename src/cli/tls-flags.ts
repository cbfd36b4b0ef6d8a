/** The options for TLS on the ports of Holdfast's own protocols, the same for every command that opens one. */
import { readFileSync } from 'node:fs';
import { createSecureContext } from 'node:tls';
import type { Command } from 'commander';
import { HoldfastError, asHoldfastError } from '../base/errors.ts';
import type { TlsFiles } from '../coordination/http-call.ts';
import { isLoopback } from '../node/exposure.ts';
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
 * Whether a port that is not of Holdfast's own protocol speaks TLS: where the node has certificates, beyond loopback, unless
 * it is told otherwise.
 * @param policy what the option says
 * @param tls the node has certificates
 * @throws HoldfastError INVALID_ARGUMENT
 */
export function speaksTls(
  flag: string,
  address: string | undefined,
  policy: string | undefined,
  tls: boolean,
): boolean {
  if (address === undefined) return false;
  if (policy === undefined) return tls && !isLoopback(address);
  const operation = `parse ${flag} ${policy}`;
  if (policy === 'off') return false;
  if (policy !== 'require') {
    throw new HoldfastError('INVALID_ARGUMENT', {
      operation,
      detail: 'there is no such',
      remedy: 'write require, or off',
    });
  }
  if (tls) return true;
  const remedy = 'give --tls-cert, --tls-key and --tls-ca';
  throw new HoldfastError('INVALID_ARGUMENT', { operation, detail: 'this node has no certificate', remedy });
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

/** Paths of the files that calls under TLS show and trust. */
export interface CallFiles {
  ca: string | undefined;
  cert: string | undefined;
  key: string | undefined;
}

/** Of `holdfasts://`: the flags, else the environment. */
export function callFilesOf({ tlsCa, tlsCert, tlsKey }: TlsFlags): CallFiles {
  const { env } = process;
  return {
    ca: tlsCa ?? env['HOLDFAST_TLS_CA'],
    cert: tlsCert ?? env['HOLDFAST_TLS_CERT'],
    key: tlsKey ?? env['HOLDFAST_TLS_KEY'],
  };
}

/**
 * The content of the files, as it is at each call. Files that cannot be read, or do not go together, in the middle of a
 * renewal leave what was read last.
 * @throws HoldfastError INVALID_ARGUMENT, ACCESS, IO_ERROR
 */
export function readAtEachCall(files: CallFiles, minVersion?: 'TLSv1.3'): () => TlsFiles {
  const operation = 'read the files for the coordinator';
  const read = (file: string | undefined): string | undefined => {
    if (file === undefined || file === '') return undefined;
    let text: string;
    try {
      text = readFileSync(file, 'utf8');
    } catch (error) {
      throw asHoldfastError(error, { operation, detail: file });
    }
    // Node passes over what is cut off, and takes an empty CA for none: it would trust what the system trusts.
    const marks = (which: string): number => text.split(`-----${which} `).length - 1;
    if (marks('BEGIN') > 0 && marks('BEGIN') === marks('END')) return text;
    const detail = `${file} is no PEM, or not whole`;
    throw new HoldfastError('INVALID_ARGUMENT', { operation, detail, remedy: 'give a file in PEM' });
  };
  const all = (): TlsFiles => ({ ca: read(files.ca), cert: read(files.cert), key: read(files.key), minVersion });
  let last = all();
  return () => {
    try {
      const now = all();
      if (now.ca === last.ca && now.cert === last.cert && now.key === last.key) return last;
      createSecureContext(now);
      last = now;
    } catch {
      // As said above.
    }
    return last;
  };
}
