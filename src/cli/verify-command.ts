/**
 * `holdfast volume verify`: whether all replicas in sync hold the same, block by block, while clients go on.
 *
 * Guarantees: equal is said only of what was compared to the end; what could not be compared is counted; another primary
 * goes on where the last one was. Exit codes: 0 equal, 1 different, or not all was compared.
 */
import type { Command } from 'commander';
import { type ErrorCode, HoldfastError, asHoldfastError } from '../base/errors.ts';
import { BLOCK_BYTES, formatBytes, parseSize } from '../base/units.ts';
import { admin } from '../client/admin.ts';
import type { Coordinator } from '../coordination/register.ts';
import type { ComparisonProgress } from '../replication/comparison.ts';
import { clientAddressOf, pause, registerOf, withCoordinator } from './cluster.ts';
import { addCoordinatorOption } from './coordinator-flags.ts';
import { Progress, printJson } from './output.ts';

interface Flags {
  coordinator?: string;
  rate?: string;
  json?: boolean;
}

const ASK_MS = 250;
/** Without a primary, or with another one each time. */
const PATIENCE_MS = 60_000;
/** Anything else may be over when there is another primary. */
const FINAL: readonly ErrorCode[] = ['ABORTED', 'INVALID_ARGUMENT', 'UNSUPPORTED', 'ACCESS', 'BAD_FRAME'];

/** What comparisons at one primary after the other have told. */
interface Verdict {
  nodes: string[];
  comparedBytes: number;
  differentBlocks: number;
  skippedBlocks: number;
  differences: ComparisonProgress['differences'];
}

type Told = (progress: ComparisonProgress) => void;

/** Follows one comparison to its end. @returns how it ended. @throws HoldfastError */
async function atPrimary(
  coordinator: Coordinator,
  name: string,
  request: { fromBlock: number; bytesPerSecond: number },
  told: Told,
): Promise<ComparisonProgress> {
  const [register, nodes] = [await registerOf(coordinator, name), await coordinator.nodes()];
  const { volumeId, primary } = register;
  const address = clientAddressOf(primary, nodes, register);
  if (address === null)
    throw new HoldfastError('NOT_PRIMARY', { operation: 'verify', volume: name, detail: 'nobody is' });
  const ask = async (fields: object): Promise<ComparisonProgress> =>
    (await admin(address, { op: 'verify', volumeId, ...fields }, { timeoutMs: 5000 })) as unknown as ComparisonProgress;
  let progress = await ask({ action: 'start', ...request });
  const stop = (): void => void ask({ action: 'stop' }).catch(() => {});
  process.once('SIGINT', stop);
  try {
    while (progress.state === 'running') {
      told(progress);
      await pause(ASK_MS);
      progress = await ask({ action: 'progress' });
    }
    return progress;
  } finally {
    process.off('SIGINT', stop);
  }
}

