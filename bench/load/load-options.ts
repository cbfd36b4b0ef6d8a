/**
 * The options that both load generators take, and the form of the one line of JSON that they print.
 *
 * Guarantees: what is accepted can be run; a wrong option ends the process with a message before anything is opened.
 */
import { Command, InvalidArgumentError, Option } from 'commander';
import { MAX_IO_BYTES, parseSize } from '../../src/base/units.ts';
import type { LatencySummary } from './histogram.ts';
import { OPERATIONS, PATTERNS, type Operation, type Pattern } from './workload.ts';

export interface LoadOptions {
  url: string;
  op: Operation;
  /** Share of reads of `mix`. */
  readPercent: number;
  blockBytes: number;
  clients: number;
  depth: number;
  seconds: number;
  /** Seconds before measuring begins. */
  warmup: number;
  /** Bytes of the volume that are used; 0: all of it. */
  spanBytes: number;
  pattern: Pattern;
  theta: number;
  unaligned: boolean;
  /** Write the span once, in order, and stop: `op`, `pattern`, `seconds` and `warmup` follow from that. */
  fill: boolean;
  seed: number;
}

/** What a run of a generator came to. Rates are over the measured time only. */
export interface LoadResult {
  /** `raw`, `client`. */
  kind: string;
  op: Operation;
  readPercent: number;
  blockBytes: number;
  clients: number;
  depth: number;
  pattern: Pattern;
  theta: number;
  unaligned: boolean;
  spanBytes: number;
  seed: number;
  seconds: number;
  ops: number;
  opsPerSecond: number;
  mibPerSecond: number;
  latency: LatencySummary;
  /** Operations that were completed in each whole second of the run. */
  perSecond: number[];
  /** Processor time of the generator itself, in seconds, warm-up included. */
  cpuSeconds: number;
  errors: number;
}

const whole =
  (min: number, max: number) =>
  (text: string): number => {
    const value = Number(text);
    if (!Number.isInteger(value) || value < min || value > max) {
      throw new InvalidArgumentError(`A whole number from ${min} to ${max} is needed.`);
    }
    return value;
  };

export const number =
  (min: number, max: number) =>
  (text: string): number => {
    const value = Number(text);
    if (!(value >= min && value <= max)) throw new InvalidArgumentError(`A number from ${min} to ${max} is needed.`);
    return value;
  };

export function size(text: string): number {
  try {
    return parseSize(text);
  } catch (error) {
    throw new InvalidArgumentError((error as Error).message);
  }
}

export function loadCommand(name: string, description: string): Command {
  return new Command(name)
    .description(description)
    .requiredOption('--url <url>', 'holdfast://host:port/volume')
    .addOption(new Option('--op <op>', 'what to do').choices(OPERATIONS).default('read'))
    .option('--read-percent <n>', 'share of reads of a mix', number(0, 100), 70)
    .option('--block-bytes <size>', 'bytes per operation', size, 4096)
    .option('--clients <n>', 'connections', whole(1, 1024), 1)
    .option('--depth <n>', 'operations in flight on each connection', whole(1, 1024), 1)
    .option('--seconds <n>', 'time to measure', number(0.05, 86400), 5)
    .option('--warmup <n>', 'time before measuring, in seconds', number(0, 3600), 1)
    .option('--span-bytes <size>', 'how much of the volume to use, from its beginning; 0: all', size, 0)
    .addOption(new Option('--pattern <pattern>', 'where').choices(PATTERNS).default('uniform'))
    .option('--theta <n>', 'skew of zipf', number(0, 5), 0.99)
    .option('--unaligned', 'offsets that are no multiples of 4096', false)
    .option('--fill', 'write the span once, in order, with the given block size, and stop', false)
    .option('--seed <n>', 'seed of offsets and bytes', whole(0, 2 ** 31 - 1), 1);
}

/** @throws InvalidArgumentError, RangeError */
export function checkLoadOptions(options: LoadOptions): LoadOptions {
  if (options.blockBytes < 1 || options.blockBytes > MAX_IO_BYTES) {
    throw new InvalidArgumentError(`--block-bytes must lie between 1 and ${MAX_IO_BYTES}.`);
  }
  return options.fill ? { ...options, op: 'write', pattern: 'sequential', unaligned: false, warmup: 0 } : options;
}

/** The address in a volume URL. @throws InvalidArgumentError */
export function parseVolumeUrl(url: string): { host: string; port: number; volume: string } {
  const match = /^holdfast:\/\/(\[[^\]]+\]|[^:/,]+):(\d+)\/([^/]*)$/.exec(url);
  if (match === null) throw new InvalidArgumentError(`"${url}" is not of the form holdfast://host:port/volume.`);
  return {
    host: match[1]!.replace(/^\[|\]$/g, ''),
    port: Number(match[2]),
    volume: decodeURIComponent(match[3]!),
  };
}
