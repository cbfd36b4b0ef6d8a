/** The handshake, option by option, in bytes written by hand from the specification. */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { NbdExport } from '../../src/nbd/exports.ts';
import {
  DEMO,
  Recorder,
  contextOption,
  exportsOf,
  hex,
  infoOption,
  option,
  optionReplies,
  text,
  u16,
  u32,
} from '../support/nbd-client.ts';

const ACK = 1;
const INFO = 3;
const META_CONTEXT = 4;
const ERR_UNSUP = 0x80000001;
const ERR_POLICY = 0x80000002;
const ERR_INVALID = 0x80000003;
const ERR_TLS_REQD = 0x80000005;
const ERR_UNKNOWN = 0x80000006;
const ERR_SHUTDOWN = 0x80000007;
const ERR_TOO_BIG = 0x80000009;

const READ_ONLY: NbdExport = { name: 'ro', sizeBytes: 0x1_0000_0000_00, readOnly: true };
const MARKED: NbdExport = { name: 'marked', sizeBytes: 4096, readOnly: false, marks: ['monday', 'tuesday'] };

/** A session past the client flags. */
function greeted(tls: 'off' | 'allow' | 'require' = 'off', flags = 3): Recorder {
  const recorder = new Recorder(exportsOf(DEMO, READ_ONLY, MARKED), tls);
  recorder.push(u32(flags));
  recorder.take();
  return recorder;
}

const types = (bytes: Buffer): number[] => optionReplies(bytes).map((reply) => reply.type);
const only = (bytes: Buffer): number => {
  const list = types(bytes);
  assert.is(list.length, 1);
  return list[0]!;
};

test('the greeting', () => {
  const recorder = new Recorder(exportsOf(DEMO));
  assert.equal(recorder.take(), hex('4e42444d41474943 49484156454f5054 0003'));
  assert.is(recorder.session.state, 'handshake');
  assert.ok(recorder.session.unfinished);
});

test('EXPORT_NAME without NO_ZEROES: size, flags, 124 zeros', () => {
  const recorder = greeted('off', 1);
  const reply = recorder.push(hex('49484156454f5054 00000001 00000004', Buffer.from('demo').toString('hex')));
  // HAS_FLAGS, FLUSH, FUA, TRIM, WRITE_ZEROES, CAN_MULTI_CONN, CACHE, FAST_ZERO
  assert.equal(reply, Buffer.concat([hex('0000000000100000 0d6d'), Buffer.alloc(124)]));
  assert.is(recorder.session.state, 'transmission');
  assert.is(recorder.agreed!.export.name, 'demo');
  assert.not(recorder.agreed!.structuredReplies);
  assert.not(recorder.session.unfinished);
});

test('EXPORT_NAME with NO_ZEROES, the default export, and by a client of plain newstyle', () => {
  assert.equal(greeted().push(option(1)), hex('0000000000100000 0d6d'));
  const plain = greeted('off', 0);
  assert.is(only(plain.push(option(3))), ERR_INVALID);
  assert.is(plain.push(option(1, Buffer.from('demo'))).length, 134);
});

test('EXPORT_NAME of a read-only export: no TRIM, no WRITE_ZEROES', () => {
  // HAS_FLAGS, READ_ONLY, FLUSH, FUA, CAN_MULTI_CONN, CACHE
  assert.equal(greeted().push(option(1, Buffer.from('ro'))), hex('0000010000000000 050f'));
});

test('EXPORT_NAME of no export, of no text, of too much text ends the session', () => {
  for (const name of [Buffer.from('other'), hex('ff'), Buffer.from('a\0b'), Buffer.alloc(4097, 97)]) {
    const recorder = greeted();
    assert.is(recorder.push(option(1, name)).length, 0);
    assert.is(recorder.end!.soft, false);
    assert.is(recorder.session.state, 'ended');
    assert.not(recorder.session.unfinished);
  }
});

test('ABORT is acknowledged, whatever it carries, and ends softly', () => {
  for (const tls of ['off', 'require'] as const) {
    const recorder = greeted(tls);
    const reply = recorder.push(option(2, Buffer.from('bye')));
    assert.equal(reply, hex('0003e889045565a9 00000002 00000001 00000000'));
    assert.is(recorder.end!.soft, true);
    assert.is(recorder.push(option(3)).length, 0);
  }
});

