/** Records and batches as bytes: nothing decodes that was not written whole. */
import { crc32 } from 'node:zlib';
import fc from 'fast-check';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { crcBlocks } from '../../src/base/checksum.ts';
import { BLOCK_BYTES, MAX_IO_BLOCKS } from '../../src/base/units.ts';
import { Arena, type Slot } from '../../src/storage/arena.ts';
import { MAX_BATCH_BYTES, MAX_BATCH_RECORDS, RECORD_ALIGN_BYTES } from '../../src/storage/layout.ts';
import {
  BATCH_HEADER_BYTES,
  type BatchHeader,
  type DecodedRecord,
  type EncodedRecord,
  RECORD_KINDS,
  type RecordFields,
  crcOfRecord,
  decodeBatch,
  decodeBatchHeader,
  decodeRecord,
  encodeBatchHeader,
  encodeRecord,
  foldRecordCrc,
  getNumber,
  headerBytes,
  putNumber,
} from '../../src/storage/record.ts';
import { Random } from '../support/random.ts';
import { assertBytes } from '../support/unit-tools.ts';

const arena = new Arena(8 * 1024 * 1024);
const VOLUME = Uint8Array.from({ length: 16 }, (_, i) => 0xa0 + i);
const DISK = Uint8Array.from({ length: 16 }, (_, i) => 0x10 + i);

const FIELDS: RecordFields = {
  kind: RECORD_KINDS.WRITE,
  epoch: 3,
  seq: 2 ** 40 + 5,
  commitEpoch: 3,
  commitSeq: 2 ** 40,
  session: 0xfedcba9876543210n,
  request: 77,
  firstBlock: 2 ** 32 - 3,
  blockCount: 2,
};

const carries = (fields: RecordFields): boolean =>
  ![RECORD_KINDS.ZERO, RECORD_KINDS.COPY_ZERO, RECORD_KINDS.STATE].some((kind) => kind === fields.kind);

/** Encodes into a slot full of rubbish and copies the bytes out. */
function encoded(fields: RecordFields, seed = 1): EncodedRecord & { payload: Uint8Array; crcs: Uint32Array } {
  const blocks = carries(fields) ? fields.blockCount : 0;
  const slot: Slot = arena.take(Math.max(1, blocks))!;
  slot.bytes.fill(0xee);
  const payload = new Random(seed).bytes(blocks * BLOCK_BYTES);
  slot.payload.set(payload);
  const payloadCrc = blocks === 0 ? 0 : crcBlocks(payload, slot.crcs, 0);
  const crcs = slot.crcs.slice(0, blocks);
  const { bytes, headerCrc } = encodeRecord(slot, VOLUME, fields, payloadCrc);
  const copy = bytes.slice();
  arena.release(slot);
  return { bytes: copy, headerCrc, payload, crcs };
}

const fieldsOf = (r: DecodedRecord): RecordFields => ({
  kind: r.kind,
  epoch: r.epoch,
  seq: r.seq,
  commitEpoch: r.commitEpoch,
  commitSeq: r.commitSeq,
  session: r.session,
  request: r.request,
  firstBlock: r.firstBlock,
  blockCount: r.blockCount,
});

const safe = fc.maxSafeNat();
const anyRecord: fc.Arbitrary<RecordFields> = fc.record(
  {
    kind: fc.constantFrom(...Object.values(RECORD_KINDS)),
    epoch: safe,
    seq: safe,
    commitEpoch: safe,
    commitSeq: safe,
    session: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
    request: safe,
    firstBlock: fc.integer({ min: 0, max: 0xffffffff }),
    blockCount: fc.integer({ min: 1, max: MAX_IO_BLOCKS }),
  },
  { noNullPrototype: true },
);

const records = suite('record');

records('the CRC of a record follows from its header and the CRCs of its blocks', () => {
  for (const [kind, blockCount] of [
    [RECORD_KINDS.WRITE, 1],
    [RECORD_KINDS.WRITE, 2],
    [RECORD_KINDS.WRITE, MAX_IO_BLOCKS],
    [RECORD_KINDS.ZERO, 8192],
    [RECORD_KINDS.EPOCH, 2],
  ] as const) {
    const { bytes, crcs } = encoded({ ...FIELDS, kind, blockCount });
    assert.is(crcOfRecord(bytes, crcs), crc32(bytes), `kind ${kind}, ${blockCount} blocks`);
  }
});

records('round trip of every kind, at any place', () => {
  fc.assert(
    fc.property(anyRecord, fc.integer({ min: 0, max: 300 }), fc.nat(), (fields, at, seed) => {
      const { bytes, payload, crcs, headerCrc } = encoded(fields, seed);
      assert.is((bytes.length - payload.length) % RECORD_ALIGN_BYTES, 0);
      const room = new Uint8Array(at + bytes.length + 10).fill(0x55);
      room.set(bytes, at);
      const back = decodeRecord(room, at, VOLUME)!;
      assert.equal(fieldsOf(back), fields);
      assertBytes(back.payload, payload, 'payload');
      assert.equal([...back.crcs], [...crcs]);
      assert.is(back.headerCrc, headerCrc);
      assert.is(back.totalBytes, bytes.length);
    }),
    { numRuns: 150 },
  );
});

