/** Commands on keys whatever their values: DEL, EXISTS, and the times to live. */
import { HoldfastError } from '../base/errors.ts';
import type { Condition, Entry, Expiry, Step } from '../kv/operations.ts';
import type { ClientState } from './client-state.ts';
import {
  ALL_KEYS,
  type Args,
  type Command,
  type Found,
  ONE_KEY,
  type Plan,
  type RespVolume,
  keyOf,
  read,
  write,
} from './command.ts';
import { UNITS, type Unit, anyExpiry } from './expiry-options.ts';
import { type AnyReply, Failure, Status } from './reply.ts';

const group = 'generic';
const READ = { flags: ['readonly', 'fast'], categories: ['@keyspace', '@read', '@fast'], group } as const;
const FAST = { flags: ['write', 'fast'], categories: ['@keyspace', '@write', '@fast'], group } as const;
const STRING = new Status('string');
const NONE = new Status('none');
/** So often somebody else may change a key between our look at it and our change. */
const MAX_TRIES = 16;

const del = (args: Args): Plan =>
  write(
    args.slice(1).map((key) => ({ type: 'delete', key: keyOf(key), previous: false })),
    (results) => results.filter((result) => result.done).length,
  );

const exists = (args: Args): Plan =>
  read(args.slice(1).map(keyOf), (found) => found.filter((one) => one !== null).length);

/** @param answer what to say of a key that has an expiry */
const lifetime =
  (answer: (expiresAtMs: number, nowMs: number) => number) =>
  (args: Args, client: ClientState): Plan =>
    read([keyOf(args[1]!)], ([found]) =>
      found === null ? -2 : found!.expiresAtMs === null ? -1 : answer(found!.expiresAtMs, client.node.now()),
    );

const left = (expiresAtMs: number, nowMs: number): number => Math.max(0, Math.floor(expiresAtMs - nowMs));
const inSeconds = (ms: number): number => Math.floor((ms + 500) / 1000);

interface ExpireFlags {
  nx: boolean;
  xx: boolean;
  gt: boolean;
  lt: boolean;
}

function expireFlags(args: Args): ExpireFlags | Failure {
  const flags: ExpireFlags = { nx: false, xx: false, gt: false, lt: false };
  for (const arg of args.slice(3)) {
    const word = arg.toString('latin1').toLowerCase();
    if (word !== 'nx' && word !== 'xx' && word !== 'gt' && word !== 'lt') {
      return new Failure(`ERR Unsupported option ${arg.toString('latin1')}`);
    }
    flags[word] = true;
  }
  const { nx, xx, gt, lt } = flags;
  if (nx && (xx || gt || lt)) {
    return new Failure('ERR NX and XX, GT or LT options at the same time are not compatible');
  }
  if (gt && lt) return new Failure('ERR GT and LT options at the same time are not compatible');
  return flags;
}

function mayExpire(flags: ExpireFlags, current: number | null, atMs: number): boolean {
  if (flags.nx && current !== null) return false;
  if (flags.xx && current === null) return false;
  if (flags.gt && (current === null || atMs <= current)) return false;
  return !(flags.lt && current !== null && atMs >= current);
}

/** Looks at the key, and changes it if it is still as it was seen. */
function changeSeen(
  volume: RespVolume,
  key: string,
  decide: (entry: Entry) => Step | null,
  done: (reply: AnyReply | HoldfastError) => void,
  tries = 1,
): void {
  volume.get([key], (error, entries) => {
    if (error !== null) return done(error);
    const entry = entries![0] ?? null;
    const step = entry === null ? null : decide(entry);
    if (entry === null || step === null) return done(0);
    const conditions: Condition[] = [{ key, is: 'version', version: entry.version }];
    volume.execute({ conditions, steps: [step] }, null, (failed, result) => {
      if (failed !== null) return done(failed);
      if (result!.applied) return done(1);
      if (tries < MAX_TRIES) return changeSeen(volume, key, decide, done, tries + 1);
      done(new HoldfastError('BUSY', { operation: 'expire', detail: 'others keep changing the key' }));
    });
  });
}