async function verify(name: string, flags: Flags): Promise<void> {
  const bytesPerSecond = flags.rate === undefined ? Number.MAX_SAFE_INTEGER : parseSize(flags.rate);
  const bar = new Progress(`comparing the replicas of ${name}`);
  const verdict: Verdict = { nodes: [], comparedBytes: 0, differentBlocks: 0, skippedBlocks: 0, differences: [] };
  await withCoordinator(flags, async (coordinator) => {
    const { sizeBytes, inSync, members } = await registerOf(coordinator, name);
    if (inSync.length < 2) {
      const detail = members.length < 2 ? 'it has one replica only' : `in sync is only ${inSync.join(', ')}`;
      const remedy = members.length < 2 ? 'holdfast volume add-replica' : 'wait until it is safe: holdfast status';
      throw new HoldfastError('INVALID_ARGUMENT', { operation: 'verify', volume: name, detail, remedy });
    }
    const blocks = sizeBytes / BLOCK_BYTES;
    let fromBlock = 0;
    let endMs = performance.now() + PATIENCE_MS;
    while (fromBlock < blocks) {
      let last: ComparisonProgress | null = null;
      const through = (progress: ComparisonProgress): void => {
        if (progress.throughBlock > (last?.throughBlock ?? fromBlock)) endMs = performance.now() + PATIENCE_MS;
        last = progress;
        bar.update(progress.throughBlock * BLOCK_BYTES, sizeBytes);
      };
      let why: HoldfastError | null = null;
      try {
        const ended = await atPrimary(coordinator, name, { fromBlock, bytesPerSecond }, through);
        last = ended;
        const { state, reason } = ended;
        if (state === 'ended') why = new HoldfastError('BUSY', { operation: 'verify', volume: name, detail: reason! });
        if (reason === 'it was told to') throw new HoldfastError('ABORTED', { operation: 'verify', volume: name });
      } catch (error) {
        why = asHoldfastError(error);
        if (FINAL.includes(why.code)) throw why;
      }
      if (last !== null) fromBlock = take(verdict, last as ComparisonProgress, fromBlock);
      if (fromBlock < blocks && performance.now() > endMs) {
        throw new HoldfastError('DEADLINE', {
          operation: 'verify',
          volume: name,
          offsetBytes: fromBlock * BLOCK_BYTES,
          detail: `it does not get on: ${why?.message ?? 'unknown'}`,
          remedy: 'look at: holdfast status',
        });
      }
      if (fromBlock < blocks) await pause(ASK_MS);
    }
  }).finally(() => bar.stop());
  tell(name, verdict, flags.json ?? false);
}

/** Counts what was compared. Differences behind `throughBlock` are met again. @returns where to go on */
function take(verdict: Verdict, progress: ComparisonProgress, fromBlock: number): number {
  const { nodes, throughBlock, skippedBlocks, differentBlocks, differences, state } = progress;
  verdict.nodes = [...new Set([...verdict.nodes, ...nodes])];
  verdict.comparedBytes += (throughBlock - fromBlock) * BLOCK_BYTES;
  verdict.skippedBlocks += skippedBlocks;
  if (state === 'done') verdict.differentBlocks += differentBlocks;
  else verdict.differentBlocks += differences.filter(({ block }) => block < throughBlock).length;
  verdict.differences.push(...differences.filter(({ block }) => block < throughBlock));
  return throughBlock;
}

function tell(name: string, verdict: Verdict, json: boolean): void {
  const { nodes, comparedBytes, differentBlocks, skippedBlocks, differences } = verdict;
  const equal = differentBlocks === 0 && skippedBlocks === 0;
  process.exitCode = equal ? 0 : 1;
  if (json) return printJson({ volume: name, equal, ...verdict });
  const skipped =
    skippedBlocks === 0 ? '' : `; ${skippedBlocks} blocks could not be compared: they changed all the time`;
  if (differentBlocks === 0) {
    process.stdout.write(
      `EQUAL: ${name}, ${formatBytes(comparedBytes)}, the primary and ${nodes.join(', ')}${skipped}\n`,
    );
    return;
  }
  process.stdout.write(`DIFFERENT: ${differentBlocks} block(s) of ${name}${skipped}\n`);
  for (const { node, block } of differences)
    process.stdout.write(`  ${node}: block ${block}, offset ${block * BLOCK_BYTES}\n`);
  const bad = [...new Set(differences.map(({ node }) => node))];
  process.stdout.write(
    `Each copy matches its own checksums. To make ${bad.join(', ')} equal to the primary:\n` +
      bad
        .map(
          (node) =>
            `  holdfast volume remove-replica ${name} --node ${node}; holdfast volume add-replica ${name} --node ${node}\n`,
        )
        .join(''),
  );
}

export function addVerifyCommand(
  volume: Command,
  run: (work: () => Promise<void>, json?: boolean) => Promise<void>,
): void {
  addCoordinatorOption(
    volume
      .command('verify <name>')
      .description('compare all replicas in sync, block by block, while clients go on; exit code 1: not equal'),
  )
    .option('--rate <size>', 'bytes per second, at most; default: as fast as it goes')
    .option('--json', 'print JSON')
    .action((name: string, flags: Flags) => run(() => verify(name, flags), flags.json));
}
