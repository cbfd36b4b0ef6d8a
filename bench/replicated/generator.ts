/** A count generator as a process: one load at a time, in the order in which they are asked for. */
import { Asked } from '../load/asked.ts';
import type { CountLoad, CountResult } from './count-generator.ts';

export class Generator {
  private readonly asked: Asked;

  constructor(url: string) {
    this.asked = new Asked('bench/replicated/count-generator.js', [url]);
  }

  run(load: CountLoad): Promise<CountResult> {
    return this.asked.ask(load);
  }

  async fill(spanBytes: number): Promise<void> {
    await this.asked.ask({ fill: spanBytes });
  }

  close(): Promise<void> {
    return this.asked.close();
  }
}
