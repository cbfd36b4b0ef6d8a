/**
 * A coordinator and nodes as processes, with one volume on all of them: two and a disk beside one server, or three and a
 * key-value volume.
 *
 * Guarantees: processes are ended by their pid, nodes one after another so that each hands over; what a node logs is
 * read as it comes, so that moments are those of its own clock, which is this machine's; nothing is waited for without a
 * bound.
 */
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { admin } from '../../src/client/admin.ts';
import type { ReplicaStatus } from '../../src/node/hosted-volume.ts';
import { freePort, start, type Durability, type Started } from '../load/children.ts';

/** A line that a node logged. `time`: milliseconds of the wall clock. */
export interface LogLine {
  node: string;
  time: number;
  msg: string;
  [field: string]: unknown;
}

interface Member {
  name: string;
  args: string[];
  address: string;
  /** For clients of Redis; empty: none. */
  kvAddress: string;
  /** For metrics; empty: none. */
  httpAddress: string;
  process: Started | null;
}

export interface ClusterOptions {
  nodes?: readonly string[];
  /** `kv`: the nodes take clients of Redis too. */
  kind?: 'block' | 'kv';
  /** A port for metrics on each node. Default: none. */
  http?: boolean;
  /** Nodes fail when they are told to. Default: false. */
  faults?: boolean;
}

const PATIENCE_MS = 120_000;
const POLL_MS = 5;
const MAX_LINES = 2000;
const MAIN = 'src/cli/main.js';
export const VOLUME = 'bench';

export class BenchCluster {
  /** The latest lines of all nodes. */
  readonly lines: LogLine[] = [];
  private coordinator!: Started;
  private coordinatorArgs: string[] = [];
  private coordinatorUrl = '';
  private readonly members: Map<string, Member> = new Map();
  private waiting: Array<() => void> = [];

  /** The volume made, preallocated and in sync. */
  static async start(
    dir: string,
    sizeBytes: number,
    durability: Durability,
    { nodes = ['a', 'b'], kind = 'block', http = false, faults = false }: ClusterOptions = {},
  ): Promise<BenchCluster> {
    const cluster = new BenchCluster();
    const port = await freePort();
    cluster.coordinatorUrl = `holdfast://127.0.0.1:${port}`;
    const at = ['--dir', join(dir, 'coordinator'), '--listen', `127.0.0.1:${port}`];
    cluster.coordinatorArgs = ['coordinator', ...at, '--log-level', 'warn', '--json'];
    await cluster.startCoordinator();
    for (const name of nodes) {
      const address = `127.0.0.1:${await freePort()}`;
      const kvAddress = kind === 'kv' ? `127.0.0.1:${await freePort()}` : '';
      const args = ['node', '--name', name, '--dir', join(dir, name), '--coordinator', cluster.coordinatorUrl];
      args.push('--listen', address, '--peer-listen', `127.0.0.1:${await freePort()}`, '--log-level', 'info', '--json');
      if (kind === 'kv') args.push('--kv', kvAddress, '--kv-volume', VOLUME);
      const httpAddress = http ? `127.0.0.1:${await freePort()}` : '';
      if (http) args.push('--http', httpAddress);
      if (faults) args.push('--enable-faults');
      cluster.members.set(name, { name, args, address, kvAddress, httpAddress, process: null });
      await cluster.restart(name);
    }
    const create = ['volume', 'create', VOLUME, '--size', String(sizeBytes), '--replicas', String(nodes.length)];
    create.push('--kind', kind, '--durability', durability, '--coordinator', cluster.coordinatorUrl);
    const made = start(MAIN, create);
    made.child.stdout!.resume();
    const code = await made.exited;
    if (code !== 0) throw new Error(`volume create ended with ${code}\n${made.stderr()}`);
    await cluster.untilInSync();
    return cluster;
  }

  private async startCoordinator(): Promise<void> {
    this.coordinator = start(MAIN, this.coordinatorArgs);
    await listening(this.coordinator);
  }

  private get addresses(): string {
    return [...this.members.values()].map(({ address }) => address).join(',');
  }

  /** Of all nodes, for clients. */
  get url(): string {
    return `holdfast://${this.addresses}/${VOLUME}`;
  }

  get kvUrl(): string {
    return `holdfast-kv://${this.addresses}/${VOLUME}`;
  }

  /** Where clients of Redis connect. */
  kvAddress(name: string): string {
    return this.members.get(name)!.kvAddress;
  }

  get pids(): Record<string, number> {
    return Object.fromEntries([...this.members.values()].map(({ name, process }) => [name, process!.child.pid!]));
  }

  /** @returns when it was started, and when it listened, of the wall clock */
  async restart(name: string): Promise<{ startedMs: number; listeningMs: number }> {
    const member = this.members.get(name)!;
    const startedMs = Date.now();
    const process = start(MAIN, member.args);
    member.process = process;
    createInterface({ input: process.child.stderr! }).on('line', (line) => this.heard(name, line));
    await listening(process);
    return { startedMs, listeningMs: Date.now() };
  }

