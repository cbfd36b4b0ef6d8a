/**
 * A cluster of real processes on a real etcd of three members: one of them is killed together with the primary, all of
 * them are; with a user and a password, and over TLS. How long a failover takes is printed, not judged.
 */
// deadline: 300 s
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { nodeStatus } from '../../src/cli/cluster.ts';
import { type Volume, connect } from '../../src/client/index.ts';
import { TestCluster, type TestClusterOptions } from '../support/cluster.ts';
import { type EtcdCluster, etcdMissing } from '../support/coordinators.ts';
import { temporaryFolder } from '../support/server-process.ts';
import { TestCa } from '../support/tls-files.ts';

const missing = etcdMissing();
if (missing !== null) console.log(`# skip: ${missing}`);
else main();

const text = (bytes: Uint8Array): string => Buffer.from(bytes).toString();
const other = (name: string): string => (name === 'a' ? 'b' : 'a');

/** With a volume `v` on both nodes, in sync. */
async function onEtcd(options: TestClusterOptions, work: (cluster: TestCluster) => Promise<void>): Promise<void> {
  const cluster = await TestCluster.start(['a', 'b'], { ...options, coordinator: 'etcd' });
  try {
    await cluster.create('v', '16MiB', 2);
    await cluster.untilSafe();
    await work(cluster);
  } catch (error) {
    console.log(cluster.log().split('\n').slice(-120).join('\n'));
    throw error;
  } finally {
    await cluster.stop();
  }
}

/** A client that counts, in one block: each number is written after the one before was acknowledged. */
class Counter {
  count = 0;
  private stopped = false;
  private readonly done: Promise<void>;
  private readonly volume: Volume;

  constructor(volume: Volume) {
    this.volume = volume;
    this.done = this.run();
  }

  private async run(): Promise<void> {
    const bytes = Buffer.alloc(8);
    while (!this.stopped) {
      bytes.writeDoubleLE(this.count + 1);
      await this.volume.write(0, bytes);
      this.count++;
      assert.is(Buffer.from(await this.volume.read(0, 8)).readDoubleLE(), this.count);
    }
  }

  async more(count: number): Promise<void> {
    const goal = this.count + count;
    while (this.count < goal) await Promise.race([this.done, new Promise((resolve) => setTimeout(resolve, 2))]);
  }

  async end(): Promise<void> {
    this.stopped = true;
    await this.done;
  }
}

/** Kills the primary under load, together with a member of etcd if there is one to be; prints how long it took. */
async function failOver(cluster: TestCluster, member: { name: string; i: number } | null = null): Promise<void> {
  const volume = await connect(cluster.url('v'));
  const counter = new Counter(volume);
  await counter.more(50);
  const primary = await cluster.primary('v');
  const startMs = performance.now();
  await Promise.all([cluster.kill(primary), member === null ? null : cluster.etcd.kill(member.i)]);
  await counter.more(2);
  const tookMs = performance.now() - startMs;
  console.log(
    `# the primary and ${member?.name ?? 'nothing of etcd'} killed: ${tookMs.toFixed(0)} ms without an answer`,
  );
  await counter.more(50);
  assert.is(await cluster.primary('v'), other(primary));
  await counter.end();
  await cluster.restart(primary);
  if (member !== null) cluster.etcd.restart(member.i);
  await cluster.untilSafe();
  await volume.close();
}

function main(): void {
  const test = suite('cluster on etcd');

  test('the primary is killed, with the leader of etcd, with a follower, with none', () =>
    onEtcd({}, async (cluster) => {
      await failOver(cluster);
      await failOver(cluster, { name: "etcd's leader", i: cluster.etcd.leader() });
      const follower = [0, 1, 2].find((i) => i !== cluster.etcd.leader())!;
      await failOver(cluster, { name: 'a follower of etcd', i: follower });
      await cluster.stopNodes();
      await cluster.compare('v', ['a', 'b']);
    }));

  test('without etcd reads and writes go on; a failover waits for it, and happens', () =>
    onEtcd({}, async (cluster) => {
      const { etcd } = cluster;
      const volume = await connect(cluster.url('v'), { retryMs: 120_000 });
      const counter = new Counter(volume);
      await counter.more(50);
      const primary = await cluster.primary('v');
      for (const i of etcd.members.keys()) await etcd.kill(i);
      await counter.more(100);
      await cluster.kill(primary);
      const before = counter.count;
      // The other one wants to be primary, and says what it waits for.
      const { address } = cluster.slot(other(primary));
      const waits = async (): Promise<string> => (await nodeStatus(address)).replicas[0]!.waits ?? '';
      while (!/the coordinator does not answer/.test(await waits()));
      assert.ok(counter.count <= before + 1, 'nobody may answer');
      assert.is((await nodeStatus(address)).replicas[0]!.serving, false);
      const startMs = performance.now();
      for (const i of etcd.members.keys()) etcd.restart(i);
      await counter.more(2);
      console.log(`# etcd started again: ${(performance.now() - startMs).toFixed(0)} ms until the first answer`);
      assert.is(await cluster.primary('v'), other(primary));
      await counter.end();
      await cluster.restart(primary);
      await cluster.untilSafe();
      await volume.close();
      await cluster.stopNodes();
      await cluster.compare('v', ['a', 'b']);
    }));

  test('with a user and a password', () =>
    onEtcd(
      { env: { HOLDFAST_ETCD_USER: 'h', HOLDFAST_ETCD_PASSWORD: 'pass' }, prepare: withUsers },
      async (cluster) => {
        await failOver(cluster);
        const { code, stdout } = await cluster.cli('status');
        assert.is(code, 0, stdout);
        cluster.env['HOLDFAST_ETCD_PASSWORD'] = 'wrong';
        const refused = await cluster.cli('volume', 'list');
        assert.is(refused.code, 1);
        assert.match(refused.stderr, /EACCES/);
      },
    ));

  test('over TLS', async () => {
    const ca = new TestCa(join(temporaryFolder(), 'ca'));
    const { certFile, keyFile } = ca.issue('node');
    const etcdTls = { ...ca.issue('server'), caFile: ca.certFile };
    const env = { HOLDFAST_ETCD_CA: ca.certFile, HOLDFAST_ETCD_CERT: certFile, HOLDFAST_ETCD_KEY: keyFile };
    await onEtcd({ etcdTls, env }, async (cluster) => {
      await failOver(cluster, { name: "etcd's leader", i: cluster.etcd.leader() });
      const volume = await connect(cluster.url('v'));
      assert.is.not(text(await volume.read(0, 8)), '\0'.repeat(8));
      await volume.close();
    });
  });

  test.run();
}

function withUsers(etcd: EtcdCluster): void {
  etcd.ctl('user', 'add', 'root:secret');
  etcd.ctl('role', 'add', 'holdfast');
  etcd.ctl('role', 'grant-permission', 'holdfast', 'readwrite', 'holdfast/', 'holdfast0');
  etcd.ctl('user', 'add', 'h:pass');
  etcd.ctl('user', 'grant-role', 'h', 'holdfast');
  etcd.ctl('user', 'grant-role', 'root', 'root');
  etcd.ctl('auth', 'enable');
}
