/**
 * Making and opening a store on its three files: format, superblock, tables, recovery.
 *
 * Guarantees: an opening either ends with everything durable replayed, applied and checkpointed under a new epoch, or
 * with an error that says what is wrong and changed nothing; a damaged or poisoned store opens for reading only.
 */
import { HoldfastError } from '../base/errors.ts';
import { ORIGIN, type Position, comparePositions } from '../base/position.ts';
import { BLOCK_BYTES } from '../base/units.ts';
import type { StoreRules } from '../replication/store.ts';
import type { Slot } from './arena.ts';
import { BlockStore } from './block-store.ts';
import { type Files, io } from './files.ts';
import { BITMAP_SLOTS, type Layout, OWED_SLOT, PAGE_BYTES, layoutOf } from './layout.ts';
import { MetaPages, readSuperblocks } from './meta-pages.ts';
import { type DecodedRecord, RECORD_KINDS, isControl, isLocal, writesBlocks } from './record.ts';
import { type Recovered, recoverJournal } from './recovery.ts';
import { type ReplicaInfo, type Superblock, type VolumeKind, soloReplica } from './superblock.ts';
import { StoreTables } from './tables.ts';

/** What a new volume is. Ids are 16 random bytes each, drawn by the caller. */
export interface FormatOptions {
  volumeId: Uint8Array;
  diskId: Uint8Array;
  name: string;
  sizeBytes: number;
  journalBytes: number;
  createdAtMs: number;
  sparse: boolean;
  durable: boolean;
  kind?: VolumeKind;
  /** Default: the only copy. */
  replica?: ReplicaInfo;
}

/** Writes the first superblock. The three files exist, have their full size and are zeros. */
export async function formatStore(files: Files, o: FormatOptions): Promise<void> {
  const layout = layoutOf(o.sizeBytes, o.journalBytes);
  const meta = MetaPages.fresh(files, layout, o.volumeId);
  const superblock: Superblock = {
    ...o,
    capacityBytes: o.sizeBytes,
    kind: o.kind ?? 'block',
    sequence: 1,
    epoch: 0,
    committed: ORIGIN,
    last: ORIGIN,
    tail: { offsetBytes: 0, batchNo: 1, prevCrc: 0 },
    headBatchNo: 0,
    clean: true,
    health: 'good',
    healthReason: '',
    bitmaps: Array.from({ length: BITMAP_SLOTS }, (_, i) => ({
      kind: i === OWED_SLOT ? ('owed' as const) : ('free' as const),
      name: '',
      completeAfter: ORIGIN,
    })),
    replica: o.replica ?? soloReplica(),
    mapCrc: 0,
  };
  try {
    await meta.commit(superblock, [], () => {});
  } finally {
    meta.close();
  }
}

export interface OpenOptions {
  /** Bytes of the three files, to be compared with what the superblock says. */
  sizes: { data: number; journal: number; meta: number };
  defer: (run: () => void) => void;
  /** For messages: where the volume is. */
  where: string;
  /** Overrides what the volume was created with: fsync before acknowledgment. */
  durable?: boolean | undefined;
  /** Called while the journal is replayed, with bytes done. */
  progress?: ((bytes: number) => void) | undefined;
  /** Of tests. Default: all of them. */
  rules?: StoreRules;
}

const ALL_STORE_RULES: StoreRules = {
  wholeGroups: true,
  replayWholeGroups: true,
  suspectAtSettle: true,
  suspectAtOpen: true,
  journalFirst: true,
  commitFirst: true,
};

export interface OpenedStore {
  store: BlockStore;
  recovered: Recovered | null;
  damagedPages: number;
}

export interface OpenedMeta {
  superblock: Superblock;
  layout: Layout;
  meta: MetaPages;
  /** The other superblock is not valid: torn by a crash, or it was the newer one and is lost. */
  alone: boolean;
}

