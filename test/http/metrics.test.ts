/** What Prometheus is told, as its own tool and the documentation see it. */
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { suite } from 'uvu';
import { connect } from '../../src/client/index.ts';
import { METRICS } from '../../src/http/metric-table.ts';
import { rejectsWith } from '../contract/block-device.ts';
import { byteAt } from '../support/byte-at.ts';
import { HttpCluster } from '../support/http-cluster.ts';
import { ToldMetrics, hasPromtool } from '../support/metrics.ts';
import { until } from '../support/until.ts';

const test = suite('metrics');
const DOCS = join(import.meta.dirname, '../../../docs');
const BLOCK = 4096;
const WRITES = 50;

test('of a node with a volume that is written and read', async () => {
  const http = await HttpCluster.start(['a']);
  const { cluster } = http;
  await cluster.create('disk', '16MiB', 1, '--allow-sparse');
  await cluster.untilServed('disk');
  const volume = await connect(cluster.url('disk'));
  for (let i = 0; i < WRITES; i++) await volume.write(i * BLOCK, Buffer.alloc(BLOCK, 1));
  await volume.read(0, WRITES * BLOCK);
  await volume.zero(0, BLOCK);
  const response = await fetch(http.url('a', '/metrics'));
  assert.is(response.status, 200);
  assert.is(response.headers.get('content-type'), 'text/plain; version=0.0.4; charset=utf-8');
  const text = await response.text();
  const told = new ToldMetrics(text);
  const { values } = told;
  const of = (name: string, labels = 'volume="disk"'): number => {
    const value = values.get(`${name}{${labels},node="a"}`);
    assert.ok(value !== undefined, `${name}{${labels}} is not there:\n${text}`);
    return value;
  };
  const op = (name: string): string => `volume="disk",op="${name}"`;
  assert.is(of('holdfast_operations_total', op('write')), WRITES);
  assert.is(of('holdfast_operation_bytes_total', op('write')), WRITES * BLOCK);
  assert.is(of('holdfast_operations_total', op('read')), 1);
  assert.is(of('holdfast_operation_bytes_total', op('read')), WRITES * BLOCK);
  assert.is(of('holdfast_operations_total', op('zero')), 1);
  assert.is(of('holdfast_operation_errors_total', op('write')), 0);
  assert.is(of('holdfast_operation_duration_seconds_count', op('zero')), 1);
  assert.is(of('holdfast_operation_duration_seconds_count', op('flush')), 0);
  assert.is(of('holdfast_in_flight_requests'), 0);
  assert.is(of('holdfast_in_flight_bytes'), 0);
  // A histogram grows towards its count, and its sum is that of real times.
  const duration = 'holdfast_operation_duration_seconds';
  const buckets = [...values].filter(([name]) => name.startsWith(`${duration}_bucket{volume="disk",op="write"`));
  const counts = buckets.map(([, count]) => count);
  assert.is(counts.length, 22);
  assert.equal(
    counts,
    [...counts].sort((one, other) => one - other),
  );
  assert.is(counts.at(-1), WRITES);
  assert.is(of(`${duration}_count`, op('write')), WRITES);
  assert.ok(of(`${duration}_sum`, op('write')) > 0);
  // Each write was by itself: one record, one batch, one sync.
  assert.ok(of('holdfast_fsync_duration_seconds_count', 'volume="disk",file="journal"') >= WRITES);
  assert.ok(of('holdfast_fsync_duration_seconds_sum', 'volume="disk",file="journal"') > 0);
  assert.ok(of('holdfast_journal_batch_records_sum') >= WRITES);
  assert.is(of('holdfast_journal_size_bytes'), 16 * 1024 * 1024);
  // A checkpoint may have come in between.
  const used = of('holdfast_journal_used_bytes');
  assert.ok(used >= 0 && used <= 16 * 1024 * 1024, `${used} bytes`);
  assert.ok(of('holdfast_log_last_seq') >= WRITES);
  assert.is(of('holdfast_log_committed_seq'), of('holdfast_log_last_seq'));
  assert.is(of('holdfast_replica_serving'), 1);
  assert.is(of('holdfast_replica_in_sync'), 1);
  assert.is(of('holdfast_volume_members'), 1);
  assert.is(of('holdfast_coordinator_reached'), 1);
  assert.is(of('holdfast_epoch_changes_total'), 1);
  assert.is(of('holdfast_failovers_total'), 0);
  assert.is(of('holdfast_connections', 'port="clients"'), 1);
  assert.ok(of('holdfast_worker_operations_total', 'worker="journal"') >= WRITES);
  assert.ok(of('holdfast_worker_busy_seconds_total', 'worker="journal"') > 0);
  assert.is(of('holdfast_ring_queued', 'ring="journal"'), 0);
  // What is given away as a dashboard, and as rules, is there.
  const names = new Set(METRICS.map(({ name }) => name));
  const known = (name: string): boolean => names.has(name) || names.has(name.replace(/_(?:bucket|sum|count)$/, ''));
  for (const file of ['monitoring/grafana.json', 'monitoring/alerts.yml', 'monitoring.md']) {
    const used = readFileSync(join(DOCS, file), 'utf8').match(/\bholdfast_\w+/g)!;
    assert.equal(
      [...new Set(used)].filter((name) => !known(name)),
      [],
      file,
    );
  }
  const page = readFileSync(join(DOCS, 'monitoring.md'), 'utf8');
  for (const { name, type, help } of METRICS) {
    assert.ok(text.includes(`# TYPE ${name} ${type}\n`), name);
    const row = page.split('\n').find((line) => line.startsWith(`| \`${name}\` | ${type} |`));
    assert.ok(row?.endsWith(` | ${help.replace(/\.$/, '')} |`), `docs/monitoring.md: ${name}: ${row}`);
  }
  told.check();
  // A block rots, and there is no other replica: it is rotten until it is overwritten.
  const rotten = async (): Promise<number> =>
    (await ToldMetrics.of(http.url('a', '/metrics'))).of('holdfast_rotten_blocks', { volume: 'disk', node: 'a' });
  assert.is(await rotten(), 0);
  const file = join(cluster.slot('a').dir, 'volumes', 'disk', 'data');
  await until(() => byteAt(file, 9 * BLOCK) === 1, 'the record is applied');
  byteAt(file, 9 * BLOCK, 2);
  await rejectsWith('CORRUPT_BLOCK', () => volume.read(9 * BLOCK, BLOCK));
  assert.is(await rotten(), 1);
  await volume.write(8 * BLOCK, Buffer.alloc(4 * BLOCK, 3));
  await volume.read(8 * BLOCK, 4 * BLOCK);
  assert.is(await rotten(), 0);
  await volume.close();
  await cluster.stop();
});

test('the rules are accepted, and fire when they are to', () => {
  if (!hasPromtool) return;
  const run = (...args: string[]): void => {
    const { status, stdout, stderr } = spawnSync('promtool', args, { encoding: 'utf8' });
    assert.is(status, 0, `${stdout}${stderr}`);
  };
  run('check', 'rules', join(DOCS, 'monitoring/alerts.yml'));
  for (const file of ['alerts-test.yml', 'alerts-weeks-test.yml']) run('test', 'rules', join(DOCS, 'monitoring', file));
  // Each alert is tested, and each in the page.
  const alerts = readFileSync(join(DOCS, 'monitoring/alerts.yml'), 'utf8').matchAll(/- alert: (\w+)/g);
  const tests = ['', '-weeks'].map((which) => readFileSync(join(DOCS, `monitoring/alerts${which}-test.yml`), 'utf8'));
  const page = readFileSync(join(DOCS, 'monitoring.md'), 'utf8');
  for (const [, alert] of alerts) {
    assert.match(tests.join(''), new RegExp(`alertname: ${alert}\n +exp_alerts:(?! \\[\\])`), `${alert} is tested`);
    assert.ok(page.includes(`\`${alert}\``), `docs/monitoring.md: ${alert}`);
  }
});

test.run();
