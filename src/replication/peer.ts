/** What a primary knows of another member, and how it sends it a record. Pure. */
import type { Position } from '../base/position.ts';
import { crcOfRecord } from '../storage/record.ts';
import type { Downstream, PeerLink } from './peer-messages.ts';
import type { LogRecord } from './store.ts';
import type { SyncSource } from './sync-source.ts';

/** `joined`: it follows. `adding`: it is complete, the register has not said so yet. */
export type PeerPhase = 'away' | 'connecting' | 'joining' | 'joined' | 'syncing' | 'adding';

export class Peer {
  readonly node: string;
  readonly id: string;
  phase: PeerPhase = 'away';
  link: PeerLink | null = null;
  /** It must acknowledge. */
  must = false;
  acked: Position = { epoch: 0, seq: 0 };
  suspects: readonly number[] = [];
  /** What it was asked to be. */
  joinedAs: 'member' | 'target' = 'target';
  sync: SyncSource | null = null;
  heardAtMs = 0;
  nextAttemptMs = 0;

  constructor(node: string, id: string) {
    this.node = node;
    this.id = id;
  }
}

/** An appended record, as each member is sent it. */
export function messageOf(record: LogRecord): Downstream {
  const bytes = record.bytes!;
  record.bytesCrc ??= crcOfRecord(bytes, record.slot.crcs);
  return { type: 'RECORD', bytes, crc: record.bytesCrc };
}
