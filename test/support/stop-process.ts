/** SIGSTOP that has arrived: `kill` returns while threads on other cores still run, and they may answer a request yet. */
import type { ChildProcess } from 'node:child_process';
import { readFileSync, readdirSync } from 'node:fs';
import { until } from './until.ts';

/** The letter after the name, which is in parentheses and may contain any character. */
function stateOf(statFile: string): string {
  const stat = readFileSync(statFile, 'latin1');
  return stat.charAt(stat.lastIndexOf(')') + 2);
}

/** Stops every thread of a process. It goes on with SIGCONT. */
export async function stopProcess(child: ChildProcess): Promise<void> {
  const { pid } = child;
  child.kill('SIGSTOP');
  const isStopped = (): boolean =>
    readdirSync(`/proc/${pid}/task`).every((thread) => stateOf(`/proc/${pid}/task/${thread}/stat`) === 'T');
  await until(isStopped, `process ${pid} to be stopped`);
}
