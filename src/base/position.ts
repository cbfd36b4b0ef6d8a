/** Positions in the log of a volume: pairs (epoch, seq), compared epoch first. */
export interface Position {
  epoch: number;
  seq: number;
}

export function comparePositions(a: Position, b: Position): number {
  return a.epoch - b.epoch || a.seq - b.seq;
}

export const ORIGIN: Position = { epoch: 0, seq: 0 };
