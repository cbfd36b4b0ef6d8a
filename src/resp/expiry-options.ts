/** Times to live as arguments: EX, PX, EXAT, PXAT of SET and GETEX, and the bare numbers of EXPIRE and SETEX. */
import type { Expiry } from '../kv/operations.ts';
import { MAX_INT64, parseInt64 } from './integers.ts';
import { NOT_AN_INTEGER, SYNTAX, invalidExpiry } from './failures.ts';
import type { Failure } from './reply.ts';

/** How a number is meant. */
export interface Unit {
  seconds: boolean;
  /** Since 1970; else from now on. */
  absolute: boolean;
}

export const UNITS: Readonly<Record<string, Unit>> = {
  EX: { seconds: true, absolute: false },
  PX: { seconds: false, absolute: false },
  EXAT: { seconds: true, absolute: true },
  PXAT: { seconds: false, absolute: true },
};

/** A time that can be written down exactly: the year 287396. */
const MAX_MS = BigInt(Number.MAX_SAFE_INTEGER);

/** For SET and its like: more than nothing, and no overflow. `name`: of the command, for the error. */
export function positiveExpiry(argument: Buffer, unit: Unit, name: string, nowMs: number): Expiry | Failure {
  const given = parseInt64(argument);
  if (given === null) return NOT_AN_INTEGER;
  if (given <= 0n || (unit.seconds && given > MAX_INT64 / 1000n)) return invalidExpiry(name);
  const ms = unit.seconds ? given * 1000n : given;
  if (ms > MAX_MS || (!unit.absolute && ms + BigInt(Math.floor(nowMs)) > MAX_MS)) return invalidExpiry(name);
  return unit.absolute ? { atMs: Number(ms) } : { afterMs: Number(ms) };
}

/** For EXPIRE and its like: what lies in the past deletes the key. */
export function anyExpiry(argument: Buffer, unit: Unit, name: string, nowMs: number): Expiry | 'past' | Failure {
  const given = parseInt64(argument);
  if (given === null) return NOT_AN_INTEGER;
  if (unit.seconds && (given > MAX_INT64 / 1000n || given < -MAX_INT64 / 1000n)) return invalidExpiry(name);
  const ms = unit.seconds ? given * 1000n : given;
  const base = unit.absolute ? 0n : BigInt(Math.floor(nowMs));
  if (ms + base > MAX_MS) return invalidExpiry(name);
  if (unit.absolute ? ms <= BigInt(Math.floor(nowMs)) : ms <= 0n) return 'past';
  return unit.absolute ? { atMs: Number(ms) } : { afterMs: Number(ms) };
}

export interface SetOptions {
  when: 'always' | 'absent' | 'present';
  get: boolean;
  keep: boolean;
  persist: boolean;
  /** Not yet looked at: what is wrong with it is said after what is wrong with the others. */
  expiry: { argument: Buffer; unit: Unit } | null;
}

/** The words after `SET key value` or `GETEX key`. */
export function setOptions(args: readonly Buffer[], from: number, command: 'set' | 'getex'): SetOptions | Failure {
  const options: SetOptions = { when: 'always', get: false, keep: false, persist: false, expiry: null };
  const set = command === 'set';
  let named = '';
  for (let i = from; i < args.length; i++) {
    const word = args[i]!.toString('latin1').toUpperCase();
    const unit = Object.hasOwn(UNITS, word) ? UNITS[word]! : null;
    if (set && word === 'NX' && options.when !== 'present') options.when = 'absent';
    else if (set && word === 'XX' && options.when !== 'absent') options.when = 'present';
    else if (set && word === 'GET') options.get = true;
    else if (set && word === 'KEEPTTL' && named === '') options.keep = true;
    else if (!set && word === 'PERSIST' && named === '') options.persist = true;
    else if (
      unit !== null &&
      !options.keep &&
      !options.persist &&
      (named === '' || named === word) &&
      i + 1 < args.length
    ) {
      named = word;
      options.expiry = { argument: args[++i]!, unit };
    } else return SYNTAX;
  }
  return options;
}
