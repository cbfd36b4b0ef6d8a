/**
 * `holdfast events`: what has happened, on all nodes, by time.
 *
 * Guarantees: each entry is printed once; what nodes say together is sorted by their clocks; a node that does not answer
 * is named, once, and asked again.
 */
import type { Command } from 'commander';
import { HoldfastError, asHoldfastError } from '../base/errors.ts';
import { admin } from '../client/admin.ts';
import type { Coordinator } from '../coordination/register.ts';
import type { Happening } from '../node/timeline.ts';
import type { ToldEvents } from '../node/told-events.ts';
import { clientAddressOf, pause, withCoordinator } from './cluster.ts';
import { addCoordinatorOption } from './coordinator-flags.ts';
import { endQuietlyWithoutReader, printJson } from './output.ts';

interface Flags {
  coordinator?: string;
  node?: string;
  follow?: boolean;
  json?: boolean;
}

const FOLLOW_MS = 500;
const ANSWER_MS = 2000;

/** One node, and what is known of it already. */
class Asked {
  readonly node: string;
  private bootId = '';
  private after = 0;
  private silent = false;

  constructor(node: string) {
    this.node = node;
  }

  /** What is new. @param address null: it is not known */
  async ask(address: string | null): Promise<Happening[]> {
    const found: Happening[] = [];
    try {
      if (address === null) throw new Error('its address is not known');
      for (;;) {
        const request = { op: 'events', after: this.after };
        const told = (await admin(address, request, { timeoutMs: ANSWER_MS })) as unknown as ToldEvents;
        if (told.bootId !== this.bootId && this.after > 0) {
          // It was started anew: it counts from 1.
          [this.bootId, this.after] = [told.bootId, 0];
          continue;
        }
        this.bootId = told.bootId;
        this.silent = false;
        found.push(...told.events);
        this.after = told.events.at(-1)?.id ?? this.after;
        if (told.events.length === 0 || this.after >= told.newest) return found;
      }
    } catch (error) {
      if (!this.silent) process.stderr.write(`${this.node} does not answer: ${asHoldfastError(error).message}\n`);
      this.silent = true;
      return found;
    }
  }
}

function print({ atMs, node, text, ...more }: Happening, json: boolean | undefined): void {
  if (json) return printJson({ atMs, node, text, ...more });
  process.stdout.write(`${new Date(atMs).toISOString()}  ${node.padEnd(12)} ${more.kind.padEnd(18)} ${text}\n`);
}

/** Of the cluster, or those that were named. */
async function namesOf(coordinator: Coordinator, wanted: string[] | null): Promise<Map<string, string | null>> {
  const [nodes, registers] = [await coordinator.nodes(), await coordinator.list()];
  const known = new Set([...nodes, ...registers.flatMap(({ members }) => members)].map(({ node }) => node));
  const stranger = wanted?.find((name) => !known.has(name));
  if (stranger !== undefined) {
    const detail = `there is no node ${stranger}; there are: ${[...known].join(', ') || 'none'}`;
    throw new HoldfastError('INVALID_ARGUMENT', { operation: 'events', detail });
  }
  const addressOf = (node: string): string | null => {
    const register = registers.find(({ members }) => members.some((member) => member.node === node)) ?? null;
    return clientAddressOf(node, nodes, register);
  };
  return new Map((wanted ?? [...known].sort()).map((node) => [node, addressOf(node)]));
}

async function events(flags: Flags): Promise<void> {
  endQuietlyWithoutReader();
  const wanted = flags.node === undefined ? null : flags.node.split(',').map((name) => name.trim());
  await withCoordinator(flags, async (coordinator) => {
    let addresses = await namesOf(coordinator, wanted);
    const asked: Map<string, Asked> = new Map();
    let over = false;
    process.once('SIGINT', () => (over = true));
    process.once('SIGTERM', () => (over = true));
    for (;;) {
      for (const node of addresses.keys()) if (!asked.has(node)) asked.set(node, new Asked(node));
      const found = await Promise.all([...asked.values()].map((one) => one.ask(addresses.get(one.node) ?? null)));
      const sorted = found.flat().sort((one, other) => one.atMs - other.atMs);
      for (const happening of sorted) print(happening, flags.json);
      if (flags.follow !== true || over) return;
      await pause(FOLLOW_MS);
      // Nodes come, and come back at other addresses; what is known goes on without a coordinator.
      addresses = await namesOf(coordinator, wanted).catch(() => addresses);
    }
  });
}

export function addEventsCommand(
  program: Command,
  run: (work: () => Promise<void>, json?: boolean) => Promise<void>,
): void {
  addCoordinatorOption(program.command('events').description('what has happened on the nodes, by time'))
    .option('--node <names>', 'of these only, with commas between; default: all that the coordinator knows')
    .option('--follow', 'go on, until Ctrl-C')
    .option('--json', 'print JSON, one entry a line')
    .addHelpText('after', '\nExample:\n  holdfast events --follow --coordinator holdfast://10.0.0.9:7400')
    .action((flags: Flags) => run(() => events(flags), flags.json));
}
