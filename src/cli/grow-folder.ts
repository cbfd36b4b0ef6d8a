/** `holdfast volume grow` of a volume in a folder of this machine, which nobody has open. */
import { basename, resolve } from 'node:path';
import { HoldfastError } from '../base/errors.ts';
import { checkGrowth, prepareGrowth, switchGrowth } from '../storage/growth.ts';
import type { IoPool } from '../storage/io-pool.ts';
import { openVolume } from '../storage/volume-folder.ts';
import { Progress } from './output.ts';

const OPERATION = 'grow';

/** @returns the size that it had */
export async function growFolder(dir: string, toBytes: number, pool: IoPool): Promise<number> {
  const volume = await openVolume(dir, pool);
  const { store } = volume;
  const { sizeBytes } = store;
  const progress = new Progress(`reserving room for ${basename(resolve(dir))}`);
  const abort = new AbortController();
  const interrupt = (): void => abort.abort(new HoldfastError('ABORTED', { operation: OPERATION, volume: dir }));
  process.on('SIGINT', interrupt);
  process.on('SIGTERM', interrupt);
  let prepared = false;
  try {
    if (store.replica.state !== 'solo') {
      throw new HoldfastError('INVALID_ARGUMENT', {
        operation: OPERATION,
        volume: dir,
        detail: 'it is a replica of a cluster: all of them have to grow',
        remedy: `holdfast volume grow ${store.name} --size ${toBytes} --coordinator URL, with its node running`,
      });
    }
    if (checkGrowth(store, toBytes)) {
      await prepareGrowth(volume, pool, {
        toBytes,
        progress: (done, total) => progress.update(done, total),
        signal: abort.signal,
      });
      prepared = true;
      // A replica that was let go while it grew has the room already.
    } else if (toBytes > sizeBytes) await store.update({ sizeBytes: toBytes });
  } finally {
    progress.stop();
    process.off('SIGINT', interrupt);
    process.off('SIGTERM', interrupt);
    await volume.close();
  }
  if (prepared) await switchGrowth(dir, pool, { toBytes });
  return sizeBytes;
}
