/**
 * Hosts of a network on this machine: Linux network namespaces, each with an address of its own, joined by a router in
 * a namespace of its own. Packets from one host to another can be dropped there, in one direction or both, without a
 * word to either: the sender's retransmit, their connections hang, as with a cut cable. Needs root.
 *
 * Guarantees: names are this process's; everything is removed when it ends, and what a killed one left by the next.
 */
import { type SpawnSyncReturns, spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';

const NAME = /^hf-(\d+)-/;
let made = 0;

function ip(...args: string[]): SpawnSyncReturns<string> {
  return spawnSync('ip', args, { encoding: 'utf8' });
}

function must(...args: string[]): void {
  const { status, stderr } = ip(...args);
  if (status !== 0) throw new Error(`ip ${args.join(' ')}: ${stderr}`);
}

/** Why there can be no hosts here; null: there can. */
export function hostsMissing(): string | null {
  if (process.getuid?.() !== 0) return 'network namespaces need root';
  if (ip('-V').status !== 0) return 'ip(8) is not installed (Debian: iproute2)';
  const probe = new Hosts(['x', 'y']);
  try {
    probe.cut('x', 'y');
    return null;
  } catch (error) {
    return `no network namespaces here: ${(error as Error).message.trim()}`;
  } finally {
    probe.remove();
  }
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // It has ended meanwhile.
  }
}

/** Of processes that could not remove theirs. */
function sweep(): void {
  for (const line of ip('netns', 'list').stdout.split('\n')) {
    const name = line.split(' ')[0]!;
    const pid = NAME.exec(name)?.[1];
    if (pid === undefined || existsSync(`/proc/${pid}`)) continue;
    // Its processes are still there, and nobody else's are in it.
    for (const one of ip('netns', 'pids', name).stdout.split('\n')) if (one !== '') kill(Number(one));
    ip('netns', 'del', name);
  }
}

export class Hosts {
  private readonly prefix = `hf-${process.pid}-${++made}`;
  private readonly names: readonly string[];
  private readonly cuts: Set<string> = new Set();
  private readonly atExit = (): void => this.remove();
  private readonly router: string;

  /** @throws an error with what ip(8) said */
  constructor(names: readonly string[]) {
    sweep();
    this.names = names;
    this.router = `${this.prefix}-router`;
    process.once('exit', this.atExit);
    try {
      must('netns', 'add', this.router);
      for (const name of names) this.add(name);
      const forward = 'net.ipv4.ip_forward';
      const on = `echo 1 > /proc/sys/${forward.replaceAll('.', '/')}`;
      must('netns', 'exec', this.router, 'sh', '-c', on);
    } catch (error) {
      this.remove();
      throw error;
    }
  }

  private add(name: string): void {
    const at = this.names.indexOf(name) + 1;
    const [host, port] = [this.namespace(name), `port${at}`];
    must('netns', 'add', host);
    must('link', 'add', 'eth0', 'netns', host, 'type', 'veth', 'peer', 'name', port, 'netns', this.router);
    must('-n', host, 'addr', 'add', `${this.address(name)}/24`, 'dev', 'eth0');
    must('-n', this.router, 'addr', 'add', `10.77.${at}.1/24`, 'dev', port);
    must('-n', host, 'link', 'set', 'lo', 'up');
    must('-n', host, 'link', 'set', 'eth0', 'up');
    must('-n', this.router, 'link', 'set', port, 'up');
    must('-n', host, 'route', 'add', 'default', 'via', `10.77.${at}.1`);
  }

  private namespace(name: string): string {
    return `${this.prefix}-${name}`;
  }

  address(name: string): string {
    const at = this.names.indexOf(name) + 1;
    if (at === 0) throw new Error(`there is no host ${name}`);
    return `10.77.${at}.2`;
  }

  /** What to put before a command that is to run there. It becomes the command: the same process, the same pid. */
  on(name: string): string[] {
    return ['ip', 'netns', 'exec', this.namespace(name)];
  }

  /** Packets from one to the other are dropped on their way. */
  cut(from: string, to: string): void {
    const rule = `from ${this.address(from)} to ${this.address(to)} blackhole`;
    if (this.cuts.has(rule)) return;
    must('-n', this.router, 'rule', 'add', ...rule.split(' '));
    this.cuts.add(rule);
  }

  /** Between each of these and each of those, in both directions. */
  part(these: readonly string[], those: readonly string[]): void {
    for (const one of these) {
      for (const other of those) {
        this.cut(one, other);
        this.cut(other, one);
      }
    }
  }

  /** No cuts any more. */
  heal(): void {
    for (const rule of this.cuts) must('-n', this.router, 'rule', 'del', ...rule.split(' '));
    this.cuts.clear();
  }

  /** After the processes there have ended. */
  remove(): void {
    process.off('exit', this.atExit);
    for (const name of this.names) ip('netns', 'del', this.namespace(name));
    ip('netns', 'del', this.router);
  }
}
