/**
 * Faults that are asked for (`holdfast fault`, HOLDFAST_CRASH_AT): the process ends itself, stops itself, or is cut off
 * from others. Only a node that was started with `--enable-faults` has one of these.
 *
 * Guarantees: a crash is a SIGKILL that the process sends itself, so nothing of it runs on; a process that is stopped is
 * woken after a bounded time by a process of its own; a cut closes no connection, and when it ends, what was held goes
 * on; clients are cut off for a bounded time only, because the command that would end it comes as a client.
 */
import { spawn } from 'node:child_process';
import type { Socket } from 'node:net';
import { HoldfastError } from '../base/errors.ts';
import type { Coordinator } from '../coordination/register.ts';
import { CRASH_POINTS, type CrashPoint } from '../replication/crash-points.ts';
import { type Fields, choiceField, countField, textField } from './admin-fields.ts';
import { CutCoordinator } from './cut-coordinator.ts';
import { CutSocket, closeHalfDead } from './cut-socket.ts';

const MAX_FAULT_MS = 120_000;
/** A stop that is shorter is not to be told from a busy machine. */
const MIN_FAULT_MS = 10;
const MAX_COUNT = 1_000_000;
const MAX_FROM = 32;
const MAX_ARMED = 64;
export const COORDINATOR = 'coordinator';
export const CLIENTS = 'clients';
const WAYS = ['in', 'out', 'both'] as const;

/** These say that something was sent: what is to leave leaves at the end of the turn, and the end comes after it. */
const AFTER_SENDING: ReadonlySet<string> = new Set<CrashPoint>([
  'write:sent',
  'write:answered',
  'mark:sent',
  'follow:acknowledged',
  'source:copy',
  'source:finish',
]);

/** Wakes a process that the same helper has stopped: the stopped one cannot. */
const STOP_AND_WAKE = `
  const [pid, ms] = process.argv.slice(1).map(Number);
  process.kill(pid, 'SIGSTOP');
  setTimeout(() => process.kill(pid, 'SIGCONT'), ms);
`;

interface Armed {
  point: CrashPoint;
  /** Empty: any. */
  volume: string;
  left: number;
}

interface Cut {
  in: boolean;
  out: boolean;
}

/** What this node knows by name. */
export interface Known {
  nodes: readonly string[];
  volumes: readonly string[];
}

export class Faults {
  private armed: Armed[] = [];
  private readonly cuts: Map<string, Cut> = new Map();
  private readonly sockets: Map<CutSocket, string> = new Map();
  private readonly healed: Set<() => void> = new Set();
  private readonly timers: Set<NodeJS.Timeout> = new Set();
  private readonly log: (message: string, fields: object) => void;

  /** @param crashAt `point[:count]`. @throws HoldfastError INVALID_ARGUMENT */
  constructor(log: (message: string, fields: object) => void, crashAt?: string) {
    this.log = log;
    if (crashAt === undefined || crashAt === '') return;
    const match = /^([a-z]+:[a-z-]+)(?::(\d+))?$/.exec(crashAt);
    this.arm(match?.[1] ?? crashAt, Number(match?.[2] ?? 1), '');
  }

  /** @throws HoldfastError INVALID_ARGUMENT */
  perform(fields: Fields, known: Known): object {
    switch (choiceField(fields, 'kind', ['crash', 'kill', 'stop', 'pause', 'partition', 'heal', 'status'])) {
      case 'crash': {
        const volume = fields['volume'] === undefined ? '' : textField(fields, 'volume');
        if (volume !== '') checkName('volume', volume, known.volumes);
        const count = fields['count'] === undefined ? 1 : countField(fields, 'count', 1, MAX_COUNT);
        this.arm(textField(fields, 'point'), count, volume);
        break;
      }
      case 'kill':
        this.log('told to kill itself', {});
        // The answer leaves first.
        setImmediate(() => process.kill(process.pid, 'SIGKILL'));
        break;
      case 'stop':
        this.log('told to stop', {});
        setImmediate(() => process.kill(process.pid, 'SIGTERM'));
        break;
      case 'pause':
        this.pause(countField(fields, 'ms', MIN_FAULT_MS, MAX_FAULT_MS));
        break;
      case 'partition':
        this.partition(fields, known);
        break;
      case 'heal':
        this.heal(fields['from'] === undefined ? undefined : namesOf(fields));
        break;
    }
    return { ...this.status(), pid: process.pid };
  }

  private status(): object {
    const cut = [...this.cuts].map(([from, { in: inward, out }]) => ({ from, way: wayOf({ in: inward, out }) }));
    return { armed: this.armed.map((one) => ({ ...one })), cut };
  }

  // --- ends and stops -----------------------------------------------------------------------------------------------

