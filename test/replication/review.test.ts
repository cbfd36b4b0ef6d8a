/**
 * Guards for the recovery of a member of a group and for its hand on the register: what a journal that a crash cut short
 * may hold, and answers that come late.
 */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { crcBlocks } from '../../src/base/checksum.ts';
import { BLOCK_BYTES, MiB } from '../../src/base/units.ts';
import type { GroupRegister } from '../../src/replication/group-register.ts';
import { Membership } from '../../src/replication/membership.ts';
import type { BlockStore } from '../../src/storage/block-store.ts';
import { encodeEpoch } from '../../src/storage/control.ts';
import { PAGE_BODY_BYTES, layoutOf } from '../../src/storage/layout.ts';
import { formatStore, openStore } from '../../src/storage/open-store.ts';
import { RECORD_KINDS } from '../../src/storage/record.ts';
import { type Image, SimulatedDisk } from '../support/simulated-disk.ts';
import { newArena } from '../support/store-harness.ts';
import { turns } from '../support/unit-tools.ts';

const ORIGIN = { epoch: 0, seq: 0 };
const SIZES = { sizeBytes: MiB, journalBytes: 4 * MiB };

interface Member {
  disk: SimulatedDisk;
  store: BlockStore;
}

async function open(image: Image): Promise<Member> {
  const disk = new SimulatedDisk(image, 1, newArena());
  const { store } = await openStore(disk, { sizes: disk.sizes, defer: setImmediate, where: 'sim' });
  return { disk, store };
}

async function fresh(): Promise<Member> {
  const layout = layoutOf(SIZES.sizeBytes, SIZES.journalBytes);
  const image = SimulatedDisk.blank({ data: layout.sizeBytes, journal: layout.journalBytes, meta: layout.metaBytes });
  await formatStore(new SimulatedDisk(image, 1, newArena()), {
    volumeId: new Uint8Array(16).fill(1),
    diskId: new Uint8Array(16).fill(2),
    name: 'sim',
    ...SIZES,
    createdAtMs: 0,
    sparse: false,
    durable: true,
    replica: { state: 'in-sync', base: ORIGIN, groupEpoch: 0, registerId: new Uint8Array(16), registerVersion: 0 },
  });
  return open(image);
}

/** Appends a write of one block, or the record that opens an epoch; `committed` is what its primary knew. */
function append({ disk, store }: Member, epoch: number, what: { block: number; value: number } | 'epoch'): void {
  const control = what === 'epoch';
  const blockCount = control ? 2 : 1;
  const slot = disk.arena.take(blockCount)!;
  if (control) encodeEpoch({ absent: [], marks: [], sessions: [new Uint8Array(PAGE_BODY_BYTES)] }, slot.payload);
  else slot.payload.fill(what.value, 0, BLOCK_BYTES);
  const payloadCrc = crcBlocks(slot.payload.subarray(0, blockCount * BLOCK_BYTES), slot.crcs, 0);
  const kind = control ? RECORD_KINDS.EPOCH : RECORD_KINDS.WRITE;
  const place = { epoch, seq: store.lastPosition.seq + 1, commitEpoch: 0, commitSeq: 0, session: 0n, request: 0 };
  store.append({ kind, ...place, firstBlock: control ? 0 : what.block, blockCount, slot, payloadCrc, users: 1 });
}

/** As after SIGKILL, with everything written. */
async function killed({ disk }: Member): Promise<Member> {
  await turns(20);
  disk.dead = true;
  return open(disk.files);
}

function read({ disk, store }: Member, block: number): Promise<number> {
  const slot = disk.arena.take(1)!;
  return new Promise((resolve, reject) =>
    store.readBlocks(block, 1, slot, (error) => (error === null ? resolve(slot.payload[0]!) : reject(error))),
  );
}

const recovery = suite('recovery of a member');

recovery('groups without an EPOCH record count for nothing, one after them counts', async () => {
  const before = await fresh();
  append(before, 1, 'epoch');
  append(before, 1, { block: 5, value: 3 });
  append(before, 2, { block: 5, value: 7 });
  append(before, 3, { block: 6, value: 8 });
  append(before, 4, { block: 7, value: 9 });
  append(before, 4, 'epoch');
  const after = await killed(before);
  assert.equal([await read(after, 5), await read(after, 6), await read(after, 7)], [3, 0, 9]);
  assert.is(after.store.replica.groupEpoch, 4);
  assert.equal(after.store.lastPosition, { epoch: 4, seq: 6 });
  // And again: the tail has passed it all.
  const later = await killed(after);
  assert.equal([await read(later, 5), await read(later, 6), await read(later, 7)], [3, 0, 9]);
});

recovery('what is not known to be committed is suspect, though an EPOCH record behind it was replayed', async () => {
  const before = await fresh();
  append(before, 1, 'epoch');
  append(before, 1, { block: 5, value: 3 });
  append(before, 2, { block: 5, value: 3 });
  append(before, 2, 'epoch');
  append(before, 2, { block: 9, value: 1 });
  const after = await killed(before);
  assert.equal(after.store.peers.suspects().runs(), [5, 1, 9, 1]);
  const later = await killed(after);
  assert.equal(later.store.peers.suspects().runs(), [5, 1, 9, 1], 'durably');
});

recovery.run();

const register: GroupRegister = {
  registerId: '5a',
  version: 3,
  epoch: 1,
  primary: 'a',
  inSync: ['a'],
  members: ['a', 'b'].map((node) => ({ node, diskId: '1' })),
};

const membership = suite('membership');

membership('a member whose coming in has no answer counts, until an attempt on that version has one', () => {
  const asked: string[][] = [];
  const gone: string[] = [];
  const m = new Membership(register, {
    compareAndSet: (version, next) => void asked.push([String(version), ...next.inSync]),
    changed: (removed) => void gone.push(...removed),
    deposed: () => assert.unreachable(),
  });
  m.add('b', 0);
  m.settled({ outcome: 'unknown' }, 300, 200);
  m.remove('b', 310);
  // The register as it was says nothing.
  m.learn(register, 320);
  m.tick(330);
  assert.equal(m.counted, ['a', 'b']);
  assert.is(asked.length, 1, 'not before its time');
  m.tick(500);
  assert.equal(asked, [
    ['3', 'a', 'b'],
    ['3', 'a'],
  ]);
  m.settled({ outcome: 'done', register: { ...register, version: 4 } }, 510, 200);
  assert.equal(gone, ['b']);
  assert.equal(m.counted, ['a']);
});

membership('a member that came in after all although it had failed is taken out again', () => {
  const asked: string[][] = [];
  const changes: string[] = [];
  const m = new Membership(register, {
    compareAndSet: (version, next) => void asked.push([String(version), ...next.inSync]),
    changed: (removed, added) => void changes.push(`-${removed.join()} +${added.join()}`),
    deposed: () => assert.unreachable(),
  });
  m.add('b', 0);
  m.settled({ outcome: 'unknown' }, 300, 200);
  m.remove('b', 310);
  m.tick(500);
  const late = { ...register, version: 4, inSync: ['a', 'b'] };
  m.settled({ outcome: 'refused', register: late }, 510, 200);
  assert.equal(m.counted, ['a', 'b'], 'it counts while the register has it');
  assert.equal(asked.at(-1), ['4', 'a']);
  m.settled({ outcome: 'done', register: { ...register, version: 5 } }, 520, 200);
  assert.equal(changes, ['- +b', '-b +']);
  assert.equal(m.counted, ['a']);
});

membership.run();
