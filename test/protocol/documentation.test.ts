/** docs/protocol.md says what the tables say. */
import { readFileSync } from 'node:fs';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { ERRORS } from '../../src/base/errors.ts';
import { MESSAGES } from '../../src/protocol/messages.ts';

// From dist/test/protocol.
const text = readFileSync(new URL('../../../docs/protocol.md', import.meta.url), 'utf8');

/** The cells of the table rows under a heading. */
function table(heading: string): string[][] {
  const section = text.split(/^## /m).find((part) => part.startsWith(heading));
  assert.ok(section, `a section "${heading}"`);
  const rows = section!.split('\n').filter((line) => line.startsWith('|'));
  return rows.slice(2).map((line) =>
    line
      .split('|')
      .slice(1, -1)
      .map((cell) => cell.trim().replaceAll('`', '')),
  );
}

test('every message with its number, its limits and its properties, and no other', () => {
  const documented = table('Messages').map((cells) => cells.slice(0, 6));
  const range = ([least, most]: readonly [number, number]): string =>
    least === most ? `${least}` : `${least}-${most}`;
  const actual = Object.entries(MESSAGES).map(([name, m]) => [
    name,
    String(m.number),
    m.unsolicited ? '-' : range(m.request),
    range(m.reply),
    m.mutation ? 'yes' : '',
    m.attached ? 'yes' : '',
  ]);
  assert.equal(documented, actual);
});

test('every status with its name, errno and whether it is repeated, and no other', () => {
  const documented = table('Status').map((cells) => cells.slice(0, 4));
  const actual = Object.entries(ERRORS)
    .filter(([, row]) => row.status < 40)
    .map(([code, row]) => [String(row.status), code, row.errno, row.retryable ? 'yes' : '']);
  assert.equal(documented, [['0', 'OK', '', ''], ...actual]);
});

test('every field of the header, without gap or overlap', () => {
  let at = 0;
  for (const [offset, type] of table('Header')) {
    assert.is(Number(offset), at, `the field at ${offset}`);
    at += Number(type!.slice(1)) / 8;
  }
  assert.is(at, 64);
});

test.run();
