import fc from 'fast-check';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { HoldfastError } from '../../src/base/errors.ts';
import * as wire from '../../src/protocol/handshake.ts';
import * as location from '../../src/protocol/location.ts';
import * as marks from '../../src/protocol/marks.ts';
import { MAX_CONTROL_BYTES, MAX_EXTENTS, SESSION_WINDOW } from '../../src/protocol/messages.ts';
import { SESSION_WINDOW as STORED_WINDOW } from '../../src/storage/layout.ts';

const number = fc.maxSafeNat();
const u64 = fc.bigInt(0n, 2n ** 64n - 1n);
const u32 = fc.nat(0xffff_ffff);
const name = fc.string({ unit: 'grapheme', maxLength: 20 });
const position = fc.record({ epoch: number, seq: number }, { noNullPrototype: true });

function roundTrips<T>(
  what: string,
  values: fc.Arbitrary<T>,
  encode: (v: T) => Uint8Array,
  decode: (b: Uint8Array) => T,
) {
  test(`${what}: encodes and decodes to the same`, () => {
    fc.assert(
      fc.property(values, (value) => assert.equal(decode(encode(value)), value)),
      { numRuns: 100 },
    );
  });
  test(`${what}: cut or lengthened it is a bad frame, any bytes decode or are one`, () => {
    const badOrGood = (bytes: Uint8Array): string => {
      try {
        decode(bytes);
        return 'good';
      } catch (error) {
        return error instanceof HoldfastError ? error.code : String(error);
      }
    };
    fc.assert(
      fc.property(values, fc.double({ min: 0, max: 0.999, noNaN: true }), (value, share) => {
        const bytes = encode(value);
        assert.is(badOrGood(bytes.subarray(0, Math.floor(bytes.length * share))), 'BAD_FRAME');
        assert.is(badOrGood(Uint8Array.from([...bytes, 0])), 'BAD_FRAME');
      }),
      { numRuns: 100 },
    );
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        assert.ok(['good', 'BAD_FRAME', 'INVALID_ARGUMENT'].includes(badOrGood(bytes)));
      }),
      { numRuns: 300 },
    );
  });
}

const hello = fc.record(
  {
    minVersion: fc.constant(1),
    maxVersion: fc.constant(1),
    features: u64,
    requiredFeatures: u64,
    session: u64,
    generation: number,
    client: name,
  },
  { noNullPrototype: true },
);
roundTrips('HELLO', hello, wire.encodeHello, wire.decodeHello);

const limits = fc.record(
  { maxPayloadBytes: u32, maxInFlightBytes: u32, maxInFlightRequests: u32, sessionWindow: u32 },
  { noNullPrototype: true },
);
roundTrips(
  'reply to HELLO',
  fc.record({ version: fc.nat(255), features: u64, limits, server: name }, { noNullPrototype: true }),
  wire.encodeHelloReply,
  wire.decodeHelloReply,
);
roundTrips(
  'ATTACH',
  fc.record(
    { volume: name, since: fc.option(position), access: fc.constantFrom('primary' as const, 'any' as const) },
    { noNullPrototype: true },
  ),
  // The field that may be left out is tested below: whether it is there is not to be seen from a payload that was cut.
  (attach) =>
    Uint8Array.from([...wire.encodeAttach({ ...attach, access: 'primary' }), Number(attach.access === 'any')]),
  (bytes) => {
    const attach = wire.decodeAttach(bytes);
    const { length } = wire.encodeAttach({ ...attach, access: 'primary' });
    if (bytes.length === length) throw new HoldfastError('BAD_FRAME');
    return attach;
  },
);
roundTrips('LOCATE', name, location.encodeLocate, location.decodeLocate);
const members = fc.array(
  fc.record({ node: name, clientAddress: name, inSync: fc.boolean() }, { noNullPrototype: true }),
  { maxLength: location.MAX_MEMBERS },
);
roundTrips(
  'reply to LOCATE',
  fc.record(
    {
      volumeId: fc.uint8Array({ minLength: 16, maxLength: 16 }),
      name,
      epoch: number,
      primary: name,
      primaryAddress: name,
      reads: fc.constantFrom('primary' as const, 'any' as const),
      members,
    },
    { noNullPrototype: true },
  ),
  location.encodeLocation,
  location.decodeLocation,
);
roundTrips('INFO', name, wire.encodeInfo, wire.decodeInfo);
roundTrips(
  'volume information',
  fc.record(
    {
      name,
      volumeId: fc.uint8Array({ minLength: 16, maxLength: 16 }),
      sizeBytes: number,
      blockBytes: u32,
      atomicBytes: u32,
      readOnly: fc.boolean(),
      epoch: number,
      position,
    },
    { noNullPrototype: true },
  ),
  wire.encodeVolumeInfo,
  wire.decodeVolumeInfo,
);
roundTrips(
  'LIST',
  fc.array(fc.record({ name, sizeBytes: number, readOnly: fc.boolean() }, { noNullPrototype: true })),
  wire.encodeList,
  (bytes) => wire.decodeList(bytes).volumes,
);
roundTrips(
  'EXTENTS',
  fc
    .array(fc.tuple(fc.integer({ min: 1, max: 0xffff_ffff }), fc.constantFrom('data' as const, 'hole' as const)))
    .map((list) => {
      let at = 4096;
      return list.map(([lengthBytes, kind]) => {
        const extent = { offsetBytes: at, lengthBytes, kind };
        at += lengthBytes;
        return extent;
      });
    }),
  wire.encodeExtents,
  (bytes) => wire.decodeExtents(bytes, 4096),
);

