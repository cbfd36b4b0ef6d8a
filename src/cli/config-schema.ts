/**
 * The keys of a config file, one for each flag of the command whose section it is.
 *
 * Guarantees: a key has the name, the default and the description of its flag; a flag whose type is not known has no key,
 * and a test fails for it.
 */
import type { Command, Option } from 'commander';
import { z } from 'zod';
import { type ValueType, keyOf, typeOf } from './config-types.ts';

/** Commands that run for long, and take a file. Each has a section of its name; its arguments stay on the command line. */
export const SECTIONS = ['node', 'coordinator', 'serve', 'nbd', 'up'] as const;
export type Section = (typeof SECTIONS)[number];

/** Of the command line only. */
const NO_KEYS = ['config', 'help'];
/** Without which the command does not start, though commander is not told so: other commands lie below it. */
const NEEDED: Partial<Record<Section, string[]>> = { node: ['coordinator'], coordinator: ['dir'] };

export interface Key {
  readonly key: string;
  readonly option: Option;
  readonly type: ValueType;
  /** The command does not start without it; a flag may give it too. */
  readonly needed: boolean;
}

export interface Keys {
  readonly section: Section;
  readonly keys: readonly Key[];
  /** Flags that no type is known for: somebody has forgotten it. */
  readonly untyped: readonly Option[];
  readonly schema: z.ZodType<Record<string, unknown>>;
}

export function keysOf(command: Command, section: Section): Keys {
  const options = command.options.filter((option) => !NO_KEYS.includes(option.attributeName()));
  const keys = options.flatMap((option): Key[] => {
    const type = typeOf(option);
    const key = keyOf(option);
    return type === null
      ? []
      : [{ key, option, type, needed: option.mandatory || NEEDED[section]?.includes(key) === true }];
  });
  return {
    section,
    keys,
    untyped: options.filter((option) => typeOf(option) === null),
    schema: z.strictObject(Object.fromEntries(keys.map(({ key, type }) => [key, type.schema.optional()]))),
  };
}

/** The name that was meant, if one is near enough. */
export function nearest(name: string, known: readonly string[]): string | null {
  const plain = (text: string): string => text.replace(/[-_]/g, '').toLowerCase();
  const near = known
    .map((one) => {
      const [a, b] = [plain(name), plain(one)];
      // `nbdTlsKey` means `nbdTlsKeyFile`, and `kvPassword` means `kvPasswordFile`.
      return { one, far: b === `${a}file` ? 0 : distance(a, b) };
    })
    .sort((a, b) => a.far - b.far)[0];
  return near !== undefined && near.far <= Math.max(1, Math.floor(name.length / 3)) ? near.one : null;
}

/** Letters to change, to add, to leave out or to swap with the next one, until one is the other. */
function distance(from: string, to: string): number {
  let before: number[] = [];
  let row = Array.from({ length: to.length + 1 }, (_, i) => i);
  for (let i = 0; i < from.length; i++) {
    const next = [i + 1];
    for (let j = 0; j < to.length; j++) {
      const change = row[j]! + (from[i] === to[j] ? 0 : 1);
      const swapped = i > 0 && j > 0 && from[i] === to[j - 1] && from[i - 1] === to[j] ? before[j - 1]! + 1 : Infinity;
      next.push(Math.min(change, row[j + 1]! + 1, next[j]! + 1, swapped));
    }
    [before, row] = [row, next];
  }
  return row[to.length]!;
}
