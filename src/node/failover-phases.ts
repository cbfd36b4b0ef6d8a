/**
 * How long each part of a failover took, put together on the new primary from what its replica logs on the way.
 *
 * Guarantees: what is not known is null, never guessed; an attempt that came to nothing is not mixed up with a later one;
 * what is remembered is bounded by volumes and nodes.
 */
export interface FailoverPhases {
  /** From the last word of the former primary to the end of its stream, or to the suspicion that ended it. */
  lastHeardMs: number | null;
  /** From there to the first call to the coordinator. */
  suspectedMs: number | null;
  /** Until the register named this node. */
  registerMs: number | null;
  /** Until it served. */
  openMs: number | null;
  /** Of those that are known. */
  total: number;
}

export interface Failover {
  from: string;
  /** The former primary gave it up by itself. */
  resigned: boolean;
  phases: FailoverPhases;
}

interface Attempt {
  was: string;
  heardAtMs: number | null;
  soughtAtMs: number;
  wonAtMs: number | null;
}

export class FailoverWatch {
  private readonly node: string;
  private readonly ends: Map<string, { atMs: number; resigned: boolean }> = new Map();
  private readonly attempts: Map<string, Attempt> = new Map();

  constructor(node: string) {
    this.node = node;
  }

  /** The stream between this replica and another one's ended. */
  streamEnded(volume: string, other: string, atMs: number, resigned: boolean): void {
    // What ended it is told first; that it has ended then follows.
    const known = this.ends.get(`${volume} ${other}`);
    if (known !== undefined && atMs - known.atMs < SAME_END_MS) return;
    this.ends.set(`${volume} ${other}`, { atMs, resigned });
  }

  /** @param silentMs since the last word of the primary; Infinity: it has resigned */
  seeking(volume: string, was: string, silentMs: number, atMs: number): void {
    const heardAtMs = Number.isFinite(silentMs) ? atMs - silentMs : null;
    const known = this.attempts.get(volume);
    const same = known?.was === was && (heardAtMs === null || heardAtMs <= known.soughtAtMs);
    if (!same) this.attempts.set(volume, { was, heardAtMs, soughtAtMs: atMs, wonAtMs: null });
  }

  won(volume: string, atMs: number): void {
    const attempt = this.attempts.get(volume);
    if (attempt !== undefined) attempt.wonAtMs = atMs;
  }

  /** @returns null: no other node was primary before */
  open(volume: string, atMs: number): Failover | null {
    const attempt = this.attempts.get(volume);
    this.attempts.delete(volume);
    if (attempt === undefined || attempt.was === '' || attempt.was === this.node) return null;
    const { was, heardAtMs, soughtAtMs, wonAtMs } = attempt;
    const end = this.ends.get(`${volume} ${was}`);
    const known =
      end !== undefined && end.atMs <= soughtAtMs && (heardAtMs === null || end.atMs >= heardAtMs - READ_BEHIND_MS);
    const lostAtMs = known ? end.atMs : heardAtMs;
    const span = (from: number | null, to: number | null): number | null =>
      from === null || to === null ? null : Math.max(0, Math.round(to - from));
    const parts = {
      lastHeardMs: known ? span(heardAtMs, end.atMs) : null,
      suspectedMs: span(lostAtMs, soughtAtMs),
      registerMs: span(soughtAtMs, wonAtMs),
      openMs: span(wonAtMs, atMs),
    };
    const total = Object.values(parts).reduce<number>((sum, ms) => sum + (ms ?? 0), 0);
    return { from: was, resigned: known && end.resigned, phases: { ...parts, total } };
  }

  forget(volume: string): void {
    this.attempts.delete(volume);
  }
}

const SAME_END_MS = 50;
/** The silence is told in whole milliseconds, and words that came before the end may be read behind it. */
const READ_BEHIND_MS = 100;
