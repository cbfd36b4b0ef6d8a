/**
 * Commands of the operator's that stop the writers of a volume for a moment, and let them go on: `fsfreeze`, a database's
 * backup mode.
 *
 * Guarantees: the second command runs whatever became of the first; what they print goes to stderr; one that takes too
 * long is ended.
 */
import { spawn } from 'node:child_process';
import { HoldfastError } from '../base/errors.ts';
import type { Pause } from './export-volume.ts';

const MAX_MS = 60_000;

function run(what: string, command: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const failed = (detail: string, cause?: unknown): void =>
      reject(new HoldfastError('IO_ERROR', { operation: what, detail: `"${command}" ${detail}`, cause }));
    // Stdout may be the backup.
    const child = spawn('/bin/sh', ['-c', command], { stdio: ['ignore', 2, 2] });
    const timer = setTimeout(() => child.kill('SIGTERM'), MAX_MS);
    child.once('error', (error) => failed(error.message, error));
    child.once('exit', (code, signal) => {
      clearTimeout(timer);
      if (code === 0) resolve();
      else failed(signal === null ? `ended with ${code}` : `was ended by ${signal}`);
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

  begin(): Promise<void> {
    return run('--pause-hook', this.pauseCommand);
  }

  async end(): Promise<void> {
    if (this.resumeCommand !== null) await run('--resume-hook', this.resumeCommand);
  }
}
