/**
 * Clients that know what they were told: each has blocks of its own, writes numbers into them one after the other, and
 * notes which number was acknowledged last. And the pauses that they saw.
 */
import type { BlockDevice } from '../../src/base/device.ts';
import { connect } from '../../src/client/index.ts';

const BLOCK = 4096;
const WORDS = BLOCK / 8;
/** A check reads so many blocks at once. */
const AT_ONCE = 64;
const POLL_MS = 5;

/** Between two answers to one client. Wall clock, as in the nodes' logs. */
export interface Gap {
  fromMs: number;
  toMs: number;
}

export interface LedgerOptions {
  /** Where in the volume its blocks begin. */
  baseBytes: number;
  /** Of each client. A lost write shows until its block is written again: many blocks, and it shows for long. */
  blocksEach: number;
}

export class Ledger {
  acknowledged = 0;
  readonly errors: string[] = [];
  /** Of the first client, of 5 ms and more. */
  private readonly gaps: Gap[] = [];
  private readonly last: number[];
  private readonly called: number[];
  private readonly clients: readonly BlockDevice[];
  private readonly options: LedgerOptions;
  private stopped = false;
  private held = false;
  private resting = 0;
  private readonly lanes: Array<Promise<void>>;

  constructor(clients: readonly BlockDevice[], options: LedgerOptions) {
    this.clients = clients;
    this.options = options;
    this.last = Array.from({ length: clients.length * options.blocksEach }, () => 0);
    this.called = [...this.last];
    this.lanes = clients.map((volume, lane) => this.run(volume, lane));
  }

  static async start(url: string, clients: number, options: LedgerOptions): Promise<Ledger> {
    return new Ledger(await Promise.all(Array.from({ length: clients }, () => connect(url))), options);
  }

  /** One write after the other, each as soon as the one before it is answered. */
  private async run(volume: BlockDevice, lane: number): Promise<void> {
    const { baseBytes, blocksEach } = this.options;
    const bytes = Buffer.alloc(BLOCK);
    const words = new Float64Array(bytes.buffer, bytes.byteOffset, WORDS);
    let answeredMs = Date.now();
    for (let n = 1; !this.stopped; n++) {
      const block = lane * blocksEach + (n % blocksEach);
      words.fill(n);
      this.called[block] = n;
      try {
        await volume.write(baseBytes + block * BLOCK, bytes);
      } catch (error) {
        this.errors.push(`client ${lane}: ${(error as Error).message}`);
        return;
      }
      this.last[block] = n;
      this.acknowledged++;
      const nowMs = Date.now();
      if (lane === 0 && nowMs - answeredMs >= 5) this.gaps.push({ fromMs: answeredMs, toMs: nowMs });
      answeredMs = nowMs;
      if (this.held) answeredMs = await this.rest();
    }
  }

  private async rest(): Promise<number> {
    this.resting++;
    while (this.held && !this.stopped) await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    this.resting--;
    return Date.now();
  }

  /** From now on each client waits once what it has under way is answered. */
  hold(): void {
    this.held = true;
  }

  /** After `hold`: all of them wait. @throws Error when a client has met an error */
  async allHeld(): Promise<void> {
    while (this.resting < this.lanes.length) await this.look();
  }

  release(): void {
    this.held = false;
  }

  /** The longest time between two answers to the first client, of those that ended in that stretch. */
  longestGap(fromMs: number, toMs: number = Infinity): Gap {
    const within = this.gaps.filter((gap) => gap.toMs >= fromMs && gap.toMs <= toMs);
    return within.reduce((a, b) => (b.toMs - b.fromMs > a.toMs - a.fromMs ? b : a), { fromMs, toMs: fromMs });
  }

  /** Waits until so many more writes are answered. @throws Error when a client has met an error */
  async more(count: number): Promise<void> {
    const goal = this.acknowledged + count;
    while (this.acknowledged < goal) await this.look();
  }

  private async look(): Promise<void> {
    if (this.errors.length > 0) throw new Error(this.errors.join('\n'));
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }

  async stop(): Promise<void> {
    this.stopped = true;
    await Promise.all(this.lanes);
  }

  /**
   * What is read is not older than what was acknowledged before it was asked for, nor newer than what was called by the
   * time it came; so also while the clients go on.
   * @returns what is wrong
   */
  async check(volume: BlockDevice): Promise<string[]> {
    const wrong: string[] = [];
    for (let from = 0; from < this.last.length; from += AT_ONCE) {
      const count = Math.min(AT_ONCE, this.last.length - from);
      const least = this.last.slice(from, from + count);
      const bytes = await volume.read(this.options.baseBytes + from * BLOCK, count * BLOCK);
      const all = new Float64Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
      for (let i = 0; i < count; i++) {
        const words = all.subarray(i * WORDS, (i + 1) * WORDS);
        const [found, most] = [words[0]!, this.called[from + i]!];
        if (!words.every((word) => word === found)) wrong.push(`block ${from + i} is torn`);
        else if (!(found >= least[i]! && found <= most))
          wrong.push(`block ${from + i}: ${found} is there, ${least[i]} was acknowledged, ${most} was the last try`);
      }
    }
    return wrong;
  }

  async close(): Promise<void> {
    await Promise.all(this.clients.map((client) => client.close()));
  }
}
