/**
 * What clients did and saw: one history per cell, which is half a block, so that writes that cover only a part of a block
 * are told apart; and what each mark must name.
 */
import { type BlockOp, violation } from './linearizable.ts';

export const CELL_BYTES = 2048;
export const CELLS_PER_BLOCK = 2;

/** A mark's life, as its clients know it. */
export interface KnownMark {
  name: string;
  setAnsweredMs: number;
  deleteCalled: boolean;
  deleteAnswered: boolean;
  /** Blocks of acknowledged writes that were called when the mark was there. */
  readonly changed: Set<number>;
}

export class Histories {
  readonly cells: BlockOp[][];
  readonly marks: KnownMark[] = [];
  private nextValue = 1;

  constructor(blocks: number) {
    this.cells = Array.from({ length: blocks * CELLS_PER_BLOCK }, () => []);
  }

  value(): number {
    return this.nextValue++;
  }

  /** A write was acknowledged. */
  acknowledged(firstCell: number, cells: number, calledMs: number): void {
    for (const mark of this.marks) {
      if (mark.setAnsweredMs >= calledMs) continue;
      for (let cell = firstCell; cell < firstCell + cells; cell++) mark.changed.add(Math.floor(cell / CELLS_PER_BLOCK));
    }
  }

  /** @returns what is wrong, or null */
  check(): string | null {
    for (const [cell, history] of this.cells.entries()) {
      const wrong = violation(history);
      const half = cell % CELLS_PER_BLOCK === 0 ? 'first' : 'second';
      if (wrong !== null) return `block ${Math.floor(cell / CELLS_PER_BLOCK)}, ${half} half: ${wrong}`;
    }
    return null;
  }
}
