/**
 * The I/O workers of one process: one piscina pool, and three rings in front of it.
 *
 * Guarantees: one journal flusher and one thread for all other syncs, so that a slow fdatasync of `data` never queues in
 * front of a batch, and no file is synced from two threads; a worker that ends before it is told to is reported once
 * through `onLost` (the process is then to end: what the worker was doing is not known).
 */
import { MessageChannel } from 'node:worker_threads';
import { availableParallelism } from 'node:os';
import { Piscina } from 'piscina';
import { HoldfastError } from '../base/errors.ts';
import { Arena } from './arena.ts';
import { AwakeTime } from './awake-time.ts';
import { BUSY, IoRing, OPS, WORD } from './io-ring.ts';
import type { IoWorkerTask } from './io-worker.ts';
import { MAX_BATCH_RECORDS } from './layout.ts';
import { RunDelay } from './run-delay.ts';

const INLINE_PER_TURN = 64;

export interface IoPoolOptions {
  /** Memory for requests under way; default 96 MiB. */
  arenaBytes?: number;
  /** As much again for what other nodes send. */
  peers?: boolean;
  /** Threads that read and apply; default 2. */
  ioThreads?: number;
  onLost: (error: HoldfastError) => void;
}

/**
 * After something was submitted or completed the loop goes round for so long rather than sleep. To wake a sleeping
 * thread on another core takes 40 µs on a virtual machine; the next request is usually there sooner. Not where there
 * is only one core; shorter where others want the cores, unless it is set.
 */
const AWAKE_MS = availableParallelism() > 1 ? Number(process.env['HOLDFAST_AWAKE_US'] ?? 200) / 1000 : 0;
const CROWDED_MS = process.env['HOLDFAST_AWAKE_US'] === undefined ? 0.05 : AWAKE_MS;
const DEFAULT_ARENA_BYTES = 96 * 1024 * 1024;

export class IoPool {
  readonly arena: Arena;
  /** For what other nodes send, if this one has replicas. */
  readonly peerArena: Arena | null;
  /** Reads and applies. */
  readonly io: IoRing;
  /** Journal batches and their syncs: one worker. */
  readonly journal: IoRing;
  /** Syncs of the other files: one worker. */
  readonly sync: IoRing;
  private readonly busy: Array<{ name: string; words: Float64Array }> = [];
  private readonly pool: Piscina;
  private readonly tasks: Array<Promise<unknown>> = [];
  private readonly ports: Array<{ close(): void }> = [];
  private stopping = false;
  private announcing = false;
  private awake = false;
  /** Reads on this thread that this turn of the loop may still have. */
  private inlineLeft = INLINE_PER_TURN;
  private awakeUntilMs = 0;
  private readonly awakeTime: AwakeTime = new AwakeTime(AWAKE_MS, CROWDED_MS);
  private readonly runDelay: RunDelay = new RunDelay();

  constructor(options: IoPoolOptions) {
    const ioThreads = options.ioThreads ?? 2;
    const bytes = options.arenaBytes ?? DEFAULT_ARENA_BYTES;
    [this.arena, this.peerArena] = options.peers ? Arena.pair(bytes, bytes) : [new Arena(bytes), null];
    this.io = new IoRing(1024, 1);
    this.journal = new IoRing(4, MAX_BATCH_RECORDS + 4);
    this.sync = new IoRing(16, 1);
    const extension = import.meta.url.endsWith('.ts') ? 'ts' : 'js';
    this.pool = new Piscina({
      filename: new URL(`./io-worker.${extension}`, import.meta.url).href,
      minThreads: ioThreads + 2,
      maxThreads: ioThreads + 2,
      concurrentTasksPerWorker: 1,
      idleTimeout: Infinity,
      atomics: 'async',
    });
    const lost = (cause: unknown): void => {
      if (this.stopping) return;
      this.stopping = true;
      const detail = cause instanceof Error ? cause.message : 'it returned without being told to';
      options.onLost(new HoldfastError('WORKER_LOST', { operation: 'run I/O worker', detail, cause }));
    };
    const rings = [...Array.from({ length: ioThreads }, () => this.io), this.journal, this.sync];
    for (const [index, ring] of rings.entries()) {
      const busy = new SharedArrayBuffer(BUSY.WORDS * 8);
      const name = ring === this.io ? `io${index}` : ring === this.journal ? 'journal' : 'sync';
      this.busy.push({ name, words: new Float64Array(busy) });
      const { port1, port2 } = new MessageChannel();
      port1.on('message', () => this.drain(ring));
      this.ports.push(port1);
      const task: IoWorkerTask = { ring: ring.memory, arena: this.arena.memory, port: port2, busy };
      const run: Promise<unknown> = this.pool.run(task, { transferList: [port2] });
      this.tasks.push(run.then(() => lost(null), lost));
    }
  }

