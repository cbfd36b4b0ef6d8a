/** `holdfast volume create | info | check`: a volume's folder on this machine, while no server has it open. */
import { basename, resolve } from 'node:path';
import { createInterface } from 'node:readline/promises';
import type { Command } from 'commander';
import { HoldfastError } from '../base/errors.ts';
import { BLOCK_BYTES, MAX_IO_BLOCKS, formatBytes, parseSize } from '../base/units.ts';
import type { IoPool } from '../storage/io-pool.ts';
import type { OpenVolume } from '../storage/volume-folder.ts';
import { addClusterVolumeCommands, clusterInfo } from './cluster-volume-command.ts';
import { createReplicated } from './cluster-volume-create.ts';
import { addReplaceCommand } from './cluster-volume-replace.ts';
import { addCoordinatorOption, isFolder } from './coordinator-flags.ts';
import { addBackupCommands } from './backup-command.ts';
import { addGrowCommand } from './grow-command.ts';
import { addMarkCommand } from './mark-command.ts';
import { Progress, printFields, printJson } from './output.ts';
import { addVerifyCommand } from './verify-command.ts';
import type { VolumeKind } from '../storage/superblock.ts';

/** Runs with a small I/O pool that is closed afterwards. A lost worker ends the process. */
async function withPool<T>(run: (pool: IoPool) => Promise<T>): Promise<T> {
  // Only what works on a folder of this machine needs the store; the rest asks nodes.
  const { IoPool: Pool } = await import('../storage/io-pool.ts');
  const pool = new Pool({
    arenaBytes: 24 * 1024 * 1024,
    onLost: (error) => {
      process.stderr.write(`holdfast: ${error.message}\n`);
      process.exit(70);
    },
  });
  try {
    return await run(pool);
  } finally {
    await pool.close();
  }
}

export interface CreateFlags {
  size?: string;
  name?: string;
  allowSparse?: boolean;
  wait?: boolean;
  journal?: string;
  durability?: string;
  kind?: string;
  json?: boolean;
  coordinator?: string;
  replicas?: string;
  from?: string;
  node?: string;
}

/** @throws HoldfastError INVALID_ARGUMENT */
function parseKind(value: string | undefined): VolumeKind {
  if (value === undefined || value === 'block') return 'block';
  if (value === 'kv') return 'kv';
  throw new HoldfastError('INVALID_ARGUMENT', {
    operation: 'parse --kind',
    detail: `"${value}"`,
    remedy: 'write block (a disk), or kv (a key-value store)',
  });
}

/** @returns whether durability is on. @throws HoldfastError INVALID_ARGUMENT */
export function parseDurability(value: string | undefined): boolean | undefined {
  if (value === undefined) return undefined;
  if (value === 'always' || value === 'none') return value === 'always';
  throw new HoldfastError('INVALID_ARGUMENT', {
    operation: 'parse --durability',
    detail: `"${value}"`,
    remedy: 'write always, or none (for measuring: a crash of the machine then loses acknowledged writes)',
  });
}

/** Makes a volume with a progress display; an interrupt leaves nothing behind. */
export async function createWithProgress(pool: IoPool, dir: string, flags: CreateFlags): Promise<void> {
  if (flags.size === undefined) {
    throw new HoldfastError('INVALID_ARGUMENT', { operation: 'create', volume: dir, detail: 'no --size' });
  }
  const sizeBytes = parseSize(flags.size);
  const { createVolume } = await import('../storage/volume-folder.ts');
  const progress = new Progress(`creating ${basename(resolve(dir))}`);
  const abort = new AbortController();
  const interrupt = (): void => abort.abort(new HoldfastError('ABORTED', { operation: 'create', volume: dir }));
  process.on('SIGINT', interrupt);
  process.on('SIGTERM', interrupt);
  try {
    await createVolume(dir, pool, {
      sizeBytes,
      name: flags.name,
      sparse: flags.allowSparse,
      ...(flags.journal !== undefined && { journalBytes: parseSize(flags.journal) }),
      durable: parseDurability(flags.durability),
      progress: (done, total) => progress.update(done, total),
      signal: abort.signal,
    });
  } finally {
    process.off('SIGINT', interrupt);
    process.off('SIGTERM', interrupt);
    progress.stop();
  }
}

async function create(dir: string, flags: CreateFlags): Promise<void> {
  if (flags.replicas !== undefined || flags.coordinator !== undefined || !isFolder(dir, flags)) {
    const durable = parseDurability(flags.durability) ?? true;
    return createReplicated(dir, { ...flags, durable, kind: parseKind(flags.kind), wait: flags.wait ?? true });
  }
  await withPool(async (pool) => {
    await createWithProgress(pool, dir, flags);
    await withVolume(pool, dir, async (volume) => {
      if (flags.json) printJson(describe(volume));
      else process.stdout.write(`created ${dir}: serve it with  holdfast serve ${dir}\n`);
    });
  });
}

