/** The section "Between replicas" of docs/protocol.md says what the tables of the code say. */
import { readFileSync } from 'node:fs';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { DEFAULT_PEER_LIMITS } from '../../src/node/peer-server.ts';
import {
  MAX_PEER_NAME_BYTES,
  MAX_REASON_BYTES,
  MAX_RUNS,
  MAX_SESSION_PAGES,
  PEER_FRAME_VERSION,
  PEER_HEADER_BYTES,
  PEER_MAGIC,
  PEER_MESSAGES,
} from '../../src/protocol/peer-frame.ts';

// From dist/test/protocol.
const text = readFileSync(new URL('../../../docs/protocol.md', import.meta.url), 'utf8');
const section = text.split(/^## /m).find((part) => part.startsWith('Between replicas')) ?? '';

/** The cells of the table rows under a heading of the section. */
function table(heading: string): string[][] {
  const part = section.split(/^### /m).find((one) => one.startsWith(heading));
  assert.ok(part, `a heading "${heading}"`);
  const rows = part!.split('\n').filter((line) => line.startsWith('|'));
  return rows.slice(2).map((line) =>
    line
      .split('|')
      .slice(1, -1)
      .map((cell) => cell.trim().replaceAll('`', '')),
  );
}

test('every message with its number, its sender and its limits, and no other', () => {
  const sender = { hello: 'both, first', both: 'both', primary: 'primary', replica: 'replica' };
  const actual = Object.entries(PEER_MESSAGES).map(
    ([
      name,
      {
        number,
        from,
        payload: [least, most],
      },
    ]) => [name, String(number), sender[from], least === most ? `${least}` : `${least}-${most}`],
  );
  assert.equal(
    table('Messages').map((cells) => cells.slice(0, 4)),
    actual,
  );
});

test('every field of the header, without gap or overlap', () => {
  let at = 0;
  for (const [offset, type] of table('Frames')) {
    assert.is(Number(offset), at, `the field at ${offset}`);
    at += Number(type!.slice(1)) / 8;
  }
  assert.is(at, PEER_HEADER_BYTES);
  const meaning = (field: string): string => table('Frames').find(([, , name]) => name === field)![3]!;
  assert.match(meaning('magic'), `0x${PEER_MAGIC.toString(16)}`);
  assert.is(meaning('version'), String(PEER_FRAME_VERSION));
});

test('the bounds', () => {
  const { handshakeMs, stallMs, maxUnknown, maxStreams } = DEFAULT_PEER_LIMITS;
  const documented = table('Bounds').map((cells) => cells.slice(1, 3));
  assert.equal(documented, [
    [String(MAX_RUNS), 'MAX_RUNS'],
    [`${MAX_PEER_NAME_BYTES} bytes`, 'MAX_PEER_NAME_BYTES'],
    [`${MAX_REASON_BYTES} bytes`, 'MAX_REASON_BYTES'],
    [String(MAX_SESSION_PAGES), 'MAX_SESSION_PAGES'],
    [`${handshakeMs} ms`, 'handshakeMs'],
    [`${stallMs} ms`, 'stallMs'],
    [String(maxUnknown), 'maxUnknown'],
    [String(maxStreams), 'maxStreams'],
  ]);
});

test.run();
