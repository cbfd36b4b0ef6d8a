/**
 * A cluster of an older build is upgraded to this one while clients write, a process at a time, and brought back.
 *
 *     npm run test:upgrade -- --from COMMIT [--keep]
 *
 * The older build is made from this repository in a temporary folder. Every step ends with all replicas in sync, and with every
 * byte that was acknowledged read from all of them and compared. Going back may be refused, if the older build says why.
 * Not part of `npm test`: the build alone takes its time.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { createWriteStream, existsSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { pause, withCoordinator } from '../src/cli/cluster.ts';
import { lookAt } from '../src/cli/cluster-status.ts';
import { connect } from '../src/client/index.ts';
import { freePorts } from './support/free-ports.ts';

type Connect = typeof connect;
type Volume = Awaited<ReturnType<Connect>>;

const ROOT = fileURLToPath(new URL('../../', import.meta.url));
const NEW = join(ROOT, 'dist/src/cli/main.js');
const VOLUME = 'disk';
const BLOCK = 4096;
const SLOTS = 512;
const PATIENCE_MS = 60_000;
/** Written by each client between two steps, at least. */
const WRITES_BETWEEN = 200;

const { values: flags } = parseArgs({
  options: { from: { type: 'string' }, keep: { type: 'boolean', default: false } },
});
if (flags.from === undefined) {
  console.log('npm run test:upgrade -- --from COMMIT     the build to come from, such as HEAD~50');
  process.exit(2);
}

const dir = mkdtempSync(join(process.env['HOLDFAST_TEST_DIR'] ?? tmpdir(), 'holdfast-upgrade-'));
if (!flags.keep) process.once('exit', () => rmSync(dir, { recursive: true, force: true }));

function must(cwd: string, command: string): string {
  const { status, stdout, stderr } = spawnSync('sh', ['-c', command], { cwd, encoding: 'utf8', maxBuffer: 1 << 26 });
  if (status !== 0) throw new Error(`${command}: ${stderr}${stdout}`);
  return stdout.trim();
}

/** @returns main.js of that commit's build */
function build(commit: string): string {
  const folder = join(dir, 'old');
  const id = must(ROOT, `git rev-parse --verify --quiet ${JSON.stringify(`${commit}^{commit}`)}`);
  console.log(`building ${must(ROOT, `git log -1 --format='%h of %cd, %s' ${id}`)}`);
  must(ROOT, `mkdir -p '${folder}' && git archive ${id} | tar -x -C '${folder}'`);
  symlinkSync(join(ROOT, 'node_modules'), join(folder, 'node_modules'));
  // What a later package calls differently is of no interest: it is the emitted code that counts.
  spawnSync('npx', ['tsc', '-p', '.'], { cwd: folder, stdio: 'ignore' });
  const main = join(folder, 'dist/src/cli/main.js');
  if (!existsSync(main)) throw new Error(`${commit} was not built`);
  return main;
}

// --- processes ----------------------------------------------------------------------------------------------------------

class Process {
  readonly name: string;
  private readonly args: string[];
  private child: ChildProcess | null = null;
  private exited: Promise<number | null> = Promise.resolve(null);
  private printed = '';

  constructor(name: string, args: string[]) {
    this.name = name;
    this.args = args;
  }

  get pid(): number | undefined {
    return this.child?.pid;
  }

  /** @throws what it printed, if it ends before it listens */
  async start(main: string): Promise<void> {
    const child = spawn(process.execPath, [main, ...this.args, '--json'], { stdio: ['ignore', 'pipe', 'pipe'] });
    const killChild = (): void => void child.kill('SIGKILL');
    process.once('exit', killChild);
    this.child = child;
    this.printed = '';
    child.stderr.pipe(createWriteStream(join(dir, `${this.name}.log`), { flags: 'a' }));
    child.stderr.on('data', (chunk: Buffer) => (this.printed = (this.printed + chunk.toString()).slice(-4000)));
    this.exited = new Promise((over) =>
      child.once('exit', (code) => {
        process.off('exit', killChild);
        this.child = null;
        over(code);
      }),
    );
    await new Promise<void>((listening, failed) => {
      createInterface({ input: child.stdout }).on('line', (line) => {
        this.printed = (this.printed + line).slice(-4000);
        if ((JSON.parse(line) as { event?: string }).event === 'listening') listening();
      });
      void this.exited.then(() => failed(new Error(this.printed.trim())));
    });
  }

  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    this.child?.kill(signal);
    await this.exited;
  }
}

