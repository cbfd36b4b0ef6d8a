/**
 * `holdfast up`: a whole cluster on this machine, to try it out. A coordinator and nodes as processes of their own, and
 * a volume with a replica on each node.
 *
 * Guarantees: a process that ends is started anew after a moment, with the same address; all are ended by their pid, in
 * good order, when this one is told to stop; nothing listens on anything but loopback.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { createWriteStream, mkdirSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import type { Command } from 'commander';
import { HoldfastError } from '../base/errors.ts';
import { parseSize } from '../base/units.ts';
import { checkVolumeName } from '../storage/volume-rules.ts';
import { pause, withCoordinator } from './cluster.ts';
import { lookAt } from './cluster-status.ts';
import { createReplicated } from './cluster-volume-create.ts';
import { printJson } from './output.ts';

const MAIN = fileURLToPath(new URL('./main.js', import.meta.url));
const RESTART_MS = 3000;
/** Several nodes share the cores of one machine: to stay awake for long is to keep the others from them (decision 9). */
const AWAKE_US = '50';
const MAX_NODES = 5;
/** How long the volume may take to be served. */
const SERVED_MS = 60_000;
const HOST = '127.0.0.1';

interface UpFlags {
  dir: string;
  nodes: string;
  volume: string;
  size: string;
  basePort: string;
  logLevel: string;
  json?: boolean;
}

/** One process that is kept alive. */
class Child {
  readonly name: string;
  pid: number | undefined;
  /** What it printed first: where it listens. */
  readonly listening: Promise<Record<string, unknown>>;
  private readonly args: string[];
  /** What it logs is appended to it. */
  private readonly logFile: string;
  private readonly say: (text: string, fields: object) => void;
  private process: ChildProcess | null = null;
  private exited: Promise<void> = Promise.resolve();
  private stopping = false;
  private restart: NodeJS.Timeout | undefined;
  private first!: { resolve: (event: Record<string, unknown>) => void; reject: (error: Error) => void };
  private lastError = '';

  constructor(name: string, args: string[], logFile: string, say: (text: string, fields: object) => void) {
    this.name = name;
    this.args = args;
    this.logFile = logFile;
    this.say = say;
    this.listening = new Promise((resolve, reject) => (this.first = { resolve, reject }));
    this.listening.catch(() => {});
    this.start();
  }

  private start(): void {
    const child = spawn(process.execPath, [MAIN, ...this.args, '--json'], {
      // A group of its own: Ctrl-C is for this process, which then stops the others in order.
      detached: true,
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { HOLDFAST_AWAKE_US: AWAKE_US, ...process.env },
    });
    this.process = child;
    this.pid = child.pid;
    let started = false;
    createInterface({ input: child.stdout }).on('line', (line) => {
      const event = JSON.parse(line) as Record<string, unknown>;
      if (event['event'] !== 'listening') return void (this.lastError = line);
      started = true;
      this.first.resolve(event);
    });
    child.stderr.pipe(createWriteStream(this.logFile, { flags: 'a' }).on('error', () => {}));
    child.stderr.on('data', (chunk: Buffer) => (this.lastError = (this.lastError + chunk.toString()).slice(-2000)));
    this.exited = new Promise((resolve) =>
      child.once('exit', (code, signal) => {
        this.process = null;
        resolve();
        this.ended(started, signal ?? `code ${code}`);
      }),
    );
  }

  private ended(started: boolean, how: string): void {
    if (this.stopping) return;
    if (!started) {
      const detail = `${this.name} ended (${how}): ${this.lastError.trim()}`;
      this.first.reject(new HoldfastError('IO_ERROR', { operation: 'start', detail }));
    }
    const text = `${this.name} (pid ${this.pid}) ended: ${how}; it is started again in ${RESTART_MS / 1000} s`;
    this.say(text, { event: 'ended', name: this.name, pid: this.pid, how });
    this.restart = setTimeout(() => {
      this.start();
      this.say(`${this.name} is started again, pid ${this.pid}`, {
        event: 'restarted',
        name: this.name,
        pid: this.pid,
      });
    }, RESTART_MS);
  }

  async stop(): Promise<void> {
    this.stopping = true;
    clearTimeout(this.restart);
    this.process?.kill('SIGTERM');
    await this.exited;
  }

  /** For the case that this process is ended in a hurry. */
  kill(): void {
    this.stopping = true;
    this.process?.kill('SIGTERM');
  }
}

function countOf(flag: string, text: string, least: number, most: number): number {
  const value = Number(text);
  if (Number.isSafeInteger(value) && value >= least && value <= most) return value;
  const detail = `${flag} ${text} is not a number from ${least} to ${most}`;
  throw new HoldfastError('INVALID_ARGUMENT', { operation: 'up', detail });
}

