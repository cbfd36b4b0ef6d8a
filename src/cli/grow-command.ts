/** `holdfast volume grow`: a volume of the cluster while clients go on, or one in a folder while nobody has it open. */
import { basename, resolve } from 'node:path';
import type { Command } from 'commander';
import { HoldfastError } from '../base/errors.ts';
import { formatBytes, parseSize } from '../base/units.ts';
import { checkGrowth, prepareGrowth, switchGrowth } from '../storage/growth.ts';
import type { IoPool } from '../storage/io-pool.ts';
import { openVolume } from '../storage/volume-folder.ts';
import { type GrowFlags, growInCluster } from './cluster-volume-grow.ts';
import { addCoordinatorOption, isFolder } from './coordinator-flags.ts';
import { Progress, printJson } from './output.ts';

const OPERATION = 'grow';

/** @returns the size that it had */
async function growFolder(dir: string, toBytes: number, pool: IoPool): Promise<number> {
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

export function addGrowCommand(
  volume: Command,
  run: (work: () => Promise<void>, json?: boolean) => Promise<void>,
  withPool: <T>(work: (pool: IoPool) => Promise<T>) => Promise<T>,
): void {
  const grow = async (what: string, flags: GrowFlags): Promise<void> => {
    if (!isFolder(what, flags)) return growInCluster(what, flags);
    const toBytes = parseSize(flags.size);
    const fromBytes = await withPool((pool) => growFolder(what, toBytes, pool));
    if (flags.json) return printJson({ event: 'grown', folder: what, fromBytes, sizeBytes: toBytes });
    const text = fromBytes === toBytes ? 'has that size already:' : `has grown from ${formatBytes(fromBytes)} to`;
    process.stdout.write(`${what} ${text} ${formatBytes(toBytes)}\n`);
  };
  addCoordinatorOption(volume.command('grow <dir-or-name>'))
    .description('make a volume larger: of a cluster, while clients go on; in a folder, while nobody has it open')
    .requiredOption('--size <size>', 'the new one, e.g. 20GiB')
    .option('--json', 'print JSON, a line for each step')
    .addHelpText(
      'after',
      '\nExamples:\n  holdfast volume grow vm1 --size 20GiB --coordinator holdfast://10.0.0.9:7400\n' +
        '  holdfast volume grow ./vm1 --size 20GiB',
    )
    .action((what: string, flags: GrowFlags) => run(() => grow(what, flags), flags.json));
}
