/** The superblock's page: whole or nothing. */
import { crc32 } from 'node:zlib';
import fc from 'fast-check';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { BITMAP_SLOTS, FORMAT_VERSION, PAGE_BYTES } from '../../src/storage/layout.ts';
import {
  BITMAP_NAME_BYTES,
  type BitmapUse,
  MAX_NAME_BYTES,
  type ReplicaState,
  type StoreHealth,
  type Superblock,
  decodeSuperblock,
  encodeSuperblock,
} from '../../src/storage/superblock.ts';

const safe = fc.maxSafeNat();
const word = fc.integer({ min: 0, max: 0xffffffff });
const id = fc.uint8Array({ minLength: 16, maxLength: 16 }).map((bytes) => new Uint8Array(bytes));
const position = fc.record({ epoch: safe, seq: safe }, { noNullPrototype: true });
const textUpTo = (bytes: number): fc.Arbitrary<string> =>
  fc
    .string({ unit: 'grapheme', maxLength: bytes })
    .filter((text) => Buffer.byteLength(text) <= bytes && !text.includes('\0') && !text.startsWith('\ufeff'));

const anySuperblock: fc.Arbitrary<Superblock> = fc.record(
  {
    sequence: safe,
    volumeId: id,
    diskId: id,
    name: textUpTo(MAX_NAME_BYTES),
    sizeBytes: safe,
    capacityBytes: fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER }),
    journalBytes: safe,
    createdAtMs: safe,
    epoch: safe,
    committed: position,
    last: position,
    replica: fc.record(
      {
        state: fc.constantFrom<ReplicaState>('solo', 'in-sync', 'syncing'),
        base: position,
        groupEpoch: safe,
        registerId: id,
        registerVersion: safe,
      },
      { noNullPrototype: true },
    ),
    tail: fc.record({ offsetBytes: safe, batchNo: safe, prevCrc: word }, { noNullPrototype: true }),
    headBatchNo: safe,
    clean: fc.boolean(),
    sparse: fc.boolean(),
    durable: fc.boolean(),
    kind: fc.constantFrom('block' as const, 'kv' as const),
    health: fc.constantFrom<StoreHealth>('good', 'poisoned', 'damaged'),
    healthReason: textUpTo(256),
    bitmaps: fc.array(
      fc.record(
        {
          kind: fc.constantFrom<BitmapUse['kind']>('free', 'owed', 'absent', 'suspect', 'mark'),
          name: textUpTo(BITMAP_NAME_BYTES),
          completeAfter: position,
        },
        { noNullPrototype: true },
      ),
      { minLength: BITMAP_SLOTS, maxLength: BITMAP_SLOTS },
    ),
    mapCrc: word,
  },
  { noNullPrototype: true },
);

/** One with every field at its fullest. */
const full = (): Superblock => ({
  sequence: Number.MAX_SAFE_INTEGER,
  volumeId: new Uint8Array(16).fill(0xff),
  diskId: new Uint8Array(16).fill(0xfe),
  name: 'n'.repeat(MAX_NAME_BYTES),
  sizeBytes: Number.MAX_SAFE_INTEGER - 1,
  capacityBytes: Number.MAX_SAFE_INTEGER,
  journalBytes: Number.MAX_SAFE_INTEGER,
  createdAtMs: Number.MAX_SAFE_INTEGER,
  epoch: Number.MAX_SAFE_INTEGER,
  committed: { epoch: Number.MAX_SAFE_INTEGER, seq: Number.MAX_SAFE_INTEGER },
  last: { epoch: Number.MAX_SAFE_INTEGER, seq: Number.MAX_SAFE_INTEGER },
  replica: {
    state: 'syncing',
    base: { epoch: Number.MAX_SAFE_INTEGER, seq: Number.MAX_SAFE_INTEGER },
    groupEpoch: Number.MAX_SAFE_INTEGER,
    registerId: new Uint8Array(16).fill(0xfd),
    registerVersion: Number.MAX_SAFE_INTEGER,
  },
  tail: { offsetBytes: Number.MAX_SAFE_INTEGER, batchNo: Number.MAX_SAFE_INTEGER, prevCrc: 0xffffffff },
  headBatchNo: Number.MAX_SAFE_INTEGER,
  clean: true,
  sparse: true,
  durable: true,
  kind: 'block',
  health: 'damaged',
  healthReason: 'r'.repeat(256),
  bitmaps: Array.from({ length: BITMAP_SLOTS }, () => ({
    kind: 'mark' as const,
    name: 'b'.repeat(BITMAP_NAME_BYTES),
    completeAfter: { epoch: Number.MAX_SAFE_INTEGER, seq: Number.MAX_SAFE_INTEGER },
  })),
  mapCrc: 0xffffffff,
});

