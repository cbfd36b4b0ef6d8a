/**
 * What every BlockDevice must do. `make` gives a new device of at least 8 MiB that was never written, and `done` to
 * take away what belongs to it.
 */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { BlockDevice, Extent } from '../../src/base/device.ts';
import { type ErrorCode, HoldfastError } from '../../src/base/errors.ts';
import { KiB, MAX_IO_BYTES, MiB } from '../../src/base/units.ts';
import { Random } from '../support/random.ts';

export interface Made {
  device: BlockDevice;
  done: () => Promise<void>;
}

const LEAST_BYTES = 8 * MiB;

/** Fails with the first byte that differs, not with megabytes of text. */
export function sameBytes(actual: Uint8Array, expected: Uint8Array, what = 'bytes'): void {
  assert.is(actual.length, expected.length, `${what}: length`);
  if (Buffer.compare(actual, expected) === 0) return;
  const at = actual.findIndex((byte, i) => byte !== expected[i]);
  assert.unreachable(`${what}: byte ${at} is ${actual[at]}, not ${expected[at]}`);
}

export async function rejectsWith(code: ErrorCode, work: () => Promise<unknown>, what: string = code): Promise<void> {
  let outcome: unknown = 'no error';
  try {
    await work();
  } catch (error) {
    outcome = error instanceof HoldfastError ? error.code : error;
  }
  assert.is(outcome, code, what);
}

