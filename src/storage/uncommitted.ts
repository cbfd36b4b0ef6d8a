/** Bytes of journal that records take which are not committed yet, or will take which are not appended yet. Pure. */
import { type Position, comparePositions } from '../base/position.ts';
import { recordBytes } from './journal.ts';
import { PAGE_BYTES } from './layout.ts';

export class Uncommitted {
  private entries: Array<{ position: Position; bytes: number }> = [];
  private appendedBytes = 0;
  /** Of records that will be appended for certain. */
  reservedBytes = 0;

  get bytes(): number {
    return this.appendedBytes;
  }

  appended(position: Position, payloadBlocks: number): void {
    const bytes = recordBytes(payloadBlocks);
    this.entries.push({ position, bytes });
    this.appendedBytes += bytes;
  }

  committed(position: Position): void {
    let settled = 0;
    for (const entry of this.entries) {
      if (comparePositions(entry.position, position) > 0) break;
      this.appendedBytes -= entry.bytes;
      settled++;
    }
    this.entries.splice(0, settled);
  }

  reserve(payloadBlocks: number): void {
    this.reservedBytes += recordBytes(payloadBlocks) + PAGE_BYTES;
  }

  unreserve(payloadBlocks: number): void {
    this.reservedBytes -= recordBytes(payloadBlocks) + PAGE_BYTES;
  }
}
