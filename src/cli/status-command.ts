/** `holdfast status`: is my data safe? Exit codes: 0 safe, 1 degraded, 2 unavailable, 3 not known. */
import type { Command } from 'commander';
import { asHoldfastError } from '../base/errors.ts';
import { formatBytes } from '../base/units.ts';
import type { Coordinator } from '../coordination/register.ts';
import { pause, withCoordinator } from './cluster.ts';
import { type ClusterView, lookAt } from './cluster-status.ts';
import { addCoordinatorOption } from './coordinator-flags.ts';
import { endQuietlyWithoutReader, printJson, printTable } from './output.ts';
import { detailOf } from './status-lines.ts';

interface StatusFlags {
  coordinator?: string;
  json?: boolean;
  watch?: boolean;
}

/** `unknown`, as the dashboard calls it: nobody could be asked, and all may be well. */
const EXIT = { safe: 0, degraded: 1, unavailable: 2, unknown: 3 } as const;
const WATCH_MS = 1000;
const CLEAR = '\u001b[H\u001b[2J';

function show({ answer, nodes, volumes }: ClusterView): void {
  process.stdout.write(`${answer}\n`);
  for (const { volume, sizeBytes, epoch, primary, why, members } of volumes) {
    process.stdout.write(
      `\n${volume}  ${formatBytes(sizeBytes)}, epoch ${epoch}, primary ${primary || '(none)'}: ${why}\n`,
    );
    for (const member of members) {
      const { node, role, last, mode } = member;
      const state = mode === null ? member.state : `${member.state}, ${mode}`;
      const line = `  ${node.padEnd(12)} ${role.padEnd(8)} ${state.padEnd(12)} log ${(last ?? '?').padEnd(12)}`;
      process.stdout.write(`${line} ${detailOf(member)}`.trimEnd() + '\n');
    }
  }
  process.stdout.write('\n');
  if (nodes.length === 0) return void process.stdout.write('no nodes\n');
  printTable(
    ['node', 'clients', 'free', 'pid', ''],
    nodes.map(({ node, clientAddress, freeBytes, pid, error, unopened }) => [
      node,
      clientAddress ?? '?',
      freeBytes === null ? '?' : formatBytes(freeBytes),
      pid ?? '-',
      error === null ? unopened.map(({ dir, reason }) => `not hosted: ${dir}: ${reason}`).join('\n') : 'UNREACHABLE',
    ]),
  );
}

async function once(coordinator: Coordinator, flags: StatusFlags): Promise<void> {
  try {
    const view = await lookAt(coordinator);
    if (flags.watch && !flags.json) process.stdout.write(CLEAR);
    if (flags.json) printJson(view);
    else show(view);
    process.exitCode = EXIT[view.verdict];
  } catch (error) {
    const known = asHoldfastError(error);
    const answer = `NOT KNOWN: the coordinator does not answer, so no failover can happen: ${known.message}`;
    if (flags.json) printJson({ verdict: 'unknown', answer, error: known.toJSON() });
    else process.stdout.write(`${answer}\n`);
    process.exitCode = EXIT.unknown;
  }
}

async function status(flags: StatusFlags): Promise<void> {
  endQuietlyWithoutReader();
  await withCoordinator(flags, async (coordinator) => {
    await once(coordinator, flags);
    if (!flags.watch) return;
    let over = false;
    process.once('SIGINT', () => (over = true));
    process.once('SIGTERM', () => (over = true));
    while (!over) {
      await pause(WATCH_MS);
      await once(coordinator, flags);
    }
  });
}

export function addStatusCommand(
  program: Command,
  run: (work: () => Promise<void>, json?: boolean) => Promise<void>,
): void {
  addCoordinatorOption(
    program
      .command('status')
      .description(
        'is my data safe? Exit codes: 0 safe, 1 degraded, 2 unavailable, 3 not known: no coordinator answers',
      ),
  )
    .option('--json', 'print JSON')
    .option('--watch', 'again every second, until Ctrl-C')
    .addHelpText('after', '\nExample:\n  holdfast status --coordinator holdfast://10.0.0.9:7400')
    .action((flags: StatusFlags) => run(() => status(flags), flags.json));
}
