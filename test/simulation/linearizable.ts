/**
 * Whether the history of one register could have happened one operation after another, in real time order. Values need
 * not be unique: zeros are written again and again. Calls and answers are gone through in order of time, with every
 * state that the register may be in (Lowe's just-in-time linearization); an operation takes its place at the latest when
 * its answer comes.
 *
 * A write of unknown outcome may take effect at any time after its call, or never (as in Jepsen). A value may fade: from
 * a time on it may turn into 0 by itself.
 */

export interface BlockOp {
  /** `change`: what is there afterwards depends on what was there. */
  kind: 'read' | 'write' | 'change';
  /** 0: zeros, or nothing, as before the first write. Of a change: what tells it from others. */
  value: number;
  /** Of a change: what it makes of that value; null: it cannot have found it. */
  apply?: (before: number) => number | null;
  /** Of a change: the value that it is known to have found. */
  found?: number;
  /** Its effect may be seen otherwise than by the value. */
  adds?: boolean;
  /** It changed nothing, because something else was there. */
  refusal?: boolean;
  calledMs: number;
  /** Infinity: no answer came. */
  answeredMs: number;
  who: string;
}

/** What the register may hold, and which of the operations under way have had their effect by then. */
interface State {
  value: number;
  done: number;
}

/** Operations that may be under way on one register at once; one bit each. */
const MAX_UNDER_WAY = 30;

/** From when on a value may turn into 0 by itself. */
export type Fades = ReadonlyMap<number, number>;

/** Values that somebody has seen. */
export function seenIn(history: readonly BlockOp[]): Set<number | undefined> {
  return new Set(history.map(({ kind, value, found }) => (kind === 'read' ? value : found)));
}

/** @returns what is wrong, or null */
export function violation(history: readonly BlockOp[], fades: Fades = new Map()): string | null {
  const seen = seenIn(history);
  // What nobody saw need not have happened: neither a write without an answer, nor a read.
  const matters = ({ kind, value, adds }: BlockOp): boolean =>
    kind !== 'read' && (adds === true || seen.has(value) || (fades.has(value) && seen.has(0)));
  const ops = history.filter((op) => op.answeredMs !== Infinity || matters(op));
  const events = ops.flatMap((op) => [
    { atMs: op.calledMs, call: true, op },
    { atMs: op.answeredMs, call: false, op },
  ]);
  events.sort((a, b) => a.atMs - b.atMs || Number(b.call) - Number(a.call));
  const underWay: Array<BlockOp | null> = [];
  let states: State[] = [{ value: 0, done: 0 }];
  for (const { atMs, call, op } of events) {
    if (atMs === Infinity) break;
    if (call) {
      const free = underWay.indexOf(null);
      const place = free < 0 ? underWay.length : free;
      if (place >= MAX_UNDER_WAY) throw new Error(`more than ${MAX_UNDER_WAY} operations at once: ${show(op)}`);
      underWay[place] = op;
      continue;
    }
    const place = underWay.indexOf(op);
    const bit = 1 << place;
    states = answered(states, underWay, bit, (value) => (fades.get(value) ?? Infinity) <= atMs);
    if (states.length === 0) return `${show(op)} cannot be: ${around(ops, op)}`;
    // Over, too: writes without an answer that have had their effect in every state.
    const over = states.reduce((mask, { done }) => mask & done, bit | neverAnswered(underWay));
    for (const state of states) state.done &= ~over;
    underWay.forEach((_, i) => (over & (1 << i)) !== 0 && (underWay[i] = null));
  }
  return null;
}

/** Bits of the writes under way that no answer will come of. */
function neverAnswered(underWay: ReadonlyArray<BlockOp | null>): number {
  return underWay.reduce((mask, op, i) => (op?.answeredMs === Infinity ? mask | (1 << i) : mask), 0);
}

/** The states in which the operation of that bit has had its effect. */
function answered(
  states: State[],
  underWay: ReadonlyArray<BlockOp | null>,
  bit: number,
  fades: (value: number) => boolean,
): State[] {
  const found: Map<string, State> = new Map();
  const seen = new Set<string>();
  const visit = (before: State): void => {
    const { value } = before;
    let { done } = before;
    // A read of what is there takes its place at once: nothing is lost by it.
    underWay.forEach((op, i) => {
      if (op?.kind === 'read' && op.value === value) done |= 1 << i;
    });
    const key = `${value},${done}`;
    if (seen.has(key)) return;
    seen.add(key);
    if ((done & bit) !== 0) {
      found.set(key, { value, done });
      return;
    }
    if (fades(value)) visit({ value: 0, done });
    const tried = new Set<number>();
    underWay.forEach((op, i) => {
      if (op === null || op.kind === 'read' || (done & (1 << i)) !== 0) return;
      // Of writes of one value that no answer comes of, one is as good as another.
      if (op.answeredMs === Infinity && tried.has(op.value)) return;
      const after = op.kind === 'write' ? op.value : op.apply!(value);
      if (after === null) return;
      if (op.answeredMs === Infinity) tried.add(op.value);
      visit({ value: after, done: done | (1 << i) });
    });
  };
  for (const state of states) visit({ ...state });
  const unknown = neverAnswered(underWay);
  const all = [...found.values()];
  // Who has not yet used a write of unknown outcome can do all that others can, and use it later.
  return all.filter(
    (one) =>
      !all.some(
        (other) =>
          other !== one &&
          other.value === one.value &&
          (other.done & ~unknown) === (one.done & ~unknown) &&
          (other.done & one.done) === other.done,
      ),
  );
}

function around(ops: readonly BlockOp[], { answeredMs, value }: BlockOp): string {
  const near = ops.filter(
    (op) => op.calledMs <= answeredMs && (op.value === value || op.answeredMs > answeredMs - 300),
  );
  return near.slice(-24).map(show).join('; ');
}

function show({ kind, value, calledMs, answeredMs, who }: BlockOp): string {
  return `${who} ${kind} ${value} [${calledMs.toFixed(1)}, ${answeredMs.toFixed(1)}]`;
}
