/**
 * A key-value volume as connections find it: sessions as for a disk, none of a disk's operations.
 */
import type { ChangedExtent, Extent } from '../base/device.ts';
import { HoldfastError } from '../base/errors.ts';
import { type Position, ORIGIN } from '../base/position.ts';
import type { KvVolume } from '../kv/operations.ts';
import type { Attachment, Done, ReadDone, ServedVolume, VolumeInfo } from '../replication/served-volume.ts';
import { SessionFence } from '../replication/session-fence.ts';
import type { Arena, Slot } from '../storage/arena.ts';
import type { Mark } from '../storage/marks.ts';

/** @throws HoldfastError UNSUPPORTED */
export function kvOf(volume: ServedVolume): KvVolume {
  if (volume instanceof KvServed) return volume.kv;
  throw new HoldfastError('UNSUPPORTED', {
    operation: 'key-value request',
    volume: volume.info().name,
    detail: 'it is a disk, no key-value volume',
    remedy: 'create one: holdfast volume create NAME --kind kv --replicas 2 --size SIZE --coordinator URL',
  });
}

/** What the volume under it says of itself. */
export interface Under {
  info(): VolumeInfo;
}

export class KvServed implements ServedVolume {
  readonly kv: KvVolume;
  private readonly under: Under;
  private readonly arena: Arena;
  private readonly fence: SessionFence;

  /** @param vouches whether a session that began at that version would still be known */
  constructor(kv: KvVolume, under: Under, arena: Arena, vouches: (session: bigint, since: number) => boolean) {
    this.kv = kv;
    this.under = under;
    this.arena = arena;
    // A request has its place in the log when it is taken: nobody waits for what is settled.
    this.fence = new SessionFence({
      name: under.info().name,
      settledPosition: ORIGIN,
      failed: null,
      sessions: { lookUp: () => 'new', vouchesFor: (session, since) => vouches(session, since.seq) },
    });
  }

  /** The position is (epoch, version of the newest transaction). */
  info(): VolumeInfo {
    const info = this.under.info();
    return { ...info, position: { epoch: info.epoch, seq: this.kv.info().version } };
  }

  attach(
    session: bigint,
    generation: number,
    since: Position | null,
    revoked: () => void,
    done: (error: HoldfastError | null, attachment: Attachment | null) => void,
  ): void {
    this.fence.attach(session, generation, since, revoked, done);
  }

  detach(attachment: Attachment): void {
    this.fence.detach(attachment);
  }

  private error(operation: string): HoldfastError {
    return new HoldfastError('UNSUPPORTED', {
      operation,
      volume: this.under.info().name,
      detail: 'it is a key-value volume, no disk',
      remedy: 'use connectKv of the client library, holdfast kv, or a Redis client on the port of --kv',
    });
  }

  private refuse(operation: string, done: Done): void {
    queueMicrotask(() => done(this.error(operation)));
  }

  read(_offset: number, _length: number, _slot: Slot, done: ReadDone): void {
    this.refuse('read', (error) => done(error, -1));
  }
  write(_a: Attachment | null, _r: number, _o: number, _l: number, slot: Slot, _k: boolean, done: Done): void {
    this.arena.release(slot);
    this.refuse('write', done);
  }
  zero(_a: Attachment | null, _r: number, _o: number, _l: number, done: Done): void {
    this.refuse('zero', done);
  }
  trim(_a: Attachment | null, _r: number, _o: number, _l: number, done: Done): void {
    this.refuse('trim', done);
  }
  mark(_a: Attachment | null, _r: number, _c: unknown, done: Done): void {
    this.refuse('mark', done);
  }
  flush(done: Done): void {
    this.refuse('flush', done);
  }
  whenReadable(done: Done): void {
    this.refuse('extents', done);
  }
  extents(): Extent[] {
    throw this.error('extents');
  }
  marks(): Mark[] {
    throw this.error('marks');
  }
  changes(): ChangedExtent[] {
    throw this.error('changes');
  }
}
