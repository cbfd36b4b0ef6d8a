/**
 * A client of a simulated cluster: it calls under a session, one request after another, repeats what was not answered,
 * and notes what it did and saw.
 */
import { HoldfastError } from '../../src/base/errors.ts';
import type { Position } from '../../src/base/position.ts';
import { BLOCK_BYTES } from '../../src/base/units.ts';
import type { PrimaryVolume } from '../../src/replication/primary-volume.ts';
import type { Attachment, ServedVolume } from '../../src/replication/served-volume.ts';
import type { MarkChange } from '../../src/storage/marks.ts';
import type { Cluster } from './cluster.ts';
import { CELLS_PER_BLOCK, CELL_BYTES, type Histories, type KnownMark } from './histories.ts';
import type { BlockOp } from './linearizable.ts';
import type { SimNode } from './sim-node.ts';
import type { World } from './world.ts';

/** Some wait so long for an answer, and get the answers of machines that slept. */
const LONG_PATIENCE_MS = 5000;
const MAX_KNOWN_MARKS = 4;
const WORDS = CELL_BYTES / 4;

/** What clients do, in shares of 1. */
export interface Habits {
  /** Blocks from 0 on that most requests are about. */
  hotBlocks: number;
  /** Up to so long between two requests. */
  thinkMs: number;
  /** Who hears nothing for so long tries again elsewhere; a share waits longer. */
  patienceMs: number;
  patientShare: number;
  writeShare: number;
  /** Of the changes: not whole blocks; zeroed or trimmed; long; anywhere in the volume. */
  oddShare: number;
  zeroShare: number;
  longShare: number;
  anywhereShare: number;
  maxBlocks: number;
  markShare: number;
  extentsShare: number;
  /** An answer gets lost. */
  lossShare: number;
  /** A change that was not answered in time is not repeated. */
  abandonShare: number;
  /** Another node that serves is looked for before a request: of those that believe they do, any. */
  roamShare: number;
  /** A read goes to a backup. */
  backupShare: number;
}

export const HABITS: Habits = {
  hotBlocks: 24,
  thinkMs: 12,
  patienceMs: 350,
  patientShare: 0.3,
  writeShare: 0.5,
  oddShare: 0.15,
  zeroShare: 0.1,
  longShare: 0.05,
  anywhereShare: 0,
  maxBlocks: 16,
  markShare: 0.01,
  extentsShare: 0.05,
  lossShare: 0.02,
  abandonShare: 0.1,
  roamShare: 0.02,
  backupShare: 0.2,
};

type Call<T> = (volume: PrimaryVolume, node: SimNode, done: (error: HoldfastError | null, value?: T) => void) => void;

export class Client {
  private readonly name: string;
  private readonly cluster: Cluster;
  private readonly habits: Habits;
  private readonly histories: Histories;
  private session: bigint;
  private generation = 0;
  private since: Position | null = null;
  private request = 0;
  private volume: PrimaryVolume | null = null;
  private node: SimNode | null = null;
  private attachment: Attachment | null = null;
  answered = 0;
  stopAtMs = Infinity;
  idle = false;

  constructor(cluster: Cluster, habits: Habits, histories: Histories, session: bigint) {
    this.cluster = cluster;
    this.habits = habits;
    this.name = `client ${session}`;
    this.histories = histories;
    this.session = session;
  }

  private get world(): World {
    return this.cluster.world;
  }

  start(): void {
    this.next();
  }

  private next(): void {
    const { world, habits } = this;
    if (world.nowMs >= this.stopAtMs) {
      this.idle = true;
      return;
    }
    world.after(world.random.next() * habits.thinkMs, () => {
      const { random } = world;
      if (random.chance(habits.roamShare)) this.leave();
      if (random.chance(habits.markShare)) return this.mark();
      const most = random.chance(habits.longShare) ? habits.maxBlocks : 4;
      const within = random.chance(habits.anywhereShare) ? this.cluster.blocks : habits.hotBlocks;
      const count = random.chance(0.7) ? 1 : 1 + random.below(Math.min(most, within));
      const first = random.below(within - count + 1);
      if (random.chance(habits.writeShare)) this.change(first, count);
      else if (random.chance(habits.extentsShare)) this.extents(first, count);
      else if (random.chance(habits.backupShare)) this.readAtBackup(first, count);
      else this.read(first, count);
    });
  }

