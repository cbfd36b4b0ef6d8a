/**
 * What `npm run bench:kv` measures, cell by cell, and how long that takes: said before, and while it runs. Pure.
 *
 * Guarantees: every wanted section is measured with every durability, in the same cells; cells that share a cluster follow
 * one another; what is left is reckoned by how fast the cells so far were.
 */
import type { Durability } from '../load/children.ts';
import { KINDS, type Kind, VICTIMS, type Victim } from './measure.ts';
import { FAULTS, type Fault, type Workload } from './measure-mix.ts';
import { fsync } from './words.ts';

export const SECTIONS = ['share', 'ycsb', 'one', 'clients', 'recovery', 'faults', 'startup'] as const;
export type Section = (typeof SECTIONS)[number];

/** Nodes that are started together; what is measured on them is not disturbed by what others need. */
export type Stage = 'one node' | 'with metrics' | 'three nodes' | 'with faults' | 'start-up';

export interface PlanOptions {
  only?: Section[] | undefined;
  durabilities: readonly Durability[];
  rounds: number;
  keys: readonly number[];
  clients: readonly number[];
  seconds: number;
  warmSeconds: number;
  missed: readonly number[];
  startKeys: readonly number[];
  shareKeys: number;
  workloads: readonly Workload[];
  ycsbSeconds: number;
  faultSeconds: number;
}

type What =
  | { section: 'share'; replicas: 1 | 3 }
  | { section: 'ycsb'; workload: Workload }
  | { section: 'one'; keys: number; victim: Victim }
  | { section: 'clients'; clients: number; kind: Kind }
  | { section: 'recovery'; missedPuts: number }
  | { section: 'faults'; fault: Fault }
  | { section: 'startup'; keys: number };

export type Cell = What & { stage: Stage; durability: Durability; round: number; estimateSeconds: number };

// Rough rates of a machine with two cores, for nothing but the estimate.
const PUTS_OF_ONE = 800;
const GETS_OF_ONE = 8000;
const PUTS_OF_MANY = 8000;
const FILLED = 40_000;
const START_SECONDS = 6;
const KILLED_SECONDS = 3;
const RETURN_SECONDS = 3;
const READ_KEYS = 100_000;

function stageOf(what: What): Stage {
  switch (what.section) {
    case 'share':
      return what.replicas === 1 ? 'one node' : 'with metrics';
    case 'ycsb':
      return 'with metrics';
    case 'faults':
      return 'with faults';
    case 'startup':
      return 'start-up';
    default:
      return 'three nodes';
  }
}

function secondsOf(what: What, options: PlanOptions): number {
  const warm = 2 * options.warmSeconds;
  const ofOne = (keys: number): number => warm + keys / PUTS_OF_ONE + keys / GETS_OF_ONE;
  switch (what.section) {
    case 'share':
      return ofOne(options.shareKeys);
    case 'ycsb':
      return options.ycsbSeconds + 3;
    case 'one':
      return ofOne(what.keys) + (what.victim === 'nobody' ? 0 : 2 * KILLED_SECONDS);
    case 'clients':
      return options.seconds + Math.min(0.5, options.seconds);
    case 'recovery':
      return what.missedPuts / PUTS_OF_MANY + RETURN_SECONDS;
    case 'faults':
      return options.faultSeconds + RETURN_SECONDS;
    case 'startup':
      return START_SECONDS + what.keys / READ_KEYS + what.keys / FILLED / options.rounds;
  }
}