  private arm(point: string, count: number, volume: string): void {
    if (!Object.hasOwn(CRASH_POINTS, point)) {
      const detail = `"${point}" is no point to crash at. There are: ${Object.keys(CRASH_POINTS).join(', ')}`;
      throw new HoldfastError('INVALID_ARGUMENT', { operation: 'fault', detail, remedy: 'see: holdfast fault points' });
    }
    if (!(count >= 1 && count <= MAX_COUNT) || this.armed.length >= MAX_ARMED) {
      const detail = `a count of ${count}, with ${this.armed.length} points armed; at most ${MAX_ARMED}`;
      throw new HoldfastError('INVALID_ARGUMENT', { operation: 'fault', detail });
    }
    this.armed.push({ point: point as CrashPoint, volume, left: count });
    this.log('armed to crash', { point, count, volume });
  }

  /** The core has come to a step. */
  reached(volume: string, point: CrashPoint): void {
    for (const one of this.armed) {
      if (one.point !== point || (one.volume !== '' && one.volume !== volume) || --one.left > 0) continue;
      const crash = (): void => void process.kill(process.pid, 'SIGKILL');
      if (AFTER_SENDING.has(point)) setImmediate(crash);
      else crash();
    }
  }

  private pause(ms: number): void {
    this.log('told to stop for a while', { ms });
    const args = ['-e', STOP_AND_WAKE, String(process.pid), String(ms)];
    spawn(process.execPath, args, { detached: true, stdio: 'ignore' })
      .on('error', (error) => this.log('not stopped', { reason: error.message }))
      .unref();
  }

  // --- cuts ---------------------------------------------------------------------------------------------------------

  private partition(fields: Fields, { nodes }: Known): void {
    const names = namesOf(fields);
    for (const name of names) checkName('node', name, [...nodes, COORDINATOR, CLIENTS]);
    const way = fields['way'] === undefined ? 'both' : choiceField(fields, 'way', WAYS);
    const forMs = fields['forMs'] === undefined ? null : countField(fields, 'forMs', MIN_FAULT_MS, MAX_FAULT_MS);
    if (forMs === null && names.includes(CLIENTS)) {
      throw new HoldfastError('INVALID_ARGUMENT', {
        operation: 'fault',
        detail: 'clients can be cut off for a while only: who would end it is a client',
        remedy: `give forMs (--for-ms), from ${MIN_FAULT_MS} to ${MAX_FAULT_MS}`,
      });
    }
    this.log('cut off', { from: names, way, forMs });
    for (const name of names) this.cuts.set(name, { in: way !== 'out', out: way !== 'in' });
    // The answer to this very request leaves first.
    setImmediate(() => this.apply());
    if (forMs === null) return;
    const timer = setTimeout(() => {
      this.timers.delete(timer);
      this.heal(names);
    }, forMs);
    this.timers.add(timer);
  }

  /** Ends cuts. @param names default: all */
  heal(names: readonly string[] = [...this.cuts.keys()]): void {
    if (names.length === 0) return;
    this.log('cut off no more', { from: names });
    for (const name of names) this.cuts.delete(name);
    this.apply();
    if (this.cuts.size > 0) return;
    for (const timer of this.timers) clearTimeout(timer);
    this.timers.clear();
    closeHalfDead();
  }

  private apply(): void {
    for (const [socket, name] of this.sockets) socket.cut(this.isCut(name, 'in'), this.isCut(name, 'out'));
    for (const then of this.healed) if (!this.cuts.has(COORDINATOR)) then();
  }

  /** Whether what comes from there (`in`), or goes there (`out`), is lost. */
  isCut(name: string, way: 'in' | 'out'): boolean {
    return this.cuts.get(name)?.[way] ?? false;
  }

  /** A connection with a node, or with `CLIENTS`: cut with it from now on. */
  hold(socket: Socket, name: string): void {
    const held = new CutSocket(socket);
    this.sockets.set(held, name);
    socket.once('close', () => this.sockets.delete(held));
    held.cut(this.isCut(name, 'in'), this.isCut(name, 'out'));
  }

  /** The same coordinator, that can be cut off. */
  coordinator(inner: Coordinator, deadlineMs: number): Coordinator {
    const onHealed = (then: () => void): (() => void) => {
      this.healed.add(then);
      return () => this.healed.delete(then);
    };
    return new CutCoordinator(inner, { isCut: (way) => this.isCut(COORDINATOR, way), onHealed }, deadlineMs);
  }
}

function namesOf({ from }: Fields): string[] {
  if (Array.isArray(from) && from.length > 0 && from.length <= MAX_FROM) {
    return from.map((_, i) => textField(from as unknown as Fields, String(i)));
  }
  const detail = `from is not a list of 1 to ${MAX_FROM} names`;
  throw new HoldfastError('INVALID_ARGUMENT', { operation: 'fault', detail });
}

function wayOf(cut: Cut): (typeof WAYS)[number] {
  return cut.in && cut.out ? 'both' : cut.in ? 'in' : 'out';
}

function checkName(what: string, name: string, known: readonly string[]): void {
  if (known.includes(name)) return;
  const detail = `"${name}" is no ${what} that is known here. There are: ${known.join(', ') || 'none'}`;
  throw new HoldfastError('INVALID_ARGUMENT', { operation: 'fault', detail });
}
