/**
 * Commands that go through the keys: SCAN page by page, KEYS at once, DBSIZE.
 *
 * Guarantees: SCAN returns each key that is there from its begin to its end exactly once; KEYS stops with an error
 * before its answer is larger than the bound.
 */
import type { ClientState } from './client-state.ts';
import type { HoldfastError } from '../base/errors.ts';
import type { Key } from '../kv/operations.ts';
import { type Args, type Command, NO_KEYS, type Plan, type RespVolume, keyOf } from './command.ts';
import { INVALID_CURSOR, NOT_AN_INTEGER, SYNTAX } from './failures.ts';
import { globMatches, literalPrefix } from './glob.ts';
import { parseInt64 } from './integers.ts';
import { ARGUMENT_BYTES } from './limits.ts';
import { type AnyReply, Failure } from './reply.ts';

const DEFAULT_COUNT = 10;
const KEYS_PAGE = 1000;
const bytesOf = (key: Key): Buffer => Buffer.from(key, 'latin1');

/** @returns null: from the start; undefined: nobody knows that cursor */
function startOf(cursor: Buffer, client: ClientState): Key | null | undefined {
  const text = cursor.toString('latin1');
  if (!/^[0-9]{1,19}$/.test(text)) return undefined;
  const number = Number(text);
  return number === 0 ? null : (client.node.scanCursors.find(number) ?? undefined);
}

function scan(args: Args, client: ClientState): Plan | Failure {
  const { scanCursors, limits } = client.node;
  const start = startOf(args[1]!, client);
  if (start === undefined) return INVALID_CURSOR;
  let count = DEFAULT_COUNT;
  let pattern: string | null = null;
  let strings = true;
  for (let i = 2; i < args.length; i += 2) {
    const word = args[i]!.toString('latin1').toUpperCase();
    const value = args[i + 1];
    if (value === undefined) return SYNTAX;
    if (word === 'COUNT') {
      const given = parseInt64(value);
      if (given === null) return NOT_AN_INTEGER;
      if (given < 1n) return SYNTAX;
      count = Number(given);
    } else if (word === 'MATCH') pattern = keyOf(value);
    else if (word === 'TYPE') strings = value.toString('latin1').toLowerCase() === 'string';
    else return SYNTAX;
  }
  const prefix = pattern === null ? '' : literalPrefix(pattern);
  return {
    kind: 'task',
    alone: false,
    run: (volume, done) => {
      // There are no other types.
      if (!strings) return queueMicrotask(() => done(['0', []]));
      const limit = Math.min(count, limits.maxScanCount);
      volume.scan({ prefix, from: start ?? '', end: null, limit, keysOnly: true }, (error, page) => {
        if (error !== null) return done(error);
        const keys = page!.entries.map((entry) => entry.key);
        const matching = pattern === null ? keys : keys.filter((key) => globMatches(pattern, key));
        done([page!.next === null ? '0' : String(scanCursors.keep(page!.next)), matching.map(bytesOf)]);
      });
    },
  };
}

function keys(args: Args, client: ClientState): Plan {
  const pattern = keyOf(args[1]!);
  return {
    kind: 'task',
    alone: false,
    run: (volume, done) => collect(volume, pattern, client.node.limits.maxKeysBytes, done),
  };
}

function collect(
  volume: RespVolume,
  pattern: string,
  maxBytes: number,
  done: (reply: AnyReply | HoldfastError) => void,
): void {
  const prefix = literalPrefix(pattern);
  const found: Buffer[] = [];
  let bytes = 0;
  const page = (from: Key): void =>
    volume.scan({ prefix, from, end: null, limit: KEYS_PAGE, keysOnly: true }, (error, result) => {
      if (error !== null) return done(error);
      for (const { key } of result!.entries) {
        if (!globMatches(pattern, key)) continue;
        found.push(bytesOf(key));
        bytes += key.length + ARGUMENT_BYTES;
      }
      if (bytes > maxBytes) return done(new Failure('ERR too many keys for one answer: use SCAN'));
      if (result!.next === null) done(found);
      else page(result!.next);
    });
  page('');
}

const dbsize = (): Plan => ({
  kind: 'task',
  alone: false,
  run: (volume, done) => volume.size((error, count) => done(error ?? count)),
});

const group = 'generic';

export const SCAN_COMMANDS: readonly Command[] = [
  {
    name: 'scan',
    arity: -2,
    flags: ['readonly'],
    categories: ['@keyspace', '@read', '@slow'],
    group,
    keys: NO_KEYS,
    since: '2.8.0',
    summary: 'Incrementally iterate the keys space',
    plan: scan,
    notInMulti: true,
  },
  {
    name: 'keys',
    arity: 2,
    flags: ['readonly'],
    categories: ['@keyspace', '@read', '@slow', '@dangerous'],
    group,
    keys: NO_KEYS,
    since: '1.0.0',
    summary: 'Find all keys matching the given pattern',
    plan: keys,
    notInMulti: true,
  },
  {
    name: 'dbsize',
    arity: 1,
    flags: ['readonly', 'fast'],
    categories: ['@keyspace', '@read', '@fast'],
    group: 'server',
    keys: NO_KEYS,
    since: '1.0.0',
    summary: 'Return the number of keys in the selected database',
    plan: dbsize,
    notInMulti: true,
  },
];