test('LIST', () => {
  const recorder = greeted();
  assert.equal(
    recorder.push(option(3)),
    Buffer.concat([
      hex('0003e889045565a9 00000003 00000002 0000000e 00000004'),
      Buffer.from('demoa disk'),
      hex('0003e889045565a9 00000003 00000002 00000006 00000002'),
      Buffer.from('ro'),
      hex('0003e889045565a9 00000003 00000002 0000000a 00000006'),
      Buffer.from('marked'),
      hex('0003e889045565a9 00000003 00000001 00000000'),
    ]),
  );
  assert.is(only(recorder.push(option(3, hex('00')))), ERR_INVALID);
});

test('INFO tells what is asked and stays in the handshake; GO goes on', () => {
  const recorder = greeted();
  const told = Buffer.concat([
    hex('0003e889045565a9 00000006 00000003 0000000c 0000 0000000000100000 0d6d'),
    hex('0003e889045565a9 00000006 00000003 00000006 0001'),
    Buffer.from('demo'),
    hex('0003e889045565a9 00000006 00000003 00000008 0002'),
    Buffer.from('a disk'),
    hex('0003e889045565a9 00000006 00000003 0000000e 0003 00000001 00001000 02000000'),
    hex('0003e889045565a9 00000006 00000001 00000000'),
  ]);
  assert.equal(recorder.push(infoOption(6, '', 3, 1, 2, 77, 1)), told);
  assert.is(recorder.session.state, 'handshake');
  assert.equal(
    recorder.push(infoOption(7, 'demo')),
    Buffer.concat([
      hex('0003e889045565a9 00000007 00000003 0000000c 0000 0000000000100000 0d6d'),
      hex('0003e889045565a9 00000007 00000001 00000000'),
    ]),
  );
  assert.is(recorder.session.state, 'transmission');
});

test('an export without a description tells none', () => {
  const items = optionReplies(greeted().push(infoOption(6, 'ro', 2))).map(({ type, data }) => [type, data.length]);
  assert.equal(items, [
    [INFO, 12],
    [ACK, 0],
  ]);
});

test('INFO and GO: unknown and malformed', () => {
  const recorder = greeted();
  assert.is(only(recorder.push(infoOption(7, 'other'))), ERR_UNKNOWN);
  const malformed = [
    [],
    [hex('0000')],
    [u32(5), Buffer.from('demo'), u16(0)],
    [u32(0xffffffff), Buffer.from('demo'), u16(0)],
    [text('demo')],
    [text('demo'), u16(1)],
    [text('demo'), u16(0), u16(3)],
    [u32(1), hex('ff'), u16(0)],
    [u32(3), Buffer.from('a\0b'), u16(0)],
  ];
  for (const data of malformed) {
    assert.is(only(recorder.push(option(6, ...data))), ERR_INVALID);
    assert.is(only(recorder.push(option(7, ...data))), ERR_INVALID);
  }
  assert.is(recorder.session.state, 'handshake');
});

test('structured replies bring DF', () => {
  const recorder = greeted();
  assert.is(only(recorder.push(option(8, hex('00')))), ERR_INVALID);
  assert.equal(recorder.push(option(8)), hex('0003e889045565a9 00000008 00000001 00000000'));
  assert.equal(recorder.push(option(1)), hex('0000000000100000 0ded'));
  assert.ok(recorder.agreed!.structuredReplies);
});

test('metadata contexts need structured replies', () => {
  const recorder = greeted();
  assert.is(only(recorder.push(contextOption(9, 'demo'))), ERR_INVALID);
  assert.is(only(recorder.push(contextOption(10, 'demo', 'base:allocation'))), ERR_INVALID);
});

