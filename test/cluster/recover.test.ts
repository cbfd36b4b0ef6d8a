/**
 * The coordinator's data is lost: `holdfast coordinator recover` makes the registers anew from what real nodes say,
 * while they serve, after they were all killed, with one of them gone; on the embedded coordinator and on etcd. Nothing
 * that was acknowledged is lost, unless it was said before.
 */
// deadline: 300 s
import { renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { nodeStatus } from '../../src/cli/cluster.ts';
import { type Volume, connect } from '../../src/client/index.ts';
import { admin } from '../../src/client/admin.ts';
import { openCoordinator } from '../../src/coordination/open.ts';
import type { Member, Register } from '../../src/coordination/register.ts';
import { TestCluster, type TestClusterOptions } from '../support/cluster.ts';
import { CoordinatorProcess, etcdMissing } from '../support/coordinators.ts';
import { temporaryFolder } from '../support/server-process.ts';
import { until } from '../support/until.ts';

const other = (name: string): string => (name === 'a' ? 'b' : 'a');
const BLOCK = 4096;

/** With a volume `v` on both nodes, in sync. */
async function withCluster(options: TestClusterOptions, work: (cluster: TestCluster) => Promise<void>): Promise<void> {
  const cluster = await TestCluster.start(['a', 'b'], options);
  try {
    await cluster.create('v', '16MiB', 2);
    await cluster.untilSafe();
    await work(cluster);
  } catch (error) {
    console.log(cluster.log().split('\n').slice(-100).join('\n'));
    throw error;
  } finally {
    await cluster.stop();
  }
}

/** Writes each block once, its number into it, one after the other. */
class Filler {
  acknowledged = 0;
  private stopped = false;
  private readonly done: Promise<void>;
  private readonly volume: Volume;

  constructor(volume: Volume) {
    this.volume = volume;
    this.done = this.run();
  }

  private async run(): Promise<void> {
    while (!this.stopped && this.acknowledged < 4096) {
      await this.volume.write(this.acknowledged * BLOCK, Buffer.alloc(BLOCK, String(this.acknowledged % 7)));
      this.acknowledged++;
      // The volume is to last for the test.
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  }

  async more(count: number): Promise<void> {
    const goal = this.acknowledged + count;
    await until(() => this.acknowledged >= goal, 'more acknowledged writes');
  }

  async end(): Promise<void> {
    this.stopped = true;
    await this.done;
  }

  async check(volume: Volume): Promise<void> {
    const bytes = await volume.read(0, this.acknowledged * BLOCK);
    for (let i = 0; i < this.acknowledged; i++) {
      const wanted = Buffer.alloc(BLOCK, String(i % 7));
      assert.is(
        Buffer.compare(wanted, bytes.subarray(i * BLOCK, (i + 1) * BLOCK)),
        0,
        `block ${i} of ${this.acknowledged}`,
      );
    }
  }
}

async function loseFolder(cluster: TestCluster): Promise<string> {
  await cluster.coordinator.kill();
  const dir = join(cluster.dir, 'coordinator');
  rmSync(dir, { recursive: true });
  return dir;
}

async function startAgain(cluster: TestCluster, dir: string): Promise<void> {
  cluster.coordinator = await CoordinatorProcess.start(dir, cluster.coordinator.address);
}

const addresses = (cluster: TestCluster, ...names: string[]): string[] => [
  '--from',
  ...names.map((name) => cluster.slot(name).address),
];

const recover = (cluster: TestCluster, ...args: string[]): ReturnType<TestCluster['cli']> =>
  cluster.cli('coordinator', 'recover', ...args);

const registersOf = (stdout: string): Register[] => (JSON.parse(stdout) as { registers: Register[] }).registers;

async function equal(cluster: TestCluster): Promise<void> {
  await cluster.untilSafe();
  await cluster.stopNodes();
  await cluster.compare('v', ['a', 'b']);
}

const test = suite("the coordinator's data is lost");

test('while the volume is written: nothing acknowledged is lost, the callers see a pause', () =>
  withCluster({}, async (cluster) => {
    const volume = await connect(cluster.url('v'), { retryMs: 120_000 });
    const filler = new Filler(volume);
    await filler.more(50);
    const dir = await loseFolder(cluster);
    await filler.more(50);
    const unasked = await recover(cluster, '--dir', dir, ...addresses(cluster, 'a', 'b'));
    assert.match(unasked.stderr, /v \(16 MiB\) gets a new register.*add --yes/s);
    await filler.more(20);
    const done = await recover(cluster, '--dir', dir, ...addresses(cluster, 'a', 'b'), '--yes', '--json');
    assert.is(done.code, 0, done.stderr);
    assert.is(registersOf(done.stdout).length, 1);
    assert.is(registersOf(done.stdout)[0]!.epoch, 2);
    const before = filler.acknowledged;
    for (const name of ['a', 'b']) {
      const [replica] = (await nodeStatus(cluster.slot(name).address)).replicas;
      assert.equal([replica!.serving, replica!.role], [false, 'idle'], 'nobody serves before there is a coordinator');
    }
    assert.is(filler.acknowledged, before);
    await startAgain(cluster, dir);
    await filler.more(50);
    await filler.end();
    await filler.check(volume);
    await cluster.untilSafe();
    // All is as before: a failover too.
    await cluster.kill(await cluster.primary('v'));
    await filler.check(volume);
    for (const name of ['a', 'b']) if (cluster.slot(name).running === null) await cluster.restart(name);
    const again = await recover(cluster, '--yes');
    assert.match(again.stdout, /no new register was needed/);
    await volume.close();
    await equal(cluster);
  }));

test('a replica that had been left behind is not taken for one in sync', () =>
  withCluster({}, async (cluster) => {
    const volume = await connect(cluster.url('v'));
    const filler = new Filler(volume);
    await filler.more(20);
    const primary = await cluster.primary('v');
    await cluster.kill(other(primary));
    await filler.more(50);
    await filler.end();
    await volume.close();
    await cluster.kill(primary);
    const dir = await loseFolder(cluster);
    // It has seen the same epoch, and its disk says that it is in sync.
    await cluster.restart(other(primary));
    const alone = await recover(cluster, '--dir', dir, ...addresses(cluster, 'a', 'b'), '--yes');
    assert.is(alone.code, 1);
    assert.match(alone.stderr, /a node does not answer/);
    assert.match(alone.stderr, /only . has a replica/);
    await cluster.restart(primary);
    const done = await recover(cluster, '--dir', dir, ...addresses(cluster, 'a', 'b'), '--yes', '--json');
    assert.is(done.code, 0, done.stderr);
    assert.equal(registersOf(done.stdout)[0]!.inSync, [primary]);
    await startAgain(cluster, dir);
    await cluster.untilServed('v');
    const after = await connect(cluster.url('v'));
    await filler.check(after);
    await after.close();
    await equal(cluster);
  }));

test('by force without a node that is gone: what that means is said', () =>
  withCluster({}, async (cluster) => {
    const volume = await connect(cluster.url('v'));
    const filler = new Filler(volume);
    await filler.more(20);
    await filler.end();
    await volume.close();
    await cluster.kill('a', 'SIGTERM');
    const dir = await loseFolder(cluster);
    const args = ['--dir', dir, ...addresses(cluster, 'a', 'b'), '--yes'];
    const refused = await recover(cluster, ...args);
    assert.is(refused.code, 1);
    assert.match(refused.stderr, /a node does not answer.*add --force/);
    // Its folder is there, and is no volume any more.
    const meta = join(cluster.slot('a').dir, 'volumes', 'v', 'meta');
    renameSync(meta, `${meta}.whole`);
    writeFileSync(meta, 'nothing of a superblock');
    await cluster.restart('a');
    assert.match((await recover(cluster, ...args)).stderr, /a could not open .*add --force/);
    await cluster.kill('a', 'SIGTERM');
    renameSync(`${meta}.whole`, meta);
    const done = await recover(cluster, ...args, '--force');
    assert.is(done.code, 0, done.stderr);
    assert.match(done.stderr, /MAY BE LOST/);
    assert.match(done.stdout, /in sync: b/);
    await startAgain(cluster, dir);
    await cluster.untilServed('v');
    const after = await connect(`holdfast://${cluster.slot('b').address}/v`);
    await filler.check(after);
    await after.close();
    // The one that was gone is a stranger to that register.
    await cluster.restart('a');
    const view = await cluster.status();
    assert.equal(
      view.volumes[0]!.members.map(({ node }) => node),
      ['b'],
    );
  }));

test('an attempt that ended half way is ended by the next one', () =>
  withCluster({}, async (cluster) => {
    const primary = await cluster.primary('v');
    const all = ['a', 'b'].map((name) => cluster.slot(name).address);
    await startAgain(cluster, await loseFolder(cluster));
    const [replica] = (await nodeStatus(cluster.slot(primary).address)).replicas;
    // What the command does, up to the register.
    for (const address of all) {
      await admin(address, { op: 'await-register', volumeId: replica!.volumeId }, { timeoutMs: 30_000 });
    }
    const members: Member[] = [];
    for (const asked of all) {
      const { node, address, clientAddress, replicas } = await nodeStatus(asked);
      members.push({ node, address, clientAddress, diskId: replicas[0]!.diskId });
    }
    const { volumeId, sizeBytes, epoch } = replica!;
    const coordinator = openCoordinator(cluster.coordinatorUrl);
    const by = { node: 'cli', bootId: 'test', n: 1 };
    const inSync = ['a', 'b'];
    await coordinator.create({ volumeId, volume: 'v', sizeBytes, epoch: epoch + 1, primary: '', inSync, members, by });
    await coordinator.close();
    assert.match((await recover(cluster, ...addresses(cluster, 'a', 'b'))).stderr, /is handed to a, b/);
    const done = await recover(cluster, ...addresses(cluster, 'a', 'b'), '--yes');
    assert.is(done.code, 0, done.stderr);
    assert.match(done.stdout, /no new register was needed/);
    await equal(cluster);
  }));

test('where the nodes have their register nothing is done', () =>
  withCluster({}, async (cluster) => {
    const dir = join(temporaryFolder(), 'elsewhere');
    const { code, stderr } = await recover(cluster, '--dir', dir, ...addresses(cluster, 'a', 'b'), '--yes');
    assert.is(code, 1);
    assert.match(stderr, /BUSY|EBUSY/);
    assert.match(stderr, /has the register that this replica belongs to/);
    await cluster.untilSafe();
    const running = await recover(
      cluster,
      '--dir',
      join(cluster.dir, 'coordinator'),
      ...addresses(cluster, 'a'),
      '--yes',
    );
    assert.match(running.stderr, /in use by another process/);
  }));

if (etcdMissing() === null) {
  test('on etcd: its keys are gone, the nodes are those that it hears of', () =>
    withCluster({ coordinator: 'etcd' }, async (cluster) => {
      const volume = await connect(cluster.url('v'), { retryMs: 120_000 });
      const filler = new Filler(volume);
      await filler.more(50);
      for (const kind of ['registers', 'names']) cluster.etcd.ctl('del', '--prefix', `holdfast/${kind}/`);
      await filler.more(50);
      const done = await recover(cluster, '--yes');
      assert.is(done.code, 0, done.stderr);
      await filler.more(50);
      await filler.end();
      await filler.check(volume);
      await volume.close();
      await equal(cluster);
    }));
}

test.run();