/** In the order in which they are measured. */
export function planOf(options: PlanOptions): Cell[] {
  const { rounds, only } = options;
  const each = <T>(values: readonly T[], of: (value: T) => What[]): What[] => values.flatMap(of);
  const of: Record<Section, What[]> = {
    share: ([1, 3] as const).map((replicas) => ({ section: 'share', replicas })),
    ycsb: options.workloads.map((workload) => ({ section: 'ycsb', workload })),
    one: each(options.keys, (keys) => VICTIMS.map((victim) => ({ section: 'one', keys, victim }))),
    clients: each(options.clients, (clients) => KINDS.map((kind) => ({ section: 'clients', clients, kind }))),
    recovery: options.missed.map((missedPuts) => ({ section: 'recovery', missedPuts })),
    faults: FAULTS.map((fault) => ({ section: 'faults', fault })),
    startup: [...options.startKeys].sort((a, b) => a - b).map((keys) => ({ section: 'startup', keys })),
  };
  const cells: Cell[] = [];
  for (const durability of options.durabilities) {
    for (const section of SECTIONS.filter((one) => only?.includes(one) ?? true)) {
      const all = Array.from({ length: rounds }, (_, round) => of[section].map((what) => ({ what, round }))).flat();
      // What has grown is not made small again: all rounds of one size, then the next. And a cluster is started once.
      const lasting = ({ what }: { what: What }): number =>
        what.section === 'startup' ? what.keys : what.section === 'share' ? what.replicas : 0;
      for (const { what, round } of all.sort((a, b) => lasting(a) - lasting(b))) {
        const stage = stageOf(what);
        const last = cells.at(-1);
        const begins = last?.stage !== stage || last.durability !== durability;
        const estimateSeconds = secondsOf(what, options) + (begins ? START_SECONDS : 0);
        cells.push({ ...what, stage, durability, round, estimateSeconds });
      }
    }
  }
  return cells;
}

/** Cells that follow one another on the same nodes. */
export function stagesOf(cells: readonly Cell[]): Cell[][] {
  const stages: Cell[][] = [];
  for (const cell of cells) {
    const last = stages.at(-1);
    if (last !== undefined && last[0]!.stage === cell.stage && last[0]!.durability === cell.durability) last.push(cell);
    else stages.push([cell]);
  }
  return stages;
}

/** A duration as somebody would say it. */
export function roughly(seconds: number): string {
  if (seconds < 100) return `${Math.max(1, Math.round(seconds))} s`;
  return `${Math.round(seconds / 60)} min`;
}

/** The first cells say little of the pace: so many seconds of estimate weigh against them. */
const PRIOR_SECONDS = 30;

export class Progress {
  private readonly cells: readonly Cell[];
  private readonly nowMs: () => number;
  private readonly beganMs: number;
  private done_ = 0;

  constructor(cells: readonly Cell[], nowMs: () => number) {
    this.cells = cells;
    this.nowMs = nowMs;
    this.beganMs = nowMs();
  }

  /** Before the first. */
  plan(): string {
    const sum = (cells: readonly Cell[]): number =>
      cells.reduce((all, { estimateSeconds }) => all + estimateSeconds, 0);
    const parts = SECTIONS.flatMap((section) => {
      const own = this.cells.filter((cell) => cell.section === section);
      return own.length === 0 ? [] : [`${section} ${roughly(sum(own))}`];
    });
    const fsyncs = [...new Set(this.cells.map(({ durability }) => fsync(durability)))].join(' and ');
    return `${this.cells.length} cells, fsync ${fsyncs}: about ${roughly(sum(this.cells))} (${parts.join(', ')})`;
  }

  /** After one more. */
  done(): string {
    this.done_++;
    const { length } = this.cells;
    return `[${this.done_}/${length}${this.done_ === length ? '' : `, about ${roughly(this.leftSeconds)} left`}]`;
  }

  private get leftSeconds(): number {
    let [past, left] = [0, 0];
    this.cells.forEach(({ estimateSeconds }, i) => {
      if (i < this.done_) past += estimateSeconds;
      else left += estimateSeconds;
    });
    const tookSeconds = (this.nowMs() - this.beganMs) / 1000;
    return (left * (tookSeconds + PRIOR_SECONDS)) / (past + PRIOR_SECONDS);
  }
}
