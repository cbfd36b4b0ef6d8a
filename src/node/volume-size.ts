/**
 * The size of a volume on one of its replicas: what the register says, once the replica has noted it durably.
 *
 * Guarantees: the size rises only, and never beyond what the disk has room for; nothing behind the old end is taken before
 * the new size is durable here. What the register says was true of every member's disk when it was said (decision 16), so
 * whoever writes there is not refused by another member.
 */
import { formatBytes } from '../base/units.ts';
import type { Register } from '../coordination/register.ts';
import type { BlockStore } from '../storage/block-store.ts';

type Sized = Pick<Register, 'volume' | 'sizeBytes'>;

export class VolumeSize {
  private readonly store: BlockStore;
  private readonly log: (message: string, fields: object) => void;
  private raising = false;

  constructor(store: BlockStore, log: (message: string, fields: object) => void) {
    this.store = store;
    this.log = log;
  }

  /** To be called every 20 ms or so, with the newest register that is known. */
  follow(register: Sized | null): void {
    const { store } = this;
    const to = register?.sizeBytes ?? 0;
    if (this.raising || to <= store.sizeBytes || this.refusal(register) !== null) return;
    this.raising = true;
    const from = store.sizeBytes;
    const over = (): void => {
      this.raising = false;
    };
    store.update({ sizeBytes: to }).then(
      () => {
        over();
        this.log('the volume has grown', { fromBytes: from, toBytes: to });
      },
      // The store has failed then, and says so itself.
      over,
    );
  }

  /** Why this disk cannot have the volume as it is now; null: it can. */
  refusal(register: Sized | null): string | null {
    const { capacityBytes } = this.store.superblock;
    if (register === null || register.sizeBytes <= capacityBytes) return null;
    const { volume, sizeBytes } = register;
    return (
      `the volume has ${formatBytes(sizeBytes)}, and its disk room for ${formatBytes(capacityBytes)}; to remedy: ` +
      `holdfast volume grow ${volume} --size ${sizeBytes}`
    );
  }
}