test('LIST_META_CONTEXT', () => {
  const recorder = greeted();
  recorder.push(option(8));
  assert.equal(
    recorder.push(contextOption(9, 'demo')),
    Buffer.concat([
      hex('0003e889045565a9 00000009 00000004 00000013 00000000'),
      Buffer.from('base:allocation'),
      hex('0003e889045565a9 00000009 00000001 00000000'),
    ]),
  );
  const names = (...queries: string[]): string[] =>
    optionReplies(recorder.push(contextOption(9, 'marked', ...queries)))
      .filter(({ type }) => type === META_CONTEXT)
      .map(({ data }) => data.subarray(4).toString());
  const [base, monday, tuesday] = ['base:allocation', 'qemu:dirty-bitmap:monday', 'qemu:dirty-bitmap:tuesday'];
  assert.equal(names(), [base, monday, tuesday]);
  assert.equal(names('base:'), [base]);
  assert.equal(names('qemu:'), [monday, tuesday]);
  assert.equal(names('qemu:dirty-bitmap:'), [monday, tuesday]);
  assert.equal(names('qemu:dirty-bitmap:tuesday', 'x-other:', 'nonsense', 'base:allocation'), [base, tuesday]);
  assert.equal(names('x-other:thing'), []);
  assert.is(only(recorder.push(contextOption(9, 'other'))), ERR_UNKNOWN);
});

test('SET_META_CONTEXT selects by exact name, and replaces what was selected', () => {
  const recorder = greeted();
  recorder.push(option(8));
  assert.equal(
    recorder.push(contextOption(10, 'marked', 'qemu:dirty-bitmap:tuesday', 'base:allocation', 'base:allocation')),
    Buffer.concat([
      hex('0003e889045565a9 0000000a 00000004 00000013 00000001'),
      Buffer.from('base:allocation'),
      hex('0003e889045565a9 0000000a 00000004 0000001d 00000003'),
      Buffer.from('qemu:dirty-bitmap:tuesday'),
      hex('0003e889045565a9 0000000a 00000001 00000000'),
    ]),
  );
  assert.equal(types(recorder.push(contextOption(10, 'marked', 'qemu:', 'base:'))), [ACK]);
  recorder.push(contextOption(10, 'marked', 'qemu:dirty-bitmap:monday'));
  recorder.push(infoOption(7, 'marked'));
  assert.equal(recorder.agreed!.contexts, [{ id: 2, name: 'qemu:dirty-bitmap:monday', mark: 'monday' }]);
});

test('a selection counts for its export only, and a failing one selects nothing', () => {
  const other = greeted();
  other.push(option(8), contextOption(10, 'marked', 'base:allocation'), infoOption(7, 'demo'));
  assert.equal(other.agreed!.contexts, []);
  for (const second of [contextOption(10, 'nobody'), option(10, hex('00')), option(10, Buffer.alloc(70_000))]) {
    const recorder = greeted();
    recorder.push(option(8), contextOption(10, 'demo', 'base:allocation'), second, infoOption(7, 'demo'));
    assert.equal(recorder.agreed!.contexts, []);
  }
  const byDefault = greeted();
  byDefault.push(option(8), contextOption(10, '', 'base:allocation'), infoOption(7, 'demo'));
  assert.is(byDefault.agreed!.contexts.length, 1);
});

test('malformed and too many contexts', () => {
  const recorder = greeted();
  recorder.push(option(8));
  const malformed = [
    [],
    [text('demo')],
    [text('demo'), u32(1)],
    [text('demo'), u32(0xffffffff)],
    [text('demo'), u32(1), u32(16), Buffer.from('base:allocation')],
    [text('demo'), u32(0), hex('00')],
    [text('demo'), u32(1), u32(1), hex('ff')],
  ];
  for (const data of malformed) {
    assert.is(only(recorder.push(option(9, ...data))), ERR_INVALID);
    assert.is(only(recorder.push(option(10, ...data))), ERR_INVALID);
  }
  const marks = Array.from({ length: 17 }, (_, i) => `m${i}`);
  const many = new Recorder(exportsOf({ ...MARKED, marks }));
  const queries = marks.map((mark) => `qemu:dirty-bitmap:${mark}`);
  many.push(u32(3), option(8));
  assert.is(only(many.push(contextOption(10, '', ...queries))), ERR_TOO_BIG);
  assert.is(types(many.push(contextOption(10, '', ...queries.slice(0, 16)))).length, 17);
});

test('unknown options and EXTENDED_HEADERS', () => {
  const recorder = greeted();
  for (const number of [0, 4, 11, 12, 0xffffffff]) {
    const [reply] = optionReplies(recorder.push(option(number, Buffer.from('data'))));
    assert.is(reply!.option, number);
    assert.is(reply!.type, ERR_UNSUP);
  }
});

