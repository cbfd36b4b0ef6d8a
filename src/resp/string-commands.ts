/** Commands on values: GET, SET and what follows from them. Each is one call on the volume. */
import type { Expiry, Step, StepResult } from '../kv/operations.ts';
import {
  ALL_KEYS,
  type Args,
  type Command,
  type Found,
  ONE_KEY,
  type Plan,
  type WritePlan,
  keyOf,
  read,
  write,
} from './command.ts';
import type { ClientState } from './client-state.ts';
import { UNITS, type Unit, positiveExpiry, setOptions } from './expiry-options.ts';
import { NOT_AN_INTEGER, OVERFLOW, wrongArity } from './failures.ts';
import { MIN_INT64, parseInt64 } from './integers.ts';
import { type AnyReply, Failure, OK } from './reply.ts';

const group = 'string';
const READ = { flags: ['readonly', 'fast'], categories: ['@read', '@string', '@fast'], group } as const;
const FAST = { flags: ['write', 'denyoom', 'fast'], categories: ['@write', '@string', '@fast'], group } as const;
const SLOW = { flags: ['write', 'denyoom'], categories: ['@write', '@string', '@slow'], group } as const;
/** They give room, or need none. */
const FREE = { flags: ['write', 'fast'], categories: ['@write', '@string', '@fast'], group } as const;

const valueOf = (found: Found | null | undefined): Uint8Array | null => found?.value ?? null;

const put = (
  key: Buffer,
  value: Buffer,
  expiry: Expiry = 'none',
  when: 'always' | 'absent' | 'present' = 'always',
): Step => ({ type: 'put', key: keyOf(key), value, expiry, when, previous: false });

function set(args: Args, client: ClientState): Plan | Failure {
  if (args.length === 3) return write([put(args[1]!, args[2]!)], () => OK);
  const options = setOptions(args, 3, 'set');
  if (options instanceof Failure) return options;
  let expiry: Expiry | Failure = options.keep ? 'keep' : 'none';
  if (options.expiry !== null) {
    expiry = positiveExpiry(options.expiry.argument, options.expiry.unit, 'set', client.node.now());
    if (expiry instanceof Failure) return expiry;
  }
  const step = put(args[1]!, args[2]!, expiry, options.when);
  if (!options.get) return write([step], ([result]) => (result!.done ? OK : null));
  // What was there is asked for by itself: it is answered whether or not anything is set.
  return write([{ type: 'get', key: keyOf(args[1]!) }, step], ([got]) => got!.value);
}

const setWithExpiry =
  (unit: Unit, name: string) =>
  (args: Args, client: ClientState): Plan | Failure => {
    const expiry = positiveExpiry(args[2]!, unit, name, client.node.now());
    return expiry instanceof Failure ? expiry : write([put(args[1]!, args[3]!, expiry)], () => OK);
  };

function getex(args: Args, client: ClientState): Plan | Failure {
  const options = setOptions(args, 2, 'getex');
  if (options instanceof Failure) return options;
  const key = keyOf(args[1]!);
  if (options.expiry === null && !options.persist) return read([key], ([found]) => valueOf(found));
  let expiry: Expiry | Failure = 'none';
  let past = false;
  if (options.expiry !== null) {
    const { argument, unit } = options.expiry;
    expiry = positiveExpiry(argument, unit, 'getex', client.node.now());
    if (expiry instanceof Failure) {
      // Of an absent key there is nothing to say but that.
      const failure = expiry;
      return read([key], ([found]) => (found === null ? null : failure));
    }
    past = typeof expiry === 'object' && 'atMs' in expiry && expiry.atMs <= client.node.now();
  }
  const second: Step = past ? { type: 'delete', key, previous: false } : { type: 'expire', key, expiry };
  return write([{ type: 'get', key }, second], ([got]) => got!.value);
}

function getset(args: Args): Plan {
  const key = keyOf(args[1]!);
  return write([{ type: 'get', key }, put(args[1]!, args[2]!)], ([got]) => got!.value);
}

const getdel = (args: Args): Plan =>
  write([{ type: 'delete', key: keyOf(args[1]!), previous: true }], ([result]) => result!.value);

function puts(args: Args): Step[] {
  const steps: Step[] = [];
  for (let i = 1; i < args.length; i += 2) steps.push(put(args[i]!, args[i + 1]!));
  return steps;
}

const mset = (args: Args): Plan | Failure => (args.length % 2 === 0 ? wrongArity('mset') : write(puts(args), () => OK));

function msetnx(args: Args): Plan | Failure {
  if (args.length % 2 === 0) return wrongArity('msetnx');
  // One key by itself can do without a condition, and so be a part of a MULTI.
  if (args.length === 3) return setnx(args);
  const steps = puts(args);
  const keys = new Set(steps.map((step) => step.key));
  const plan: WritePlan = {
    kind: 'write',
    conditions: [...keys].map((key) => ({ key, is: 'absent' })),
    steps,
    reply: (results) => (results === null ? 0 : 1),
  };
  return plan;
}

const setnx = (args: Args): Plan =>
  write([put(args[1]!, args[2]!, 'none', 'absent')], ([result]) => (result!.done ? 1 : 0));

function sum(result: StepResult): AnyReply {
  if (result.problem === 'NOT_AN_INTEGER') return NOT_AN_INTEGER;
  if (result.problem === 'OVERFLOW') return OVERFLOW;
  const value = parseInt64(Buffer.from(result.value!));
  return value ?? NOT_AN_INTEGER;
}

