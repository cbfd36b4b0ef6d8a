/**
 * What the command line prints: progress of long work, tables, errors, and the `--json` twin of each.
 *
 * Guarantees: results go to stdout, progress and errors to stderr; without a terminal there is one progress line per
 * 10 %; with `--json` stdout carries JSON only.
 */
import { createRequire } from 'node:module';
import type * as CliProgress from 'cli-progress';
import type Table from 'cli-table3';
import { asHoldfastError } from '../base/errors.ts';
import { formatBytes } from '../base/units.ts';

// Fifty files for what most processes never print: they are read when it is printed.
const require = createRequire(import.meta.url);

/** Shows how far something is. Nothing is shown for what takes less than a second. */
export class Progress {
  private readonly label: string;
  private readonly amount: (count: number) => string;
  private readonly startedAt = Date.now();
  private readonly parts: Map<string, [doneBytes: number, totalBytes: number]> = new Map();
  private bar: CliProgress.SingleBar | null = null;
  private nextTenth = 1;
  private nextSecond = 1;

  /** @param amount of what it counts, in words: bytes, where nothing else is said */
  constructor(label: string, amount = formatBytes) {
    this.label = label;
    this.amount = amount;
  }

  update(doneBytes: number, totalBytes: number): void {
    const elapsedMs = Date.now() - this.startedAt;
    if (elapsedMs < 1000) return;
    if (process.stderr.isTTY) {
      if (this.bar === null) {
        const format = `${this.label} {bar} {percentage}% | {done} of {size} | {rate}/s | {left} left`;
        const { SingleBar } = require('cli-progress') as typeof CliProgress;
        this.bar = new SingleBar({ format, stream: process.stderr, hideCursor: true });
        this.bar.start(totalBytes, doneBytes, this.payload(doneBytes, totalBytes));
      }
      this.bar.update(doneBytes, this.payload(doneBytes, totalBytes));
    } else if (doneBytes / totalBytes >= this.nextTenth / 10) {
      const p = this.payload(doneBytes, totalBytes);
      const tenth = Math.floor((doneBytes / totalBytes) * 10);
      this.nextTenth = tenth + 1;
      process.stderr.write(`${this.label} ${tenth * 10}% | ${p.done} of ${p.size} | ${p.rate}/s | ${p.left} left\n`);
    }
  }

  /** For work that several do at the same time: what one of them has done. */
  updatePart(part: string, doneBytes: number, totalBytes: number): void {
    this.parts.set(part, [doneBytes, totalBytes]);
    let [done, total] = [0, 0];
    for (const [ofDone, ofTotal] of this.parts.values()) {
      done += ofDone;
      total += ofTotal;
    }
    this.update(done, Math.max(1, total));
  }

  /** For work whose end is not known: at most one line a second. */
  note(doneBytes: number): void {
    const elapsedSeconds = Math.floor((Date.now() - this.startedAt) / 1000);
    if (elapsedSeconds < this.nextSecond) return;
    this.nextSecond = elapsedSeconds + 1;
    process.stderr.write(`${this.label}: ${this.amount(doneBytes)} so far, ${elapsedSeconds} s\n`);
  }

  private payload(doneBytes: number, totalBytes: number): { done: string; size: string; rate: string; left: string } {
    const seconds = Math.max(0.001, (Date.now() - this.startedAt) / 1000);
    const rate = doneBytes / seconds;
    const left = rate > 0 ? Math.ceil((totalBytes - doneBytes) / rate) : 0;
    return {
      done: this.amount(doneBytes),
      size: this.amount(totalBytes),
      rate: this.amount(Math.round(rate)),
      left: left >= 60 ? `${Math.floor(left / 60)} min ${left % 60} s` : `${left} s`,
    };
  }

  stop(): void {
    this.bar?.stop();
    this.bar = null;
  }
}

/** For what is piped into others: whoever reads the first lines only has its answer, and the command ends quietly. */
export function endQuietlyWithoutReader(): void {
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code === 'EPIPE') process.exit();
    // A file on a full disk: what was printed so far is not all of it.
    reportError(asHoldfastError(error, { operation: 'write to stdout' }), false);
    process.exit();
  });
}

export function printJson(value: object): void {
  process.stdout.write(`${JSON.stringify(value)}\n`);
}

/** Two columns, name and value. */
export function printFields(fields: Record<string, string | number | boolean>): void {
  const width = Math.max(...Object.keys(fields).map((name) => name.length));
  for (const [name, value] of Object.entries(fields)) process.stdout.write(`${name.padEnd(width)}  ${value}\n`);
}

export function printTable(head: string[], rows: Array<Array<string | number>>): void {
  const TableOf = require('cli-table3') as typeof Table;
  const table = new TableOf({ head, style: { head: [], border: [] } });
  table.push(...rows);
  process.stdout.write(`${table.toString()}\n`);
}

/** Reports an error and sets the exit code. */
export function reportError(error: unknown, json: boolean): void {
  const known = asHoldfastError(error);
  if (json) printJson({ error: known.toJSON() });
  else process.stderr.write(`holdfast: ${known.message}\n`);
  process.exitCode = 1;
}
