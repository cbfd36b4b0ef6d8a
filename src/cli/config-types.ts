/**
 * What the values of a config file look like. The type of a key follows from how the flag of the command line writes its
 * value (`<host:port>`, `<ms>`): a flag that is added later has its key with it.
 *
 * Guarantees: no message repeats a value that may be a secret; every type has an example that it accepts.
 */
import type { Option } from 'commander';
import { z } from 'zod';
import { asHoldfastError } from '../base/errors.ts';
import { parseSize } from '../base/units.ts';

export interface ValueType {
  /** In words, after "write". */
  readonly words: string;
  readonly schema: z.ZodType<unknown>;
  /** What the example shows where the flag has no default. */
  readonly example: string;
  /** A file or folder: a relative one is looked for beside the config file. */
  readonly isPath?: boolean;
}

/** The same for all keys that are a number of milliseconds; the commands check it again. */
const [LEAST_MS, MOST_MS] = [10, 60_000];
const MOST_TEXT = 4096;

const text = (words: string, pattern?: RegExp): z.ZodType<unknown> => {
  const one = z.string({ error: `it is not a text: write ${words}` }).min(1, `it is empty: write ${words}`);
  const bounded = one.max(MOST_TEXT, `it is longer than ${MOST_TEXT} characters`);
  return pattern === undefined ? bounded : bounded.regex(pattern, `write ${words}`);
};

const type = (words: string, example: string, pattern?: RegExp): ValueType => ({
  words,
  example,
  schema: text(words, pattern),
});

const path = (words: string, example: string): ValueType => ({
  words,
  example,
  isPath: true,
  // Whoever pastes the key itself here is told so, and the message does not repeat it.
  schema: text(words, /^[^\n\r\0]*$/),
});

const SIZE_WORDS = 'a size, such as 64MiB: a number with KiB, MiB, GiB or TiB';
const size: ValueType = {
  words: SIZE_WORDS,
  example: '64MiB',
  schema: z
    .union([z.int(), z.string()], { error: `it is not a size: write ${SIZE_WORDS}` })
    .superRefine((value, context) => {
      try {
        parseSize(String(value));
      } catch (error) {
        const known = asHoldfastError(error).details;
        context.addIssue({ code: 'custom', message: `${known.detail}; ${known.remedy}` });
      }
    }),
};

const ADDRESS = /^(?:\[[0-9a-fA-F:.]+\]|[^\s:[\]@/]+):\d{1,5}$/;

/** By what stands between the angle brackets of a flag. */
const BY_PLACEHOLDER: Record<string, ValueType> = {
  'host:port': type('HOST:PORT, such as 10.0.0.1:7401', '10.0.0.1:7401', ADDRESS),
  host: type('the name or the address of a machine', '10.0.0.1', /^[^\s@/]+$/),
  url: type('holdfast://HOST:7400 or etcd://HOST:2379,...', 'holdfast://10.0.0.9:7400', /^[a-z]+:\/\/[^\s@]+$/),
  name: type('a name', 'a', /^[^\s/]+$/),
  node: type('the name of a node', 'a', /^[^\s/]+$/),
  dir: path('the path of a folder', './data'),
  file: path('the path of a file, never what is in it', './file'),
  size,
  duration: type('a duration, such as 30s', '30s', /^\d+(?:ms|s|m|h)$/),
  ms: {
    words: `a whole number of milliseconds from ${LEAST_MS} to ${MOST_MS}, without a unit`,
    example: '500',
    schema: z
      .int(`write a whole number of milliseconds from ${LEAST_MS} to ${MOST_MS}, without a unit`)
      .min(LEAST_MS, `it is less than ${LEAST_MS} ms`)
      .max(MOST_MS, `it is more than ${MOST_MS} ms`),
  },
  n: {
    words: 'a number, without a unit',
    example: '1',
    schema: z.number('write a number, without a unit').min(0, 'it is less than 0').max(1e12, 'it is too large'),
  },
};
const HOST_PORT_OR_UNIX = type('HOST:PORT or unix:/PATH', '10.0.0.1:10809', new RegExp(`^unix:/|${ADDRESS.source}`));
const ALSO: Record<string, string> = { count: 'n', seconds: 'n', port: 'n', path: 'file', address: 'host:port' };

const oneOf = (...choices: string[]): ValueType => ({
  words: choices.join(' | '),
  example: choices[0]!,
  schema: z.enum(choices as [string, ...string[]], { error: `write ${choices.join(', or ')}` }),
});

/** Keys whose values the brackets do not tell. */
const BY_KEY: Record<string, ValueType> = {
  nbdTls: oneOf('require', 'allow', 'off'),
  tlsClientCert: oneOf('require', 'allow'),
  kvTls: oneOf('require', 'off'),
  httpTls: oneOf('require', 'off'),
  whenIsolated: oneOf('consistent', 'available'),
  durability: oneOf('always', 'none'),
  reads: oneOf('primary', 'any'),
  logLevel: oneOf('info', 'trace', 'debug', 'warn', 'error', 'silent'),
};

const onOff: ValueType = {
  words: 'true or false',
  example: 'true',
  schema: z.boolean('write true or false, without quotes'),
};

/** Flags that name a file have keys that end in `File`: nobody is to think that the file's content belongs there. */
export function keyOf(option: Option): string {
  const key = option.attributeName();
  return placeholderOf(option) === 'file' && !key.endsWith('File') ? `${key}File` : key;
}

function placeholderOf({ flags }: Option): string {
  const found = /[<[]([^>\]]+?)(?:\.\.\.)?[>\]]/.exec(flags)?.[1] ?? '';
  return ALSO[found] ?? found;
}

function byPlaceholder(option: Option): ValueType | undefined {
  const placeholder = placeholderOf(option);
  const unix = placeholder === 'host:port' && option.description.includes('unix:PATH');
  return unix ? HOST_PORT_OR_UNIX : BY_PLACEHOLDER[placeholder];
}

/** @returns null: nobody has said what the values of this flag look like */
export function typeOf(option: Option): ValueType | null {
  if (option.argChoices !== undefined) return oneOf(...option.argChoices);
  const one = BY_KEY[keyOf(option)] ?? (option.isBoolean() || option.negate ? onOff : byPlaceholder(option));
  if (one === undefined || !option.variadic) return one ?? null;
  const words = `a list: ${one.words}`;
  return {
    ...one,
    words,
    example: `[${one.example}]`,
    schema: z.array(one.schema, { error: `write ${words}` }).max(64),
  };
}
