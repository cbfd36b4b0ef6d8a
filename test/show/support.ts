/** What the show scripts share: the log's lines, the state of two nodes, tables, the end. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import Table from 'cli-table3';
import {
  describeEnvironment,
  environmentOf,
  environmentWarning,
  type Environment,
} from '../../bench/load/environment.ts';
import { nodeStatus } from '../../src/cli/cluster.ts';
import type { ReplicaStatus } from '../../src/node/hosted-volume.ts';

const PATIENCE_MS = 120_000;
const POLL_MS = 20;

export const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** A line of a node's log. `time`: milliseconds of the wall clock. */
export interface LogLine {
  node: string;
  time: number;
  msg: string;
  [field: string]: unknown;
}

export function logLines(text: string): LogLine[] {
  return text
    .split('\n')
    .filter((line) => line.startsWith('{') && line.includes('"time"'))
    .map((line) => JSON.parse(line) as LogLine);
}

/** Asks until the answer is one. @throws Error with what it waited for */
export async function until<T>(ask: () => Promise<T | undefined> | T | undefined, what: string): Promise<T> {
  const endMs = Date.now() + PATIENCE_MS;
  for (;;) {
    const found = await ask();
    if (found !== undefined) return found;
    if (Date.now() > endMs) throw new Error(`waited in vain for ${what}`);
    await pause(POLL_MS);
  }
}

export interface Pair {
  primary: string;
  backup: string;
}

/** Who is what once one serves and the other is in sync with it; undefined: not now. */
export async function inSyncPair(addresses: readonly string[], volume: string): Promise<Pair | undefined> {
  const asked = await Promise.all(addresses.map((address) => nodeStatus(address, 1000).catch(() => null)));
  for (const status of asked) {
    const replica: ReplicaStatus | undefined = status?.replicas.find((one) => one.volume === volume);
    if (status === null || replica?.serving !== true || replica.peers.length !== 1) continue;
    const [peer] = replica.peers;
    if (peer!.phase === 'joined' && peer!.sync === null) return { primary: status.node, backup: peer!.node };
  }
  return undefined;
}

/** A folder for this run, under HOLDFAST_TEST_DIR or the system's; gone when the process ends. */
export function scratch(): { dir: string; environment: Environment } {
  const dir = mkdtempSync(join(process.env['HOLDFAST_TEST_DIR'] ?? tmpdir(), 'holdfast-show-'));
  process.once('exit', () => rmSync(dir, { recursive: true, force: true }));
  const environment = environmentOf(dir);
  const warning = environmentWarning(environment);
  if (warning !== null) process.stderr.write(`warning: ${warning}\n`);
  return { dir, environment };
}

/** Progress goes where it does not mix with JSON. */
export const note = (text: string): void => void process.stderr.write(`${text}\n`);

export type Cell = string | number | null;

export interface Shown {
  title: string;
  environment: Environment;
  head: string[];
  rows: Cell[][];
  /** What was found wrong; empty: all that was asked is so. */
  failures: string[];
  notes: string[];
  /** For --json. */
  figures: object;
}

/** Prints it, and sets the exit code: 1 when something that must be so is not. */
export function show(shown: Shown, json: boolean): void {
  const { title, environment, head, rows, failures, notes, figures } = shown;
  process.exitCode = failures.length > 0 ? 1 : 0;
  const shownAs = failures.length === 0;
  if (json) {
    process.stdout.write(`${JSON.stringify({ title, shown: shownAs, environment, ...figures, notes, failures })}\n`);
    return;
  }
  const table = new Table({ head, style: { head: [], border: [], compact: true } });
  table.push(...rows.map((row) => row.map((cell) => (cell === null ? '-' : String(cell)))));
  const lines = ['', title, describeEnvironment(environment), '', table.toString(), '', ...notes];
  for (const failure of failures) lines.push(`FAILED: ${failure}`);
  lines.push(shownAs ? 'shown' : 'not shown');
  process.stdout.write(`${lines.join('\n')}\n`);
}