async function withVolume<T>(pool: IoPool, dir: string, run: (volume: OpenVolume) => Promise<T>): Promise<T> {
  const { openVolume } = await import('../storage/volume-folder.ts');
  const progress = new Progress('replaying the journal');
  const volume = await openVolume(dir, pool, {
    progress: (bytes) => progress.note(bytes),
  });
  progress.stop();
  try {
    return await run(volume);
  } finally {
    await volume.close();
  }
}

function describe({ store, dir, recovered }: OpenVolume): Record<string, string | number | boolean> {
  const counters = store.counters();
  return {
    name: store.name,
    folder: dir,
    volumeId: Buffer.from(store.volumeId).toString('hex'),
    sizeBytes: store.sizeBytes,
    size: formatBytes(store.sizeBytes),
    blockBytes: BLOCK_BYTES,
    health: store.health,
    ...(store.healthReason === '' ? {} : { healthReason: store.healthReason }),
    durability: store.durable ? 'always' : 'none',
    epoch: store.epoch,
    position: `${store.lastPosition.epoch}.${store.lastPosition.seq}`,
    owedBlocks: counters.owedBlocks,
    replayedRecords: recovered?.records ?? 0,
  };
}

async function info(dir: string, flags: { json?: boolean; coordinator?: string }): Promise<void> {
  if (flags.coordinator !== undefined || !isFolder(dir, flags)) return clusterInfo(dir, flags);
  await withPool((pool) =>
    withVolume(pool, dir, async (volume) => {
      if (flags.json) printJson(describe(volume));
      else printFields(describe(volume));
    }),
  );
}

export interface CheckFlags {
  flatten?: boolean;
  acceptLoss?: boolean;
  yes?: boolean;
  json?: boolean;
}

/** Runs of blocks that do not verify. */
interface BadRun {
  firstBlock: number;
  count: number;
}

/** Reads and verifies every written block. */
async function verifyAll(pool: IoPool, volume: OpenVolume): Promise<{ checked: number; bad: BadRun[] }> {
  const { store } = volume;
  const progress = new Progress('checking');
  const bad: BadRun[] = [];
  let checked = 0;
  const chunk = MAX_IO_BLOCKS - 1;
  const readRun = (first: number, count: number): Promise<HoldfastError | null> => {
    const slot = pool.arena.take(count)!;
    return new Promise((settle) => {
      store.readBlocks(first, count, slot, (error) => {
        pool.arena.release(slot);
        settle(error);
      });
    });
  };
  const note = (block: number): void => {
    const last = bad.at(-1);
    if (last !== undefined && last.firstBlock + last.count === block) last.count++;
    else bad.push({ firstBlock: block, count: 1 });
  };
  for (let block = 0; block < store.blocks;) {
    const end = store.runEnd(block, store.blocks);
    if (!store.isHole(block)) {
      for (let at = block; at < end; at += chunk) {
        const count = Math.min(chunk, end - at);
        const error = await readRun(at, count);
        if (error !== null && error.code !== 'CORRUPT_BLOCK') throw error;
        if (error !== null) {
          for (let one = at; one < at + count; one++) if ((await readRun(one, 1)) !== null) note(one);
        }
        checked += count;
        progress.update(at * BLOCK_BYTES, store.sizeBytes);
      }
    }
    block = end;
    progress.update(block * BLOCK_BYTES, store.sizeBytes);
  }
  progress.stop();
  return { checked, bad };
}

async function flatten(volume: OpenVolume): Promise<void> {
  const { store } = volume;
  const total = store.owed.count;
  const progress = new Progress('writing owed zeros');
  // What was written is settled by a checkpoint, a part at a time.
  for (let before = Infinity; store.owed.count > 0 && store.owed.count < before;) {
    before = store.owed.count;
    for (let run = store.owed.next(0, 256); run !== null; run = store.owed.next(run.first, 256)) {
      await store.owed.write(run.first, run.count);
    }
    await store.checkpoint();
    progress.update((total - store.owed.count) * BLOCK_BYTES, total * BLOCK_BYTES);
  }
  progress.stop();
  if (total > 0 && store.owed.count > 0)
    throw new HoldfastError('IO_ERROR', { operation: 'flatten', volume: volume.dir });
}

