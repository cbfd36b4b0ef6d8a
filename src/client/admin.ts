/**
 * Requests about a node, not about a volume: one connection, one request.
 *
 * Guarantees: it is sent at most once; it settles within the given time.
 */
import { decodeJson, encodeJson } from '../protocol/json.ts';
import { MESSAGES } from '../protocol/messages.ts';
import { DEFAULT_PORT, parseVolumeAddress } from './address.ts';
import { type CredentialOptions, Credentials } from './credentials.ts';
import { Link } from './link.ts';

export interface AdminOptions extends CredentialOptions {
  /** For connecting, for HELLO, and for the answer, each. Default 3 s. */
  timeoutMs?: number | undefined;
  clientName?: string | undefined;
}

/**
 * @param address host:port of a node, where its clients connect; under TLS if a CA is given or HOLDFAST_TLS_CA is set
 * @throws HoldfastError INVALID_ARGUMENT, UNREACHABLE, CONNECTION_LOST, ACCESS, UNSUPPORTED, or as the node answers
 */
export async function admin(
  address: string,
  request: { op: string; [field: string]: unknown },
  options: AdminOptions = {},
): Promise<Record<string, unknown>> {
  const server = parseVolumeAddress(`holdfast://${address}`).servers[0] ?? { host: address, port: DEFAULT_PORT };
  const timeoutMs = options.timeoutMs ?? 3000;
  const hello = { session: 0n, generation: 0, client: options.clientName ?? 'holdfast admin' };
  const { signal } = new AbortController();
  const { link } = await Link.open(server, hello, timeoutMs, signal, Credentials.forBareAddress(options));
  try {
    return decodeJson(await link.control(MESSAGES.ADMIN.number, encodeJson(request), timeoutMs));
  } finally {
    link.destroy();
  }
}
