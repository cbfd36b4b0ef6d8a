/**
 * What has happened on this node, for people: the newest entries, numbered.
 *
 * Guarantees: at most KEPT entries are kept, texts and fields are cut to a bound; numbers grow by one from 1 at each start
 * of the node; whoever listens hears each entry once, in order.
 */
export const KEPT = 1000;
const MAX_TEXT = 300;
/** Of the fields as JSON; more than that is left out. */
const MAX_FIELDS = 1000;

export interface Happening {
  id: number;
  /** Wall clock. */
  atMs: number;
  node: string;
  /** Empty: it is about the node. */
  volume: string;
  kind: string;
  text: string;
  fields: Record<string, unknown>;
}

export class Timeline {
  readonly node: string;
  private readonly wallMs: () => number;
  private readonly kept: Happening[] = [];
  private readonly listeners: Set<(happening: Happening) => void> = new Set();
  private readonly counted: Map<string, { volume: string; kind: string; count: number }> = new Map();
  private last = 0;

  constructor(node: string, wallMs: () => number = Date.now) {
    this.node = node;
    this.wallMs = wallMs;
  }

  get newest(): number {
    return this.last;
  }

  add(volume: string, kind: string, text: string, fields: Record<string, unknown> = {}): void {
    const short = JSON.stringify(fields).length <= MAX_FIELDS ? fields : { cut: true };
    const { node } = this;
    const cut = text.slice(0, MAX_TEXT);
    const happening = { id: ++this.last, atMs: this.wallMs(), node, volume, kind, text: cut, fields: short };
    this.kept.push(happening);
    if (this.kept.length > KEPT) this.kept.shift();
    this.count(volume, kind);
    for (const listener of this.listeners) listener(happening);
  }

  /** Kinds are few, and volumes are bounded by the node. */
  private count(volume: string, kind: string): void {
    const key = `${kind} ${volume}`;
    const known = this.counted.get(key);
    if (known !== undefined) known.count++;
    else if (this.counted.size < 20 * KEPT) this.counted.set(key, { volume, kind, count: 1 });
  }

  /** How often each has happened since the start. */
  counts(): Array<{ volume: string; kind: string; count: number }> {
    return [...this.counted.values()];
  }

  /** Those that are kept and came after `id`, the oldest first, at most `limit`: the first of them. */
  after(id: number, limit: number = KEPT): Happening[] {
    const first = this.last - this.kept.length + 1;
    const from = Math.max(0, id + 1 - first);
    return this.kept.slice(from, from + limit);
  }

  /** @returns what ends it */
  listen(listener: (happening: Happening) => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }
}