// --- clients ------------------------------------------------------------------------------------------------------------

/** Writes numbers into slots of its own, one after another, and remembers what was acknowledged. */
class Writer {
  readonly acknowledged: Map<number, number> = new Map();
  readonly name: string;
  private readonly volume: Volume;
  private readonly firstSlot: number;
  private next = 1;
  private over = false;
  private readonly ended: Promise<void>;

  constructor(name: string, volume: Volume, firstSlot: number) {
    this.name = name;
    this.volume = volume;
    this.firstSlot = firstSlot;
    this.ended = this.run();
    this.ended.catch(() => {});
  }

  get written(): number {
    return this.next;
  }

  private async run(): Promise<void> {
    for (; !this.over; this.next++) {
      const slot = this.firstSlot + (this.next % SLOTS);
      await this.volume.write(slot * BLOCK, blockOf(slot, this.next));
      this.acknowledged.set(slot, this.next);
    }
  }

  /** @throws what stopped it */
  async progress(): Promise<void> {
    const enough = this.next + WRITES_BETWEEN;
    while (this.next < enough) await Promise.race([pause(20), this.ended]);
  }

  async stop(): Promise<void> {
    this.over = true;
    await this.ended;
    await this.volume.close();
  }
}

function blockOf(slot: number, n: number): Buffer {
  const block = Buffer.alloc(BLOCK, n % 251);
  block.writeUInt32LE(slot, 0);
  block.writeUInt32LE(n, 4);
  return block;
}

/** Every acknowledged block, from all replicas in sync, compared by the client too. */
async function verify(url: string, writers: readonly Writer[]): Promise<number> {
  const volume = await connect(url, { reads: 'all' });
  let count = 0;
  for (const { name, acknowledged } of writers) {
    for (const [slot, n] of new Map(acknowledged)) {
      const bytes = await volume.read(slot * BLOCK, BLOCK);
      const found = Buffer.from(bytes).readUInt32LE(4);
      // Written again since.
      if (found < n || !blockOf(slot, found).equals(bytes))
        throw new Error(`${name}: slot ${slot}: ${n} became ${found}`);
      count++;
    }
  }
  await volume.close();
  return count;
}

// --- the course ---------------------------------------------------------------------------------------------------------

const OLD = build(flags.from);
const { connect: oldConnect } = (await import(join(dir, 'old/dist/src/client/index.js'))) as { connect: Connect };
const [p0, p1, p2, p3, p4] = (await freePorts(5)) as [number, number, number, number, number];
const coordinatorUrl = `holdfast://127.0.0.1:${p0}`;
const at = (port: number): string => `127.0.0.1:${port}`;
const coordinator = new Process('coordinator', ['coordinator', '--dir', join(dir, 'coordinator'), '--listen', at(p0)]);
const nodeArgs = (name: string, client: number, peer: number): string[] =>
  ['node', '--name', name, '--dir', join(dir, name), '--coordinator', coordinatorUrl].concat(
    '--listen',
    at(client),
    '--peer-listen',
    at(peer),
  );
const nodes = [new Process('a', nodeArgs('a', p1, p2)), new Process('b', nodeArgs('b', p3, p4))];
const url = `holdfast://${at(p1)},${at(p3)}/${VOLUME}`;

async function untilSafe(): Promise<void> {
  const endMs = performance.now() + PATIENCE_MS;
  for (;;) {
    const view = await withCoordinator({ coordinator: coordinatorUrl }, lookAt).catch(() => null);
    if (view?.verdict === 'safe' && view.volumes.length > 0) return;
    if (performance.now() > endMs) throw new Error(`not in sync after ${PATIENCE_MS / 1000} s: ${view?.answer}`);
    await pause(100);
  }
}

