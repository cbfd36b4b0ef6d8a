/**
 * Who holds a lock, written down so that another process can tell whether it still lives.
 *
 * Guarantees: `fateOf` answers `dead` only when the process cannot be running any more (a pid that was given to another
 * process is told apart by its start time, a reboot by the boot id); where it cannot tell, it answers `unknown`.
 */
import { readFileSync, readlinkSync } from 'node:fs';
import { hostname } from 'node:os';

export interface ProcessIdentity {
  pid: number;
  /** Clock ticks from boot to the start of the process. */
  startTime: string;
  /** Drawn by the kernel at each boot. */
  bootId: string;
  host: string;
  /** Namespace that the pid belongs to: two containers may both have a process 7. */
  pidSpace: string;
}

export type Fate = 'alive' | 'dead' | 'unknown';

let own: ProcessIdentity | null = null;

/** Identity of this process. */
export function ownIdentity(): ProcessIdentity {
  own ??= {
    pid: process.pid,
    startTime: startTimeOf(process.pid)?.startTime ?? '',
    bootId: attempt(() => readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim()) ?? '',
    host: hostname(),
    pidSpace: attempt(() => readlinkSync('/proc/self/ns/pid')) ?? '',
  };
  return own;
}

/** @returns null when `text` holds no identity: it is empty, half written, or somebody else's file */
export function parseIdentity(text: string): ProcessIdentity | null {
  const value = attempt(() => JSON.parse(text) as Partial<ProcessIdentity> | null);
  if (value === null || typeof value !== 'object') return null;
  const { pid, startTime, bootId, host, pidSpace } = value;
  if (typeof pid !== 'number' || !Number.isInteger(pid) || pid <= 0) return null;
  if (typeof startTime !== 'string' || typeof bootId !== 'string') return null;
  if (typeof host !== 'string' || typeof pidSpace !== 'string') return null;
  return { pid, startTime, bootId, host, pidSpace };
}

export function fateOf(holder: ProcessIdentity): Fate {
  const self = ownIdentity();
  // Another machine's process, on storage that both can reach, is out of sight.
  if (holder.bootId !== self.bootId) return holder.host === self.host ? 'dead' : 'unknown';
  if (holder.pidSpace !== self.pidSpace) return 'unknown';
  try {
    process.kill(holder.pid, 0);
  } catch (error) {
    // EPERM: it exists, and belongs to another user.
    if ((error as NodeJS.ErrnoException).code === 'ESRCH') return 'dead';
  }
  const seen = startTimeOf(holder.pid);
  if (seen === null || holder.startTime === '') return 'unknown';
  return seen.ended || seen.startTime !== holder.startTime ? 'dead' : 'alive';
}

/** `ended`: a zombie, whose files are closed although its parent has not asked for it yet. */
function startTimeOf(pid: number): { startTime: string; ended: boolean } | null {
  const stat = attempt(() => readFileSync(`/proc/${pid}/stat`, 'latin1'));
  if (stat === null) return null;
  // The second field, the program's name in parentheses, may itself hold spaces and parentheses.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return { startTime: fields[19] ?? '', ended: fields[0] === 'Z' || fields[0] === 'X' };
}

function attempt<T>(run: () => T): T | null {
  try {
    return run();
  } catch {
    return null;
  }
}
