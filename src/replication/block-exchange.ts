/**
 * Blocks that replicas tell each other of outside of a reintegration, at the primary: it asks members for theirs, and
 * sends them its own where theirs are damaged. Pure.
 *
 * Guarantees: a question is answered once, with nothing if the member is lost; what is sent to a member is what is
 * committed, in order with the records of its stream, and nothing is sent where a record that replaces it is on its way.
 */
import { BLOCK_BYTES } from '../base/units.ts';
import type { Arena } from '../storage/arena.ts';
import type { BlockStore } from '../storage/block-store.ts';
import type { Peer } from './peer.ts';
import type { Downstream, Upstream } from './peer-messages.ts';
import type { PrimaryVolume } from './primary-volume.ts';

/** What a member has: the CRC of each block, unseeded, and the bytes if they were asked for. Null: it cannot tell. */
export type Fetched = { crcs: readonly number[]; payload: Uint8Array | null } | null;

/** Number of a copy that belongs to no reintegration: it is not acknowledged. */
export const REPAIR_ID = 0;
/** Blocks that are being sent to members. */
const MAX_MENDING = 64;

export interface BlockExchangeParts {
  store: BlockStore;
  arena: Arena;
  volume: PrimaryVolume;
  /** Members that follow, and have all that is committed. */
  members(): Peer[];
}

export class BlockExchange {
  private readonly o: BlockExchangeParts;
  private readonly asked: Map<number, { node: string; done: (fetched: Fetched) => void }> = new Map();
  private readonly sending: Set<string> = new Set();
  private next = 1;

  constructor(parts: BlockExchangeParts) {
    this.o = parts;
  }

  /** Members that can be asked. */
  get nodes(): string[] {
    return this.o.members().map(({ node }) => node);
  }

  /** What a member has when all that was sent to it before is applied there. */
  ask(node: string, range: { first: number; count: number; content: boolean }, done: (fetched: Fetched) => void): void {
    const peer = this.o.members().find((one) => one.node === node);
    if (peer === undefined) return queueMicrotask(() => done(null));
    const n = this.next++;
    this.asked.set(n, { node, done });
    const { first: firstBlock, count: blockCount, content } = range;
    peer.link!.send({ type: 'FETCH', n, firstBlock, blockCount, content });
  }

  /** See FetchBlock: one member after the other. */
  fetchBlock(block: number, take: (payload: Uint8Array) => boolean, done: (taken: boolean) => void): void {
    const left = this.nodes;
    const another = (): void => {
      const node = left.shift();
      if (node === undefined) return queueMicrotask(() => done(false));
      this.ask(node, { first: block, count: 1, content: true }, (fetched) => {
        if (fetched?.payload && take(fetched.payload)) done(true);
        else another();
      });
    };
    another();
  }

  fetched(node: string, { n, crcs, payload }: Extract<Upstream, { type: 'FETCHED' }>): void {
    const asked = this.asked.get(n);
    if (asked?.node !== node) return;
    this.asked.delete(n);
    asked.done(crcs.length === 0 ? null : { crcs, payload });
  }

  /** A member asks for a block that is damaged there. */
  wanted(peer: Peer, block: number): void {
    const { store, arena, volume } = this.o;
    const key = `${peer.node}/${block}`;
    if (block >= store.blocks || this.sending.has(key) || this.sending.size >= MAX_MENDING) return;
    // It asks again: whoever reads it there, or the scrub, meets it once more.
    const slot = arena.take(1);
    if (slot === null) return;
    this.sending.add(key);
    const over = (): void => {
      this.sending.delete(key);
      arena.release(slot);
    };
    volume.copyOut(block, 1, slot, (error) => {
      const { link } = peer;
      if (error !== null || link === null || volume.isChanging(block) || !this.o.members().includes(peer))
        return over();
      const payload = store.isHole(block) ? null : slot.payload.subarray(0, BLOCK_BYTES);
      const copy: Downstream = { type: 'COPY', id: REPAIR_ID, firstBlock: block, blockCount: 1, payload };
      link.send(copy, over);
    });
  }

  /** Whoever waits for that member, or for any, is answered. */
  lost(node: string | null): void {
    for (const [n, one] of this.asked) {
      if (node !== null && one.node !== node) continue;
      this.asked.delete(n);
      one.done(null);
    }
  }
}
