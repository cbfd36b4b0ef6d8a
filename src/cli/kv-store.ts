/** What the `holdfast kv` commands share. */
import type { Command } from 'commander';
import { HoldfastError } from '../base/errors.ts';
import { type KvConnectOptions, type KvStore, connectKv } from '../client/index.ts';
import { endQuietlyWithoutReader } from './output.ts';

export type Run = (work: () => Promise<void>, json?: boolean) => Promise<void>;

export interface ReadFlags {
  reads?: string;
  stale?: boolean;
}

export const addReadFlags = (command: Command): Command =>
  command
    .option('--reads <policy>', 'primary | any replica in sync | listed: only the servers of the address', 'primary')
    .option('--stale', 'also what nobody vouches for, of nodes with --when-isolated available');

export const readsOf = (flags: ReadFlags): KvConnectOptions => ({
  // `connectKv` refuses what is none of the policies.
  reads: flags.reads as KvConnectOptions['reads'],
  allowStale: flags.stale ?? false,
});

/** @throws HoldfastError INVALID_ARGUMENT */
export function wholeNumber(flag: string, text: string, least = 0, most = Number.MAX_SAFE_INTEGER): number {
  const value = Number(text);
  if (/^\d{1,16}$/.test(text) && value >= least && value <= most) return value;
  const detail = `${flag} "${text}" is no whole number${least > 0 || most < 2 ** 53 - 1 ? ` from ${least} to ${most}` : ''}`;
  throw new HoldfastError('INVALID_ARGUMENT', { operation: 'kv', detail });
}

/**
 * Opened for one command.
 * @param reader `needed`: it is an error that whoever reads the output leaves before all is written; the work finds it
 */
export async function withStore(
  url: string,
  options: KvConnectOptions,
  work: (store: KvStore) => Promise<void>,
  reader: 'may leave' | 'needed' = 'may leave',
): Promise<void> {
  if (reader === 'may leave') endQuietlyWithoutReader();
  const store = await connectKv(url, { clientName: 'holdfast kv', ...options });
  try {
    await work(store);
  } finally {
    await store.close();
  }
}