const add = (key: Buffer, delta: bigint): Plan =>
  write([{ type: 'add', key: keyOf(key), delta }], ([result]) => sum(result!));

const addBy =
  (sign: 1n | -1n) =>
  (args: Args): Plan | Failure => {
    const delta = parseInt64(args[2]!);
    if (delta === null) return NOT_AN_INTEGER;
    if (sign < 0n && delta === MIN_INT64) return new Failure('ERR decrement would overflow');
    return add(args[1]!, sign * delta);
  };

function getrange(args: Args): Plan | Failure {
  const [from, to] = [parseInt64(args[2]!), parseInt64(args[3]!)];
  if (from === null || to === null) return NOT_AN_INTEGER;
  return read([keyOf(args[1]!)], ([found]) => {
    const value = valueOf(found);
    if (value === null || (from < 0n && to < 0n && from > to)) return '';
    const length = BigInt(value.length);
    const place = (at: bigint): bigint => (at >= 0n ? at : at + length < 0n ? 0n : at + length);
    const [start, last] = [place(from), place(to)];
    const end = last >= length ? length : last + 1n;
    return start >= end ? '' : value.subarray(Number(start), Number(end));
  });
}

export const STRING_COMMANDS: readonly Command[] = [
  {
    name: 'get',
    arity: 2,
    ...READ,
    keys: ONE_KEY,
    since: '1.0.0',
    summary: 'Get the value of a key',
    plan: (args) => read([keyOf(args[1]!)], ([found]) => valueOf(found)),
  },
  {
    name: 'set',
    arity: -3,
    ...SLOW,
    keys: ONE_KEY,
    since: '1.0.0',
    summary: 'Set the string value of a key',
    plan: set,
  },
  {
    name: 'setnx',
    arity: 3,
    ...FAST,
    keys: ONE_KEY,
    since: '1.0.0',
    summary: 'Set the value of a key, only if the key does not exist',
    plan: setnx,
  },
  {
    name: 'setex',
    arity: 4,
    ...SLOW,
    keys: ONE_KEY,
    since: '2.0.0',
    summary: 'Set the value and expiration of a key',
    plan: setWithExpiry(UNITS['EX']!, 'setex'),
  },
  {
    name: 'psetex',
    arity: 4,
    ...SLOW,
    keys: ONE_KEY,
    since: '2.6.0',
    summary: 'Set the value and expiration in milliseconds of a key',
    plan: setWithExpiry(UNITS['PX']!, 'psetex'),
  },
  {
    name: 'getset',
    arity: 3,
    ...FAST,
    keys: ONE_KEY,
    since: '1.0.0',
    summary: 'Set the string value of a key and return its old value',
    plan: getset,
  },
  {
    name: 'getex',
    arity: -2,
    ...FREE,
    keys: ONE_KEY,
    since: '6.2.0',
    summary: 'Get the value of a key and optionally set its expiration',
    plan: getex,
  },
  {
    name: 'getdel',
    arity: 2,
    ...FREE,
    keys: ONE_KEY,
    since: '6.2.0',
    summary: 'Get the value of a key and delete the key',
    plan: getdel,
  },
  {
    name: 'mget',
    arity: -2,
    ...READ,
    keys: ALL_KEYS,
    since: '1.0.0',
    summary: 'Get the values of all the given keys',
    plan: (args) => read(args.slice(1).map(keyOf), (found) => found.map(valueOf)),
  },
  {
    name: 'mset',
    arity: -3,
    ...SLOW,
    keys: [1, -1, 2],
    since: '1.0.1',
    summary: 'Set multiple keys to multiple values',
    plan: mset,
  },
  {
    name: 'msetnx',
    arity: -3,
    ...SLOW,
    keys: [1, -1, 2],
    since: '1.0.1',
    summary: 'Set multiple keys to multiple values, only if none of the keys exist',
    plan: msetnx,
  },
  {
    name: 'incr',
    arity: 2,
    ...FAST,
    keys: ONE_KEY,
    since: '1.0.0',
    summary: 'Increment the integer value of a key by one',
    plan: (args) => add(args[1]!, 1n),
  },
  {
    name: 'decr',
    arity: 2,
    ...FAST,
    keys: ONE_KEY,
    since: '1.0.0',
    summary: 'Decrement the integer value of a key by one',
    plan: (args) => add(args[1]!, -1n),
  },
  {
    name: 'incrby',
    arity: 3,
    ...FAST,
    keys: ONE_KEY,
    since: '1.0.0',
    summary: 'Increment the integer value of a key by the given amount',
    plan: addBy(1n),
  },
  {
    name: 'decrby',
    arity: 3,
    ...FAST,
    keys: ONE_KEY,
    since: '1.0.0',
    summary: 'Decrement the integer value of a key by the given number',
    plan: addBy(-1n),
  },
  {
    name: 'strlen',
    arity: 2,
    ...READ,
    keys: ONE_KEY,
    since: '2.2.0',
    summary: 'Get the length of the value stored in a key',
    plan: (args) => read([keyOf(args[1]!)], ([found]) => valueOf(found)?.length ?? 0),
  },
  {
    name: 'getrange',
    arity: 4,
    flags: ['readonly'],
    categories: ['@read', '@string', '@slow'],
    group,
    keys: ONE_KEY,
    since: '2.4.0',
    summary: 'Get a substring of the string stored at a key',
    plan: getrange,
  },
];
