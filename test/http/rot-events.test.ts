/** A byte that rots is told as an event and as a metric when it is mended, and so is the end of the scrub that found it. */
// deadline: 120 s
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { suite } from 'uvu';
import { connect } from '../../src/client/index.ts';
import { byteAt } from '../support/byte-at.ts';
import { EventStream } from '../support/event-stream.ts';
import { HttpCluster } from '../support/http-cluster.ts';
import { until } from '../support/until.ts';

const test = suite('events of rot');
const BLOCK = 4096;
const BLOCKS = 16;
const ROTTEN = 3;

test('what is mended is told, on the node whose disk it was', async () => {
  // A pass in about two seconds.
  const http = await HttpCluster.start(['a', 'b'], '--scrub-days', '0.00002');
  const { cluster } = http;
  await cluster.create('disk', '16MiB', 2, '--allow-sparse');
  await cluster.untilSafe();
  const volume = await connect(cluster.url('disk'));
  await volume.write(0, Buffer.alloc(BLOCKS * BLOCK, 0x55));
  await volume.close();
  const primary = await cluster.primary('disk');
  const victim = primary === 'a' ? 'b' : 'a';
  const stream = new EventStream(http.url(victim, '/api/stream'));
  const file = join(cluster.slot(victim).dir, 'volumes', 'disk', 'data');
  await until(() => byteAt(file, BLOCKS * BLOCK - 1) === 0x55, 'the record is applied');
  byteAt(file, ROTTEN * BLOCK + 9, 0xaa);
  const mended = await stream.first('happened', ({ kind }) => kind === 'block-repaired', 'a mended block');
  assert.equal([mended.node, mended.volume, mended.fields], [victim, 'disk', { block: ROTTEN }]);
  const found = ({ kind, fields }: { kind: string; fields: Record<string, unknown> }): boolean =>
    kind === 'scrub-finished' && Number(fields['foundBlocks']) > 0;
  const scrubbed = await stream.first('happened', found, 'the end of the scrub that found it');
  assert.is(scrubbed.fields['blocks'], 4096);
  const text = await (await fetch(http.url(victim, '/metrics'))).text();
  const labels = `{volume="disk",node="${victim}"}`;
  assert.ok(text.includes(`\nholdfast_repaired_blocks_total${labels} 1\n`), text);
  assert.ok(text.includes(`\nholdfast_rotten_blocks${labels} 0\n`));
  assert.match(text, new RegExp(`\nholdfast_checksum_errors_total${labels} [1-9]\\d*\n`));
  assert.match(text, new RegExp(`\nholdfast_scrub_passes_total${labels} [1-9]\\d*\n`));
  const other = await (await fetch(http.url(primary, '/metrics'))).text();
  assert.ok(other.includes(`\nholdfast_repaired_blocks_total{volume="disk",node="${primary}"} 0\n`));
  stream.close();
  await cluster.stop();
});

test.run();
