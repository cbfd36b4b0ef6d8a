/** Coordinators as real processes: `holdfast coordinator`, and etcd with one or three members. Killed by their pid. */
import { type ChildProcess, type SpawnSyncReturns, spawn, spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { openCoordinator } from '../../src/coordination/open.ts';
import type { NewRegister } from '../../src/coordination/register.ts';
import { freePorts } from './free-ports.ts';
import { launch } from './server-process.ts';

type Ended = { code: number | null; signal: NodeJS.Signals | null };

export class CoordinatorProcess {
  readonly child: ChildProcess;
  readonly exited: Promise<Ended>;
  readonly address: string;
  readonly volumes: number;
  private readonly secure: boolean;

  private constructor(
    child: ChildProcess,
    exited: Promise<Ended>,
    info: { listen: string; volumes: number },
    secure: boolean,
  ) {
    this.secure = secure;
    this.child = child;
    this.exited = exited;
    this.address = info.listen;
    this.volumes = info.volumes;
  }

  get url(): string {
    return `${this.secure ? 'holdfasts' : 'holdfast'}://${this.address}`;
  }

  /** @throws an error with everything it printed when it does not get to listening */
  static async start(
    dir: string,
    listen?: string,
    on: readonly string[] = [],
    more: readonly string[] = [],
  ): Promise<CoordinatorProcess> {
    const own = listen ?? `127.0.0.1:${(await freePorts(1))[0]}`;
    const args = ['coordinator', '--dir', dir, '--listen', own, ...more];
    // A host of its own is beyond loopback.
    if (on.length > 0) args.push('--insecure');
    const { child, exited, info } = await launch<{ listen: string; volumes: number }>(args, {}, on);
    return new CoordinatorProcess(child, exited, info, more.includes('--tls-cert'));
  }

  /** This process may end while the coordinator runs; it is killed then. */
  unref(): this {
    unrefChild(this.child);
    return this;
  }

  async kill(signal: NodeJS.Signals = 'SIGKILL'): Promise<Ended> {
    this.child.ref();
    this.child.kill(signal);
    return this.exited;
  }
}

function unrefChild(child: ChildProcess): void {
  child.unref();
  for (const stream of [child.stdout, child.stderr]) (stream as unknown as { unref(): void } | null)?.unref();
}

/** Why etcd's tests cannot run; null when they can. */
export function etcdMissing(): string | null {
  const { status, stdout } = spawnSync('etcd', ['--version'], { encoding: 'utf8' });
  if (status !== 0) return 'etcd is not installed (Debian: etcd-server)';
  console.log(stdout.split('\n')[0]);
  return null;
}

export interface EtcdTls {
  certFile: string;
  keyFile: string;
  /** Clients must show a certificate that it signed. */
  caFile: string;
}

interface EtcdMember {
  args: string[];
  child: ChildProcess;
  clientPort: number;
  exited: Promise<unknown>;
}

function spawnEtcd(args: string[]): Pick<EtcdMember, 'child' | 'exited'> {
  const child = spawn('etcd', args, { stdio: ['ignore', 'ignore', 'ignore'] });
  const exited = new Promise((resolve) => child.once('exit', resolve));
  child.unref();
  return { child, exited };
}

export class EtcdCluster {
  readonly members: EtcdMember[] = [];
  private readonly tls: EtcdTls | null;

  private constructor(tls: EtcdTls | null) {
    this.tls = tls;
  }

  static async start(dir: string, count: number, tls: EtcdTls | null = null): Promise<EtcdCluster> {
    const cluster = new EtcdCluster(tls);
    process.once('exit', () => {
      for (const { child } of cluster.members) child.kill('SIGKILL');
    });
    const ports = await freePorts(2 * count);
    const peer = (i: number): string => `http://127.0.0.1:${ports[2 * i + 1]}`;
    const scheme = tls === null ? 'http' : 'https';
    const all = Array.from({ length: count }, (_, i) => `m${i}=${peer(i)}`).join(',');
    for (let i = 0; i < count; i++) {
      const client = `${scheme}://127.0.0.1:${ports[2 * i]}`;
      const args = Object.entries({
        name: `m${i}`,
        'data-dir': join(dir, `m${i}`),
        'log-level': 'error',
        'listen-client-urls': client,
        'advertise-client-urls': client,
        'listen-peer-urls': peer(i),
        'initial-advertise-peer-urls': peer(i),
        'initial-cluster': all,
        'initial-cluster-token': dir,
        'heartbeat-interval': '50',
        'election-timeout': '500',
      }).map(([flag, value]) => `--${flag}=${value}`);
      if (tls !== null) {
        args.push('--cert-file', tls.certFile, '--key-file', tls.keyFile);
        args.push('--client-cert-auth', '--trusted-ca-file', tls.caFile);
      }
      cluster.members.push({ args, clientPort: ports[2 * i]!, ...spawnEtcd(args) });
    }
    return cluster;
  }

  /** Waits until it answers, for which it needs a majority and a leader. */
  async ready(): Promise<void> {
    const text = (file: string): string => readFileSync(file, 'utf8');
    const { tls } = this;
    const files = tls === null ? undefined : { ca: text(tls.caFile), cert: text(tls.certFile), key: text(tls.keyFile) };
    const client = openCoordinator(this.url, { deadlineMs: 20_000, tls: files });
    try {
      await client.list();
    } finally {
      await client.close();
    }
  }

  /** Index of the member that leads. */
  leader(): number {
    for (const [i, { clientPort, child }] of this.members.entries()) {
      if (child.exitCode !== null || child.signalCode !== null) continue;
      const said = this.etcdctl(clientPort, 'endpoint', 'status', '--write-out', 'json').stdout;
      const [{ Status }] = JSON.parse(said) as [{ Status: { leader: number; header: { member_id: number } } }];
      // Both are rounded alike.
      if (Status.leader === Status.header.member_id) return i;
    }
    throw new Error('nobody leads');
  }

  /** Kills one member. */
  async kill(i: number): Promise<void> {
    const member = this.members[i]!;
    member.child.ref();
    member.child.kill('SIGKILL');
    await member.exited;
  }

  /** Starts a member that was killed, on its data. */
  restart(i: number): void {
    Object.assign(this.members[i]!, spawnEtcd(this.members[i]!.args));
  }

  get url(): string {
    const hosts = this.members.map(({ clientPort }) => `127.0.0.1:${clientPort}`).join(',');
    return `${this.tls === null ? 'etcd' : 'etcds'}://${hosts}`;
  }

  /** Runs etcdctl against the first member. */
  ctl(...args: string[]): string {
    const { status, stdout, stderr } = this.etcdctl(this.members[0]!.clientPort, ...args);
    if (status !== 0) throw new Error(`etcdctl ${args.join(' ')}: ${stderr}`);
    return stdout;
  }

  private etcdctl(port: number, ...args: string[]): SpawnSyncReturns<string> {
    const { tls } = this;
    const secure = tls === null ? [] : ['--cacert', tls.caFile, '--cert', tls.certFile, '--key', tls.keyFile];
    const endpoint = `${tls === null ? 'http' : 'https'}://127.0.0.1:${port}`;
    return spawnSync('etcdctl', ['--endpoints', endpoint, ...secure, ...args], {
      encoding: 'utf8',
      env: { ...process.env, ETCDCTL_API: '3' },
    });
  }

  async stop(): Promise<void> {
    for (const { child } of this.members) {
      child.ref();
      child.kill('SIGKILL');
    }
    await Promise.all(this.members.map(({ exited }) => exited));
  }
}

let made = 0;
const hex = (n: number): string => n.toString(16).padStart(32, '0');

/** A register of a new volume with the members a and b. */
export function newRegister(changes: Partial<NewRegister> = {}): NewRegister {
  const n = process.pid * 10_000 + ++made;
  const member = (node: string, i: number): NewRegister['members'][number] => ({
    node,
    diskId: hex(n * 16 + i),
    address: `127.0.0.1:${7441 + i}`,
    clientAddress: `127.0.0.1:${7401 + i}`,
  });
  return {
    volumeId: hex(n),
    volume: `volume-${n}`,
    sizeBytes: 1 << 30,
    epoch: 0,
    primary: '',
    inSync: ['a', 'b'],
    members: [member('a', 0), member('b', 1)],
    by: { node: 'a', bootId: 'boot-a', n: 1 },
    ...changes,
  };
}

export interface Won {
  /** Version that this process made, known from the reply. */
  version: number;
  n: number;
}

/**
 * A process that changes one register over and over. Each line that it prints is a change that it knows it made, in
 * its order, or an attempt whose outcome it does not know.
 */
export class Contender {
  readonly node: string;
  readonly won: Won[] = [];
  /** `n` of the attempts without a known outcome. */
  readonly unknown: Set<number> = new Set();
  readonly exited: Promise<number | null>;
  private readonly child: ChildProcess;

  constructor(url: string, volumeId: string, node: string, wins: number) {
    this.node = node;
    const program = fileURLToPath(new URL('contender-inside.js', import.meta.url));
    const args = [program, url, volumeId, node, String(wins)];
    this.child = spawn(process.execPath, args, { stdio: ['pipe', 'pipe', 'inherit'] });
    createInterface({ input: this.child.stdout! }).on('line', (line) => {
      const said = JSON.parse(line) as { won?: Won; unknown?: number };
      if (said.won !== undefined) this.won.push(said.won);
      else this.unknown.add(said.unknown!);
    });
    this.exited = new Promise((resolve) => this.child.once('close', resolve));
  }

  /** It ends after the change that it is at. */
  stop(): void {
    this.child.stdin!.end();
  }
}
