/** What the HTTP port of a node tells while its peer is killed, comes back, and is brought in sync. */
// deadline: 120 s
import * as assert from 'uvu/assert';
import { suite } from 'uvu';
import { pause } from '../../src/cli/cluster.ts';
import { connect } from '../../src/client/index.ts';
import type { Dirty } from '../../src/http/dirty.ts';
import type { FailoverPhases } from '../../src/node/failover-phases.ts';
import type { Happening } from '../../src/node/timeline.ts';
import { EventStream, type Told } from '../support/event-stream.ts';
import { HttpCluster } from '../support/http-cluster.ts';
import { ToldMetrics } from '../support/metrics.ts';

const test = suite('events of a failover');
const BLOCK = 4096;

test('the successor tells of the failover with its phases, then of the return', async () => {
  const http = await HttpCluster.start(['a', 'b'], '--sync-rate', '6MiB');
  const { cluster } = http;
  await cluster.create('disk', '64MiB', 2, '--allow-sparse');
  await cluster.untilSafe();
  const former = await cluster.primary('disk');
  const successor = former === 'a' ? 'b' : 'a';
  const volume = await connect(cluster.url('disk'));
  await volume.write(0, Buffer.alloc(BLOCK, 1));
  const stream = new EventStream(http.url(successor, '/api/stream'));
  const happened = (kind: string): Promise<Happening> => stream.first('happened', (one) => one.kind === kind, kind);
  const safe = await stream.first('cluster', ({ view }) => view?.verdict === 'safe', 'a safe cluster');
  assert.is(safe.view!.volumes[0]!.primary, former);
  await cluster.kill(former);
  const { fields } = await happened('failover');
  const phases = fields['phases'] as FailoverPhases;
  assert.equal([fields['epoch'], fields['from'], fields['resigned']], [2, former, false]);
  const { lastHeardMs, suspectedMs, registerMs, openMs, total } = phases;
  const known = [lastHeardMs, suspectedMs, registerMs, openMs].map((ms) => ms ?? -1);
  assert.ok(
    known.every((ms) => ms >= 0),
    JSON.stringify(phases),
  );
  assert.is(
    total,
    known.reduce((sum, ms) => sum + ms, 0),
  );
  assert.equal((await happened('epoch-open')).fields, { epoch: 2, inSync: [successor] });
  const degraded = ({ view }: Told['cluster']): boolean =>
    view?.verdict === 'degraded' && view.volumes[0]!.primary === successor;
  await stream.first('cluster', degraded, 'a degraded cluster');
  // What it misses takes some seconds at the rate that was given, so that the heat map is seen to empty.
  for (let at = 0; at < 16; at++) await volume.write(at * 1024 * 1024, Buffer.alloc(1024 * 1024, at + 1));
  const rates = await stream.first('rates', ({ volumes }) => volumes[0]!.writes.bytesPerSecond > 0, 'rates of writes');
  const { role, writes, fsync, journalBytes, journalUsedBytes } = rates.volumes[0]!;
  assert.is(role, 'primary');
  assert.ok(writes.perSecond > 0 && writes.p50Us! > 0 && writes.p99Us! >= writes.p50Us!, JSON.stringify(writes));
  assert.ok(fsync.perSecond > 0 && fsync.p99Us! > 0, JSON.stringify(fsync));
  assert.ok(journalBytes === 16 * 1024 * 1024 && journalUsedBytes <= journalBytes);
  const dirty = await stream.first('dirty', ({ dirtyBlocks }) => dirtyBlocks >= 4096, 'dirty blocks');
  assert.equal([dirty.member, dirty.blocks], [former, 16_384]);
  const sum = (cells: number[]): number => cells.reduce((total, count) => total + count, 0);
  assert.is(sum(dirty.cells), dirty.dirtyBlocks);
  const path = `/api/dirty/${dirty.volumeId}?member=${former}&cells=16`;
  const { status, body } = await http.json<Dirty>(successor, path);
  assert.is(status, 200);
  assert.equal([body.cells.length, body.cellBlocks, sum(body.cells)], [16, 1024, body.dirtyBlocks]);
  // The same in numbers: before it is back, on the way, and in the end.
  const measured = (): Promise<ToldMetrics> => ToldMetrics.of(http.url(successor, '/metrics'));
  const at = { volume: 'disk', node: successor };
  const ofPeer = { volume: 'disk', peer: former, node: successor };
  const alone = await measured();
  alone.check();
  for (const [name, value] of Object.entries({
    holdfast_failovers_total: 1,
    holdfast_epoch_changes_total: 1,
    holdfast_reintegrations_total: 0,
    holdfast_members_lost_total: 0,
    holdfast_volume_members: 2,
    holdfast_volume_in_sync_members: 1,
  }))
    assert.is(alone.of(name, at), value, name);
  for (const name of ['joined', 'syncing', 'acknowledged_seq']) assert.is(alone.of(`holdfast_peer_${name}`, ofPeer), 0);
  const lacking = alone.of('holdfast_peer_dirty_bytes', ofPeer);
  assert.ok(lacking >= 16 * 1024 * 1024, `it lacks ${lacking} bytes`);
  assert.is(alone.of('holdfast_reintegration_copied_bytes', ofPeer), 0);
  assert.is(alone.of('holdfast_reintegration_rate_bytes', ofPeer), 0);

  await cluster.restart(former);
  const onTheWay: ToldMetrics[] = [];
  let inSync: ToldMetrics;
  for (;;) {
    inSync = await measured();
    const acknowledged = inSync.of('holdfast_peer_acknowledged_seq', ofPeer);
    const all = acknowledged === inSync.of('holdfast_log_last_seq', at);
    if (all && inSync.of('holdfast_volume_in_sync_members', at) === 2) break;
    if (inSync.of('holdfast_peer_syncing', ofPeer) === 1) onTheWay.push(inSync);
    await pause(20);
  }
  const copying = onTheWay.filter((one) => {
    const [copied, dirty] = ['reintegration_copied', 'peer_dirty'].map((n) => one.of(`holdfast_${n}_bytes`, ofPeer));
    return copied! > 0 && dirty! > 0 && dirty! < lacking;
  });
  assert.ok(copying.length > 0, `none of ${onTheWay.length} is in the middle`);
  for (const one of copying) {
    assert.is(one.of('holdfast_peer_joined', ofPeer), 0);
    assert.is(one.of('holdfast_volume_in_sync_members', at), 1);
  }
  // Told once a second.
  assert.ok(copying.some((one) => one.of('holdfast_reintegration_rate_bytes', ofPeer) > 0));
  assert.is(inSync.of('holdfast_peer_joined', ofPeer), 1);
  for (const name of ['peer_syncing', 'peer_dirty_bytes', 'reintegration_copied_bytes', 'reintegration_rate_bytes'])
    assert.is(inSync.of(`holdfast_${name}`, ofPeer), 0, name);
  assert.is(inSync.of('holdfast_reintegrations_total', at), 1);
  assert.is((await happened('member-syncing')).fields['member'], former);
  assert.is((await happened('member-in-sync')).fields['member'], former);
  const less = ({ dirtyBlocks }: Dirty): boolean => dirtyBlocks > 0 && dirtyBlocks < dirty.dirtyBlocks;
  await stream.first('dirty', less, 'fewer dirty blocks');
  await stream.first('dirty', ({ dirtyBlocks }) => dirtyBlocks === 0, 'no dirty blocks');
  const steps = stream.of('happened').filter(({ kind }) => kind === 'reintegration');
  const names = steps.map(({ fields }) => String(fields['step']));
  assert.ok(names.includes('barrier') && names.at(-1) === 'finish', names.join());
  assert.is((await http.json(successor, path)).status, 404);
  const ids = stream.events.filter(({ event }) => event === 'happened').map(({ id }) => Number(id));
  assert.equal(
    ids,
    ids.map((_, i) => i + 1),
  );
  // The same on the command line, of both nodes.
  await cluster.untilSafe();
  const printed = (await cluster.must('events', '--json')).trim().split('\n');
  const told = printed.map((line) => JSON.parse(line) as Happening);
  const kinds = (node: string): string[] => told.filter((one) => one.node === node).map(({ kind }) => kind);
  for (const kind of ['failover', 'member-syncing', 'member-in-sync']) assert.ok(kinds(successor).includes(kind), kind);
  assert.equal(
    told.map(({ atMs }) => atMs),
    told.map(({ atMs }) => atMs).sort((one, other) => one - other),
  );
  assert.match(await cluster.must('events', '--node', successor), /after the loss of [ab], \d+ ms/);
  // A follower is lost.
  await cluster.kill(former);
  await happened('member-lost');
  const without = await measured();
  assert.is(without.of('holdfast_members_lost_total', at), 1);
  assert.is(without.of('holdfast_failovers_total', at), 1);
  assert.is(without.of('holdfast_peer_joined', ofPeer), 0);
  await cluster.restart(former);
  await cluster.untilSafe();
  // Handed over: nobody was lost.
  const back = new EventStream(http.url(former, '/api/stream'));
  await cluster.kill(successor, 'SIGTERM');
  const handed = await back.first('happened', ({ kind }) => kind === 'failover', 'a hand-over');
  assert.equal([handed.fields['from'], handed.fields['resigned']], [successor, true]);
  stream.close();
  back.close();
  await volume.close();
  await cluster.stop();
});

test.run();
