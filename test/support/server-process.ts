/** `holdfast serve` and `holdfast nbd` as real processes: started, watched, killed by their pid. */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

export const MAIN = fileURLToPath(new URL('../../src/cli/main.js', import.meta.url));

// Each process and each folder is cleared away at the exit.
process.setMaxListeners(100);

/** A folder that is removed when the test process ends. */
export function temporaryFolder(): string {
  const dir = mkdtempSync(join(process.env['HOLDFAST_TEST_DIR'] ?? tmpdir(), 'holdfast-test-'));
  process.once('exit', () => rmSync(dir, { recursive: true, force: true }));
  return dir;
}

export interface Listening {
  event: 'listening';
  listen: string;
  volume: string;
  readOnly: boolean;
  epoch: number;
  health: string;
  recovered: { records: number; bytes: number } | null;
}

type Exited = Promise<{ code: number | null; signal: NodeJS.Signals | null }>;

interface Launched<Event> {
  child: ChildProcess;
  info: Event;
  exited: Exited;
  /** All that it has printed so far. */
  printed: () => string;
}

/**
 * @param on words before the command, such as those that let it run on another host
 * @throws an error with everything it printed when it does not get to listening
 */
export async function launch<Event>(
  args: string[],
  env: NodeJS.ProcessEnv,
  on: readonly string[] = [],
): Promise<Launched<Event>> {
  const [command, ...rest] = [...on, process.execPath, MAIN, ...args, '--json'];
  const child = spawn(command!, rest, {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, HOLDFAST_LOG_LEVEL: 'warn', ...env },
  });
  const killChild = (): void => void child.kill('SIGKILL');
  process.once('exit', killChild);
  let printed = '';
  child.stderr!.on('data', (chunk: Buffer) => (printed += chunk.toString()));
  const exited: Exited = new Promise((resolve) =>
    child.once('exit', (code, signal) => {
      process.off('exit', killChild);
      resolve({ code, signal });
    }),
  );
  const listening = new Promise<Event>((resolve, reject) => {
    createInterface({ input: child.stdout! }).on('line', (line) => {
      printed += `${line}\n`;
      const event = JSON.parse(line) as { event: string };
      if (event.event === 'listening') resolve(event as Event);
    });
    void exited.then(({ code, signal }) => reject(new Error(`${args[0]} ended (${code ?? signal}): ${printed}`)));
  });
  return { child, info: await listening, exited, printed: () => printed };
}

/** A command that prints events as JSON, and goes on. */
export function spawnEvents(args: string[]): {
  child: ChildProcess;
  exited: Exited;
  printed: () => string;
  /** The first of that name, if it came already or comes still. */
  event: (name: string) => Promise<Record<string, unknown>>;
} {
  const child = spawn(process.execPath, [MAIN, ...args, '--json'], { stdio: ['ignore', 'pipe', 'pipe'] });
  // It ends what it has started.
  const stopChild = (): void => void child.kill('SIGTERM');
  process.once('exit', stopChild);
  let printed = '';
  const seen: Array<Record<string, unknown>> = [];
  let look = (): void => {};
  child.stderr.on('data', (chunk: Buffer) => (printed += chunk.toString()));
  createInterface({ input: child.stdout }).on('line', (line) => {
    printed += `${line}\n`;
    seen.push(JSON.parse(line) as Record<string, unknown>);
    look();
  });
  const exited: Exited = new Promise((resolve) =>
    child.once('exit', (code, signal) => {
      process.off('exit', stopChild);
      resolve({ code, signal });
    }),
  );
  const event = (name: string): Promise<Record<string, unknown>> =>
    new Promise((resolve, reject) => {
      look = () => {
        const found = seen.find((one) => one['event'] === name);
        if (found !== undefined) resolve(found);
      };
      look();
      void exited.then(() => reject(new Error(`it ended before "${name}": ${printed}`)));
    });
  return { child, exited, printed: () => printed, event };
}

export class ServerProcess {
  readonly child: ChildProcess;
  readonly info: Listening;
  readonly exited: Exited;
  readonly port: number;

  private constructor({ child, info, exited }: Launched<Listening>) {
    this.child = child;
    this.info = info;
    this.exited = exited;
    this.port = Number(info.listen.split(':').at(-1));
  }

  get url(): string {
    return `holdfast://${this.info.listen}/${this.info.volume}`;
  }

  /** @throws an error with everything it printed when it does not get to listening */
  static async start(dir: string, args: string[] = [], env: NodeJS.ProcessEnv = {}): Promise<ServerProcess> {
    return new ServerProcess(await launch(['serve', dir, '--listen', '127.0.0.1:0', ...args], env));
  }

  /** This process may end while the server runs; it is killed then. */
  unref(): this {
    this.child.unref();
    for (const stream of [this.child.stdout, this.child.stderr]) (stream as unknown as { unref(): void }).unref();
    return this;
  }

  async kill(signal: NodeJS.Signals = 'SIGKILL'): Promise<{ code: number | null; signal: NodeJS.Signals | null }> {
    this.child.kill(signal);
    return this.exited;
  }
}

export class GatewayProcess {
  readonly child: ChildProcess;
  readonly exited: Exited;
  /** With the export's name. */
  readonly uri: string;
  readonly printed: () => string;

  private constructor({ child, info, exited, printed }: Launched<{ nbd: string }>) {
    this.child = child;
    this.exited = exited;
    this.uri = info.nbd;
    this.printed = printed;
  }

  /** @throws an error with everything it printed when it does not get to listening */
  static async start(url: string, args: string[] = []): Promise<GatewayProcess> {
    return new GatewayProcess(
      await launch(['nbd', url, '--listen', '127.0.0.1:0', ...args], { HOLDFAST_LOG_LEVEL: 'info' }),
    );
  }

  async kill(signal: NodeJS.Signals = 'SIGKILL'): Promise<{ code: number | null; signal: NodeJS.Signals | null }> {
    this.child.kill(signal);
    return this.exited;
  }
}

/** Runs the command line to its end. */
export function holdfast(
  args: string[],
  options: { input?: Uint8Array; env?: NodeJS.ProcessEnv; on?: readonly string[] } = {},
): Promise<{ code: number; stdout: Buffer; stderr: string }> {
  return new Promise((resolve, reject) => {
    const [command, ...rest] = [...(options.on ?? []), process.execPath, MAIN, ...args];
    const child = spawn(command!, rest, {
      stdio: 'pipe',
      env: { ...process.env, ...options.env },
    });
    const stdout: Buffer[] = [];
    let stderr = '';
    child.stdout.on('data', (chunk: Buffer) => stdout.push(chunk));
    child.stderr.on('data', (chunk: Buffer) => (stderr += chunk.toString()));
    child.once('error', reject);
    child.once('close', (code) => resolve({ code: code ?? -1, stdout: Buffer.concat(stdout), stderr }));
    child.stdin.on('error', () => {});
    child.stdin.end(options.input ?? new Uint8Array(0));
  });
}
