/**
 * `npm run show:isolated`: the primary is cut off from the other node and the coordinator, though not from its clients;
 * then, in a cluster of its own, it is stopped (SIGSTOP) and woken up.
 *
 * Shown is: once it was removed (the other's log: "the epoch is open") the old primary acknowledges nothing. Clients that
 * are pinned to it by NBD, and clients that find the primary by themselves, keep one history of each block, which must
 * be linearizable; at the end the images are equal.
 */
import { Command } from 'commander';
import { type Volume, connect } from '../../src/client/index.ts';
import { type BlockOp, violation } from '../simulation/linearizable.ts';
import { TestCluster } from '../support/cluster.ts';
import { stopProcess } from '../support/stop-process.ts';
import { PinnedClient } from './pinned.ts';
import { type Cell, type LogLine, logLines, note, pause, scratch, show, until } from './support.ts';

const BLOCK = 4096;
const BLOCKS = 16;
const VOLUME = 'v';
const FREE = 4;
const PINNED = 3;
/** One of so many operations is a read. */
const READ_EVERY = 3;
const THINK_MS = 2;

interface Device {
  read(offset: number, length: number): Promise<Uint8Array>;
  write(offset: number, bytes: Uint8Array): Promise<unknown>;
}

/** Of the wall clock, as the logs. */
interface Acknowledged {
  calledMs: number;
  answeredMs: number;
}

/** What all clients called and were answered, block by block. */
class History {
  readonly ops: BlockOp[][] = Array.from({ length: BLOCKS }, () => []);
  answered = 0;
  private value = 0;
  private stopped = false;
  private readonly tasks: Array<Promise<void>> = [];

  /** @returns its acknowledged writes, as they come */
  add(device: Device, who: string): Acknowledged[] {
    const acknowledged: Acknowledged[] = [];
    this.tasks.push(this.run(device, who, acknowledged));
    return acknowledged;
  }

  private async run(device: Device, who: string, acknowledged: Acknowledged[]): Promise<void> {
    for (let i = who.length * 5; !this.stopped; i++) {
      const block = (i * 7) % BLOCKS;
      const kind = i % READ_EVERY === 0 ? 'read' : 'write';
      const value = kind === 'write' ? ++this.value : -1;
      const op: BlockOp = { kind, value, calledMs: performance.now(), answeredMs: Infinity, who };
      this.ops[block]!.push(op);
      const calledMs = Date.now();
      try {
        if (kind === 'write') await device.write(block * BLOCK, bytesOf(value));
        else op.value = valueOf(await device.read(block * BLOCK, BLOCK));
      } catch {
        return;
      }
      op.answeredMs = performance.now();
      if (kind === 'write') acknowledged.push({ calledMs, answeredMs: Date.now() });
      this.answered++;
      await pause(THINK_MS);
    }
  }

  async more(count: number): Promise<void> {
    const goal = this.answered + count;
    await until(() => (this.answered >= goal ? true : undefined), 'clients to be answered');
  }

  async stop(): Promise<void> {
    this.stopped = true;
    await Promise.all(this.tasks);
  }

  wrong(): string[] {
    return this.ops.flatMap((ops, block) => {
      const found = violation(ops);
      return found === null ? [] : [`block ${block}: ${found}`];
    });
  }
}

function bytesOf(value: number): Uint8Array {
  return new Uint8Array(new Float64Array(BLOCK / 8).fill(value).buffer);
}

/** -2: it is torn, which no write made. */
function valueOf(bytes: Uint8Array): number {
  const words = new Float64Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + BLOCK));
  return words.every((word) => word === words[0]) ? words[0]! : -2;
}

type Way = 'cut off' | 'stopped';

interface Outcome {
  way: Way;
  seconds: number;
  row: Cell[];
  failures: string[];
}