/** Registers and runs the suite. */
export function blockDeviceContract(name: string, make: () => Promise<Made>): void {
  const contract = suite(`BlockDevice: ${name}`);
  const on = (title: string, body: (device: BlockDevice, random: Random) => Promise<void>): void =>
    contract(title, async () => {
      const { device, done } = await make();
      try {
        assert.ok(device.sizeBytes >= LEAST_BYTES);
        await body(device, new Random(title.length));
      } finally {
        await done();
      }
    });

  on('says what it is', async (device) => {
    assert.is(device.blockBytes, 4096);
    assert.is(device.atomicBytes, MAX_IO_BYTES);
    assert.is(device.readOnly, false);
    assert.is(device.sizeBytes % device.blockBytes, 0);
  });

  on('never-written bytes read as zeros, also the last ones', async (device) => {
    sameBytes(await device.read(0, 10_000), new Uint8Array(10_000));
    sameBytes(await device.read(device.sizeBytes - 4097, 4097), new Uint8Array(4097));
  });

  on('every alignment of offset and length', async (device, random) => {
    const model = new Uint8Array(64 * KiB);
    const near = [0, 1, 2, 511, 512, 4095, 4096, 4097, 8191, 8192, 12_288];
    for (const offset of near) {
      for (const length of near) {
        const bytes = random.bytes(length);
        await device.write(offset, bytes);
        model.set(bytes, offset);
        const from = Math.max(0, offset - 1);
        sameBytes(await device.read(from, length + 2), model.slice(from, from + length + 2), `${offset}+${length}`);
      }
    }
    sameBytes(await device.read(0, model.length), model);
  });

  on('the first and the last byte', async (device) => {
    const { sizeBytes } = device;
    await device.write(0, Uint8Array.of(1));
    await device.write(sizeBytes - 1, Uint8Array.of(2));
    assert.equal([...(await device.read(0, 2))], [1, 0]);
    assert.equal([...(await device.read(sizeBytes - 2, 2))], [0, 2]);
    await device.zero(sizeBytes - 1, 1);
    assert.equal([...(await device.read(sizeBytes - 1, 1))], [0]);
    await device.trim(sizeBytes - 4096, 4096);
    assert.equal(await device.extents(sizeBytes - 1, 1), [
      { offsetBytes: sizeBytes - 1, lengthBytes: 1, kind: 'hole' },
    ]);
  });

  on('length 0 is fine anywhere, also at the very end, and changes nothing', async (device) => {
    for (const at of [0, 1, 4096, device.sizeBytes]) {
      assert.is((await device.read(at, 0)).length, 0);
      await device.write(at, new Uint8Array(0));
      await device.zero(at, 0);
      await device.trim(at, 0);
      assert.equal(await device.extents(at, 0), []);
    }
    assert.equal(await device.extents(0, device.sizeBytes), [
      { offsetBytes: 0, lengthBytes: device.sizeBytes, kind: 'hole' },
    ]);
  });

  on('past the end: OUT_OF_RANGE, without effect', async (device) => {
    const { sizeBytes } = device;
    for (const [offset, length] of [
      [sizeBytes, 1],
      [sizeBytes - 1, 2],
      [sizeBytes + 1, 0],
      [sizeBytes - 4096, 1 * MiB],
      [2 ** 44, 4096],
      [Number.MAX_SAFE_INTEGER, 1],
    ] as const) {
      const what = `${offset}+${length}`;
      await rejectsWith('OUT_OF_RANGE', () => device.read(offset, length), `read ${what}`);
      await rejectsWith('OUT_OF_RANGE', () => device.write(offset, new Uint8Array(length).fill(1)), `write ${what}`);
      await rejectsWith('OUT_OF_RANGE', () => device.zero(offset, length), `zero ${what}`);
      await rejectsWith('OUT_OF_RANGE', () => device.trim(offset, length), `trim ${what}`);
      await rejectsWith('OUT_OF_RANGE', () => device.extents(offset, length), `extents ${what}`);
    }
    sameBytes(await device.read(sizeBytes - 8192, 8192), new Uint8Array(8192));
  });

  on('what is no whole number of bytes: INVALID_ARGUMENT', async (device) => {
    for (const bad of [NaN, -1, -4096, 0.5, 4096.5, Infinity, -Infinity, 2 ** 53]) {
      await rejectsWith('INVALID_ARGUMENT', () => device.read(bad, 1), `read at ${bad}`);
      await rejectsWith('INVALID_ARGUMENT', () => device.read(0, bad), `read of ${bad}`);
      await rejectsWith('INVALID_ARGUMENT', () => device.write(bad, new Uint8Array(1)), `write at ${bad}`);
      await rejectsWith('INVALID_ARGUMENT', () => device.zero(bad, 1), `zero at ${bad}`);
      await rejectsWith('INVALID_ARGUMENT', () => device.zero(0, bad), `zero of ${bad}`);
      await rejectsWith('INVALID_ARGUMENT', () => device.trim(bad, 1), `trim at ${bad}`);
      await rejectsWith('INVALID_ARGUMENT', () => device.trim(0, bad), `trim of ${bad}`);
      await rejectsWith('INVALID_ARGUMENT', () => device.extents(bad, 1), `extents at ${bad}`);
      await rejectsWith('INVALID_ARGUMENT', () => device.extents(0, bad), `extents of ${bad}`);
    }
  });

  on('NUL bytes are data', async (device) => {
    await device.write(0, new Uint8Array(8192).fill(0xff));
    await device.write(100, new Uint8Array(5000));
    const expected = new Uint8Array(8192).fill(0xff);
    expected.fill(0, 100, 5100);
    sameBytes(await device.read(0, 8192), expected);
    await device.write(8192, new Uint8Array(4096));
    sameBytes(await device.read(8192, 4096), new Uint8Array(4096));
  });

  on('views with an offset into a larger buffer are written as they are', async (device, random) => {
    const large = random.bytes(20_000);
    await device.write(10, large.subarray(3, 9003));
    sameBytes(await device.read(10, 9000), large.slice(3, 9003));
    await device.write(0, Buffer.from('holdfast'));
    assert.is(Buffer.from(await device.read(0, 8)).toString(), 'holdfast');
  });

  on(
    'the bytes of a write are free once it is answered, those of a read belong to the caller',
    async (device, random) => {
      const bytes = random.bytes(300 * KiB + 17);
      const copy = bytes.slice();
      await device.write(5, bytes);
      bytes.fill(0xee);
      const first = await device.read(5, copy.length);
      sameBytes(first, copy);
      first.fill(0xdd);
      const second = await device.read(5, copy.length);
      sameBytes(second, copy, 'after the first answer was overwritten');
      assert.ok(first.buffer !== second.buffer);
    },
  );

  on('zero: any range reads as zeros, its neighbours stay', async (device, random) => {
    const model = random.bytes(64 * KiB);
    await device.write(0, model);
    for (const [offset, length] of [
      [0, 1],
      [4095, 2],
      [8192, 4096],
      [12_289, 4094],
      [20_000, 10_000],
      [40_960, 8192],
    ] as const) {
      await device.zero(offset, length);
      model.fill(0, offset, offset + length);
      sameBytes(await device.read(0, model.length), model, `${offset}+${length}`);
    }
    await device.write(8200, Uint8Array.of(9));
    model[8200] = 9;
    sameBytes(await device.read(0, model.length), model, 'written again');
  });

  on('zero and trim of many megabytes at odd offsets', async (device) => {
    const ones = new Uint8Array(device.sizeBytes).fill(1);
    await device.write(0, ones);
    await device.zero(4097, 5 * MiB);
    ones.fill(0, 4097, 4097 + 5 * MiB);
    sameBytes(await device.read(0, device.sizeBytes), ones, 'zero');
    await device.trim(6 * MiB + 1, 2 * MiB - 2);
    ones.fill(0, 6 * MiB + 4096, 8 * MiB - 4096);
    sameBytes(await device.read(0, device.sizeBytes), ones, 'trim');
  });

  on('trim: whole blocks read as zeros, partial edges keep theirs', async (device, random) => {
    const model = random.bytes(64 * KiB);
    await device.write(0, model);
    for (const [offset, length, from, to] of [
      [1, 4094, 0, 0],
      [0, 4096, 0, 4096],
      [8191, 4097, 8192, 12_288],
      [16_385, 8191, 20_480, 24_576],
      [30_000, 20_000, 32_768, 49_152],
    ] as const) {
      await device.trim(offset, length);
      model.fill(0, from, to);
      sameBytes(await device.read(0, model.length), model, `${offset}+${length}`);
    }
  });

  on('extents: data where it was written, holes elsewhere, clipped and merged', async (device) => {
    await device.write(4096, new Uint8Array(4096).fill(1));
    await device.write(8192, new Uint8Array(1).fill(1));
    await device.write(20_480, new Uint8Array(8192).fill(1));
    await device.zero(20_480, 4096);
    const expected: Extent[] = [
      { offsetBytes: 0, lengthBytes: 4096, kind: 'hole' },
      { offsetBytes: 4096, lengthBytes: 8192, kind: 'data' },
      { offsetBytes: 12_288, lengthBytes: 12_288, kind: 'hole' },
      { offsetBytes: 24_576, lengthBytes: 4096, kind: 'data' },
      { offsetBytes: 28_672, lengthBytes: device.sizeBytes - 28_672, kind: 'hole' },
    ];
    assert.equal(await device.extents(0, device.sizeBytes), expected);
    assert.equal(await device.extents(5000, 10_000), [
      { offsetBytes: 5000, lengthBytes: 7288, kind: 'data' },
      { offsetBytes: 12_288, lengthBytes: 2712, kind: 'hole' },
    ]);
    assert.equal(await device.extents(0, device.sizeBytes, { limit: 2 }), expected.slice(0, 2));
    assert.equal(await device.extents(0, device.sizeBytes, { limit: 1 }), expected.slice(0, 1));
    await device.trim(4096, 8192);
    assert.equal((await device.extents(0, 24_576)).length, 1);
  });

  on('a write of 256 KiB at an odd offset is seen whole or not at all', async (device) => {
    const offset = 300 * KiB + 13;
    const old = new Uint8Array(MAX_IO_BYTES).fill(1);
    const fresh = new Uint8Array(MAX_IO_BYTES).fill(2);
    await device.write(offset, old);
    const all: Array<Promise<unknown>> = [];
    const reads: Array<Promise<Uint8Array>> = [];
    for (let i = 0; i < 8; i++) {
      all.push(device.write(offset, i % 2 ? old : fresh));
      const read = device.read(offset, MAX_IO_BYTES);
      reads.push(read);
      all.push(read);
    }
    await Promise.all(all);
    for (const bytes of await Promise.all(reads)) {
      assert.ok(bytes[0] === 1 || bytes[0] === 2);
      sameBytes(bytes, new Uint8Array(MAX_IO_BYTES).fill(bytes[0]!), 'a mixture of two writes');
    }
  });

  on('long writes at odd offsets', async (device, random) => {
    const bytes = random.bytes(5 * MiB + 12_345);
    await device.write(777, bytes);
    sameBytes(await device.read(777, bytes.length), bytes);
    assert.equal([...(await device.read(775, 2))], [0, 0]);
    const end = 777 + bytes.length;
    assert.equal([...(await device.read(end, 2))], [0, 0]);
  });

  on('overlapping writes at the same time end up in some order, block by block', async (device, random) => {
    for (let round = 0; round < 5; round++) {
      const writes = Array.from({ length: 24 }, (_, i) => {
        const offset = random.below(40_000);
        return { offset, length: 1 + random.below(20_000), value: round * 24 + i + 1 };
      });
      await Promise.all(writes.map((w) => device.write(w.offset, new Uint8Array(w.length).fill(w.value))));
      const got = await device.read(0, 65_536);
      for (let block = 0; block < 16; block++) {
        assert.ok(isSerial(got, block * 4096, writes), `block ${block} of round ${round}`);
      }
      await device.zero(0, 65_536);
    }
  });

  on('a read sees what was answered before it was called', async (device) => {
    for (let i = 1; i <= 200; i++) {
      const offset = (i * 37) % 9000;
      await device.write(offset, Uint8Array.of(i));
      assert.is((await device.read(offset, 1))[0], i % 256);
    }
  });

  on('flush answers after the writes before it', async (device) => {
    const order: string[] = [];
    const write = device.write(0, new Uint8Array(1 * MiB).fill(3)).then(() => order.push('write'));
    const flush = device.flush().then(() => order.push('flush'));
    await Promise.all([write, flush]);
    assert.equal(order, ['write', 'flush']);
    await device.flush();
  });

  on('a signal that is aborted already: ABORTED, without effect', async (device) => {
    const signal = AbortSignal.abort();
    await rejectsWith('ABORTED', () => device.write(0, Uint8Array.of(1), { signal }));
    await rejectsWith('ABORTED', () => device.read(0, 1, { signal }));
    assert.equal([...(await device.read(0, 1))], [0]);
  });

  on('a deadline that is far away does not matter', async (device) => {
    const options = { deadlineMs: 60_000, signal: new AbortController().signal };
    await device.write(0, Uint8Array.of(1), options);
    assert.is((await device.read(0, 1, options))[0], 1);
  });

  on('closed: CLOSED, and closing twice is fine', async (device) => {
    await device.close();
    await device.close();
    await rejectsWith('CLOSED', () => device.read(0, 1));
    await rejectsWith('CLOSED', () => device.write(0, Uint8Array.of(1)));
    await rejectsWith('CLOSED', () => device.zero(0, 1));
    await rejectsWith('CLOSED', () => device.trim(0, 4096));
    await rejectsWith('CLOSED', () => device.flush());
    await rejectsWith('CLOSED', () => device.extents(0, 1));
  });

  contract.run();
}

/**
 * Whether one block's content follows from the writes in some order: take away, from the last one backwards, a write
 * whose bytes are all still as it left them.
 */
export function isSerial(
  got: Uint8Array,
  blockAt: number,
  writes: ReadonlyArray<{ offset: number; length: number; value: number }>,
): boolean {
  const end = blockAt + 4096;
  const state = Array.from(got.subarray(blockAt, end), (value): number | null => value);
  let left = writes.filter((w) => w.offset < end && w.offset + w.length > blockAt);
  while (left.length > 0) {
    const last = left.find((w) => {
      const part = state.slice(Math.max(0, w.offset - blockAt), Math.min(4096, w.offset + w.length - blockAt));
      return part.every((value) => value === null || value === w.value);
    });
    if (last === undefined) return false;
    state.fill(null, Math.max(0, last.offset - blockAt), Math.min(4096, last.offset + last.length - blockAt));
    left = left.filter((w) => w !== last);
  }
  return state.every((value) => value === null || value === 0);
}
