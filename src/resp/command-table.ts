/** The one table of commands, and COMMAND, which tells what is in it. */
import { CONNECTION_COMMANDS } from './connection-commands.ts';
import { type Args, type Command, NO_KEYS, keysOf } from './command.ts';
import { KEY_COMMANDS } from './key-commands.ts';
import { SCAN_COMMANDS } from './scan-commands.ts';
import { SERVER_COMMANDS } from './server-commands.ts';
import { STRING_COMMANDS } from './string-commands.ts';
import { TRANSACTION_COMMANDS } from './transaction-commands.ts';
import { type AnyReply, Failure, Members, Pairs, type Reply, Status } from './reply.ts';

export const hasArity = (command: Command, args: Args): boolean =>
  command.arity > 0 ? args.length === command.arity : args.length >= -command.arity;

const bare = (command: Command): string => command.name.slice(command.name.indexOf('|') + 1);

const statuses = (words: readonly string[]): Members => new Members(words.map((word) => new Status(word)));

function described(command: Command): Reply[] {
  const { name, arity, flags, keys, categories, subcommands } = command;
  return [
    name,
    arity,
    statuses(flags),
    ...keys,
    statuses(categories),
    // Tips and key specifications: what there is to say, the positions say.
    new Members([]),
    new Members([]),
    (subcommands ?? []).map(described),
  ];
}

function documented(command: Command): Pairs {
  const flat: Reply[] = ['summary', command.summary, 'since', command.since, 'group', command.group];
  if (command.subcommands !== undefined) {
    flat.push('subcommands', new Pairs(command.subcommands.flatMap((sub) => [sub.name, documented(sub)])));
  }
  return new Pairs(flat);
}

/** By name, as COMMAND INFO takes them: `config|get` is one too. */
const byName = (name: Buffer): Command | null => {
  const [container, sub] = name.toString('latin1').toLowerCase().split('|');
  const command = COMMANDS.get(container!) ?? null;
  return sub === undefined ? command : (command?.subcommands?.find((one) => bare(one) === sub) ?? null);
};

const infos = (args: Args): AnyReply => {
  if (args.length <= 2) return [...COMMANDS.values()].map(described);
  return args.slice(2).map((name) => {
    const command = byName(name);
    return command === null ? null : described(command);
  });
};

function docs(args: Args): AnyReply {
  const commands = args.length > 2 ? args.slice(2).map(byName) : [...COMMANDS.values()];
  return new Pairs(commands.flatMap((one) => (one === null ? [] : [one.name, documented(one)])));
}

function getKeys(args: Args): AnyReply {
  const inner = args.slice(2);
  const found = findCommand(inner);
  if (found === null || found === 'subcommand') return new Failure('ERR Invalid command specified');
  if (found.keys === NO_KEYS) return new Failure('ERR The command has no key arguments');
  if (!hasArity(found, inner)) return new Failure('ERR Invalid number of arguments specified for command');
  return keysOf(found, inner);
}

const OPEN = ['loading', 'stale'];
const row = (
  name: string,
  arity: number,
  since: string,
  summary: string,
  local: NonNullable<Command['local']>,
): Command => ({
  name,
  arity,
  flags: OPEN,
  keys: NO_KEYS,
  categories: ['@slow', '@connection'],
  group: 'server',
  since,
  summary,
  local,
});

const COMMAND: Command = {
  ...row('command', -1, '2.8.13', 'Get array of Redis command details', infos),
  subcommands: [
    row('command|count', 2, '2.8.13', 'Get total number of Redis commands', () => COMMANDS.size),
    row('command|docs', -2, '7.0.0', 'Get array of specific Redis command documentation', docs),
    row('command|getkeys', -4, '2.8.13', 'Extract keys given a full Redis command', getKeys),
    row('command|info', -2, '2.8.13', 'Get array of specific Redis command details, or all', infos),
    row('command|list', 2, '7.0.0', 'Get an array of Redis command names', () => [...COMMANDS.keys()]),
  ],
};

const COMMANDS: ReadonlyMap<string, Command> = new Map(
  [
    ...STRING_COMMANDS,
    ...KEY_COMMANDS,
    ...SCAN_COMMANDS,
    ...TRANSACTION_COMMANDS,
    ...CONNECTION_COMMANDS,
    ...SERVER_COMMANDS,
    COMMAND,
  ].map((command) => [command.name, command]),
);

/** Names as clients usually write them are found without being changed. */
const BY_WORD: ReadonlyMap<string, Command> = new Map(
  [...COMMANDS].flatMap(([name, command]) => [
    [name, command],
    [name.toUpperCase(), command],
  ]),
);

const LONGEST = 32;

/** @returns the command that these words call; null: there is none of that name; `subcommand`: there is no such one */
export function findCommand(args: Args): Command | 'subcommand' | null {
  const word = args[0]!;
  if (word.length > LONGEST) return null;
  const name = word.toString('latin1');
  const command = BY_WORD.get(name) ?? BY_WORD.get(name.toLowerCase()) ?? null;
  if (command?.subcommands === undefined || args.length === 1) return command;
  const wanted = args[1]!.toString('latin1').toLowerCase();
  return command.subcommands.find((sub) => bare(sub) === wanted) ?? 'subcommand';
}
