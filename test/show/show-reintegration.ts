/**
 * `npm run show:reintegration`: a backup that was killed and missed writes is brought in, once while nobody else wants
 * the volume, once under full load.
 *
 * Shown is: it ends, and the target is sent at most the blocks that were dirty when it began, and one more for each write
 * of a client meanwhile. Measured are its rate beside dd's, which writes as many bytes in the same run, and the latency of the
 * clients beside what it was before.
 */
import { spawnSync } from 'node:child_process';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { Command } from 'commander';
import { Histogram } from '../../bench/load/histogram.ts';
import { median } from '../../bench/replicated/measure.ts';
import { Random } from '../../bench/load/workload.ts';
import { parseSize } from '../../src/base/units.ts';
import { type Volume, connect } from '../../src/client/index.ts';
import { TestCluster } from '../support/cluster.ts';
import { type Cell, type LogLine, logLines, note, pause, scratch, show, until } from './support.ts';

const BLOCK = 4096;
const KiB = 1024;
const MiB = 1024 * KiB;
const VOLUME = 'v';
const CHUNK = 256 * KiB;
const STREAMS = 8;

/** Durable random writes of 4 KiB by so many clients, without a pause. */
class Load {
  /** Latencies since it was asked for the last time. */
  private latency = new Histogram();
  /** Blocks that were asked to be written since `mark`. */
  private blocks: Set<number> = new Set();
  private stopped = false;
  private readonly lanes: Array<Promise<void>>;

  constructor(clients: readonly Volume[], spanBytes: number) {
    this.lanes = clients.map((volume, i) => this.run(volume, new Random(i + 1), spanBytes / BLOCK));
  }

  private async run(volume: Volume, random: Random, blocks: number): Promise<void> {
    const bytes = new Uint8Array(BLOCK);
    random.fill(bytes);
    while (!this.stopped) {
      const block = random.below(blocks);
      this.blocks.add(block);
      const begunMs = performance.now();
      await volume.write(block * BLOCK, bytes);
      this.latency.record((performance.now() - begunMs) * 1e6);
    }
  }

  mark(): void {
    this.latency = new Histogram();
    this.blocks = new Set();
  }

  since(): { p50Ms: number; p99Ms: number; maxMs: number; count: number; blocks: number } {
    const { p50Us, p99Us, maxUs, count } = this.latency.summary();
    return { p50Ms: p50Us / 1000, p99Ms: p99Us / 1000, maxMs: maxUs / 1000, count, blocks: this.blocks.size };
  }

  async stop(): Promise<void> {
    this.stopped = true;
    await Promise.all(this.lanes);
  }
}

/** Writes a stretch of the volume in order. */
async function fill(volume: Volume, fromBytes: number, toBytes: number, seed: number): Promise<void> {
  const bytes = new Uint8Array(CHUNK);
  new Random(seed).fill(bytes);
  let at = fromBytes;
  const stream = async (): Promise<void> => {
    while (at < toBytes) {
      const mine = at;
      at += CHUNK;
      await volume.write(mine, bytes);
    }
  };
  await Promise.all(Array.from({ length: STREAMS }, stream));
}

interface Brought {
  dirtyBlocks: number;
  copiedBlocks: number;
  ms: number;
}

/** Starts the backup again. @returns what it took, as both nodes logged it */
async function bringIn(cluster: TestCluster, backup: string, begun: () => void): Promise<Brought> {
  const startedMs = Date.now();
  const line = (msg: string): Promise<LogLine> =>
    until(() => logLines(cluster.log()).find((one) => one.msg === msg && one.time >= startedMs), `"${msg}"`);
  await cluster.restart(backup);
  const first = await line('reintegration begins');
  begun();
  const last = await line('a replica is in sync again');
  const told = await line('everything is here');
  return {
    dirtyBlocks: Number(first['dirtyBlocks']),
    copiedBlocks: Number(told['copiedBlocks']),
    ms: last.time - first.time,
  };
}

/** @returns MiB per second */
function dd(dir: string, bytes: number): number {
  const file = join(dir, 'zeros');
  // What others have written is not to be waited for.
  spawnSync('sync', ['-f', dir]);
  const args = ['if=/dev/zero', `of=${file}`, 'bs=256K', `count=${bytes / CHUNK}`, 'conv=fdatasync'];
  const fromMs = performance.now();
  const { status, stderr } = spawnSync('dd', args, { encoding: 'utf8' });
  if (status !== 0) throw new Error(`dd: ${stderr}`);
  const seconds = (performance.now() - fromMs) / 1000;
  rmSync(file);
  return bytes / MiB / seconds;
}

const shortOf = ({ p50Ms, p99Ms }: { p50Ms: number; p99Ms: number }): string[] => [p50Ms.toFixed(1), p99Ms.toFixed(1)];

interface Options {
  size: string;
  missed: string;
  clients: string;
  seconds: string;
  json?: boolean;
}

