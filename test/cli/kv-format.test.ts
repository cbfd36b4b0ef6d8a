/** What an import takes for whole, and lines of a stream however it is cut into pieces. */
import { createHash } from 'node:crypto';
import * as assert from 'uvu/assert';
import { suite } from 'uvu';
import { BrokenFile, LineWriter, entriesOf } from '../../src/cli/kv-format.ts';
import { linesOf } from '../../src/cli/lines.ts';

const test = suite('the format of exports');

async function* piecesOf(bytes: Buffer, pieceBytes: number): AsyncGenerator<Buffer> {
  for (let at = 0; at < bytes.length; at += pieceBytes) yield bytes.subarray(at, at + pieceBytes);
}

async function read(text: string | Buffer, pieceBytes = 7, fuzzy = false): Promise<string[]> {
  const found: string[] = [];
  const pieces = piecesOf(Buffer.from(text as string), pieceBytes);
  for await (const { key, value, expiresAtMs } of entriesOf(pieces, fuzzy)) {
    found.push(`${key.toString()}=${value.toString('latin1')}@${expiresAtMs ?? ''}`);
  }
  return found;
}

function summed(lines: readonly string[], count = lines.length - 1): string {
  const text = lines.map((line) => `${line}\n`).join('');
  return `${text}${JSON.stringify({ count, sha256: createHash('sha256').update(text).digest('hex') })}\n`;
}

const HEAD = '{"format":"holdfast-kv-1"}';
const GOOD = '{"key":"YQ==","value":"AAE="}';

test('what was written is read, whatever pieces it comes in', async () => {
  const writer = new LineWriter();
  let text = writer.head('keys', 5);
  text += writer.entry(Buffer.from('a'), Buffer.from([0, 10, 255]), null);
  text += writer.entry(Buffer.from('b'), Buffer.alloc(0), 1234);
  text += writer.end(true);
  const entries = ['a=\0\n\xff@', 'b=@1234'];
  for (const pieceBytes of [1, 2, 13, 1000]) assert.equal(await read(text, pieceBytes), entries);
  // As an editor leaves it, or a system that ends lines otherwise.
  assert.equal(await read(text.slice(0, -1)), entries);
  assert.equal(await read(text.replaceAll('\n', '\r\n')), entries);
  assert.equal(await read(summed([HEAD])), []);
});

test('keys of different moments are told from those of one', async () => {
  const writer = new LineWriter();
  const text = writer.head('keys', 5) + writer.entry(Buffer.from('a'), Buffer.alloc(0), null) + writer.end(false);
  assert.equal(await read(text, 7, true), ['a=@']);
  await read(text).then(
    () => assert.unreachable(),
    (error: Error) => assert.match(error.message, /different moments/),
  );
});

test('what is not whole is refused, and says why', async () => {
  const cases: ReadonlyArray<readonly [string | Buffer, RegExp]> = [
    ['', /empty/],
    [`${HEAD}\n`, /empty, or cut off/],
    ['{"format":"other"}\n', /no holdfast-kv-1/],
    ['\n', /line 1 is no object/],
    ['null\nnull\n', /line 1 is no object/],
    [`${HEAD}\n${GOOD}\n`, /cut off/],
    [summed([HEAD, GOOD]).slice(0, -30), /line 3 is no object/],
    [summed([HEAD, GOOD], 2), /changed, or damaged/],
    [summed([HEAD, GOOD]).replace('AAE=', 'AAI='), /changed, or damaged/],
    [summed([HEAD, GOOD]).replace(GOOD, `${GOOD}\n${GOOD}`), /changed, or damaged/],
    [`${summed([HEAD, GOOD])}\n`, /line 3 has no key/],
    [summed([HEAD, '{"value":"AAE="}']), /line 2 has no key in base64/],
    [summed([HEAD, '{"key":5,"value":"AAE="}']), /line 2 has no key in base64/],
    [summed([HEAD, GOOD, '{"key":"YQ==","value":"A"}']), /line 3 has no value in base64/],
    [summed([HEAD, '{"key":"YQ==","value":"ä"}']), /line 2 has no value in base64/],
    [summed([HEAD, '{"key":"YQ==","value":"","expiresAtMs":"soon"}']), /line 2: expiresAtMs is no time/],
    [summed([HEAD, '{"key":"YQ==","value":"","expiresAtMs":1.5}']), /line 2: expiresAtMs is no time/],
    [summed([HEAD, '[]']), /line 2 has no key/],
    [Buffer.concat([Buffer.from(`${HEAD}\n`), Buffer.alloc(1_100_000, 120)]), /line 2 is too long/],
  ];
  for (const [text, why] of cases) {
    try {
      await read(text, 5000);
      assert.unreachable(`taken: ${text.toString().slice(0, 100)}`);
    } catch (error) {
      assert.instance(error, BrokenFile, String(error));
      assert.match((error as Error).message, why);
    }
  }
});

test('lines: a limit that holds, and what comes after a long one', async () => {
  const all = async (text: string, pieceBytes: number): Promise<Array<string | null>> => {
    const lines: Array<string | null> = [];
    for await (const line of linesOf(piecesOf(Buffer.from(text), pieceBytes), 5)) lines.push(line?.toString() ?? null);
    return lines;
  };
  for (const pieceBytes of [1, 3, 100]) {
    assert.equal(await all('', pieceBytes), []);
    assert.equal(await all('\n\na', pieceBytes), ['', '', 'a']);
    assert.equal(await all('12345\r\n12345\n123456\nx\r\n', pieceBytes), ['12345', '12345', null, 'x']);
    assert.equal(await all('1234567890\nab', pieceBytes), [null, 'ab']);
    assert.equal(await all('123456', pieceBytes), [null]);
  }
  // Single bytes, more of them than pieces are kept.
  const long = 'y'.repeat(1000);
  for await (const line of linesOf(piecesOf(Buffer.from(long), 1), 1000)) assert.is(line?.toString(), long);
});

test.run();
