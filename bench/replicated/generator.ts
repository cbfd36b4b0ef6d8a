/** A count generator as a process: one load at a time, in the order in which they are asked for. */
import { createInterface, type Interface } from 'node:readline';
import { start, type Started } from '../load/children.ts';
import type { CountLoad, CountResult } from './count-generator.ts';

export class Generator {
  private readonly process: Started;
  private readonly lines: AsyncIterator<string>;
  private readonly reader: Interface;

  constructor(url: string) {
    this.process = start('bench/replicated/count-generator.js', [url], 'pipe');
    // An end of the generator shows as the end of its lines; what it wrote to stderr is told then.
    this.process.child.stdin!.on('error', () => {});
    this.reader = createInterface({ input: this.process.child.stdout! });
    this.lines = this.reader[Symbol.asyncIterator]();
  }

  /** @throws Error with what the generator met */
  private async ask<Result>(request: object): Promise<Result> {
    this.process.child.stdin!.write(`${JSON.stringify(request)}\n`);
    const { value, done } = await this.lines.next();
    if (done !== true) return JSON.parse(value) as Result;
    throw new Error(`the generator ended with ${await this.process.exited}\n${this.process.stderr()}`);
  }

  run(load: CountLoad): Promise<CountResult> {
    return this.ask(load);
  }

  fill(spanBytes: number): Promise<void> {
    return this.ask({ fill: spanBytes });
  }

  async close(): Promise<void> {
    this.process.child.stdin!.end();
    const status = await this.process.exited;
    this.reader.close();
    if (status !== 0) throw new Error(`the generator ended with ${status}\n${this.process.stderr()}`);
  }
}
