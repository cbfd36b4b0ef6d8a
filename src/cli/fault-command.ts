/** `holdfast fault`: makes a node that was started with --enable-faults fail on purpose. */
import type { Command } from 'commander';
import { HoldfastError } from '../base/errors.ts';
import { admin } from '../client/admin.ts';
import { CRASH_POINTS } from '../replication/crash-points.ts';
import { clientAddressOf, withCoordinator } from './cluster.ts';
import { addCoordinatorOption } from './coordinator-flags.ts';
import { printJson, printTable } from './output.ts';

interface Flags {
  coordinator?: string;
  node?: string;
  address?: string;
  json?: boolean;
  ms?: string;
  from?: string;
  way?: string;
  forMs?: string;
  count?: string;
  volume?: string;
}

type Run = (work: () => Promise<void>, json?: boolean) => Promise<void>;

interface Answer {
  node: string;
  pid: number;
  armed: Array<{ point: string; volume: string; left: number }>;
  cut: Array<{ from: string; way: string }>;
}

function numberOf(flag: string, text: string): number {
  if (/^\d{1,9}$/.test(text)) return Number(text);
  throw new HoldfastError('INVALID_ARGUMENT', { operation: 'fault', detail: `${flag} "${text}" is no whole number` });
}

/** @throws HoldfastError INVALID_ARGUMENT, UNREACHABLE */
async function addressOf(flags: Flags): Promise<string> {
  if (flags.address !== undefined) return flags.address;
  const { node } = flags;
  if (node === undefined) {
    const remedy = 'add --node NAME, or --address HOST:PORT where its clients connect';
    throw new HoldfastError('INVALID_ARGUMENT', { operation: 'fault', detail: 'which node?', remedy });
  }
  return withCoordinator(flags, async (coordinator) => {
    const [nodes, registers] = [await coordinator.nodes(), await coordinator.list()];
    const register = registers.find(({ members }) => members.some((member) => member.node === node)) ?? null;
    const address = clientAddressOf(node, nodes, register);
    if (address !== null) return address;
    throw new HoldfastError('UNREACHABLE', {
      operation: 'fault',
      peer: node,
      detail: `the coordinator knows: ${nodes.map((one) => one.node).join(', ') || 'no nodes'}`,
      remedy: 'see holdfast status; or give its address: --address HOST:PORT',
    });
  });
}

async function ask(flags: Flags, request: object, done: string): Promise<void> {
  const answer = (await admin(await addressOf(flags), { op: 'fault', ...request })) as unknown as Answer;
  if (flags.json) return printJson(answer);
  const { node, pid, armed, cut } = answer;
  process.stdout.write(`${node} (pid ${pid}): ${done}\n`);
  for (const { point, volume, left } of armed)
    process.stdout.write(`  crashes at ${point}, the time number ${left} from now${volume && `, of ${volume}`}\n`);
  for (const { from, way } of cut) process.stdout.write(`  cut off from ${from}, ${way}\n`);
}

function points(flags: Flags): void {
  if (flags.json) return printJson({ points: CRASH_POINTS });
  printTable(['point', 'when'], Object.entries(CRASH_POINTS));
}

export function addFaultCommand(program: Command, run: Run): void {
  const fault = program
    .command('fault')
    .description('for tests: make a node fail that was started with --enable-faults')
    .addHelpText(
      'after',
      '\nExamples:\n' +
        '  holdfast fault crash write:durable --node a          at its next step of that name\n' +
        '  holdfast fault pause --ms 3000 --node a              SIGSTOP, and SIGCONT after 3 s\n' +
        '  holdfast fault partition --from b,coordinator --node a\n' +
        '  holdfast fault partition --from clients --for-ms 5000 --node a\n' +
        '  holdfast fault heal --node a\n' +
        '\nThe coordinator is found by --coordinator or HOLDFAST_COORDINATOR.',
    );
  const sub = (name: string, text: string): Command =>
    addCoordinatorOption(fault.command(name).description(text))
      .option('--node <name>', 'the node')
      .option('--address <host:port>', 'where its clients connect, instead of its name')
      .option('--json', 'print JSON');
  const simple = (name: string, text: string, done: string): void => {
    sub(name, text).action((flags: Flags) => run(() => ask(flags, { kind: name }, done), flags.json));
  };
  simple('kill', 'the node ends itself with SIGKILL, now', 'it is killed');
  simple('stop', 'the node stops in good order, as by SIGTERM', 'it stops');
  sub('heal', 'ends every cut, or those from some')
    .option('--from <names>', 'nodes, `coordinator`, `clients`, with commas between; default: all')
    .action((flags: Flags) =>
      run(() => {
        const from = flags.from === undefined ? {} : { from: flags.from.split(',').map((name) => name.trim()) };
        return ask(flags, { kind: 'heal', ...from }, 'healed');
      }, flags.json),
    );
  simple('status', 'what it waits to crash at, and whom it is cut off from', 'its faults');
  sub('pause', 'the node is stopped for a while, as by SIGSTOP and SIGCONT')
    .requiredOption('--ms <ms>', 'for how long, at most 120000')
    .action((flags: Flags) =>
      run(() => ask(flags, { kind: 'pause', ms: numberOf('--ms', flags.ms!) }, 'it is stopped'), flags.json),
    );
  sub('partition', 'from now on no packet passes between the node and others; connections stay open')
    .requiredOption('--from <names>', 'nodes, `coordinator`, `clients`, with commas between')
    .option('--way <way>', 'in | out | both, as the node sees it', 'both')
    .option('--for-ms <ms>', 'ends by itself; needed with clients')
    .action((flags: Flags) =>
      run(() => {
        const forMs = flags.forMs === undefined ? {} : { forMs: numberOf('--for-ms', flags.forMs) };
        const from = flags.from!.split(',').map((name) => name.trim());
        return ask(flags, { kind: 'partition', from, way: flags.way, ...forMs }, 'it is cut off');
      }, flags.json),
    );
  sub('crash <point>', 'the node ends itself with SIGKILL when it comes to that step; see holdfast fault points')
    .option('--count <n>', 'the n-th time from now', '1')
    .option('--volume <name>', 'of this volume only')
    .action((point: string, flags: Flags) =>
      run(() => {
        const volume = flags.volume === undefined ? {} : { volume: flags.volume };
        const count = numberOf('--count', flags.count!);
        return ask(flags, { kind: 'crash', point, count, ...volume }, 'it is armed');
      }, flags.json),
    );
  fault
    .command('points')
    .description('the steps that a node can crash at')
    .option('--json', 'print JSON')
    .action((flags: Flags) => run(async () => points(flags), flags.json));
}
