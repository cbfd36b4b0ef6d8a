/** Commands about the server: INFO, CONFIG GET, WAIT. */
import type { ClientState } from './client-state.ts';
import { type Args, type Command, NO_KEYS } from './command.ts';
import { NOT_AN_INTEGER } from './failures.ts';
import { globMatches } from './glob.ts';
import { info } from './info.ts';
import { parseInt64 } from './integers.ts';
import { type AnyReply, Failure, OK, Pairs } from './reply.ts';

/** What clients and redis-benchmark ask for. Each is true of us. */
const SETTINGS: Readonly<Record<string, (client: ClientState) => string>> = {
  appendfsync: (client) => (isDurable(client) ? 'always' : 'no'),
  appendonly: () => 'yes',
  'cluster-enabled': () => 'no',
  databases: () => '1',
  'io-threads': () => '1',
  maxmemory: () => '0',
  'maxmemory-policy': () => 'noeviction',
  'notify-keyspace-events': () => '',
  port: (client) => String(client.node.serverInfo.tcpPort),
  'proto-max-bulk-len': (client) => String(client.node.limits.maxBulkBytes),
  save: () => '',
  timeout: () => '0',
};

function isDurable(client: ClientState): boolean {
  try {
    return client.node.volume().info().durable;
  } catch {
    return false;
  }
}

function configGet(args: Args, client: ClientState): AnyReply {
  const found = new Map<string, string>();
  for (const arg of args.slice(2)) {
    const asked = arg.toString('latin1');
    const pattern = asked.toLowerCase();
    // One that is named is answered under the name that was used.
    const named = Object.hasOwn(SETTINGS, pattern);
    for (const [name, value] of Object.entries(SETTINGS)) {
      if (named ? name === pattern : globMatches(pattern, name)) found.set(named ? asked : name, value(client));
    }
  }
  return new Pairs([...found].flat());
}

/** Everything that was answered is on all replicas in sync: there is nothing to wait for. */
function wait(args: Args, client: ClientState): AnyReply {
  if (parseInt64(args[1]!) === null) return NOT_AN_INTEGER;
  const timeoutMs = parseInt64(args[2]!);
  if (timeoutMs === null) return new Failure('ERR timeout is not an integer or out of range');
  if (timeoutMs < 0n) return new Failure('ERR timeout is negative');
  return client.node.replicas?.() ?? 0;
}

function time(_args: Args, client: ClientState): AnyReply {
  const nowMs = client.node.now();
  const seconds = Math.floor(nowMs / 1000);
  return [String(seconds), String(Math.floor((nowMs - seconds * 1000) * 1000))];
}

const group = 'server';
const ADMIN = {
  flags: ['admin', 'noscript', 'loading', 'stale'],
  categories: ['@admin', '@slow', '@dangerous'],
  keys: NO_KEYS,
  group,
} as const;
const OPEN = {
  flags: ['loading', 'stale', 'fast'],
  categories: ['@fast', '@connection'],
  keys: NO_KEYS,
} as const;

export const SERVER_COMMANDS: readonly Command[] = [
  {
    name: 'info',
    arity: -1,
    flags: ['loading', 'stale'],
    categories: ['@slow', '@dangerous'],
    group,
    keys: NO_KEYS,
    since: '1.0.0',
    summary: 'Get information and statistics about the server',
    local: info,
  },
  {
    name: 'config',
    arity: -2,
    flags: [],
    categories: ['@slow'],
    group,
    keys: NO_KEYS,
    since: '2.0.0',
    summary: 'A container for server configuration commands',
    subcommands: [
      {
        name: 'config|get',
        arity: -3,
        ...ADMIN,
        since: '2.0.0',
        summary: 'Get the values of configuration parameters',
        local: configGet,
      },
      {
        name: 'config|resetstat',
        arity: 2,
        ...ADMIN,
        since: '2.0.0',
        summary: 'Without effect: there are no statistics',
        local: () => OK,
      },
    ],
  },
  {
    name: 'wait',
    arity: 3,
    flags: ['noscript'],
    categories: ['@slow', '@connection'],
    group: 'generic',
    keys: NO_KEYS,
    since: '3.0.0',
    summary: 'How many replicas hold all that was answered',
    local: wait,
    afterAll: true,
  },
  {
    name: 'time',
    arity: 1,
    flags: ['loading', 'stale', 'fast'],
    categories: ['@fast'],
    group,
    keys: NO_KEYS,
    since: '2.6.0',
    summary: 'Return the current server time',
    local: time,
  },
  {
    name: 'readonly',
    arity: 1,
    ...OPEN,
    group: 'cluster',
    since: '3.0.0',
    summary: 'Without effect: every read is linearizable',
    local: () => OK,
  },
  {
    name: 'readwrite',
    arity: 1,
    ...OPEN,
    group: 'cluster',
    since: '3.0.0',
    summary: 'Without effect: every read is linearizable',
    local: () => OK,
  },
];
