/**
 * `npm run soak -- --minutes 30`: a disk and a key-value volume with three replicas each under load, with random faults
 * one after the other, all of them healed before the next: kills, orderly stops, pauses, cuts, a coordinator that dies, and
 * bytes that rot on a disk.
 *
 * Shown is: no client meets an error or a wrong version, replicas are compared online after each rot and at the end, images
 * are equal when all was stopped, and neither memory nor descriptors of a node that was never restarted grow. The exit code
 * is 1 if any of it is not so. `--seed` repeats the choice of the faults, not their timing.
 */
import { closeSync, openSync, readSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { Command } from 'commander';
import { admin } from '../../src/client/admin.ts';
import { connect, connectKv } from '../../src/client/index.ts';
import { note, pause } from '../show/support.ts';
import { TestCluster } from '../support/cluster.ts';
import { CoordinatorProcess } from '../support/coordinators.ts';
import { REGISTER_BYTES, SoakLoad, inKeys, offsetOf, onDisk } from './load.ts';
import { type Growth, type Sample, growthOf, sampleOf } from './processes.ts';

const NODES = ['a', 'b', 'c'];
/** It is paused and cut off, never ended: its memory is looked at. */
const LASTING = 'c';
const DISK = 'disk';
const KEYS = 'keys';
const WRITERS = 4;
const REGISTERS = 2000;
const SAMPLE_MS = 5000;
/** Of memory, from the second quarter of the time to the last. */
const MOST_GROWTH = 1.25;
const MOST_MORE_DESCRIPTORS = 8;

type Kind = 'kill' | 'stop' | 'kill two' | 'pause' | 'cut' | 'coordinator' | 'rot';
const KINDS: readonly Kind[] = ['kill', 'stop', 'kill two', 'pause', 'cut', 'coordinator', 'rot', 'kill', 'cut'];

interface Report {
  minutes: number;
  seed: number;
  faults: Record<string, { count: number; longestPauseMs: number }>;
  operations: { disk: number; keys: number };
  longestPauseMs: number;
  repairedBlocks: number;
  lasting: Growth;
  client: Growth;
  wrong: string[];
}

class Soak {
  readonly cluster: TestCluster;
  readonly loads: SoakLoad[] = [];
  readonly faults: Report['faults'] = {};
  readonly samples: { lasting: Sample[]; client: Sample[] } = { lasting: [], client: [] };
  readonly wrong: string[] = [];
  private random: number;

  constructor(cluster: TestCluster, seed: number) {
    this.cluster = cluster;
    this.random = (seed * 7919 + 1) % 2_147_483_647;
  }

  below(limit: number): number {
    this.random = (this.random * 48_271) % 2_147_483_647;
    return this.random % limit;
  }

  private one<T>(list: readonly T[]): T {
    return list[this.below(list.length)]!;
  }

  async fault(): Promise<void> {
    const kind = this.one(KINDS);
    for (const load of this.loads) load.takeLongestMs();
    await this.perform(kind);
    await this.cluster.untilSafe();
    const entry = (this.faults[kind] ??= { count: 0, longestPauseMs: 0 });
    entry.count++;
    const longest = Math.max(...this.loads.map((load) => load.takeLongestMs()));
    entry.longestPauseMs = Math.max(entry.longestPauseMs, Math.round(longest));
  }

  private async perform(kind: Kind): Promise<void> {
    const { cluster } = this;
    const mortal = NODES.filter((name) => name !== LASTING);
    const victim = this.one(mortal);
    switch (kind) {
      case 'kill':
      case 'stop':
        await cluster.kill(victim, kind === 'kill' ? 'SIGKILL' : 'SIGTERM');
        await pause(this.below(3000));
        return cluster.restart(victim);
      case 'kill two':
        for (const name of mortal) await cluster.kill(name);
        await pause(this.below(2000));
        for (const name of mortal) await cluster.restart(name);
        return;
      case 'pause': {
        const { child } = cluster.slot(this.one(NODES)).running!;
        child.kill('SIGSTOP');
        await pause(200 + this.below(3000));
        child.kill('SIGCONT');
        return;
      }
      case 'cut': {
        const node = this.one(NODES);
        const from = this.one([NODES.filter((name) => name !== node), ['coordinator'], [this.one(NODES)]]);
        const others = from.filter((name) => name !== node).join(',') || 'coordinator';
        const way = this.one(['both', 'in', 'out']);
        const { address } = cluster.slot(node);
        await admin(address, { op: 'fault', kind: 'partition', from: others.split(','), way });
        await pause(500 + this.below(3000));
        await admin(address, { op: 'fault', kind: 'heal' });
        return;
      }
      case 'coordinator': {
        const { address } = cluster.coordinator;
        await cluster.coordinator.kill();
        await pause(this.below(3000));
        cluster.coordinator = await CoordinatorProcess.start(join(cluster.dir, 'coordinator'), address);
        return;
      }
      case 'rot':
        this.flip(join(cluster.slot(this.one(NODES)).dir, 'volumes', DISK, 'data'));
        return this.verify();
    }
  }

  /** A bit of a register that was written: what was never written is not looked at. */
  private flip(file: string): void {
    const [disk] = this.loads;
    let register = this.below(REGISTERS);
    while (!disk!.versions.isKnown(register)) register = this.below(REGISTERS);
    const at = offsetOf(register) + this.below(REGISTER_BYTES);
    const fd = openSync(file, 'r+');
    const byte = Buffer.alloc(1);
    readSync(fd, byte, 0, 1, at);
    byte[0]! ^= 1 << this.below(8);
    writeSync(fd, byte, 0, 1, at);
    closeSync(fd);
  }

  async verify(): Promise<void> {
    for (const volume of [DISK, KEYS]) {
      const { code, stdout, stderr } = await this.cluster.cli('volume', 'verify', volume);
      if (code !== 0) this.wrong.push(`volume verify ${volume}: ${stdout}${stderr}`);
    }
  }

  sample(): void {
    const atMs = performance.now();
    this.samples.lasting.push(sampleOf(this.cluster.slot(LASTING).running!.child.pid!, atMs));
    this.samples.client.push(sampleOf(process.pid, atMs));
  }

  async repaired(): Promise<number> {
    let sum = 0;
    for (const name of NODES) {
      const { replicas } = await admin(this.cluster.slot(name).address, { op: 'status' });
      for (const { repairedBlocks } of replicas as Array<{ repairedBlocks: number }>) sum += repairedBlocks;
    }
    return sum;
  }
}

function grows(who: string, { rssBytes, descriptors }: Growth): string[] {
  const wrong: string[] = [];
  if (rssBytes[1] > rssBytes[0] * MOST_GROWTH) wrong.push(`memory of ${who} grew: ${rssBytes.join(' to ')} bytes`);
  if (descriptors[1] > descriptors[0] + MOST_MORE_DESCRIPTORS)
    wrong.push(`descriptors of ${who} grew: ${descriptors.join(' to ')}`);
  return wrong;
}

async function soak(minutes: number, seed: number): Promise<Report> {
  // A pass of the scrub in about two minutes.
  const cluster = await TestCluster.start(NODES, { args: ['--enable-faults', '--scrub-days', '0.0015'] });
  const all = new Soak(cluster, seed);
  try {
    await cluster.create(DISK, '64MiB', NODES.length, '--allow-sparse');
    await cluster.create(KEYS, '64MiB', NODES.length, '--allow-sparse', '--kind', 'kv');
    await cluster.until(({ verdict, volumes }) => verdict === 'safe' && volumes.length === 2, 'both volumes');
    const patient = { retryMs: Infinity };
    const opened = [];
    const disk = new SoakLoad(DISK, REGISTERS);
    const keys = new SoakLoad(KEYS, REGISTERS);
    all.loads.push(disk, keys);
    for (let i = 0; i < WRITERS; i++) {
      const [volume, store] = [
        await connect(cluster.url(DISK), patient),
        await connectKv(`holdfast-kv${cluster.url(KEYS).slice('holdfast'.length)}`, patient),
      ];
      opened.push(volume, store);
      disk.write(onDisk(volume), i, WRITERS, 10);
      keys.write(inKeys(store), i, WRITERS, 10);
    }
    for (const reads of ['primary', 'any'] as const) {
      const [volume, store] = [
        await connect(cluster.url(DISK), { ...patient, reads }),
        await connectKv(`holdfast-kv${cluster.url(KEYS).slice('holdfast'.length)}`, { ...patient, reads }),
      ];
      opened.push(volume, store);
      disk.read(onDisk(volume), 5, 5);
      keys.read(inKeys(store), 5, 5);
    }
    const sampler = setInterval(() => all.sample(), SAMPLE_MS);
    const endMs = performance.now() + minutes * 60_000;
    let saidMs = performance.now();
    try {
      while (
        performance.now() < endMs &&
        all.wrong.length === 0 &&
        all.loads.every(({ wrong }) => wrong.length === 0)
      ) {
        await all.fault();
        await pause(all.below(4000));
        if (performance.now() - saidMs < 60_000) continue;
        saidMs = performance.now();
        const counts = Object.entries(all.faults).map(([kind, { count }]) => `${kind} ${count}`);
        const left = Math.ceil((endMs - saidMs) / 60_000);
        note(
          `${disk.versions.answered} + ${keys.versions.answered} operations; ${counts.join(', ')}; ${left} min left`,
        );
      }
    } finally {
      clearInterval(sampler);
    }
    for (const load of all.loads) await load.stop();
    await all.verify();
    const repairedBlocks = await all.repaired();
    for (const one of opened) await one.close();
    await cluster.stopNodes();
    for (const volume of [DISK, KEYS]) await cluster.compare(volume, NODES);
    const [lasting, client] = [growthOf(all.samples.lasting), growthOf(all.samples.client)];
    return {
      minutes,
      seed,
      faults: all.faults,
      operations: { disk: disk.versions.answered, keys: keys.versions.answered },
      longestPauseMs: Math.round(Math.max(disk.longestEverMs, keys.longestEverMs)),
      repairedBlocks,
      lasting,
      client,
      wrong: [
        ...all.wrong,
        ...disk.wrong,
        ...keys.wrong,
        ...grows(`node ${LASTING}`, lasting),
        ...grows('the clients', client),
      ],
    };
  } catch (error) {
    note(cluster.log().split('\n').slice(-200).join('\n'));
    for (const wrong of [...all.wrong, ...all.loads.flatMap((load) => load.wrong)]) note(wrong);
    throw error;
  } finally {
    await cluster.stop();
  }
}

const flags = new Command('soak')
  .description('a long run with random faults, and what it did to answers, images, memory and descriptors')
  .option('--minutes <n>', 'how long', '30')
  .option('--seed <n>', 'of the choice of faults', String(Date.now() % 100_000))
  .option('--json', 'print JSON')
  .parse()
  .opts<{ minutes: string; seed: string; json?: boolean }>();
const report = await soak(Number(flags.minutes), Number(flags.seed));
if (flags.json) process.stdout.write(`${JSON.stringify(report)}\n`);
else process.stdout.write(`${JSON.stringify(report, null, 2)}\n`);
for (const wrong of report.wrong) note(wrong);
process.exit(report.wrong.length === 0 ? 0 : 1);