const superblocks = suite('superblock');

superblocks('round trip of every field, none runs into the next', () => {
  fc.assert(
    fc.property(anySuperblock, (s) => {
      const bytes = encodeSuperblock(s);
      assert.is(bytes.length, PAGE_BYTES);
      assert.equal(decodeSuperblock(bytes), s);
    }),
    { numRuns: 300 },
  );
  assert.equal(decodeSuperblock(encodeSuperblock(full())), full());
});

superblocks('a flipped bit anywhere in the page: no superblock', () => {
  const bytes = encodeSuperblock(full());
  for (let at = 0; at < PAGE_BYTES; at++) {
    bytes[at]! ^= 1 << (at % 8);
    assert.is(decodeSuperblock(bytes), null, `byte ${at}`);
    bytes[at]! ^= 1 << (at % 8);
  }
  assert.ok(decodeSuperblock(bytes));
});

superblocks('a torn page, of an older and a newer one, is no superblock', () => {
  const older = encodeSuperblock({ ...full(), sequence: 4, healthReason: 'before' });
  const newer = encodeSuperblock({ ...full(), sequence: 5, bitmaps: full().bitmaps.slice(0, 3) });
  for (let cut = 512; cut < PAGE_BYTES; cut += 512) {
    const torn = older.slice();
    torn.set(newer.subarray(0, cut));
    const read = decodeSuperblock(torn);
    // Where all that differs lies before the cut, the page is the newer one.
    if (Buffer.compare(torn, newer) !== 0) assert.is(read, null, `cut at ${cut}`);
  }
  assert.is(decodeSuperblock(new Uint8Array(PAGE_BYTES)), null, 'zeros');
});

superblocks('a page inside a larger buffer', () => {
  const room = new Uint8Array(3 * PAGE_BYTES).fill(0x77);
  room.set(encodeSuperblock(full()), PAGE_BYTES);
  assert.equal(decodeSuperblock(room.subarray(PAGE_BYTES)), full());
});

superblocks('a whole superblock of a later format is told from rubbish', () => {
  const bytes = encodeSuperblock(full());
  const view = new DataView(bytes.buffer);
  view.setUint32(8, FORMAT_VERSION + 1, true);
  assert.is(decodeSuperblock(bytes), null, 'its CRC is wrong');
  view.setUint32(4, crc32(bytes.subarray(8)), true);
  assert.equal(decodeSuperblock(bytes), { laterFormat: FORMAT_VERSION + 1 });
});

superblocks('a reason that is too long is cut, and the rest stays what it is', () => {
  const read = decodeSuperblock(encodeSuperblock({ ...full(), healthReason: 'x'.repeat(5000) })) as Superblock;
  assert.equal(read, { ...full(), healthReason: 'x'.repeat(256) });
});

superblocks('an unknown health is damage, not good', () => {
  const bytes = encodeSuperblock({ ...full(), health: 'good' });
  bytes[137] = 9;
  new DataView(bytes.buffer).setUint32(4, crc32(bytes.subarray(8)), true);
  assert.is((decodeSuperblock(bytes) as Superblock).health, 'damaged');
});
superblocks.run();
