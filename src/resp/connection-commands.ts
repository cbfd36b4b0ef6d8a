/** Commands about the connection itself: who speaks, in which protocol, until when. */
import { createHash, timingSafeEqual } from 'node:crypto';
import { CLIENT_SUBCOMMANDS, isName } from './client-commands.ts';
import { type ClientState, forgetTransaction } from './client-state.ts';
import { type Args, type Command, NO_KEYS } from './command.ts';
import { NOT_AN_INTEGER, SYNTAX, WRONG_PASSWORD, wrongArity } from './failures.ts';
import { parseInt64 } from './integers.ts';
import { type AnyReply, Failure, OK, PONG, Pairs, Status } from './reply.ts';

const sha256 = (bytes: Buffer | string): Buffer => createHash('sha256').update(bytes).digest();

/** There is one user, `default`. */
function signIn(client: ClientState, user: Buffer | null, password: Buffer): Failure | null {
  const expected = client.node.password;
  const known = user === null || user.equals(Buffer.from('default'));
  // Hashes are of equal length, and how long the comparison takes tells nothing.
  const right = expected === null || timingSafeEqual(sha256(password), sha256(expected));
  if (!known || !right) return WRONG_PASSWORD;
  client.authenticated = true;
  return null;
}

function auth(args: Args, client: ClientState): AnyReply {
  if (args.length > 3) return SYNTAX;
  if (args.length === 2 && client.node.password === null) {
    return new Failure(
      'ERR AUTH <password> called without any password configured for the default user. ' +
        'Are you sure your configuration is correct?',
    );
  }
  return signIn(client, args.length === 3 ? args[1]! : null, args[args.length - 1]!) ?? OK;
}

function hello(args: Args, client: ClientState): AnyReply {
  let protocol = client.protocol;
  if (args.length > 1) {
    const version = parseInt64(args[1]!);
    if (version === null) return new Failure('ERR Protocol version is not an integer or out of range');
    if (version !== 2n && version !== 3n) return new Failure('NOPROTO unsupported protocol version');
    protocol = version === 3n ? 3 : 2;
  }
  let user: [Buffer, Buffer] | null = null;
  let name: Buffer | null = null;
  for (let i = 2; i < args.length; i++) {
    const word = args[i]!.toString('latin1').toUpperCase();
    const left = args.length - 1 - i;
    if (word === 'AUTH' && left >= 2) user = [args[++i]!, args[++i]!];
    else if (word === 'SETNAME' && left >= 1) name = args[++i]!;
    else return new Failure(`ERR Syntax error in HELLO option '${args[i]!.toString('latin1')}'`);
  }
  const failure = user === null ? null : signIn(client, ...user);
  if (failure !== null) return failure;
  if (!client.authenticated) {
    return new Failure(
      'NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO AUTH <user> <pass> ' +
        'option can be used to authenticate the client and select the RESP protocol version at the same time',
    );
  }
  if (name !== null) {
    if (!isName(name)) return new Failure('ERR Client names cannot contain spaces, newlines or special characters.');
    client.name = name.toString('latin1');
  }
  client.protocol = protocol;
  return new Pairs([
    'server',
    'redis',
    'version',
    client.node.serverInfo.redisVersion,
    'proto',
    protocol,
    'id',
    client.id,
    'mode',
    'standalone',
    'role',
    'master',
    'modules',
    [],
  ]);
}

function select(args: Args): AnyReply {
  const index = parseInt64(args[1]!);
  if (index === null || index > 0x7fff_ffffn || index < -0x8000_0000n) return NOT_AN_INTEGER;
  return index === 0n ? OK : new Failure('ERR DB index is out of range');
}

function ping(args: Args): AnyReply {
  if (args.length > 2) return wrongArity('ping');
  return args.length === 1 ? PONG : args[1]!;
}

function quit(_args: Args, client: ClientState): AnyReply {
  client.leaving = true;
  return OK;
}

function reset(_args: Args, client: ClientState): AnyReply {
  forgetTransaction(client);
  client.protocol = 2;
  client.name = '';
  client.authenticated = client.node.password === null;
  return new Status('RESET');
}

const group = 'connection';
const PLAIN = { categories: ['@fast', '@connection'], group, keys: NO_KEYS } as const;
const OPEN = ['noscript', 'loading', 'stale', 'fast', 'no_auth', 'allow_busy'];

export const CONNECTION_COMMANDS: readonly Command[] = [
  {
    name: 'ping',
    arity: -1,
    flags: ['fast'],
    ...PLAIN,
    since: '1.0.0',
    summary: 'Ping the server',
    local: ping,
  },
  {
    name: 'echo',
    arity: 2,
    flags: ['loading', 'stale', 'fast'],
    ...PLAIN,
    since: '1.0.0',
    summary: 'Echo the given string',
    local: (args) => args[1]!,
  },
  {
    name: 'hello',
    arity: -1,
    flags: OPEN,
    ...PLAIN,
    since: '6.0.0',
    summary: 'Handshake: choose the protocol, authenticate, name the connection',
    local: hello,
  },
  {
    name: 'auth',
    arity: -2,
    flags: OPEN,
    ...PLAIN,
    since: '1.0.0',
    summary: 'Authenticate to the server',
    local: auth,
  },
  {
    name: 'select',
    arity: 2,
    flags: ['loading', 'stale', 'fast'],
    ...PLAIN,
    since: '1.0.0',
    summary: 'Choose the database: there is number 0',
    local: select,
  },
  {
    name: 'quit',
    arity: -1,
    flags: OPEN,
    ...PLAIN,
    since: '1.0.0',
    summary: 'Close the connection',
    local: quit,
    immediate: true,
  },
  {
    name: 'reset',
    arity: 1,
    flags: OPEN,
    ...PLAIN,
    since: '6.2.0',
    summary: 'Make the connection as it was at its begin',
    local: reset,
    immediate: true,
  },
  {
    name: 'client',
    arity: -2,
    flags: [],
    categories: ['@slow'],
    group,
    keys: NO_KEYS,
    since: '2.4.0',
    summary: 'A container for client connection commands',
    subcommands: CLIENT_SUBCOMMANDS,
  },
];