  // --- calls, until an answer comes ----------------------------------------------------------------------------------

  /** @param given a change is given up instead of repeated */
  private attempt<T>(
    call: Call<T>,
    over: (error: HoldfastError | null, value?: T) => void,
    given: (() => void) | null = null,
  ): void {
    const { world, habits } = this;
    let settled = false;
    const again = (): void => {
      if (settled) return;
      settled = true;
      this.leave();
      if (given !== null && world.random.chance(habits.abandonShare)) return given();
      world.after(20 + world.random.next() * 60, () => this.attempt(call, over, given));
    };
    world.after(world.random.chance(habits.patientShare) ? LONG_PATIENCE_MS : habits.patienceMs, again);
    this.attached((error) => {
      if (settled) return;
      if (error?.code === 'OUTCOME_UNKNOWN') {
        settled = true;
        return over(error);
      }
      if (error !== null) return again();
      const { volume, node } = this;
      node!.receive(() => {
        if (settled || this.volume !== volume || node!.volume !== volume) return;
        call(volume!, node!, (failure, value) => {
          // The answer of a process that died, or serves no more, does not arrive.
          if (settled || node!.volume !== volume || this.volume !== volume) return;
          if (failure !== null) this.cluster.met(node!, failure);
          if (failure !== null && (failure.retryable || failure.code === 'STALE_GENERATION')) return again();
          if (world.random.chance(habits.lossShare)) return again();
          settled = true;
          over(failure, value);
        });
      });
    });
  }

  private leave(): void {
    if (this.attachment !== null && this.node!.volume === this.volume) this.volume!.detach(this.attachment);
    this.volume = null;
    this.attachment = null;
  }

  private attached(then: (error: HoldfastError | null) => void): void {
    if (this.volume !== null && this.node!.volume === this.volume) return then(null);
    const serving = this.cluster.nodes.filter((node) => node.volume !== null);
    if (serving.length === 0) return then(new HoldfastError('UNREACHABLE'));
    const node = serving[this.world.random.below(serving.length)]!;
    const volume = node.volume!;
    const generation = ++this.generation;
    const { session } = this;
    const stale = (): boolean => session !== this.session || generation !== this.generation;
    node.receive(() => {
      if (node.volume !== volume || stale()) return then(new HoldfastError('UNREACHABLE'));
      volume.attach(
        session,
        generation,
        this.since,
        () => {},
        (error, attachment) => {
          // It came too late: this client speaks through another attachment, or for another session.
          if (stale()) return then(new HoldfastError('UNREACHABLE'));
          if (error !== null) return then(error);
          this.since ??= volume.info().position;
          this.node = node;
          this.volume = volume;
          this.attachment = attachment;
          then(null);
        },
      );
    });
  }

  /** What came of the requests before is not known, and not asked for any more. */
  private newSession(): void {
    this.session += 1000n;
    this.generation = 0;
    this.since = null;
    this.request = 0;
  }

  /** A request that changes something; `effect` notes that it is committed, whether the client hears of it or not. */
  private changing(call: Call<void>, effect: () => void, then: (error: HoldfastError | null) => void = () => {}): void {
    this.attempt<void>(
      (volume, node, done) =>
        call(volume, node, (error) => {
          if (error === null && node.volume === volume) effect();
          done(error);
        }),
      (error) => {
        if (error?.code === 'OUTCOME_UNKNOWN') this.newSession();
        else if (error === null) this.answered++;
        else this.world.note(`${this.name}: a change failed: ${error.message}`);
        then(error);
        this.next();
      },
      () => {
        this.newSession();
        this.next();
      },
    );
  }

  // --- blocks ----------------------------------------------------------------------------------------------------------

