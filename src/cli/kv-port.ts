/** The port of a node for clients of Redis, from its flags. */
import { readFile } from 'node:fs/promises';
import { HoldfastError, asHoldfastError } from '../base/errors.ts';
import { parseSize } from '../base/units.ts';
import { type ForwarderCredentials, KvForwarder } from '../gateway/kv-forwarder.ts';
import type { KvLimits } from '../kv/operations.ts';
import type { KvPortOptions } from '../node/cluster-node-options.ts';
import type { ClusterNode } from '../node/cluster-node.ts';
import { KV_LIMITS } from '../node/hosted-kv.ts';
import { type TlsFlags, speaksTls } from './tls-flags.ts';

export interface KvPortFlags extends TlsFlags {
  kv?: string;
  kvVolume: string;
  kvPasswordFile?: string;
  kvTls?: string;
  nodeTokenFile?: string;
  kvMaxKey?: string;
  kvMaxValue?: string;
}

/**
 * What keys and values may have at most; a transaction holds one of each at least.
 * @throws HoldfastError INVALID_ARGUMENT
 */
export function kvLimitsOf({ kvMaxKey, kvMaxValue }: KvPortFlags): KvLimits {
  const size = (flag: string, text: string | undefined, most: number): number => {
    const bytes = text === undefined ? most : parseSize(text);
    if (bytes <= most) return bytes;
    const detail = `${bytes} bytes; at most ${most} can be had`;
    throw new HoldfastError('INVALID_ARGUMENT', { operation: `parse ${flag}`, detail });
  };
  return {
    ...KV_LIMITS,
    maxKeyBytes: size('--kv-max-key', kvMaxKey, KV_LIMITS.maxKeyBytes),
    maxValueBytes: size('--kv-max-value', kvMaxValue, KV_LIMITS.maxValueBytes),
  };
}

/**
 * @param own the node, once it runs: through it the others are found
 * @throws HoldfastError INVALID_ARGUMENT, ACCESS, IO_ERROR
 */
export async function kvPortOf(
  flags: KvPortFlags,
  own: () => ClusterNode,
  tls: boolean,
): Promise<KvPortOptions | undefined> {
  if (flags.kv === undefined) return undefined;
  const volume = flags.kvVolume;
  const forwarded = new KvForwarder(
    () => own().clientAddress,
    () => volume || (own().onlyKv?.name ?? ''),
    credentialsOf(flags),
  );
  return { listen: flags.kv, volume, password: await passwordOf(flags), forwarded, secure: kvTlsOf(flags, tls) };
}

/** Whether the port speaks TLS. @throws HoldfastError INVALID_ARGUMENT */
export function kvTlsOf({ kv, kvTls }: KvPortFlags, tls: boolean): boolean {
  return speaksTls('--kv-tls', kv, kvTls, tls);
}

/** A node forwards as itself. */
function credentialsOf({ tlsCa, tlsCert, tlsKey, nodeTokenFile }: KvPortFlags): ForwarderCredentials {
  return {
    secure: tlsCa !== undefined,
    tls: { caFile: tlsCa, certFile: tlsCert, keyFile: tlsKey },
    tokenFile: nodeTokenFile,
  };
}

async function passwordOf({ kvPasswordFile }: KvPortFlags): Promise<string | null> {
  if (kvPasswordFile === undefined) return process.env['HOLDFAST_KV_PASSWORD'] ?? null;
  let password: string;
  try {
    password = (await readFile(kvPasswordFile, 'utf8')).replace(/\r?\n$/, '');
  } catch (error) {
    throw asHoldfastError(error, { operation: `read ${kvPasswordFile}` });
  }
  if (password !== '') return password;
  const operation = `read ${kvPasswordFile}`;
  throw new HoldfastError('INVALID_ARGUMENT', {
    operation,
    detail: 'the file is empty',
    remedy: 'write a password into it',
  });
}