async function primary(): Promise<string> {
  return (await withCoordinator({ coordinator: coordinatorUrl }, lookAt)).volumes[0]!.primary;
}

// Told to stop: the processes are ended, and the folder goes, at the exit.
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(1));

let writers: Writer[] = [];

async function step(what: string, work: () => Promise<void>): Promise<void> {
  await work();
  for (const writer of writers) await writer.progress();
  await untilSafe();
  const count = await verify(url, writers);
  console.log(
    `good  ${what}: ${count} blocks verified on all replicas, ${writers.map(({ written }) => written).join(' + ')} writes`,
  );
}

async function replace(one: Process, main: string): Promise<void> {
  await one.stop();
  await one.start(main);
}

/** Builds whose ranges of versions do not meet: nothing may have been lost, and somebody must be told. */
async function upgraded(one: Process): Promise<boolean> {
  await replace(one, NEW);
  try {
    await untilSafe();
    return true;
  } catch (error) {
    if (!/no common protocol version/.test(String(error))) throw error;
    console.log(`refused  ${one.name} does not work with the older one: ${String(error).slice(0, 600)}`);
    await replace(one, OLD);
    return false;
  }
}

/** @returns whether the older build takes it; a refusal that says why is an answer too. @throws any other failure */
async function goesBack(one: Process): Promise<boolean> {
  await one.stop();
  try {
    await one.start(OLD);
    await untilSafe();
    return true;
  } catch (error) {
    const said = String(error);
    const why = /WRONG_VERSION|no common protocol version|format/.exec(said);
    await one.stop();
    await one.start(NEW);
    if (why === null) throw error;
    console.log(`refused  ${one.name} does not go back: ${said.slice(0, 300)}`);
    return false;
  }
}

/** @returns what came out of it */
async function course(): Promise<string> {
  await coordinator.start(OLD);
  for (const node of nodes) await node.start(OLD);
  must(
    dir,
    `${process.execPath} ${OLD} volume create ${VOLUME} --size 64MiB --replicas 2 --coordinator ${coordinatorUrl}`,
  );
  await untilSafe();
  writers = [
    new Writer('client of this build', await connect(url), 0),
    new Writer('older client', await oldConnect(url), SLOTS),
  ];
  const [a, b] = nodes as [Process, Process];
  await step('all of the older build', async () => {});
  let meets = true;
  await step('a upgraded, or refused', async () => void (meets = await upgraded(a)));
  if (!meets) return 'the two builds do not work together; that was told, and nothing was lost';
  await step('mixed: the primary killed', async () => {
    const victim = (await primary()) === 'a' ? a : b;
    await victim.stop('SIGKILL');
    for (const writer of writers) await writer.progress();
    await victim.start(victim === a ? NEW : OLD);
  });
  await step('mixed: the primary hands over', async () => {
    const victim = (await primary()) === 'a' ? a : b;
    await replace(victim, victim === a ? NEW : OLD);
  });
  await step('b upgraded', () => replace(b, NEW));
  await step('the coordinator upgraded', () => replace(coordinator, NEW));
  let back = true;
  for (const node of nodes) {
    if (!back) break;
    await step(`${node.name} goes back, or says why not`, async () => void (back = await goesBack(node)));
  }
  if (back) await step('the coordinator goes back', () => replace(coordinator, OLD));
  for (const writer of writers) await writer.stop();
  await step(
    'at the end',
    async () => void (writers = writers.map((one) => Object.assign(one, { progress: async () => {} }))),
  );
  return 'good';
}

try {
  console.log(`upgrade: ${await course()}`);
} catch (error) {
  console.log(`upgrade: FAILED: ${String(error)}`);
  for (const { name } of [coordinator, ...nodes]) {
    console.log(`---- ${name}\n${must(dir, `tail -n 20 ${name}.log 2>/dev/null || true`)}`);
  }
  process.exitCode = 1;
} finally {
  for (const one of [...nodes, coordinator]) await one.stop();
}
// Clients of a failed course still try.
process.exit();
