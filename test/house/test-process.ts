/**
 * One test file in a process of its own, and the verdict on it.
 *
 * uvu lets broken files pass: after a throwing `before` hook, a forgotten `.run()` or an early `process.exit(0)` the
 * exit code is 0. So the exit code is believed only together with a summary that is there, not empty and complete.
 *
 * Guarantees: the process and everything in its process group is gone when `runFile` settles; that happens at most a
 * few seconds after the deadline, whatever the file does.
 */
import { spawn } from 'node:child_process';
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { stripVTControlCharacters } from 'node:util';

export interface RunOptions {
  deadlineMs: number;
  /** How long the process may live on after its summary. */
  graceMs: number;
}

export interface FileResult {
  passed: number;
  failed: number;
  skipped: number;
  /** What is wrong, in words; empty when the file is good. */
  problems: string[];
  /** Worth knowing, without failing the file: a skip and its reason, processes left behind. */
  notes: string[];
  output: string;
  elapsedMs: number;
}

interface Ending {
  code: number | null;
  signal: NodeJS.Signals | null;
  /** Why the runner killed it, if it did. */
  killed: string | null;
}

/** Characters kept of a file's output: its end. */
const MAX_OUTPUT = 1 << 20;
const SUMMARY = /^ {2}Total: {5}(\d+)\n {2}Passed: {4}(\d+)\n {2}Skipped: {3}(\d+)$/gm;
const DURATION = /^ {2}Duration: /m;
const SKIP = /^# skip: (.+)$/m;
const DEADLINE = /^\s*(?:\/\/|\/?\*+)\s*deadline: (\d+) s\b/m;
const PRELOAD = new URL('./preload.js', import.meta.url).href;

/** Seconds that a file asks for in a line comment `deadline: 300 s`, in milliseconds; null without one. */
export function statedDeadlineMs(builtFile: string): number | null {
  // The compiler drops a comment together with a type import below it, so the source is asked too.
  const source = builtFile.replace(/\/dist\/(?=test\/)/, '/').replace(/\.js$/, '.ts');
  for (const file of [builtFile, source]) {
    const match = existsSync(file) ? DEADLINE.exec(readFileSync(file, 'utf8')) : null;
    if (match !== null) return Number(match[1]) * 1000;
  }
  return null;
}

/** Suites that a file declares by name and never runs. */
export function suitesNotRun(text: string): string[] {
  const names = [...text.matchAll(/^\s*(?:export )?(?:const|let|var) (\w+) = suite\(/gm)].map((match) => match[1]!);
  if (/^import \{[^}]*\btest\b[^}]*\} from '[^']*uvu[^']*'/m.test(text)) names.push('test');
  return names.filter((name) => !new RegExp(`^\\s*${name}\\.run\\(`, 'm').test(text));
}

const running = new Set<number>();

/** For the runner's own end by a signal: no test process outlives it. */
export function killAll(): void {
  for (const pid of running) killGroup(pid);
}

function killGroup(leader: number): void {
  try {
    process.kill(-leader, 'SIGKILL');
  } catch {
    // Nobody of the group is left.
  }
}

/** Whether a process of the group runs; one that is dead and waits for its parent to ask does not count. */
function isGroupAlive(leader: number): boolean {
  return readdirSync('/proc').some((entry) => {
    if (!/^\d+$/.test(entry)) return false;
    try {
      // State, parent and group follow the program's name in parentheses.
      const fields = /\) (\S) \d+ (\d+) /.exec(readFileSync(`/proc/${entry}/stat`, 'latin1'));
      return fields !== null && Number(fields[2]) === leader && !'ZX'.includes(fields[1]!);
    } catch {
      return false;
    }
  });
}

