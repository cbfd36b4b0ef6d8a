/** A member's store on a simulated disk, records as a primary would send them, and ports that tests play by hand. */
import { crcBlocks } from '../../src/base/checksum.ts';
import { BLOCK_BYTES } from '../../src/base/units.ts';
import { Arena } from '../../src/storage/arena.ts';
import type { BlockStore } from '../../src/storage/block-store.ts';
import { encodeEpoch } from '../../src/storage/control.ts';
import { layoutOf } from '../../src/storage/layout.ts';
import { formatStore, openStore } from '../../src/storage/open-store.ts';
import { RECORD_KINDS, type RecordKind, hasPayload } from '../../src/storage/record.ts';
import type { LogRecord } from '../../src/replication/store.ts';
import { Follower } from '../../src/replication/follower.ts';
import type { PrimaryVolume } from '../../src/replication/primary-volume.ts';
import type { GroupRegister } from '../../src/replication/group-register.ts';
import type { Downstream, PeerLink, PeerMessage } from '../../src/replication/peer-messages.ts';
import { SimulatedDisk, type Image } from './simulated-disk.ts';

export const MiB = 1024 * 1024;
export const VOLUME = Uint8Array.from({ length: 16 }, (_, i) => i + 1);
export const B = BLOCK_BYTES;
export const arena = (): Arena => new Arena(24 * MiB);

export async function member(image?: Image): Promise<{ disk: SimulatedDisk; store: BlockStore }> {
  const layout = layoutOf(2 * MiB, 4 * MiB);
  const sizes = { data: layout.sizeBytes, journal: layout.journalBytes, meta: layout.metaBytes };
  const disk = new SimulatedDisk(image ?? SimulatedDisk.blank(sizes), 1, arena());
  if (image === undefined) {
    await formatStore(disk, {
      volumeId: VOLUME,
      diskId: Uint8Array.from({ length: 16 }, () => 0x64),
      name: 'sim',
      sizeBytes: 2 * MiB,
      journalBytes: 4 * MiB,
      createdAtMs: 0,
      sparse: false,
      durable: true,
      replica: {
        state: 'in-sync',
        base: { epoch: 0, seq: 0 },
        groupEpoch: 0,
        registerId: new Uint8Array(16),
        registerVersion: 0,
      },
    });
  }
  const { store } = await openStore(disk, { sizes: disk.sizes, defer: setImmediate, where: 'sim' });
  return { disk, store };
}

export interface Fields {
  kind: RecordKind;
  epoch: number;
  seq: number;
  commit?: [number, number];
  first?: number;
  value?: number;
  fill?: (into: Uint8Array) => void;
  session?: bigint;
  request?: number;
}

export function record(from: Arena, f: Fields): LogRecord {
  const slot = from.take(2)!;
  slot.payload.fill(f.value ?? 0);
  f.fill?.(slot.payload);
  const blocks = hasPayload(f.kind) ? (f.kind === RECORD_KINDS.EPOCH ? 2 : 1) : 0;
  const payloadCrc = blocks === 0 ? 0 : crcBlocks(slot.payload.subarray(0, blocks * B), slot.crcs, 0);
  return {
    kind: f.kind,
    epoch: f.epoch,
    seq: f.seq,
    commitEpoch: f.commit?.[0] ?? 0,
    commitSeq: f.commit?.[1] ?? 0,
    session: f.session ?? 0n,
    request: f.request ?? 0,
    firstBlock: f.first ?? 0,
    blockCount: Math.max(1, blocks),
    slot,
    payloadCrc,
    users: 1,
  };
}

/** The bytes that a primary would send. */
export async function bytesOf(list: Fields[]): Promise<Uint8Array[]> {
  const { disk, store } = await member();
  const out: Uint8Array[] = [];
  for (const f of list) {
    const r = record(disk.arena, f);
    store.append(r);
    out.push(r.bytes!.slice());
  }
  return out;
}

export const epochFill =
  (absent: string[] = []) =>
  (into: Uint8Array): void =>
    encodeEpoch({ absent, marks: [], sessions: [new Uint8Array(4064)] }, into);

export function followerOn(disk: SimulatedDisk, store: BlockStore, said: string[] = []): Follower {
  return new Follower(store, disk.arena, {
    durable: (p) => void said.push(`ack ${p.epoch}.${p.seq}`),
    copied: () => {},
    reached: () => {},
    finished: () => void said.push('finished'),
    refused: (e) => void said.push(`refused ${e.message}`),
    failed: (e) => void said.push(`failed ${e.message}`),
  });
}

export const read = (disk: SimulatedDisk, store: BlockStore, block: number): Promise<number | string> =>
  new Promise((resolve) => {
    const slot = disk.arena.take(1)!;
    store.readBlocks(block, 1, slot, (error) => resolve(error === null ? slot.payload[0]! : error.code));
  });

export const epoch1: Fields[] = [{ kind: RECORD_KINDS.EPOCH, epoch: 1, seq: 1, fill: epochFill() }];

export function portsOf(log: string[], serve: (v: PrimaryVolume | null) => void = () => {}) {
  const clock = { nowMs: 0 };
  const cas: Array<{ token: number; version: number; next: GroupRegister }> = [];
  return {
    clock,
    cas,
    ports: {
      now: () => clock.nowMs,
      connect: () => {},
      readRegister: () => {},
      compareAndSet: (token: number, version: number, next: GroupRegister) => void cas.push({ token, version, next }),
      serve,
      random: () => 0.5,
      log: (m: string, f?: object) => void log.push(`${m} ${JSON.stringify(f ?? {})}`),
    },
  };
}
export const alone: GroupRegister = {
  registerId: '5a'.repeat(16),
  version: 1,
  epoch: 0,
  primary: '',
  inSync: ['a'],
  members: [{ node: 'a', diskId: '64'.repeat(16) }],
};

export class Pipe implements PeerLink {
  node: string;
  sent: PeerMessage[] = [];
  closed = false;
  constructor(node: string) {
    this.node = node;
  }
  send(m: PeerMessage, sent?: () => void): void {
    this.sent.push(m);
    sent?.();
  }
  close(): void {
    this.closed = true;
  }
}
export const JOIN = (epoch: number, role: 'member' | 'target'): Downstream => ({
  type: 'JOIN',
  epoch,
  registerId: '5a'.repeat(16),
  registerVersion: 1,
  role,
});
