/**
 * The processes of a bench: servers and load generators, each in its own process, so that none lends another its
 * event loop.
 *
 * Guarantees: every child that was started here is ended with this process, by its pid; a child that fails rejects
 * with what it wrote to stderr.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { freePorts } from './free-ports.ts';

export type Durability = 'always' | 'none';

/** A server under load. */
export interface Server {
  /** holdfast://host:port/volume */
  url: string;
  /** Ends it in order (SIGTERM) and waits. */
  stop(): Promise<void>;
}

const running: Set<ChildProcess> = new Set();
process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL');
});
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => process.exit(130));

/** A script of this build. `path` is relative to the root of the build, e.g. `bench/load/raw-generator.js`. */
function script(path: string): string {
  return fileURLToPath(new URL(`../../${path}`, import.meta.url));
}

export interface Started {
  child: ChildProcess;
  exited: Promise<number | string>;
  stderr: () => string;
}

/** @param stdin `pipe`: this process talks to it. */
export function start(path: string, args: string[], stdin: 'ignore' | 'pipe' = 'ignore'): Started {
  const child = spawn(process.execPath, [script(path), ...args], { stdio: [stdin, 'pipe', 'pipe'] });
  running.add(child);
  let stderr = '';
  // Only the end is kept: a server that complains for a minute must not fill the memory of the bench.
  child.stderr!.setEncoding('utf8').on('data', (text: string) => (stderr = (stderr + text).slice(-8192)));
  const exited = new Promise<number | string>((resolve, reject) => {
    child.once('error', reject);
    child.once('exit', (code, signal) => {
      running.delete(child);
      resolve(code ?? signal ?? 'unknown');
    });
  });
  return { child, exited, stderr: () => stderr };
}

/** Runs a script to its end. @returns the last line of JSON that it printed. Rejects if it exits with anything but 0. */
export async function runForJson<Result>(path: string, args: string[]): Promise<Result> {
  const { child, exited, stderr } = start(path, args);
  let last = '';
  const lines = createInterface({ input: child.stdout! });
  lines.on('line', (line) => {
    if (line.startsWith('{')) last = line;
  });
  const closed = new Promise((resolve) => lines.once('close', resolve));
  const status = await exited;
  await closed;
  if (status !== 0 || last === '') {
    throw new Error(`${path} ${args.join(' ')} ended with ${status}\n${stderr()}${last}`);
  }
  return JSON.parse(last) as Result;
}

/** Starts a script that prints {"event":"listening","listen":"host:port"} once it serves `volume`. */
export async function startServer(path: string, args: string[], volume: string): Promise<Server> {
  const { child, exited, stderr } = start(path, args);
  const listening = new Promise<string>((resolve) => {
    createInterface({ input: child.stdout! }).on('line', (line) => {
      if (!line.startsWith('{')) return;
      const event = JSON.parse(line) as { event?: string; listen?: string };
      if (event.event === 'listening' && event.listen !== undefined) resolve(event.listen);
    });
  });
  const failed = exited.then((status) => {
    throw new Error(`${path} ${args.join(' ')} ended with ${status} before it listened\n${stderr()}`);
  });
  const listen = await Promise.race([listening, failed]);
  // From here on an early end shows as a failed generator, and in `stop`.
  failed.catch(() => undefined);
  return {
    url: `holdfast://${listen}/${volume}`,
    stop: async () => {
      if (child.exitCode !== null || child.signalCode !== null) {
        throw new Error(`the server ended by itself with ${child.exitCode ?? child.signalCode}\n${stderr()}`);
      }
      child.kill('SIGTERM');
      // A clean close writes back everything that is dirty; one that hangs is no longer of interest.
      const deadline = setTimeout(() => child.kill('SIGKILL'), 120_000);
      const status = await exited;
      clearTimeout(deadline);
      if (status !== 0) throw new Error(`the server ended with ${status}\n${stderr()}`);
    },
  };
}

export interface ServeOptions {
  /** The volume's folder: created if new, opened if it exists. */
  dir: string;
  sizeBytes: number;
  durability: Durability;
}

/** `holdfast serve` with one volume, named `bench`. */
export async function startHoldfast(options: ServeOptions): Promise<Server> {
  const args = ['serve', options.dir, '--name', 'bench', '--size', String(options.sizeBytes)];
  args.push('--listen', `127.0.0.1:${await freePort()}`, '--durability', options.durability, '--json');
  return startServer('src/cli/main.js', args, 'bench');
}

/** A port that was free a moment ago. */
export async function freePort(): Promise<number> {
  return (await freePorts(1))[0]!;
}
