/**
 * `npm run show:cluster`: what `npm start` starts survives kill -9. A gateway (`holdfast nbd`) stands before it; fio
 * writes and verifies checksums through it without a pause between its runs, a client of our own writes 4 KiB after 4
 * KiB beside it. Each round the primary is killed, started again by `up` after 3 s, and brought in sync; then the backup.
 *
 * Shown is: no client meets an error, fio finds what it wrote, our client finds what was acknowledged, and the images
 * are equal, byte for byte, after all was stopped in good order. Measured are the longest pause of each kill and its
 * parts: until the other node seeks promotion, until its epoch is open, until the first write is answered.
 */
import { spawn, spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { Command } from 'commander';
import { connect } from '../../src/client/index.ts';
import { GatewayProcess, holdfast } from '../support/server-process.ts';
import { Ledger } from './ledger.ts';
import { type Cell, type Pair, inSyncPair, logLines, note, scratch, show, until } from './support.ts';

const ROOT = fileURLToPath(new URL('../../..', import.meta.url));
const MiB = 1024 * 1024;
const VOLUME = 'demo';
const FIO_MIB = 48;
const LEDGER_AT = 192 * MiB;
/** More than it writes between two checks. */
const LEDGER_BLOCKS = 12_288;
const SIZE = '256MiB';

interface Event {
  event: string;
  [field: string]: unknown;
}

const isFree = (port: number): Promise<boolean> =>
  new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => resolve(false));
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)));
  });

/** All ports that `up` counts from it are free. */
async function basePort(): Promise<number> {
  for (let base = 20_000 + (process.pid % 8000); ; base = 20_000 + ((base - 20_000 + 97) % 8000)) {
    const free = await Promise.all([0, 1, 2, 41, 42, 81, 82, 3409, 3410].map((offset) => isFree(base + offset)));
    if (!free.includes(false)) return base;
  }
}

/** `npm start`, with its events. */
class Started {
  readonly events: Event[] = [];
  readonly exited: Promise<number | null>;
  readonly pids: Map<string, number> = new Map();
  private readonly child: ReturnType<typeof spawn>;
  private printed = '';

  constructor(args: string[]) {
    // The build was made before this script; npm start would make it anew under its feet.
    this.child = spawn('npm', ['start', '--silent', '--ignore-scripts', '--', ...args], {
      cwd: ROOT,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    this.child.stderr!.on('data', (chunk: Buffer) => (this.printed += chunk.toString()));
    createInterface({ input: this.child.stdout! }).on('line', (line) => {
      if (!line.startsWith('{')) return;
      const event = JSON.parse(line) as Event;
      this.events.push(event);
      if (event.event === 'restarted') this.pids.set(String(event['name']), Number(event['pid']));
    });
    this.exited = new Promise((resolve) => this.child.once('close', (code) => resolve(code)));
    process.once('exit', () => this.interrupt());
  }

  async up(): Promise<Event> {
    let code: number | null | undefined;
    void this.exited.then((ended) => (code = ended));
    const event = await until(() => {
      if (code !== undefined) throw new Error(`npm start ended with ${code}: ${this.printed}`);
      return this.events.find((one) => one.event === 'up');
    }, 'npm start to say that the cluster is up');
    for (const [name, pid] of Object.entries(event['pids'] as Record<string, number>)) this.pids.set(name, pid);
    return event;
  }

  /** As Ctrl-C does: to `up` itself, which is the parent of its nodes. */
  interrupt(): void {
    const [node] = this.pids.values();
    try {
      if (node === undefined) this.child.kill('SIGINT');
      else
        process.kill(
          Number(/ (\d+) /.exec(readFileSync(`/proc/${node}/stat`, 'utf8').replace(/.*\) \w/, ''))![1]),
          'SIGINT',
        );
    } catch {
      // It is gone.
    }
  }
}

/** fio, one run after another, each of which writes, reads and verifies; until told to stop. */
class Fio {
  runs = 0;
  written = 0;
  readonly errors: string[] = [];
  private stopped = false;
  private readonly done: Promise<void>;

  constructor(uri: string) {
    this.done = this.loop(uri);
  }

