/**
 * Three nodes with a key-value volume, for load generators of others: prints one line of JSON when it is served, and ends
 * it in good order on SIGINT or SIGTERM.
 *
 * Guarantees: all processes are ended by their pid; the volume is removed.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { Command, Option } from 'commander';
import { GiB } from '../../src/base/units.ts';
import type { Durability } from '../load/children.ts';
import { size } from '../load/load-options.ts';
import { BenchCluster } from '../replicated/cluster.ts';
import { THREE } from './measure.ts';

const options = new Command('three')
  .description('three nodes with a key-value volume, until SIGTERM')
  .requiredOption('--dir <path>', 'folder in which the volumes are made')
  .option('--size <size>', 'of each replica, preallocated', size, 2 * GiB)
  .addOption(new Option('--durability <mode>').choices(['always', 'none']).default('always'))
  .parse()
  .opts<{ dir: string; size: number; durability: Durability }>();

const work = mkdtempSync(join(options.dir, 'holdfast-bench-'));
process.on('exit', () => rmSync(work, { recursive: true, force: true }));
const told = new Promise((resolve) => {
  // Whoever imports the children of a bench ends at once on a signal; here they are ended in order.
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.removeAllListeners(signal).on(signal, resolve);
});
const cluster = await BenchCluster.start(work, options.size, options.durability, { nodes: THREE, kind: 'kv' });
const { primary } = await cluster.untilInSync();
const awakeUs = process.env['HOLDFAST_AWAKE_US'] ?? 'default';
const line = {
  event: 'up',
  primary,
  redis: cluster.kvAddress(primary),
  pids: cluster.pids,
  url: cluster.kvUrl,
  awakeUs,
};
process.stdout.write(`${JSON.stringify(line)}\n`);
await told;
await cluster.stop();
