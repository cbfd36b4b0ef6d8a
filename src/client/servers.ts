/**
 * Where a volume may be: the servers of its address and those that LOCATE told of, shared by all connections of the
 * volume.
 *
 * Guarantees: what is remembered is bounded: the address's servers and the members of one location; an older epoch never
 * replaces a newer one, nor does what is told of another volume; each server is listed once, the primary first.
 */
import type { VolumeLocation } from '../protocol/location.ts';
import { type Address, formatAddress, parseServer } from './address.ts';

export class Servers {
  /** What was told last of the newest epoch. */
  location: VolumeLocation | null = null;
  /** Once it is known, what is told of other volumes is not believed. */
  volumeId: Uint8Array | null = null;
  private readonly configured: readonly Address[];
  private learned: Address[] = [];
  private primary: Address | null = null;

  constructor(configured: readonly Address[]) {
    this.configured = configured;
  }

  /** All of them in the order in which they are to be tried. */
  inOrder(): Address[] {
    const found: Map<string, Address> = new Map();
    const all = this.primary === null ? [] : [this.primary];
    for (const server of [...all, ...this.configured, ...this.learned]) {
      const name = formatAddress(server);
      if (!found.has(name)) found.set(name, server);
    }
    return [...found.values()];
  }

  /** @returns whether it was believed */
  learn(location: VolumeLocation): boolean {
    if (this.volumeId !== null && Buffer.compare(this.volumeId, location.volumeId) !== 0) return false;
    const known = this.location;
    if (known !== null && location.epoch < known.epoch) return false;
    // Of one epoch there is one primary: who does not know it says nothing against it.
    const unknown = location.primary === '' && known?.epoch === location.epoch && known.primary !== '';
    const { primary, primaryAddress } = unknown ? known : location;
    this.location = { ...location, primary, primaryAddress };
    const named = location.members.map(({ clientAddress }) => parseServer(clientAddress));
    this.learned = named.filter((server) => server !== null);
    const at = primaryAddress || location.members.find(({ node }) => node === primary)?.clientAddress;
    this.primary = at === undefined ? null : parseServer(at);
    return true;
  }

  /** Whether a later epoch than that one is known, with a primary at another address. */
  hasMoved(epoch: number, address: string): boolean {
    if (this.location === null || this.primary === null) return false;
    return this.location.epoch > epoch && formatAddress(this.primary) !== address;
  }
}
