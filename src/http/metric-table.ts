/**
 * All metrics of a node: name, meaning, and where each is read. docs/monitoring.md has the same for people, and a test
 * holds the two together.
 *
 * Guarantees: base units, bytes and seconds; counters end in `_total` and only grow while the process lives.
 */
import { OPERATIONS } from '../base/meters.ts';
import { BLOCK_BYTES } from '../base/units.ts';
import type { Distribution, Family, Labels, Value } from './read-metric.ts';
import type { Scrape, ScrapedVolume } from './scrape.ts';

type Of = (one: ScrapedVolume) => number | null | undefined;
type Status = ScrapedVolume['status'];
type Gauge = Extract<Family, { type: 'counter' | 'gauge' }>;

const volumeOf = ({ hosted }: ScrapedVolume): Labels => ({ volume: hosted.name });
const flag = (yes: boolean): number => (yes ? 1 : 0);
const seqOf = (position: string): number => Number(position.slice(position.indexOf('.') + 1));
const epochOf = (position: string): number => Number(position.slice(0, position.indexOf('.')));

/** One number of each replica; null: it has none. */
function perVolume(name: string, type: Gauge['type'], help: string, of: Of): Family {
  const values = ({ volumes }: Scrape): Value[] =>
    volumes.flatMap((one) => {
      const value = of(one);
      return value === null || value === undefined ? [] : [{ labels: volumeOf(one), value }];
    });
  return { name, type, help, values };
}

/** One number of each member other than this node, of volumes that this node is primary of. */
function perPeer(name: string, help: string, of: (peer: Status['peers'][number], status: Status) => number): Family {
  const values = ({ volumes }: Scrape): Value[] =>
    volumes.flatMap((one) =>
      one.status.peers.map((peer) => ({ labels: { ...volumeOf(one), peer: peer.node }, value: of(peer, one.status) })),
    );
  return { name, type: 'gauge', help, values };
}

/** One number of each replica of a key-value volume. */
function perKv(name: string, help: string, of: (kv: NonNullable<Status['kv']>) => number): Family {
  return perVolume(name, 'gauge', help, ({ status }) => status.kv && of(status.kv));
}

/** One number of each operation of each replica. */
function perOperation(
  name: string,
  type: Gauge['type'],
  help: string,
  of: (o: ScrapedVolume, op: number) => number,
): Family {
  const values = ({ volumes }: Scrape): Value[] =>
    volumes.flatMap((one) => OPERATIONS.map((op, i) => ({ labels: { ...volumeOf(one), op }, value: of(one, i) })));
  return { name, type, help, values };
}

/** How often something of the timeline has happened. */
function perKind(name: string, help: string, kinds: readonly string[]): Family {
  const values = ({ volumes, happened }: Scrape): Value[] =>
    volumes.map((one) => {
      const counted = happened.filter(({ volume, kind }) => volume === one.hosted.name && kinds.includes(kind));
      return { labels: volumeOf(one), value: counted.reduce((sum, { count }) => sum + count, 0) };
    });
  return { name, type: 'counter', help, values };
}

const meterOf = ({ hosted }: ScrapedVolume, op: number) => hosted.meter.operations[OPERATIONS[op]!];
const perWorker = (name: string, help: string, of: (w: { operations: number; busyMs: number }) => number): Family => {
  const values = ({ node }: Scrape): Value[] =>
    node.pool.workers().map((one) => ({ labels: { worker: one.worker }, value: of(one) }));
  return { name, type: 'counter', help, values };
};
const ringsOf = ({ node: { pool } }: Scrape): Array<[string, typeof pool.io]> => [
  ['io', pool.io],
  ['journal', pool.journal],
  ['sync', pool.sync],
];

