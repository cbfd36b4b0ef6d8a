/**
 * Whether the history of one block could have happened one operation after another, in real time order. Every value is
 * written once, so Gibbons and Korach's zones decide it: per value, the stretch between the first answer and the last
 * call of the operations that wrote or read it.
 *
 * A write of unknown outcome may take effect at any time after its call, or never (as in Jepsen).
 */

export interface BlockOp {
  kind: 'read' | 'write';
  /** 0: never written. */
  value: number;
  calledMs: number;
  /** Infinity: no answer came. */
  answeredMs: number;
  who: string;
}

interface Zone {
  value: number;
  from: number;
  to: number;
  forward: boolean;
}

/** @returns what is wrong, or null */
export function violation(history: readonly BlockOp[]): string | null {
  const clusters = new Map<number, BlockOp[]>();
  clusters.set(0, [{ kind: 'write', value: 0, calledMs: -2, answeredMs: -1, who: 'format' }]);
  for (const op of history) if (op.kind === 'write') clusters.set(op.value, [op]);
  for (const op of history) {
    if (op.kind !== 'read' || op.answeredMs === Infinity) continue;
    const cluster = clusters.get(op.value);
    if (cluster === undefined) return `${show(op)}: nobody wrote that`;
    if (op.answeredMs < cluster[0]!.calledMs) return `${show(op)} came before ${show(cluster[0]!)}`;
    cluster.push(op);
  }
  const zones: Zone[] = [];
  for (const [value, ops] of clusters) {
    // A write that nobody read and nobody saw answered need not have happened.
    if (ops.length === 1 && ops[0]!.answeredMs === Infinity) continue;
    const firstAnswer = Math.min(...ops.map((op) => op.answeredMs));
    const lastCall = Math.max(...ops.map((op) => op.calledMs));
    const forward = firstAnswer < lastCall;
    zones.push({
      value,
      forward,
      from: Math.min(firstAnswer, lastCall),
      to: Math.max(firstAnswer, lastCall),
    });
  }
  const forward = zones.filter((zone) => zone.forward).sort((a, b) => a.from - b.from);
  for (let i = 1; i < forward.length; i++) {
    if (forward[i]!.from < forward[i - 1]!.to) return conflict(clusters, forward[i - 1]!, forward[i]!);
  }
  for (const inner of zones) {
    if (inner.forward) continue;
    const outer = forward.find(({ from, to }) => from < inner.from && inner.to < to);
    if (outer !== undefined) return conflict(clusters, outer, inner);
  }
  return null;
}

function conflict(clusters: Map<number, BlockOp[]>, a: Zone, b: Zone): string {
  const of = (zone: Zone): string => clusters.get(zone.value)!.map(show).join('; ');
  return `values ${a.value} and ${b.value} exclude each other: ${of(a)} | ${of(b)}`;
}

function show({ kind, value, calledMs, answeredMs, who }: BlockOp): string {
  return `${who} ${kind} ${value} [${calledMs.toFixed(1)}, ${answeredMs.toFixed(1)}]`;
}
