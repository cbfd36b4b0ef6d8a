/**
 * A page of docs as it is typed: its commands in order, each in the shell of the machine whose prompt it stands
 * behind, and what they print compared with what the page shows.
 *
 * A block is run if its fence is ```` ```console ````. A line `$ COMMAND` is typed on the only machine, `a$ COMMAND` on machine a;
 * `each$ COMMAND` on each machine, one after another, and each must print what is shown;
 * it goes on behind a `\` at its end, and to the end of a here-document or a function. What follows is its output, where `...` stands for any lines.
 * A command must end with code 0, unless the next one is `echo $?`. A block ```` ```console no-test: REASON ```` is only named.
 *
 * What is compared: all but what is another one each time (`stable` below says what that is), and the width of columns.
 * With HOLDFAST_DOCS=write the page's outputs are replaced by what was printed, but where the page leaves lines out.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { MAIN, temporaryFolder } from './server-process.ts';

/** How long one command may take. */
const PATIENCE_MS = 30_000;
const PROMPT = /^(?:([a-z]+))?\$ (.*)$/;
const LEFT_OUT = /^\s*\.\.\.$/;
const END = '\u001e';
const EACH = 'each';
const ENDED = 'it ended with';
/** What bash says of a job that was killed: at a terminal it says so in other words, and at another time. */
const OF_JOBS = /^bash: line \d+: +\d+ (?:Killed|Terminated) /;
/** Is there only if something takes long enough. */
const BAR = / \d+% \| /;
/** Outputs are replaced by what is printed now: then all is typed as it is shown. */
export const isWriting = process.env['HOLDFAST_DOCS'] === 'write';

export interface Command {
  /** Whose prompt it stands behind; empty: there is one machine. */
  machine: string;
  text: string;
  shown: string[];
  /** Of the page, from 1; and the first line behind what it shows. */
  line: number;
  endLine: number;
}

export interface Page {
  commands: Command[];
  /** Blocks that are not run, and why. */
  left: Array<{ line: number; reason: string }>;
}