async function main(options: Options): Promise<void> {
  const { dir, environment } = scratch();
  const sizeBytes = parseSize(options.size);
  const missedBytes = parseSize(options.missed);
  const failures: string[] = [];
  const rows: Cell[][] = [];
  const figures: Record<string, unknown> = {};
  const cluster = await TestCluster.start(['a', 'b']);
  try {
    await cluster.create(VOLUME, options.size, 2);
    await cluster.untilSafe();
    const volume = await connect(cluster.url(VOLUME));
    await fill(volume, 0, sizeBytes, 1);
    const pair = async (): Promise<string> => ((await cluster.primary(VOLUME)) === 'a' ? 'b' : 'a');
    const away = async (): Promise<string> => {
      await cluster.untilSafe();
      const backup = await pair();
      await cluster.kill(backup);
      await fill(volume, 0, missedBytes, 2);
      return backup;
    };

    // While nobody else wants the volume; dd before and after it, since the disk's rate is not the same all the time.
    let backup = await away();
    const rates = [dd(dir, missedBytes)];
    const idle = await bringIn(cluster, backup, () => {});
    rates.push(dd(dir, missedBytes), dd(dir, missedBytes));
    const rate = (idle.copiedBlocks * BLOCK) / MiB / (idle.ms / 1000);
    const ddRate = median(rates);
    if (idle.copiedBlocks > idle.dirtyBlocks)
      failures.push(`idle: ${idle.copiedBlocks} blocks were copied, ${idle.dirtyBlocks} were dirty`);
    rows.push(['idle', idle.dirtyBlocks, idle.copiedBlocks, 0, idle.ms, rate.toFixed(0), null, null, null]);
    note(`idle: ${rate.toFixed(0)} MiB/s, dd ${rates.map((one) => one.toFixed(0)).join(', ')} MiB/s`);

    // Under full load.
    await cluster.untilSafe();
    const clients = await Promise.all(
      Array.from({ length: Number(options.clients) }, () => connect(cluster.url(VOLUME))),
    );
    const load = new Load(clients, sizeBytes);
    await pause(1000);
    load.mark();
    await pause(Number(options.seconds) * 1000);
    const usual = load.since();
    backup = await away();
    load.mark();
    const busy = await bringIn(cluster, backup, () => load.mark());
    const meanwhile = load.since();
    await load.stop();
    // Each write may make one block dirty again that was copied before; writes under way when it began count too.
    const most = busy.dirtyBlocks + meanwhile.count + clients.length;
    if (busy.copiedBlocks > most)
      failures.push(
        `under load: ${busy.copiedBlocks} blocks were copied, ${most} were dirty or written again meanwhile`,
      );
    const busyRate = (busy.copiedBlocks * BLOCK) / MiB / (busy.ms / 1000);
    rows.push(['usual load, two nodes', null, null, null, null, null, usual.count, ...shortOf(usual)]);
    const counts = [busy.dirtyBlocks, busy.copiedBlocks, meanwhile.blocks, busy.ms, busyRate.toFixed(0)];
    rows.push(['reintegration under load', ...counts, meanwhile.count, ...shortOf(meanwhile)]);
    const p99Ratio = meanwhile.p99Ms / usual.p99Ms;
    Object.assign(figures, { idle, ddMibPerSecond: rates, idleMibPerSecond: rate, ofDd: rate / ddRate });
    Object.assign(figures, { busy, usual, meanwhile, p99Ratio });
    figures['copiedOfDirty'] = busy.copiedBlocks / busy.dirtyBlocks;
    await Promise.all([volume, ...clients].map((client) => client.close()));
    await cluster.untilSafe();
    await cluster.stopNodes();
    await cluster.compare(VOLUME, ['a', 'b']);
  } catch (error) {
    failures.push((error as Error).message);
    note(cluster.log().split('\n').slice(-40).join('\n'));
  } finally {
    await cluster.stop();
  }
  const { ofDd, ddMibPerSecond, p99Ratio, copiedOfDirty } = figures as {
    ofDd?: number;
    ddMibPerSecond?: number[];
    p99Ratio?: number;
    copiedOfDirty?: number;
  };
  const head = [
    '',
    'dirty blocks',
    'copied (target)',
    'written meanwhile',
    'ms',
    'MiB/s',
    'writes',
    'p50 ms',
    'p99 ms',
  ];
  const notes =
    ofDd === undefined || ddMibPerSecond === undefined || p99Ratio === undefined
      ? []
      : [
          `dd with fdatasync of as many bytes: ${ddMibPerSecond.map((one) => one.toFixed(0)).join(', ')} MiB/s, once before, twice after`,
          `idle: ${ofDd.toFixed(2)} of dd's median (asked: at least 0.35): ${ofDd >= 0.35 ? 'reached' : 'NOT REACHED'}`,
          `under load: ${copiedOfDirty!.toFixed(2)} times the blocks that were dirty when it began were copied`,
          `under load: p99 is ${p99Ratio.toFixed(2)} times the usual (asked: at most 3): ${p99Ratio <= 3 ? 'reached' : 'NOT REACHED'}`,
        ];
  show({ title: 'a backup is brought in', environment, head, rows, failures, notes, figures }, options.json ?? false);
}

const command = new Command('show:reintegration')
  .description(
    'a backup that missed writes is brought in, idle and under load: what is copied, how fast, at what price',
  )
  .option('--size <size>', 'of the volume', '512MiB')
  .option('--missed <size>', 'what the backup misses', '256MiB')
  .option('--clients <n>', 'of the load, each with one write in flight', '16')
  .option('--seconds <n>', 'how long the usual latency is measured', '5')
  .option('--json', 'print the result as one line of JSON')
  .parse();
await main(command.opts<Options>());