records('the same record is the same bytes, whatever lay in its slot', () => {
  assertBytes(encoded(FIELDS).bytes, encoded(FIELDS).bytes, 'twice encoded');
  const slot = arena.take(2)!;
  slot.bytes.fill(0x11);
  const { payload, bytes } = encoded(FIELDS);
  slot.payload.set(payload);
  const crc = crcBlocks(payload, slot.crcs, 0);
  assertBytes(encodeRecord(slot, VOLUME, FIELDS, crc).bytes, bytes, 'other rubbish');
  arena.release(slot);
});

records('any flipped bit of the header, and any flipped byte of the payload, is refused', () => {
  for (const fields of [FIELDS, { ...FIELDS, kind: RECORD_KINDS.ZERO, blockCount: 8192 } as RecordFields]) {
    const { bytes, payload } = encoded(fields);
    const header = bytes.length - payload.length;
    for (let at = 0; at < bytes.length; at += at < header ? 1 : 61) {
      for (let bit = 0; bit < 8; bit += at < header ? 1 : 8) {
        bytes[at]! ^= 1 << bit;
        assert.is(decodeRecord(bytes, 0, VOLUME), null, `byte ${at} bit ${bit}`);
        bytes[at]! ^= 1 << bit;
      }
    }
    assert.ok(decodeRecord(bytes, 0, VOLUME), 'and without a flip it decodes');
  }
});

records('any truncation is refused', () => {
  const { bytes } = encoded(FIELDS);
  for (let length = 0; length < bytes.length; length += length < 300 ? 1 : 97) {
    assert.is(decodeRecord(bytes.subarray(0, length), 0, VOLUME), null, `${length} bytes`);
  }
  assert.is(decodeRecord(bytes.subarray(0, bytes.length - 1), 0, VOLUME), null);
  assert.is(decodeRecord(bytes, bytes.length - 10, VOLUME), null);
});

records('a record of another volume is refused', () => {
  const { bytes } = encoded(FIELDS);
  for (let i = 0; i < 16; i++) {
    const other = VOLUME.slice();
    other[i]! ^= 1;
    assert.is(decodeRecord(bytes, 0, other), null);
  }
});

/** A header with a right CRC over wrong content. */
function resealed(bytes: Uint8Array, headerLength: number, change: (view: DataView) => void): Uint8Array {
  const copy = bytes.slice();
  const view = new DataView(copy.buffer);
  change(view);
  view.setUint32(92, 0, true);
  view.setUint32(92, crc32(copy.subarray(0, headerLength)), true);
  return copy;
}

records('a sealed header that makes no sense is refused: version, kind, lengths', () => {
  const { bytes, payload } = encoded(FIELDS);
  const header = bytes.length - payload.length;
  assert.ok(
    decodeRecord(
      resealed(bytes, header, () => {}),
      0,
      VOLUME,
    ),
    'resealing works',
  );
  const changes: Array<(view: DataView) => void> = [
    (view) => view.setUint16(4, 2, true),
    (view) => view.setUint16(6, 9, true),
    (view) => view.setUint16(6, RECORD_KINDS.ZERO, true),
    (view) => view.setUint32(80, 1, true),
    (view) => view.setUint32(80, MAX_IO_BLOCKS + 1, true),
    (view) => view.setUint32(80, 0xffffffff, true),
    (view) => view.setUint32(84, BLOCK_BYTES, true),
    (view) => view.setUint32(84, 0xffffffff, true),
    (view) => view.setUint32(88, 0, true),
  ];
  changes.forEach((change, i) => assert.is(decodeRecord(resealed(bytes, header, change), 0, VOLUME), null, `${i}`));
});

records('numbers beyond 32 bits keep every bit', () => {
  const view = new DataView(new ArrayBuffer(16));
  fc.assert(
    fc.property(safe, (n) => {
      putNumber(view, 4, n);
      assert.is(getNumber(view, 4), n);
      assert.is(view.getBigUint64(4, true), BigInt(n));
    }),
  );
  assert.is(view.getUint32(0, true), 0);
  assert.is(view.getUint32(12, true), 0);
});

records('the largest header fits in front of a payload', () => {
  assert.ok(headerBytes(MAX_IO_BLOCKS) + 4 * (MAX_IO_BLOCKS + 1) <= BLOCK_BYTES, 'beside the checksums of its slot');
});
records.run();

const batches = suite('batch');

/** A batch of these records, as the journal writes it. */
function batchOf(list: EncodedRecord[], link = { batchNo: 9, prevCrc: 0x1234 }): Uint8Array {
  const used = BATCH_HEADER_BYTES + list.reduce((sum, r) => sum + r.bytes.length, 0);
  const lengthBytes = Math.ceil(used / 4096) * 4096;
  const bytes = new Uint8Array(lengthBytes);
  let at = BATCH_HEADER_BYTES;
  let fold = 0;
  for (const record of list) {
    bytes.set(record.bytes, at);
    at += record.bytes.length;
    fold = foldRecordCrc(fold, record.headerCrc);
  }
  encodeBatchHeader(bytes, DISK, { ...link, recordCount: list.length, lengthBytes, bodyCrc: fold });
  return bytes;
}