  private async loop(uri: string): Promise<void> {
    while (!this.stopped && this.errors.length === 0) {
      const args = ['--name=show', '--ioengine=nbd', `--uri=${uri}`, '--rw=randrw', '--bs=4k', '--iodepth=8'];
      args.push(`--size=${FIO_MIB}m`, '--verify=crc32c', '--do_verify=1', '--verify_fatal=1', '--verify_state_save=0');
      args.push(`--randseed=${this.runs + 1}`, '--output-format=json');
      const child = spawn('fio', args, { stdio: ['ignore', 'pipe', 'pipe'] });
      let [out, said] = ['', ''];
      child.stdout.on('data', (chunk: Buffer) => (out += chunk.toString()));
      child.stderr.on('data', (chunk: Buffer) => (said = (said + chunk.toString()).slice(-2000)));
      const code = await new Promise<number | null>((resolve) => child.once('close', resolve));
      const report = /^\{[\s\S]*^\}/m.exec(out);
      const job =
        report && (JSON.parse(report[0]) as { jobs: Array<{ error: number; write: { total_ios: number } }> }).jobs[0];
      if (code !== 0 || job?.error !== 0) this.errors.push(`fio ended with ${code}: ${said}${out.slice(0, 500)}`);
      this.runs++;
      this.written += job?.write.total_ios ?? 0;
    }
  }