const CLIENTS: Family[] = [
  perOperation(
    'holdfast_operations_total',
    'counter',
    'Operations of clients that were answered, errors included.',
    (one, op) => meterOf(one, op).latency.count,
  ),
  perOperation(
    'holdfast_operation_errors_total',
    'counter',
    'Operations of clients that were answered with an error.',
    (one, op) => meterOf(one, op).errors,
  ),
  perOperation(
    'holdfast_operation_bytes_total',
    'counter',
    'Bytes that operations of clients were about, errors left out.',
    (one, op) => meterOf(one, op).bytes,
  ),
  {
    name: 'holdfast_operation_duration_seconds',
    type: 'histogram',
    help: 'From a request of a client to its answer, at the server.',
    exponents: [4, 24],
    unit: 'seconds',
    values: ({ volumes }): Distribution[] =>
      volumes.flatMap((one) =>
        OPERATIONS.map((op, i) => ({ labels: { ...volumeOf(one), op }, buckets: meterOf(one, i).latency })),
      ),
  },
  perVolume(
    'holdfast_in_flight_requests',
    'gauge',
    'Requests of clients that are not answered yet.',
    ({ hosted }) => hosted.meter.inFlight,
  ),
  perVolume(
    'holdfast_in_flight_bytes',
    'gauge',
    'Bytes that requests which are not answered yet are about.',
    ({ hosted }) => hosted.meter.inFlightBytes,
  ),
  {
    name: 'holdfast_connections',
    type: 'gauge',
    help: 'Open connections, by port: clients, nbd, kv, nodes (streams between replicas), http (event streams).',
    values: ({ node: { server, network, nbd, resp }, streams }) => {
      const [http, nodes] = [streams, network.streamCount];
      const open = {
        clients: server.connectionCount,
        nbd: nbd?.connectionCount ?? 0,
        kv: resp?.size ?? 0,
        nodes,
        http,
      };
      return Object.entries(open).map(([port, value]) => ({ labels: { port }, value }));
    },
  },
];

const KEYS: Family[] = [
  perKv('holdfast_kv_answers', '1: GETs are answered here, as primary or under its grants.', ({ answers }) =>
    flag(answers),
  ),
  perKv('holdfast_kv_keys', 'Keys of a key-value volume.', ({ keys }) => keys),
  perKv('holdfast_kv_live_bytes', 'Keys and values, with their headers.', ({ liveBytes }) => liveBytes),
  perKv(
    'holdfast_kv_used_bytes',
    'What they take on disk, until their segments are cleaned.',
    ({ usedBytes }) => usedBytes,
  ),
];