  private change(firstBlock: number, blocks: number): void {
    const { world, habits } = this;
    const { random } = world;
    let first = firstBlock * CELLS_PER_BLOCK;
    let cells = blocks * CELLS_PER_BLOCK;
    if (random.chance(habits.oddShare)) {
      // Without its first half or its last one, perhaps both.
      const cut = cells > 2 ? 1 + random.below(3) : 1 + random.below(2);
      if ((cut & 1) !== 0) [first, cells] = [first + 1, cells - 1];
      if ((cut & 2) !== 0) cells--;
    }
    const zeroing = random.chance(habits.zeroShare);
    const trimming = zeroing && random.chance(0.5);
    const [from, count] = trimming ? wholeBlocks(first, cells) : [first, cells];
    const value = zeroing ? 0 : this.histories.value();
    const request = ++this.request;
    const ops = Array.from({ length: count }, () => this.op('write', value));
    ops.forEach((op, i) => this.histories.cells[from + i]!.push(op));
    const calledMs = world.nowMs;
    const [offset, length] = [first * CELL_BYTES, cells * CELL_BYTES];
    this.changing(
      (volume, node, done) => {
        if (trimming) return volume.trim(this.attachment, request, offset, length, done);
        if (zeroing) return volume.zero(this.attachment, request, offset, length, done);
        const head = offset % BLOCK_BYTES;
        const slot = node.disk!.arena.take(Math.ceil((head + length) / BLOCK_BYTES));
        if (slot === null) return;
        new Uint32Array(slot.payload.buffer, slot.payload.byteOffset + head, cells * WORDS).fill(value);
        volume.write(this.attachment, request, offset, length, slot, false, done);
      },
      () => {
        // A repetition must not take effect again: the effect lies before the first answer.
        for (const op of ops) op.answeredMs = Math.min(op.answeredMs, world.nowMs);
        this.histories.acknowledged(from, count, calledMs);
      },
    );
  }

  private op(kind: BlockOp['kind'], value: number): BlockOp {
    return { kind, value, calledMs: this.world.nowMs, answeredMs: Infinity, who: this.name };
  }

  private saw(first: number, values: readonly number[], calledMs: number): void {
    this.answered++;
    values.forEach((value, i) => {
      const op: BlockOp = { ...this.op('read', value), calledMs, answeredMs: this.world.nowMs };
      this.histories.cells[first + i]!.push(op);
    });
  }

  private read(first: number, count: number): void {
    const called = this.world.nowMs;
    this.attempt<number[]>(
      (volume, node, done) => readFrom(volume, node, first, count, done),
      (error, values) => {
        if (error === null) this.saw(first * CELLS_PER_BLOCK, values!, called);
        else this.world.note(`${this.name}: a read failed: ${error.message}`);
        this.next();
      },
    );
  }

  /** A backup that serves reads, or thinks so; who hears nothing for long asks the primary. */
  private readAtBackup(first: number, count: number): void {
    const { world } = this;
    const called = world.nowMs;
    const backups = this.cluster.nodes.filter(({ backup }) => backup !== null);
    const node = backups[world.random.below(Math.max(1, backups.length))];
    if (node === undefined) return this.read(first, count);
    const volume = node.backup!;
    let over = false;
    const elsewhere = (): void => {
      if (over) return;
      over = true;
      this.read(first, count);
    };
    world.after(this.habits.patienceMs, elsewhere);
    node.receive(() => {
      if (over || node.backup !== volume) return elsewhere();
      readFrom(volume, node, first, count, (error, values) => {
        if (over || node.backup !== volume) return;
        if (error !== null) {
          this.cluster.met(node, error);
          return elsewhere();
        }
        over = true;
        this.saw(first * CELLS_PER_BLOCK, values!, called);
        this.next();
      });
    });
  }

  /** A hole is seen as a read of zeros. */
  private extents(first: number, count: number): void {
    const called = this.world.nowMs;
    this.attempt<number[]>(
      (volume, _node, done) => {
        try {
          const found = volume.extents(first * BLOCK_BYTES, count * BLOCK_BYTES, 64);
          done(
            null,
            found.flatMap(({ kind, offsetBytes, lengthBytes }) =>
              kind === 'hole'
                ? Array.from({ length: lengthBytes / BLOCK_BYTES }, (_, i) => offsetBytes / BLOCK_BYTES + i)
                : [],
            ),
          );
        } catch (error) {
          done(error as HoldfastError);
        }
      },
      (error, holes) => {
        for (const block of holes ?? []) {
          this.saw(
            block * CELLS_PER_BLOCK,
            Array.from({ length: CELLS_PER_BLOCK }, () => 0),
            called,
          );
        }
        if (error !== null) this.world.note(`${this.name}: extents failed: ${error.message}`);
        this.next();
      },
    );
  }