  /** Whether one connection alone is active; set by whoever has the connections. */
  isLone: () => boolean = () => false;

  /** Whether a short read may be made on this thread now. */
  mayReadInline(): boolean {
    if (this.io.inFlight > 0 || AWAKE_MS === 0 || !this.isLone() || this.inlineLeft === 0) return false;
    this.inlineLeft--;
    this.stayAwake();
    return true;
  }

  /** To be called after submitting: everything submitted in this turn reaches the workers in one go. */
  announceSoon(): void {
    if (this.announcing) return;
    this.announcing = true;
    queueMicrotask(() => {
      this.announcing = false;
      this.announceNow();
    });
  }

  private announceNow(): void {
    this.io.announce();
    this.journal.announce();
    this.sync.announce();
    this.stayAwake();
  }

  private drain(ring: IoRing): void {
    ring.drain();
    this.announceNow();
  }

  private stayAwake(): void {
    if (AWAKE_MS === 0) return;
    this.awakeUntilMs = performance.now() + this.awakeTime.ms;
    if (this.awake || this.stopping) return;
    this.awake = true;
    setImmediate(this.turn);
  }

  /** A turn of the loop while it stays awake: workers need not post messages, sockets are looked at besides. */
  private readonly turn = (): void => {
    this.inlineLeft = INLINE_PER_TURN;
    if (this.io.look() + this.journal.look() > 0) this.announceNow();
    const nowMs = performance.now();
    if (CROWDED_MS < AWAKE_MS && this.awakeTime.isDue(nowMs)) {
      const waitedMs = this.runDelay.readMs();
      if (waitedMs !== null) this.awakeTime.look(nowMs, waitedMs);
    }
    if (nowMs < this.awakeUntilMs) {
      setImmediate(this.turn);
      return;
    }
    this.awake = false;
    if (this.io.drain() + this.journal.drain() > 0) this.announceNow();
  };

  /** What each worker has done since it was started. */
  workers(): Array<{ worker: string; operations: number; busyMs: number }> {
    return this.busy.map(({ name, words }) => {
      return { worker: name, operations: words[BUSY.OPERATIONS]!, busyMs: words[BUSY.MS]! };
    });
  }

  /** Operations under way. */
  get inFlight(): number {
    return this.io.inFlight + this.journal.inFlight + this.sync.inFlight;
  }

  /** Stops the workers after what they were given. */
  async close(): Promise<void> {
    if (!this.stopping) {
      this.stopping = true;
      const stop = (ring: IoRing): void =>
        ring.submit(
          (views, word) => {
            views.words[word + WORD.OP] = OPS.STOP;
          },
          () => {},
        );
      const ioThreads = this.tasks.length - 2;
      for (let i = 0; i < ioThreads; i++) stop(this.io);
      stop(this.journal);
      stop(this.sync);
      this.announceNow();
      await Promise.all(this.tasks);
      for (const ring of [this.io, this.journal, this.sync]) ring.drain();
    }
    this.runDelay.close();
    for (const port of this.ports) port.close();
    await this.pool.destroy();
  }
}