const expire =
  (name: string, unit: Unit) =>
  (args: Args, client: ClientState): Plan | Failure => {
    const flags = expireFlags(args);
    if (flags instanceof Failure) return flags;
    const nowMs = client.node.now();
    const expiry = anyExpiry(args[2]!, unit, name, nowMs);
    if (expiry instanceof Failure) return expiry;
    const key = keyOf(args[1]!);
    const step: Step = expiry === 'past' ? { type: 'delete', key, previous: false } : { type: 'expire', key, expiry };
    if (args.length === 3) return write([step], ([result]) => (result!.existed ? 1 : 0));
    const atMs = timeOf(expiry, nowMs);
    return {
      kind: 'task',
      alone: true,
      run: (volume, done) =>
        changeSeen(volume, key, (entry) => (mayExpire(flags, entry.expiresAtMs, atMs) ? step : null), done),
    };
  };

function timeOf(expiry: Expiry | 'past', nowMs: number): number {
  if (typeof expiry !== 'object') return Number.NEGATIVE_INFINITY;
  return 'atMs' in expiry ? expiry.atMs : nowMs + expiry.afterMs;
}

const persist = (args: Args): Plan =>
  write([{ type: 'expire', key: keyOf(args[1]!), expiry: 'none' }], ([result]) =>
    result!.existed && result!.expiresAtMs !== null ? 1 : 0,
  );

const typeOf = ([found]: Array<Found | null>): AnyReply => (found === null ? NONE : STRING);

const lifetimeRow = (
  name: string,
  since: string,
  summary: string,
  answer: (expiresAtMs: number, nowMs: number) => number,
  flags: Pick<Command, 'flags' | 'categories' | 'group'> = READ,
): Command => ({ name, arity: 2, ...flags, keys: ONE_KEY, since, summary, plan: lifetime(answer) });

const expireRow = (name: string, since: string, summary: string, unit: Unit): Command => ({
  name,
  arity: -3,
  ...FAST,
  keys: ONE_KEY,
  since,
  summary,
  plan: expire(name, unit),
});

export const KEY_COMMANDS: readonly Command[] = [
  {
    name: 'del',
    arity: -2,
    flags: ['write'],
    categories: ['@keyspace', '@write', '@slow'],
    group,
    keys: ALL_KEYS,
    since: '1.0.0',
    summary: 'Delete a key',
    plan: del,
  },
  {
    name: 'unlink',
    arity: -2,
    ...FAST,
    keys: ALL_KEYS,
    since: '4.0.0',
    summary: 'Delete a key; the same as DEL here',
    plan: del,
  },
  {
    name: 'exists',
    arity: -2,
    ...READ,
    keys: ALL_KEYS,
    since: '1.0.0',
    summary: 'Determine if a key exists',
    plan: exists,
  },
  {
    name: 'touch',
    arity: -2,
    ...READ,
    keys: ALL_KEYS,
    since: '3.2.1',
    summary: 'Count the keys that exist',
    plan: exists,
  },
  {
    name: 'type',
    arity: 2,
    ...READ,
    keys: ONE_KEY,
    since: '1.0.0',
    summary: 'Determine the type stored at key: string, or none',
    plan: (args) => read([keyOf(args[1]!)], typeOf),
  },
  lifetimeRow('ttl', '1.0.0', 'Get the time to live for a key in seconds', (at, now) => inSeconds(left(at, now))),
  lifetimeRow('pttl', '2.6.0', 'Get the time to live for a key in milliseconds', left),
  lifetimeRow('expiretime', '7.0.0', 'Get the expiration Unix timestamp for a key', inSeconds),
  lifetimeRow('pexpiretime', '7.0.0', 'Get the expiration Unix timestamp for a key in milliseconds', (at) => at),
  expireRow('expire', '1.0.0', "Set a key's time to live in seconds", UNITS['EX']!),
  expireRow('pexpire', '2.6.0', "Set a key's time to live in milliseconds", UNITS['PX']!),
  expireRow('expireat', '1.2.0', 'Set the expiration for a key as a UNIX timestamp', UNITS['EXAT']!),
  expireRow('pexpireat', '2.6.0', 'Set the expiration for a key as a UNIX timestamp in milliseconds', UNITS['PXAT']!),
  {
    name: 'persist',
    arity: 2,
    ...FAST,
    keys: ONE_KEY,
    since: '2.2.0',
    summary: 'Remove the expiration from a key',
    plan: persist,
  },
];