const DISK: Family[] = [
  {
    name: 'holdfast_fsync_duration_seconds',
    type: 'histogram',
    help: 'An fdatasync, of the journal or of the other files of a volume.',
    exponents: [4, 24],
    unit: 'seconds',
    values: ({ volumes }): Distribution[] =>
      volumes.flatMap((one) => [
        { labels: { ...volumeOf(one), file: 'journal' }, buckets: one.hosted.disk.journalSyncs },
        { labels: { ...volumeOf(one), file: 'other' }, buckets: one.hosted.disk.otherSyncs },
      ]),
  },
  {
    name: 'holdfast_journal_batch_records',
    type: 'histogram',
    help: 'Records that became durable with one write of the journal.',
    exponents: [1, 10],
    unit: 'count',
    values: ({ volumes }): Distribution[] =>
      volumes.map((one) => ({ labels: volumeOf(one), buckets: one.hosted.disk.batchRecords })),
  },
  perVolume(
    'holdfast_journal_written_bytes_total',
    'counter',
    'Written into the journal.',
    ({ counters }) => counters['journalBytes'],
  ),
  perVolume(
    'holdfast_journal_used_bytes',
    'gauge',
    'In use of the journal, between its tail and its head.',
    ({ counters }) => counters['journalUsedBytes'],
  ),
  perVolume(
    'holdfast_journal_size_bytes',
    'gauge',
    'The length of the journal.',
    ({ counters }) => counters['journalSizeBytes'],
  ),
  perVolume(
    'holdfast_journal_tail_bytes',
    'gauge',
    'How far checkpoints have come, in bytes of the journal since the volume was made.',
    ({ counters }) => counters['journalTailBytes'],
  ),
  perVolume('holdfast_checkpoints_total', 'counter', 'Checkpoints.', ({ counters }) => counters['checkpoints']),
  perVolume(
    'holdfast_applied_bytes_total',
    'counter',
    'Copied from the journal into the image.',
    ({ counters }) => counters['appliedBytes'],
  ),
  perVolume(
    'holdfast_owed_bytes',
    'gauge',
    'Zeroed or trimmed, and not written as zeros yet.',
    ({ counters }) => counters['owedBlocks']! * BLOCK_BYTES,
  ),
  perVolume(
    'holdfast_table_memory_bytes',
    'gauge',
    'Memory of checksums and bitmaps.',
    ({ counters }) => counters['memoryBytes'],
  ),
  perVolume(
    'holdfast_checksum_errors_total',
    'counter',
    'Reads that met a block which does not match its checksum.',
    ({ counters }) => counters['corruptBlocks'],
  ),
  perVolume(
    'holdfast_rotten_blocks',
    'gauge',
    'Blocks that did not match when they were read, and were neither mended nor overwritten since.',
    ({ counters }) => counters['rottenBlocks'],
  ),
  perVolume(
    'holdfast_repaired_blocks_total',
    'counter',
    'Blocks that had rotted and were mended from another replica.',
    ({ counters }) => counters['repairedBlocks'],
  ),
  perVolume(
    'holdfast_scrub_passes_total',
    'counter',
    'Passes of the scrub over all blocks that came to their end.',
    ({ status }) => status.scrub?.passes,
  ),
  perVolume(
    'holdfast_scrub_done_bytes',
    'gauge',
    'Where this pass of the scrub is.',
    ({ status }) => status.scrub?.doneBytes,
  ),
  perVolume(
    'holdfast_scrub_rate_bytes',
    'gauge',
    'Bytes per second that the scrub is to get through.',
    ({ status }) => status.scrub?.bytesPerSecond,
  ),
  {
    name: 'holdfast_ring_in_flight',
    type: 'gauge',
    help: 'Operations that workers were given and have not completed, by ring.',
    values: (scrape) => ringsOf(scrape).map(([ring, { inFlight }]) => ({ labels: { ring }, value: inFlight })),
  },
  {
    name: 'holdfast_ring_queued',
    type: 'gauge',
    help: 'Of those, operations that no worker has begun, by ring.',
    values: (scrape) => ringsOf(scrape).map(([ring, { queued }]) => ({ labels: { ring }, value: queued })),
  },
  perWorker('holdfast_worker_operations_total', 'Operations of an I/O worker.', ({ operations }) => operations),
  perWorker('holdfast_worker_busy_seconds_total', 'How long an I/O worker was at work.', ({ busyMs }) => busyMs / 1000),
];

