/** What a node tells Prometheus, by name and labels; and whether Prometheus's own tool takes it. */
import { execFileSync, spawnSync } from 'node:child_process';

export const hasPromtool: boolean = spawnSync('promtool', ['--version']).status === 0;
if (!hasPromtool)
  console.log('# skip: promtool is not installed (apt-get install prometheus): what it checks is not checked');

export class ToldMetrics {
  readonly text: string;
  /** As they are printed: `name{label="value"}`. */
  readonly values: ReadonlyMap<string, number>;

  constructor(text: string) {
    this.text = text;
    const lines = text.split('\n').filter((line) => line !== '' && !line.startsWith('#'));
    this.values = new Map(
      lines.map((line) => [line.slice(0, line.lastIndexOf(' ')), Number(line.slice(line.lastIndexOf(' ')))]),
    );
  }

  static async of(url: string): Promise<ToldMetrics> {
    return new ToldMetrics(await (await fetch(url)).text());
  }

  /** @param labels all of them, in order */
  of(name: string, labels: Record<string, string>): number {
    const full = Object.entries(labels).map(([label, value]) => `${label}="${value}"`);
    const value = this.values.get(`${name}{${full.join()}}`);
    if (value === undefined) throw new Error(`${name}{${full.join()}} is not there:\n${this.text}`);
    return value;
  }

  /** @throws an error with what promtool dislikes */
  check(): void {
    if (hasPromtool) execFileSync('promtool', ['check', 'metrics'], { input: this.text });
  }
}
