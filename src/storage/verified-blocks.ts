/**
 * Reading of blocks, each verified against its checksum entry. Pure over `Files`.
 *
 * Guarantees: what is handed out matches the entries at the time of the call; what was never written or is owed zeros is
 * zeros, whatever `data` holds.
 */
import { CRC_OF_ZEROS, ENTRY_ZERO, crc32, entryOf } from '../base/checksum.ts';
import type { HoldfastError } from '../base/errors.ts';
import { BLOCK_BYTES } from '../base/units.ts';
import type { Slot } from './arena.ts';
import type { Files } from './files.ts';
import type { StoreTables } from './tables.ts';

/** Blocks that were mended, counted and told. */
export class Repairs {
  blocks = 0;
  /** Whoever wants to hear of each. */
  told: (firstBlock: number) => void = () => {};

  note({ firstBlock, blockCount }: { firstBlock: number; blockCount: number }): void {
    this.blocks += blockCount;
    this.told(firstBlock);
  }
}

/** Rotten blocks that are told apart. */
const MAX_ROTTEN = 65_536;

export class VerifiedBlocks {
  /** Reads that met one. */
  corrupt = 0;
  /** Those that were met, and not replaced since. */
  private readonly rotten: Set<number> = new Set();
  private readonly files: Files;
  private readonly tables: StoreTables;
  private readonly met: (block: number) => void;

  /** @param met is told the number of each block that does not match */
  constructor(files: Files, tables: StoreTables, met: (block: number) => void) {
    this.files = files;
    this.tables = tables;
    this.met = met;
  }

  /** See ReplicatedStore. */
  read(first: number, count: number, slot: Slot, done: (error: HoldfastError | null, crc: number) => void): void {
    const into = slot.payload.subarray(0, count * BLOCK_BYTES);
    if (!this.tables.checksums.copyOut(first, count, slot.crcs)) {
      into.fill(0);
      slot.crcs.fill(CRC_OF_ZEROS[1]!, 0, count);
      return queueMicrotask(() => done(null, CRC_OF_ZEROS[count]!));
    }
    this.files.readVerified({ into, crcs: slot.crcs, firstBlock: first, seed: this.tables.seed }, (error, crc) => {
      done(error, crc);
      if (error?.code !== 'CORRUPT_BLOCK') return;
      this.corrupt++;
      const block = error.details.offsetBytes! / BLOCK_BYTES;
      if (this.rotten.size < MAX_ROTTEN) this.rotten.add(block);
      this.met(block);
    });
  }

  get rottenBlocks(): number {
    return this.rotten.size;
  }

  /** These were mended or overwritten. */
  replaced({ firstBlock, blockCount }: { firstBlock: number; blockCount: number }): void {
    const { rotten } = this;
    const end = firstBlock + blockCount;
    if (rotten.size > blockCount) for (let block = firstBlock; block < end; block++) rotten.delete(block);
    else for (const block of rotten) if (block >= firstBlock && block < end) rotten.delete(block);
  }

  /** Whether these bytes are what the block holds, by what is applied. */
  isContent(block: number, bytes: Uint8Array): boolean {
    return entryOf(this.tables.seed, block, crc32(bytes)) === this.tables.checksums.get(block);
  }

  /** Whether the block was never written or is zeroed, by what is applied. */
  isHole(block: number): boolean {
    return this.tables.checksums.get(block) === ENTRY_ZERO;
  }
}
