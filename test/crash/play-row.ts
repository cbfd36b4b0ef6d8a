/** Plays one row of the matrix, and says what came of it. A row that nothing fired in is wrong. */
import type { Matrix } from './matrix.ts';
import { plays } from './plays.ts';
import type { Row, Variant } from './rows.ts';

export interface RowResult {
  id: string;
  text: string;
  fired: number;
  /** The longest that one write has waited. */
  longestWriteMs: number;
  elapsedMs: number;
  /** Null: the row holds. */
  wrong: string | null;
}

/** A row: its first variants, or all of them. Afterwards all is in sync again, or `wrong` says what is not. */
export async function playRow(matrix: Matrix, row: Row, which: 'quick' | 'all'): Promise<RowResult> {
  const startedMs = performance.now();
  const firedBefore = matrix.fired;
  matrix.load.longestWaitMs = 0;
  let wrong: string | null = null;
  const variants = which === 'all' ? row.variants : row.variants.slice(0, row.quick ?? 1);
  for (const variant of variants) {
    wrong = await playOne(matrix, variant).catch((error: Error) => `${nameOf(variant)}: ${error.message}`);
    if (wrong !== null) break;
  }
  const fired = matrix.fired - firedBefore;
  if (fired < variants.length) wrong ??= `fired ${fired} times of ${variants.length}`;
  return {
    id: row.id,
    text: row.text,
    fired,
    longestWriteMs: Math.round(matrix.load.longestWaitMs),
    elapsedMs: Math.round(performance.now() - startedMs),
    wrong,
  };
}

async function playOne(matrix: Matrix, variant: Variant): Promise<null> {
  matrix.shots.begin();
  await matrix.load.more(20);
  await plays[variant.play](matrix, variant.point!);
  await matrix.untilSafe();
  await matrix.load.more(30);
  await matrix.shots.settle(matrix.volume);
  await matrix.scattered.check(matrix.volume);
  return null;
}

function nameOf({ play, point }: Variant): string {
  return point === undefined ? play : `${play} at ${point}`;
}