/** The superblock in force, with its page map. @throws HoldfastError NOT_A_VOLUME, WRONG_VERSION, DAMAGED */
export async function openMeta(files: Files, o: { sizes: { meta: number }; where: string }): Promise<OpenedMeta> {
  const layoutFor = (s: Superblock): Layout => layoutOf(s.capacityBytes, s.journalBytes);
  const found = await readSuperblocks(files, layoutFor, o.sizes.meta);
  const operation = 'open';
  if (found.laterFormat === null) {
    for (const [index, { superblock, slot }] of found.candidates.entries()) {
      const layout = layoutFor(superblock);
      const meta = await MetaPages.open(files, layout, superblock, slot);
      const other = index > 0 || found.candidates.length < 2;
      if (meta !== null) return { superblock, layout, meta, alone: other };
    }
  } else {
    throw new HoldfastError('WRONG_VERSION', {
      operation,
      volume: o.where,
      detail: `its on-disk format is version ${found.laterFormat}`,
      remedy: 'open it with a later Holdfast',
    });
  }
  throw new HoldfastError('NOT_A_VOLUME', {
    operation,
    volume: o.where,
    detail: 'neither superblock is valid',
    remedy: 'check that this is the right folder; a volume whose `meta` is lost can only be restored from a copy',
  });
}

export async function openStore(files: Files, o: OpenOptions): Promise<OpenedStore> {
  const opened = await openMeta(files, o);
  try {
    return await openOn(files, o, opened);
  } catch (error) {
    opened.meta.close();
    throw error;
  }
}

async function openOn(files: Files, o: OpenOptions, opened: OpenedMeta): Promise<OpenedStore> {
  const { superblock: found, layout, meta, alone } = opened;
  const expected = { data: layout.sizeBytes, journal: layout.journalBytes, meta: layout.metaBytes };
  for (const file of ['data', 'journal', 'meta'] as const) {
    if (o.sizes[file] === expected[file]) continue;
    throw new HoldfastError('DAMAGED', {
      operation: 'open',
      volume: o.where,
      detail: `the file ${file} has ${o.sizes[file]} bytes, not ${expected[file]}`,
      remedy: 'restore the file; it must not be cut or extended',
    });
  }
  const tables = new StoreTables(layout, found.volumeId);
  const damagedPages = await tables.load(meta, layout, found);
  const solo = found.replica.state === 'solo';
  let recovered: Recovered | null = null;
  let head = found.tail;
  let last = solo ? found.committed : found.last;
  let { health, healthReason } = found;
  const rules = o.rules ?? ALL_STORE_RULES;
  const replay = new Replay(files, tables, found, rules.replayWholeGroups);
  try {
    recovered = await recoverJournal(files, layout, found, (records) => replay.batch(records), o.progress, alone);
  } finally {
    await replay.end();
  }
  if (found.clean && recovered.batches === 0 && recovered.damage === null) {
    recovered = null;
  } else {
    head = recovered.head;
    last = solo ? recovered.last : replay.last;
    if (recovered.damage !== null) {
      health = 'damaged';
      healthReason = recovered.damage;
      // Batches with later numbers may still lie in the ring: number on where no old batch can be taken for a new one.
      head = { ...head, batchNo: head.batchNo + layout.journalBytes / PAGE_BYTES };
    }
  }
  if (damagedPages > 0 && health === 'good') {
    health = 'damaged';
    healthReason = `${damagedPages} pages of meta do not verify; their blocks cannot be read until they are written`;
  }
  // Everything is applied and the tail passes it: what the group may not have is remembered as suspect instead.
  const committed = solo ? last : replay.committed;
  if (solo) tables.peers.committed(last);
  else tables.peers.suspectRecent(rules.suspectAtOpen);
  const superblock: Superblock = {
    ...found,
    sequence: found.sequence + 1,
    epoch: solo ? found.epoch + 1 : found.epoch,
    committed,
    last,
    tail: head,
    headBatchNo: head.batchNo - 1,
    clean: false,
    health,
    healthReason,
    bitmaps: tables.bitmapUses(found.bitmaps),
    replica: { ...found.replica, groupEpoch: replay.groupEpoch },
  };
  // What was replayed is synced before the tail passes it; only then does the new epoch begin.
  if (recovered !== null && recovered.batches > 0) await io((done) => files.sync('data', done));
  // The superblock was read from the page cache and may never have reached the disk: the other slot must not be
  // overwritten before it has.
  await io((done) => files.sync('meta', done));
  const { pages, fill } = tables.takeDirty(tables.takeSessions());
  await meta.commit(superblock, pages, fill);
  const durable = o.durable ?? found.durable;
  const store = new BlockStore({
    files,
    layout,
    superblock,
    meta,
    tables,
    head,
    last,
    committed,
    durable,
    defer: o.defer,
    rules,
  });
  return { store, recovered, damagedPages };
}

