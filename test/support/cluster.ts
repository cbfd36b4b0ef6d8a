/**
 * A cluster of real processes: a coordinator and nodes on loopback, in folders of their own. Nodes keep their addresses
 * when they are started anew. Processes are ended by their pid, and when the test's process ends.
 */
import * as assert from 'uvu/assert';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { pause, withCoordinator } from '../../src/cli/cluster.ts';
import { type ClusterView, lookAt } from '../../src/cli/cluster-status.ts';
import { CoordinatorProcess, EtcdCluster, type EtcdTls } from './coordinators.ts';
import { freePorts } from './free-ports.ts';
import type { Hosts } from './hosts.ts';
import { holdfast, launch, temporaryFolder } from './server-process.ts';

type Running = Awaited<ReturnType<typeof launch<{ listen: string; nbd?: string }>>>;
const CHUNK = 1024 * 1024;
const PATIENCE_MS = 60_000;

export interface TestClusterOptions {
  /** `etcd` is three members of a real etcd. Default: the embedded coordinator. */
  coordinator?: 'embedded' | 'etcd' | undefined;
  etcdTls?: EtcdTls | undefined;
  /** Each node on the host of its name, the coordinator on `coordinator`, commands on `operator`. Default: loopback. */
  hosts?: Hosts | undefined;
  /** For every node and every command, such as the user of etcd. */
  env?: NodeJS.ProcessEnv | undefined;
  /** Of the coordinator, and of each node by its name. */
  tls?: ((name: string) => string[]) | undefined;
  /** Arguments of every node. */
  args?: string[] | undefined;
  /** Words before the command of each node, such as those that give it another view of the file system. */
  on?: ((name: string) => string[]) | undefined;
  /** Done with the etcd before there is a node. */
  prepare?: ((etcd: EtcdCluster) => void | Promise<void>) | undefined;
}

interface NodeSlot {
  name: string;
  dir: string;
  args: string[];
  address: string;
  /** For its next starts. */
  env: NodeJS.ProcessEnv;
  running: Running | null;
}

export class TestCluster {
  readonly dir: string = temporaryFolder();
  readonly nodes: Map<string, NodeSlot> = new Map();
  /** Of one with an embedded coordinator. */
  coordinator!: CoordinatorProcess;
  /** Of one with an etcd. */
  etcd!: EtcdCluster;
  /** For every node and every command from now on. */
  readonly env: NodeJS.ProcessEnv;
  /** What all nodes have printed, those included that are gone. */
  private printed = '';

  private readonly hosts: Hosts | null;
  private readonly tls: ((name: string) => string[]) | null;
  private readonly on: (name: string) => string[];

  private constructor({ env, hosts, tls, on }: TestClusterOptions) {
    this.tls = tls ?? null;
    this.on = on ?? (() => []);
    this.env = { ...env };
    this.hosts = hosts ?? null;
  }

  static async start(names: string[], options: TestClusterOptions = {}): Promise<TestCluster> {
    const cluster = new TestCluster(options);
    const dir = join(cluster.dir, 'coordinator');
    if (options.coordinator === 'etcd') {
      cluster.etcd = await EtcdCluster.start(dir, 3, options.etcdTls ?? null);
      await cluster.etcd.ready();
      await options.prepare?.(cluster.etcd);
    } else {
      const { hosts, tls } = options;
      const listen = hosts && `${hosts.address('coordinator')}:7400`;
      cluster.coordinator = await CoordinatorProcess.start(dir, listen, hosts?.on('coordinator'), tls?.('coordinator'));
    }
    for (const name of names) await cluster.add(name, ...(options.args ?? []));
    return cluster;
  }

  /** Address of the coordinator. */
  get coordinatorUrl(): string {
    return (this.etcd ?? this.coordinator).url;
  }

  async add(name: string, ...more: string[]): Promise<void> {
    const { hosts } = this;
    const [client, peer] = hosts === null ? await freePorts(2) : [7401, 7441];
    const dir = join(this.dir, name);
    const host = hosts?.address(name) ?? '127.0.0.1';
    const address = `${host}:${client}`;
    const args = ['node', '--name', name, '--dir', dir, '--coordinator', this.coordinatorUrl];
    args.push('--listen', address, '--peer-listen', `${host}:${peer}`, '--nbd', `${host}:0`, ...more);
    if (hosts !== null) args.push('--insecure');
    args.push(...(this.tls?.(name) ?? []));
    this.nodes.set(name, { name, dir, args, address, env: {}, running: null });
    await this.restart(name);
  }

  slot(name: string): NodeSlot {
    return this.nodes.get(name)!;
  }

  async restart(name: string, ...more: string[]): Promise<void> {
    const slot = this.slot(name);
    assert.is(slot.running, null, `${name} runs already`);
    // Awake as long as `holdfast up` lets nodes of one machine be.
    const env = { HOLDFAST_LOG_LEVEL: 'info', HOLDFAST_AWAKE_US: '50', ...this.env, ...slot.env };
    slot.running = await launch([...slot.args, ...more], env, this.hosts?.on(name) ?? this.on(name));
  }

  /** @returns its exit code */
  async kill(name: string, signal: NodeJS.Signals = 'SIGKILL'): Promise<number | null> {
    const slot = this.slot(name);
    const running = slot.running!;
    slot.running = null;
    running.child.kill(signal);
    const { code } = await running.exited;
    this.printed += running.printed();
    return code;
  }

