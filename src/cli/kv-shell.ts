/**
 * `holdfast kv shell`: commands from stdin, a line each, answers on stdout in the same order: the forms of the tools of the
 * CS 739 course, so that they can drive it.
 *
 * Guarantees: an answer is out before the next line is read; a line that is no command changes nothing and is told with one
 * line that begins with ERROR; a change that was answered without ERROR is durable on every replica in sync. The end of the
 * input is STOP. `SCAN END` comes behind a whole scan only.
 */
import { createInterface } from 'node:readline';
import type { Command } from 'commander';
import { asHoldfastError } from '../base/errors.ts';
import type { KvStore } from '../client/index.ts';
import { type ReadFlags, type Run, addReadFlags, readsOf, withStore } from './kv-store.ts';
import { print, word } from './kv-text.ts';
import { linesOf } from './lines.ts';

/** More than the longest key and the longest value take. */
const MAX_LINE_BYTES = 1024 * 1024;
/** What a line that is no command is repeated up to. */
const REPEATED_BYTES = 60;

const HELP = `PUT KEY VALUE    answers PUT KEY found | not_found: whether the key was there
SWAP KEY VALUE   answers SWAP KEY and the value before, or null
GET KEY          answers GET KEY and the value, or null
SCAN FIRST LAST  the keys from FIRST to LAST, both included, a line each
DELETE KEY       answers DELETE KEY found | not_found
STOP             ends it, as does the end of the input
Keys and values are words: no spaces.
`;

/** What a scan that fails in its middle ends with: a program must not take the rest of the session for entries. */
class CutOff extends Error {}

type Action = (store: KvStore, words: Buffer[]) => Promise<void>;

const found = (there: boolean): string => (there ? 'found' : 'not_found');
const orNull = (value: Buffer | null): string => (value === null ? 'null' : word(value));

const ACTIONS: Readonly<Record<string, { takes: string; count: number; act: Action }>> = {
  PUT: {
    takes: 'a key and a value',
    count: 2,
    act: async (store, [key, value]) => {
      const { existed } = await store.put(key!, value!);
      await print(`PUT ${word(key!)} ${found(existed)}\n`);
    },
  },
  SWAP: {
    takes: 'a key and a value',
    count: 2,
    act: async (store, [key, value]) => {
      const { previous } = await store.put(key!, value!, { previous: true });
      await print(`SWAP ${word(key!)} ${orNull(previous)}\n`);
    },
  },
  GET: {
    takes: 'a key',
    count: 1,
    act: async (store, [key]) => {
      const entry = await store.get(key!);
      await print(`GET ${word(key!)} ${orNull(entry?.value ?? null)}\n`);
    },
  },
  SCAN: { takes: 'two keys', count: 2, act: (store, [first, last]) => scan(store, first!, last!) },
  DELETE: {
    takes: 'a key',
    count: 1,
    act: async (store, [key]) => {
      const { existed } = await store.delete(key!);
      await print(`DELETE ${word(key!)} ${found(existed)}\n`);
    },
  },
};

/** Nothing is printed before something is known. */
async function scan(store: KvStore, first: Buffer, last: Buffer): Promise<void> {
  // The key that comes next after LAST.
  const end = Buffer.concat([last, Buffer.alloc(1)]);
  const entries = store.scan({ from: first, end });
  let next = await entries.next();
  await print(`SCAN ${word(first)} ${word(last)} BEGIN\n`);
  try {
    for (; next.done !== true; next = await entries.next()) {
      await print(`  ${word(next.value.key)} ${word(next.value.value)}\n`);
    }
  } catch (error) {
    throw new CutOff(asHoldfastError(error).message);
  }
  await print('SCAN END\n');
}

export class KvShell {
  private readonly store: KvStore;
  private readonly terminal: boolean;
  private failed_ = false;

  /** @param terminal there is somebody at it who can be helped */
  constructor(store: KvStore, terminal: boolean) {
    this.store = store;
    this.terminal = terminal;
  }

  /** Whether an ERROR was told. */
  get failed(): boolean {
    return this.failed_;
  }

  /** @param line null: too long. @returns false: it is over */
  async answer(line: Buffer | null): Promise<boolean> {
    if (line === null) return this.error(`a line of more than ${MAX_LINE_BYTES} bytes`);
    // A word is the bytes between spaces, whatever they are.
    const [command, ...words] = line
      .toString('latin1')
      .split(/[ \t]+/)
      .filter((one) => one !== '');
    if (command === undefined) return true;
    if (command === 'STOP' && words.length === 0) return false;
    if (this.terminal && command.toLowerCase() === 'help') {
      await print(HELP);
      return true;
    }
    const action = Object.hasOwn(ACTIONS, command) ? ACTIONS[command] : undefined;
    if (action === undefined) {
      return this.error(`no command: ${shortened(command)}; there are ${Object.keys(ACTIONS).join(', ')} and STOP`);
    }
    if (words.length !== action.count) return this.error(`${command} takes ${action.takes}, not ${words.length} words`);
    try {
      const bytes = words.map((one) => Buffer.from(one, 'latin1'));
      await action.act(this.store, bytes);
      return true;
    } catch (error) {
      const told = await this.error(error instanceof CutOff ? error.message : asHoldfastError(error).message);
      return told && (this.terminal || !(error instanceof CutOff));
    }
  }

  private async error(text: string): Promise<true> {
    this.failed_ = true;
    await print(`ERROR ${text.replace(/[\p{Cc}\p{Zl}\p{Zp}]+/gu, ' ')}\n`);
    return true;
  }
}

const shortened = (command: string): string => {
  const bytes = Buffer.from(command, 'latin1');
  return word(bytes.subarray(0, REPEATED_BYTES)) + (bytes.length > REPEATED_BYTES ? '...' : '');
};

/** Somebody types: a prompt, and lines that can be edited. */
async function* typedLines(name: string): AsyncGenerator<Buffer> {
  const prompt = createInterface({ input: process.stdin, output: process.stdout, prompt: `${name}> ` });
  try {
    prompt.prompt();
    for await (const line of prompt) {
      yield Buffer.from(line, 'utf8');
      prompt.prompt();
    }
    // Behind the prompt that was left with the end of the input.
    process.stdout.write('\n');
  } finally {
    prompt.close();
  }
}

async function shell(url: string, flags: ReadFlags): Promise<void> {
  const terminal = process.stdin.isTTY && process.stdout.isTTY;
  await withStore(url, { ...readsOf(flags), clientName: 'holdfast kv shell' }, async (store) => {
    const shell = new KvShell(store, terminal);
    if (terminal) process.stderr.write(`${store.name}: type help for the commands\n`);
    const lines = terminal ? typedLines(store.name) : linesOf(process.stdin as AsyncIterable<Buffer>, MAX_LINE_BYTES);
    for await (const line of lines) if (!(await shell.answer(line))) break;
    await print('STOP\n');
    if (shell.failed && !terminal) process.exitCode = 1;
  });
}

export function addKvShellCommand(kv: Command, run: Run): void {
  addReadFlags(
    kv
      .command('shell <volume>')
      .description('commands from stdin, a line each: PUT, SWAP, GET, SCAN, DELETE, STOP; ends with 1 after an ERROR')
      .addHelpText('after', `\n${HELP}`),
  ).action((url: string, flags: ReadFlags) => run(() => shell(url, flags)));
}