  private heard(node: string, line: string): void {
    if (!line.startsWith('{')) return;
    this.lines.push({ ...(JSON.parse(line) as LogLine), node });
    if (this.lines.length > MAX_LINES) this.lines.shift();
    for (const wake of this.waiting.splice(0)) wake();
  }

  /** Waits for a line that satisfies, logged at `sinceMs` or later; it may be there already. */
  async line(msg: string, sinceMs: number, fits: (line: LogLine) => boolean = () => true): Promise<LogLine> {
    const endMs = Date.now() + PATIENCE_MS;
    for (;;) {
      const found = this.lines.find((one) => one.msg === msg && one.time >= sinceMs && fits(one));
      if (found !== undefined) return found;
      if (Date.now() > endMs) throw new Error(`no node logged "${msg}"\n${JSON.stringify(this.lines.slice(-20))}`);
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, 1000);
        this.waiting.push(() => {
          clearTimeout(timer);
          resolve();
        });
      });
    }
  }

  /** @returns its exit code or signal */
  async kill(name: string, signal: NodeJS.Signals): Promise<number | string> {
    const member = this.members.get(name)!;
    const { child, exited } = member.process!;
    member.process = null;
    child.kill(signal);
    return exited;
  }

  /** To one that goes on living. */
  signal(name: string, signal: 'SIGSTOP' | 'SIGCONT'): void {
    this.members.get(name)!.process!.child.kill(signal);
  }

  /** As `holdfast fault`. @throws HoldfastError as the node answers */
  async fault(name: string, request: { kind: string; [field: string]: unknown }): Promise<void> {
    await admin(this.members.get(name)!.address, { op: 'fault', ...request });
  }

  /** The page that Prometheus would read. */
  async metrics(name: string): Promise<string> {
    const answer = await fetch(`http://${this.members.get(name)!.httpAddress}/metrics`);
    if (!answer.ok) throw new Error(`${name} has no metrics: ${answer.status}`);
    return answer.text();
  }

  /** With the coordinator, all at the same moment as far as that goes. */
  async killAll(): Promise<void> {
    this.coordinator.child.kill('SIGKILL');
    await Promise.all([...this.members.keys()].map((name) => this.kill(name, 'SIGKILL')));
    await this.coordinator.exited;
  }

  /** Resolves when all of them listen. @returns when the first was started, of the wall clock */
  async startAll(): Promise<number> {
    const startedMs = Date.now();
    await Promise.all([this.startCoordinator(), ...[...this.members.keys()].map((name) => this.restart(name))]);
    return startedMs;
  }

  /** Of those nodes that can be asked. */
  async replicas(): Promise<Array<{ node: string; replica: ReplicaStatus }>> {
    const running = [...this.members.values()].filter(({ process }) => process !== null);
    const asked = running.map(async ({ name, address }) => {
      const answer = (await admin(address, { op: 'status', from: 0 })) as unknown as { replicas: ReplicaStatus[] };
      const own = answer.replicas.filter(({ volume }) => volume === VOLUME);
      return own.map((replica) => ({ node: name, replica }));
    });
    // One that is starting does not listen yet.
    return (await Promise.all(asked.map((one) => one.catch(() => [])))).flat();
  }

  /** Waits until one serves and the others are in sync with it, and answer GETs. @returns who is what */
  async untilInSync(): Promise<{ primary: string; backup: string; backups: string[] }> {
    const endMs = performance.now() + PATIENCE_MS;
    for (;;) {
      const all = await this.replicas();
      const serving = all.find(({ replica }) => replica.serving);
      const peers = serving?.replica.peers ?? [];
      const joined = peers.every(({ phase, sync }) => phase === 'joined' && sync === null);
      const others = this.members.size - 1;
      const answer = all.length > others && all.every(({ replica }) => replica.kv?.answers ?? true);
      if (serving !== undefined && peers.length === others && joined && answer) {
        const backups = peers.map(({ node }) => node);
        return { primary: serving.node, backup: backups[0]!, backups };
      }
      if (performance.now() > endMs) throw new Error(`the nodes do not get in sync\n${JSON.stringify(all, null, 1)}`);
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
  }

  async stop(): Promise<void> {
    for (const { name, process } of this.members.values()) {
      if (process === null) continue;
      const status = await this.kill(name, 'SIGTERM');
      if (status !== 0) throw new Error(`${name} ended with ${status}\n${process.stderr()}`);
    }
    this.coordinator.child.kill('SIGTERM');
    await this.coordinator.exited;
  }
}

/** Waits until it says that it listens. @throws Error with what it wrote, if it ends before */
async function listening(process: Started): Promise<Started> {
  const there = new Promise<void>((resolve) => {
    createInterface({ input: process.child.stdout! }).on('line', (line) => {
      if (line.startsWith('{') && (JSON.parse(line) as { event?: string }).event === 'listening') resolve();
    });
  });
  const ended = process.exited.then((status) => {
    throw new Error(`it ended with ${status} before it listened\n${process.stderr()}`);
  });
  await Promise.race([there, ended]);
  ended.catch(() => undefined);
  return process;
}