test('STARTTLS: policy, and nothing agreed in the clear outlives it', () => {
  assert.is(only(greeted('off').push(option(5))), ERR_POLICY);
  for (const policy of ['allow', 'require'] as const) {
    const recorder = greeted(policy);
    if (policy === 'allow') recorder.push(option(8), contextOption(10, 'demo', 'base:allocation'));
    assert.is(only(recorder.push(option(5, hex('00')))), ERR_INVALID);
    assert.is(recorder.tlsStarts, 0);
    assert.equal(recorder.push(option(5)), hex('0003e889045565a9 00000005 00000001 00000000'));
    assert.is(recorder.tlsStarts, 1);
    assert.is(recorder.session.state, 'starting-tls');
    recorder.session.tlsUp();
    assert.is(recorder.session.state, 'handshake');
    assert.is(only(recorder.push(option(5))), ERR_INVALID);
    assert.is(only(recorder.push(contextOption(9, 'demo'))), ERR_INVALID);
    assert.equal(types(recorder.push(infoOption(7, 'demo'))), [INFO, ACK]);
    assert.ok(recorder.agreed!.tls);
    assert.not(recorder.agreed!.structuredReplies);
    assert.equal(recorder.agreed!.contexts, []);
  }
});

test('bytes in the clear behind STARTTLS end the session', () => {
  const together = greeted('allow');
  together.push(Buffer.concat([option(5), option(8)]));
  assert.is(together.end!.soft, false);
  const apart = greeted('allow');
  apart.push(option(5));
  apart.push(option(8));
  assert.is(apart.end!.soft, false);
  apart.session.tlsUp();
  assert.is(apart.session.state, 'ended');
});

test('require: every option but STARTTLS and ABORT waits for TLS', () => {
  const recorder = greeted('require');
  for (const number of [3, 6, 7, 8, 9, 10, 11, 99]) {
    assert.is(only(recorder.push(option(number, text('demo'), u16(0)))), ERR_TLS_REQD);
  }
  assert.is(only(recorder.push(option(7, Buffer.alloc(70_000)))), ERR_TLS_REQD);
  assert.is(recorder.push(option(1, Buffer.from('demo'))).length, 0);
  assert.is(recorder.end!.soft, false);
});

test('long options are skipped, longer ones end the session', () => {
  const recorder = greeted();
  assert.is(only(recorder.push(option(7, Buffer.alloc(65_537)))), ERR_TOO_BIG);
  assert.is(only(recorder.push(option(99, Buffer.alloc(65_536)))), ERR_UNSUP);
  assert.is(only(recorder.push(option(99, Buffer.alloc(1 << 20)))), ERR_TOO_BIG);
  assert.equal(types(recorder.push(option(8))), [ACK]);
  recorder.push(Buffer.concat([Buffer.from('IHAVEOPT'), u32(99), u32((1 << 20) + 1)]));
  assert.is(recorder.end!.soft, false);
  const named = greeted();
  named.push(option(1, Buffer.alloc(65_537)));
  assert.is(named.end!.soft, false);
  const aborted = greeted();
  assert.is(only(aborted.push(option(2, Buffer.alloc(65_537)))), ACK);
  assert.is(aborted.end!.soft, true);
});

test('a handshake has 64 options at most', () => {
  const recorder = greeted();
  for (let i = 0; i < 64; i++) assert.is(only(recorder.push(option(99))), ERR_UNSUP);
  assert.is(recorder.end, null);
  assert.is(recorder.push(option(99)).length, 0);
  assert.is(recorder.end!.soft, false);
});

test('unknown client flags and a wrong magic end the session', () => {
  for (const flags of [4, 0x80000003, 0xffffffff]) {
    const recorder = new Recorder(exportsOf(DEMO));
    recorder.push(u32(flags));
    assert.is(recorder.end!.soft, false);
  }
  const recorder = greeted();
  recorder.push(Buffer.from('GET / HTTP/1.1\r\n\r\n'));
  assert.is(recorder.end!.soft, false);
});

test('a server that shuts down says so', () => {
  const recorder = greeted();
  recorder.session.shutDown();
  assert.is(only(recorder.push(infoOption(7, 'demo'))), ERR_SHUTDOWN);
  assert.is(only(recorder.push(option(3))), ERR_SHUTDOWN);
  assert.is(only(recorder.push(option(2))), ACK);
  const named = greeted();
  named.session.shutDown();
  named.push(option(1));
  assert.is(named.end!.soft, false);
});

test.run();
