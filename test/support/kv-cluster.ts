/** Three nodes with a key-value volume on each, and Redis ports: real processes, real clients. */
import { Redis } from 'ioredis';
import { TestCluster } from './cluster.ts';
import { freePorts } from './free-ports.ts';

export const NAMES = ['a', 'b', 'c'];
export const VOLUME = 'keys';

export class KvCluster {
  readonly cluster: TestCluster;
  private readonly ports: ReadonlyMap<string, number>;
  private readonly opened: Redis[] = [];

  private constructor(cluster: TestCluster, ports: ReadonlyMap<string, number>) {
    this.cluster = cluster;
    this.ports = ports;
  }

  /** All of them ALIVE. */
  static async start(size: string, ...args: string[]): Promise<KvCluster> {
    const free = await freePorts(NAMES.length);
    const ports = new Map(NAMES.map((name, i) => [name, free[i]!]));
    const cluster = await TestCluster.start([]);
    for (const name of NAMES) await cluster.add(name, '--kv', `127.0.0.1:${ports.get(name)!}`, ...args);
    await cluster.create(VOLUME, size, NAMES.length, '--kind', 'kv', '--allow-sparse');
    const kv = new KvCluster(cluster, ports);
    await kv.alive();
    return kv;
  }

  /** For the client library: of these nodes. */
  url(names: readonly string[] = NAMES): string {
    return `holdfast-kv://${names.map((name) => this.address(name)).join(',')}/${VOLUME}`;
  }

  /** Where clients of our protocol connect. */
  address(name: string): string {
    return this.cluster.slot(name).address;
  }

  port(name: string): number {
    return this.ports.get(name)!;
  }

  /** Waits until every node answers GETs. */
  async alive(names: readonly string[] = NAMES): Promise<void> {
    await this.cluster.until(
      ({ volumes }) => {
        const members = volumes[0]?.members.filter(({ node }) => names.includes(node)) ?? [];
        return members.length === names.length && members.every(({ mode }) => mode === 'ALIVE');
      },
      `${names.join(', ')} to be ALIVE`,
    );
  }

  /**
   * To the port of one node alone.
   * @param once it ends with its connection. Else it connects again, and sends again what was not answered: which is then
   * executed twice, since Redis has no request numbers
   */
  connect(name: string, once = false): Redis {
    const retryStrategy = (): number | null => (once ? null : 50);
    const redis = new Redis({ port: this.port(name), host: '127.0.0.1', retryStrategy });
    // Told by what fails of it.
    redis.on('error', () => {});
    this.opened.push(redis);
    return redis;
  }

  async roles(): Promise<{ primary: string; backups: [string, string] }> {
    const primary = await this.cluster.primary(VOLUME);
    const backups = NAMES.filter((name) => name !== primary) as [string, string];
    return { primary, backups };
  }

  /** Everything, as one node answers it; values in base64. */
  async dump(name: string): Promise<Record<string, string>> {
    const redis = this.connect(name);
    const all: Record<string, string> = {};
    for await (const keys of redis.scanBufferStream({ count: 500 })) {
      const names = keys as Buffer[];
      if (names.length === 0) continue;
      const values = await redis.mgetBuffer(...names);
      names.forEach((key, i) => (all[key.toString('latin1')] = values[i]!.toString('base64')));
    }
    redis.disconnect();
    return all;
  }

  async stop(): Promise<void> {
    for (const redis of this.opened) redis.disconnect();
    await this.cluster.stop();
  }
}