const three = (): EncodedRecord[] =>
  [1, 2, 3].map((n) => encoded({ ...FIELDS, seq: n, kind: n === 2 ? RECORD_KINDS.ZERO : RECORD_KINDS.WRITE }, n));
const decoded = (bytes: Uint8Array): DecodedRecord[] | null => {
  const header = decodeBatchHeader(bytes, 0, DISK);
  return header === null ? null : decodeBatch(bytes, header, VOLUME);
};

batches('records come back in order, the header says what it was given', () => {
  const bytes = batchOf(three());
  const header = decodeBatchHeader(bytes, 0, DISK)!;
  assert.is(header.batchNo, 9);
  assert.is(header.prevCrc, 0x1234);
  assert.is(header.recordCount, 3);
  assert.is(header.lengthBytes, bytes.length);
  assert.equal(
    decoded(bytes)!.map((r) => r.seq),
    [1, 2, 3],
  );
});

batches('the chain: the CRC that encoding returned is the one that decoding finds', () => {
  const bytes = new Uint8Array(4096);
  const h = { batchNo: 2 ** 45 + 1, prevCrc: 0xffffffff, recordCount: 1, lengthBytes: 4096, bodyCrc: 0xdeadbeef };
  const crc = encodeBatchHeader(bytes, DISK, h);
  assert.equal(decodeBatchHeader(bytes, 0, DISK), { ...h, headerCrc: crc } satisfies BatchHeader);
  // Any other predecessor gives another header CRC, so the links after it differ too.
  assert.is.not(encodeBatchHeader(bytes, DISK, { ...h, prevCrc: 0xfffffffe }), crc);
});

batches('a flipped bit anywhere in the header, another disk, a short buffer: no batch', () => {
  const bytes = batchOf(three());
  for (let at = 0; at < BATCH_HEADER_BYTES; at++) {
    for (let bit = 0; bit < 8; bit++) {
      bytes[at]! ^= 1 << bit;
      assert.is(decodeBatchHeader(bytes, 0, DISK), null, `byte ${at}`);
      bytes[at]! ^= 1 << bit;
    }
  }
  assert.is(decodeBatchHeader(bytes, 0, VOLUME), null);
});

batches('a lost, doubled, swapped or exchanged record is found', () => {
  const [a, b, c] = three() as [EncodedRecord, EncodedRecord, EncodedRecord];
  const good = batchOf([a, b, c]);
  const twin = encoded({ ...FIELDS, seq: 1, request: 78 }, 1);
  assert.is(twin.bytes.length, a.bytes.length);
  const orders = [
    [c, b, a],
    [a, b, a],
    [twin, b, c],
    [b, a, c],
  ];
  for (const order of orders) {
    const bytes = good.slice();
    let at = BATCH_HEADER_BYTES;
    for (const record of order) {
      bytes.set(record.bytes, at);
      at += record.bytes.length;
    }
    assert.is(decoded(bytes), null);
  }
  assert.ok(decoded(good));
});

batches('one torn sector of any record: no batch', () => {
  const good = batchOf(three());
  const used = BATCH_HEADER_BYTES + three().reduce((sum, r) => sum + r.bytes.length, 0);
  for (let at = 0; at < used; at += 512) {
    const torn = good.slice();
    torn.fill(0, at, at + 512);
    assert.is(decoded(torn), null, `sector at ${at}`);
  }
});

batches('headers that no batch can have are refused', () => {
  const good = { batchNo: 1, prevCrc: 0, recordCount: 1, lengthBytes: 4096, bodyCrc: 0 };
  const bad: Array<Partial<BatchHeader>> = [
    { recordCount: 0 },
    { recordCount: MAX_BATCH_RECORDS + 1 },
    { lengthBytes: 0 },
    { lengthBytes: 4097 },
    { lengthBytes: 2048 },
    { lengthBytes: MAX_BATCH_BYTES + 4096 },
  ];
  const bytes = new Uint8Array(4096);
  for (const change of [{}, { recordCount: MAX_BATCH_RECORDS }, { lengthBytes: MAX_BATCH_BYTES }]) {
    encodeBatchHeader(bytes, DISK, { ...good, ...change });
    assert.ok(decodeBatchHeader(bytes, 0, DISK));
  }
  for (const change of bad) {
    encodeBatchHeader(bytes, DISK, { ...good, ...change });
    assert.is(decodeBatchHeader(bytes, 0, DISK), null, JSON.stringify(change));
  }
});

batches('more records announced than are there, or a length shorter than the records', () => {
  const list = three();
  const bytes = batchOf(list);
  const header = decodeBatchHeader(bytes, 0, DISK)!;
  assert.is(decodeBatch(bytes, { ...header, recordCount: 4 }, VOLUME), null);
  assert.is(decodeBatch(bytes, { ...header, recordCount: 2 }, VOLUME), null);
  assert.is(decodeBatch(bytes, { ...header, lengthBytes: 4096 }, VOLUME), null);
});
batches.run();
