/** A client on a host of its own, and the history of what it called and was answered, by a clock that all share. */
import { type ChildProcess, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { type BlockOp, violation } from '../simulation/linearizable.ts';
import type { Hosts } from './hosts.ts';
import { until } from './until.ts';

export type HistoryLine =
  | { id: number; block: number; kind: BlockOp['kind']; value: number; calledMs: number }
  | { id: number; value: number; answeredMs: number };

let clients = 0;

export class HostClient {
  /** Calls that were answered. */
  answers = 0;
  readonly exited: Promise<number | null>;
  private readonly name: string;
  private readonly ops: Map<number, BlockOp & { block: number }> = new Map();
  private readonly child: ChildProcess;

  /** @param firstBlock of those that it uses: nothing was ever written there */
  constructor(hosts: Hosts, host: string, url: string, reads: 'primary' | 'any', firstBlock: number) {
    this.name = host;
    const program = fileURLToPath(new URL('host-client-inside.js', import.meta.url));
    const [command, ...args] = [...hosts.on(host), process.execPath, program];
    args.push(url, reads, String(++clients), String(firstBlock));
    this.child = spawn(command!, args, { stdio: ['pipe', 'pipe', 'inherit'] });
    const killChild = (): void => void this.child.kill('SIGKILL');
    process.once('exit', killChild);
    createInterface({ input: this.child.stdout! }).on('line', (line) => this.take(JSON.parse(line) as HistoryLine));
    this.exited = new Promise((resolve) =>
      this.child.once('close', (code) => {
        process.off('exit', killChild);
        resolve(code);
      }),
    );
  }

  private take(line: HistoryLine): void {
    if ('answeredMs' in line) {
      const op = this.ops.get(line.id)!;
      Object.assign(op, { value: line.value, answeredMs: line.answeredMs });
      this.answers++;
      return;
    }
    const { id, block, kind, value, calledMs } = line;
    this.ops.set(id, { block, kind, value, calledMs, answeredMs: Infinity, who: this.name });
  }

  get history(): ReadonlyArray<BlockOp & { block: number }> {
    return [...this.ops.values()];
  }

  /** Waits for so many more answers. */
  async more(count: number): Promise<void> {
    const goal = this.answers + count;
    await until(() => this.answers >= goal, `${count} more answers at ${this.name}, which has ${this.answers}`);
  }

  /** Ends it after what is under way. @returns its exit code */
  async stop(): Promise<number | null> {
    this.child.stdin!.end();
    return this.exited;
  }

  /** For the end of a test that failed. */
  async kill(): Promise<void> {
    this.child.kill('SIGKILL');
    await this.exited;
  }
}

/** @returns what none may see who looks at all these clients, or null */
export function contradiction(clients: readonly HostClient[]): string | null {
  const all = clients.flatMap(({ history }) => history);
  for (const block of new Set(all.map((op) => op.block))) {
    const wrong = violation(all.filter((op) => op.block === block));
    if (wrong !== null) return `block ${block}: ${wrong}`;
  }
  return null;
}
