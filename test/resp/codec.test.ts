/**
 * Requests come the same however the stream is cut; no bytes harm the parser; what the writer writes is what a strict
 * reader reads.
 */
import fc from 'fast-check';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { globMatches, literalPrefix } from '../../src/resp/glob.ts';
import { splitWords } from '../../src/resp/inline.ts';
import { parseInt64, parseLength } from '../../src/resp/integers.ts';
import { RESP_LIMITS } from '../../src/resp/limits.ts';
import { type AnyReply, Double, Failure, Members, NO_ARRAY, Pairs, Status, Text } from '../../src/resp/reply.ts';
import { ReplyWriter } from '../../src/resp/reply-writer.ts';
import { RequestParser } from '../../src/resp/request-parser.ts';
import { ScanCursors } from '../../src/resp/scan-cursors.ts';
import { type Tree, encodeCommand, readAll, readReply } from '../support/resp-replies.ts';

const test = suite('RESP codec');
const LIMITS = { ...RESP_LIMITS, maxArguments: 100, maxBulkBytes: 4096, maxRequestBytes: 16_384 };
const LINE_BYTES = 64 * 1024;

/** What a parser makes of a stream in pieces of these lengths, over and over. */
function parse(stream: Buffer, lengths: readonly number[], limits = LIMITS) {
  const parser = new RequestParser(limits);
  const requests: string[][] = [];
  let mostKept = 0;
  for (let at = 0, i = 0; at < stream.length; i++) {
    const end = Math.min(stream.length, at + lengths[i % lengths.length]!);
    const piece = Buffer.from(stream.subarray(at, end));
    parser.push(piece);
    for (let args = parser.next(); args !== null; args = parser.next()) {
      requests.push(args.map((arg) => arg.toString('latin1')));
    }
    mostKept = Math.max(mostKept, parser.keptBytes);
    at = end;
  }
  return { requests, problem: parser.problem, midRequest: parser.midRequest, mostKept, left: parser.unreadBytes };
}

const bytes = fc.oneof(
  fc.uint8Array({ maxLength: 20 }),
  fc.uint8Array({ maxLength: 3000 }),
  fc.constantFrom(Buffer.from('\r\n'), Buffer.from('$3\r\n'), Buffer.alloc(0)),
);
const command = fc.array(bytes, { minLength: 1, maxLength: 5 });
const lengths = fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1, maxLength: 10 });
const anyLengths = fc.oneof(lengths, fc.array(fc.integer({ min: 1, max: 9000 }), { minLength: 1, maxLength: 4 }));

test('arrays of strings come as they were sent, for every cut', () => {
  fc.assert(
    fc.property(fc.array(command, { maxLength: 8 }), anyLengths, (commands, cut) => {
      const stream = Buffer.concat(commands.map(encodeCommand));
      const { requests, problem, midRequest, left } = parse(stream, cut);
      assert.is(problem, null);
      assert.is(midRequest, false);
      assert.is(left, 0);
      assert.equal(
        requests,
        commands.map((args) => args.map((arg) => Buffer.from(arg).toString('latin1'))),
      );
    }),
  );
});

/** Pieces of requests, good and bad, lined up at random. */
const noise = fc
  .array(
    fc.oneof(
      { weight: 3, arbitrary: command.map((args) => encodeCommand(args)) },
      fc
        .constantFrom(
          'PING\r\n',
          'set a "b c"\n',
          '\r\n',
          '*2\r\n',
          '$3\r\n',
          '*0\r\n',
          '*-1\r\n',
          '$-1\r\n',
          '*1\r\n$1\r\na\r\n',
          '"',
          "'",
          '*',
          '$',
          '\r',
          '\n',
          'x',
          '*99999999999\r\n',
          '*1\r\n$9999\r\n',
          '*101\r\n',
          '*01\r\n',
          '\0',
        )
        .map((text) => Buffer.from(text)),
      fc.uint8Array({ maxLength: 30 }).map((some) => Buffer.from(some)),
    ),
    { maxLength: 20 },
  )
  .map((parts) => Buffer.concat(parts));

