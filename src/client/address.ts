/**
 * Addresses of volumes: `holdfast://host:port[,host:port...]/volume`, and `holdfasts://` for TLS.
 *
 * Guarantees: what parses has at least one host and only valid ports; everything else is refused with a text that says
 * what is wrong.
 */
import { HoldfastError } from '../base/errors.ts';

export const DEFAULT_PORT = 7401;

export interface Address {
  host: string;
  port: number;
}

export interface VolumeAddress {
  /** Under TLS. */
  secure?: boolean;
  servers: Address[];
  /** Empty: the only volume of the server. */
  volume: string;
}

/** `host:port`, IPv6 hosts in brackets. For texts. */
export function formatAddress({ host, port }: Address): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
}

/** `host`, `host:port`, IPv6 hosts in brackets. @returns null for what is none */
export function parseServer(text: string): Address | null {
  const parts = /^(?:\[([0-9a-fA-F:.]+)\]|([^\s:[\]@]+))(?::(\d{1,5}))?$/.exec(text);
  if (parts === null) return null;
  const port = parts[3] === undefined ? DEFAULT_PORT : Number(parts[3]);
  return port < 1 || port > 65535 ? null : { host: parts[1] ?? parts[2]!, port };
}

/**
 * The port may be left out (7401), and so may the volume. IPv6 addresses stand in brackets.
 * @param scheme what the address begins with: `holdfast` for disks, `holdfast-kv` for key-value volumes; under TLS
 *   `holdfasts`, `holdfasts-kv`
 * @throws HoldfastError INVALID_ARGUMENT
 */
export function parseVolumeAddress(url: string, scheme: 'holdfast' | 'holdfast-kv' = 'holdfast'): VolumeAddress {
  const refuse = (detail: string): never => {
    throw new HoldfastError('INVALID_ARGUMENT', {
      operation: 'parse address',
      detail: `"${url}": ${detail}`,
      remedy: `write ${scheme}://host:port/volume`,
    });
  };
  const what = scheme === 'holdfast' ? 'volume' : 'key-value volume';
  const secured = scheme.replace('holdfast', 'holdfasts');
  const secure = url.startsWith(`${secured}://`);
  const start = `${secure ? secured : scheme}://`;
  const rest = url.startsWith(start) ? url.slice(start.length) : refuse(`not the address of a ${what}`);
  const match = /^([^/?#]*)(?:\/([^/?#]*))?$/.exec(rest);
  if (match === null) return refuse(`not the address of a ${what}`);
  const servers = match[1]!.split(',').map((text): Address => {
    return parseServer(text) ?? refuse(`"${text}" is no host with a port from 1 to 65535`);
  });
  try {
    return { servers, volume: decodeURIComponent(match[2] ?? ''), secure };
  } catch {
    return refuse('the name of the volume is not percent-encoded UTF-8');
  }
}