roundTrips(
  'CHANGES',
  fc.array(fc.tuple(fc.integer({ min: 1, max: 0xffff_ffff }), fc.boolean())).map((list) => {
    let at = 4096;
    return list.map(([lengthBytes, changed]) => {
      const run = { offsetBytes: at, lengthBytes, changed };
      at += lengthBytes;
      return run;
    });
  }),
  marks.encodeChanges,
  (bytes) => marks.decodeChanges(bytes, 4096),
);
roundTrips(
  'MARKS',
  fc.array(
    fc.record(
      {
        name,
        position: fc.record({ epoch: number, seq: number }, { noNullPrototype: true }),
        dirtyBlocks: number,
      },
      { noNullPrototype: true },
    ),
    { maxLength: 10 },
  ),
  marks.encodeMarks,
  marks.decodeMarks,
);

test('the most volumes and extents fit a payload, longer lists come in pages', () => {
  const long = Array.from({ length: wire.MAX_LISTED + 3 }, (_, i) => ({
    name: String(i).padStart(255, 'v'),
    sizeBytes: 2 ** 40,
    readOnly: false,
  }));
  const page = wire.encodeList(long);
  assert.ok(page.length <= MAX_CONTROL_BYTES);
  const first = wire.decodeList(page);
  assert.is(first.total, long.length);
  const second = wire.decodeList(wire.encodeList(long, first.volumes.length));
  assert.equal([...first.volumes, ...second.volumes], long);
  assert.equal(wire.decodeList(wire.encodeList(long, long.length + 5)).volumes, []);
  const extents = Array.from({ length: MAX_EXTENTS }, (_, i) => ({
    offsetBytes: i,
    lengthBytes: 1,
    kind: 'hole' as const,
  }));
  assert.ok(wire.encodeExtents(extents).length <= MAX_CONTROL_BYTES);
});

test('ATTACH: without the field of access as it was before there was one, which stands for the primary', () => {
  for (const since of [null, { epoch: 2, seq: 9 }]) {
    const old = wire.encodeAttach({ volume: 'demo', since });
    assert.is(old.length, since === null ? 7 : 23);
    assert.equal(wire.decodeAttach(old), { volume: 'demo', since, access: 'primary' });
    const any = wire.encodeAttach({ volume: 'demo', since, access: 'any' });
    assert.equal(any, Uint8Array.from([...old, 1]));
    assert.equal(wire.decodeAttach(any), { volume: 'demo', since, access: 'any' });
    assert.throws(
      () => wire.decodeAttach(Uint8Array.from([...old, 2])),
      (e: HoldfastError) => e.code === 'BAD_FRAME',
    );
  }
});

