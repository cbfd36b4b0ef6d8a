/**
 * A coordinator by its address: `holdfast://host:7400`, `holdfasts://` for the same over TLS, `etcd://h1:2379,h2:2379,h3:2379[/prefix]`, or `etcds://` for
 * etcd over TLS.
 */
import { HoldfastError } from '../base/errors.ts';
import { EmbeddedClient } from './embedded-client.ts';
import type { CallTimes } from './endpoints.ts';
import { EtcdClient } from './etcd-client.ts';
import type { Endpoint, TlsFiles } from './http-call.ts';
import type { Coordinator } from './register.ts';

export const COORDINATOR_PORT = 7400;
const ETCD_PORT = 2379;
const DEFAULT_PREFIX = 'holdfast';
const MAX_ENDPOINTS = 16;

export interface OpenOptions extends CallTimes {
  /** An etcd user; without one etcd is asked as nobody. */
  user?: string | undefined;
  password?: string | undefined;
  /** For `etcds://` and `holdfasts://` only. */
  tls?: TlsFiles | (() => TlsFiles) | undefined;
  /** How often a watch reads without being told to. Default 5 s. */
  pollMs?: number | undefined;
}

/**
 * Connects to nothing yet: that the address is right is known with the first call.
 * @throws HoldfastError INVALID_ARGUMENT
 */
export function openCoordinator(url: string, options: OpenOptions = {}): Coordinator {
  const match = /^(holdfasts?|etcds?):\/\/([^/?#]*)(?:\/([^?#]*))?$/.exec(url);
  // Nothing of the address is repeated: somebody may have put a password there.
  if (match === null) throw refused('it is not the address of a coordinator');
  const [, scheme, hosts, path = ''] = match;
  if (hosts!.includes('@')) {
    throw refused('a user or password in the address, where every user of the machine can read it', 'give them apart');
  }
  const { user, password, tls } = options;
  const embedded = scheme === 'holdfast' || scheme === 'holdfasts';
  const secure = scheme!.endsWith('s');
  const port = embedded ? COORDINATOR_PORT : ETCD_PORT;
  const endpoints = hosts!.split(',').map((text) => endpointOf(text, port, secure ? (tls ?? {}) : null));
  if (tls !== undefined && !secure) throw refused('TLS is for etcds:// only, or holdfasts://', 'write etcds://');
  const files = typeof tls === 'function' ? tls() : tls;
  if ((files?.cert === undefined) !== (files?.key === undefined))
    throw refused('a certificate and its key go together');
  if (embedded) {
    if (endpoints.length > 1 || path !== '') throw refused('an embedded coordinator has one host, and no path');
    if (user !== undefined || password !== undefined) throw refused('an embedded coordinator knows no users');
    return new EmbeddedClient(endpoints[0]!, options);
  }
  if (endpoints.length > MAX_ENDPOINTS) throw refused(`more than ${MAX_ENDPOINTS} hosts`);
  if ((user === undefined) !== (password === undefined)) throw refused('a user and a password go together');
  const prefix = path.replace(/\/+$/, '') || DEFAULT_PREFIX;
  if (!/^[A-Za-z0-9._/-]{1,128}$/.test(prefix))
    throw refused('the prefix is not of letters, digits, ".", "_", "-", "/"');
  const login = user === undefined ? undefined : { user, password: password! };
  return new EtcdClient({ ...options, endpoints, prefix, login });
}

function endpointOf(text: string, defaultPort: number, tls: Endpoint['tls']): Endpoint {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([^\s:[\]@]+))(?::(\d{1,5}))?$/.exec(text);
  const port = match?.[3] === undefined ? defaultPort : Number(match[3]);
  if (match === null || port < 1 || port > 65_535) throw refused(`"${text}" is no host with a port`);
  return { host: match[1] ?? match[2]!, port, tls };
}

function refused(detail: string, remedy = ''): HoldfastError {
  return new HoldfastError('INVALID_ARGUMENT', {
    operation: 'open the coordinator',
    detail,
    remedy: remedy || 'write holdfast://host:7400 (holdfasts:// under TLS) or etcd://host:2379,host:2379[/prefix]',
  });
}
