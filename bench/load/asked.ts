/**
 * A script of this build as a process that is asked, one request a line on its stdin, and answers each with one line of
 * JSON. Before an answer it may tell events: lines with a field `event`.
 *
 * Guarantees: requests are answered in the order in which they are asked; an end before an answer is told with what the
 * script wrote to stderr.
 */
import { createInterface, type Interface } from 'node:readline';
import { start, type Started } from './children.ts';

export class Asked {
  private readonly process: Started;
  private readonly lines: AsyncIterator<string>;
  private readonly reader: Interface;

  constructor(path: string, args: string[]) {
    this.process = start(path, args, 'pipe');
    // An end of the script shows as the end of its lines; what it wrote to stderr is told then.
    this.process.child.stdin!.on('error', () => {});
    this.reader = createInterface({ input: this.process.child.stdout! });
    this.lines = this.reader[Symbol.asyncIterator]();
  }

  /** @throws Error with what the script met */
  async ask<Result>(request: object, told: (event: string) => void = () => {}): Promise<Result> {
    this.process.child.stdin!.write(`${JSON.stringify(request)}\n`);
    for (;;) {
      const { value, done } = await this.lines.next();
      if (done === true) break;
      const line = JSON.parse(value) as Result & { event?: string };
      if (line.event === undefined) return line;
      told(line.event);
    }
    throw new Error(`the generator ended with ${await this.process.exited}\n${this.process.stderr()}`);
  }

  async close(): Promise<void> {
    this.process.child.stdin!.end();
    const status = await this.process.exited;
    this.reader.close();
    if (status !== 0) throw new Error(`the generator ended with ${status}\n${this.process.stderr()}`);
  }
}