test('whatever comes: no throw, the same for every cut, and bounded', () => {
  fc.assert(
    fc.property(noise, anyLengths, (stream, cut) => {
      const whole = parse(stream, [stream.length + 1]);
      const cutUp = parse(stream, cut);
      assert.equal(cutUp.requests, whole.requests);
      assert.is(cutUp.problem, whole.problem);
      assert.is(cutUp.midRequest, whole.midRequest);
      assert.ok(cutUp.mostKept <= LIMITS.maxRequestBytes + 4 * LINE_BYTES, `kept ${cutUp.mostKept}`);
    }),
    { numRuns: 2000 },
  );
});

test('an endless line, array or string ends at its bound', () => {
  const endless = (begin: string, piece: Buffer): { problem: string | null; sent: number; kept: number } => {
    const parser = new RequestParser(LIMITS);
    parser.push(Buffer.from(begin));
    let [sent, kept] = [0, 0];
    while (parser.next() === null && parser.problem === null && sent < 10_000_000) {
      parser.push(Buffer.from(piece));
      sent += piece.length;
      kept = Math.max(kept, parser.keptBytes);
    }
    return { problem: parser.problem, sent, kept };
  };
  const cases: Array<[string, string, string]> = [
    ['', 'a', 'too big inline request'],
    ['*', '1', 'too big mbulk count string'],
    ['*1\r\n$', '1', 'too big bulk count string'],
    ['*100\r\n', '$1000\r\n', 'too big request'],
  ];
  for (const [begin, piece, problem] of cases) {
    const sized = piece.startsWith('$') ? Buffer.from(`${piece}${'x'.repeat(1000)}\r\n`) : Buffer.alloc(7, piece);
    const found = endless(begin, sized);
    assert.is(found.problem, problem);
    assert.ok(found.sent < 2 * LINE_BYTES, `${found.sent} bytes were taken`);
    assert.ok(found.kept < 4 * LINE_BYTES, `${found.kept} bytes were kept`);
  }
});

test('an announced string takes no more than it may, and none before the bound is checked', () => {
  assert.is(parse(Buffer.from('*1\r\n$4097\r\n'), [3]).problem, 'invalid bulk length');
  assert.is(parse(Buffer.from('*1\r\n$4096\r\n'), [3]).problem, null);
  assert.is(parse(Buffer.from('*100\r\n'), [3]).midRequest, true);
  assert.is(parse(Buffer.from('*101\r\n'), [3]).problem, 'invalid multibulk length');
});

test('numbers: digits only, 64 bits', () => {
  const good = ['0', '1', '-1', '9223372036854775807', '-9223372036854775808', '123456789012345'];
  for (const text of good) assert.is(parseInt64(Buffer.from(text)), BigInt(text));
  for (const text of ['', '+1', '01', '-0', ' 1', '1 ', '1.0', '9223372036854775808', '-9223372036854775809', '-']) {
    assert.is(parseInt64(Buffer.from(text)), null, text);
  }
  fc.assert(
    fc.property(fc.oneof(fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }).map(String), fc.string()), (text) => {
      const long = parseInt64(Buffer.from(text));
      assert.is(parseLength(Buffer.from(`*${text}`), 1), long === null ? null : Number(long), text);
    }),
  );
});

test('typed words', () => {
  const split = (line: string): string[] | null =>
    splitWords(Buffer.from(line, 'latin1'))?.map((word) => word.toString('latin1')) ?? null;
  assert.equal(split('  a  "b \\"c\\" \\x41\\xZZ\\n" \'d\\\'e\\n\' f"g" '), ['a', 'b "c" AxZZ\n', "d'e\\n", 'fg']);
  assert.equal(split('"" \'\''), ['', '']);
  for (const bad of ['"a', "'a", '"a"b', "'a'b", '"a\\"', '"\\']) assert.is(split(bad), null, bad);
});

test('patterns are matched in steps that grow with their length only', () => {
  assert.ok(globMatches('h[^e]llo*[a-c]', 'hallo worldb'));
  assert.not(globMatches('h[^e]llo', 'hello'));
  assert.ok(globMatches('\\*a\\', '*a\\'));
  // With one try for every way to give the stars their share this would outlast the universe.
  assert.not(globMatches('a*'.repeat(60) + 'b', 'a'.repeat(5000)));
  assert.is(literalPrefix('user:\\*'), 'user:');
  fc.assert(
    fc.property(fc.string(), fc.string(), (prefix, rest) => {
      const escaped = prefix.replace(/[*?[\]\\^-]/g, (sign) => `\\${sign}`);
      assert.ok(globMatches(`${escaped}*`, prefix + rest));
      assert.ok((prefix + rest).startsWith(literalPrefix(`${escaped}*`)));
    }),
  );
});