async function up(flags: UpFlags): Promise<void> {
  const dir = resolve(flags.dir);
  const count = countOf('--nodes', flags.nodes, 1, MAX_NODES);
  const basePort = countOf('--base-port', flags.basePort, 1, 60_000);
  checkVolumeName(flags.volume);
  parseSize(flags.size);
  const coordinator = `holdfast://${HOST}:${basePort}`;
  const say = (text: string, fields: object): void => {
    if (flags.json) printJson(fields);
    else process.stdout.write(`${text}\n`);
  };
  const told = new Promise<void>((over) => {
    process.once('SIGINT', over);
    process.once('SIGTERM', over);
  });
  mkdirSync(dir, { recursive: true });
  const children: Child[] = [];
  const child = (name: string, args: string[]): Child =>
    new Child(name, [...args, '--log-level', flags.logLevel], join(dir, `${name}.log`), say);
  const killAll = (): void => children.forEach((child) => child.kill());
  process.once('exit', killAll);
  try {
    const listen = ['--listen', `${HOST}:${basePort}`];
    children.push(child('coordinator', ['coordinator', '--dir', join(dir, 'coordinator'), ...listen]));
    await children[0]!.listening;
    const nodes = Array.from({ length: count }, (_, i) => {
      const name = `node${i + 1}`;
      const args = ['node', '--name', name, '--dir', join(dir, name), '--coordinator', coordinator];
      args.push('--listen', `${HOST}:${basePort + 1 + i}`, '--peer-listen', `${HOST}:${basePort + 41 + i}`);
      args.push('--nbd', `${HOST}:${basePort + 3409 + i}`, '--http', `${HOST}:${basePort + 81 + i}`);
      return child(name, args);
    });
    children.push(...nodes);
    const events = await Promise.all(nodes.map(({ listening }) => listening));
    const ready = prepare(coordinator, count, flags);
    // Told to stop while it is under way: what becomes of it is of no interest any more.
    ready.catch(() => {});
    const primary = await Promise.race([told.then(() => null), ready]);
    if (primary !== null) show(flags, coordinator, { nodes, events, primary });
    await told;
  } finally {
    if (children.length > 0) say('stopping', { event: 'stopping' });
    // Nodes one after another, so that each hands over while somebody is there to take it; the coordinator last.
    for (const child of children.slice(1)) await child.stop();
    await children[0]?.stop();
    process.off('exit', killAll);
  }
}

/** The volume is there and served. @returns by which node */
async function prepare(coordinator: string, count: number, flags: UpFlags): Promise<string> {
  const { volume } = flags;
  return withCoordinator({ coordinator }, async (client) => {
    const registers = await client.list();
    if (!registers.some((one) => one.volume === volume)) {
      if (!flags.json) process.stderr.write(`creating the volume ${volume} (${flags.size}) on ${count} node(s)\n`);
      const made = { coordinator, size: flags.size, replicas: String(count), durable: true, wait: true };
      await createReplicated(volume, flags.json ? { ...made, json: true } : made);
    }
    const endAt = performance.now() + SERVED_MS;
    for (;;) {
      const view = await lookAt(client);
      const found = view.volumes.find((one) => one.volume === volume);
      if (found !== undefined && found.verdict !== 'unavailable') return found.primary;
      if (performance.now() > endAt) {
        const detail = `it is not served after ${SERVED_MS / 1000} s: ${found?.why ?? 'it is gone'}`;
        throw new HoldfastError('DEADLINE', { operation: 'up', volume, detail });
      }
      await pause(100);
    }
  });
}

function show(
  flags: UpFlags,
  coordinator: string,
  { nodes, events, primary }: { nodes: Child[]; events: Array<Record<string, unknown>>; primary: string },
): void {
  const { volume } = flags;
  const url = `holdfast://${events.map((event) => String(event['listen'])).join(',')}/${volume}`;
  const nbd = events.map((event) => `${String(event['nbd'])}/${volume}`);
  const http = events.map((event) => String(event['http']));
  const pids = Object.fromEntries(nodes.map(({ name, pid }) => [name, pid]));
  if (flags.json) return printJson({ event: 'up', coordinator, volume, url, nbd, http, primary, pids });
  const victim = nodes.find(({ name }) => name === primary) ?? nodes[0]!;
  const cli = MAIN.includes('/node_modules/') ? 'npx holdfast' : 'node dist/src/cli/main.js';
  const lines = [
    '',
    `Volume ${volume}:  ${url}`,
    ...nbd.map(
      (uri, i) => `  NBD ${i === 0 ? '(at whichever node is primary)' : '                              '}  ${uri}`,
    ),
    `Dashboard:  ${http.join('   ')}`,
    `Processes:  ${nodes.map(({ name, pid }) => `${name} ${pid}`).join('   ')}   coordinator at ${coordinator}`,
    '',
    'To try, in a second shell in this folder:',
    `  export HOLDFAST_COORDINATOR=${coordinator}`,
    `  ${cli} status --watch                     is my data safe?`,
    `  ${cli} write ${url} --offset 0 < some-file`,
    `  kill -9 ${victim.pid}     a crash: another node goes on; ${victim.name} comes back after ${RESTART_MS / 1000} s and is brought in sync`,
    '',
    'Ctrl-C stops all of it in good order.',
    '',
  ];
  process.stdout.write(lines.join('\n'));
}

export function addUpCommand(
  program: Command,
  run: (work: () => Promise<void>, json?: boolean) => Promise<void>,
): void {
  program
    .command('up')
    .description('what npm start runs: a cluster on this machine, to try it out')
    .option('--dir <dir>', 'where all of it lies', './holdfast-data')
    .option('--nodes <count>', 'how many nodes, each with a replica', '2')
    .option('--volume <name>', 'made if it is not there', 'demo')
    .option('--size <size>', 'of the volume, if it is made', '1GiB')
    .option('--base-port <port>', 'the coordinator; clients + 1.., nodes + 41.., HTTP + 81.., NBD + 3409..', '7400')
    .option('--log-level <level>', 'of all processes; each appends to a NAME.log in the folder', 'warn')
    .option('--json', 'print events as JSON, one a line')
    .action((flags: UpFlags) => run(() => up(flags), flags.json));
}