async function isolate(way: Way, seconds: number): Promise<Outcome> {
  const cluster = await TestCluster.start(['a', 'b'], { args: ['--enable-faults'] });
  const failures: string[] = [];
  try {
    await cluster.create(VOLUME, '16MiB', 2);
    await cluster.untilSafe();
    const old = await cluster.primary(VOLUME);
    const other = old === 'a' ? 'b' : 'a';
    const { info, child } = cluster.slot(old).running!;
    const history = new History();
    const free: Volume[] = [];
    for (let i = 0; i < FREE; i++) free.push(await connect(cluster.url(VOLUME)));
    const pinned: PinnedClient[] = [];
    for (let i = 0; i < PINNED; i++) pinned.push(await PinnedClient.open(info.nbd!, VOLUME));
    const freeAcks = free.map((volume, i) => history.add(volume, `free ${i}`));
    const pinnedAcks = pinned.map((client, i) => history.add(client, `pinned ${i}`));
    await history.more(500);
    if (way === 'stopped') await stopProcess(child);
    else await cluster.must('fault', 'partition', '--from', `${other},coordinator`, '--node', old);
    const fromMs = Date.now();
    const logged = (node: string, msg: string): LogLine | undefined =>
      logLines(cluster.log()).find((line) => line.node === node && line.msg === msg && line.time >= fromMs - 1000);
    const opened = await until(() => logged(other, 'the epoch is open'), `${other} to open its epoch`);
    await pause(Math.max(0, fromMs + seconds * 1000 - Date.now()));
    const healedMs = Date.now();
    if (way === 'stopped') child.kill('SIGCONT');
    else await cluster.must('fault', 'heal', '--node', old);
    await cluster.untilSafe();
    await history.more(200);
    const over = logged(old, 'the tenure is over');
    await history.stop();
    const late = pinnedAcks.flat().filter(({ answeredMs }) => answeredMs > opened.time);
    const lateCalls = late.filter(({ calledMs }) => calledMs > opened.time);
    const last = Math.max(...pinnedAcks.flat().map(({ answeredMs }) => answeredMs));
    const meanwhile = freeAcks.flat().filter(({ answeredMs }) => answeredMs > opened.time && answeredMs < healedMs);
    if (late.length > 0) {
      const called = `${lateCalls.length} of them called after it, the others were under way`;
      failures.push(`${way}: ${old} acknowledged ${late.length} writes after its removal: ${called}`);
    }
    if (meanwhile.length === 0) failures.push(`${way}: nobody was served meanwhile`);
    if (over === undefined) failures.push(`${way}: ${old} has not logged that its tenure is over`);
    failures.push(...history.wrong().map((text) => `${way}: ${text}`));
    for (const client of pinned) client.close();
    await Promise.all(free.map((volume) => volume.close()));
    await cluster.stopNodes();
    await cluster.compare(VOLUME, ['a', 'b']);
    const row: Cell[] = [way, seconds, opened.time - fromMs, last - fromMs, late.length, meanwhile.length];
    row.push(over === undefined ? null : over.time - fromMs, history.answered);
    return { way, seconds, row, failures };
  } catch (error) {
    failures.push(`${way}: ${(error as Error).message}`);
    note(cluster.log().split('\n').slice(-60).join('\n'));
    return { way, seconds, row: [way, seconds], failures };
  } finally {
    await cluster.stop();
  }
}

async function main({ seconds, json }: { seconds: string; json?: boolean }): Promise<void> {
  const { environment } = scratch();
  const outcomes = [await isolate('cut off', Number(seconds)), await isolate('stopped', Number(seconds))];
  const head = [
    'the primary is',
    'for s',
    'removed after ms',
    'its last acknowledgment ms',
    'acknowledged by it later',
  ];
  head.push('by the other meanwhile', 'its tenure is over after ms', 'operations in the history');
  const rows = outcomes.map(({ row }) => row);
  const failures = outcomes.flatMap((one) => one.failures);
  const notes = [
    `all times from the cut or the stop; ${PINNED} clients pinned to the old primary by NBD, ${FREE} that find the primary`,
    failures.length === 0 ? `the histories of ${BLOCKS} blocks are linearizable, the images are equal` : '',
  ];
  show(
    { title: 'a primary that is removed', environment, head, rows, failures, notes, figures: { head, rows } },
    json ?? false,
  );
}

const command = new Command('show:isolated')
  .description('a primary that is cut off, or stopped and woken: it acknowledges nothing after its removal')
  .option('--seconds <n>', 'how long it is away', '5')
  .option('--json', 'print the result as one line of JSON')
  .parse();
await main(command.opts<{ seconds: string; json?: boolean }>());