/**
 * Applies recovered records to `data` and the tables: overlapping ones in order, others side by side. The records that
 * open an epoch count together or not at all: those whose EPOCH record is not there are passed over.
 */
class Replay {
  /** Last position that counts, and last one known to be committed, of a member of a group. */
  last: Position;
  committed: Position;
  groupEpoch: number;
  private readonly solo: boolean;
  private readonly wholeGroups: boolean;
  private readonly files: Files;
  private readonly tables: StoreTables;
  private readonly busy: Set<number> = new Set();
  private readonly running: Set<Promise<void>> = new Set();
  private failure: unknown = null;
  /** Of an epoch that has no EPOCH record yet; their bytes are copies. */
  private group: DecodedRecord[] = [];

  constructor(files: Files, tables: StoreTables, { replica, committed, last }: Superblock, wholeGroups: boolean) {
    this.files = files;
    this.tables = tables;
    this.solo = replica.state === 'solo';
    this.groupEpoch = replica.groupEpoch;
    this.wholeGroups = wholeGroups;
    this.committed = committed;
    this.last = last;
  }

  async batch(records: DecodedRecord[]): Promise<void> {
    for (const record of records) {
      if (this.solo || isLocal(record.kind) || record.epoch <= this.groupEpoch) await this.one(record);
      else if (record.kind === RECORD_KINDS.EPOCH) {
        const group = this.group.filter(({ epoch }) => epoch === record.epoch);
        this.group = [];
        for (const member of [...group, record]) await this.one(member);
        this.groupEpoch = record.epoch;
      } else if (!this.wholeGroups) await this.one(record);
      else this.group.push({ ...record, payload: record.payload.slice() });
    }
  }

  private async one(record: DecodedRecord): Promise<void> {
    if (!isLocal(record.kind)) {
      this.last = later(this.last, record);
      const known = { epoch: record.commitEpoch, seq: record.commitSeq };
      this.committed = later(this.committed, known);
      this.tables.peers.committed(this.committed);
    }
    this.tables.noteAppended(record, record.payload, this.committed);
    if (isControl(record.kind)) this.tables.applyControl(record, record.payload, this.committed);
    else {
      if (writesBlocks(record.kind)) await this.write(record);
      this.tables.applyBlocks(record, record.crcs, true);
    }
    this.tables.applySession(record);
  }

  async end(): Promise<void> {
    while (this.running.size > 0) await Promise.all(this.running);
    if (this.failure !== null) throw this.failure;
  }

  private async write(record: DecodedRecord): Promise<void> {
    const blocks = Array.from({ length: record.blockCount }, (_, i) => record.firstBlock + i);
    if (blocks.some((block) => this.busy.has(block))) await this.end();
    let slot: Slot | null;
    while ((slot = this.files.arena.take(record.blockCount)) === null || this.running.size >= 32) {
      if (slot !== null) this.files.arena.release(slot);
      await Promise.race(this.running);
    }
    if (this.failure !== null) throw this.failure;
    const taken = slot;
    const bytes = taken.payload.subarray(0, record.blockCount * BLOCK_BYTES);
    bytes.set(record.payload);
    for (const block of blocks) this.busy.add(block);
    const run: Promise<void> = io((done) => this.files.write('data', bytes, record.firstBlock * BLOCK_BYTES, done))
      .catch((error: unknown) => {
        this.failure ??= error;
      })
      .finally(() => {
        this.files.arena.release(taken);
        for (const block of blocks) this.busy.delete(block);
        this.running.delete(run);
      });
    this.running.add(run);
  }
}

function later(a: Position, { epoch, seq }: Position): Position {
  return comparePositions(a, { epoch, seq }) >= 0 ? a : { epoch, seq };
}