export async function runFile(builtFile: string, options: RunOptions): Promise<FileResult> {
  const startedMs = performance.now();
  let output = '';
  const notes: string[] = [];
  const ending = await new Promise<Ending>((resolve) => {
    const { FORCE_COLOR: _, ...env } = process.env;
    const child = spawn(process.execPath, ['--import', PRELOAD, builtFile], {
      stdio: ['ignore', 'pipe', 'pipe'],
      // Leader of a group of its own, so that its children can be ended with it.
      detached: true,
      env: { ...env, NO_COLOR: '1' },
    });
    const pid = child.pid;
    if (pid !== undefined) running.add(pid);
    let killed: string | null = null;
    let grace: NodeJS.Timeout | undefined;
    let question: NodeJS.Timeout | undefined;
    const kill = (why: string): void => {
      killed ??= why;
      if (pid !== undefined) killGroup(pid);
    };
    const deadline = setTimeout(
      () => kill(`it was still running at its deadline of ${options.deadlineMs / 1000} s`),
      options.deadlineMs,
    );
    const take = (chunk: string): void => {
      output = (output + chunk).slice(-MAX_OUTPUT);
      if (grace !== undefined || !DURATION.test(output)) return;
      // One that only takes its time, such as to remove its folders, does not answer.
      question = setTimeout(() => child.kill('SIGUSR2'), options.graceMs / 2);
      grace = setTimeout(
        () =>
          kill(`the process stayed alive for ${options.graceMs / 1000} s after its last test: something is left open`),
        options.graceMs,
      );
    };
    for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', take);
    let exited: Pick<Ending, 'code' | 'signal'> | null = null;
    const end = (): void => {
      clearTimeout(deadline);
      clearTimeout(grace);
      clearTimeout(question);
      if (pid !== undefined) running.delete(pid);
      child.stdout.destroy();
      child.stderr.destroy();
      resolve({ code: exited?.code ?? null, signal: exited?.signal ?? null, killed });
    };
    child.on('error', (error) => {
      killed ??= `it could not be started: ${error.message}`;
      end();
    });
    child.on('exit', (code, signal) => {
      exited = { code, signal };
      if (killed === null && isGroupAlive(pid!)) notes.push('it left processes behind, which were killed');
      killGroup(pid!);
      // A process outside the group may hold the pipes open; its output is not waited for.
      setTimeout(end, 1000).unref();
    });
    child.on('close', end);
  });
  const text = stripVTControlCharacters(output);
  const notRun = suitesNotRun(readFileSync(builtFile, 'utf8'));
  return { ...judge(text, ending, notRun, notes), output, elapsedMs: performance.now() - startedMs };
}

type Verdict = Pick<FileResult, 'passed' | 'failed' | 'skipped' | 'problems' | 'notes'>;

/** What an output without colours and an ending amount to. */
export function judge(text: string, ending: Ending, notRun: string[], notes: string[]): Verdict {
  const summary = [...text.matchAll(SUMMARY)].at(-1);
  const [total, passed, skipped] = (summary?.slice(1) ?? ['0', '0', '0']).map(Number) as [number, number, number];
  const problems: string[] = [];
  const bad = ending.code !== 0;
  if (ending.killed !== null) problems.push(ending.killed);
  else if (ending.signal !== null) problems.push(`it was ended by ${ending.signal}`);
  const reason = SKIP.exec(text)?.[1];
  if (reason !== undefined && total === 0 && !bad && ending.killed === null) {
    return { passed: 0, failed: 0, skipped: Math.max(skipped, 1), problems, notes: [...notes, `skipped: ${reason}`] };
  }
  if (summary === undefined) problems.push('there is no summary: it ended before its tests did, or never ran them');
  else if (total === 0) problems.push('it ran no tests');
  else if (passed < total && ending.code === 0) {
    problems.push(`only ${passed} of ${total} tests passed: a suite stopped in the middle (a hook that threw?)`);
  } else if (passed < total) problems.push(`${total - passed} of ${total} tests failed`);
  if (bad && problems.length === 0) problems.push(`all tests passed, but its exit code is ${ending.code}`);
  if (notRun.length > 0) problems.push(`declared but never run: ${notRun.join(', ')}`);
  const failed = Math.max(total - passed, problems.length > 0 ? 1 : 0);
  return { passed, failed, skipped, problems, notes };
}
