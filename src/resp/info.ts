/**
 * INFO: what is known of the server and its volume, under the names that Redis gives it. Clients look at `redis_version`,
 * `loading`, `role`, `cluster_enabled` and `redis_mode`; people at the rest.
 */
import type { KvInfo } from '../kv/operations.ts';
import type { ClientState } from './client-state.ts';
import type { Args } from './command.ts';
import { failureOf } from './failures.ts';
import { asHoldfastError } from '../base/errors.ts';
import { type AnyReply, Text } from './reply.ts';

type Fields = Record<string, string | number>;

const SECTIONS: Readonly<Record<string, (client: ClientState, kv: KvInfo) => Fields>> = {
  Server: (client) => {
    const { serverInfo } = client.node;
    const upSeconds = Math.max(0, Math.floor((client.node.now() - serverInfo.startedAtMs) / 1000));
    return {
      redis_version: serverInfo.redisVersion,
      holdfast_version: serverInfo.version,
      redis_mode: 'standalone',
      arch_bits: 64,
      process_id: serverInfo.processId,
      run_id: serverInfo.runId,
      tcp_port: serverInfo.tcpPort,
      uptime_in_seconds: upSeconds,
      uptime_in_days: Math.floor(upSeconds / 86_400),
    };
  },
  Clients: (client) => ({
    connected_clients: [...(client.node.clients?.() ?? [client])].length,
    blocked_clients: 0,
  }),
  Memory: (_client, kv) => ({ used_memory: kv.liveBytes, maxmemory: 0, maxmemory_policy: 'noeviction' }),
  // Whatever was answered is in the journal.
  Persistence: () => ({ loading: 0, async_loading: 0, rdb_bgsave_in_progress: 0, aof_enabled: 1 }),
  Replication: (client, kv) => ({
    role: kv.role === 'primary' ? 'master' : 'slave',
    connected_slaves: client.node.replicas?.() ?? 0,
    master_repl_offset: kv.version,
  }),
  Cluster: () => ({ cluster_enabled: 0 }),
  Keyspace: (_client, kv): Fields => (kv.keys === 0 ? {} : { db0: `keys=${kv.keys},expires=${kv.expiring},avg_ttl=0` }),
  Holdfast: (_client, kv) => ({
    volume: kv.volume,
    volume_role: kv.role,
    volume_state: kv.state,
    volume_epoch: kv.epoch,
    volume_version: kv.version,
    volume_live_bytes: kv.liveBytes,
    volume_used_bytes: kv.usedBytes,
    volume_size_bytes: kv.sizeBytes,
    max_key_bytes: kv.limits.maxKeyBytes,
    max_value_bytes: kv.limits.maxValueBytes,
    max_transaction_bytes: kv.limits.maxTransactionBytes,
  }),
};

const ALL = ['all', 'default', 'everything'];

export function info(args: Args, client: ClientState): AnyReply {
  const wanted = new Set(args.slice(1).map((arg) => arg.toString('latin1').toLowerCase()));
  const every = wanted.size === 0 || ALL.some((word) => wanted.has(word));
  let kv: KvInfo;
  try {
    kv = client.node.volume().info();
  } catch (error) {
    return failureOf(asHoldfastError(error, { operation: 'info' }));
  }
  const parts: string[] = [];
  for (const [title, fields] of Object.entries(SECTIONS)) {
    if (!every && !wanted.has(title.toLowerCase())) continue;
    const lines = Object.entries(fields(client, kv)).map(([name, value]) => `${name}:${value}\r\n`);
    parts.push(`# ${title}\r\n${lines.join('')}`);
  }
  return new Text(parts.join('\r\n'));
}
