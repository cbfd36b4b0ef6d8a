/**
 * Commands of the operator's that stop the writers of a volume for a moment, and let them go on: `fsfreeze`, a database's
 * backup mode.
 *
 * Guarantees: the second command runs whatever became of the first; what they print goes to stderr; one that takes too
 * long is ended, and so is the first one by an interrupt.
 */
import { spawn } from 'node:child_process';
import { HoldfastError } from '../base/errors.ts';
import type { Pause } from './export-volume.ts';

const MAX_MS = 60_000;

function run(what: string, command: string, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const failed = (detail: string, cause?: unknown): void =>
      reject(new HoldfastError('IO_ERROR', { operation: what, detail: `"${command}" ${detail}`, cause }));
    // Stdout may be the backup.
    const child = spawn('/bin/sh', ['-c', command], { stdio: ['ignore', 2, 2] });
    const end = (): void => void child.kill('SIGTERM');
    const timer = setTimeout(end, MAX_MS);
    signal?.addEventListener('abort', end);
    child.once('error', (error) => failed(error.message, error));
    child.once('exit', (code, by) => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', end);
      if (signal?.aborted) reject(new HoldfastError('ABORTED', { operation: what }));
      else if (code === 0) resolve();
      else failed(by === null ? `ended with ${code}` : `was ended by ${by}`);
    });
  });
}

export class PauseHook implements Pause {
  private readonly pauseCommand: string;
  private readonly resumeCommand: string | null;

  constructor(pauseCommand: string, resumeCommand: string | null) {
    this.pauseCommand = pauseCommand;
    this.resumeCommand = resumeCommand;
  }

  begin(signal: AbortSignal): Promise<void> {
    return run('--pause-hook', this.pauseCommand, signal);
  }

  async end(): Promise<void> {
    if (this.resumeCommand !== null) await run('--resume-hook', this.resumeCommand);
  }
}
