/** The address of the coordinator, for all commands that need one, and what etcd wants to know besides. */
import type { Command } from 'commander';
import { HoldfastError } from '../base/errors.ts';
import { type OpenOptions, openCoordinator } from '../coordination/open.ts';
import type { Coordinator } from '../coordination/register.ts';
import { type TlsFlags, callFilesOf, readAtEachCall } from './tls-flags.ts';

export interface CoordinatorUrl extends TlsFlags {
  coordinator?: string;
}

export function addCoordinatorOption(command: Command): Command {
  return command.option(
    '--coordinator <url>',
    'holdfast://host:7400, holdfasts:// under TLS, or etcd://host:2379,host:2379 (HOLDFAST_COORDINATOR)',
  );
}

/**
 * Whether a volume's folder is meant, where it may also be the name of one in a cluster: names have no slash; a name alone is
 * a folder where no coordinator is given.
 */
export function isFolder(text: string, flags: CoordinatorUrl): boolean {
  if (/[/\\]/.test(text) || text === '.' || text === '..') return true;
  return (flags.coordinator ?? process.env['HOLDFAST_COORDINATOR'] ?? '') === '';
}

/**
 * A user of etcd comes from HOLDFAST_ETCD_USER and _PASSWORD; files for etcds:// from HOLDFAST_ETCD_CA, _CERT, _KEY, those
 * for holdfasts:// from the flags, or HOLDFAST_TLS_CA, _CERT, _KEY. Files are read at each call.
 * @throws HoldfastError INVALID_ARGUMENT
 */
export function coordinatorOf(flags: CoordinatorUrl, options: OpenOptions = {}): Coordinator {
  const url = flags.coordinator ?? process.env['HOLDFAST_COORDINATOR'];
  if (url === undefined || url === '') {
    throw new HoldfastError('INVALID_ARGUMENT', {
      operation: 'find the coordinator',
      detail: 'its address is not given',
      remedy: 'add --coordinator holdfast://host:7400, or set HOLDFAST_COORDINATOR',
    });
  }
  const { env } = process;
  const user = env['HOLDFAST_ETCD_USER'];
  const password = env['HOLDFAST_ETCD_PASSWORD'];
  if (url.startsWith('holdfasts:')) {
    const tls = readAtEachCall(callFilesOf(flags), 'TLSv1.3');
    return openCoordinator(url, { ...options, user, password, tls });
  }
  const files = { ca: env['HOLDFAST_ETCD_CA'], cert: env['HOLDFAST_ETCD_CERT'], key: env['HOLDFAST_ETCD_KEY'] };
  const given = files.ca !== undefined || files.cert !== undefined;
  return openCoordinator(url, { ...options, user, password, ...(given && { tls: readAtEachCall(files) }) });
}
