/** `holdfast volume grow`: a volume of the cluster while clients go on, or one in a folder while nobody has it open. */
import type { Command } from 'commander';
import { formatBytes, parseSize } from '../base/units.ts';
import type { IoPool } from '../storage/io-pool.ts';
import { type GrowFlags, growInCluster } from './cluster-volume-grow.ts';
import { addCoordinatorOption, isFolder } from './coordinator-flags.ts';
import { printJson } from './output.ts';

export function addGrowCommand(
  volume: Command,
  run: (work: () => Promise<void>, json?: boolean) => Promise<void>,
  withPool: <T>(work: (pool: IoPool) => Promise<T>) => Promise<T>,
): void {
  const grow = async (what: string, flags: GrowFlags): Promise<void> => {
    if (!isFolder(what, flags)) return growInCluster(what, flags);
    const toBytes = parseSize(flags.size);
    const { growFolder } = await import('./grow-folder.ts');
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
