/**
 * MULTI, EXEC and WATCH: the commands between become one transaction of the volume, with the watched versions as its
 * conditions.
 *
 * Guarantees: what EXEC answers happened at once, durably, on all replicas, and only if no watched key was changed; a
 * WATCH that failed makes the EXEC after it fail.
 */
import type { Condition, Step, StepResult } from '../kv/operations.ts';
import { type ClientState, type Queued, forgetTransaction } from './client-state.ts';
import { ALL_KEYS, type Args, type Command, NO_KEYS, type Plan, foundBy, keyOf } from './command.ts';
import { EXEC_ABORTED } from './failures.ts';
import { ARGUMENT_BYTES } from './limits.ts';
import { type AnyReply, Failure, NO_ARRAY, OK, QUEUED, type Reply } from './reply.ts';

/** A queued command as a part of the transaction: so many of its results are this command's. */
interface Part {
  steps: Step[];
  reply: (results: StepResult[]) => AnyReply;
}

/** @returns null: it is no part of a transaction */
function partOf({ command, args }: Queued, client: ClientState): Part | null {
  if (command.plan === undefined) return { steps: [], reply: () => command.local!(args, client) };
  const plan = command.plan(args, client);
  if (plan instanceof Failure) return { steps: [], reply: () => plan };
  if (plan.kind === 'read') {
    const steps = plan.keys.map((key): Step => ({ type: 'get', key }));
    return { steps, reply: (results) => plan.reply(results.map(foundBy)) };
  }
  if (plan.kind === 'write' && plan.conditions.length === 0) return { steps: plan.steps, reply: plan.reply };
  return null;
}

/** Called for a command after MULTI that passed all checks. */
export function queue(client: ClientState, command: Command, args: Args): AnyReply {
  const { limits } = client.node;
  const refuse = (text: string): Failure => {
    client.broken = true;
    return new Failure(text);
  };
  if (command.notInMulti || partOf({ command, args }, client) === null) {
    return refuse(`ERR ${command.name.toUpperCase()} in this form is not supported inside MULTI`);
  }
  for (const arg of args) client.queuedBytes += arg.length + ARGUMENT_BYTES;
  if (client.queued!.length >= limits.maxQueued || client.queuedBytes > limits.maxRequestBytes) {
    return refuse('ERR the transaction is too large');
  }
  // Copies: a queued command must not hold the whole of a chunk of the stream.
  client.queued!.push({ command, args: args.map((arg) => Buffer.from(arg)) });
  return QUEUED;
}

function exec(_args: Args, client: ClientState): Plan | Failure {
  const { queued, broken, watched } = client;
  if (queued === null) return new Failure('ERR EXEC without MULTI');
  forgetTransaction(client);
  if (broken) return EXEC_ABORTED;
  const parts = queued.map((one) => partOf(one, client)!);
  const steps = parts.flatMap((part) => part.steps);
  const conditions = [...watched].map(([key, version]): Condition =>
    version === 0 ? { key, is: 'absent' } : { key, is: 'version', version },
  );
  const reply = (results: StepResult[] | null): AnyReply => {
    if (results === null) return NO_ARRAY;
    let at = 0;
    return parts.map((part) => {
      const own = results.slice(at, at + part.steps.length);
      at += own.length;
      return part.reply(own) as Reply;
    });
  };
  if (steps.length === 0 && conditions.length === 0) {
    return { kind: 'task', alone: true, run: (_volume, done) => queueMicrotask(() => done(reply([]))) };
  }
  if (queued.every(({ command }) => command.plan !== undefined)) {
    return { kind: 'write', conditions, steps, reply };
  }
  // What changes the client must not be overtaken by the commands behind.
  return {
    kind: 'task',
    alone: true,
    run: (volume, done) =>
      volume.execute({ conditions, steps }, null, (error, result) =>
        done(error ?? reply(result!.applied ? result!.results : null)),
      ),
  };
}

function watch(args: Args, client: ClientState): Plan | Failure {
  if (client.queued !== null) return new Failure('ERR WATCH inside MULTI is not allowed');
  const keys = [...new Set(args.slice(1).map(keyOf))].filter((key) => !client.watched.has(key));
  if (client.watched.size + keys.length > client.node.limits.maxWatched) {
    client.broken = true;
    return new Failure('ERR too many watched keys');
  }
  return {
    kind: 'task',
    alone: true,
    failed: () => (client.broken = true),
    run: (volume, done) => {
      if (keys.length === 0) return queueMicrotask(() => done(OK));
      volume.get(keys, (error, entries) => {
        // Without the versions EXEC would have no conditions.
        if (error !== null) client.broken = true;
        else keys.forEach((key, i) => client.watched.set(key, entries![i]?.version ?? 0));
        done(error ?? OK);
      });
    },
  };
}

function multi(_args: Args, client: ClientState): AnyReply {
  if (client.queued !== null) return new Failure('ERR MULTI calls can not be nested');
  client.queued = [];
  return OK;
}

function discard(_args: Args, client: ClientState): AnyReply {
  if (client.queued === null) return new Failure('ERR DISCARD without MULTI');
  forgetTransaction(client);
  return OK;
}

function unwatch(_args: Args, client: ClientState): AnyReply {
  client.watched = new Map();
  if (client.queued === null) client.broken = false;
  return OK;
}

const group = 'transactions';
const FAST = {
  flags: ['noscript', 'loading', 'stale', 'fast', 'allow_busy'],
  categories: ['@fast', '@transaction'],
  group,
} as const;

export const TRANSACTION_COMMANDS: readonly Command[] = [
  {
    name: 'multi',
    arity: 1,
    ...FAST,
    keys: NO_KEYS,
    since: '1.2.0',
    summary: 'Mark the start of a transaction block',
    local: multi,
    immediate: true,
  },
  {
    name: 'exec',
    arity: 1,
    flags: ['noscript', 'loading', 'stale', 'skip_slowlog'],
    categories: ['@slow', '@transaction'],
    group,
    keys: NO_KEYS,
    since: '1.2.0',
    summary: 'Execute all commands issued after MULTI',
    plan: exec,
    immediate: true,
  },
  {
    name: 'discard',
    arity: 1,
    ...FAST,
    keys: NO_KEYS,
    since: '2.0.0',
    summary: 'Discard all commands issued after MULTI',
    local: discard,
    immediate: true,
  },
  {
    name: 'watch',
    arity: -2,
    ...FAST,
    keys: ALL_KEYS,
    since: '2.2.0',
    summary: 'Watch the given keys to determine execution of the MULTI/EXEC block',
    plan: watch,
    immediate: true,
  },
  {
    name: 'unwatch',
    arity: 1,
    ...FAST,
    keys: NO_KEYS,
    since: '2.2.0',
    summary: 'Forget about all watched keys',
    local: unwatch,
  },
];
