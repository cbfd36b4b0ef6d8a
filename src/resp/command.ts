/** What a command is: a row of the table. Its arity, its keys, COMMAND and the checks all follow from the row. */
import type { HoldfastError } from '../base/errors.ts';
import type { Condition, Key, KvVolume, Step, StepResult } from '../kv/operations.ts';
import type { ClientState } from './client-state.ts';
import type { AnyReply, Failure } from './reply.ts';

/** What is used of a volume. */
export type RespVolume = Pick<KvVolume, 'info' | 'get' | 'scan' | 'size' | 'execute'>;

export type Args = readonly Buffer[];

/** A key as a read finds it. */
export interface Found {
  value: Uint8Array | null;
  version: number;
  expiresAtMs: number | null;
}

export interface ReadPlan {
  kind: 'read';
  keys: Key[];
  reply: (found: Array<Found | null>) => AnyReply;
}

export interface WritePlan {
  kind: 'write';
  conditions: Condition[];
  steps: Step[];
  /** Null: a condition did not hold. */
  reply: (results: StepResult[] | null) => AnyReply;
}

/** Several calls, or one that no transaction can hold. `alone`: nothing else of this client is under way meanwhile. */
export interface TaskPlan {
  kind: 'task';
  alone: boolean;
  /** Called instead, if there is no volume. */
  failed?: () => void;
  run: (volume: RespVolume, done: (reply: AnyReply | HoldfastError) => void) => void;
}

export type Plan = ReadPlan | WritePlan | TaskPlan;

/** Where the keys are among the arguments: first, last (negative: from the end), distance. */
export type KeyPositions = readonly [number, number, number];

export interface Command {
  name: string;
  /** With the name; negative: at least so many. */
  arity: number;
  flags: readonly string[];
  keys: KeyPositions;
  categories: readonly string[];
  group: 'string' | 'generic' | 'connection' | 'server' | 'transactions' | 'cluster';
  since: string;
  summary: string;
  /** Answered here; what it changes of the client holds for the command after it. */
  local?: (args: Args, client: ClientState) => AnyReply;
  /** What is to be asked of the volume, or what is wrong. Without any effect. */
  plan?: (args: Args, client: ClientState) => Plan | Failure;
  /** Begun when everything before it is answered. */
  afterAll?: boolean;
  /** In a MULTI it is done, not queued. */
  immediate?: boolean;
  /** Not within a MULTI: what it needs is no part of a transaction. */
  notInMulti?: boolean;
  subcommands?: readonly Command[];
}

export const NO_KEYS: KeyPositions = [0, 0, 0];
export const ONE_KEY: KeyPositions = [1, 1, 1];
export const ALL_KEYS: KeyPositions = [1, -1, 1];

export const keyOf = (arg: Buffer): Key => arg.toString('latin1');

/** @returns the keys among the arguments */
export function keysOf(command: Command, args: Args): Buffer[] {
  const [first, last, step] = command.keys;
  const found: Buffer[] = [];
  if (first === 0) return found;
  for (let i = first; i <= (last < 0 ? args.length + last : last); i += step) found.push(args[i]!);
  return found;
}

export const read = (keys: Key[], reply: ReadPlan['reply']): ReadPlan => ({ kind: 'read', keys, reply });

export const write = (steps: Step[], reply: (results: StepResult[]) => AnyReply): WritePlan => ({
  kind: 'write',
  conditions: [],
  steps,
  reply: (results) => reply(results!),
});

/** What a `get` step of a transaction found. */
export const foundBy = (result: StepResult): Found | null => (result.done ? result : null);
