/**
 * One sync of one file of a running process that fails, in its system call: `strace` lets the first one of each thread
 * return EIO without doing it, and notes all of them. Later ones would succeed, which is what a disk does after an error
 * that the kernel has told once.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { temporaryFolder } from './server-process.ts';
import { until } from './until.ts';

const CALLS = 'fdatasync,fsync';

/** @returns why it cannot be done here, null if it can */
export function failingSyncMissing(): string | null {
  const { error } = spawnSync('strace', ['--version']);
  if (error !== undefined) return 'strace is not installed';
  const { status, stderr } = spawnSync('strace', ['-o', '/dev/null', '--', 'true']);
  return status === 0 ? null : `strace may not trace: ${stderr.toString().trim()}`;
}

export class FailingSync {
  private readonly tracer: ChildProcess;
  private readonly ended: Promise<void>;
  private readonly notes: string;
  private told = '';

  private constructor(pid: number, file: string) {
    this.notes = join(temporaryFolder(), 'trace');
    const inject = `inject=${CALLS}:error=EIO:when=1`;
    const args = ['-f', '-p', String(pid), '-P', file, '-e', `trace=${CALLS}`, '-e', inject, '-o', this.notes];
    this.tracer = spawn('strace', args, { stdio: ['ignore', 'ignore', 'pipe'] });
    this.tracer.stderr!.on('data', (chunk: Buffer) => (this.told += chunk.toString()));
    this.ended = new Promise((resolve) => this.tracer.once('close', () => resolve()));
  }

  /** From now on. */
  static async attach(pid: number, file: string): Promise<FailingSync> {
    const failing = new FailingSync(pid, file);
    process.once('exit', () => failing.tracer.kill('SIGKILL'));
    await until(() => / attached/.test(failing.told) || failing.tracer.exitCode !== null, 'strace to be attached');
    if (failing.tracer.exitCode !== null) throw new Error(`strace has ended: ${failing.told}`);
    return failing;
  }

  /** It leaves the process alone again. @returns the syncs of that file since it was attached, as strace notes them */
  async detach(): Promise<string[]> {
    this.tracer.kill('SIGINT');
    await this.ended;
    const lines = readFileSync(this.notes, 'utf8').split('\n');
    return lines.filter((line) => /\b(?:fdatasync|fsync)\(/.test(line));
  }
}