  // --- marks -----------------------------------------------------------------------------------------------------------

  private mark(): void {
    const { marks } = this.histories;
    const known = marks.filter((mark) => mark.setAnsweredMs !== Infinity && !mark.deleteCalled);
    const one = known[this.world.random.below(Math.max(1, known.length))];
    if (one !== undefined && this.world.random.chance(0.5)) return this.changes(one);
    const underWay = marks.filter((mark) => !mark.deleteAnswered).length;
    if (underWay < MAX_KNOWN_MARKS) return this.setMark(`m${this.histories.value()}`);
    if (one === undefined) return this.next();
    one.deleteCalled = true;
    this.changeMark({ action: 'delete', name: one.name }, () => (one.deleteAnswered = true));
  }

  private setMark(name: string): void {
    const mark: KnownMark = {
      name,
      setAnsweredMs: Infinity,
      deleteCalled: false,
      deleteAnswered: false,
      changed: new Set(),
    };
    this.histories.marks.push(mark);
    this.changeMark({ action: 'set', name }, () => {
      mark.setAnsweredMs = Math.min(mark.setAnsweredMs, this.world.nowMs);
    });
  }

  private changeMark(change: MarkChange, effect: () => void): void {
    const request = ++this.request;
    this.changing(
      (volume, _node, done) => volume.mark(this.attachment, request, change, done),
      effect,
      (error) => {
        // Each name is set once and deleted once.
        const strange = error?.code === 'EXISTS' || error?.code === 'INVALID_ARGUMENT';
        if (strange) this.cluster.fail(`${this.name}: to ${change.action} mark ${change.name}: ${error.message}`);
      },
    );
  }

  /** What was acknowledged before this is asked for must be named. */
  private changes(mark: KnownMark): void {
    const must = [...mark.changed];
    const lengthBytes = this.cluster.blocks * BLOCK_BYTES;
    this.attempt<Set<number>>(
      (volume, _node, done) => {
        const named = new Set<number>();
        try {
          for (const { offsetBytes, lengthBytes: bytes, changed } of volume.changes(mark.name, 0, lengthBytes, 4096)) {
            for (let at = offsetBytes; changed && at < offsetBytes + bytes; at += BLOCK_BYTES)
              named.add(at / BLOCK_BYTES);
          }
          done(null, named);
        } catch (error) {
          done(error as HoldfastError);
        }
      },
      (error, named) => {
        const lacks = must.filter((block) => error === null && !named!.has(block));
        if (lacks.length > 0) {
          const { node, name } = this;
          this.cluster.fail(
            `${name}: ${node?.name} says that blocks ${lacks.join()} did not change since ${mark.name}`,
          );
        }
        this.next();
      },
    );
  }
}

/** Reads whole blocks; what it gives is a value per cell, -1 for half of one and half of another. */
function readFrom(
  volume: ServedVolume,
  node: SimNode,
  first: number,
  count: number,
  done: (error: HoldfastError | null, values?: number[]) => void,
): void {
  const { arena } = node.disk!;
  const slot = arena.take(count);
  if (slot === null) return;
  volume.read(first * BLOCK_BYTES, count * BLOCK_BYTES, slot, (error) => {
    const cells = count * CELLS_PER_BLOCK;
    const words = new Uint32Array(slot.payload.buffer, slot.payload.byteOffset, cells * WORDS);
    const values = Array.from({ length: cells }, (_, i) => (torn(words, i) ? -1 : words[i * WORDS]!));
    arena.release(slot);
    done(error, values);
  });
}

/** The cells of the whole blocks inside. */
function wholeBlocks(first: number, cells: number): [first: number, count: number] {
  const from = Math.ceil(first / CELLS_PER_BLOCK);
  const end = Math.floor((first + cells) / CELLS_PER_BLOCK);
  return [from * CELLS_PER_BLOCK, Math.max(0, end - from) * CELLS_PER_BLOCK];
}

function torn(words: Uint32Array, cell: number): boolean {
  const at = cell * WORDS;
  return words[at] !== words[at + WORDS - 1] || words[at] !== words[at + WORDS / 2];
}