test('a location has a bounded number of members, with the longest names it fits a payload', () => {
  const member = { node: 'n'.repeat(255), clientAddress: 'a'.repeat(255), inSync: true };
  const full = {
    volumeId: new Uint8Array(16),
    name: 'v'.repeat(255),
    epoch: Number.MAX_SAFE_INTEGER,
    primary: member.node,
    primaryAddress: member.clientAddress,
    reads: 'any' as const,
    members: Array.from({ length: location.MAX_MEMBERS + 1 }, () => member),
  };
  const bytes = location.encodeLocation(full);
  assert.equal(location.decodeLocation(bytes), { ...full, members: full.members.slice(1) });
  const count = bytes.length - location.MAX_MEMBERS * (2 * 257 + 1) - 1;
  assert.is(bytes[count], location.MAX_MEMBERS);
  bytes[count] = location.MAX_MEMBERS + 1;
  assert.throws(
    () => location.decodeLocation(Uint8Array.from([...bytes, ...bytes.subarray(count + 1, count + 516)])),
    (e: HoldfastError) => e.code === 'BAD_FRAME' && e.message.includes('9 members'),
  );
});

test('names are cut at a character, never in the middle of one', () => {
  const { client } = wire.decodeHello(
    wire.encodeHello({
      minVersion: 1,
      maxVersion: 1,
      features: 0n,
      requiredFeatures: 0n,
      session: 1n,
      generation: 1,
      client: 'ü'.repeat(200),
    }),
  );
  assert.is(client, 'ü'.repeat(127));
});

test('text that is not UTF-8 is a bad frame', () => {
  assert.throws(
    () => wire.decodeInfo(Uint8Array.of(1, 0, 0xff)),
    (e: HoldfastError) => e.code === 'BAD_FRAME',
  );
});

test('an extents limit of 0 is refused, one above the limit lowered', () => {
  assert.throws(
    () => wire.decodeExtentsRequest(wire.encodeExtentsRequest(0)),
    (e: HoldfastError) => e.code === 'INVALID_ARGUMENT',
  );
  assert.is(wire.decodeExtentsRequest(wire.encodeExtentsRequest(7)), 7);
  assert.is(wire.decodeExtentsRequest(wire.encodeExtentsRequest(0xffff_ffff)), MAX_EXTENTS);
});

test('versions: the highest common one, or WRONG_VERSION with both ranges', () => {
  const base = { features: 0n, requiredFeatures: 0n, session: 1n, generation: 1, client: '' };
  assert.is(wire.agree({ ...base, minVersion: 1, maxVersion: 1 }), 1);
  assert.is(wire.agree({ ...base, minVersion: 0, maxVersion: 9 }), 1);
  for (const [minVersion, maxVersion] of [
    [2, 3],
    [0, 0],
    [3, 1],
  ] as const) {
    assert.throws(
      () => wire.agree({ ...base, minVersion, maxVersion }),
      (e: HoldfastError) => e.code === 'WRONG_VERSION' && e.message.includes('this server version 1'),
    );
  }
});

test('features: unknown ones are ignored, unknown required ones refused', () => {
  const base = { minVersion: 1, maxVersion: 1, session: 1n, generation: 1, client: '' };
  assert.is(wire.agree({ ...base, features: 2n ** 63n, requiredFeatures: 1n }, 1n), 1);
  assert.throws(
    () => wire.agree({ ...base, features: 0n, requiredFeatures: 3n }, 1n),
    (e: HoldfastError) => e.code === 'UNSUPPORTED' && e.message.includes('0x2'),
  );
});

test('a HELLO of a later version may be longer', () => {
  const bytes = wire.encodeHello({
    minVersion: 1,
    maxVersion: 2,
    features: 0n,
    requiredFeatures: 0n,
    session: 1n,
    generation: 1,
    client: 'later',
  });
  assert.is(wire.decodeHello(Uint8Array.from([...bytes, 1, 2, 3])).client, 'later');
});

test('the window on the wire is the one that the store keeps', () => {
  assert.is(SESSION_WINDOW, STORED_WINDOW);
});

test.run();
