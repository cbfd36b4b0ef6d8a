/**
 * Order among operations on overlapping blocks. Pure.
 *
 * An operation waits for the earlier ones that it conflicts with, and for no other: a read for the newest write on its
 * blocks, a write (the application of a record) for the newest write and for the reads since. Because every operation
 * waits only for earlier ones, there is no cycle.
 *
 * Guarantees: overlapping writes run in the order in which they were taken (I6); a read never overlaps the application
 * of a write; each operation's `run` is called exactly once, possibly before `read` or `unhold` returns.
 */

export interface Operation<T> {
  readonly first: number;
  readonly count: number;
  /** What a write is about: the record to be applied. Null for a read. */
  readonly subject: T | null;
}

interface Op<T> extends Operation<T> {
  run: () => void;
  /** Earlier operations that are not finished, and the hold of a write. */
  waits: number;
  followers: Array<Op<T>> | null;
}

interface BlockState<T> {
  writer: Op<T> | null;
  readers: Array<Op<T>>;
}

export class RangeLock<T> {
  private readonly blocks: Map<number, BlockState<T>> = new Map();
  private readonly readsWait: boolean;

  /** @param readsWait reads wait for writes: always, but in a test that wants to see what happens without */
  constructor(readsWait = true) {
    this.readsWait = readsWait;
  }

  /** Blocks that some operation is on. */
  get busyBlocks(): number {
    return this.blocks.size;
  }

  /** A shared operation: runs as soon as no earlier write is on its blocks. */
  read(first: number, count: number, run: () => void): Operation<T> {
    const op: Op<T> = { first, count, subject: null, run, waits: 0, followers: null };
    for (let block = first; block < first + count; block++) {
      const state = this.stateOf(block);
      if (state.writer !== null && this.readsWait) follow(state.writer, op);
      state.readers.push(op);
    }
    if (op.waits === 0) run();
    return op;
  }

  /** An exclusive operation. It is held back besides until `unhold`: a record waits for its commit. */
  write(first: number, count: number, subject: T, run: () => void): Operation<T> {
    const op: Op<T> = { first, count, subject, run, waits: 1, followers: null };
    for (let block = first; block < first + count; block++) {
      const state = this.stateOf(block);
      if (state.writer !== null) follow(state.writer, op);
      for (const reader of state.readers) follow(reader, op);
      state.writer = op;
      // Whoever follows this write need not follow the reads before it.
      if (state.readers.length > 0) state.readers = [];
    }
    return op;
  }

  unhold(operation: Operation<T>): void {
    settle(operation as Op<T>);
  }

  /** The operation is over: those that wait for it go on. */
  finish(operation: Operation<T>): void {
    const op = operation as Op<T>;
    for (let block = op.first; block < op.first + op.count; block++) {
      const state = this.blocks.get(block);
      // A newer one was given up before this one ended: nothing is known of the block any more.
      if (state === undefined) continue;
      if (state.writer === op) state.writer = null;
      else if (op.subject === null) {
        const at = state.readers.indexOf(op);
        if (at >= 0) state.readers.splice(at, 1);
      }
      if (state.writer === null && state.readers.length === 0) this.blocks.delete(block);
    }
    if (op.followers !== null) for (const follower of op.followers) settle(follower);
    op.followers = null;
  }

  /** The newest write that is taken and not finished on a block, or null. */
  newestWrite(block: number): T | null {
    return this.blocks.get(block)?.writer?.subject ?? null;
  }

  private stateOf(block: number): BlockState<T> {
    let state = this.blocks.get(block);
    if (state === undefined) this.blocks.set(block, (state = { writer: null, readers: [] }));
    return state;
  }
}

function follow<T>(earlier: Op<T>, later: Op<T>): void {
  later.waits++;
  (earlier.followers ??= []).push(later);
}

function settle<T>(op: Op<T>): void {
  if (--op.waits === 0) op.run();
}