  async stop(): Promise<void> {
    this.stopped = true;
    await this.done;
  }
}

interface Kill {
  round: number;
  victim: string;
  role: 'primary' | 'backup';
  /** Longest time between two answers to our client, from the kill to the next one. */
  longestPauseMs: number;
  failoverMs: number | null;
  promotionMs: number | null;
  reconciliationMs: number | null;
  /** The longest pause after the node was started again, while it was brought in. */
  pauseWhileBroughtInMs: number;
  reintegrationMs: number | null;
  inSyncAfterMs: number | null;
}

interface Options {
  rounds: string;
  json?: boolean;
}

async function main({ rounds, json }: Options): Promise<void> {
  const { dir, environment } = scratch();
  const failures: string[] = [];
  const tried = spawnSync('fio', ['--enghelp=nbd'], { encoding: 'utf8' });
  if (tried.status !== 0) throw new Error('fio with its nbd engine is not installed');
  const base = await basePort();
  const data = join(dir, 'data');
  const started = new Started(
    ['--dir', data, '--size', SIZE, '--base-port', String(base), '--json'].concat('--log-level', 'info'),
  );
  const { url } = (await started.up()) as unknown as { url: string };
  const addresses = url.slice('holdfast://'.length).split('/')[0]!.split(',');
  const settled = (): Promise<Pair> => until(() => inSyncPair(addresses, VOLUME), 'both nodes to be in sync');
  const log = (): ReturnType<typeof logLines> =>
    [...started.pids.keys()].flatMap((name) => logLines(readFileSync(join(data, `${name}.log`), 'utf8')));
  await settled();
  const gateway = await GatewayProcess.start(url);
  const fio = new Fio(gateway.uri);
  const ledger = await Ledger.start(url, 1, { baseBytes: LEDGER_AT, blocksEach: LEDGER_BLOCKS });
  const kills: Kill[] = [];
  try {
    for (let round = 1; round <= Number(rounds); round++) {
      for (const role of ['primary', 'backup'] as const) {
        const pair = await settled();
        const [victim, other] = [pair[role], role === 'primary' ? pair.backup : pair.primary];
        await ledger.more(200);
        const killedMs = Date.now();
        process.kill(started.pids.get(victim)!, 'SIGKILL');
        const again = started.pids.get(victim);
        await until(() => (started.pids.get(victim) === again ? undefined : true), `${victim} to be started again`);
        const startedMs = Date.now();
        const after = await settled();
        const lines = log().filter(({ time }) => time >= killedMs);
        const moment = (msg: string, node: string): number | null =>
          lines.find((line) => line.msg === msg && line.node === node)?.time ?? null;
        failures.push(...(await checked(url, ledger)).map((text) => `round ${round}, ${role}: ${text}`));
        const gap = ledger.longestGap(killedMs, startedMs);
        const later = ledger.longestGap(startedMs);
        const seeking = role === 'primary' ? moment('seeking promotion', other) : null;
        const open = role === 'primary' ? moment('the epoch is open', other) : null;
        const begun = moment('reintegration begins', other);
        const ended = moment('a replica is in sync again', other);
        if (role === 'primary' && after.primary !== other) failures.push(`round ${round}: ${other} is not primary`);
        const kill: Kill = {
          round,
          victim,
          role,
          longestPauseMs: gap.toMs - gap.fromMs,
          failoverMs: seeking && seeking - killedMs,
          promotionMs: seeking && open && open - seeking,
          reconciliationMs: open && gap.toMs - open,
          pauseWhileBroughtInMs: later.toMs - later.fromMs,
          reintegrationMs: begun && ended && ended - begun,
          inSyncAfterMs: ended && ended - killedMs,
        };
        kills.push(kill);
        note(`round ${round}: ${victim} (${role}) killed: longest pause ${kill.longestPauseMs} ms`);
        if (fio.errors.length > 0) break;
      }
    }
  } catch (error) {
    failures.push((error as Error).message);
  }
  await fio.stop();
  await ledger.stop();
  failures.push(...fio.errors, ...ledger.errors);
  failures.push(...(await checked(url, ledger)));
  await ledger.close();
  const { code } = await gateway.kill('SIGTERM');
  if (code !== 0) failures.push(`the gateway ended with ${code}`);
  const names = [...started.pids.keys()];
  started.interrupt();
  if ((await started.exited) !== 0) failures.push('npm start did not end with 0');
  failures.push(...(await compare(data, names)));
  const head = ['round', 'killed', 'longest pause ms', 'failover', 'promotion', 'reconciliation'];
  head.push('pause while brought in', 'reintegration ms', 'in sync after ms');
  const rows = kills.map((k): Cell[] => [
    k.round,
    `${k.victim}, ${k.role}`,
    k.longestPauseMs,
    k.failoverMs,
    k.promotionMs,
    k.reconciliationMs,
    k.pauseWhileBroughtInMs,
    k.reintegrationMs,
    k.inSyncAfterMs,
  ]);
  const longest = (role: string): number =>
    Math.max(...kills.filter((k) => k.role === role).map((k) => k.longestPauseMs));
  const notes = [
    'failover: from the kill to "seeking promotion"; promotion: to "the epoch is open"; reconciliation: to the first answer',
    `${kills.length} kills; fio: ${fio.runs} runs, ${fio.written} writes verified; our client: ${ledger.acknowledged} writes acknowledged`,
    `longest pause: ${longest('primary')} ms when the primary was killed, ${longest('backup')} ms when the backup was`,
  ];
  const figures = { kills, fioRuns: fio.runs, fioWrites: fio.written, acknowledged: ledger.acknowledged };
  show(
    { title: 'npm start, kill -9 in turns, fio through a gateway', environment, head, rows, failures, notes, figures },
    json ?? false,
  );
}

/** @returns what our client does not find as it was told */
async function checked(url: string, ledger: Ledger): Promise<string[]> {
  const reader = await connect(url);
  try {
    return await ledger.check(reader);
  } finally {
    await reader.close();
  }
}

/** @returns what is wrong with the images of the stopped nodes */
async function compare(data: string, names: string[]): Promise<string[]> {
  const files: string[] = [];
  for (const name of names) {
    const folder = join(data, name, 'volumes', VOLUME);
    const { code, stderr } = await holdfast(['volume', 'check', folder, '--flatten']);
    if (code !== 0) return [`volume check of ${name} ended with ${code}: ${stderr}`];
    files.push(join(folder, 'data'));
  }
  const { status, stdout } = spawnSync('cmp', files, { encoding: 'utf8' });
  return status === 0 ? [] : [`the images differ: ${stdout}`];
}

const command = new Command('show:cluster')
  .description('npm start under kill -9: no error, nothing lost, replicas equal; how long each pause is')
  .option('--rounds <n>', 'in each the primary is killed, then the backup', '3')
  .option('--json', 'print the result as one line of JSON')
  .parse();
await main(command.opts<Options>());