async function check(dir: string, flags: CheckFlags): Promise<void> {
  await withPool((pool) =>
    withVolume(pool, dir, async (volume) => {
      const { store } = volume;
      const { checked, bad } = await verifyAll(pool, volume);
      const badBlocks = bad.reduce((sum, run) => sum + run.count, 0);
      if (flags.flatten) await flatten(volume);
      let accepted = false;
      if (flags.acceptLoss && store.health !== 'good') accepted = await acceptLoss(volume, badBlocks, flags);
      const result = {
        folder: dir,
        health: accepted ? 'good' : store.health,
        healthReason: store.healthReason,
        checkedBlocks: checked,
        badBlocks,
        bad,
        owedBlocks: store.owed.count,
        acceptedLoss: accepted,
      };
      if (flags.json) printJson(result);
      else {
        process.stdout.write(`${checked} written blocks checked, ${badBlocks} bad; ${store.owed.count} owed zeros\n`);
        for (const run of bad.slice(0, 100)) {
          process.stdout.write(`  bad: block ${run.firstBlock} to ${run.firstBlock + run.count - 1}\n`);
        }
        if (bad.length > 100) process.stdout.write(`  and ${bad.length - 100} more runs (all with --json)\n`);
        if (result.health !== 'good') process.stdout.write(`the volume is ${result.health}: ${result.healthReason}\n`);
      }
      if (badBlocks > 0 || result.health !== 'good') process.exitCode = 1;
    }),
  );
}

async function acceptLoss(volume: OpenVolume, badBlocks: number, flags: CheckFlags): Promise<boolean> {
  const { store } = volume;
  process.stderr.write(
    `The volume ${store.name} is ${store.health}: ${store.healthReason}\n` +
      `What cannot be proved: ${badBlocks} blocks do not verify and stay unreadable until they are written; writes that ` +
      `were acknowledged after position ${store.lastPosition.epoch}.${store.lastPosition.seq} may be missing.\n`,
  );
  if (!flags.yes) {
    if (!process.stdin.isTTY) {
      throw new HoldfastError('INVALID_ARGUMENT', {
        operation: 'accept loss',
        volume: volume.dir,
        detail: 'this needs an answer and there is no terminal',
        remedy: 'add --yes',
      });
    }
    const prompt = createInterface({ input: process.stdin, output: process.stderr });
    const answer = await prompt.question(`Type the volume's name to accept this loss: `);
    prompt.close();
    if (answer.trim() !== store.name) return false;
  }
  await store.acceptLoss();
  return true;
}

export function addVolumeCommand(
  program: Command,
  run: (work: () => Promise<void>, json?: boolean) => Promise<void>,
): void {
  const volume = program
    .command('volume')
    .description('volumes in folders of this machine, and with --coordinator those of a cluster');
  addCoordinatorOption(volume.command('create <dir-or-name>'))
    .description('make a volume: reserves all of its blocks; with --replicas in a cluster, else in a folder')
    .option('--size <size>', 'e.g. 64MiB, 10GiB')
    .option('--replicas <count>', 'in a cluster: how many nodes hold it; default 2')
    .option('--from <dir>', 'in a cluster: begin with the volume of that folder, on the machine of --node')
    .option('--node <node>', 'in a cluster: one replica is on that node')
    .option('--name <name>', 'default: as the folder is called')
    .option('--journal <size>', 'of the journal; default: an eighth of the volume, 128 MiB to 1 GiB')
    .option('--allow-sparse', 'reserve nothing: for tests; a full disk then stops writes')
    .option('--no-wait', 'in a cluster: be done when it is made, not when it is served')
    .option('--durability <mode>', 'always | none (measuring only)')
    .option('--kind <kind>', 'in a cluster: block (a disk), or kv (a key-value store); default block')
    .option('--json', 'print JSON')
    .addHelpText(
      'after',
      '\nExamples:\n  holdfast volume create ./vm1 --size 10GiB\n' +
        '  holdfast volume create vm1 --size 10GiB --replicas 2 --coordinator holdfast://10.0.0.9:7400',
    )
    .action((dir: string, flags: CreateFlags) => run(() => create(dir, flags), flags.json));
  addCoordinatorOption(volume.command('info <dir-or-name>'))
    .description('what a closed volume is, or one of the cluster')
    .option('--json', 'print JSON')
    .addHelpText('after', '\nExample:\n  holdfast volume info ./vm1 --json')
    .action((dir: string, flags: { json?: boolean; coordinator?: string }) => run(() => info(dir, flags), flags.json));
  volume
    .command('check <dir>')
    .description('verify every written block of a closed volume')
    .option('--flatten', 'write the zeros still owed, so that the file `data` is byte for byte the device')
    .option('--accept-loss', 'make a damaged or poisoned volume writable again; lists what cannot be proved, and asks')
    .option('--yes', 'answer --accept-loss with yes')
    .option('--json', 'print JSON')
    .addHelpText('after', '\nExamples:\n  holdfast volume check ./vm1\n  holdfast volume check ./vm1 --accept-loss')
    .action((dir: string, flags: CheckFlags) => run(() => check(dir, flags), flags.json));
  addClusterVolumeCommands(volume, run);
  addVerifyCommand(volume, run);
  addReplaceCommand(volume, run);
  addGrowCommand(volume, run, withPool);
  addMarkCommand(volume, run);
  addBackupCommands(volume, run);
}
