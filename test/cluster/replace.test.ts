/**
 * A replica whose disk failed under a running node, and one that is marked as poisoned: status says so and names one command,
 * and that command makes it good; never when it would drop the last copy.
 */
// deadline: 120 s
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { MemberView } from '../../src/cli/cluster-status.ts';
import { connect } from '../../src/client/index.ts';
import { IoPool } from '../../src/storage/io-pool.ts';
import { openVolume } from '../../src/storage/volume-folder.ts';
import { TestCluster } from '../support/cluster.ts';
import { Random } from '../support/random.ts';

const test = suite('replace');
const MiB = 1024 * 1024;

const prlimit = (pid: number, limit: string): void => {
  const { status, stderr, error } = spawnSync('prlimit', ['--pid', String(pid), `--fsize=${limit}`]);
  assert.is(status, 0, `prlimit: ${error?.message ?? stderr.toString()}`);
};

async function memberOf(cluster: TestCluster, node: string): Promise<MemberView> {
  return (await cluster.status()).volumes[0]!.members.find((one) => one.node === node)!;
}

async function withState(cluster: TestCluster, node: string, state: MemberView['state']): Promise<MemberView> {
  const view = await cluster.until(
    ({ volumes }) => volumes[0]?.members.some((one) => one.node === node && one.state === state) === true,
    `${node} to be ${state}`,
  );
  return view.volumes[0]!.members.find((one) => one.node === node)!;
}

/** As a failed sync leaves it. */
async function markPoisoned(folder: string): Promise<void> {
  const pool = new IoPool({
    arenaBytes: 24 * MiB,
    onLost: (error) => {
      throw error;
    },
  });
  const open = await openVolume(folder, pool);
  await open.store.update({ health: 'poisoned', healthReason: 'fdatasync of journal failed: EIO' });
  await open.close();
  await pool.close();
}

async function diskFails(cluster: TestCluster, victim: string, other: string): Promise<void> {
  const volume = await connect(cluster.url('disk'));
  const bytes = Buffer.from(new Random(7).bytes(MiB));
  await volume.write(0, bytes);
  const { pid } = cluster.slot(victim).running!.child;
  // From now on every write to a file of that process fails.
  prlimit(pid!, '1:unlimited');
  await volume.write(MiB, bytes);
  const poisoned = await withState(cluster, victim, 'poisoned');
  assert.match(poisoned.reason!, /failed/);
  assert.is(poisoned.remedy, `holdfast volume replace disk ${victim}`);
  const told = await cluster.cli('status');
  assert.is(told.code, 1);
  assert.match(told.stdout, new RegExp(`^DEGRADED: disk: ${victim} is poisoned`));
  assert.match(told.stdout, new RegExp(`to replace it: holdfast volume replace disk ${victim}`));

  // The other one is the last in sync.
  const refused = await cluster.cli('volume', 'replace', 'disk', other, '--yes');
  assert.is(refused.code, 1);
  assert.match(refused.stderr, /no other replica is in sync, sound and answers/);
  assert.is((await memberOf(cluster, other)).state, 'in-sync');

  // The disk is bad still: the replica is out, and the command says how to go on.
  const failed = await cluster.cli('volume', 'replace', 'disk', victim, '--allow-sparse');
  assert.is(failed.code, 1);
  assert.match(failed.stderr, /holdfast volume add-replica disk --node/);
  prlimit(pid!, 'unlimited');
  await cluster.must('volume', 'add-replica', 'disk', '--node', victim, '--allow-sparse');
  await cluster.untilSafe();
  assert.is(cluster.slot(victim).running!.child.pid, pid, 'its process went on');
  assert.ok(bytes.equals(await volume.read(MiB, MiB)));
  await volume.close();
}

async function marked(cluster: TestCluster, victim: string): Promise<void> {
  await cluster.kill(victim, 'SIGTERM');
  await markPoisoned(join(cluster.slot(victim).dir, 'volumes', 'disk'));
  await cluster.restart(victim);
  const poisoned = await withState(cluster, victim, 'poisoned');
  assert.match(poisoned.reason!, /fdatasync of journal failed/);
  const out = await cluster.must('volume', 'replace', 'disk', victim, '--allow-sparse', '--wait');
  assert.match(out, new RegExp(`${victim} is in sync`));
  await cluster.untilSafe();
}

if (spawnSync('prlimit', ['--version']).status !== 0) process.stdout.write('# skip: prlimit is not installed\n');
else {
  test('a disk fails under the primary; a disk is marked as poisoned; one command each, and all is as it was', async () => {
    // So slow that the primary has not overwritten the marked one by itself before the command is given.
    const cluster = await TestCluster.start(['a', 'b'], { args: ['--sync-rate', '4MiB'] });
    await cluster.create('disk', '16MiB', 2, '--allow-sparse');
    await cluster.untilSafe();
    const victim = await cluster.primary('disk');
    const other = victim === 'a' ? 'b' : 'a';
    await diskFails(cluster, victim, other);
    await marked(cluster, victim);
    // Nothing is wrong with it now: that is asked for, and without a terminal refused.
    const sound = await cluster.cli('volume', 'replace', 'disk', victim, '--allow-sparse');
    assert.is(sound.code, 1);
    assert.match(sound.stderr, /nothing is wrong with it/);
    const volume = await connect(cluster.url('disk'), { reads: 'all' });
    const bytes = Buffer.from(new Random(7).bytes(MiB));
    for (const at of [0, MiB]) assert.ok(bytes.equals(await volume.read(at, MiB)), `at ${at}`);
    await volume.close();
    assert.equal(await cluster.stopNodes(), { a: 0, b: 0 });
    await cluster.stop();
  });
}

test.run();