const line = fc.string({ maxLength: 20 }).map((text) => text.replace(/[^ -~]/g, ' '));
const { reply } = fc.letrec<{ reply: AnyReply; leaf: AnyReply }>((tie) => ({
  leaf: fc.oneof(
    fc.constantFrom(null, NO_ARRAY, true, false),
    fc.integer(),
    fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }),
    fc.string(),
    fc.uint8Array({ maxLength: 9000 }),
    line.map((text) => new Status(text)),
    fc.string().map((text) => new Failure(Buffer.from(text).toString('latin1'))),
    fc.double().map((value) => new Double(value)),
    fc.string().map((text) => new Text(text)),
  ),
  reply: fc.oneof(
    { depthSize: 'small', withCrossShrink: true },
    tie('leaf'),
    fc.array(tie('reply'), { maxLength: 5 }) as fc.Arbitrary<AnyReply>,
    fc.array(tie('reply'), { maxLength: 5 }).map((members) => new Members(members as never)),
    fc.array(fc.tuple(fc.string(), tie('reply')), { maxLength: 4 }).map((pairs) => new Pairs(pairs.flat() as never)),
  ),
}));

const latin1 = (text: string): string => Buffer.from(text).toString('latin1');

/** What a reader is to find. */
function expected(value: AnyReply, modern: boolean): Tree {
  if (value === null || value === NO_ARRAY) return null;
  if (typeof value === 'boolean') return modern ? `#${value ? 't' : 'f'}` : `:${value ? 1 : 0}`;
  if (typeof value === 'number' || typeof value === 'bigint') return `:${value}`;
  if (typeof value === 'string') return latin1(value);
  if (value instanceof Uint8Array) return Buffer.from(value).toString('latin1');
  if (value instanceof Status) return { status: value.text };
  if (value instanceof Failure) return { error: value.text };
  if (value instanceof Text) return modern ? `txt:${latin1(value.text)}` : latin1(value.text);
  if (value instanceof Double) {
    const { value: number } = value;
    const text = Number.isNaN(number) ? 'nan' : String(number).replace('Infinity', 'inf');
    return modern ? `,${text}` : text;
  }
  const [sign, parts] = Array.isArray(value)
    ? ['*', value]
    : value instanceof Pairs
      ? ['%', value.flat]
      : ['~', value.members];
  return [modern ? sign : '*', ...parts.map((part) => expected(part, modern))];
}

test('replies are read as they were meant, in both protocols', () => {
  fc.assert(
    fc.property(fc.array(reply, { maxLength: 5 }), fc.constantFrom(2 as const, 3 as const), (replies, protocol) => {
      const writer = new ReplyWriter(64);
      const taken: Buffer[] = [];
      for (const one of replies) {
        writer.put(one, protocol);
        if (writer.length % 3 === 0) taken.push(writer.take());
      }
      taken.push(writer.take());
      assert.equal(
        readAll(Buffer.concat(taken)),
        replies.map((one) => expected(one, protocol === 3)),
      );
      assert.is(writer.length, 0);
    }),
    { numRuns: 500 },
  );
});

test('an error is one line, whatever it quotes', () => {
  const writer = new ReplyWriter();
  writer.put(new Failure('ERR a\r\nb\n+OK\r\n'), 2);
  assert.is(readReply(writer.take())!.end, 'ERR a  b +OK  '.length + 3);
});

test('scan cursors: bounded, never used twice, the one that is used stays', () => {
  const cursors = new ScanCursors(1000, 3);
  const first = cursors.keep('a');
  const second = cursors.keep('b');
  cursors.keep('c');
  assert.is(cursors.find(first), 'a');
  cursors.keep('d');
  assert.is(cursors.find(second), null);
  assert.is(cursors.find(first), 'a');
  assert.ok(cursors.keep('e') > second && second > first && first > 1000);
  assert.is(cursors.find(1000), null);
});

test.run();
