/** The subcommands of CLIENT: names of connections, and the list of them. */
import type { ClientState } from './client-state.ts';
import { type Args, type Command, NO_KEYS } from './command.ts';
import { SYNTAX } from './failures.ts';
import { parseInt64 } from './integers.ts';
import { type AnyReply, Failure, OK, Text } from './reply.ts';

/** One word of printable ASCII. */
export const isName = (bytes: Buffer): boolean => bytes.every((byte) => byte >= 0x21 && byte <= 0x7e);

function setName(args: Args, client: ClientState): AnyReply {
  if (!isName(args[2]!)) {
    return new Failure('ERR Client names cannot contain spaces, newlines or special characters.');
  }
  client.name = args[2]!.toString('latin1');
  return OK;
}

function setInfo(args: Args, client: ClientState): AnyReply {
  const attribute = args[2]!.toString('latin1');
  const value = args[3]!;
  const kind = attribute.toLowerCase();
  if (kind !== 'lib-name' && kind !== 'lib-ver') return new Failure(`ERR Unrecognized option '${attribute}'`);
  if (!isName(value)) {
    return new Failure(`ERR ${kind} cannot contain spaces, newlines or special characters.`);
  }
  if (kind === 'lib-name') client.library = value.toString('latin1');
  else client.libraryVersion = value.toString('latin1');
  return OK;
}

/** Those fields of Redis's line that mean something here. */
function describe(client: ClientState, nowMs: number): string {
  const seconds = (sinceMs: number): number => Math.max(0, Math.floor((nowMs - sinceMs) / 1000));
  const fields = {
    id: client.id,
    addr: client.peer,
    laddr: client.local,
    name: client.name,
    age: seconds(client.connectedAtMs),
    idle: seconds(client.lastCommandAtMs),
    flags: client.queued === null ? 'N' : 'x',
    db: 0,
    multi: client.queued === null ? -1 : client.queued.length,
    watch: client.watched.size,
    cmd: client.lastCommand,
    user: 'default',
    resp: client.protocol,
    'lib-name': client.library,
    'lib-ver': client.libraryVersion,
  };
  return Object.entries(fields)
    .map(([name, value]) => `${name}=${value}`)
    .join(' ');
}

function list(args: Args, client: ClientState): AnyReply {
  let wanted: Set<number> | null = null;
  if (args.length > 2) {
    const word = args[2]!.toString('latin1').toLowerCase();
    if (word === 'type' && args.length === 4) {
      const type = args[3]!.toString('latin1');
      if (!['normal', 'master', 'replica', 'slave', 'pubsub'].includes(type.toLowerCase())) {
        return new Failure(`ERR Unknown client type '${type}'`);
      }
      if (type.toLowerCase() !== 'normal') return new Text('');
    } else if (word === 'id' && args.length > 3) {
      wanted = new Set();
      for (const arg of args.slice(3)) {
        const id = parseInt64(arg);
        if (id === null) return new Failure('ERR Invalid client ID');
        wanted.add(Number(id));
      }
    } else return SYNTAX;
  }
  const nowMs = client.node.now();
  const lines: string[] = [];
  for (const other of client.node.clients?.() ?? [client]) {
    if (wanted === null || wanted.has(other.id)) lines.push(`${describe(other, nowMs)}\n`);
  }
  return new Text(lines.join(''));
}

/** Nothing is evicted here, so both answers are true. */
function noEvict(args: Args): AnyReply {
  const word = args[2]!.toString('latin1').toLowerCase();
  return word === 'on' || word === 'off' ? OK : SYNTAX;
}

const OPEN = ['noscript', 'loading', 'stale'];
const row = (
  name: string,
  arity: number,
  since: string,
  summary: string,
  local: NonNullable<Command['local']>,
  flags: readonly string[] = OPEN,
  categories: readonly string[] = ['@slow', '@connection'],
): Command => ({ name, arity, flags, keys: NO_KEYS, categories, group: 'connection', since, summary, local });

export const CLIENT_SUBCOMMANDS: readonly Command[] = [
  row('client|id', 2, '5.0.0', 'Returns the client ID for the current connection', (_args, client) => client.id),
  row('client|setname', 3, '2.6.9', 'Set the current connection name', setName),
  row('client|getname', 2, '2.6.9', 'Get the current connection name', (_args, client) =>
    client.name === '' ? null : client.name,
  ),
  row('client|setinfo', 4, '7.2.0', 'Set information specific to the client or connection', setInfo),
  row(
    'client|list',
    -2,
    '2.4.0',
    'Get the list of client connections',
    list,
    ['admin', ...OPEN],
    ['@admin', '@slow', '@dangerous', '@connection'],
  ),
  row(
    'client|info',
    2,
    '6.2.0',
    'Returns information about the current client connection.',
    (_args, client) => new Text(`${describe(client, client.node.now())}\n`),
  ),
  row(
    'client|no-evict',
    3,
    '7.0.0',
    'Set client eviction mode for the current connection',
    noEvict,
    ['admin', ...OPEN],
    ['@admin', '@slow', '@dangerous', '@connection'],
  ),
];