/** Whether lines of a here-document or a function, or behind a backslash, are still to come. */
function isOpen(text: string): boolean {
  if (/^\w+\(\) \{/.test(text)) return !text.endsWith('}');
  if (text.endsWith('\\')) return true;
  const word = /(?<!<)<<-?\s*'?([A-Z]+)'?/.exec(text)?.[1];
  return word !== undefined && !text.split('\n').slice(1).includes(word);
}

export function pageOf(markdown: string): Page {
  const page: Page = { commands: [], left: [] };
  let inside = false;
  let current: Command | null = null;
  markdown.split('\n').forEach((text, index) => {
    const line = index + 1;
    const fence = /^```(\S*) ?(.*)$/.exec(text);
    if (fence !== null && (inside || fence[1] !== '')) {
      const reason = /^no-test: (.+)$/.exec(fence[2]!)?.[1];
      if (!inside && fence[1] === 'console' && reason !== undefined) page.left.push({ line, reason });
      inside = !inside && fence[1] === 'console' && reason === undefined;
      current = null;
      return;
    }
    if (!inside) return;
    const prompt = current !== null && isOpen(current.text) ? null : PROMPT.exec(text);
    if (prompt !== null) {
      current = { machine: prompt[1] ?? '', text: prompt[2]!, shown: [], line, endLine: line + 1 };
      page.commands.push(current);
      return;
    }
    if (current === null) throw new Error(`line ${line}: output without a command: ${text}`);
    if (isOpen(current.text)) current.text += `\n${text}`;
    else current.shown.push(text);
    current.endLine = line + 1;
  });
  return page;
}

const CHANGING: ReadonlyArray<readonly [RegExp, string]> = [
  [/\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?Z?/g, 'DATE'],
  [/\b\d\d:\d\d:\d\d(?:\.\d+)?\b/g, 'CLOCK'],
  [/\b[0-9a-f]{13,}\b/g, 'HEX'],
  // As qemu-io writes it.
  [/\b\d+(?:\.\d+)? (?:[KMGT]i)?B\/sec and \d+(?:\.\d+)? ops\/sec/g, 'RATES'],
  [/\b\d+(?:\.\d+)? (?:B|[KMGT]iB)\/s/g, 'RATE'],
  [/\b\d+(?:\.\d+)? ?(?:µs|ms|s|min)\b/g, 'TIME'],
  // Whole MiB are what somebody asked for; these are what came of it, or what is free.
  [/\b(?:\d+\.\d+ ?[KM]|\d+(?:\.\d+)? ?[GT])iB\b/g, 'SIZE'],
  [/\bpid \d+/g, 'pid PID'],
  [/\bepoch \d+/g, 'epoch EPOCH'],
  [/\b(position|log|up to|at) +\d+\.\d+/g, '$1 POSITION'],
  [/\bscrub \d+ % of pass \d+/g, 'scrub SHARE'],
  [/\b\d+ (blocks|operations)\b/g, 'NUMBER $1'],
  [/\b\d\d\.\d\d sec\b/g, 'TIME'],
  // The cell of a table, such as a process id, an epoch or a position.
  [/(?<=│ )\d+(?:\.\d+)?(?= *│)/g, 'NUMBER'],
  [/─+/g, '─'],
  [/ +/g, ' '],
];

/** A line without what is another one each time. */
export function stable(line: string): string {
  return CHANGING.reduce((text, [pattern, name]) => text.replaceAll(pattern, name), line).trim();
}

/** Whether these lines are what is shown. */
export function fits(shown: readonly string[], printed: readonly string[]): boolean {
  const [first, ...rest] = shown;
  if (first === undefined) return printed.length === 0;
  if (LEFT_OUT.test(first)) {
    for (let i = 0; i <= printed.length; i++) if (fits(rest, printed.slice(i))) return true;
    return false;
  }
  return printed.length > 0 && stable(first) === stable(printed[0]!) && fits(rest, printed.slice(1));
}

/** Said of a member that a machine without time for all of its processes let stand still; it is brought in sync again. */
const STOOD_STILL = / member-lost .*: silent for /;
const SYNCING = / member-syncing /;

/** Events without those of members that stood still for a moment: no page can show when they happen. */
export function withoutStandstills(lines: readonly string[]): string[] {
  const left: string[] = [];
  let again = 0;
  for (const line of lines) {
    if (STOOD_STILL.test(line)) again++;
    else if (again > 0 && SYNCING.test(line)) again--;
    else left.push(line);
  }
  return left;
}

/** One bash, and the folder it works in. */
class Shell {
  readonly folder: string;
  private readonly child: ChildProcess;
  private printed = '';
  private look = (): void => {};

  constructor(folder: string, env: NodeJS.ProcessEnv, on: readonly string[]) {
    this.folder = folder;
    const [command, ...rest] = [...on, 'bash', '--noprofile', '--norc'];
    this.child = spawn(command!, rest, { cwd: folder, env, stdio: 'pipe' });
    for (const stream of [this.child.stdout!, this.child.stderr!]) {
      stream.setEncoding('utf8').on('data', (chunk: string) => {
        this.printed += chunk;
        this.look();
      });
    }
    this.child.once('exit', () => this.look());
    process.once('exit', () => this.kill());
  }

  /** @returns what it printed, line by line, and its exit code, or why there is none */
  async type(text: string): Promise<{ code: string; lines: string[] }> {
    this.printed = '';
    const ended = new Promise<string>((resolve) => {
      const late = setTimeout(() => resolve(`not done after ${PATIENCE_MS / 1000} s`), PATIENCE_MS);
      this.look = () => {
        if (!this.printed.endsWith(`${END}\n`) && this.child.exitCode === null) return;
        clearTimeout(late);
        resolve('the shell has ended');
      };
    });
    // In braces, not in a subshell: variables and $! are for the next one, as is $?.
    const before = `(exit \${__code:-0})\n{ ${text}\n} < /dev/null 2>&1; __code=$?\n`;
    this.child.stdin!.write(`${before}printf '${END}%s${END}\\n' $__code\n`);
    const why = await ended;
    const [output, code = why] = this.printed.split(END) as [string, string?];
    const lines = output === '' ? [] : output.replace(/\n$/, '').split('\n');
    return { code, lines: lines.filter((line) => !OF_JOBS.test(line) && !BAR.test(line)) };
  }

  /** Commands of the processes that it has started and that go on. */
  leftOver(): string[] {
    return childrenOf(this.child.pid!).map((pid) => readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' '));
  }

  kill(): void {
    if (this.child.exitCode !== null || this.child.signalCode !== null) return;
    for (const pid of childrenOf(this.child.pid!)) process.kill(pid, 'SIGKILL');
    this.child.kill('SIGKILL');
  }

  async end(): Promise<void> {
    const exited = new Promise((resolve) => this.child.once('exit', resolve));
    this.kill();
    await exited;
  }
}

function childrenOf(pid: number): number[] {
  const file = `/proc/${pid}/task/${pid}/children`;
  if (!existsSync(file)) return [];
  return readFileSync(file, 'utf8')
    .split(' ')
    .map(Number)
    .filter((child) => child > 0 && !isDead(child));
}

function isDead(pid: number): boolean {
  try {
    return /\) [ZX] /.test(readFileSync(`/proc/${pid}/stat`, 'latin1'));
  } catch {
    return true;
  }
}

/** Which of these commands are not installed, in words; null: all are there. */
export function toolsMissing(tools: readonly string[]): string | null {
  const missing = tools.filter((tool) => spawnSync('which', [tool]).status !== 0);
  return missing.length === 0 ? null : `not installed: ${missing.join(', ')}`;
}

export interface Scene {
  /** Commands that stand in for others, such as scp between machines that are folders: name and script. */
  tools?: Readonly<Record<string, string>>;
  /** Of the page, from the root of the repository. */
  path: string;
  /** What stands on the page, and what is typed in its place; `folder` is the machine's. */
  places: (machine: string, folder: string) => ReadonlyArray<readonly [string, string]>;
  env?: NodeJS.ProcessEnv;
  /**
   * Typed on the only machine before the first command and behind the last one of a page that takes its cluster as given: it begins
   * with nodes that run, and says nothing of how they end.
   */
  before?: string;
  after?: string;
  /** Words before the machine's shell, such as those that let it run on a host of its own. */
  on?: (machine: string) => readonly string[];
}

/** @returns what is wrong, in words; all commands are run, unless one of them fails */
export async function play({ path, places, on = () => [], env, tools = {}, before, after }: Scene): Promise<string[]> {
  const file = join(import.meta.dirname, '../../..', path);
  const markdown = readFileSync(file, 'utf8');
  const page = pageOf(markdown);
  for (const { line, reason } of page.left) console.log(`# not run: ${path}:${line}: ${reason}`);
  const root = temporaryFolder();
  const bin = join(root, 'bin');
  mkdirSync(bin);
  const scripts = { holdfast: `#!/bin/sh\nexec "${process.execPath}" "${MAIN}" "$@"\n`, ...tools };
  for (const [name, script] of Object.entries(scripts)) {
    writeFileSync(join(bin, name), script);
    chmodSync(join(bin, name), 0o755);
  }
  const shells = new Map<string, Shell>();
  const findings: string[] = [];
  const lines = markdown.split('\n');
  const printed = new Map<Command, string[]>();

  function shellOf(name: string): Shell {
    const known = shells.get(name);
    if (known !== undefined) return known;
    const folder = join(root, `machine-${name}`);
    mkdirSync(folder);
    const PATH = `${bin}:${process.env['PATH']}`;
    const shell = new Shell(
      folder,
      { HOME: folder, LANG: 'C.UTF-8', HOLDFAST_LOG_LEVEL: 'warn', PATH, ...env },
      on(name),
    );
    shells.set(name, shell);
    return shell;
  }

  async function typeOn(shell: Shell, name: string, command: Command, isAsked: boolean): Promise<string | null> {
    const swaps = places(name, shell.folder);
    const typed = swaps.reduce((text, [shown, real]) => text.replaceAll(shown, real), command.text);
    const begun = performance.now();
    const done = await shell.type(typed);
    if (process.env['HOLDFAST_DOCS'] === 'times') console.log(`${Math.round(performance.now() - begun)} ms  ${typed}`);
    const real = done.lines.map((one) => swaps.reduceRight((text, [shown, to]) => text.replaceAll(to, shown), one));
    if (!printed.has(command)) printed.set(command, real);
    const where = `${path}:${command.line}: ${name}$ ${command.text}`;
    if (done.code !== '0' && !(isAsked && /^\d+$/.test(done.code)))
      return `${where}\n  ${ENDED} ${done.code}:\n${real.join('\n')}\n${logsOf(shells)}`;
    if (fits(command.shown, real) || fits(command.shown, withoutStandstills(real))) return null;
    return `${where}\n---- shown\n${command.shown.join('\n')}\n---- printed\n${real.join('\n')}`;
  }

  async function unshown(text: string | undefined): Promise<void> {
    if (text === undefined) return;
    const shell = shellOf('');
    const swaps = places('', shell.folder);
    const { code, lines: said } = await shell.type(swaps.reduce((all, [one, real]) => all.replaceAll(one, real), text));
    if (code !== '0')
      findings.push(`${path}: what is not on the page ${ENDED} ${code}:\n${said.join('\n')}\n${logsOf(shells)}`);
  }

  try {
    await unshown(before);
    for (const [i, command] of page.commands.entries()) {
      if (findings.some((one) => one.includes(ENDED))) break;
      const isAsked = page.commands[i + 1]?.text === 'echo $?';
      for (const name of command.machine === EACH ? [...shells.keys()] : [command.machine]) {
        const finding = await typeOn(shellOf(name), name, command, isAsked);
        if (finding !== null) findings.push(finding);
      }
    }
    await unshown(after);
    for (const shell of shells.values()) {
      for (const one of shell.leftOver()) findings.push(`${path}: at its end this still runs: ${one}`);
    }
  } finally {
    await Promise.all([...shells.values()].map((shell) => shell.end()));
  }
  if (isWriting) write(file, lines, page, printed);
  return findings;
}

/** The ends of the logs: why a command failed. */
function logsOf(shells: ReadonlyMap<string, Shell>): string {
  const texts = [...shells.values()].flatMap(({ folder }) =>
    readdirSync(folder, { recursive: true, encoding: 'utf8' })
      .filter((name) => name.endsWith('.log'))
      .map((name) => `---- ${name}\n${readFileSync(join(folder, name), 'utf8').slice(-2000)}`),
  );
  return texts.join('\n');
}

function write(file: string, lines: string[], page: Page, printed: ReadonlyMap<Command, string[]>): void {
  for (const command of page.commands.toReversed()) {
    const real = printed.get(command);
    if (real === undefined || command.shown.some((line) => LEFT_OUT.test(line))) continue;
    const begin = command.endLine - 1 - command.shown.length;
    lines.splice(begin, command.shown.length, ...real);
  }
  writeFileSync(file, lines.join('\n'));
}
