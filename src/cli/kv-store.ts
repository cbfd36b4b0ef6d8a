/** What the `holdfast kv` commands share. */
import { type KvConnectOptions, type KvStore, connectKv } from '../client/index.ts';
import { endQuietlyWithoutReader } from './output.ts';

export type Run = (work: () => Promise<void>, json?: boolean) => Promise<void>;

/** Opened for one command. */
export async function withStore(
  url: string,
  options: KvConnectOptions,
  work: (store: KvStore) => Promise<void>,
): Promise<void> {
  endQuietlyWithoutReader();
  const store = await connectKv(url, { clientName: 'holdfast kv', ...options });
  try {
    await work(store);
  } finally {
    await store.close();
  }
}