  /** Waits until a node ends by itself. @returns how */
  async ended(name: string): Promise<{ code: number | null; signal: NodeJS.Signals | null }> {
    const slot = this.slot(name);
    const running = slot.running!;
    const how = await running.exited;
    slot.running = null;
    this.printed += running.printed();
    return how;
  }

  /** Lines that the nodes have logged. */
  log(): string {
    const live = [...this.nodes.values()].map(({ running }) => running?.printed() ?? '');
    return this.printed + live.join('');
  }

  /** Runs the command line with this coordinator. */
  async cli(...args: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
    const env = { ...this.env, HOLDFAST_COORDINATOR: this.coordinatorUrl };
    const { code, stdout, stderr } = await holdfast(args, { env, on: this.hosts?.on('operator') ?? [] });
    return { code, stdout: stdout.toString(), stderr };
  }

  /** As `cli`, and it must succeed. */
  async must(...args: string[]): Promise<string> {
    const { code, stdout, stderr } = await this.cli(...args);
    assert.is(code, 0, `holdfast ${args.join(' ')}: ${stderr}${stdout}`);
    return stdout;
  }

  create(name: string, size: string, replicas: number, ...more: string[]): Promise<string> {
    // A short journal is written sooner, and its ring goes round.
    const journal = ['--journal', '16MiB'];
    return this.must('volume', 'create', name, '--size', size, ...journal, '--replicas', String(replicas), ...more);
  }

  /** What the command prints comes without a process for each look, where that makes no difference. */
  private get looksItself(): boolean {
    return this.hosts === null && Object.keys(this.env).length === 0;
  }

  async status(): Promise<ClusterView> {
    if (this.looksItself) {
      return withCoordinator({ coordinator: this.coordinatorUrl }, lookAt).catch((error: unknown) => {
        const answer = `NOT KNOWN: ${String(error)}`;
        return { verdict: 'unavailable', answer, nodes: [], volumes: [] };
      });
    }
    const { stdout } = await this.cli('status', '--json');
    return JSON.parse(stdout) as ClusterView;
  }

  /** Waits until a look at the cluster satisfies. @returns that look */
  async until(satisfied: (view: ClusterView) => boolean, what: string): Promise<ClusterView> {
    const endMs = performance.now() + PATIENCE_MS;
    let view = await this.status();
    while (!satisfied(view)) {
      if (performance.now() > endMs) {
        const log = this.log().split('\n').slice(-60).join('\n');
        throw new Error(`waited in vain for ${what}\n${JSON.stringify(view, null, 1)}\n${log}`);
      }
      await pause(this.looksItself ? 50 : 300);
      view = await this.status();
    }
    return view;
  }

  untilSafe(): Promise<ClusterView> {
    return this.until(({ verdict, volumes }) => verdict === 'safe' && volumes.length > 0, 'all replicas to be in sync');
  }

  async primary(volume: string): Promise<string> {
    const view = await this.untilServed(volume);
    return view.volumes.find((one) => one.volume === volume)!.primary;
  }

  untilServed(volume: string): Promise<ClusterView> {
    const served = ({ volumes }: ClusterView): boolean =>
      volumes.some((one) => one.volume === volume && one.verdict !== 'unavailable');
    return this.until(served, `${volume} to be served`);
  }

  /** Of all nodes, for clients. */
  url(volume: string): string {
    const scheme = this.tls === null ? 'holdfast' : 'holdfasts';
    return `${scheme}://${[...this.nodes.values()].map(({ address }) => address).join(',')}/${volume}`;
  }

  /** Stops all nodes in good order. @returns their exit codes by name */
  async stopNodes(): Promise<Record<string, number | null>> {
    const codes: Record<string, number | null> = {};
    for (const { name, running } of this.nodes.values()) {
      if (running !== null) codes[name] = await this.kill(name, 'SIGTERM');
    }
    return codes;
  }

  /** With all nodes stopped: what is owed is put in place, then the images of these nodes are compared. */
  async compare(volume: string, names: string[]): Promise<void> {
    const files: string[] = [];
    for (const name of names) {
      const folder = join(this.slot(name).dir, 'volumes', volume);
      await this.must('volume', 'check', folder, '--flatten');
      files.push(join(folder, 'data'));
    }
    for (const file of files.slice(1)) assert.is(await firstDifference(files[0]!, file), null, `${file} differs at`);
  }

  async stop(): Promise<void> {
    for (const { name, running } of this.nodes.values()) if (running !== null) await this.kill(name);
    if (this.etcd === undefined) await this.coordinator.kill();
    else await this.etcd.stop();
  }
}

/** @returns the offset of the first byte that differs, null if none does */
async function firstDifference(one: string, other: string): Promise<number | null> {
  const [a, b] = [await open(one), await open(other)];
  try {
    const [sizeA, sizeB] = [(await a.stat()).size, (await b.stat()).size];
    if (sizeA !== sizeB) return Math.min(sizeA, sizeB);
    const [left, right] = [Buffer.alloc(CHUNK), Buffer.alloc(CHUNK)];
    for (let at = 0; at < sizeA; at += CHUNK) {
      const { bytesRead } = await a.read(left, 0, CHUNK, at);
      await b.read(right, 0, CHUNK, at);
      if (left.subarray(0, bytesRead).equals(right.subarray(0, bytesRead))) continue;
      for (let i = 0; i < bytesRead; i++) if (left[i] !== right[i]) return at + i;
    }
    return null;
  } finally {
    await a.close();
    await b.close();
  }
}