const REPLICAS: Family[] = [
  perVolume('holdfast_volume_size_bytes', 'gauge', 'The size of the volume.', ({ status }) => status.sizeBytes),
  perVolume('holdfast_epoch', 'gauge', 'The newest epoch that this replica knows.', ({ status }) => status.epoch),
  perVolume(
    'holdfast_log_last_seq',
    'gauge',
    'Number of the last record in the log of this replica, within its epoch.',
    ({ status }) => seqOf(status.last),
  ),
  perVolume(
    'holdfast_log_committed_seq',
    'gauge',
    'Number of the last record that is known to be committed, within its epoch.',
    ({ status }) => seqOf(status.committed),
  ),
  perVolume('holdfast_replica_serving', 'gauge', '1: this replica is the primary and serves clients.', ({ status }) =>
    flag(status.serving),
  ),
  perVolume('holdfast_replica_following', 'gauge', '1: this replica follows a primary.', ({ status }) =>
    flag(status.role === 'following'),
  ),
  perVolume('holdfast_replica_in_sync', 'gauge', '1: the register has this replica in sync.', ({ hosted, status }) => {
    const { known } = hosted.register;
    const own = known?.members.find(({ diskId }) => diskId === status.diskId);
    return flag(own !== undefined && known!.inSync.includes(own.node));
  }),
  perVolume('holdfast_replica_poisoned', 'gauge', '1: a write or sync of its disk has failed.', ({ status }) =>
    flag(status.failed !== null || status.health === 'poisoned'),
  ),
  perVolume('holdfast_replica_damaged', 'gauge', '1: its disk lacks something that it should have.', ({ status }) =>
    flag(status.health === 'damaged'),
  ),
  perVolume('holdfast_out_of_space', 'gauge', '1: the disk under a sparse volume is full.', ({ status }) =>
    flag(status.outOfSpace),
  ),
  perVolume(
    'holdfast_coordinator_reached',
    'gauge',
    '1: the last call to the coordinator had an answer.',
    ({ hosted }) => flag(hosted.register.failure === null),
  ),
  perVolume(
    'holdfast_volume_members',
    'gauge',
    'Members of the volume, as the register says.',
    ({ hosted }) => hosted.register.known?.members.length,
  ),
  perVolume(
    'holdfast_volume_in_sync_members',
    'gauge',
    'Of them, those that are in sync.',
    ({ hosted }) => hosted.register.known?.inSync.length,
  ),
  perPeer('holdfast_peer_joined', '1: that member follows this primary and has every record.', ({ phase }) =>
    flag(phase === 'joined'),
  ),
  perPeer('holdfast_peer_syncing', '1: that member is being brought in sync.', ({ sync }) => flag(sync !== null)),
  perPeer(
    'holdfast_peer_dirty_bytes',
    'What that member lacks, as far as this primary knows.',
    ({ dirtyBytes }) => dirtyBytes ?? 0,
  ),
  perPeer(
    'holdfast_peer_acknowledged_seq',
    'Number of the last record that member has acknowledged, within the epoch; 0: none of it.',
    ({ acked }, { epoch }) => (epochOf(acked) === epoch ? seqOf(acked) : 0),
  ),
  perPeer(
    'holdfast_reintegration_copied_bytes',
    'Copied to that member since its present reintegration began.',
    ({ sync }) => sync?.copiedBytes ?? 0,
  ),
  perPeer(
    'holdfast_reintegration_rate_bytes',
    'Bytes per second that are copied to that member.',
    ({ sync }) => sync?.bytesPerSecond ?? 0,
  ),
  perKind('holdfast_epoch_changes_total', 'Epochs that this replica has opened as their primary.', ['epoch-open']),
  perKind('holdfast_failovers_total', 'Times that this replica took over from another primary.', ['failover']),
  perKind('holdfast_members_lost_total', 'Times that this primary went on without a member.', ['member-lost']),
  perKind('holdfast_reintegrations_total', 'Times that this primary has brought a member in sync.', ['member-in-sync']),
  {
    name: 'holdfast_events_total',
    type: 'counter',
    help: 'Entries of the timeline, by kind.',
    values: ({ happened }) => happened.map(({ volume, kind, count }) => ({ labels: { volume, kind }, value: count })),
  },
  {
    name: 'holdfast_volumes_not_hosted',
    type: 'gauge',
    help: 'Folders of volumes that this node could not open.',
    values: ({ node }) => [{ labels: {}, value: node.unopened.length }],
  },
  {
    name: 'holdfast_streams_queued_bytes',
    type: 'gauge',
    help: 'Bytes that wait in the streams to other replicas for the kernel to take them.',
    values: ({ node }) => [{ labels: {}, value: node.network.queuedBytes }],
  },
  {
    name: 'holdfast_certificate_expires_timestamp_seconds',
    type: 'gauge',
    help: 'When the certificate of this node expires, or one between it and the CA; none without TLS.',
    values: ({ node: { certificateEndMs } }) =>
      certificateEndMs === null ? [] : [{ labels: {}, value: certificateEndMs / 1000 }],
  },
];

export const METRICS: readonly Family[] = [...CLIENTS, ...KEYS, ...DISK, ...REPLICAS];
